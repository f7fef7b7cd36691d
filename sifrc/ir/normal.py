"""The zero test: expand to sums of products and reduce modulo known relations.

Expansion distributes products over sums; functions, solutions of linear systems and inputs are
atoms. States and adjoints are inputs, so that an equation of one layer stays small whatever the
depth. A relation says that an expression is zero; reduction replaces its leading product wherever it
occurs as part of another product. The test is sound: what reduces to zero is zero under the relations.
It is not complete: what does not reduce is undecided.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property

from sifrc.ir.axes import Axis
from sifrc.ir.build import add, einsum, scale, zero
from sifrc.ir.nodes import Add, Delta, Einsum, Expr, Operand
from sifrc.ir.traverse import postorder, rewrite

__all__ = ["Relation", "condense", "expand", "is_zero", "operands_of", "reduce", "relation", "terms_of"]

_MAX_STEPS, _MAX_TERMS = 500, 2000


def expand(expr: Expr, within: Callable[[Expr], bool] = lambda _: True) -> Expr:
    """The expression as a sum of products of atoms.

    Args:
        expr: which is expanded.
        within: whether a sum or a product is taken apart; one that is not is an atom.

    Example:
        >>> from sifrc.ir import Axis, Input, Role
        >>> from sifrc.ir.build import hadamard, subtract, total
        >>> i = Axis("fc1", 3)
        >>> x, v = Input("x", 1, (i,), Role.STATE), Input("v", 1, (i,), Role.TANGENT)
        >>> product = hadamard(total([x, v], (i,)), x)
        >>> expand(subtract(product, total([hadamard(x, x), hadamard(v, x)], (i,)))) is zero((i,))
        True
    """
    done: dict[str, Expr] = {}
    for node in postorder(expr):
        if not within(node):
            done[node.key] = node
        elif isinstance(node, Add):
            done[node.key] = add([(factor, done[term.key]) for factor, term in node.terms], node.out)
        elif isinstance(node, Einsum) and any(isinstance(part, Add | Einsum) for part in node.children()):
            done[node.key] = add(_distribute(node, done), node.out)
        else:  # an atom, or a product of atoms
            done[node.key] = node
    return done[expr.key]


def _distribute(node: Einsum, done: dict[str, Expr]) -> Iterator[tuple[Fraction, Expr]]:
    partial: list[tuple[Fraction, list[Operand]]] = [(Fraction(1), [])]
    for position, (operand, labels) in enumerate(node.operands):
        choices = [
            (factor, _atoms(term, labels, f"{position}")) for factor, term in terms_of(done[operand.key])
        ]
        partial = [(f * g, [*ops, *more]) for f, ops in partial for g, more in choices]
    for factor, operands in partial:
        yield factor, einsum(operands, node.out)


def terms_of(expr: Expr) -> tuple[tuple[Fraction, Expr], ...]:
    """Terms of a sum; a single expression is its own term."""
    return expr.terms if isinstance(expr, Add) else ((Fraction(1), expr),)


def _atoms(term: Expr, labels: tuple[Axis, ...], salt: str) -> list[Operand]:
    """Operands of a product, its own sums renamed apart."""
    if not isinstance(term, Einsum):
        return [(term, labels)]
    table = dict(zip(term.out, labels, strict=True))

    def name(axis: Axis) -> Axis:
        return table.setdefault(axis, axis.summed(f"{axis.name}@{salt}"))

    atoms = [(expr, tuple(name(a) for a in slots)) for expr, slots in term.operands]
    carried = {a for _, slots in atoms for a in slots}
    broadcast = [name(a) for a in term.out if name(a) not in carried]
    if broadcast:
        atoms.append((Einsum((), tuple(broadcast)), tuple(broadcast)))
    return atoms


@dataclass(frozen=True)
class Relation:
    """``lead`` equals ``value``: a product of atoms, and what it may be replaced by."""

    name: str
    lead: Expr
    value: Expr

    @cached_property
    def factors(self) -> frozenset[str]:
        """Keys of the atoms of the leading product."""
        return frozenset(expr.key for expr, _ in operands_of(self.lead))


def relation(name: str, expr: Expr, lead: Expr) -> Relation:
    """The relation ``expr`` = 0, solved for the product ``lead`` that is one of its expanded terms.

    Raises:
        ValueError: ``lead`` is not a term of the expansion.
    """
    expanded = expand(expr)
    target = expand(lead)
    if isinstance(target, Add) and len(target.terms) == 1:
        target = target.terms[0][1]
    for factor, term in terms_of(expanded):
        if term is target:
            rest = add([(Fraction(1), expanded), (-factor, term)], expanded.axes)
            return Relation(name, term, scale(Fraction(-1) / factor, rest))
    raise ValueError(f"{name}: the leading product is not a term of the relation")


def reduce(expr: Expr, relations: Sequence[Relation]) -> Expr:
    """Expand, then replace leading products until none occurs.

    Relations can give back what they replace, for ever. Then the expanded expression itself is returned,
    which is as equal as the reduced one would be.
    """
    expanded = current = expand(expr)
    for _ in range(_MAX_STEPS):
        replaced = _reduce_once(current, relations)
        if replaced is None:
            return current
        current = expand(replaced)
        if len(terms_of(current)) > _MAX_TERMS:
            break
    return expanded


def condense(expr: Expr, relations: Sequence[Relation] = ()) -> Expr:
    """Equal under the relations, reduced where that is smaller than the graph as it is.

    Derivatives of nested functions share their factors; expanded they grow with the power of the order. There
    the relations are used within each product, and nothing is distributed.

    Example:
        >>> from sifrc.ir import Axis, Input, Role
        >>> from sifrc.ir.build import hadamard, subtract, total
        >>> i = Axis("fc1", 3)
        >>> u, v, w, x, y, z = [Input(letter, 1, (i,), Role.STATE) for letter in "uvwxyz"]
        >>> powers = hadamard(total([u, v], (i,)), total([w, x], (i,)), total([y, z], (i,)))
        >>> condense(powers) is powers
        True
        >>> condense(subtract(hadamard(total([u, v], (i,)), w), hadamard(v, w))) is hadamard(u, w)
        True
    """
    size = _size(expr)
    if _most_terms(expr) <= size:
        reduced = reduce(expr, relations)
        if _size(reduced) <= size:
            return reduced
    return _reduce_within(expr, relations)


def _size(expr: Expr) -> int:
    """The number of operands in the graph, each node once."""
    return sum([len(node.children()) for node in postorder(expr)])


def _most_terms(expr: Expr) -> int:
    """How many terms the expansion has before equal ones are merged."""
    count: dict[str, int] = {}
    for node in postorder(expr):
        inside = [count[child.key] for child in node.children()]
        if isinstance(node, Add):
            count[node.key] = sum(inside)
        else:
            count[node.key] = math.prod(inside) if isinstance(node, Einsum) else 1
    return count[expr.key]


def _reduce_within(expr: Expr, relations: Sequence[Relation]) -> Expr:
    """Leading products replaced where they are part of one product of the graph."""

    def replaced(node: Expr) -> Expr:
        for _ in range(_MAX_STEPS):
            new = _replace_any(node, relations) if isinstance(node, Einsum) else None
            if new is None:
                break
            node = new
        return node

    return rewrite([expr], replaced)[0]


def is_zero(expr: Expr, relations: Sequence[Relation] = ()) -> bool:
    """Whether the expression is proved to be zero under the relations."""
    return reduce(expr, relations) is zero(expr.axes)


def _reduce_once(expr: Expr, relations: Sequence[Relation]) -> Expr | None:
    for factor, term in terms_of(expr):
        new = _replace_any(term, relations)
        if new is not None:
            return add([(Fraction(1), expr), (-factor, term), (factor, new)], expr.axes)
    return None


def _replace_any(term: Expr, relations: Sequence[Relation]) -> Expr | None:
    """The term with the first leading product replaced that occurs in it, or None."""
    present = {operand.key for operand, _ in operands_of(term)}
    found = (_replace(term, known) for known in relations if known.factors <= present)
    return next((new for new in found if new is not None), None)


def operands_of(term: Expr) -> tuple[Operand, ...]:
    """Factors of a product; a single expression is its own factor."""
    return term.operands if isinstance(term, Einsum) else ((term, term.axes),)


def _replace(term: Expr, known: Relation) -> Expr | None:
    """The term with one occurrence of the leading product replaced, or None."""
    if isinstance(term, Delta):
        return None
    whole, part = operands_of(term), operands_of(known.lead)
    if len(part) > len(whole):
        return None
    bound = {label for _, labels in part for label in labels} - set(known.lead.axes)
    for used, table in _matches(part, whole, (), {}):
        rest = [operand for position, operand in enumerate(whole) if position not in used]
        outside = {label for _, labels in rest for label in labels} | set(term.axes)
        images = [table[label] for label in sorted(bound, key=lambda axis: axis.place)]
        if any(image in outside for image in images) or len(set(images)) != len(images):
            continue
        missing = [label for label in known.lead.axes if label not in table]
        for label in missing:  # the leading product is the same at every index of this axis: any one will do
            taken = {*images, *(table[other] for other in known.lead.axes if other in table)}
            chosen = next((axis for axis in term.axes if axis.fits(label) and axis not in taken), None)
            if chosen is not None:
                table[label] = chosen
        free = [table[label] for label in known.lead.axes if label in table]
        if any(image in free for image in images) or len(free) != len(known.lead.axes):
            continue
        return einsum([*rest, (known.value, tuple(free))], term.axes)
    return None


def _matches(
    part: Sequence[Operand], whole: Sequence[Operand], used: tuple[int, ...], table: dict[Axis, Axis]
) -> Iterator[tuple[tuple[int, ...], dict[Axis, Axis]]]:
    """All ways to find the operands of ``part`` among ``whole`` with one renaming of labels."""
    if not part:
        yield used, table
        return
    (expr, labels), *rest = part
    for position, (other, other_labels) in enumerate(whole):
        if position in used or other is not expr:
            continue
        extended = dict(table)
        if all(extended.setdefault(a, b) == b for a, b in zip(labels, other_labels, strict=True)):
            yield from _matches(rest, whole, (*used, position), extended)
