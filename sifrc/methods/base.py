"""What a method is: a declaration over derived quantities.

A method says which options and hyperparameters it has, what it remembers from step to step, and its
update as equations. It names no array, no backend and no loop; batching, fusing and printing are later
stages. A new method is a new file that ends in a :class:`Method` subclass, and a line in the registry.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from types import MappingProxyType
from typing import TypeAlias

from sifrc.derive.derived import Derived
from sifrc.derive.system import Equation, System
from sifrc.errors import Location, MethodError
from sifrc.ir import Add, Einsum, Expr, Input, Operand, Role
from sifrc.ir.build import einsum, scale, subtract, total
from sifrc.ir.relative import ordered_terms
from sifrc.methods.plan import Hyperparameter, MemorySpec
from sifrc.methods.ranges import LARGEST_WHOLE, Range
from sifrc.model import LayerParameters, Model
from sifrc.spec.suggest import did_you_mean
from sifrc.spec.types import MethodSpec, OptionValue

__all__ = ["Choices", "Method", "MethodOption", "StepPlan", "read_options"]

Choices: TypeAlias = Mapping[str, OptionValue]


@dataclass(frozen=True)
class MethodOption:
    """One option: its default decides its type; ``choices`` or the range what is accepted.

    Args:
        name: key in the spec.
        default: value where the spec is silent.
        text: what it does, with the paper's value and place.
        choices: accepted values, or () for any of the type.
        lower, upper: range of a number, both included.
        above, below: what a number must be more or less than, in place of ``lower`` or ``upper``.
        whole: whether a number must be whole, though its type is not.
        hyperparameter: a number that may change from step to step; otherwise it is fixed when compiling.
    """

    name: str
    default: OptionValue
    text: str
    choices: tuple[OptionValue, ...] = ()
    lower: float = float("-inf")
    upper: float = float("inf")
    above: float = float("-inf")
    below: float = float("inf")
    whole: bool = False
    hyperparameter: bool = False

    @property
    def range(self) -> Range:
        """The accepted numbers."""
        above, below = not math.isinf(self.above), not math.isinf(self.below)
        whole = self.whole or isinstance(self.default, int)
        upper = self.below if below else self.upper
        return Range(
            lower=self.above if above else self.lower,
            upper=min(upper, LARGEST_WHOLE) if whole else upper,
            above=above,
            below=below,
            whole=whole,
        )


def number(
    name: str,
    default: float,
    text: str,
    *,
    upper: float = float("inf"),
    below: float = float("inf"),
    whole: bool = False,
) -> MethodOption:
    """A number from zero on that may change from step to step."""
    return MethodOption(
        name, default, text, lower=0.0, upper=upper, below=below, whole=whole, hyperparameter=True
    )


@dataclass(frozen=True)
class StepPlan:
    """What a method adds to a module.

    Args:
        systems: (system, names of the systems that ran before it), in order; the last one updates
            parameters and memory in place.
        memory: families kept from step to step.
        periodic: names of systems that run every ``period`` steps only.
        guarded: systems whose results must be finite before anything is updated: names, or names with
            the families to check.
        single: whether the step also exists for one sample at a time.
        batched: whether it exists for batches.
        notes: statements for the module's documentation.
        refreshable: whether the periodic systems may be given a batch of their own, between steps.
        separable: whether each parameter has a direction of its own, so that one that is frozen stays where
            it is and the others move as they would; otherwise a frozen parameter is refused.
        kept: families of the periodic systems that the state keeps for readers.
        curvature_batch: systems that run on a batch of their own, if one is given, before the periodic ones.
        newton: whether it is made of the closed-form Newton direction, whose conditions then hold.
        partitioned: whether it goes by the groups of the parameters.
    """

    systems: tuple[tuple[System, tuple[str, ...]], ...]
    memory: tuple[MemorySpec, ...] = ()
    periodic: tuple[str, ...] = ()
    guarded: tuple[str | tuple[str, tuple[str, ...]], ...] = ()
    single: bool = True
    batched: bool = True
    notes: tuple[str, ...] = ()
    refreshable: bool = False
    separable: bool = False
    curvature_batch: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    newton: bool = False
    partitioned: bool = False


DECAY = number(
    "weight_decay", 0.0, "decoupled decay: at each step a parameter shrinks by lr · weight_decay of itself"
)
"""An option of every method: where it is given, the update has a term for it."""


class Method(ABC):
    """Base of all methods."""

    name: str
    title: str
    paper: str
    options: tuple[MethodOption, ...]

    @abstractmethod
    def step(self, derived: Derived, chosen: Choices) -> StepPlan:
        """The step as equations.

        Raises:
            DerivationError: a precondition of the derivation fails.
            MethodError: options that do not go together.
        """

    def hyperparameters(self, chosen: Choices) -> tuple[Hyperparameter, ...]:
        """Numbers that may change from step to step, ``lr`` first."""
        return tuple(
            Hyperparameter(
                "lr" if o.name == "learning_rate" else o.name, float(chosen[o.name]), o.text, o.range
            )
            for o in options_of(self)
            if o.hyperparameter and o.name in chosen
        )


def options_of(method: Method) -> tuple[MethodOption, ...]:
    """The options that a method declares, and those that every update has."""
    own = {option.name for option in method.options}
    return method.options if DECAY.name in own else (*method.options, DECAY)


def decays(method: Method, chosen: Choices) -> bool:
    """Whether the update has decoupled decay: it is chosen, and no option of the method's own."""
    return DECAY.name in chosen and DECAY in options_of(method)


def read_options(method: Method, spec: MethodSpec) -> Choices:
    """The options of a spec, checked, with defaults filled in.

    Raises:
        MethodError: an unknown option, a wrong type, or a value out of range.
    """
    known = {option.name: option for option in options_of(method)}
    for name in spec.options:
        if name not in known:
            raise MethodError(
                f"method '{method.name}' has no option '{name}'",
                location=spec.location_of(name),
                label=did_you_mean(name, known),
                hint="options: " + ", ".join(sorted(known)),
            )
    values = {
        name: _checked(option, spec.options[name], spec.location_of(name))
        if name in spec.options
        else option.default
        for name, option in known.items()
        if option is not DECAY or name in spec.options
    }
    return MappingProxyType(values)


def _checked(option: MethodOption, value: OptionValue, location: Location | None) -> OptionValue:
    wanted = type(option.default)
    if wanted is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    accepted = ", ".join(str(choice) for choice in option.choices)
    if type(value) is not wanted:
        kind = {float: "a number", int: "an integer", bool: "true or false", str: "a word"}[wanted]
        hint = f"one of {accepted}" if accepted else f"give {kind}"
        raise MethodError(f"option '{option.name}' is {kind}, not {value!r}", location=location, hint=hint)
    if option.choices and value not in option.choices:
        raise MethodError(
            f"option '{option.name}' cannot be {value!r}", location=location, hint=f"one of {accepted}"
        )
    if isinstance(value, int | float) and not isinstance(value, bool) and value not in option.range:
        raise MethodError(f"option '{option.name}' is {value}", location=location, hint=str(option.range))
    return value


LEARNING_RATE = Input("lr", None, (), Role.HYPERPARAMETER)


def check_regularised(derived: Derived) -> None:
    """Refuse a model without state regularisation.

    Raises:
        MethodError: the directions of the weights would be zero.
    """
    spec = derived.model.spec.regularization
    if not derived.model.regularized or (spec.kind == "uniform" and spec.value == 0):
        raise MethodError(
            "without state regularisation the directions of the weights are zero",
            location=spec.location,
            hint="give regularization: {state: 1.0e-3}, or spectral",
        )


def ruled_layers(derived: Derived) -> tuple[LayerParameters, ...]:
    """Layers whose weight an equation fixes: all but the first one without the white layer.

    Raises:
        MethodError: there is none.
    """
    conditions = derived.newton.weight_conditions
    layers = tuple(layer for layer in derived.model.parameters if layer.index in conditions)
    if not layers:
        raise MethodError(
            "without the white layer nothing fixes the direction of the only layer",
            hint="set white_layer: true",
        )
    return layers


def descend(derived: Derived, directions: Mapping[Input, Expr]) -> list[Equation]:
    """θ ← θ − lr · direction for every parameter that has one, in the order of the layers."""
    equations: list[Equation] = []
    for owned in derived.model.parameters:
        for symbol in (symbol for symbol in owned.symbols if symbol in directions):
            move = einsum([(LEARNING_RATE, ()), (directions[symbol], symbol.axes)], symbol.axes)
            equations.append(Equation(symbol, subtract(symbol, move), owned.index, "definition"))
    return equations


def step_of_coefficients(
    derived: Derived,
    numbers: Sequence[Equation],
    directions: Mapping[Input, Expr],
    *,
    separable: bool,
    notes: tuple[str, ...],
) -> StepPlan:
    """A step along the Newton direction of every sample, from coefficients that are checked before it.

    Args:
        derived: the derivations.
        numbers: that define the coefficients.
        directions: of the parameters, made of these.
        separable, notes: as in a step plan.
    """
    conditions = derived.newton.conditions
    direction = System("direction", "Coefficients of the direction", tuple(numbers), conditions)
    update = System("update", "Step", tuple(descend(derived, directions)))
    return StepPlan(
        systems=((direction, ("forward", "adjoint")), (update, ("forward", "adjoint", "direction"))),
        guarded=("direction",),
        separable=separable,
        notes=notes,
        newton=True,
    )


def scalar_factors(expr: Expr, family: str, layer: int, role: Role) -> tuple[list[Equation], Expr]:
    """Give the scalar factors of every product of a sum a symbol of their own.

    A rank-one direction c·y xᵀ then costs one number besides its vectors, and that number can be
    checked before anything is updated.
    """
    terms = ordered_terms(expr, layer) if isinstance(expr, Add) else [(Fraction(1), expr)]
    equations: list[Equation] = []
    rebuilt: list[Expr] = []
    for factor, term in terms:
        scalars, tensors = _split(term)
        if scalars:
            number = f"{family}{len(equations) + 1}" if len(terms) > 1 else family
            symbol = Input(number, layer, (), role)
            equations.append(Equation(symbol, einsum(scalars, ()), layer, "definition"))
            tensors = [(symbol, ()), *tensors]
        rebuilt.append(scale(factor, einsum(tensors, term.axes)))
    return equations, total(rebuilt, expr.axes)


def _split(term: Expr) -> tuple[list[Operand], list[Operand]]:
    """Scalar factors (with the sums that belong to them alone) and the others."""
    operands = list(term.operands) if isinstance(term, Einsum) else [(term, term.axes)]
    free = set(term.axes)
    tensors = [(e, labels) for e, labels in operands if set(labels) & free]
    reached = {label for _, labels in tensors for label in labels}
    while True:
        more = [op for op in operands if op not in tensors and set(op[1]) & reached]
        if not more:
            break
        tensors += more
        reached |= {label for _, labels in more for label in labels}
    scalars = [op for op in operands if op not in tensors]
    return scalars, tensors


def constraint_index(model: Model, layer: int) -> int:
    """k of the constraint that uses the parameters of a layer; on a chain there is one."""
    return next(
        c.index for c in model.constraints if c.parameters is not None and c.parameters.index == layer
    )


def source_index(model: Model, layer: int) -> int:
    """Index of the state that a layer reads."""
    return model.constraints[constraint_index(model, layer) - 1].sources[0]
