"""What the update of a parameter has besides its direction: decay of its own, and rates of its own.

A method declares how a parameter moves along a direction, with one step size. Decoupled decay is a further
term of that update, whichever the method: θ ← θ − lr · direction − lr · weight_decay · θ. And where a backend
has groups of parameters, both numbers have a value for each parameter, numbered as the parameter is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from types import MappingProxyType

from sifrc.derive.derived import Derived
from sifrc.derive.shaped import shaped
from sifrc.derive.system import Equation, System
from sifrc.ir import Input, Role
from sifrc.ir.build import einsum, subtract
from sifrc.ir.traverse import substitute
from sifrc.methods.base import DECAY, LEARNING_RATE, Choices, Method, StepPlan, decays
from sifrc.model import Model, Parameter, Shaped

__all__ = ["OF_PARAMETERS", "rates_by_parameter", "step_of"]

OF_PARAMETERS: Mapping[str, Shaped] = MappingProxyType(
    {
        "lr": shaped("lr", "lr", "lrβ"),
        "weight_decay": shaped("weight_decay", "weight_decay", "weight_decayβ"),
    }
)
"""Hyperparameters that each parameter may have a value of its own of."""

_WEIGHT_DECAY = Input(DECAY.name, None, (), Role.HYPERPARAMETER)


def step_of(method: Method, derived: Derived, chosen: Choices) -> StepPlan:
    """The step of a method, with decoupled decay where it is asked for.

    Raises:
        DerivationError: a precondition of the derivation fails.
        MethodError: options that do not go together.
    """
    step = method.step(derived, chosen)
    if not decays(method, chosen):
        return step
    *before, (update, after) = step.systems
    return replace(step, systems=(*before, (_decayed(update, derived.model), after)))


def _decayed(update: System, model: Model) -> System:
    """The update with lr · weight_decay · θ less of every parameter, moved or not."""

    def decayed(equation: Equation) -> Equation:
        symbol = equation.symbol
        shrunk = einsum([(LEARNING_RATE, ()), (_WEIGHT_DECAY, ()), (symbol, symbol.axes)], symbol.axes)
        return replace(equation, value=subtract(equation.value, shrunk))

    parameters = {parameter.symbol: parameter for parameter in model.tensors}
    equations = [decayed(e) if e.symbol in parameters else e for e in update.equations]
    moved = {equation.symbol for equation in equations}
    rest = [
        decayed(Equation(symbol, symbol, symbol.index, "definition"))
        for symbol in parameters
        if symbol not in moved
    ]
    return replace(update, equations=(*equations, *rest))


def rates_by_parameter(step: StepPlan, model: Model) -> StepPlan:
    """The step with rates of each parameter in the place of those of all of them."""
    *before, (update, after) = step.systems
    owners = {parameter.symbol: parameter for parameter in model.tensors}
    equations = tuple(
        replace(e, value=substitute(e.value, dict(_own_rates(owners[e.symbol])))) if e.symbol in owners else e
        for e in update.equations
    )
    return replace(step, systems=(*before, (replace(update, equations=equations), after)))


def _own_rates(parameter: Parameter) -> Iterator[tuple[Input, Input]]:
    """Pairs of a number, and what it is for one parameter."""
    for name, quantity in OF_PARAMETERS.items():
        common = Input(name, None, (), Role.HYPERPARAMETER)
        family = quantity.family(parameter.slot)
        yield common, Input(family, parameter.symbol.index, (), Role.HYPERPARAMETER)
