"""Losses with several softmaxes, and logits with an offset that all of them have in common."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numba
import numpy as np
import pytest
import torch
from test_random_modules import SMOOTH, agree, load, source

from sifrc.catalogue.phase import Phase
from sifrc.compiler import Request, compile_spec
from sifrc.derive.quantities import QUANTITIES
from sifrc.derive.system import Equation, System
from sifrc.ir import Axis, Input, Role
from sifrc.ir.build import apply, scale
from sifrc.ir.quantity import Quantity, table_of
from sifrc.lower.identities import IdentityError, check_identities
from sifrc.scalar import EXP
from sifrc.spec import Spec, build_spec

DISTILLATION = "-dot(softmax(t), log_softmax(y))"
SEVERAL = (
    DISTILLATION,
    "logsumexp(y) + logsumexp(2*y)",
    "-dot(t, log_softmax(y/2)) - 0.3*dot(t, log_softmax(y))",
    "dot(softmax(y), softmax(2*y))",
    "dot(softmax(y) - softmax(t), log_softmax(y) - log_softmax(t))",
    "-log(dot(t, softmax(3*y))) + sum(softmax(y)**2)",
    "4*dot(softmax(t/2), log_softmax(t/2) - log_softmax(y/2)) - 0.5*dot(t, log_softmax(y))",
    "dot(softmax(t), softmax(y)) + logsumexp(t + y)",
    "sum((softmax(y) - softmax(t))**2)",
    "logsumexp(-y) + logsumexp(y)",
    "dot(log_softmax(y), log_softmax(-y))",
    "sum(exp(log_softmax(y)*2) + softmax(3*y)*log_softmax(2*y))",
    "logsumexp(log_softmax(y) + softmax(2*y))",
    "sum(softmax(softmax(y))*t) + dot(t, softmax(y))",
    "-dot(t, log_softmax(y + t)) + logsumexp(y - t)",
    "log(sum(exp(y))) - log(sum(exp(2*y)))/2 + dot(t, exp(y)/sum(exp(y)))",
    "sum(y*softmax(y)) - sum(y*softmax(-y))",
    "tanh(logsumexp(y)) + sigmoid(logsumexp(y/3))*dot(t, softmax(y/3))",
)


def network(loss: Any, dtype: str = "float64", hidden: bool = True) -> Spec:
    """Three outputs, with a hidden layer or without."""
    layers = [{"name": "fc1", "type": "dense", "units": 4, "activation": "tanh"}] if hidden else []
    layers.append({"name": "fc2", "type": "dense", "units": 3})
    data = {"sifrc": 1, "name": "softmaxes", "loss": loss, "dtype": dtype}
    return build_spec(data | {"network": {"input": {"name": "image", "size": 2}, "layers": layers}})


@pytest.mark.parametrize(
    ("loss", "backend"), [*((loss, "torch") for loss in SEVERAL), *((loss, "numba") for loss in SEVERAL[::5])]
)
def test_softmaxes_of_different_arguments_are_different_arrays(
    loss: str, backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every operator agrees with automatic differentiation when several phases share the softmaxes."""
    monkeypatch.setattr(numba.config, "DISABLE_JIT", 1)
    spec = network({"expression": loss})
    framework = "torch" if backend == "torch" else "numpy"
    agree(spec, load(source(spec, backend, SMOOTH), tmp_path), framework, 3)


CROSS_ENTROPY = (
    "cross_entropy",
    {"function": "cross_entropy", "targets": "vectors"},
    {"expression": "logsumexp(y) - dot(t, y)", "targets": "classes"},
    {"expression": "log(sum(exp(y))) - sum(t*y)", "targets": "classes"},
    {"expression": "dot(t, logsumexp(y) - y)"},
    {"expression": "-log(dot(t, softmax(y)))", "targets": "classes"},
)


@pytest.fixture(scope="module")
def linear(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Any, str], ModuleType]:
    """Modules of the network without a hidden layer, each loaded once."""

    @functools.cache
    def loaded(loss: str, backend: str) -> ModuleType:
        spec = network(json.loads(loss), "float32", hidden=False)
        return load(source(spec, backend, ("loss", "gradient")), tmp_path_factory.mktemp(backend))

    return lambda loss, backend: loaded(json.dumps(loss), backend)


def _slopes(module: ModuleType, dtype: torch.dtype, logits: torch.Tensor) -> tuple[float, Any]:
    """Loss and gradient in the logits of a network whose weights are zero and biases the logits."""
    classes = module.SPEC["loss"]["targets"] == "classes"
    targets = torch.tensor([1]) if classes else torch.eye(3, dtype=dtype)[[1]]
    params = {"fc2.weight": torch.zeros((3, 2), dtype=dtype), "fc2.bias": logits.to(dtype)}
    inputs = torch.zeros((1, 2), dtype=dtype)
    if not hasattr(module, "Network"):
        arrays = {name: value.numpy() for name, value in params.items()}
        loss = module.loss(arrays, inputs.numpy(), targets.numpy())
        return float(loss), np.asarray(module.gradient(arrays, inputs.numpy(), targets.numpy())["fc2.bias"])
    slope = module.gradient(params, inputs, targets)["fc2.bias"]
    return float(module.loss(params, inputs, targets)), slope.double().numpy()


@pytest.mark.parametrize("offset", [0.0, 50.0, 1e4, 1e6, 1e8, -1e8])
@pytest.mark.parametrize("loss", CROSS_ENTROPY, ids=str)
@pytest.mark.parametrize("backend", ["torch", "numba"])
def test_an_offset_of_all_logits_changes_nothing(
    backend: str,
    loss: Any,
    offset: float,
    linear: Callable[[Any, str], ModuleType],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Cross-entropy in float32 is that of the logits in float64, however far they are from zero."""
    monkeypatch.setattr(numba.config, "DISABLE_JIT", 1)
    logits = offset + torch.tensor([0.0, 8.0, 16.0])
    exact = logits.double().requires_grad_()
    expected = torch.nn.functional.cross_entropy(exact[None], torch.tensor([1]))
    (slope,) = torch.autograd.grad(expected, exact)
    found, gradient = _slopes(linear(loss, backend), torch.float32, logits)
    assert found == pytest.approx(expected.item(), rel=3e-6)
    np.testing.assert_allclose(gradient, slope.numpy(), atol=2e-7)


def test_logits_that_are_all_the_same(linear: Callable[[Any, str], ModuleType]) -> None:
    """All three logits 1e8: the loss is log 3."""
    found, gradient = _slopes(linear("cross_entropy", "torch"), torch.float32, torch.full((3,), 1e8))
    assert found == pytest.approx(np.log(3))
    np.testing.assert_allclose(gradient, [1 / 3, -2 / 3, 1 / 3], rtol=1e-6)


@pytest.mark.parametrize("offset", [0.0, 50.0, 200.0])
def test_an_offset_in_half_precision(offset: float, linear: Callable[[Any, str], ModuleType]) -> None:
    """bfloat16 has three digits; softmax has them whatever the logits have in common."""
    logits = (offset + torch.tensor([0.0, 1.0, 2.0])).bfloat16()
    exact = logits.double().requires_grad_()
    (slope,) = torch.autograd.grad(torch.nn.functional.cross_entropy(exact[None], torch.tensor([1])), exact)
    _, gradient = _slopes(linear("cross_entropy", "torch"), torch.bfloat16, logits)
    np.testing.assert_allclose(gradient, slope.numpy(), atol=2.0**-8)


@pytest.mark.parametrize("backend", ["torch", "numba"])
def test_the_classes_sum_to_one(backend: str) -> None:
    """With class targets nothing sums the target; with vectors the sum stays."""
    operators = ("gradient", "hessian_vector_product", "gauss_newton_vector_product")
    summed = {}
    for targets in ("classes", "vectors"):
        spec = network({"function": "cross_entropy", "targets": targets})
        summed[targets] = "⟨𝟏, t⟩" in compile_spec(spec, Request(backend=backend, operators=operators)).text
    assert summed == {"classes": False, "vectors": True}


def test_two_quantities_with_one_name_are_refused() -> None:
    """The lowering notices a symbol with two definitions in phases that run together."""
    axis = Axis("fc1", 3)
    x, softmax = (Input(name, 1, (axis,), Role.STATE) for name in ("x", "softmax"))
    first = System("first", "First", (Equation(softmax, apply(EXP, x), 1, "definition"),))
    second = System("second", "Second", (Equation(softmax, scale(2, x), 1, "definition"),))
    alone = [Phase(first, ()), Phase(second, ())]
    check_identities(alone, frozenset())
    with pytest.raises(IdentityError, match=r"softmax\[1\] of 'second' has another definition"):
        check_identities([Phase(first, ()), Phase(second, ("first",))], frozenset())


def test_every_family_has_an_identifier_of_its_own() -> None:
    """The table of names gives no identifier and no name twice."""
    codes = [quantity.code for quantity in QUANTITIES.values()]
    assert len(set(codes)) == len(codes)
    for again in (Quantity("x", "states", "states"), Quantity("X", "x", "states")):
        with pytest.raises(ValueError, match="called"):
            table_of(QUANTITIES.values(), [again])
