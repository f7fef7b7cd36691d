"""Where operators come from: specs, generated modules, models of the caller, and data of any form."""

from __future__ import annotations

import copy
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from dense_oracle import Case, agrees, close
from torch import nn

import sifrc

CASE = Case("dense")


class Model(nn.Module):
    """The network of ``CASE`` under other names, registered in another order."""

    def __init__(self, activation: Any = torch.tanh) -> None:
        super().__init__()
        self.head = nn.Linear(4, 3)
        self.body = nn.ModuleDict({"first": nn.Linear(4, 5), "second": nn.Linear(5, 4, bias=False)})
        self.activation = activation
        self.double()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = self.body["second"](self.activation(self.body["first"](x)))
        return self.head(nn.functional.softplus(hidden))


NAMES = {"fc1": "body.first", "fc2": "body.second", "out": "head"}


def model(**more: Any) -> Model:
    found = Model(**more)
    own = dict(found.named_parameters())
    with torch.no_grad():
        for name, value in CASE.params.items():
            layer, _, slot = name.rpartition(".")
            own[f"{NAMES[layer]}.{slot}"].copy_(value)
    return found


def order() -> torch.Tensor:
    """Positions in the matrices of the case, in the order of the model."""
    sizes = [value.numel() for value in CASE.params.values()]
    where = dict(zip(CASE.params, torch.split(torch.arange(60), sizes), strict=True))
    return torch.cat(
        [where[name] for name in ("out.weight", "out.bias", "fc1.weight", "fc1.bias", "fc2.weight")]
    )


def test_a_model_has_its_own_names_and_order() -> None:
    ops = sifrc.operators(model(), None, CASE.batches, spec=CASE.data, names=NAMES)
    assert list(ops.space.shapes) == [
        "head.weight",
        "head.bias",
        "body.first.weight",
        "body.first.bias",
        "body.second.weight",
    ]
    at = order()
    agrees(ops.H, CASE.H[at][:, at])
    agrees(ops.J, CASE.J[:, at])
    agrees(ops.blocks("ggn"), CASE.block_diagonal(CASE.G)[at][:, at])
    agrees(ops.H["body"], CASE.H[at][:, at][15:, 15:])
    assert list(ops.groups) and set(ops.groups["fc1.weight"]) == {"body.first.weight"}
    found = ops.kronecker("ggn").to_dense()
    expected = CASE.operators().kronecker("ggn").to_dense()
    torch.testing.assert_close(found, expected[at][:, at], rtol=0, atol=1e-13)


class Nested(nn.Module):
    """Modules in modules, a function and a weight that are used twice, one that is not used."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 3, 3, padding=1), nn.BatchNorm2d(3), nn.Tanh())
        self.block = nn.ModuleDict({"inner": nn.Conv2d(3, 3, 3, padding=1)})
        self.unused = nn.Linear(2, 2)
        self.head = nn.Linear(12, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        x = x + torch.tanh(self.block["inner"](x))
        x = x + torch.tanh(self.block["inner"](x))
        return self.head(torch.nn.functional.avg_pool2d(x, 2).flatten(1))


@pytest.mark.parametrize("training", [False, True], ids=["evaluation", "training"])
def test_a_module_of_torch_needs_no_spec(training: bool) -> None:
    torch.manual_seed(0)
    module = Nested().double().train(training)
    module(torch.randn(8, 1, 4, 4, dtype=torch.float64))  # running statistics of its own
    inputs, targets = torch.randn(6, 1, 4, 4, dtype=torch.float64), torch.randint(4, (6,))
    sizes = (6,) if training else (2, 4)  # statistics are those of a batch
    data = list(zip(inputs.split(sizes), targets.split(sizes), strict=True))
    before = {name: value.clone() for name, value in module.state_dict().items()}
    ops = sifrc.operators(module, nn.CrossEntropyLoss(), data)
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    params = {name: value.detach() for name, value in module.named_parameters() if "unused" not in name}
    assert list(ops.space.shapes) == list(params)

    def outputs(values: dict[str, torch.Tensor]) -> torch.Tensor:
        found: torch.Tensor = torch.func.functional_call(copy.deepcopy(module), values, (inputs,))
        return found

    def loss(values: dict[str, torch.Tensor]) -> torch.Tensor:
        return nn.functional.cross_entropy(outputs(values), targets)

    drawn = torch.Generator().manual_seed(1)
    vector = {
        name: torch.randn(value.shape, generator=drawn, dtype=torch.float64) for name, value in params.items()
    }
    hessian = ops.H @ vector
    if not training:  # of statistics in training, PyTorch's second derivatives are those of a fused function
        expected = torch.func.jvp(torch.func.grad(loss), (params,), (vector,))[1]
        close(ops.space.join(hessian), ops.space.join(expected))
    moved = torch.func.jvp(outputs, (params,), (vector,))[1]
    close((ops.J @ vector)["outputs"], moved)
    pulled = torch.func.vjp(outputs, params)[1](moved)[0]
    close(ops.space.join(ops.J.T @ {"outputs": moved}), ops.space.join(pulled))


def test_a_generated_network_knows_its_spec() -> None:
    module = sifrc.compile(CASE.data, "torch", "none", ("gradient",))
    network = module.Network()
    network.load_state_dict(CASE.params)
    for given in (network, module):
        more = {} if given is network else {"params": CASE.params}
        agrees(sifrc.operators(given, None, CASE.batches, **more).H, CASE.H)


def test_another_loss_over_the_spec() -> None:
    squares = Case("dense", "squared_error")
    agrees(sifrc.operators(CASE.data, "squared_error", squares.batches, params=CASE.params).H, squares.H)
    agrees(sifrc.operators(squares.data, nn.CrossEntropyLoss(), CASE.batches, params=CASE.params).G, CASE.G)
    with pytest.raises(sifrc.OperatorError, match="NLLLoss takes logarithms of probabilities"):
        sifrc.operators(CASE.data, nn.NLLLoss(), CASE.batches)
    with pytest.raises(sifrc.SifrcError):
        sifrc.operators(CASE.data, 3.0, CASE.batches)


def test_data_of_any_form() -> None:
    loader = torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(CASE.inputs, CASE.targets), batch_size=3
    )

    def once() -> Iterator[Any]:
        yield from CASE.batches

    for data in (loader, once(), tuple(CASE.batches), [list(pair) for pair in CASE.batches]):
        ops = sifrc.operators(CASE.data, None, data, params=CASE.params)
        agrees(ops.G, CASE.G)


@pytest.mark.parametrize(
    "data, message",
    [
        ([], "data: no batch"),
        (torch.ones(3, 4), "data: an object of type Tensor"),
        ([torch.ones(3, 4)], "data: batch 1 is an object of type Tensor"),
        ((torch.ones(0, 4).double(), torch.ones(0).long()), r"inputs of shape \(0, 4\)"),
        ((torch.ones(3, 4), torch.ones(3).long()), "inputs of torch.float32, and the parameters are of"),
        ((torch.full((3, 4), float("nan")).double(), torch.ones(3).long()), "numbers that are not finite"),
        (([1.0, 2.0], torch.ones(2).long()), "is an object of type float"),
    ],
)
def test_wrong_data_is_refused(data: Any, message: str) -> None:
    with pytest.raises(sifrc.OperatorError, match=message) as caught:
        sifrc.operators(CASE.data, None, data, params=CASE.params)
    assert caught.value.hint


def test_a_batch_that_does_not_fit_is_named() -> None:
    inputs, targets = CASE.batches[1]
    ops = sifrc.operators(CASE.data, None, [CASE.batches[0], (inputs[:, :3], targets)], params=CASE.params)
    with pytest.raises(sifrc.OperatorError, match=r"batch 2: inputs: expected shape \(B, 4\)"):
        ops.H @ torch.ones(60, dtype=torch.float64)


def test_a_model_that_is_not_the_spec_is_refused() -> None:
    given: dict[str, Any] = {"spec": CASE.data, "names": NAMES}
    with pytest.raises(sifrc.OperatorError, match="the outputs of the model differ"):
        sifrc.operators(model(activation=torch.sin), None, CASE.batches, **given)
    with pytest.raises(sifrc.OperatorError, match=r"it has no 'fc1.weight'"):
        sifrc.operators(model(), None, CASE.batches, spec=CASE.data)
    with pytest.raises(sifrc.OperatorError, match="no loss for a torch module of type Model"):
        sifrc.operators(model(), None, CASE.batches)
    with pytest.raises(sifrc.OperatorError, match="names or a mode for a torch module without a spec"):
        sifrc.operators(model(), "cross_entropy", CASE.batches, mode="training")
    with pytest.raises(sifrc.OperatorError, match="params beside a torch module"):
        sifrc.operators(model(), "cross_entropy", CASE.batches, params=CASE.params)
    with pytest.raises(sifrc.OperatorError, match="'fc9' is neither a parameter nor a layer"):
        sifrc.operators(model(), None, CASE.batches, spec=CASE.data, names={"fc9": "head"})
    with pytest.raises(sifrc.OperatorError, match=r"'head.weight' has shape"):
        wrong = {"fc1": "head", "out": "body.first", "fc2": "body.second"}
        sifrc.operators(model(), None, CASE.batches, spec=CASE.data, names=wrong)
    half = model().half()
    with pytest.raises(sifrc.OperatorError, match=r"is of torch.float16"):
        sifrc.operators(half, None, CASE.batches, **given)


def test_wrong_parameters_are_refused() -> None:
    for change, message in (
        ({"fc1.wieght": torch.ones(5, 4)}, "'fc1.wieght' is none of them"),
        ({"fc1.weight": torch.ones(4, 5)}, r"params\['fc1.weight'\] is \(4, 5\)"),
        ({"fc1.weight": torch.ones(5, 4)}, "parameter 'fc1.bias' is torch.float64"),
        ({"fc1.weight": torch.full((5, 4), float("inf")).double()}, "numbers that are not finite"),
    ):
        with pytest.raises(sifrc.OperatorError, match=message):
            sifrc.operators(CASE.data, None, CASE.batches, params={**CASE.params, **change})
    with pytest.raises(sifrc.OperatorError, match=r"'out.bias' is missing"):
        some = {name: value for name, value in CASE.params.items() if name != "out.bias"}
        sifrc.operators(CASE.data, None, CASE.batches, params=some)


def test_several_batches_of_a_mean_over_what_counts_are_refused() -> None:
    loss = {"function": "cross_entropy", "class_weights": [1, 2, 3]}
    with pytest.raises(sifrc.OperatorError, match="each of 3 batches has others"):
        sifrc.operators(CASE.data, loss, CASE.batches, params=CASE.params)
    one = sifrc.operators(CASE.data, loss, (CASE.inputs, CASE.targets), params=CASE.params)
    summed = sifrc.operators(CASE.data, {**loss, "reduction": "sum"}, CASE.batches, params=CASE.params)
    weights = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)[CASE.targets].sum()
    agrees(one.H, summed.H.to_dense() / weights)


class Several(Model):
    """The network of ``CASE`` among other outputs."""

    give: Any

    def forward(self, x: torch.Tensor) -> Any:
        return self.give(super().forward(x), x)


GIVEN: dict[str, tuple[Any, int | str | None]] = {
    "logits of a mapping": (lambda y, x: {"hidden": x, "logits": y}, None),
    "a name": (lambda y, x: {"hidden": x, "scores": y}, "scores"),
    "a place": (lambda y, x: (x, y), 1),
}


@pytest.mark.parametrize("case", GIVEN)
def test_one_of_several_outputs_is_compared_with_the_spec(case: str) -> None:
    """By the rule by which a module is imported, and the outputs are compared, not passed over."""
    give, output = GIVEN[case]
    several = Several()
    several.load_state_dict(model().state_dict())
    given: dict[str, Any] = {"spec": CASE.data, "names": NAMES, "output": output}
    several.give = give
    ops = sifrc.operators(several, None, CASE.batches, **given)
    close(
        ops.gradient("flat"),
        sifrc.operators(model(), None, CASE.batches, **given | {"output": None}).gradient("flat"),
    )
    several.give = lambda y, x: give(1.01 * y, x)
    with pytest.raises(sifrc.OperatorError, match="the outputs of the model differ"):
        sifrc.operators(several, None, CASE.batches, **given)


def test_outputs_that_are_none_of_the_spec() -> None:
    several = Several()
    given: dict[str, Any] = {"spec": CASE.data, "names": NAMES}
    for value, more, kind, message in (
        (lambda y, x: {"scores": y}, {}, sifrc.OperatorError, "the model returns a dict, and"),
        (lambda y, x: (y, x), {}, sifrc.OperatorError, "the model returns a tuple, and"),
        (lambda y, x: y[:, :2], {}, sifrc.OperatorError, r"gives outputs of shape \(\d+, 2\), and"),
        (lambda y, x: (y, x), {"output": 5}, sifrc.ModuleImportError, "a tuple without an output 5"),
        (lambda y, x: {"a": y}, {"output": "b"}, sifrc.ModuleImportError, "a dict without an output 'b'"),
    ):
        several.give = value
        with pytest.raises(kind, match=message) as caught:
            sifrc.operators(several, None, CASE.batches, **given, **more)
        assert caught.value.hint


def test_networks_that_differ_in_training() -> None:
    """Dropout draws the same for the same seed; a model in evaluation is normalised by its buffers."""
    layers = [
        {"name": "fc", "type": "dense", "units": 6, "activation": "tanh"},
        {"name": "norm", "type": "batch_norm"},
        {"name": "drop", "type": "dropout", "probability": 0.4},
        {"name": "out", "type": "dense", "units": 3},
    ]
    data = {**CASE.data, "network": {"input": {"name": "image", "size": 4}, "layers": layers}}
    network = sifrc.compile(data, "torch", "none", ("gradient",)).Network(seed=3)
    network.get_buffer("norm.running_mean").add_(0.3)
    batches = CASE.batches[::2]
    vector = torch.linspace(-1, 1, sum(value.numel() for value in network.parameters()), dtype=torch.float64)

    def product(seed: int = 0) -> torch.Tensor:
        found = sifrc.operators(network, None, batches, seed=seed)
        back = found.J.T @ torch.ones(found.J.shape[0], dtype=torch.float64)
        assert abs(float(back @ vector) - float((found.J @ vector).sum())) < 1e-10
        return found.H @ vector

    assert torch.equal(product(1), product(1)) and not torch.equal(product(1), product(2))
    before = product()
    network.eval()
    assert torch.equal(product(1), product(2)) and not torch.equal(product(), before)
    values = dict(network.named_parameters()) | dict(network.named_buffers())
    agrees(
        sifrc.operators(data, None, batches, params=values, mode="evaluation").H["out"],
        sifrc.operators(network, None, batches).H["out"].to_dense(),
    )


def test_the_package_is_imported_when_it_is_used() -> None:
    code = "import sys, sifrc; sifrc.operators; print('torch' in sys.modules, 'sifrc.linear' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["False", "False"]


def test_a_bar_is_shown_where_somebody_looks(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr("sifrc.linear.progress.PATIENCE", 0.0)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    ops = CASE.operators()
    ops.H @ torch.ones(60, 2, dtype=torch.float64)
    shown = capsys.readouterr()
    assert shown.out == "" and "H @ matrix" in shown.err and "6/6" in shown.err
    CASE.operators(progress=False).H @ torch.ones(60, 2, dtype=torch.float64)
    assert capsys.readouterr().err == ""
