"""The systems of a network, as the sheet writes them, with values for every symbol in them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
from cases import CASES

from sifrc.derive.derived import Derived
from sifrc.derive.system import System
from sifrc.ir import Expr, Input
from sifrc.ir.traverse import inputs_of
from sifrc.model import build_model
from sifrc.report.document import equations
from sifrc.report.sheet import EquationSheet
from sifrc.spec import build_spec


def chain(
    activation: Any, depth: int = 3, last: bool = False, loss: str = "squared_error", size: int = 4
) -> dict[str, Any]:
    """A chain of equal layers; ``last``: the output has the activation too."""
    layers = [
        {"name": f"fc{k}", "type": "dense", "units": size if k < depth else 3} for k in range(1, depth + 1)
    ]
    for layer in layers if last else layers[:-1]:
        layer["activation"] = activation
    return {
        "sifrc": 1,
        "name": "net",
        "network": {"input": {"name": "image", "size": 6}, "layers": layers},
        "loss": loss,
        "regularization": {"state": 1.0e-3},
    }


SKIP: dict[str, Any] = {
    "sifrc": 1,
    "name": "skip",
    "network": {
        "input": {"name": "image", "size": 6},
        "layers": [
            {"name": "fc1", "type": "dense", "units": 4, "activation": "tanh"},
            {"name": "fc2", "type": "dense", "units": 4, "activation": "tanh"},
            {"name": "sum1", "type": "add", "inputs": ["fc1", "fc2"]},
            {"name": "fc3", "type": "dense", "units": 3},
        ],
    },
    "loss": "cross_entropy",
    "regularization": {"state": 1.0e-3},
}

LEAKY = {"function": "leaky_relu", "parameters": {"slope": 0.1}}


@cache
def named(name: str) -> Derived:
    """The derivations of a case, made once for all tests."""
    return derived(CASES[name])


def derived(case: Any, white_layer: bool = True) -> Derived:
    return Derived(build_model(build_spec(case)), white_layer)


def known_sheet(case: Any, **options: Any) -> EquationSheet:
    """The equation sheet of a case, made once for all tests."""
    return _sheet(json.dumps(case), **options)


@cache
def _sheet(case: str, **options: Any) -> EquationSheet:
    return equations(build_spec(json.loads(case)), **options)


def systems(work: Derived, newton: bool) -> Iterator[System]:
    """Everything that is derived, in order."""
    first, second, gauss = work.first, work.second, work.gauss_newton
    yield from (first.forward, first.objective, first.adjoint, first.gradient)
    yield from (second.tangent, second.adjoint_tangent, second.product)
    yield from (gauss.tangent, gauss.adjoint, gauss.product)
    if work.spectral is not None:
        yield work.spectral.system
    if newton:
        yield work.newton.system()


def values_of(expressions: list[Expr], seed: int = 0) -> dict[Input, Any]:
    """A random value for every input, positive for λ."""
    rng = np.random.default_rng(seed)
    values: dict[Input, Any] = {}
    for symbol in inputs_of(*expressions):
        shape = tuple(axis.size for axis in symbol.axes)
        values[symbol] = rng.uniform(0.2, 0.9, shape)
    return values
