"""Every public operator of a generated module with every sort of argument, on one point."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
import torch

from sifrc.catalogue import registry

__all__ = ["LINEARIZED", "NETWORKS", "Given", "arrays_in", "calls", "given", "operators_of"]

_MISSING = {"squared error": {"newton_direction"}, "quartic": {"fisher_vector_product"}}
"""Operators that a network does not have: a graph no direction, a loss no distribution of targets."""
LINEARIZED = ("hessian", "gauss_newton", "fisher", "empirical_fisher")

_SKIP = [
    {"name": "fc1", "type": "dense", "units": 4, "activation": "tanh"},
    {"name": "fc2", "type": "dense", "units": 3, "inputs": "fc1"},
    {"name": "fc3", "type": "dense", "units": 3, "inputs": "fc1"},
    {"name": "sum1", "type": "add", "inputs": ["fc2", "fc3"]},
    {"name": "out", "type": "dense", "units": 3},
]
_CHAIN = [
    {"name": "fc1", "type": "dense", "units": 4, "activation": "softplus"},
    {"name": "out", "type": "dense", "units": 3},
]


def _spec(name: str, layers: list[dict[str, Any]], loss: Any, dtype: str) -> dict[str, Any]:
    network = {"input": {"name": "image", "size": 5}, "layers": layers}
    head = {"sifrc": 1, "name": name, "network": network, "loss": loss, "dtype": dtype}
    return head | {"regularization": {"state": 0.02}}


NETWORKS: Mapping[str, dict[str, Any]] = {
    "squared error": _spec("skip_squares", _SKIP, "squared_error", "float64"),
    "cross entropy": _spec("chain_classes", _CHAIN, "cross_entropy", "float32"),
    "quartic": _spec("chain_quartic", _CHAIN, {"expression": "sum((y - t)**4)/4"}, "float64"),
}
"""A graph where two layers have one input and one output; losses whose curvature is constant, depends on the
output, and on the targets too."""


def operators_of(name: str) -> tuple[str, ...]:
    """All that a network has."""
    return tuple(one for one in registry.OPERATORS if one not in _MISSING.get(name, ()))


@dataclass
class Given:
    """Arguments in the module's own arrays, which a test may change in place."""

    params: dict[str, Any]
    inputs: Any
    targets: Any
    vector: dict[str, Any]

    @property
    def point(self) -> tuple[Any, Any, Any]:
        return self.params, self.inputs, self.targets

    def change(self) -> None:
        """Other numbers in the same memory."""
        for array in (*self.params.values(), self.inputs):
            array[...] = -2 * array + 0.5
        self.targets[...] = 0 if self.targets.ndim == 1 else -self.targets


def given(module: ModuleType, batch: int = 6, seed: int = 0) -> Given:
    """A random point and a vector."""
    rng = np.random.default_rng(seed)
    dtype = module.SPEC["dtype"]
    own: Callable[[np.ndarray], Any] = torch.from_numpy if hasattr(module, "torch") else np.asarray

    def normal(*shape: int) -> Any:
        return own((0.7 * rng.standard_normal(shape)).astype(dtype))

    params = {name: normal(*shape) for name, shape in module.SHAPES.items()}
    vector = {name: normal(*shape) for name, shape in module.SHAPES.items()}
    classes = module.SPEC["loss"].get("function") == "cross_entropy"
    targets = own(rng.integers(0, 3, batch)) if classes else normal(batch, 3)
    return Given(params, normal(batch, 5), targets, vector)


def calls(module: ModuleType, at: Given) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Name and call of every operator that the module has; products of ``linearize`` last."""
    point, vector = at.point, at.vector

    def call(name: str, *more: Any, **choices: Any) -> tuple[str, Callable[[], Any]]:
        text = ", ".join(
            [name, *(f"{key}={value!r}" for key, value in choices.items() if key != "workspace")]
        )
        return text, lambda: getattr(module, name)(*point, *more, **choices)

    def has(name: str) -> bool:
        return hasattr(module, name)

    yield "predict", lambda: module.predict(at.params, at.inputs)
    values = ("loss", "objective", "evaluation_loss")
    for name in filter(has, (*values, "gradient", "objective_and_gradient", "hessian_diagonal")):
        yield call(name)
    products = (*(f"{kind}_vector_product" for kind in LINEARIZED), "jacobian_vector_product")
    for name in filter(has, products):
        yield call(name, vector)
    if has("newton_direction"):
        yield "newton_direction", lambda: module.newton_direction(at.params, at.inputs[0], at.targets[0])
    for moment in ("none", "norm", "second", "variance") if has("per_sample_gradients") else ():
        yield call("per_sample_gradients", moment=moment)
    for kind, (_, form) in getattr(module, "_KINDS", {}).items():
        own: dict[str, tuple[Any, Sequence[Mapping[str, Any]]]] = {
            "block_hessian": ((), [{"dense": dense} for dense in (False, True)]),
            "curvature_factors": ((), [{"moment": moment} for moment in ("second", "mean")]),
            "gradient_and_factors": ((), [{"moment": moment} for moment in ("second", "mean")]),
            "block_vector_product": ((vector,), [{"moment": moment} for moment in ("second", "mean")]),
            "diagonal": ((), [{}]),
            "trace": ((), [{"by": by} for by in ("whole", "layer", "group", "parameter")]),
        }
        single: dict[str, tuple[Any, Sequence[Mapping[str, Any]]]] = {
            "block_hessian": ((), [{"reduction": "none"}]),
            "block_vector_product": ((vector,), [{"moment": "exact"}]),
        }
        for table in (own, single) if form == "samples" else (own,):
            for name in filter(has, table):
                more, every = table[name]
                for choices in every:
                    yield call(name, *more, kind=kind, **choices)
    for order, full in ((1, False), (2, False), (3, False), (3, True)) if has("summary") else ():
        yield call("summary", vector, order=order, full=full, gradient=True)
        yield call("summary", vector, order=order, full=full, chunk=4)
    if has("Workspace"):
        kept = module.Workspace()
        yield call("summary", vector, order=3, gradient=True, workspace=kept)
        yield call("summary", vector, order=3, chunk=4, threads=2, workspace=kept)
    for kind in LINEARIZED if has("linearize") else ():
        if has(f"{kind}_vector_product"):
            product = module.linearize(*point, kind=kind)
            yield f"linearize, {kind}", lambda product=product: product(vector)  # type: ignore[misc]


def arrays_in(value: Any) -> list[np.ndarray]:
    """Arrays of a result, in NumPy's form on the same memory."""
    if isinstance(value, torch.Tensor):
        return [value.numpy()]
    if isinstance(value, np.ndarray):
        return [value]
    if isinstance(value, Mapping):
        return [array for item in value.values() for array in arrays_in(item)]
    if isinstance(value, tuple):
        return [array for item in value for array in arrays_in(item)]
    return [np.asarray(value)] if isinstance(value, float | np.floating) else []
