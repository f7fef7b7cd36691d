"""Structure of linear operators, read off the products that they are made of.

A factor that touches one axis of the unknown alone makes the operator a Kronecker product; a pair of equal
vectors on that axis makes it of rank one there. Nothing here knows which method solves the equations.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction

import sympy

from sifrc.derive.system import Equation
from sifrc.ir import Add, Axis, Delta, Einsum, Expr, Input, Operand, Reduce, Role
from sifrc.ir.build import add, apply, einsum, rename, scale, total
from sifrc.ir.linear import LinearSolve
from sifrc.scalar import POWER_OF_TWO, QUOTIENT, SQRT
from sifrc.scalar.function import ScalarFunction

__all__ = ["COORDINATES", "Kronecker", "compressed", "kronecker"]

_X = sympy.Symbol("x", real=True)
INVERSE_ROOT = ScalarFunction(
    "inverse_root", ("x",), sympy.Piecewise((1 / sympy.sqrt(_X), _X > 0), (0, True))
)
"""1/√x, and zero at zero: the unit vector of a zero vector is taken as zero."""


@dataclass(frozen=True)
class _Term:
    """factor · numbers · operands · probe, the probe's slots labelled ``slots``."""

    factor: Fraction
    numbers: tuple[Operand, ...]
    operands: tuple[Operand, ...]
    slots: tuple[Axis, ...]

    def is_number(self, axes: tuple[Axis, ...]) -> bool:
        """Whether the term is a multiple of the probe."""
        return not self.operands and self.slots == axes


def _terms(product: Expr, probe: Input) -> tuple[_Term, ...] | None:
    """The products that an operator is the sum of; None if one is not linear in the probe."""
    found: list[_Term] = []
    for factor, term in product.terms if isinstance(product, Add) else ((Fraction(1), product),):
        operands = tuple(_factors(term, term.axes, ""))
        mine = [labels for expr, labels in operands if expr is probe]
        others = [operand for operand in operands if operand[0] is not probe]
        if len(mine) != 1:
            return None
        found.append(
            _Term(
                factor,
                tuple(operand for operand in others if not operand[1]),
                tuple(operand for operand in others if operand[1]),
                mine[0],
            )
        )
    return tuple(found)


def _factors(expr: Expr, labels: tuple[Axis, ...], place: str) -> Iterator[Operand]:
    """The factors of a product, those of products within it among them; sums stay as they are."""
    if not isinstance(expr, Einsum):
        yield expr, labels
        return
    table = dict(zip(expr.out, labels, strict=True))
    for number, (operand, slots) in enumerate(expr.operands):
        for slot in slots:
            table.setdefault(slot, replace(slot, name=f"{slot.name}@{place}"))
        yield from _factors(operand, tuple(table[slot] for slot in slots), f"{place}.{number}")


COORDINATES = ("square", "unit", "along", "size", "rest")
"""Names of what is defined on the way to a solution in fewer coordinates."""


def compressed(equation: Equation) -> tuple[Equation, ...]:
    """Conjugate gradients on ``A = c + B ⊗ u uᵀ`` in coordinates of n + 1 numbers, with the same iterates.

    From zero the iterates stay in the span of the part of the right side R that is orthogonal to u, and
    of q ⊗ û for any q, û = u/‖u‖. In the orthonormal coordinates (s, q) of R_⊥ s/‖R_⊥‖ + q ûᵀ the operator
    is c on s and c + ‖u‖² B on q, so that the same method on them makes the same steps. ‖R_⊥‖ is taken of R
    divided by a power of two of its size: squares of small numbers vanish long before these do.

    Returns:
        Equations that give the same symbol its value; the equation alone without this structure.
    """
    node = equation.value
    if not isinstance(node, LinearSolve) or len(node.probes) != 1 or len(node.probes[0].axes) != 2:
        return (equation,)
    (probe,), (rhs,) = node.probes, node.rhs
    row, column = probe.axes
    terms = _terms(node.products[0], probe)
    products = [term for term in terms or () if not term.is_number(probe.axes)]
    vectors = {v.key: v for term in products for v in _vectors(term, column)}
    if terms is None or len(vectors) != 1 or not all(_vectors(term, column) for term in products):
        return (equation,)
    (vector,) = vectors.values()
    square, unit, along, size, rest_square = _coordinates(equation.symbol, row, column)
    inverse = apply(INVERSE_ROOT, square)
    rest = add(
        [(Fraction(1), rhs), (Fraction(-1), einsum([(along, (row,)), (unit, (column,))], probe.axes))],
        probe.axes,
    )
    scaled = apply(QUOTIENT, rest, size)
    largest = Reduce(Reduce(rhs, column, "magnitude"), row, "magnitude")
    definitions = (
        (square, einsum([(vector, (column,)), (vector, (column,))], ())),
        (unit, einsum([(vector, (column,)), (inverse, ())], (column,))),
        (along, einsum([(rhs, (row, column)), (unit, (column,))], (row,))),
        (size, apply(POWER_OF_TWO, largest)),
        (rest_square, einsum([(scaled, probe.axes), (scaled, probe.axes)], ())),
    )
    number = Input(f"{probe.family}₀", probe.index, (), Role.DIRECTION)
    part = Input(f"{probe.family}₁", probe.index, (row,), Role.DIRECTION)
    on_number, on_part = [], []
    for term in terms:
        if term.is_number(probe.axes):
            on_number.append((term.factor, einsum([*term.numbers, (number, ())], ())))
            on_part.append((term.factor, einsum([*term.numbers, (part, (row,))], (row,))))
        else:
            rows = [op for op in term.operands if not {column, term.slots[1]} & set(op[1])]
            factors = [*term.numbers, *rows, (square, ()), (part, term.slots[:1])]
            on_part.append((term.factor, einsum(factors, (row,))))
    operator = (add(on_number, ()), add(on_part, (row,)))
    right = (einsum([(size, ()), (apply(SQRT, rest_square), ())], ()), along)
    on_rest, on_unit = _both(node, (number, part), operator, right)
    ratio = apply(QUOTIENT, einsum([(on_rest, ()), (apply(INVERSE_ROOT, rest_square), ())], ()), size)
    value = total(
        [
            einsum([(rest, probe.axes), (ratio, ())], probe.axes),
            einsum([(on_unit, (row,)), (unit, (column,))], probe.axes),
        ],
        probe.axes,
    )
    named = [Equation(symbol, defined, equation.layer, "definition") for symbol, defined in definitions]
    return (*named, replace(equation, value=value))


def _both(
    node: LinearSolve, probes: tuple[Input, ...], products: tuple[Expr, ...], rhs: tuple[Expr, ...]
) -> tuple[Expr, ...]:
    """The solutions of equations that do not touch: iterates belong together, exact solutions do not."""
    if node.method == "cg":
        whole = replace(node, probes=probes, products=products, rhs=rhs)
        return tuple(replace(whole, component=component) for component in range(len(probes)))
    return tuple(
        replace(node, probes=(probe,), products=(product,), rhs=(right,))
        for probe, product, right in zip(probes, products, rhs, strict=True)
    )


def _coordinates(symbol: Input, row: Axis, column: Axis) -> tuple[Input, ...]:
    """‖u‖², û, R û, the power of two ς of R's size and ‖R_⊥/ς‖², named after what is solved for."""
    axes: tuple[tuple[Axis, ...], ...] = ((), (column,), (row,), (), ())
    return tuple(
        Input(f"{symbol.family}.{name}", symbol.index, own, Role.DIRECTION)
        for name, own in zip(COORDINATES, axes, strict=True)
    )


def _vectors(term: _Term, column: Axis) -> tuple[Expr, ...]:
    """The vector u where the term acts on the columns by u uᵀ alone; () otherwise."""
    other = term.slots[1]
    touching = [operand for operand in term.operands if {column, other} & set(operand[1])]
    mine = [expr for expr, labels in touching if labels == (column,)]
    theirs = [expr for expr, labels in touching if labels == (other,)]
    if other == column or len(touching) != 2 or len(mine) != 1 or len(theirs) != 1:
        return ()
    left, right = rename(mine[0], (column,)), rename(theirs[0], (column,))
    return (left,) if left is right else ()


@dataclass(frozen=True)
class Kronecker:
    """A = shift + left ⊗ right; right is None where the unknown has one axis, both where A is a number.

    Args:
        shift: a number.
        left: over the first axis and its second index, with all numbers of the product.
        right: over the second axis and its second index.
    """

    shift: Expr
    left: Expr | None
    right: Expr | None


def kronecker(node: LinearSolve) -> Kronecker | None:
    """The operator as a number plus a product of one matrix on each axis; None if it is not that."""
    if len(node.probes) != 1:
        return None
    (probe,), (product,) = node.probes, node.products
    terms = _terms(product, probe)
    if terms is None:
        return None
    shifts = [term for term in terms if term.is_number(probe.axes)]
    products = [term for term in terms if not term.is_number(probe.axes)]
    shift = add([(t.factor, einsum(t.numbers, ())) for t in shifts], ())
    if not products:
        return Kronecker(shift, None, None)
    if len(products) != 1:
        return None
    (term,) = products
    sides: list[list[Operand]] = [[] for _ in probe.axes]
    for expr, labels in term.operands:
        owners = {n for n, axis in enumerate(probe.axes) if set(labels) & {axis, term.slots[n]}}
        if len(owners) != 1 or len(owners) != len({*owners}):
            return None
        sides[owners.pop()].append((expr, labels))
    # A factor on an axis whose index stays is diagonal; without a factor the index must stay.
    if any(
        bool(side) == (slot == axis) for axis, slot, side in zip(probe.axes, term.slots, sides, strict=True)
    ):
        return None
    matrices: list[Expr] = []
    for axis, slot, side in zip(probe.axes, term.slots, sides, strict=True):
        other = axis.primed
        matrix = einsum(side, (axis, slot)) if slot != axis else Delta(axis, other)
        matrices.append(rename(matrix, (axis, other)))
    left = scale(term.factor, einsum([*term.numbers, (matrices[0], matrices[0].axes)], matrices[0].axes))
    return Kronecker(shift, left, matrices[1] if len(matrices) == 2 else None)
