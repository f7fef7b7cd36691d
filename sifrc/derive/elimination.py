"""Generic elimination steps: solve one equation ``expr = 0`` for one symbol.

Each step looks at the expanded equation only; none knows which method asks. A step raises
:class:`Stuck` when the equation does not have the form that it solves.
"""

from __future__ import annotations

from fractions import Fraction

from sifrc.calculus import jacobian
from sifrc.derive.recurrence import strictly_shifted
from sifrc.ir import Axis, Delta, Einsum, Expr, Input, Map, Operand, Solve
from sifrc.ir.build import (
    add,
    apply,
    constant,
    einsum,
    hadamard,
    inner,
    negative,
    number_of,
    rename,
    scale,
    total,
    zero,
)
from sifrc.ir.normal import Relation, expand, operands_of, relation, terms_of
from sifrc.ir.nullspace import sums_to_zero
from sifrc.ir.traverse import inputs_of
from sifrc.scalar.function import RECIPROCAL

__all__ = [
    "Stuck",
    "diagonal_of",
    "solve_common_factor",
    "solve_linear",
    "solve_minimum_norm",
    "solve_outer",
    "solve_scaled",
    "solve_shifted_outer",
    "solve_two_sided",
    "solve_unit",
    "strip_common_factors",
]


class Stuck(ValueError):
    """An equation does not have the form a step needs."""


def solve_unit(equation: Expr, symbol: Input) -> Expr:
    """Solve ``c·symbol + rest = 0`` for the symbol, which the rest does not contain.

    The rest may have the symbol at other steps of one axis, all before or all after: such an equation is
    solved step by step, and its value refers to the symbol.

    Example:
        >>> from sifrc.ir import Axis, Input, Role
        >>> i = Axis("fc1", 3)
        >>> u, v = Input("u", 1, (i,), Role.STATE), Input("v", 1, (i,), Role.STATE)
        >>> solve_unit(total([u, v], (i,)), u) is negative(v)
        True
    """
    coefficient = Fraction(0)
    rest: list[tuple[Fraction, Expr]] = []
    for factor, term in terms_of(equation):
        if term is symbol:
            coefficient = factor
        else:
            rest.append((factor, term))
    value = scale(Fraction(-1) / coefficient, add(rest, equation.axes)) if coefficient else None
    if value is None or (symbol in inputs_of(value) and not strictly_shifted(value, symbol)):
        raise Stuck(f"no unit coefficient of {symbol.name}")
    return value


def solve_scaled(equation: Expr, symbol: Input) -> Expr:
    """Solve ``s·symbol + rest = 0`` where s is a sum of scalars, for the symbol.

    The value is ``−rest / s``; where s is a number it is divided out exactly.
    """
    coefficients: list[tuple[Fraction, Expr]] = []
    rest: list[tuple[Fraction, Expr]] = []
    for factor, term in terms_of(expand(equation)):
        operands = operands_of(term)
        mine = [op for op in operands if op[0] is symbol]
        others = [op for op in operands if op[0] is not symbol]
        if not mine:
            rest.append((factor, term))
        elif len(mine) == 1 and mine[0][1] == term.axes and all(not labels for _, labels in others):
            coefficients.append((factor, einsum(others, ())))
        else:
            raise Stuck(f"the coefficient of {symbol.name} is not a scalar")
    scalar = add(coefficients, ())
    if isinstance(scalar, Einsum) and not scalar.operands:
        return negative(add(rest, equation.axes))
    inverse = apply(RECIPROCAL, scalar)
    remainder = add(rest, equation.axes)
    return negative(einsum([(inverse, ()), (remainder, remainder.axes)], equation.axes))


def solve_outer(equation: Expr, symbol: Input) -> tuple[Expr, Expr]:
    """Solve ``c·v ⊗ symbol = 0``: the symbol is zero where the vector v is not.

    Returns:
        The value (zero) and v.
    """
    expanded = terms_of(expand(equation))
    if len(expanded) == 1:
        operands = operands_of(expanded[0][1])
        mine = [op for op in operands if op[0] is symbol]
        others = [op for op in operands if op[0] is not symbol]
        labels = {label for _, slots in others for label in slots}
        if len(mine) == 1 and others and not labels & set(mine[0][1]):
            free = [axis for axis in equation.axes if axis in labels]
            return zero(symbol.axes), einsum(others, free)
    raise Stuck(f"not an outer product with {symbol.name}")


def solve_common_factor(equation: Expr, symbol: Input) -> tuple[Expr, tuple[Expr, ...]]:
    """Solve ``D ∘ (c·symbol + rest) = 0`` where D, a product of functions, has no zero entry.

    Returns:
        The value of the symbol and the factors of D (none where there is no common factor).
    """
    quotient, divisors = strip_common_factors(equation)
    return solve_unit(quotient, symbol), divisors


def _divide(term: Expr, factor: Operand, axes: tuple[Axis, ...]) -> Expr | None:
    operands = list(operands_of(term))
    for position, operand in enumerate(operands):
        if operand == factor:
            return einsum(operands[:position] + operands[position + 1 :], axes)
    return None


def strip_common_factors(equation: Expr) -> tuple[Expr, tuple[Expr, ...]]:
    """Divide out the functions, and the constants, that multiply every term entry by entry.

    Returns:
        The quotient and the divisors, none of which may have a zero entry.
    """
    divisors: list[Expr] = []
    current = expand(equation)
    while True:
        found = _common_divisor(current)
        if found is None:
            return current, tuple(divisors)
        divisor, current = found
        divisors.append(divisor)


def _common_divisor(equation: Expr) -> tuple[Expr, Expr] | None:
    terms = terms_of(equation)
    axes = equation.axes
    for candidate, labels in operands_of(terms[0][1]) if terms else ():
        if isinstance(candidate, Map) and (labels == axes or not candidate.operands):
            quotients = [(factor, _divide(term, (candidate, labels), axes)) for factor, term in terms]
            kept = [(factor, quotient) for factor, quotient in quotients if quotient is not None]
            if len(kept) == len(terms):
                return candidate, expand(add(kept, axes))
    return None


def solve_linear(
    equation: Expr, symbol: Input, name: str
) -> tuple[Expr, Expr, Expr, tuple[Relation, ...], tuple[Expr, ...]]:
    """Solve ``M·symbol + rest = 0`` where M is symmetric, dense or diagonal.

    Functions that multiply every term are divided out first. M is the differential in the direction
    of a Delta; a Delta factor in each of its terms makes it diagonal, and the solution an entrywise
    quotient.

    Returns:
        The value of the symbol, M (its diagonal where it is diagonal), the rest, the relations
        that characterise the value, and the divisors, none of which may have a zero entry.
    """
    (axis,) = symbol.axes
    other = axis.primed
    full = expand(equation)
    if symbol not in inputs_of(full):
        raise Stuck(f"{symbol.name} does not occur")
    matrix = jacobian(full, symbol)
    if diagonal_of(matrix, (axis,), (other,)) is None:
        rest = _without(full, matrix, symbol, other)
        value = rename(Solve(matrix, negative(rest), centred=sums_to_zero(matrix)), (axis,))
        applied = total([_applied(matrix, value, other), rest], (axis,))
        found = [term for _, term in terms_of(expand(applied)) if contains(term, _solution(value))]
        # The longest product, and a sum rather than an entry: replacing a shorter one, or the entry, can
        # give it back inside a longer one, for ever.
        lead = max(found, key=lambda term: (len(operands_of(term)), _summed(term), term.key))
        return value, matrix, rest, (relation(name, applied, lead),), ()
    quotient, divisors = strip_common_factors(full)
    matrix = jacobian(quotient, symbol)
    rest = _without(quotient, matrix, symbol, other)
    diagonal = diagonal_of(matrix, (axis,), (other,))
    assert diagonal is not None
    number = number_of(diagonal)
    if number is not None:
        inverse = constant(-1 / number, (axis,))
        return hadamard(inverse, rest), diagonal, rest, (), divisors
    inverse = apply(RECIPROCAL, diagonal)
    product = expand(hadamard(inverse, diagonal))
    one = einsum([], (axis,))
    lead = terms_of(product)[0][1]
    known = relation(name, add([(Fraction(1), product), (Fraction(-1), one)], (axis,)), lead)
    return negative(hadamard(inverse, rest)), diagonal, rest, (known,), divisors


def _without(equation: Expr, matrix: Expr, symbol: Input, other: Axis) -> Expr:
    """The part of an affine equation without the symbol."""
    rest = expand(total([equation, negative(_applied(matrix, symbol, other))], equation.axes))
    if symbol in inputs_of(matrix) or symbol in inputs_of(rest):
        raise Stuck(f"the equation is not affine in {symbol.name}")
    return rest


def contains(term: Expr, factor: Expr) -> bool:
    """Whether a product has this factor."""
    return any(expr is factor for expr, _ in operands_of(term))


def _summed(term: Expr) -> int:
    """Number of labels that a product is summed over."""
    return len({label for _, labels in operands_of(term) for label in labels} - set(term.axes))


def _solution(value: Expr) -> Expr:
    return value.operands[0][0] if isinstance(value, Einsum) else value


def _applied(matrix: Expr, vector: Expr, other: Axis) -> Expr:
    return einsum([(matrix, matrix.axes), (vector, (other,))], matrix.axes[:-1])


def diagonal_of(matrix: Expr, axes: tuple[Axis, ...], others: tuple[Axis, ...]) -> Expr | None:
    """The entries d of a matrix d_i δ_ii', i over some axes and i' over the others; None if it is none."""
    pairs = dict(zip(others, axes, strict=True))
    entries: list[tuple[Fraction, Expr]] = []
    for factor, term in terms_of(expand(matrix)):
        deltas = [ls for e, ls in operands_of(term) if isinstance(e, Delta)]
        found = {other for ls in deltas for other, axis in pairs.items() if {axis, other} == set(ls)}
        if found != set(pairs) or len(deltas) != len(pairs):
            return None
        rest = [
            (e, tuple(pairs.get(a, a) for a in ls)) for e, ls in operands_of(term) if not isinstance(e, Delta)
        ]
        entries.append((factor, einsum(rest, axes)))
    return add(entries, axes)


def solve_shifted_outer(shift: Expr, weight: Expr, vector: Expr, rhs: Expr) -> Expr:
    """Solve ``(shift·I + weight·v vᵀ) X = v rᵀ`` for X, with scalars shift and weight.

    The right side is a multiple of v, so that X = v rᵀ / (shift + weight ‖v‖²) (Sherman–Morrison).

    Args:
        shift, weight: scalars.
        vector: v.
        rhs: v rᵀ, each term with the factor v over the first axis.

    Raises:
        Stuck: the right side is no multiple of v.
    """
    row = rhs.axes[:1]
    for _, term in terms_of(rhs):
        if not any(expr is vector and labels == row for expr, labels in operands_of(term)):
            raise Stuck("the right side is no multiple of the vector")
    size = total([shift, einsum([(weight, ()), (inner(vector, vector), ())], ())], ())
    return einsum([(apply(RECIPROCAL, size), ()), (rhs, rhs.axes)], rhs.axes)


def solve_two_sided(equation: Expr, symbol: Input) -> tuple[Expr, Expr, Expr]:
    """Read ``A X + X B + C = 0`` off an equation that is affine in the matrix X.

    Returns:
        A over (i, i'), B over (j, j'), and C.

    Raises:
        Stuck: X occurs in another way.
    """
    rows, columns = symbol.axes
    other_row, other_column = (a.primed for a in symbol.axes)
    left: list[tuple[Fraction, Expr]] = []
    right: list[tuple[Fraction, Expr]] = []
    rest: list[tuple[Fraction, Expr]] = []
    for factor, term in terms_of(expand(equation)):
        operands = operands_of(term)
        mine = [labels for expr, labels in operands if expr is symbol]
        others = [op for op in operands if op[0] is not symbol]
        if not mine:
            rest.append((factor, term))
        elif len(mine) == 1 and mine[0][1] == columns:
            left.append((factor, _matrix(others, rows, mine[0][0], (rows, other_row))))
        elif len(mine) == 1 and mine[0][0] == rows:
            right.append((factor, _matrix(others, columns, mine[0][1], (columns, other_column))))
        else:
            raise Stuck(f"{symbol.name} occurs in neither of the forms A X and X B")
    return add(left, (rows, other_row)), add(right, (columns, other_column)), add(rest, symbol.axes)


def _matrix(operands: list[Operand], free: Axis, summed: Axis, axes: tuple[Axis, Axis]) -> Expr:
    if free == summed:  # X itself: the identity matrix
        return Delta(*axes)
    table = {free: axes[0], summed: axes[1]}
    return einsum([(e, tuple(table.get(a, a) for a in ls)) for e, ls in operands], axes)


def solve_minimum_norm(equation: Expr, symbol: Input, name: str) -> tuple[Expr, Expr, Relation]:
    """Choose, among the matrices with ``c·symbolᵀ v + r = 0``, the one of least Frobenius norm.

    It is ``−v rᵀ / (c ‖v‖²)``: a choice and not a deduction.

    Returns:
        The value, v, and the relation 1/‖v‖² · ⟨v, v⟩ = 1.
    """
    rest: list[tuple[Fraction, Expr]] = []
    mine: tuple[Fraction, list[Operand], tuple[Axis, ...]] | None = None
    for factor, term in terms_of(expand(equation)):
        operands = operands_of(term)
        holding = [labels for expr, labels in operands if expr is symbol]
        if holding:
            if mine is not None:
                raise Stuck(f"{symbol.name} occurs in several terms")
            mine = factor, [op for op in operands if op[0] is not symbol], holding[0]
        else:
            rest.append((factor, term))
    if mine is None:
        raise Stuck(f"{symbol.name} does not occur")
    factor, others, labels = mine
    rows, columns = symbol.axes
    if labels[1:] != equation.axes:
        raise Stuck(f"{symbol.name} is not contracted over its rows")
    vector = _own_axis(others, labels[0])
    remainder = rename(add(rest, equation.axes), (columns,))
    norm = inner(vector, vector)
    inverse = apply(RECIPROCAL, norm)
    value = einsum([(vector, (rows,)), (remainder, (columns,)), (inverse, ())], symbol.axes)
    product = einsum([(inverse, ()), (norm, ())], ())
    one = einsum([], ())
    known = relation(name, add([(Fraction(1), product), (Fraction(-1), one)], ()), expand(product))
    return scale(Fraction(-1) / factor, value), vector, known


def _own_axis(operands: list[Operand], label: Axis) -> Expr:
    """A product over one label, over the axis that the factors themselves have there."""
    own = next(
        expr.axes[position]
        for expr, labels in operands
        for position, other in enumerate(labels)
        if other == label
    )
    renamed = [
        (expr, tuple(own if other == label else other for other in labels)) for expr, labels in operands
    ]
    return einsum(renamed, (own,))
