"""Moves of pre-activations with the parameters, and what they pull back: N_k x_{k−1} and N_kᵀ y_k."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from sifrc.calculus import jvp, vjp
from sifrc.derive.lagrangian import FirstOrder
from sifrc.ir import Einsum, Expr, Input, LogSoftmax, LogSumExp, Role
from sifrc.ir.build import inner, rename, subtract, total, zero
from sifrc.ir.normal import Relation, expand, relation, terms_of
from sifrc.ir.traverse import inputs_of, postorder
from sifrc.model import Constraint, Model

__all__ = ["differential", "moves_of", "pulls_of", "read_early", "relations_of", "through_gradient"]


def moves_of(c: Constraint, direction: Mapping[Input, Expr]) -> Iterator[tuple[Input, Expr]]:
    """Moves that depend on a state, with their symbols.

    Args:
        c: whose pre-activation moves.
        direction: of the parameters.
    """
    for moved in _moved(c, direction):
        yield Input("Nx", c.index, c.axes, Role.STATE), rename(moved, c.axes)


def read_early(model: Model, c: Constraint) -> tuple[Constraint, ...]:
    """The states from one on to the last that it reads, where it reads such as come later."""
    return model.constraints[c.index - 1 : max(c.sources, default=0)]


def pulls_of(
    first: FirstOrder, c: Constraint, direction: Mapping[Input, Expr]
) -> Iterator[tuple[Input, Expr]]:
    """What the moves pull back to the sources of a constraint, with its symbols.

    Args:
        first: the first-order system.
        c: whose pre-activation moves.
        direction: of the parameters.
    """
    own = first.backpropagated(c.index)
    for moved in _moved(c, direction):
        for j in dict.fromkeys(c.sources):
            state = first.model.state(j)
            value = vjp(inner(moved, own), [state])[0]
            if j > 0 and isinstance(value, Einsum):
                distance = "" if c.index - j == 1 else str(c.index - j)
                yield Input(f"Nᵀy{distance}", c.index, state.axes, Role.ADJOINT), value


def _moved(c: Constraint, direction: Mapping[Input, Expr]) -> Iterator[Expr]:
    """Moves with one parameter each, as far as they are one product with a state."""
    for parameter in (symbol for symbol in inputs_of(c.pre_activation) if symbol in direction):
        moved = jvp(c.pre_activation, {parameter: direction[parameter]})
        terms = [] if moved is None else [term for _, term in terms_of(expand(moved)) if _reads_state(term)]
        if len(terms) == 1:
            yield terms[0]


def _reads_state(expr: Expr) -> bool:
    return any(symbol.role is Role.STATE for symbol in inputs_of(expr))


def differential(expr: Expr, directions: Iterable[Mapping[Input, Expr]]) -> Expr:
    """One differential after the other, along directions of inputs."""
    for direction in directions:
        expr = jvp(expr, direction) or zero(expr.axes)
    return expr


def relations_of(named: Iterator[tuple[Input, Expr]]) -> list[Relation]:
    """Products by their symbols, to be put in their place.

    Args:
        named: symbols and the products that they stand for.
    """
    return [relation(symbol.name, subtract(value, symbol), value) for symbol, value in named]


def through_gradient(form: Expr, first: Mapping[Input, Expr], second: Mapping[Input, Expr]) -> Expr | None:
    """d²form along two directions: one of them times what the gradient moves by along the other.

    Where a softmax is differentiated twice, there are as many tangents as directions, not as pairs of them.

    Returns:
        None where there is no softmax: products of tangents are then as good.
    """
    if not any(isinstance(node, LogSoftmax | LogSumExp) for node in postorder(form)):
        return None
    moved = [symbol for symbol in inputs_of(form) if symbol in first]
    parts = []
    for symbol, slope in zip(moved, vjp(form, moved), strict=True):
        move = jvp(slope, first)
        if move is not None:
            parts.append(inner(move, second[symbol]))
    return total(parts, ())
