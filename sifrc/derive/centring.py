"""Tangents about their mean, of states that a softmax reads.

    ċ_k = ẋ_k − ⟨p_k, ẋ_k⟩𝟏    with the softmax p_k of x_k

A number that all entries have in common changes no softmax, so what reads a state through one alone has the
same derivatives along ẋ_k and ċ_k; and log Σ exp has from the second order on. There ⟨p_k, ċ_k⟩ = 0: the
tangent of p_k is p_k ∘ ċ_k, products of pairs of tangents are of their entries, and covariances keep their
digits where one class has all the probability, while differences of moments are rounding.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from sifrc.calculus import jvp, softmax
from sifrc.derive.lagrangian import FirstOrder
from sifrc.derive.probabilities import probabilities_of
from sifrc.ir import Axis, Einsum, Expr, Input, LogSoftmax, Role
from sifrc.ir.along import spread
from sifrc.ir.build import einsum, rename, subtract
from sifrc.ir.normal import Relation, expand, operands_of, relation, terms_of
from sifrc.ir.traverse import inputs_of, postorder, rewrite
from sifrc.model import Constraint, Model

__all__ = ["Centred", "centred_states"]


@dataclass(frozen=True)
class Centred:
    """A state whose tangents are taken about their mean.

    Args:
        constraint: of the state.
        probabilities: its softmax, over the axes of the state.
        places: the axes of the state but that of the softmax.
        within: what reads the state through the softmax alone; None for the loss.
    """

    constraint: Constraint
    probabilities: Expr
    places: tuple[Axis, ...]
    within: LogSoftmax | None

    def about_mean(self, tangent: Expr) -> Expr:
        """A tangent of the state without its mean."""
        return subtract(tangent, spread(self.mean(tangent), self.constraint.axes))

    def mean(self, tangent: Expr) -> Expr:
        """The mean of a tangent, or of one for each group."""
        axes = self.constraint.axes
        groups = tuple(axis for axis in tangent.axes if axis.is_group)
        return einsum([(self.probabilities, axes), (tangent, (*groups, *axes))], (*groups, *self.places))

    def reads(self, expr: Expr) -> bool:
        """Whether an expression reads the state through its softmax, and nowhere else."""
        if self.within is None or self.constraint.state not in inputs_of(expr):
            return False
        if not any(node is self.within for node in postorder(expr)):
            return False
        return not _reads_outside(expr, self.within, self.constraint.state)

    def pulled_back(self, first: FirstOrder) -> Iterator[Relation]:
        """The adjoint of the state by its symbol, where it stands in a product of two softmaxes.

        Second derivatives of a softmax have that product and another one, which together are the adjoint.
        """
        if self.within is None:
            return
        adjoint = first.adjoints[self.constraint.index]
        value = first.adjoint[adjoint]
        terms = [term for _, term in terms_of(expand(value)) if isinstance(term, Einsum)]
        most = max((len(operands_of(term)) for term in terms), default=0)
        longest = [term for term in terms if len(operands_of(term)) == most]
        if most > 2 and len(longest) == 1:
            yield relation(adjoint.name, subtract(value, adjoint), longest[0])


def centred_states(model: Model) -> tuple[Centred, ...]:
    """The states whose tangents are taken about their mean, in order."""
    found: dict[int, Centred] = {}
    for c in model.constraints:
        for node in postorder(c.pre_activation):
            for symbol in inputs_of(node.operand) if isinstance(node, LogSoftmax) else ():
                if symbol.role is not Role.STATE or not 0 < (symbol.index or 0) < c.index:
                    continue
                own = model.constraints[(symbol.index or 0) - 1]
                assert isinstance(node, LogSoftmax)
                if own.state is symbol and _is_shifted(node, symbol):
                    axes = dict(zip(node.axes, own.axes, strict=True))
                    places = tuple(axes[axis] for axis in node.axes if axis != node.over)
                    if not _reads_outside(c.pre_activation, node, symbol):
                        inner = rename(softmax(node), own.axes)
                        found.setdefault(own.index, Centred(own, inner, places, node))
    probabilities = probabilities_of(model)
    if probabilities is not None:
        output = model.output
        found[output.index] = Centred(output, probabilities, model.output_places, None)
    return tuple(centred for _, centred in sorted(found.items()))


def _is_shifted(node: LogSoftmax, state: Input) -> bool:
    """Whether a softmax is of a state as it is, plus what does not depend on it."""
    tangent = Input("ẋ", state.index, state.axes, Role.TANGENT)
    return jvp(node.operand, {state: tangent}) is rename(tangent, node.axes)


def _reads_outside(expr: Expr, within: LogSoftmax, state: Input) -> bool:
    plain = Input("normalised", None, within.axes, Role.DATA)
    return state in inputs_of(rewrite([expr], lambda node: plain if node is within else None)[0])
