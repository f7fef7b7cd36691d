"""Losses whose values are weighed by a mask, against sums written out and PyTorch's own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from curvature_modules import load
from curvature_oracle import assert_close
from sampled import one_in
from torch import Tensor
from torch.func import grad, hessian, jvp, vjp
from torch.nn import functional

from sifrc.cache import load_text
from sifrc.compiler import Request, compile_spec
from sifrc.errors import DerivationError, SpecError
from sifrc.spec import build_spec, spec_to_dict
from sifrc.spec.types import Spec
from sifrc.verify.ladder import verify

OPERATORS = ("gradient", "hessian_vector_product", "gauss_newton_vector_product", "summary")
BATCH, CHANNELS, PLACES = 4, 3, (2, 3)
Value = Callable[[Tensor, Tensor, Tensor], Tensor]


def weighed(each: Callable[[Tensor, Tensor], Tensor], total: bool = False) -> Value:
    """The mean (or sum) of values by the numbers of a mask."""
    return lambda y, t, m: (m * each(y, t)).sum() / (1 if total else m.sum())


def squares(y: Tensor, t: Tensor) -> Tensor:
    return (y - t) ** 2


def binary(y: Tensor, t: Tensor) -> Tensor:
    return functional.softplus(y, threshold=100) - t * y


POSITIVE = torch.tensor([2.0, 0.3, 1.0], dtype=torch.float64)[:, None, None]


def binary_positive(y: Tensor, t: Tensor, weight: Tensor = POSITIVE) -> Tensor:
    """As PyTorch documents it."""
    return -weight * t * torch.log(torch.sigmoid(y)) - (1 - t) * torch.log(1 - torch.sigmoid(y))


def huber(y: Tensor, t: Tensor) -> Tensor:
    far = (y - t).abs()
    return torch.where(far <= 0.7, far**2 / 2, 0.7 * (far - 0.35))


WEIGHTS = torch.tensor([1.0, 0.2, 3.0], dtype=torch.float64)


def classes(y: Tensor, t: Tensor) -> Tensor:
    logs = y - torch.logsumexp(y, 1, keepdim=True)
    counts = t != 1
    picked = torch.take_along_dim(logs, torch.where(counts, t, 0)[:, None], 1)[:, 0]
    return -torch.where(counts, picked * WEIGHTS[t], 0.0)


def weighed_classes(y: Tensor, t: Tensor, m: Tensor) -> Tensor:
    return (m * classes(y, t)).sum() / (m * WEIGHTS[t] * (t != 1)).sum()


ENTRIES, AT_PLACES = (CHANNELS, *PLACES), PLACES
CASES: dict[str, tuple[dict[str, Any], tuple[int, ...], Value]] = {
    "squares, entries": ({"function": "mse", "axis": 1}, ENTRIES, weighed(squares)),
    "squares, places": (
        {"function": "mse", "axis": 1},
        AT_PLACES,
        weighed(lambda y, t: squares(y, t).mean(1)),
    ),
    "sum of squares": (
        {"function": "mse", "axis": 1, "reduction": "sum"},
        ENTRIES,
        weighed(squares, total=True),
    ),
    "binary, entries": ({"function": "binary_cross_entropy", "axis": 1}, ENTRIES, weighed(binary)),
    "huber, entries": (
        {"function": "huber", "axis": 1, "parameters": {"delta": 0.7}},
        ENTRIES,
        weighed(huber),
    ),
    "an expression": (
        {"expression": "a*mean((y - t)**4)", "parameters": {"a": 0.5}},
        ENTRIES,
        weighed(lambda y, t: (y - t) ** 4 / 2),
    ),
    "positive entries": (
        {"function": "binary_cross_entropy", "axis": 1, "pos_weight": [2, 0.3, 1]},
        ENTRIES,
        weighed(lambda y, t: binary_positive(y, t)),
    ),
    "positive entries at places": (
        {"function": "binary_cross_entropy", "axis": 1, "pos_weight": 1.7, "reduction": "sum"},
        AT_PLACES,
        weighed(
            lambda y, t: binary_positive(y, t, torch.tensor(1.7, dtype=torch.float64)).sum(1), total=True
        ),
    ),
    "classes": (
        {"function": "cross_entropy", "axis": 1, "class_weights": [1, 0.2, 3], "ignore_index": 1},
        AT_PLACES,
        weighed_classes,
    ),
}


def spec_of(loss: dict[str, Any], mask: tuple[int, ...], flat: bool = False) -> Spec:
    """Two convolutions, and perhaps all their entries as one axis."""
    layers: list[dict[str, Any]] = [
        {"name": "c", "type": "conv", "channels": 2, "kernel": 1, "activation": "tanh", "inputs": "x"},
        {"name": "out", "type": "conv", "channels": CHANNELS, "kernel": [1, 3], "padding": "same"},
    ]
    layers += [{"name": "f", "type": "flatten"}] if flat else []
    inputs = [{"name": "x", "size": [2, *PLACES]}, {"name": "m", "size": list(mask)}]
    return build_spec(
        {
            "sifrc": 1,
            "name": "masked",
            "network": {"inputs": inputs, "layers": layers},
            "loss": {**loss, "mask": "m"},
            "dtype": "float64",
        }
    )


def point(case: str) -> tuple[Tensor, Tensor, Tensor]:
    loss, shape, _ = CASES[case]
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(BATCH, 2, *PLACES, generator=generator, dtype=torch.float64)
    m = torch.rand(BATCH, *shape, generator=generator, dtype=torch.float64)
    m = m * (torch.rand(BATCH, *shape, generator=generator) < 0.6)
    m[1] = 0
    if loss.get("function") == "cross_entropy":
        return x, torch.randint(CHANNELS, (BATCH, *PLACES), generator=generator), m
    t = torch.rand(BATCH, CHANNELS, *PLACES, generator=generator, dtype=torch.float64)
    return x, t if "function" in loss else torch.movedim(t, 1, 1), m


def own(module: ModuleType, value: Any) -> Any:
    """In the arrays of the module."""
    if hasattr(module, "torch"):
        return value
    if isinstance(value, tuple):
        return tuple(own(module, v) for v in value)
    return {k: own(module, v) for k, v in value.items()} if isinstance(value, dict) else value.numpy()


def network(values: dict[str, Tensor], x: Tensor) -> Tensor:
    h = torch.tanh(functional.conv2d(x, values["c.weight"], values["c.bias"]))
    return functional.conv2d(h, values["out.weight"], values["out.bias"], padding=(0, 1))


def tensors(module: ModuleType, seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {n: torch.randn(*s, generator=generator, dtype=torch.float64) for n, s in module.SHAPES.items()}


@pytest.mark.usefixtures("jit_off")
@pytest.mark.parametrize("backend", ["torch", "numba"])
@pytest.mark.parametrize("case", one_in(2, CASES))
def test_values_and_derivatives(case: str, backend: str, tmp_path: Path) -> None:
    """Those of the sum over all that counts, divided by the mask's sum over the batch."""
    loss, shape, value = CASES[case]
    spec = spec_of(loss, shape)
    assert build_spec(spec_to_dict(spec)) == spec
    module = load(spec, backend, tmp_path, OPERATORS)
    x, t, m = point(case)
    params, vector = tensors(module, 1), tensors(module, 2)

    def objective(values: dict[str, Tensor]) -> Tensor:
        return value(network(values, x), t, m)

    given = (own(module, params), own(module, (x, m)), own(module, t))
    moved = own(module, vector)
    assert float(module.loss(*given)) == pytest.approx(float(objective(params)), rel=1e-12)
    assert_close(module.gradient(*given), grad(objective)(params))
    product = jvp(grad(objective), (params,), (vector,))[1]
    assert_close(module.hessian_vector_product(*given, moved), product)
    y, along = jvp(lambda v: network(v, x), (params,), (vector,))
    curved = jvp(grad(lambda z: value(z, t, m)), (y,), (along,))[1]
    pulled = vjp(lambda v: network(v, x), params)[1](curved)[0]
    assert_close(module.gauss_newton_vector_product(*given, moved), pulled)

    def of_rates(rates: Tensor) -> Tensor:
        return objective({n: params[n] + rates[k] * vector[n] for k, n in enumerate(params)})

    found = module.summary(*given, moved, order=2)
    zero = torch.zeros(len(params), dtype=torch.float64)
    np.testing.assert_allclose(found.H, hessian(of_rates)(zero), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("backend", ["torch", "numba"])
def test_truth_values_leave_out(backend: str, tmp_path: Path) -> None:
    """A mask of truth values is what PyTorch makes of the class that does not count."""
    spec = spec_of({"function": "cross_entropy", "axis": 1}, PLACES)
    module = load(spec, backend, tmp_path, ("gradient",))
    x, t, _ = point("classes")
    m = torch.rand(BATCH, *PLACES, generator=torch.Generator().manual_seed(8)) < 0.5
    params = tensors(module, 1)
    found = module.loss(own(module, params), own(module, (x, m)), own(module, t))
    expected = functional.cross_entropy(network(params, x), torch.where(m, t, -100))
    assert float(found) == pytest.approx(float(expected), rel=1e-12)


@pytest.mark.parametrize("weight", [3, [2, 0.3, 1]])
def test_positive_weights_without_a_mask(weight: Any, tmp_path: Path) -> None:
    """As PyTorch's, also far from zero."""
    document = spec_to_dict(spec_of({"function": "mse", "axis": 1}, ENTRIES))
    document["network"]["inputs"].pop()
    loss = {"function": "binary_cross_entropy", "axis": 1, "pos_weight": weight}
    spec = build_spec({**document, "loss": loss})
    assert build_spec(spec_to_dict(spec)) == spec
    module = load(spec, "torch", tmp_path, ("gradient",))
    x, t, _ = point("binary, entries")
    own_weight = torch.tensor(weight, dtype=torch.float64)
    own_weight = own_weight[:, None, None] if own_weight.ndim else own_weight
    for scale in (1, 40):
        params = {name: scale * value for name, value in tensors(module, 1).items()}

        def objective(values: dict[str, Tensor]) -> Tensor:
            return functional.binary_cross_entropy_with_logits(network(values, x), t, pos_weight=own_weight)

        assert float(module.loss(params, x, t)) == pytest.approx(float(objective(params)), rel=1e-12)
        assert_close(module.gradient(params, x, t), grad(objective)(params))


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        ({"function": "mse", "pos_weight": 2}, "'pos_weight' is for binary_cross_entropy"),
        ({"function": "binary_cross_entropy", "axis": 1, "pos_weight": [1, 2]}, "2 weights for 3 entries"),
    ],
)
def test_positive_weights_that_do_not_fit(loss: dict[str, Any], message: str) -> None:
    """The error says what fits."""
    with pytest.raises(SpecError, match=message):
        spec_of(loss, ENTRIES)


@pytest.mark.parametrize(
    ("backend", "jit"),
    [("torch", True), ("numba", False), pytest.param("numba", True, marks=pytest.mark.slow)],
)
def test_weights_of_samples(backend: str, jit: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where a sample has one loss, the mask has one number for it, whatever the loss."""
    monkeypatch.setattr("numba.config.DISABLE_JIT", int(not jit))
    loss = {"function": "squared_error", "reduction": "sum"}
    module = load(spec_of(loss, (1,), flat=True), backend, tmp_path, ("per_sample_gradients",))
    x, t, _ = point("squares, places")
    m = torch.rand(BATCH, 1, dtype=torch.float64)
    params = tensors(module, 1)
    given = (own(module, params), own(module, (x, m)), own(module, t.flatten(1)))

    def each(values: dict[str, Tensor]) -> Tensor:
        return m[:, 0] * ((network(values, x) - t) ** 2).flatten(1).sum(1) / 2

    assert float(module.loss(*given)) == pytest.approx(float(each(params).sum()), rel=1e-12)
    found = module.per_sample_gradients(*given)
    assert_close(found, torch.func.jacrev(each)(params))


@pytest.mark.parametrize("case", one_in(3, ["classes", "huber, entries", "positive entries at places"]))
def test_all_that_is_derived_is_verified(case: str) -> None:
    """At all entries, and at places with weights of classes."""
    loss, shape, _ = CASES[case]
    report = verify(spec_of(loss, shape), levels=(1, 2), quantities=("gradient", "summary"))
    assert report.passed, [row for row in report.rows if row.passed is False]


def test_curvature_of_weighed_samples_is_verified() -> None:
    """Blocks and scores have the weight of their sample."""
    spec = build_spec(
        {
            "sifrc": 1,
            "name": "weighed",
            "network": {
                "inputs": [{"name": "x", "size": 2}, {"name": "m", "size": 1}],
                "layers": [
                    {"name": "d", "type": "dense", "units": 2, "activation": "tanh"},
                    {"name": "out", "type": "dense", "units": 3},
                ],
            },
            "loss": {
                "function": "cross_entropy",
                "mask": "m",
                "reduction": "sum",
                "class_weights": [1, 2, 0.5],
            },
        }
    )
    report = verify(spec, levels=(2,), quantities=("block_hessian", "curvature_factors"))
    assert report.passed, [row for row in report.rows if row.passed is False]


@pytest.mark.usefixtures("jit_off")
@pytest.mark.parametrize("backend", ["torch", "numba"])
def test_a_step_where_nothing_counts_is_refused(backend: str, tmp_path: Path) -> None:
    """The mean is 0/0, as PyTorch's of targets that do not count; parameters stay."""
    document = spec_to_dict(spec_of({"function": "mse"}, ENTRIES))
    document["method"] = {"name": "grouped_newton", "direction": "gradient"}
    compiled = compile_spec(build_spec(document), Request(backend=backend))
    path = tmp_path / "masked_steps.py"
    path.write_text(compiled.text, encoding="utf-8")
    module = load_text(f"masked_steps_{backend}", path, compiled.text)
    x, t, _ = point("squares, entries")
    m = torch.zeros(BATCH, *ENTRIES, dtype=torch.float64)
    if backend == "torch":
        model = module.Network(seed=0)
        before = {name: value.detach().clone() for name, value in model.named_parameters()}
        with pytest.raises(FloatingPointError):
            module.Optimizer(model).step((x, m), t)
        after = dict(model.named_parameters())
    else:
        params = module.init(0)
        before = {name: value.copy() for name, value in params.items()}
        with pytest.raises(FloatingPointError):
            module.step(params, module.State(params), own(module, (x, m)), own(module, t))
        after = params
    assert all(bool((after[name] == before[name]).all()) for name in before)


@pytest.mark.parametrize(
    ("loss", "mask", "message"),
    [
        ({"function": "mse"}, (3,), "the mask 'm' has size 3, the output 3 x 2 x 3"),
        (
            {"function": "cross_entropy", "axis": 1},
            ENTRIES,
            "a mask of entries is for a loss that is the mean",
        ),
        ({"expression": "sum((y - t)**4)"}, ENTRIES, "is the mean of a function of each entry"),
        ({"function": "squared_error", "axis": 1}, PLACES, "a sum over the places of a sample"),
    ],
)
def test_masks_that_do_not_fit(loss: dict[str, Any], mask: tuple[int, ...], message: str) -> None:
    """The error says what fits."""
    with pytest.raises(SpecError, match=message):
        spec_of(loss, mask)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("x", "the mask 'x' is the first input"),
        ("n", "no input is named 'n'"),
        ("k", "'k' has classes for entries"),
    ],
)
def test_inputs_that_are_no_masks(name: str, message: str) -> None:
    """A mask is a later input of numbers."""
    document = spec_to_dict(spec_of({"function": "mse"}, ENTRIES))
    document["network"]["inputs"].append({"name": "k", "size": list(ENTRIES), "classes": 2})
    with pytest.raises(SpecError, match=message):
        build_spec({**document, "loss": {"function": "mse", "mask": name}})


def test_gradients_of_single_samples_are_refused(tmp_path: Path) -> None:
    """The mean divides by the masks of all samples."""
    with pytest.raises(DerivationError, match="the mean of this loss divides by"):
        load(spec_of({"function": "mse"}, ENTRIES), "torch", tmp_path, ("per_sample_gradients",))
