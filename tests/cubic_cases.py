"""A method whose step has a cubic model of its own, and modules made of it."""

from __future__ import annotations

from functools import cache
from typing import Any

from sifrc.compiler import Compiled, Request, compile_spec
from sifrc.derive.system import Equation, System
from sifrc.ir import CubicNewton, Input, Role
from sifrc.ir.build import einsum, negative, rename, total
from sifrc.methods.base import Method, MethodOption, StepPlan, descend
from sifrc.spec import build_spec


class CubicBias(Method):
    """Gradient descent, with a cubic model for the last bias: every entry of it is a group.

    Its matrix is mean(g gᵀ) − bend · mean(g) mean(g)ᵀ for gradients g of samples, its third derivatives are
    mean(g), so that one number makes the matrix definite or not.
    """

    name = "cubic_bias"
    title = "Cubic model of the last bias"
    paper = "none"
    options = (
        MethodOption("learning_rate", 0.1, "step size", lower=0.0, hyperparameter=True),
        MethodOption("strength", 0.5, "of the cubic term", lower=0.0, hyperparameter=True),
        MethodOption("bend", 0.5, "taken off the matrix", lower=0.0, hyperparameter=True),
        MethodOption("unbounded", "refuse", "what is unbounded", choices=("refuse", "absolute")),
    )

    def step(self, derived: Any, chosen: Any) -> StepPlan:
        """Gradients and the matrix, then the solution, then the descent."""
        first, parameters = derived.first, derived.model.parameters
        slopes, directions = [], {}
        for layer in parameters:
            for family, symbol in zip(("dW", "dβ"), layer.symbols, strict=True):
                slope = Input(family, layer.index, symbol.axes, Role.DIRECTION)
                value = first.short(first.gradients[symbol])
                slopes.append(Equation(slope, value, layer.index, "ESN(10)"))
                directions[symbol] = slope
        index, bias = parameters[-1].index, parameters[-1].bias
        (i,) = bias.axes
        axes = (i, i.primed)
        moment, mean = Input("C", index, axes, Role.DIRECTION), directions[bias]
        outer = einsum([(value, (i,)), (rename(value, axes[1:]), axes[1:])], axes)
        bend = Input("bend", None, (), Role.HYPERPARAMETER)
        taken = einsum([(bend, ()), (mean, (i,)), (rename(mean, axes[1:]), axes[1:])], axes)
        strength = Input("strength", None, (), Role.HYPERPARAMETER)
        matrix = total([moment, negative(taken)], axes)
        solution = CubicNewton(matrix, mean, mean, strength, chosen["unbounded"])
        rate = Input("rate", index, bias.axes, Role.DIRECTION)
        directions[bias] = rate
        before = ("forward", "adjoint")
        systems = (
            (System("slopes", "Gradients", (*slopes, Equation(moment, outer, index, "definition"))), before),
            (System("rates", "Rates", (Equation(rate, solution, index, "GN3(10)"),)), (*before, "slopes")),
            (
                System("update", "Step", tuple(descend(derived, directions))),
                (*before, "slopes", "rates"),
            ),
        )
        return StepPlan(systems=systems, guarded=("rates",))


@cache
def compiled(backend: str, dtype: str = "float64", unbounded: str = "refuse") -> Compiled:
    """A network 4 → 5 → 3 with this method."""
    spec = {
        "sifrc": 1,
        "name": "cubic",
        "network": {
            "input": {"name": "image", "size": 4},
            "layers": [
                {"name": "fc1", "type": "dense", "units": 5, "activation": "tanh"},
                {"name": "fc2", "type": "dense", "units": 3},
            ],
        },
        "loss": "squared_error",
        "dtype": dtype,
        "method": {"name": f"{__name__}:CubicBias", "unbounded": unbounded},
        "target": {"backend": backend},
    }
    return compile_spec(build_spec(spec), Request(backend=backend, operators=("gradient",)))
