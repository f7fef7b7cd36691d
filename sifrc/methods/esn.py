"""Exact stochastic Newton (ESN): exact, saddle-free and randomised directions."""

from __future__ import annotations

from sifrc.derive.derived import Derived
from sifrc.derive.elimination import solve_shifted_outer
from sifrc.derive.newton import Newton
from sifrc.derive.randomised import LeastSquares, derive_least_squares
from sifrc.derive.system import Equation, System
from sifrc.errors import MethodError
from sifrc.ir import Delta, Expr, Input, Role, Solve, Spectral, Sylvester
from sifrc.ir.build import apply, einsum, hadamard, inner, negative, ones, rename, subtract, total
from sifrc.ir.normal import expand
from sifrc.ir.nullspace import sums_to_zero
from sifrc.ir.traverse import inputs_of, substitute
from sifrc.methods.base import (
    Choices,
    Method,
    MethodOption,
    StepPlan,
    check_regularised,
    constraint_index,
    descend,
    number,
    ruled_layers,
    scalar_factors,
    source_index,
    step_of_coefficients,
)
from sifrc.methods.plan import MemorySpec
from sifrc.scalar import ABS, RECIPROCAL, piecewise_affine

__all__ = ["ExactStochasticNewton"]

_DECAY = Input("decay", None, (), Role.HYPERPARAMETER)


class ExactStochasticNewton(Method):
    """Newton direction of one sample in closed form, its saddle-free and its randomised versions."""

    name = "esn"
    title = "Exact stochastic Newton"
    paper = "ESN"
    options = (
        MethodOption(
            "variant",
            "randomised",
            "exact ESN(17), saddle_free ESN(21) or randomised ESN(24, 26)",
            ("exact", "saddle_free", "randomised"),
        ),
        MethodOption(
            "form",
            "identity",
            "identity: unit variance of the states, ESN(26); sylvester: ESN(24)",
            ("identity", "sylvester"),
        ),
        MethodOption(
            "precision",
            "rank_one",
            "estimator of the expectations, ESN A.6: rank_one uses the current "
            "sample, direct moving averages, recursive the Sherman–Morrison recursion",
            ("rank_one", "direct", "recursive"),
        ),
        MethodOption(
            "scaling",
            "mean",
            "recursive only: sum is the paper's, where the identity fades against a "
            "growing sum; mean weighs each sample by 1 − decay",
            ("mean", "sum"),
        ),
        MethodOption(
            "sample_weights", "none", "error: weigh samples by ‖x_n − t‖², ESN A.6", ("none", "error")
        ),
        MethodOption(
            "white_layer", True, "identity layer before the input that gives the first layer its rule"
        ),
        MethodOption("period", 1, "direct and sylvester: solve every so many steps", lower=1),
        number("learning_rate", 0.01, "step size (0.01 in ESN Fig. 2)"),
        number("decay", 0.99, "decay of the moving averages", upper=1.0),
    )

    def step(self, derived: Derived, chosen: Choices) -> StepPlan:
        if chosen["variant"] == "randomised":
            return _randomised(derived, chosen)
        return _per_sample(derived, saddle_free=chosen["variant"] == "saddle_free")


def _per_sample(derived: Derived, saddle_free: bool) -> StepPlan:
    """ESN(17), or ESN(21): the sign of the part of η that is not granular is switched."""
    newton, model = derived.exact_newton, derived.model
    short = newton.second.first.short
    output = model.output
    owned = output.parameters
    assert owned is not None and owned.bias is not None
    v = Input("v", owned.index, owned.bias.axes, Role.TANGENT)
    granular = convex_granular(newton) if saddle_free else newton.granular
    equations = [Equation(v, short(granular), owned.index, "ESN(17)")]
    directions: dict[Input, Expr] = {}
    numbers: list[Equation] = []
    for layer in model.parameters:
        weight, bias = newton.weights[layer.index], newton.biases[layer.index]
        assert layer.bias is not None
        rest = expand(short(subtract(bias, newton.granular) if layer is owned else bias))
        if saddle_free:
            rest = negative(rest)
        more, directions[layer.weight] = scalar_factors(expand(short(weight)), "cN", layer.index, Role.STATE)
        numbers += more
        more, part = scalar_factors(rest, "cη", layer.index, Role.STATE)
        numbers += more
        directions[layer.bias] = total([part, v], part.axes) if layer is owned else part
    name = "saddle-free" if saddle_free else "exact"
    notes = (f"A batch takes the mean of its samples' {name} directions: not the batch's Newton step.",)
    return step_of_coefficients(derived, [*numbers, *equations], directions, separable=False, notes=notes)


def convex_granular(newton: Newton) -> Expr:
    """v with |M| in place of M where the output activation is not piecewise affine.

    M is indefinite then (e.g. tanh with squared error), and v could ascend.
    """
    activation = newton.second.first.model.output.activation
    if activation is None or piecewise_affine(activation):
        return newton.granular
    matrix, rest = newton.output_equation
    axes = newton.granular.axes
    if len(matrix.axes) == 1:
        return rename(hadamard(apply(RECIPROCAL, apply(ABS, matrix)), rest), axes)
    convex = Spectral(negative(matrix), "absolute")
    return rename(Solve(convex, rest, centred=sums_to_zero(matrix)), axes)


def _randomised(derived: Derived, chosen: Choices) -> StepPlan:
    """ESN(24) or ESN(26), with the sign of η corrected."""
    check_regularised(derived)
    precision = chosen["precision"]
    if chosen["form"] == "sylvester" and precision != "direct":
        raise MethodError("the Sylvester form ESN(24) needs moments", hint="choose precision: direct")
    if chosen["sample_weights"] == "error" and precision == "rank_one":
        raise MethodError(
            "sample weights cancel in the rank-one estimator", hint="choose precision: direct or recursive"
        )
    if precision == "rank_one":
        return _rank_one(derived)
    if precision == "recursive":
        return _recursive(derived, chosen)
    return _direct(derived, chosen)


def _weighting(derived: Derived, chosen: Choices) -> Equation | None:
    """w = ‖x_n − t‖² of a sample."""
    if chosen["sample_weights"] == "none":
        return None
    model = derived.model
    error = subtract(model.output.state, model.target)
    return Equation(Input("w", None, (), Role.STATE), inner(error, error), None, "ESN A.6")


def _systems(derived: Derived, weighting: Equation | None) -> list[LeastSquares]:
    weight = None if weighting is None else weighting.symbol
    return [derive_least_squares(derived.newton, p.index, weight) for p in ruled_layers(derived)]


def _shifted(system: LeastSquares) -> Expr:
    """A + E[w] I: unit variance of the states puts E[w] I in the place of V, ESN(25, 26)."""
    rows = system.left.axes
    identity = einsum([(system.total_weight, ()), (Delta(*rows), rows)], rows)
    return total([system.left, identity], rows)


def _rank_one(derived: Derived) -> StepPlan:
    """Every expectation is the current sample's value; Sherman–Morrison once, ESN A.6."""
    numbers: list[Equation] = []
    directions: dict[Input, Expr] = {}
    for system, layer in zip(_systems(derived, None), ruled_layers(derived), strict=True):
        values = {moment.symbol: moment.product for moment in system.moments}
        y = derived.first.backpropagated(constraint_index(derived.model, layer.index))
        rhs = expand(substitute(negative(system.rhs), values))
        weight = expand(solve_shifted_outer(ones(), ones(), y, rhs))
        mean = substitute(system.mean_bias, values)
        bias = expand(einsum([(weight, weight.axes), (mean, weight.axes[1:])], weight.axes[:1]))
        assert layer.bias is not None
        more, directions[layer.weight] = scalar_factors(weight, "cN", layer.index, Role.STATE)
        numbers += more
        more, directions[layer.bias] = scalar_factors(bias, "cη", layer.index, Role.STATE)
        numbers += more
    notes = ("A batch takes the mean of the directions of its samples.",)
    return step_of_coefficients(derived, numbers, directions, separable=True, notes=notes)


def _moving_average(symbol: Input, value: Expr, layer: int | None) -> tuple[Input, Equation]:
    """new = decay·old + (1 − decay)·E[value]."""
    new = Input(f"{symbol.family}+", symbol.index, symbol.axes, Role.DIRECTION)
    kept = einsum([(_DECAY, ()), (symbol, symbol.axes)], symbol.axes)
    fresh = einsum([(subtract(ones(), _DECAY), ()), (value, symbol.axes)], symbol.axes)
    return new, Equation(new, total([kept, fresh], symbol.axes), layer, "ESN A.6")


def _direct(derived: Derived, chosen: Choices) -> StepPlan:
    """Moving averages of the moments, then a solve in each layer."""
    if chosen["decay"] == 1:
        raise MethodError(
            "decay: 1 leaves new samples without any weight in the averages", hint="choose a decay below 1"
        )
    weighting = _weighting(derived, chosen)
    sylvester = chosen["form"] == "sylvester"
    moments: list[Equation] = [] if weighting is None else [weighting]
    means: list[Equation] = []
    solves: list[Equation] = []
    keeps: list[Equation] = []
    updates: list[Equation] = []
    directions: dict[Input, Expr] = {}
    families: dict[str, str] = {}
    for system, layer in zip(_systems(derived, weighting), ruled_layers(derived), strict=True):
        matrix = system.right if sylvester else _shifted(system)
        value: Expr = (
            Sylvester(system.left, matrix, negative(system.rhs))
            if sylvester
            else Solve(matrix, negative(system.rhs))
        )
        needed = {s.key for s in inputs_of(value, system.mean_bias)}
        table: dict[Input, Expr] = {}
        for moment in system.moments:
            if moment.symbol.key in needed:
                new, equation = _moving_average(moment.symbol, moment.product, layer.index)
                moments.append(equation)
                updates.append(Equation(moment.symbol, new, layer.index, "ESN A.6"))
                table[moment.symbol] = new
                families[moment.symbol.family] = "moving average of a moment"
        weight = layer.weight
        assert layer.bias is not None
        fresh = Input("D+", layer.index, weight.axes, Role.DIRECTION)
        kept = Input("D", layer.index, weight.axes, Role.DIRECTION)
        solves.append(
            Equation(
                fresh,
                rename(substitute(value, table), weight.axes),
                layer.index,
                "ESN(24)" if sylvester else "ESN(26)",
            )
        )
        keeps.append(Equation(kept, fresh, layer.index, "definition"))
        mean = Input("m", layer.index, weight.axes[1:], Role.DIRECTION)
        means.append(Equation(mean, substitute(system.mean_bias, table), layer.index, "ESN(24)"))
        directions[weight] = kept
        directions[layer.bias] = einsum([(kept, weight.axes), (mean, weight.axes[1:])], weight.axes[:1])
    before = ("forward", "adjoint")
    return StepPlan(
        systems=(
            (System("moments", "Moving averages", (*moments, *means)), before),
            (System("solve", "Solution of the least-squares system", tuple(solves)), (*before, "moments")),
            (System("keep", "Direction for the coming steps", tuple(keeps)), (*before, "moments", "solve")),
            (System("update", "Step", (*updates, *descend(derived, directions))), (*before, "moments")),
        ),
        memory=(*(MemorySpec(f, text) for f, text in families.items()), MemorySpec("D", "direction N_k")),
        periodic=("solve", "keep"),
        guarded=("moments", "solve"),
        separable=True,
        notes=("Expectations are batch means, then exponential moving averages.",),
        newton=True,
    )


def _recursive(derived: Derived, chosen: Choices) -> StepPlan:
    """Recursive least squares: N_k and the precision matrix follow from one sample to the next."""
    if chosen["scaling"] == "mean" and chosen["decay"] == 1:
        raise MethodError("scaling: mean weighs a sample by 1 − decay = 0", hint="choose a decay below 1")
    weighting = _weighting(derived, chosen)
    gains: list[Equation] = [] if weighting is None else [weighting]
    updates: list[Equation] = []
    directions: dict[Input, Expr] = {}
    symbols = derived.newton.second.directions
    for layer in ruled_layers(derived):
        assert layer.bias is not None
        k = layer.index
        rows, columns = layer.weight.axes
        y = rename(derived.first.backpropagated(constraint_index(derived.model, k)), (rows,))
        primed = type(rows)(rows.name, rows.size, 1)
        precision = Input("P", k, (rows, primed), Role.DIRECTION)
        solution = Input("D", k, layer.weight.axes, Role.DIRECTION)
        mean = Input("m", k, (columns,), Role.DIRECTION)
        applied = Input("Py", k, (rows,), Role.ADJOINT)
        gain = Input("gain", k, (rows,), Role.ADJOINT)
        residual = Input("e", k, (columns,), Role.ADJOINT)
        share: Expr = ones() if chosen["scaling"] == "sum" else subtract(ones(), _DECAY)
        if weighting is not None:
            share = einsum([(share, ()), (weighting.symbol, ())], ())
        gains.append(
            Equation(
                applied,
                einsum([(precision, (rows, primed)), (rename(y, (primed,)), (primed,))], (rows,)),
                k,
                "ESN A.6",
            )
        )
        size = total([_DECAY, einsum([(share, ()), (inner(y, applied), ())], ())], ())
        scaled = einsum([(share, ()), (apply(RECIPROCAL, size), ()), (applied, (rows,))], (rows,))
        gains.append(Equation(gain, scaled, k, "ESN A.6"))
        condition = derived.first.folded(derived.newton.weight_conditions[k])
        condition = substitute(condition, {symbols[layer.weight]: solution})
        gains.append(Equation(residual, rename(condition, (columns,)), k, "ESN(22)"))
        _, average = _moving_average(
            mean, rename(derived.model.state(source_index(derived.model, k)), (columns,)), k
        )
        updates.append(Equation(mean, average.value, k, "ESN A.6"))
        correction = einsum([(gain, (rows,)), (residual, (columns,))], (rows, columns))
        updates.append(Equation(solution, subtract(solution, correction), k, "ESN A.6"))
        shrunk = subtract(precision, einsum([(gain, (rows,)), (applied, (primed,))], (rows, primed)))
        forgotten = einsum([(apply(RECIPROCAL, _DECAY), ()), (shrunk, (rows, primed))], (rows, primed))
        updates.append(Equation(precision, forgotten, k, "ESN A.6"))
        directions[layer.weight] = solution
        directions[layer.bias] = einsum([(solution, (rows, columns)), (mean, (columns,))], (rows,))
    before = ("forward", "adjoint")
    return StepPlan(
        systems=(
            (System("gain", "Gains of the recursion", tuple(gains)), before),
            (System("update", "Step", (*updates, *descend(derived, directions))), (*before, "gain")),
        ),
        memory=(
            MemorySpec("P", "precision matrix", "identity"),
            MemorySpec("D", "direction N_k"),
            MemorySpec("m", "moving average of x_{k−1}"),
        ),
        guarded=("gain",),
        separable=True,
        batched=False,
        notes=("One sample a step: the recursion is of rank one.",),
        newton=True,
    )
