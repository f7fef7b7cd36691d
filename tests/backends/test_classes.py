"""Modules with classes as inputs and as targets, which keep them as integers, against torch.func."""

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
from torch import Tensor
from torch.func import grad, hessian, jacfwd, jvp, vjp

from sifrc.spec import build_spec
from sifrc.spec.types import Spec

Values = dict[str, Tensor]
CLASSES, PLACES, UNITS, BATCH = 6, 3, 4, 5
OPERATORS = (
    "gradient",
    "hessian_vector_product",
    "gauss_newton_vector_product",
    "per_sample_gradients",
    "summary",
    "linearize",
)
TOKENS = {"name": "tokens", "size": PLACES, "classes": CLASSES}
EMBEDDING = {"name": "wte", "type": "embedding", "units": UNITS}
HIDDEN = {"name": "h", "type": "dense", "units": UNITS, "activation": "tanh"}
LOGITS = {"name": "o", "type": "dense", "units": CLASSES}
CASES: dict[str, dict[str, Any]] = {
    "embedding": {"layers": [EMBEDDING, HIDDEN, LOGITS]},
    "tied": {"layers": [EMBEDDING, HIDDEN, {"name": "o", "type": "dense", "share": "wte"}]},
    "one place": {"layers": [EMBEDDING, {"name": "f", "type": "flatten"}, HIDDEN, LOGITS]},
    "smoothed": {"layers": [EMBEDDING, HIDDEN, LOGITS], "loss": {"label_smoothing": 0.2}},
    "left out": {"layers": [EMBEDDING, HIDDEN, LOGITS], "loss": {"ignore_index": -100, "reduction": "sum"}},
    "squares": {
        "layers": [EMBEDDING, HIDDEN, LOGITS],
        "loss": {"function": "squared_error", "targets": "classes"},
    },
    "powers": {
        "layers": [EMBEDDING, HIDDEN, LOGITS],
        "loss": {"expression": "sum(log(1 + (y - t)**2) * (1 + t))", "targets": "classes"},
    },
}


def spec_of(case: str) -> Spec:
    """A few layers on tokens."""
    loss = {"function": "cross_entropy", **CASES[case].get("loss", {})}
    if "expression" in loss:
        del loss["function"]
    network = {"input": TOKENS, "layers": CASES[case]["layers"]}
    return build_spec({"sifrc": 1, "name": "classes", "network": network, "loss": loss, "dtype": "float64"})


def outputs(case: str, params: Values, x: Tensor) -> Tensor:
    """The network in PyTorch's functions."""
    h = torch.nn.functional.embedding(x, params["wte.weight"])
    h = h.flatten(1) if case == "one place" else h
    h = torch.tanh(h @ params["h.weight"].T + params["h.bias"])
    return h @ params["o.weight" if "o.weight" in params else "wte.weight"].T + params.get("o.bias", 0.0)


def loss_of(case: str, y: Tensor, t: Tensor) -> Tensor:
    """Mean over the samples and places of the loss; of squares, a sum over the places."""
    loss = CASES[case].get("loss", {})
    y, t = y.reshape(-1, CLASSES), t.reshape(-1)
    vectors = torch.nn.functional.one_hot(t.clamp(min=0), CLASSES).double()
    if "targets" in loss:
        error = y - vectors
        if "function" in loss:
            return 0.5 * (error**2).sum() * PLACES / len(t)
        return (torch.log(1 + error**2) * (1 + vectors)).sum() / len(t)
    logs = y - torch.logsumexp(y, 1, keepdim=True)
    counts = (t >= 0).double()
    smoothing = loss.get("label_smoothing", 0.0)
    each = -(((1 - smoothing) * vectors + smoothing / CLASSES) * logs).sum(1) * counts
    return each.sum() if loss.get("reduction") == "sum" else each.sum() / len(t)


def point(case: str) -> tuple[Tensor, Tensor]:
    """Tokens and targets; one class comes twice, and one not at all."""
    generator = torch.Generator().manual_seed(3)
    x = torch.randint(CLASSES - 1, (BATCH, PLACES), generator=generator)
    t = torch.randint(CLASSES, (BATCH,) if case == "one place" else (BATCH, PLACES), generator=generator)
    if case == "left out":
        t[0], t[2, 1] = -100, -100
    return x, t


def own(module: ModuleType, value: Any) -> Any:
    """In the arrays of the module."""
    if hasattr(module, "torch"):
        return value
    return {k: own(module, v) for k, v in value.items()} if isinstance(value, dict) else value.numpy()


def drawn(module: ModuleType, seed: int) -> Values:
    """Tensors like the parameters."""
    generator = torch.Generator().manual_seed(seed)
    return {n: torch.randn(*s, generator=generator, dtype=torch.float64) for n, s in module.SHAPES.items()}


@pytest.mark.usefixtures("jit_off")
@pytest.mark.parametrize("backend", ["torch", "numba"])
@pytest.mark.parametrize("case", CASES)
def test_values_and_derivatives(case: str, backend: str, tmp_path: Path) -> None:
    """Of first, second and third order, of the batch and of its samples."""
    module = load(spec_of(case), backend, tmp_path, OPERATORS)
    x, t = point(case)
    params, vector = drawn(module, 1), drawn(module, 2)
    given, moved = tuple(own(module, v) for v in (params, x, t)), own(module, vector)

    def objective(values: Values) -> Tensor:
        return loss_of(case, outputs(case, values, x), t)

    assert float(module.loss(*given)) == pytest.approx(float(objective(params)), rel=1e-12)
    assert_close(module.gradient(*given), grad(objective)(params))
    product = jvp(grad(objective), (params,), (vector,))[1]
    assert_close(module.hessian_vector_product(*given, moved), product)
    assert_close(module.linearize(*given)(moved), product)
    y, along = jvp(lambda values: outputs(case, values, x), (params,), (vector,))
    curved = jvp(grad(lambda z: loss_of(case, z, t)), (y,), (along,))[1]
    back = vjp(lambda values: outputs(case, values, x), params)[1](curved)[0]
    assert_close(module.gauss_newton_vector_product(*given, moved), back)

    def of_rates(rates: Tensor) -> Tensor:
        return objective({n: params[n] + rates[k] * vector[n] for k, n in enumerate(params)})

    found, zero = module.summary(*given, moved, order=3), torch.zeros(len(params), dtype=torch.float64)
    np.testing.assert_allclose(found.H, hessian(of_rates)(zero), rtol=1e-9, atol=1e-11)
    third = jacfwd(hessian(of_rates))(zero)
    np.testing.assert_allclose(found.D3, torch.einsum("iii->i", third), rtol=1e-8, atol=1e-10)
    each = module.per_sample_gradients(*given)
    for sample in range(BATCH):

        def of_one(values: Values, sample: int = sample) -> Tensor:
            return loss_of(case, outputs(case, values, x[[sample]]), t[[sample]])

        share = {name: value[sample] for name, value in each.items()}
        assert_close(share, grad(of_one)(params))


@pytest.mark.usefixtures("jit_off")
@pytest.mark.parametrize("backend", ["torch", "numba"])
def test_no_array_has_the_classes_of_all_places(backend: str, tmp_path: Path) -> None:
    """Of the input none at all; of the targets none but what is made of the logits."""
    module = load(spec_of("embedding"), backend, tmp_path, ("gradient", "hessian_vector_product"))
    text = Path(module.__file__ or "").read_text(encoding="utf-8")
    assert "_one_hot(" not in text
    if backend == "numba":
        assert module._WORK["x_classes"] == {0: (None, PLACES)}
        assert module._WORK["targets"] == (None, PLACES)
    else:
        assert "torch.nn.functional.embedding(x[0], weights[1])" in text
        assert ".index_add_(0, classes.flatten(), rows)" in text


@pytest.mark.usefixtures("jit_off")
@pytest.mark.parametrize("backend", ["torch", "numba"])
@pytest.mark.parametrize("case", ["embedding", "left out", "one place"])
def test_classes_out_of_range_are_refused(case: str, backend: str, tmp_path: Path) -> None:
    """An array of NumPy would be read from its end, for a class below zero."""
    module = load(spec_of(case), backend, tmp_path, ("gradient",))
    params, (x, t) = own(module, drawn(module, 1)), point(case)
    for bad in (-1, CLASSES):
        for changed, name in ((x.clone(), "inputs"), (t.clone(), "targets")):
            changed.view(-1)[-1] = bad
            given = (changed, t) if name == "inputs" else (x, changed)
            with pytest.raises(ValueError, match=f"{name}: expected classes 0 to {CLASSES - 1}"):
                module.gradient(params, *(own(module, value) for value in given))


@pytest.mark.usefixtures("jit_off")
@pytest.mark.parametrize("backend", ["torch", "numba"])
def test_a_point_keeps_its_classes(backend: str, tmp_path: Path) -> None:
    """What the caller makes of its arrays afterwards changes no product."""
    module = load(spec_of("tied"), backend, tmp_path, ("hessian_vector_product", "linearize"))
    params, (x, t) = own(module, drawn(module, 1)), point("tied")
    vector = own(module, drawn(module, 2))
    expected = module.hessian_vector_product(params, own(module, x), own(module, t), vector)
    product = module.linearize(params, own(module, x), own(module, t))
    x.fill_(0), t.fill_(0)
    assert_close(product(vector), {name: torch.as_tensor(value) for name, value in expected.items()})


def gradients(module: ModuleType, params: Values) -> Callable[[Tensor, Tensor], Values]:
    """The gradient of one sample."""
    return lambda x, t: module.gradient(params, x[None], t[None])


def test_gradients_of_mapped_samples(tmp_path: Path) -> None:
    """``torch.vmap`` over tokens and targets: no entry is looked at before it is there."""
    for case in ("embedding", "tied", "left out"):
        module = load(spec_of(case), "torch", tmp_path, ("gradient", "per_sample_gradients"))
        params, (x, t) = drawn(module, 1), point(case)
        found = torch.vmap(gradients(module, params))(x, t)
        assert_close(found, module.per_sample_gradients(params, x, t))
        with pytest.raises((IndexError, RuntimeError), match=r"out of (range|bounds)"):
            torch.vmap(gradients(module, params))(x, t.clamp(min=0) + CLASSES)


def test_a_traced_gradient(tmp_path: Path) -> None:
    """``torch.compile`` of the whole: nothing in it depends on what entries are."""
    module = load(spec_of("left out"), "torch", tmp_path, ("gradient",))
    params, (x, t) = drawn(module, 1), point("left out")
    traced = torch.compile(module.gradient, backend="eager", fullgraph=True)
    assert_close(traced(params, x, t), module.gradient(params, x, t))
