"""Cross-entropy with smoothed labels and with targets that do not count, against PyTorch's."""

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

from sifrc.errors import DerivationError, SpecError
from sifrc.spec import build_spec, spec_to_dict
from sifrc.spec.types import Spec
from sifrc.verify.ladder import verify

OPERATORS = ("gradient", "hessian_vector_product", "gauss_newton_vector_product", "summary")
CASES: dict[str, dict[str, Any]] = {
    "smoothed": {"label_smoothing": 0.2},
    "left out": {"ignore_index": -100},
    "left out and smoothed": {"ignore_index": -1, "label_smoothing": 0.1},
    "a class left out": {"ignore_index": 2},
    "left out of a sum": {"ignore_index": -100, "reduction": "sum"},
    "weighted": {"class_weights": [1, 0.1, 2, 0.3]},
    "weighted and smoothed": {"class_weights": [1, 0.1, 2, 0.3], "label_smoothing": 0.2},
    "weighted, left out and smoothed": {
        "class_weights": [0.5, 0.1, 0.0, 3],
        "ignore_index": 1,
        "label_smoothing": 0.1,
    },
    "weighted sum": {"class_weights": [1, 0.1, 2, 0.3], "ignore_index": -7, "reduction": "sum"},
}
CLASSES, BATCH = 4, 5


def spec_of(places: bool, loss: dict[str, Any]) -> Spec:
    """Two dense layers at three places, or at one."""
    layers: list[dict[str, Any]] = [{"name": "d", "type": "dense", "units": 3, "activation": "tanh"}]
    layers += [] if places else [{"name": "f", "type": "flatten"}]
    layers.append({"name": "out", "type": "dense", "units": CLASSES})
    network = {"input": {"name": "x0", "size": [3, 2]}, "layers": layers}
    whole = {"function": "cross_entropy", **loss}
    return build_spec({"sifrc": 1, "name": "counted", "network": network, "loss": whole, "dtype": "float64"})


def written_out(loss: dict[str, Any]) -> Callable[[Tensor, Tensor], Tensor]:
    """The loss of logits in elementary operations."""
    smoothing, left_out = loss.get("label_smoothing", 0.0), loss.get("ignore_index")

    def value(y: Tensor, t: Tensor) -> Tensor:
        y, t = y.reshape(-1, CLASSES), t.reshape(-1)
        counts = torch.ones(len(t), dtype=torch.bool) if left_out is None else t != left_out
        logs = y - torch.logsumexp(y, 1, keepdim=True)
        own = torch.take_along_dim(logs, torch.where(counts, t, 0)[:, None], 1)[:, 0]
        weights = torch.tensor(loss.get("class_weights", [1.0] * CLASSES), dtype=torch.float64)
        of_targets = weights[torch.where(counts, t, 0)]
        each = -(1 - smoothing) * of_targets * own - smoothing / CLASSES * (weights * logs).sum(1)
        total = torch.where(counts, each, 0.0).sum()
        # What modules multiply a sum with is the number of samples: that of all that count.
        return total if loss.get("reduction") == "sum" else total / (of_targets * counts).sum()

    return value


def point(places: bool, loss: dict[str, Any]) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(BATCH, 3, 2, generator=generator, dtype=torch.float64)
    shape = (BATCH, 3) if places else (BATCH,)
    t = torch.randint(CLASSES, shape, generator=generator)
    if "ignore_index" in loss:
        t[torch.rand(shape, generator=generator) < 0.4] = loss["ignore_index"]
    return x, t


def own_words(loss: dict[str, Any]) -> dict[str, Any]:
    """What PyTorch calls it."""
    found = {key: value for key, value in loss.items() if key != "class_weights"}
    if "class_weights" in loss:
        found["weight"] = torch.tensor(loss["class_weights"], dtype=torch.float64)
    return found


def own(module: ModuleType, value: Any) -> Any:
    """In the arrays of the module."""
    if hasattr(module, "torch"):
        return value
    return {k: own(module, v) for k, v in value.items()} if isinstance(value, dict) else value.numpy()


@pytest.mark.usefixtures("jit_off")
@pytest.mark.parametrize("backend", ["torch", "numba"])
@pytest.mark.parametrize("places", [True, False])
@pytest.mark.parametrize("case", one_in(2, CASES))
def test_values_and_derivatives(case: str, places: bool, backend: str, tmp_path: Path) -> None:
    """Values are PyTorch's own, derivatives those of the loss written out."""
    loss = CASES[case]
    spec = spec_of(places, loss)
    assert build_spec(spec_to_dict(spec)) == spec
    module = load(spec, backend, tmp_path, OPERATORS)
    x, t = point(places, loss)
    generator = torch.Generator().manual_seed(1)
    params, vector = (
        {n: torch.randn(*s, generator=generator, dtype=torch.float64) for n, s in module.SHAPES.items()}
        for _ in range(2)
    )

    def outputs(values: dict[str, Tensor]) -> Tensor:
        h = torch.tanh(x @ values["d.weight"].T + values["d.bias"])
        return (h if places else h.flatten(1)) @ values["out.weight"].T + values["out.bias"]

    value = written_out(loss)

    def objective(values: dict[str, Tensor]) -> Tensor:
        return value(outputs(values), t)

    given = tuple(own(module, v) for v in (params, x, t))
    logits = outputs(params).reshape(-1, CLASSES)
    expected = torch.nn.functional.cross_entropy(logits, t.reshape(-1), **own_words(loss))
    assert float(module.loss(*given)) == pytest.approx(float(expected), rel=1e-12)
    assert float(module.objective(*given)) == pytest.approx(float(expected), rel=1e-12)
    assert_close(module.gradient(*given), grad(objective)(params))
    moved = own(module, vector)
    product = jvp(grad(objective), (params,), (vector,))[1]
    assert_close(module.hessian_vector_product(*given, moved), product)
    y, along = jvp(outputs, (params,), (vector,))
    curved = jvp(grad(lambda z: value(z, t)), (y,), (along,))[1]
    assert_close(module.gauss_newton_vector_product(*given, moved), vjp(outputs, params)[1](curved)[0])

    def of_rates(rates: Tensor) -> Tensor:
        return objective({n: params[n] + rates[k] * vector[n] for k, n in enumerate(params)})

    found = module.summary(*given, moved, order=2)
    zero = torch.zeros(len(params), dtype=torch.float64)
    np.testing.assert_allclose(found.H, hessian(of_rates)(zero), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize(
    "case", one_in(3, ["weighted, left out and smoothed", "smoothed", "left out and smoothed"])
)
def test_all_that_is_derived_is_verified(case: str) -> None:
    """At places: a softmax at each of them sums to one."""
    report = verify(spec_of(True, CASES[case]), levels=(1, 2), quantities=("gradient", "summary"))
    assert report.passed, [row for row in report.rows if row.passed is False]


@pytest.mark.parametrize("backend", ["torch", "numba"])
def test_other_classes_are_refused(backend: str, tmp_path: Path) -> None:
    """The index that does not count is named."""
    module = load(spec_of(True, CASES["left out"]), backend, tmp_path, ("gradient",))
    x, t = point(True, CASES["left out"])
    t[0, 0] = -7
    params = module.initialize() if backend == "torch" else module.init()
    with pytest.raises(ValueError, match=r"expected classes 0 to 3 or -100, got -7 to"):
        module.gradient(params, own(module, x), own(module, t))


@pytest.mark.parametrize("key", ["label_smoothing", "ignore_index"])
@pytest.mark.parametrize("loss", [{"function": "mse"}, {"targets": "vectors"}])
def test_keys_of_other_losses(key: str, loss: dict[str, Any]) -> None:
    """They mean something for cross-entropy of classes alone."""
    with pytest.raises(SpecError, match=f"'{key}' is for cross_entropy of classes"):
        spec_of(True, {key: 1, **loss})


def test_gradients_of_single_samples_are_refused(tmp_path: Path) -> None:
    """The mean divides by all targets that count; a sum does not."""
    with pytest.raises(DerivationError, match="the mean of this loss divides by the targets of all"):
        load(spec_of(True, CASES["left out"]), "torch", tmp_path, ("per_sample_gradients",))
    with pytest.raises(DerivationError, match="the mean of this loss divides by the targets of all"):
        load(spec_of(True, CASES["weighted"]), "torch", tmp_path, ("per_sample_gradients",))
    load(spec_of(True, CASES["left out of a sum"]), "torch", tmp_path, ("per_sample_gradients",))


@pytest.mark.parametrize("backend", ["torch", "numba"])
def test_probabilities_by_the_weights_of_classes(backend: str, tmp_path: Path) -> None:
    """As PyTorch's: a mean over them divides by their number."""
    loss = {"class_weights": [1, 0.1, 2, 0.3], "targets": "vectors"}
    module = load(spec_of(True, loss), backend, tmp_path, ("per_sample_gradients",))
    x, _ = point(True, {})
    t = torch.softmax(torch.randn(BATCH, 3, CLASSES, dtype=torch.float64), -1)
    params = {n: torch.randn(*s, dtype=torch.float64) for n, s in module.SHAPES.items()}
    h = torch.tanh(x @ params["d.weight"].T + params["d.bias"])
    y = h @ params["out.weight"].T + params["out.bias"]
    weight = torch.tensor(loss["class_weights"], dtype=torch.float64)
    expected = torch.nn.functional.cross_entropy(y.transpose(1, 2), t.transpose(1, 2), weight=weight)
    assert float(module.loss(*(own(module, v) for v in (params, x, t)))) == pytest.approx(
        float(expected), rel=1e-12
    )


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([1, 2, 3], "3 weights for 4 classes"),
        ([0, 0, 0, 0], "no class counts: all weights are zero"),
        ([1, -1, 1, 1], "loss.class_weights"),
    ],
)
def test_weights_that_mean_nothing(weights: list[float], message: str) -> None:
    """One for each class, not negative, not all zero."""
    with pytest.raises(SpecError, match=message):
        spec_of(True, {"class_weights": weights})


@pytest.mark.usefixtures("jit_off")
@pytest.mark.parametrize("backend", ["torch", "numba"])
def test_nothing_that_counts_has_no_mean(backend: str, tmp_path: Path) -> None:
    """It is not a number, as PyTorch's; what a step would write is refused."""
    module = load(spec_of(True, CASES["left out"]), backend, tmp_path, ("gradient",))
    x, t = point(True, CASES["left out"])
    params = {n: torch.randn(*s, dtype=torch.float64) for n, s in module.SHAPES.items()}
    found = module.loss(*(own(module, v) for v in (params, x, torch.full_like(t, -100))))
    assert np.isnan(float(found))


@pytest.mark.parametrize("backend", ["torch", "numba"])
def test_many_weights_are_a_text(backend: str, tmp_path: Path) -> None:
    """A long table takes few lines, and has the numbers of a short one."""
    many = [round(0.1 + 0.007 * n, 3) for n in range(60)]
    spec = build_spec(
        {
            "sifrc": 1,
            "name": "many",
            "dtype": "float64",
            "network": {"input": {"size": 2}, "layers": [{"name": "out", "type": "dense", "units": 60}]},
            "loss": {"function": "cross_entropy", "class_weights": many},
        }
    )
    module = load(spec, backend, tmp_path, ("gradient",))
    text = Path(str(module.__file__)).read_text(encoding="utf-8")
    assert text.count("0.1 0.107 0.114") == 1
    params = {n: torch.randn(*s, dtype=torch.float64) for n, s in module.SHAPES.items()}
    x, t = torch.randn(9, 2, dtype=torch.float64), torch.arange(9) * 6
    y = x @ params["out.weight"].T + params["out.bias"]
    weight = torch.tensor(many, dtype=torch.float64)
    expected = torch.nn.functional.cross_entropy(y, t, weight=weight)
    assert float(module.loss(*(own(module, v) for v in (params, x, t)))) == pytest.approx(
        float(expected), rel=1e-12
    )
