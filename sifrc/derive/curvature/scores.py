"""Where factored curvatures start: derivatives of the loss at targets that the model itself expects.

The Fisher matrix is E[s sᵀ] over targets drawn from the model's own distribution, s = ∂ℓ/∂x_n. With
class targets the distribution is softmax of the output, and the expectation a sum over the classes. With
vectors it is known where ∂²ℓ/∂x_n² is diagonal and does not depend on the target (an exponential family
in its natural parameters, such as a Gaussian): then it is E[s sᵀ].
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from math import prod

import sympy

from sifrc.calculus import jacobian, vjp
from sifrc.derive.curvature.convexity import convexity
from sifrc.derive.curvature.kinds import Kind
from sifrc.derive.elimination import diagonal_of
from sifrc.derive.system import Equation
from sifrc.errors import DerivationError
from sifrc.ir import Axis, Delta, Expr, Input, LogSoftmax, Operand, Reduce, Role, primed
from sifrc.ir.along import along
from sifrc.ir.axes import AxisKind
from sifrc.ir.build import apply, constant, einsum, ones, rename, scale, total, zero
from sifrc.ir.normal import expand
from sifrc.ir.traverse import inputs_of, substitute
from sifrc.model import Model
from sifrc.scalar import EXP, SQRT
from sifrc.scalar.function import ScalarFunction

__all__ = ["NORMAL", "RANDOM", "UNIFORM", "Score", "class_axis", "score", "score_axes"]

UNIFORM = "ω"
"""Family of numbers drawn uniformly between 0 and 1, one vector for each sample."""
NORMAL = "ε"
"""Family of standard normal numbers, one vector for each sample."""
RANDOM = frozenset({UNIFORM, NORMAL})

_U, _V = sympy.Symbol("u", real=True), sympy.Symbol("v", real=True)
_GUMBEL = ScalarFunction("gumbel", ("u",), -sympy.log(-sympy.log(_U)))
_REACHED = ScalarFunction("reached", ("u", "v"), sympy.Piecewise((1, _U >= _V), (0, True)))


@dataclass(frozen=True)
class Score:
    """A factor S of the output's block, S Sᵀ.

    Args:
        value: over the output's axes, and those that number the factors where there are several.
        extra: these axes, or ().
        equations: that define what ``value`` uses.
        own: where there are several, those of each place at that place, over the output's axes and the axis
            of the classes: all of ``value`` that is not zero.
    """

    value: Expr
    extra: tuple[Axis, ...]
    equations: tuple[Equation, ...] = ()
    own: Expr | None = None


def class_axis(model: Model) -> Axis:
    """The axis that numbers classes, or entries of the vectors that the loss is of."""
    return Axis("class", model.output_axis.size, kind=AxisKind.CLASS)


def score_axes(model: Model) -> tuple[Axis, ...]:
    """The axes that number the scores of the kind ``fisher``: places of the output, classes or entries."""
    places = (
        Axis(f"class.{number}", axis.size, kind=AxisKind.CLASS)
        for number, axis in enumerate(model.output_places)
    )
    return (*places, class_axis(model))


def score(model: Model, kind: Kind) -> Score:
    """The factor of the output's block for a factored kind.

    Where the loss is one of vectors at several places, their targets are drawn independently of each other.

    Raises:
        DerivationError: the loss has no distribution of targets that is known.
    """
    output = model.output
    (slope,) = vjp(model.data_loss, [output.state])
    if kind.source == "empirical":
        return Score(slope, ())
    if model.spec.loss.targets == "classes":
        return _over_classes(model, slope) if kind.source == "fisher" else _at_drawn_class(model, slope)
    return _natural(model, slope, kind)


def _of_places(model: Model) -> list[Operand]:
    """What scores have besides ∂ℓ/∂x_n: √R where ℓ is a mean over R places, whose factor 1/R outer products
    have once and not twice; zero at places whose target does not count.
    """
    places = model.output_places
    factors: list[Operand] = []
    if places and model.spec.loss.places == "mean":
        count = prod(axis.entries for axis in places)
        factors.append((constant(sympy.sqrt(count)), ()))
    if model.spec.loss.ignored is not None:  # of a target that does not count, all entries are zero
        counts = einsum([(model.target, model.target.axes)], places)
        factors.append((counts, places))
    return factors


def _over_classes(model: Model, slope: Expr) -> Score:
    """S_ic = √p_c ∂ℓ/∂x_i at the target c, p = softmax(x_n), at every place of the output."""
    axis, label, axes = model.output_axis, class_axis(model), model.output.axes
    every = score_axes(model)

    def at_class(symbol: Input) -> Expr:
        if symbol is not model.target:
            return symbol
        return einsum([(Delta(label, axis), (label, axis))], (label, *symbol.axes))

    scores = along(slope, label, at_class)
    scores = scores if label in scores.axes else einsum([(scores, scores.axes)], (label, *axes))
    log_softmax = LogSoftmax(model.output.state, axis)
    log_p = rename(log_softmax, tuple(label if own == axis else own for own in log_softmax.axes))
    root = apply(EXP, scale(Fraction(1, 2), log_p))
    return _apart(model, [(scores, scores.axes), (root, root.axes), *_of_places(model)], every)


def _apart(model: Model, factors: list[Operand], every: tuple[Axis, ...]) -> Score:
    """Scores that are zero but at the place that they are of."""
    places = [
        (Delta(axis, number), (axis, number))
        for axis, number in zip(model.output_places, every[:-1], strict=True)
    ]
    axes = model.output.axes
    own = einsum(factors, (*axes, every[-1]))
    return Score(einsum([*factors, *places], (*axes, *every)), every, own=own)


def _at_drawn_class(model: Model, slope: Expr) -> Score:
    """The target is the class of the largest x_i + g_i, g Gumbel: a draw from softmax(x_n)."""
    axis, index, axes = model.output_axis, model.output.index, model.output.axes
    uniform = Input(UNIFORM, None, axes, Role.DATA)
    perturbed = Input("x̃", None, axes, Role.STATE)
    drawn = Input("t̃", None, axes, Role.DATA)
    largest = Reduce(perturbed, axis)
    equations = (
        Equation(perturbed, total([model.output.state, apply(_GUMBEL, uniform)], axes), index, "definition"),
        Equation(
            drawn,
            apply(_REACHED, perturbed, einsum([(largest, largest.axes)], axes)),
            index,
            "definition",
        ),
    )
    target = einsum([(drawn, axes)], model.target.axes)
    score = substitute(slope, {model.target: target})
    return Score(einsum([(score, axes), *_of_places(model)], axes), (), equations)


def _natural(model: Model, slope: Expr, kind: Kind) -> Score:
    """S Sᵀ = ∂²ℓ/∂x_n², diagonal and free of the target."""
    state, axes = model.output.state, model.output.axes
    block = expand(jacobian(slope, state))
    entries = diagonal_of(block, axes, primed(axes))
    known = entries is not None and model.target not in inputs_of(block) and entries is not zero(axes)
    if entries is None or not known or convexity(model) == "not convex":
        raise DerivationError(
            f"kind '{kind.name}': no distribution of targets is known for this loss",
            location=model.spec.loss.location,
            hint="empirical_fisher needs none; a loss on classes draws them from softmax(y)",
        )
    root = entries if entries is ones(axes) else apply(SQRT, entries)
    if kind.source == "sampled":
        normal = Input(NORMAL, None, axes, Role.DATA)
        return Score(einsum([(root, axes), (normal, axes)], axes), ())
    every = score_axes(model)
    label = (Delta(model.output_axis, every[-1]), (model.output_axis, every[-1]))
    return _apart(model, [(root, axes), label], every)
