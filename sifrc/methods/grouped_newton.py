"""Grouped Newton: one step size for every group of parameters, from summaries of orders 2 and 3, GN3."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

from sifrc.derive.derived import Derived
from sifrc.derive.groups import OWNER
from sifrc.derive.scaling import at_unit_length
from sifrc.derive.shaped import DIRECTION, GRADIENT
from sifrc.derive.system import Equation, System
from sifrc.errors import MethodError
from sifrc.ir import Axis, CubicNewton, Delta, Expr, Input, Operand, Reduce, Role, Solve
from sifrc.ir.build import add, apply, einsum, ones, rename, subtract, total
from sifrc.methods.base import LEARNING_RATE, Choices, Method, MethodOption, StepPlan, number
from sifrc.methods.plan import MemorySpec
from sifrc.model import LayerParameters
from sifrc.scalar import ABS, QUOTIENT, RECIPROCAL, SQRT, scalar_from_tree
from sifrc.spec.parser import parse_expression

__all__ = ["GroupedNewton"]

_MOMENTUM = Input("momentum", None, (), Role.HYPERPARAMETER)
_RATE_MOMENTUM = Input("rate_momentum", None, (), Role.HYPERPARAMETER)
_INTERNAL = Input("internal_damping", None, (), Role.HYPERPARAMETER)
_RIDGE = Input("ridge", None, (), Role.HYPERPARAMETER)
_CLIP = Input("clip", None, (), Role.HYPERPARAMETER)
_BETA1 = Input("beta1", None, (), Role.HYPERPARAMETER)
_BETA2 = Input("beta2", None, (), Role.HYPERPARAMETER)
_EPSILON = Input("epsilon", None, (), Role.HYPERPARAMETER)
_BEGUN = Input("begun", None, (), Role.DIRECTION)
"""0 before the first step, 1 after it: a moving average begins with its first value."""


class GroupedNewton(Method):
    """θ_s ← θ_s − lr·η_s u_s, η the minimiser of a regularised model of the objective, GN3 Algorithm 4."""

    name = "grouped_newton"
    title = "Grouped Newton"
    paper = "GN3"
    options = (
        number("learning_rate", 0.1, "step size λ; GN3 Table 3 has 0.1 and 0.3"),
        number("momentum", 0.9, "μ_g of the gradient; GN3 Table 2 has 0.9", upper=1.0),
        number("rate_momentum", 0.5, "μ_η of the groups' rates; GN3 Table 2 has 0.5", upper=1.0),
        number("internal_damping", 10.0, "λ_int of the cubic term; GN3 Table 3 has 3 and 10"),
        MethodOption("period", 10, "τ, steps from one summary to the next; GN3 Table 2 has 10", lower=1),
        MethodOption(
            "direction",
            "momentum",
            "u: moving average of the gradients, the gradient, or Adam's direction",
            choices=("momentum", "gradient", "adam"),
        ),
        MethodOption(
            "regularization",
            "cubic",
            "of H̄: anisotropic cubic term GN3(10), a multiple of the identity, or none GN3(9)",
            choices=("cubic", "ridge", "none"),
        ),
        MethodOption(
            "interactions", "full", "full H̄, or its diagonal alone (GN3 L)", choices=("full", "diagonal")
        ),
        MethodOption(
            "unbounded",
            "refuse",
            "where the cubic model falls without end (D_s = 0): refuse the step, or take the absolute value "
            "of that part of H̄",
            choices=("refuse", "absolute"),
        ),
        MethodOption("positive", True, "take the positive part (η)₊ of the rates, GN3 Algorithm 4"),
        number("ridge", 1e-3, "multiple of the identity with ridge"),
        number("clip", 0.0, "largest rate of a group; 0 for none"),
        number("beta1", 0.9, "of Adam's direction", below=1.0),
        number("beta2", 0.999, "of Adam's direction", below=1.0),
        number("epsilon", 1e-8, "of Adam's direction"),
    )

    def step(self, derived: Derived, chosen: Choices) -> StepPlan:
        return _Plan(derived, chosen).plan()


class _Plan:
    def __init__(self, derived: Derived, chosen: Choices) -> None:
        self.derived = derived
        self.chosen = chosen
        self.model = derived.model
        self.cubic = chosen["regularization"] == "cubic"
        self.summary = derived.summaries.of_order(3 if self.cubic else 2)
        self.axis: Axis = derived.summaries.groups
        self.memory: dict[str, MemorySpec] = {}
        if derived.summaries.partition.discrete:
            raise MethodError(
                "grouped Newton cannot train with the discrete partition",
                location=self.model.spec.partition.location,
                hint="it is for the operator summary; choose another, e.g. canonical",
            )

    def plan(self) -> StepPlan:
        """The step as equations, in the order of GN3 Algorithm 4."""
        gradient = self.derived.first.gradient
        direction = System("direction", "Direction", tuple(self._directions()))
        rates = System("rates", "Rates of the groups", tuple(self._rates()))
        update = System("update", "Step", tuple(self._updates()))
        base = ("forward", "adjoint")
        return StepPlan(
            systems=(
                (gradient, base),
                (direction, (*base, "gradient")),
                (self.summary, base),
                (rates, (*base, "gradient", "direction", self.summary.name)),
                (update, (*base, "gradient", "direction")),
            ),
            memory=tuple(self.memory.values()),
            periodic=(self.summary.name, "rates"),
            guarded=(("direction", ()), (self.summary.name, self._unit()), ("rates", ("ρ_s",))),
            single=False,
            notes=(
                f"{self.derived.summaries.partition.size} groups; direction {self.chosen['direction']}, "
                f"regularisation {self.chosen['regularization']}, "
                f"{self.chosen['interactions']} interactions.",
            ),
            curvature_batch=("forward", "adjoint"),
            kept=(*self._summed(), "η̂"),
            partitioned=True,
        )

    def _summed(self) -> tuple[str, ...]:
        return ("ḡ", "H̿", "D̄") if self.cubic else ("ḡ", "H̿")

    def _unit(self) -> tuple[str, ...]:
        """The same along directions of length about one: what the rates are made of."""
        return tuple(at_unit_length(family) for family in self._summed())

    def _remember(self, symbol: Input, text: str) -> Input:
        self.memory.setdefault(symbol.family, MemorySpec(symbol.family, text))
        return symbol

    # -- direction

    def _directions(self) -> Iterator[Equation]:
        kind = self.chosen["direction"]
        if kind == "adam":
            for weight, decay, text in (("w₁", _BETA1, "first"), ("w₂", _BETA2, "second")):
                kept = self._remember(
                    Input(weight, None, (), Role.DIRECTION), f"weight of the {text} moments"
                )
                yield Equation(_new(kept), _averaged(decay, kept, ones()), None, "definition")
        for owned in reversed(self.model.parameters):
            pairs = zip(GRADIENT.pairs(owned), DIRECTION.pairs(owned), strict=True)
            for (_, slope), (_, direction) in pairs:
                if kind == "gradient":
                    yield Equation(direction, slope, owned.index, "GN3(9)")
                elif kind == "momentum":
                    begun = self._remember(_BEGUN, "1 after the first step")
                    average = self._average(slope, "V", "momentum of the gradients")
                    value = _averaged(einsum([(_MOMENTUM, ()), (begun, ())], ()), average, slope)
                    yield Equation(direction, value, owned.index, "GN3 Alg. 4")
                else:
                    yield from self._adam(slope, direction, owned.index)

    def _average(self, slope: Input, mark: str, text: str) -> Input:
        part = "W" if slope.family == "G" else "β"
        kept = Input(f"{mark}{part}", slope.index, slope.slots, Role.DIRECTION)
        return self._remember(kept, f"{text}, {'weights' if part == 'W' else 'biases'}")

    def _adam(self, slope: Input, direction: Input, layer: int) -> Iterator[Equation]:
        """m̂ / (√v̂ + ε), the averages m and v over the weights that they have so far."""
        square = einsum([(slope, slope.axes), (slope, slope.axes)], slope.axes)
        first = self._average(slope, "M", "first moments")
        second = self._average(slope, "S", "second moments")
        yield Equation(_new(first), _averaged(_BETA1, first, slope), layer, "definition")
        yield Equation(_new(second), _averaged(_BETA2, second, square), layer, "definition")
        mean, spread = (
            einsum([(_new(kept), kept.axes), (apply(RECIPROCAL, _new(_weight(name))), ())], kept.axes)
            for name, kept in (("w₁", first), ("w₂", second))
        )
        scale = total([apply(SQRT, spread), einsum([(_EPSILON, ())], slope.axes)], slope.axes)
        value = einsum([(mean, slope.axes), (apply(RECIPROCAL, scale), slope.axes)], slope.axes)
        yield Equation(direction, value, layer, "definition")

    # -- rates of the groups

    def _rates(self) -> Iterator[Equation]:
        s, other = self.axis, self.axis.primed
        found = Input("η̂", None, (s,), Role.DIRECTION)
        # A ridge is a multiple of the identity for the directions as they are.
        ridge = self.chosen["regularization"] == "ridge"
        families = self._summed() if ridge else self._unit()
        gradient: Expr = Input(families[0], None, (s,), Role.DIRECTION)
        matrix: Expr = Input(families[1], None, (s, other), Role.DIRECTION)
        moving = Input("χ", None, (s,), Role.DIRECTION)
        if not ridge:
            yield Equation(moving, self._above_rounding(gradient), None, "definition")
            again = rename(moving, (other,))
            gradient = einsum([(moving, (s,)), (gradient, (s,))], (s,))
            matrix = einsum([(moving, (s,)), (again, (other,)), (matrix, (s, other))], (s, other))
        if self.chosen["interactions"] == "diagonal":
            diagonal = Input("H̿°", None, (s,), Role.DIRECTION)
            yield Equation(diagonal, einsum([(matrix, (s, s))], (s,)), None, "definition")
            matrix = einsum([(diagonal, (s,)), (Delta(s, other), (s, other))], (s, other))
        source = "GN3(9)"
        if self.cubic:
            third = einsum([(moving, (s,)), (Input(families[2], None, (s,), Role.DIRECTION), (s,))], (s,))
            value: Expr = CubicNewton(matrix, gradient, third, _INTERNAL, str(self.chosen["unbounded"]))
            source = "GN3(10)"
        else:
            if ridge:
                damping = einsum([(_RIDGE, ()), (Delta(s, other), (s, other))], (s, other))
                matrix = total([matrix, damping], (s, other))
            value = Solve(rename(matrix, (other, s)), rename(gradient, (other,)), checked=False)
        if ridge:
            yield Equation(found, value, None, source)
        else:
            unit = Input(at_unit_length("η̂"), None, (s,), Role.DIRECTION)
            yield Equation(unit, value, None, source)
            scale = self.derived.summaries.scaling.scale
            yield Equation(found, apply(QUOTIENT, unit, scale), None, "definition")
        kept = self._remember(Input("η̃", None, (s,), Role.DIRECTION), "rates of the groups, averaged")
        begun = self._remember(_BEGUN, "1 after the first step")
        momentum = einsum([(_RATE_MOMENTUM, ()), (begun, ())], ())
        yield Equation(
            Input("ρ_s", None, (s,), Role.DIRECTION),
            _averaged(momentum, kept, self._safe(found)),
            None,
            "GN3 Alg. 4",
        )

    def _above_rounding(self, gradient: Expr) -> Expr:
        """One for each group, zero where its summary of order 1 is rounding error beside the largest.

        That is all there is where a group does not change the objective, as a bias before batch norm: what is
        rounding would be divided by a curvature that is rounding too.
        """
        # Some rounding errors of the dtype, relative to what is summed up.
        digits = 2**47 if self.model.spec.dtype == "float64" else 2**18
        tree = parse_expression(f"where({digits}*abs(x) <= y, 0, 1)", variables=("x", "y"))
        kept = scalar_from_tree(tree, ("x", "y"), (), "above_rounding")
        largest = Reduce(gradient, self.axis, "magnitude")
        return apply(kept, gradient, einsum([(largest, ())], (self.axis,)))

    def _safe(self, rates: Input) -> Expr:
        """The rates within their bounds."""
        value: Expr = rates
        if float(self.chosen["clip"]) > 0:
            bound = einsum([(_CLIP, ())], rates.axes)
            value = subtract(bound, _positive(subtract(bound, value)))
        return _positive(value) if self.chosen["positive"] else value

    # -- step

    def _updates(self) -> Iterator[Equation]:
        rates = Input("ρ_s", None, (self.axis,), Role.DIRECTION)
        for owned in self.model.parameters:
            for parameter, direction in DIRECTION.pairs(owned):
                owner = Input(OWNER[direction.family], owned.index, (self.axis,), Role.HYPERPARAMETER)
                factors: list[Operand] = [
                    (LEARNING_RATE, ()),
                    (owner, (self.axis,)),
                    (rates, (self.axis,)),
                    (direction, direction.axes),
                ]
                move = einsum(factors, parameter.axes)
                yield Equation(parameter, subtract(parameter, move), owned.index, "GN3(8)")
            yield from self._kept_averages(owned)
        average = Input("η̃", None, (self.axis,), Role.DIRECTION)
        yield Equation(average, rates, None, "definition")
        if "begun" in self.memory:
            yield Equation(_BEGUN, ones(), None, "definition")
        for weight in ("w₁", "w₂"):
            if weight in self.memory:
                yield Equation(_weight(weight), _new(_weight(weight)), None, "definition")

    def _kept_averages(self, owned: LayerParameters) -> Iterator[Equation]:
        layer = owned.index
        pairs = zip(GRADIENT.pairs(owned), DIRECTION.pairs(owned), strict=True)
        for (_, slope), (_, direction) in pairs:
            part = "W" if slope.family == "G" else "β"
            if f"V{part}" in self.memory:
                kept = Input(f"V{part}", layer, slope.slots, Role.DIRECTION)
                yield Equation(kept, direction, layer, "definition")
            for mark in ("M", "S"):
                if f"{mark}{part}" in self.memory:
                    kept = Input(f"{mark}{part}", layer, slope.slots, Role.DIRECTION)
                    yield Equation(kept, _new(kept), layer, "definition")


def _weight(name: str) -> Input:
    return Input(name, None, (), Role.DIRECTION)


def _new(symbol: Input) -> Input:
    """The next value of something remembered, before the step is accepted."""
    return Input(f"{symbol.family}+", symbol.index, symbol.slots, symbol.role)


def _averaged(decay: Expr, old: Expr, new: Expr) -> Expr:
    """decay · old + (1 − decay) · new."""
    axes = new.axes
    carried = einsum([(decay, ()), (old, old.axes)], axes)
    return total([carried, new, add([(Fraction(-1), einsum([(decay, ()), (new, axes)], axes))], axes)], axes)


def _positive(value: Expr) -> Expr:
    half = Fraction(1, 2)
    return add([(half, value), (half, apply(ABS, value))], value.axes)
