"""Where factored curvatures start: derivatives of the loss at targets that the model itself expects.

The Fisher matrix is E[s sᵀ] over targets drawn from the model's own distribution, s = ∂ℓ/∂x_n. With
class targets the distribution is softmax of the output, and the expectation a sum over the classes. With
vectors it is known where ∂²ℓ/∂x_n² is diagonal and does not depend on the target (an exponential family
in its natural parameters, such as a Gaussian): then it is E[s sᵀ].
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import sympy

from sifrc.calculus import jacobian, vjp
from sifrc.derive.curvature.convexity import convexity
from sifrc.derive.curvature.kinds import Kind
from sifrc.derive.elimination import diagonal_of
from sifrc.derive.system import Equation
from sifrc.errors import DerivationError
from sifrc.ir import Axis, Delta, Expr, Input, LogSoftmax, Reduce, Role
from sifrc.ir.along import along
from sifrc.ir.axes import AxisKind
from sifrc.ir.build import apply, einsum, ones, rename, scale, total, zero
from sifrc.ir.normal import expand
from sifrc.ir.traverse import inputs_of, substitute
from sifrc.model import Model
from sifrc.scalar import EXP, SQRT
from sifrc.scalar.function import ScalarFunction

__all__ = ["NORMAL", "RANDOM", "UNIFORM", "Score", "class_axis", "score"]

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
        value: over the output's axis, and the class where there is one factor for each.
        extra: the axis of the class, or ().
        equations: that define what ``value`` uses.
    """

    value: Expr
    extra: tuple[Axis, ...]
    equations: tuple[Equation, ...] = ()


def class_axis(model: Model) -> Axis:
    """The axis that numbers the scores of the kind ``fisher``: classes, or entries of the output."""
    return Axis("class", model.output_axis.size, kind=AxisKind.CLASS)


def score(model: Model, kind: Kind) -> Score:
    """The factor of the output's block for a factored kind.

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


def _over_classes(model: Model, slope: Expr) -> Score:
    """S_ic = √p_c ∂ℓ/∂x_i at the target c, p = softmax(x_n)."""
    axis, label = model.output_axis, class_axis(model)

    def at_class(symbol: Input) -> Expr:
        return Delta(label, axis) if symbol is model.target else symbol

    scores = along(slope, label, at_class)
    scores = scores if label in scores.axes else einsum([(scores, scores.axes)], (label, axis))
    log_p = rename(LogSoftmax(model.output.state, axis), (label,))
    root = apply(EXP, scale(Fraction(1, 2), log_p))
    return Score(einsum([(scores, scores.axes), (root, (label,))], (axis, label)), (label,))


def _at_drawn_class(model: Model, slope: Expr) -> Score:
    """The target is the class of the largest x_i + g_i, g Gumbel: a draw from softmax(x_n)."""
    axis, index = model.output_axis, model.output.index
    uniform = Input(UNIFORM, None, (axis,), Role.DATA)
    perturbed = Input("x̃", None, (axis,), Role.STATE)
    drawn = Input("t̃", None, (axis,), Role.DATA)
    largest = einsum([(Reduce(perturbed, axis), ())], (axis,))
    equations = (
        Equation(
            perturbed, total([model.output.state, apply(_GUMBEL, uniform)], (axis,)), index, "definition"
        ),
        Equation(drawn, apply(_REACHED, perturbed, largest), index, "definition"),
    )
    return Score(substitute(slope, {model.target: drawn}), (), equations)


def _natural(model: Model, slope: Expr, kind: Kind) -> Score:
    """S Sᵀ = ∂²ℓ/∂x_n², diagonal and free of the target."""
    state, axis = model.output.state, model.output_axis
    block = expand(jacobian(slope, state))
    entries = diagonal_of(block, (axis,), (axis.primed,))
    known = entries is not None and model.target not in inputs_of(block) and entries is not zero((axis,))
    if entries is None or not known or convexity(model) == "not convex":
        raise DerivationError(
            f"kind '{kind.name}': no distribution of targets is known for this loss",
            location=model.spec.loss.location,
            hint="empirical_fisher needs none; a loss on classes draws them from softmax(y)",
        )
    root = entries if entries is ones((axis,)) else apply(SQRT, entries)
    if kind.source == "sampled":
        normal = Input(NORMAL, None, (axis,), Role.DATA)
        return Score(einsum([(root, (axis,)), (normal, (axis,))], (axis,)), ())
    label = class_axis(model)
    return Score(einsum([(root, (axis,)), (Delta(axis, label), (axis, label))], (axis, label)), (label,))
