"""Dropout in modules: what is left out, one draw for all derivatives, steps, both modes, what is refused."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numba
import numpy as np
import pytest
import torch
from elementary_layers import derivatives_of
from numba.typed import List
from sampled import one_in
from torch import Tensor

from sifrc.cache import load_text
from sifrc.compiler import Request, compile_spec
from sifrc.errors import BackendError, SpecError
from sifrc.spec import build_spec
from sifrc.verify import verify

assert List is not None
"""Imported with the JIT on: Numba's own functions for lists are compiled or not as they were imported."""
pytestmark = [
    pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning"),
    pytest.mark.usefixtures("jit_off"),
]
"""Integers of NumPy warn where those of the compiler wrap around."""
PROBABILITIES = {1: 0.3, 2: 0.5}
"""By the subscript of the draws."""
NETWORK: dict[str, Any] = {
    "input": {"name": "x0", "size": 4},
    "layers": [
        {"name": "d", "type": "dense", "units": 6, "activation": "tanh"},
        {"name": "r", "type": "dropout", "probability": 0.3},
        {"name": "e", "type": "dense", "units": 5},
        {"name": "s", "type": "dropout"},
        {"name": "f", "type": "activation", "function": "tanh"},
        {"name": "out", "type": "dense", "units": 3},
    ],
}
METHOD = {"name": "grouped_newton", "learning_rate": 0.1, "internal_damping": 3.0}
OPERATORS = (
    *("objective", "gradient", "hessian_vector_product", "gauss_newton_vector_product"),
    *("per_sample_gradients", "summary"),
)
BATCH = 7


def spec_of(**more: Any) -> Any:
    data = {"sifrc": 1, "name": "thinned", "network": NETWORK, "loss": "cross_entropy", "dtype": "float64"}
    return build_spec({**data, **more})


@pytest.fixture(scope="module", params=["torch", "numba"])
def module(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModuleType]:
    """With an optimizer."""
    spec = spec_of(method=METHOD, partition="canonical")
    text = compile_spec(spec, Request(backend=request.param, operators=OPERATORS)).text
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(numba.config, "DISABLE_JIT", 1)
        path = tmp_path_factory.mktemp("thinned") / f"thinned_{request.param}.py"
        yield load_text(f"thinned_{request.param}", path, text)


def is_torch(module: ModuleType) -> bool:
    return hasattr(module, "torch")


def as_given(module: ModuleType, value: Any) -> Any:
    """Tensors as the module takes them."""
    if isinstance(value, dict):
        return {name: as_given(module, item) for name, item in value.items()}
    return value.clone() if is_torch(module) else value.numpy().copy()


def as_tensors(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: as_tensors(item) for name, item in value.items()}
    return torch.as_tensor(value, dtype=torch.float64)


def close(found: Any, expected: Any, bound: float = 1e-12) -> None:
    torch.testing.assert_close(as_tensors(found), as_tensors(expected), rtol=bound, atol=bound)


def point(module: ModuleType, seed: int = 1) -> tuple[dict[str, Tensor], Tensor, Tensor, dict[str, Tensor]]:
    """Parameters, inputs, targets and a vector, as tensors."""
    generator = torch.Generator().manual_seed(seed)

    def drawn() -> dict[str, Tensor]:
        return {
            name: torch.randn(shape, generator=generator, dtype=torch.float64)
            for name, shape in module.SHAPES.items()
        }

    x = torch.randn(BATCH, 4, generator=generator, dtype=torch.float64)
    return drawn(), x, torch.randint(3, (BATCH,), generator=generator), drawn()


def masks(module: ModuleType, x: Tensor, seed: int) -> dict[int, Tensor]:
    """What each layer multiplies by, written out from the module's numbers."""
    drawn = module._drawn(module._Inputs(as_given(module, x), {}), seed).others
    numbers = {k: as_tensors(value) for k, value in drawn.items()}
    return {k: (numbers[k] >= p).double() / (1 - p) for k, p in PROBABILITIES.items()}


def outputs_with(kept: dict[int, Tensor] | None) -> Callable[[dict[str, Tensor], Tensor], Tensor]:
    """The network with the masks written out, or without any."""

    def outputs(params: dict[str, Tensor], x: Tensor) -> Tensor:
        value = torch.tanh(x @ params["d.weight"].T + params["d.bias"])
        value = value if kept is None else value * kept[1]
        value = value @ params["e.weight"].T + params["e.bias"]
        value = torch.tanh(value if kept is None else value * kept[2])
        return value @ params["out.weight"].T + params["out.bias"]

    return outputs


def test_what_is_kept_is_larger(module: ModuleType) -> None:
    """Entries are left out with the probability, others for each sample, layer and seed; the mean is one."""
    x = torch.zeros(4000, 4, dtype=torch.float64)
    first, second = masks(module, x, 0), masks(module, x, 1)
    for k, p in PROBABILITIES.items():
        assert set(first[k].flatten().tolist()) == {0.0, 1 / (1 - p)}
        # Six standard deviations of a mean of so many.
        bound = 6 * (p / (1 - p) / first[k].numel()) ** 0.5
        assert abs(float(first[k].mean()) - 1) < bound
        assert 0.3 < float((first[k] != second[k]).double().mean()) < 0.6
        assert (first[k].mean(0) - 1).abs().max() < 6 * (p / (1 - p) / 4000) ** 0.5
        assert torch.equal(first[k], masks(module, x, 0)[k])
    # In the order in which they are drawn, and one later: of two layers, and of two seeds.
    count = first[2].numel()
    one, other, later = first[1].flatten()[:count], first[2].flatten(), second[1].flatten()[:count]
    for these, those in ((one, other), (one, later)):
        for shift in (0, 1):
            pair = torch.stack([these[shift:], those[: count - shift]])
            assert torch.corrcoef(pair)[0, 1].abs() < 0.05


@pytest.mark.parametrize("seed", [0, 5])
def test_one_draw_for_all_derivatives(module: ModuleType, seed: int) -> None:
    """Those of torch.func of the network with the very masks."""
    params, x, t, vector = point(module)
    outputs = outputs_with(masks(module, x, seed))
    loss = torch.nn.functional.cross_entropy(outputs(params, x), t)
    expected = derivatives_of(outputs, "cross_entropy", (params, x, t), vector)
    given = (*(as_given(module, value) for value in (params, x, t)),)
    along = as_given(module, vector)
    assert float(module.loss(*given, seed=seed)) == pytest.approx(float(loss), rel=1e-12)
    close(module.gradient(*given, seed=seed), expected["gradient"])
    for name, kind in (
        ("hessian_vector_product", "hessian"),
        ("gauss_newton_vector_product", "gauss_newton"),
    ):
        close(getattr(module, name)(*given, along, seed=seed), expected[name])
        product = module.linearize(*given, kind=kind, seed=seed)
        given[1][...] = 0.0  # the point is kept, and its draw
        close(product(along), expected[name])
        close(product(along), expected[name])
        given[1][...] = as_given(module, x)
    summary = module.summary(*given, along, order=2, seed=seed)
    inner = sum((expected["gradient"][name] * vector[name]).sum() for name in vector)
    curved = sum((expected["hessian_vector_product"][name] * vector[name]).sum() for name in vector)
    close(summary.g.sum(), inner)
    close(summary.H.sum(), curved)


def test_samples_have_their_own_draws(module: ModuleType) -> None:
    """In parts of a batch, and for gradients of samples."""
    params, x, t, vector = point(module)
    kept = masks(module, x, 3)
    given = (*(as_given(module, value) for value in (params, x, t)),)
    each = module.per_sample_gradients(*given, seed=3)
    for n in range(BATCH):
        outputs = outputs_with({k: value[n : n + 1] for k, value in kept.items()})
        own = params, x[n : n + 1], t[n : n + 1]
        expected = derivatives_of(outputs, "cross_entropy", own, vector)["gradient"]
        close({name: value[n] for name, value in each.items()}, expected)
    along = as_given(module, vector)
    whole, parts = (module.summary(*given, along, order=2, chunk=c, seed=3) for c in (None, 2))
    close(parts.H, whole.H)


def test_after_training_nothing_is_left_out(module: ModuleType) -> None:
    """``predict`` and ``evaluation_loss``, and all of a module for it."""
    params, x, t, vector = point(module)
    outputs = outputs_with(None)
    given = (*(as_given(module, value) for value in (params, x, t)),)
    close(module.predict(*given[:2]), outputs(params, x))
    loss = float(torch.nn.functional.cross_entropy(outputs(params, x), t))
    assert float(module.evaluation_loss(*given)) == pytest.approx(loss, rel=1e-12)
    backend = "torch" if is_torch(module) else "numba"
    request = Request(backend=backend, operators=("gradient", "hessian_vector_product"), mode="evaluation")
    text = compile_spec(spec_of(), request).text
    assert "_drawn" not in text
    made = load_text(f"kept_{backend}", Path(module.__file__ or "").parent / f"kept_{backend}.py", text)
    expected = derivatives_of(outputs, "cross_entropy", (params, x, t), vector)
    close(made.gradient(*given), expected["gradient"])
    found = made.hessian_vector_product(*given, as_given(module, vector))
    close(found, expected["hessian_vector_product"])


class Steps:
    """A model and its optimizer, in either backend."""

    def __init__(self, module: ModuleType, params: dict[str, Tensor], seed: int) -> None:
        self.module = module
        if is_torch(module):
            self.model = module.Network()
            self.model.load_state_dict(params)
            self.optimizer = module.Optimizer(self.model, seed=seed)
        else:
            self.model = as_given(module, params)
            self.optimizer = module.State(self.model, seed=seed)

    def step(self, x: Tensor, t: Tensor) -> float:
        if is_torch(self.module):
            return float(self.optimizer.step(x, t))
        return float(self.module.step(self.model, self.optimizer, x.numpy(), t.numpy()))

    @property
    def params(self) -> dict[str, Tensor]:
        return copy.deepcopy(self.model.state_dict() if is_torch(self.module) else as_tensors(self.model))


def test_a_step_draws_by_its_number(module: ModuleType) -> None:
    """By that seed, an operator has the same draw; other steps and other seeds have others."""
    params, x, t, _ = point(module)
    steps = Steps(module, params, seed=4)
    for number in range(3):
        before = steps.params
        found = steps.step(x, t)
        kept = masks(module, x, (4 * 1_000_003 + number) % 2**32)
        expected = torch.nn.functional.cross_entropy(outputs_with(kept)(before, x), t)
        assert found == pytest.approx(float(expected), rel=1e-12)
    assert Steps(module, params, seed=4).step(x, t) != Steps(module, params, seed=5).step(x, t)


def test_steps_go_on_alike(module: ModuleType) -> None:
    """From a copy, and from what is saved: steps are counted."""
    params, x, t, _ = point(module)
    steps = Steps(module, params, seed=1)
    steps.step(x, t)
    twin = pickle.loads(pickle.dumps(steps.optimizer)) if not is_torch(module) else None
    other = Steps(module, steps.params, seed=1)
    other.optimizer.load_state_dict(copy.deepcopy(steps.optimizer.state_dict()))
    values = [[each.step(x, t) for _ in range(3)] for each in (steps, other)]
    assert values[0] == values[1]
    assert twin is None or twin.steps == 1
    close(steps.params, other.params, 0.0)


@pytest.mark.parametrize("backend", ["torch", "numba"])
@pytest.mark.parametrize("kind", ["sampled_fisher", "kfra"])
def test_steps_with_blocks(kind: str, backend: str, tmp_path: Path) -> None:
    """Methods that draw targets too, and what they refresh on another batch."""
    method = {"name": "ea_cg", "kind": kind, "period": 2}
    text = compile_spec(spec_of(method=method), Request(backend=backend, operators=("gradient",))).text
    made = load_text(f"{kind}_{backend}", tmp_path / f"{kind}_{backend}.py", text)
    params, x, t, _ = point(made)
    steps = Steps(made, params, seed=0)
    for number in range(3):
        before = steps.params
        expected = outputs_with(masks(made, x, number))(before, x)
        loss = float(torch.nn.functional.cross_entropy(expected, t))
        assert steps.step(x, t) == pytest.approx(loss, rel=1e-12)
    if backend == "torch":
        steps.optimizer.refresh(x[:3], t[:3])
    else:
        made.refresh(steps.model, steps.optimizer, x[:3].numpy(), t[:3].numpy())
    assert np.isfinite(steps.step(x, t))


@pytest.mark.parametrize("module", ["torch"], indirect=True)
def test_a_batch_for_the_rates(module: ModuleType) -> None:
    """A batch of its own has draws too."""
    params, x, t, _ = point(module)
    whole, other = Steps(module, params, seed=3), Steps(module, params, seed=3)
    first = whole.step(x, t)
    assert float(other.optimizer.step(x, t, (x, t))) == first
    close(whole.params, other.params)


@pytest.mark.parametrize("module", ["numba"], indirect=True)
def test_an_epoch_is_its_steps(module: ModuleType) -> None:
    """With the draws of each."""
    params, x, t, _ = point(module)
    steps, whole = Steps(module, params, seed=2), Steps(module, params, seed=2)
    for first in (0, 3, 6):
        steps.step(x[first : first + 3], t[first : first + 3])
    module.train_epoch(whole.model, whole.optimizer, x.numpy(), t.numpy(), np.arange(BATCH), batch=3)
    close(steps.params, whole.params, 1e-15)


@pytest.mark.parametrize("module", ["torch"], indirect=True)
def test_the_network_of_torch_draws_by_itself(module: ModuleType) -> None:
    """In training by torch's own generator, as ``torch.nn.Dropout``; evaluated it is the whole network."""
    params, x, _, _ = point(module)
    network = module.Network()
    network.load_state_dict(params)
    torch.manual_seed(0)
    first, second = network(x), network(x)
    torch.manual_seed(0)
    assert torch.equal(network(x), first) and not torch.equal(first, second)
    torch.manual_seed(0)
    kept = masks(module, x, int(torch.randint(2**31, ())))
    close(first.detach(), outputs_with(kept)(params, x))
    close(network.eval()(x).detach(), outputs_with(None)(params, x))


@pytest.mark.parametrize("module", ["torch"], indirect=True)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_other_dtypes(module: ModuleType, dtype: torch.dtype) -> None:
    """Draws go with the parameters."""
    params, x, t, _ = point(module)
    model = module.Network().to(dtype)
    optimizer = module.Optimizer(model)
    assert torch.isfinite(optimizer.step(x.to(dtype), t))
    own = {name: value.to(dtype) for name, value in params.items()}
    assert module.gradient(own, x.to(dtype), t, seed=2)["d.weight"].dtype == dtype


INPUTS: dict[str, Any] = {
    "inputs": [{"name": "a", "size": 2, "classes": 5}, {"name": "b", "size": [2, 3]}],
    "layers": [
        {"name": "w", "type": "embedding", "units": 3, "inputs": "a"},
        {"name": "less", "type": "dropout", "probability": 0.2},
        {"name": "both", "type": "add", "inputs": ["less", "b"]},
        {"name": "n", "type": "layer_norm"},
        {"name": "more", "type": "dropout", "probability": 0.4, "inputs": "n"},
        {"name": "flat", "type": "flatten"},
        {"name": "out", "type": "dense", "units": 3},
    ],
}


@pytest.mark.parametrize("backend", one_in(2, ["torch", "numba"]))
@pytest.mark.parametrize(
    "name, network", [("inputs", INPUTS), pytest.param("chain", NETWORK, marks=pytest.mark.slow)]
)
def test_verification(name: str, network: dict[str, Any], backend: str, tmp_path: Path) -> None:
    """All levels, for what a module draws and for numbers at 50 digits; several inputs, of classes too."""
    spec = spec_of(network=network, target={"backend": backend, "operators": [*OPERATORS[:4], "summary"]})
    made = load_text(f"{name}_{backend}", tmp_path / f"{name}_{backend}.py", compile_spec(spec).text)
    report = verify(spec, module=made)
    assert report.passed, [row for row in report.rows if row.passed is False]
    assert {row.level for row in report.rows if row.passed} == {1, 2, 3}


def test_wrong_probabilities_are_one_error() -> None:
    """With what would do."""
    for value in (1.0, 1, -0.1, 2.5):
        network = copy.deepcopy(NETWORK)
        network["layers"][1]["probability"] = value
        with pytest.raises(SpecError, match="dropout layer 'r' leaves out entries with probability") as error:
            spec_of(network=network)
        assert "less than 1" in (error.value.hint or "")


def test_modules_for_cuda_do_not_have_it() -> None:
    """In training; evaluated they do."""
    with pytest.raises(BackendError, match="the CUDA backend does not have dropout in training"):
        compile_spec(spec_of(), Request(backend="cuda", operators=("gradient",)))
    assert compile_spec(spec_of(), Request(backend="cuda", operators=("gradient",), mode="evaluation")).text
