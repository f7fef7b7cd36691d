"""Newton directions from curvature blocks: EA-CG, and its solvers on any kind of curvature."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType

import sympy

from sifrc.derive.curvature.parameters import parameter_block
from sifrc.derive.curvature.sharing import SHARINGS, Sharing
from sifrc.derive.curvature.systems import Moment
from sifrc.derive.derived import Derived
from sifrc.derive.shaped import DIAGONAL, GRADIENT, shaped
from sifrc.derive.system import Equation, System
from sifrc.errors import MethodError
from sifrc.ir import Expr, Input, LinearSolve, Role, Solve, Spectral, primed
from sifrc.ir.build import apply, einsum, ones, rename, subtract, total
from sifrc.ir.linear import report_symbols
from sifrc.methods.base import LEARNING_RATE, Choices, Method, MethodOption, StepPlan, number
from sifrc.methods.chosen_kind import kind_named
from sifrc.methods.layer_factors import MOVE, LayerFactors, mean_eigenvalue, shifted
from sifrc.methods.plan import MemorySpec
from sifrc.methods.without_factors import (
    AVERAGES,
    OTHERS,
    averaged,
    damping,
    direction,
    noted,
    without_factors,
)
from sifrc.model import Parameter
from sifrc.scalar import RECIPROCAL, SQRT
from sifrc.scalar.function import ScalarFunction

__all__ = ["CurvatureBlocks"]

_ALPHA = Input("alpha", None, (), Role.HYPERPARAMETER)
_MOMENTUM = Input("momentum", None, (), Role.HYPERPARAMETER)
_LIMIT = Input("cg_iterations", None, (), Role.HYPERPARAMETER)
_TOLERANCE = Input("cg_tolerance", None, (), Role.HYPERPARAMETER)
_DECAY = Input("decay", None, (), Role.HYPERPARAMETER)

_U, _V, _A = (sympy.Symbol(name, real=True) for name in ("u", "v", "a"))
_RATIO = ScalarFunction(
    "ratio", ("u", "v", "a"), sympy.Piecewise((_A * _U / _V, (_U > 0) & (_V > 0)), (_A, True))
)
"""a·u/v, and a where one of both is zero: the square of π√α of EA-CG(12), u and v mean eigenvalues."""

_VELOCITY = shaped("velocity", "VW", "Vβ")
_REPORTS: Mapping[str, tuple[MemorySpec, MemorySpec]] = MappingProxyType(
    {
        "D": (
            MemorySpec("iterations", "CG iterations of the last step, weights"),
            MemorySpec("remaining", "relative residual after them, weights"),
        ),
        "Dβ": (
            MemorySpec("iterationsβ", "CG iterations of the last step, biases"),
            MemorySpec("remainingβ", "relative residual after them, biases"),
        ),
    }
)
"""Family of directions -> what is kept of its solution."""


class CurvatureBlocks(Method):
    """θ ← θ − lr·V, V ← momentum·V + D, ((1 − α) C + α I) D = G for every block C, EA-CG(9, 10)."""

    name = "ea_cg"
    title = "EA-CG"
    paper = "EA-CG"
    options = (
        number("learning_rate", 0.05, "step size"),
        number("momentum", 0.9, "of the steps; EA-CG's experiments have 0.9 for SGD", upper=1.0),
        number("alpha", 0.1, "damping α of EA-CG(9), between 0 and 1", upper=1.0),
        MethodOption("kind", "pch1", "of curvature: a preset, or a name of the spec's curvature: list"),
        MethodOption(
            "solver",
            "ea_cg",
            "ea_cg: conjugate gradients on EA-CG(11b), cg: on EA-CG(11a), kfi: factored inverse EA-CG(12), "
            "exact: by eigenvalues",
            choices=("ea_cg", "cg", "kfi", "exact"),
        ),
        MethodOption(
            "moment",
            "auto",
            "of the layers' inputs: second, mean, or auto: mean for ea_cg, else second",
            choices=("auto", "second", "mean"),
        ),
        MethodOption(
            "sharing",
            "expand",
            "factors of weights that act at several places: expand, of places that have nothing to do with "
            "each other, or reduce, of places with the same derivatives",
            choices=SHARINGS,
        ),
        OTHERS,
        number("cg_iterations", 20.0, "largest number of iterations |CG|", whole=True),
        number("cg_tolerance", 1e-3, "relative residual ε at which they end"),
        MethodOption("period", 1, "steps from one curvature to the next", lower=1),
        MethodOption("seed", 0, "of the draws of sampled kinds", lower=0),
        number("decay", 0.0, "of a moving average of the factors; 0 for none", below=1.0),
    )

    def step(self, derived: Derived, chosen: Choices) -> StepPlan:
        return _Plan(derived, chosen).plan()


class _Plan:
    def __init__(self, derived: Derived, chosen: Choices) -> None:
        self.derived = derived
        self.model = derived.model
        self.solver = str(chosen["solver"])
        self.kind = kind_named(derived, str(chosen["kind"]))
        moment = str(chosen["moment"])
        self.moment: Moment = (
            "mean" if moment == "mean" or (moment == "auto" and self.solver == "ea_cg") else "second"
        )
        self.sharing: Sharing | None = None
        if not self.model.separates:
            self.sharing = next(one for one in SHARINGS if one == chosen["sharing"])
        self.average = float(chosen["decay"]) > 0
        self.notes: list[str] = []
        self._check()
        self.others = without_factors(derived, self.kind, self.solver, self.moment, str(chosen["others"]))
        self.notes += noted(self.others)

    def _check(self) -> None:
        """Refuse curvatures that a solver cannot take."""
        method = self.model.spec.method
        location = method.location_of("kind") if method else None
        kind, loss = self.kind, self.derived.curvature.convexity
        if kind.source == "loss" and kind.output == "kept" and loss == "not convex":
            raise MethodError(
                f"kind '{kind.name}' is indefinite: the loss is not convex in the output",
                location=location,
                hint="kind: pch1 or pch2, or output: absolute in an entry of curvature:",
            )
        if self.solver == "kfi" and self.model.penalties:
            raise MethodError(
                "the factored inverse EA-CG(12) has no place for regularisation of the parameters",
                location=self.model.spec.regularization.location,
                hint="solver: cg or exact, or the option weight_decay",
            )
        indefinite = kind.source == "objective" and not kind.definite
        if indefinite and self.solver == "kfi":
            raise MethodError(
                f"kind '{kind.name}' is indefinite, and the factors of EA-CG(12) must be definite",
                location=location,
                hint="kind: pch1 or pch2, or solver: exact",
            )
        if indefinite and self.solver in ("ea_cg", "cg"):
            self.notes.append("Conjugate gradients end at a direction of negative curvature.")

    def plan(self) -> StepPlan:
        curvature = self.derived.curvature
        base = ("forward", *self.derived.before_loss, "adjoint")
        blocks = curvature.blocks(self.kind)
        systems: list[tuple[System, tuple[str, ...]]] = [(self.derived.first.gradient, base), (blocks, base)]
        periodic = [blocks.name]
        guarded: list[tuple[str, tuple[str, ...]]] = [(blocks.name, ("H̄", "H"))]
        means = None
        if self.sharing is not None:
            means = curvature.factor_blocks(self.kind.form, self.sharing)
        elif self.kind.form != "batch":
            means = curvature.mean_blocks(self.kind.form)
        if means is not None:
            families = tuple(dict.fromkeys(e.symbol.family for e in means.equations))
            systems.append((means, ("forward", blocks.name)))
            periodic.append(means.name)
            guarded.append((means.name, families))
        moments = curvature.moments(self.moment, self.sharing)
        systems.append((moments, ("forward",)))
        periodic.append(moments.name)
        if self._unknown():
            symbol, before = curvature.output_block(self.kind.form)
            if self.sharing is not None and before is not None:
                systems.append((before, ("forward", blocks.name)))
                periodic.append(before.name)
            checked = self._definite(symbol)
            systems.append((checked, ()))
            periodic.append(checked.name)
            guarded.append((checked.name, (symbol.family,)))
        if self.others:
            diagonals = curvature.other_diagonal(self.kind.form, self.others)
            systems.append((diagonals, ("forward", blocks.name)))
            periodic.append(diagonals.name)
            guarded.append((diagonals.name, DIAGONAL.families))
        layers = tuple(self._layers())
        memory = [
            MemorySpec("VW", "momentum of the weights"),
            MemorySpec("Vβ", "momentum of the biases"),
        ]
        keeps: list[Equation] = []
        if self.average:
            factors, keeps = self._averages()
            systems.append((factors, ()))
            periodic.append(factors.name)
            memory += [
                MemorySpec("H̃", "moving average of the blocks"),
                MemorySpec("Ã", "moving average of the moments"),
                MemorySpec("w̃", "weight of the moving averages"),
            ]
            if self.others:
                memory += AVERAGES
        solved = System("direction", "Newton direction of each block", tuple(self._directions(layers)))
        update = System("update", "Step", (*keeps, *self._updates()))
        if self.solver in ("ea_cg", "cg"):
            memory += [report for reports in _REPORTS.values() for report in reports]
        systems += [(solved, ("gradient",)), (update, ("gradient", "direction"))]
        guarded.append((solved.name, MOVE.families))
        return StepPlan(
            systems=tuple(systems),
            memory=tuple(memory),
            periodic=tuple(periodic),
            guarded=tuple(guarded),
            single=False,
            refreshable=True,
            separable=True,
            notes=(
                f"Curvature {self.kind.name}, solver {self.solver}, {self.moment} of the inputs.",
                *self.notes,
            ),
        )

    def _unknown(self) -> bool:
        """Whether nothing is known about the loss where that matters."""
        undecided = self.kind.source == "loss" and self.kind.output == "kept"
        return undecided and self.derived.curvature.convexity == "undecided"

    def _definite(self, symbol: Input) -> System:
        """A check of the output's block."""
        self.notes.append("Whether the loss is convex is not known: its block is checked at every curvature.")
        equation = Equation(symbol, Spectral(symbol, "definite"), symbol.index, "EA-CG(8a)")
        return System("definite_output", "The output's block is positive semi-definite", (equation,))

    def _layers(self) -> Iterator[LayerFactors]:
        for parameters in reversed(self.model.parameters):
            if parameters in self.others:
                continue
            curvature = self.derived.curvature
            block, moment = curvature.factor_block(parameters), curvature.moment(parameters, self.moment)
            if self.average:
                block, moment = _renamed(block, "H̃+"), _renamed(moment, "Ã+")
            reading = curvature.reading(parameters)
            yield LayerFactors(parameters, block, moment, self.moment, reading)

    def _averages(self) -> tuple[System, list[Equation]]:
        """Moving averages with their own weight, so that the first ones are not too small."""
        weight, new_weight = (Input(f, None, (), Role.DIRECTION) for f in ("w̃", "w̃+"))
        gain = subtract(ones(), _DECAY)
        grown = total([einsum([(_DECAY, ()), (weight, ())], ()), gain], ())
        equations = [Equation(new_weight, grown, None, "definition")]
        keeps = [Equation(weight, new_weight, None, "definition")]
        for symbol, new, kept in self._averaged():
            # Kept is the average of weight one: (decay·w·old + (1 − decay)·fresh) over the new weight.
            inverse = apply(RECIPROCAL, new_weight)
            parts = [
                einsum([(_DECAY, ()), (weight, ()), (inverse, ()), (kept, kept.axes)], symbol.axes),
                einsum([(gain, ()), (inverse, ()), (symbol, symbol.axes)], symbol.axes),
            ]
            equations.append(Equation(new, total(parts, symbol.axes), symbol.index, "definition"))
            keeps.append(Equation(kept, new, symbol.index, "definition"))
        return System("averages", "Moving averages of the factors", tuple(equations)), keeps

    def _averaged(self) -> Iterator[tuple[Input, Input, Input]]:
        """What the curvature of a batch is, the new average of it, and the one that is kept."""
        curvature = self.derived.curvature
        for layer in self._layers():
            owned = layer.parameters
            block, moment = curvature.factor_block(owned), curvature.moment(owned, self.moment)
            yield block, layer.block, _renamed(block, "H̃")
            yield moment, layer.moment, _renamed(moment, "Ã")
        yield from averaged(self.others)

    def _directions(self, layers: tuple[LayerFactors, ...]) -> Iterator[Equation]:
        for layer in layers:
            yield from layer.folded()
            yield from self._factored(layer) if self.solver == "kfi" else self._solved(layer)
        for owned in reversed(self.others):
            for parameter in owned.members:
                yield direction(self.model, parameter, _ALPHA, average=self.average)

    def _solved(self, layer: LayerFactors) -> Iterator[Equation]:
        """((1 − α) C + α I) D = G, EA-CG(10)."""
        owned = layer.parameters
        for parameter in owned.members:
            gradient = GRADIENT.of(parameter)
            if layer.reading is None:
                block = parameter_block(self.model, owned, parameter, layer.block)
                means = layer.moment, layer.block
                block = self.derived.curvature.averaged(owned, block, *means, layer.of)
                where = block.of_pre_activation
                yield self._equation(parameter, layer.move(parameter), block.value, gradient, where)
            elif parameter.slot == "weight":
                value = layer.reading.block(layer.block, layer.moment, layer.of)
                yield self._equation(parameter, layer.move(parameter), value, layer.gradient, False)
            else:
                value = layer.of_bias(parameter.symbol)
                yield self._equation(parameter, layer.move(parameter), value, gradient, True)

    def _equation(
        self, parameter: Parameter, result: Input, block: Expr, gradient: Input, of_pre_activation: bool
    ) -> Equation:
        own = result.axes
        probe = Input("p", result.index, own, Role.DIRECTION)
        applied = einsum(
            [(subtract(ones(), _ALPHA), ()), (block, (*own, *primed(own))), (probe, primed(own))], probe.axes
        )
        damped = einsum([(damping(self.model, parameter, _ALPHA), ()), (probe, probe.axes)], probe.axes)
        iterative = self.solver in ("ea_cg", "cg")
        solution = LinearSolve(
            (probe,),
            (total([applied, damped], probe.axes),),
            (gradient,),
            0,
            "cg" if iterative else "eigen",
            _LIMIT if iterative else None,
            _TOLERANCE if iterative else None,
        )
        source = "EA-CG(10a)" if of_pre_activation else "EA-CG(10b)"
        return Equation(result, solution, result.index, source)

    def _factored(self, layer: LayerFactors) -> Iterator[Equation]:
        """The factored inverse: (H̄ + √α/π I)⁻¹ G (A + π √α I)⁻¹, EA-CG(12); (13) with the mean."""
        owned, block, moment = layer.parameters, layer.block, layer.moment
        row, column = axes = layer.axes
        rows, columns = mean_eigenvalue(block), mean_eigenvalue(moment, layer.diagonal)
        dampings: list[Input] = []
        for mark, pair in (("/π", (rows, columns)), ("·π", (columns, rows))):
            squared = Input(f"α{mark}", owned.index, (), Role.DIRECTION)
            yield Equation(squared, apply(_RATIO, *pair, _ALPHA), owned.index, "EA-CG(12)")
            dampings.append(Input(f"√α{mark}", owned.index, (), Role.DIRECTION))
            yield Equation(dampings[-1], apply(SQRT, squared), owned.index, "EA-CG(12)")
        on_rows, on_columns = dampings
        gradient = layer.gradient
        left = shifted(block, on_rows)
        halfway = Input("D½", owned.index, axes, Role.DIRECTION)
        first = Solve(left, rename(gradient, (left.axes[0], column)), checked=False, definite=True)
        yield Equation(halfway, rename(first, halfway.axes), owned.index, "EA-CG(12)")
        result = Input("D", owned.index, axes, Role.DIRECTION)
        if self.moment == "mean":
            probe = Input("p", owned.index, axes, Role.DIRECTION)
            other = column.primed
            outer = [(moment, (column,)), (moment, (other,)), (probe, (row, other))]
            product = total(
                [einsum(outer, probe.axes), einsum([(on_columns, ()), (probe, probe.axes)], probe.axes)],
                probe.axes,
            )
            value: Expr = LinearSolve((probe,), (product,), (halfway,), 0, "eigen")
            yield Equation(result, value, owned.index, "EA-CG(13)")
        elif layer.diagonal:
            right = total([moment, einsum([(on_columns, ())], (column,))], (column,))
            inverse = apply(RECIPROCAL, right)
            value = einsum([(inverse, (column,)), (halfway, (row, column))], (row, column))
            yield Equation(result, value, owned.index, "EA-CG(12)")
        else:
            right = shifted(moment, on_columns)
            flipped = einsum([(halfway, (row, column))], (column, row))
            second = Solve(right, rename(flipped, (right.axes[0], row)), checked=False, definite=True)
            value = einsum([(second, (column, row))], (row, column))
            yield Equation(result, value, owned.index, "EA-CG(12)")
        if owned.bias is not None:
            own = Input("g", owned.index, owned.bias.axes, Role.DIRECTION)
            damped = shifted(block, _ALPHA)
            solution = Solve(damped, rename(own, damped.axes[:1]), checked=False, definite=True)
            bias = Input("Dβ", owned.index, owned.bias.axes, Role.DIRECTION)
            yield Equation(bias, rename(solution, bias.axes), owned.index, "EA-CG(10a)")

    def _updates(self) -> Iterator[Equation]:
        """Momentum, step, and what conjugate gradients did."""
        layers = {layer.parameters.index: layer for layer in self._layers()}
        for owned in self.model.parameters:
            layer = layers.get(owned.index)
            for parameter in owned.members:
                symbol, kept_move = parameter.symbol, _VELOCITY.of(parameter)
                move = MOVE.of(parameter) if layer is None else layer.move(parameter)
                shaped_move = move if layer is None else layer.tensor(parameter)
                if layer is not None and self.solver in ("ea_cg", "cg"):
                    for found, kept in zip(report_symbols(move), _REPORTS[move.family], strict=True):
                        number = Input(kept.family, owned.index, (), Role.DIRECTION)
                        yield Equation(number, found, owned.index, "definition")
                carried = einsum([(_MOMENTUM, ()), (kept_move, symbol.axes)], symbol.axes)
                yield Equation(
                    kept_move, total([carried, shaped_move], symbol.axes), owned.index, "definition"
                )
                step = einsum([(LEARNING_RATE, ()), (kept_move, symbol.axes)], symbol.axes)
                yield Equation(symbol, subtract(symbol, step), owned.index, "EA-CG(9)")


def _renamed(symbol: Input, family: str) -> Input:
    return Input(family, symbol.index, symbol.slots, symbol.role)
