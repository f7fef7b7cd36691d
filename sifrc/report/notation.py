"""From expressions to mathematical notation: matrix notation where it fits, else index notation."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import singledispatch
from types import MappingProxyType

from sifrc.ir import (
    Add,
    Affine,
    ArgMax,
    Axis,
    CubicNewton,
    Delta,
    Einsum,
    Expr,
    Input,
    LinearSolve,
    LogSoftmax,
    LogSumExp,
    Map,
    Operand,
    Reduce,
    Solve,
    Spectral,
    Sylvester,
)
from sifrc.ir.relative import relative_key
from sifrc.ir.traverse import last_layer
from sifrc.report.affine import affine_text, delta_indices, index_names, places_of
from sifrc.report.elementwise import elementwise, is_function
from sifrc.report.flat import one_product
from sifrc.report.generic import generic_key, is_shared
from sifrc.report.layout import (
    ONE,
    Constant,
    Contraction,
    CubeRoot,
    Equal,
    Hadamard,
    Indexed,
    Inner,
    Inverse,
    Layout,
    Mean,
    Minimiser,
    Named,
    Norm,
    Product,
    Quotient,
    Solved,
    Sum,
    Symbol,
    Total,
    coefficient_of,
    replaced,
    sum_of,
)
from sifrc.report.order import ordered_factors, ordered_scalars, ordered_terms
from sifrc.report.products import IDENTITY, Factor, NoMatrixForm, matrix_product
from sifrc.scalar import ABS, EXP, RECIPROCAL, ScalarFunction

__all__ = ["Notation", "notation"]

_SOLVERS: Mapping[str, str] = MappingProxyType({"cg": "conjugate gradients", "eigen": "eigenvalues"})
_SPECTRAL: Mapping[str, str] = MappingProxyType(
    {"positive": "positive part", "absolute": "abs", "definite": "checked"}
)
_LETTERS = "ijlmpqrs"
_MOST_USES = 3
"""Terms of a sum over the uses of shared parameters that are written one by one."""


@dataclass(frozen=True)
class Notation:
    """What the notation of an expression depends on besides itself.

    Args:
        layer: that terms and factors are ordered from; the result is the same for every layer.
        activations: k -> F_k, which prints by name on ``a[k]``.
        shared: numbers of parameters that several layers use.
    """

    layer: int
    activations: Mapping[int, ScalarFunction]
    shared: frozenset[int] = frozenset()

    def sides(self, symbol: Layout, value: Expr) -> tuple[Layout, Layout]:
        """Both sides of ``symbol = value``; entries of both where matrix notation does not fit.

        What solves a linear equation is written as that equation, the symbol in it for the unknown; so is
        the point where a function is least.
        """
        node = _solution(value)
        try:
            if isinstance(value, CubicNewton) and isinstance(symbol, Symbol):
                return symbol, _cubic(value, symbol, self)
            if node is not None and isinstance(symbol, Symbol):
                probe = Symbol(node.probes[0].family, node.probes[0].index)
                applied, rhs = _matrix(node.products[0], self), _matrix(node.rhs[0], self)
                return replaced(applied, probe, symbol), Solved(rhs, symbol, _SOLVERS[node.method])
            return symbol, _matrix(value, self)
        except NoMatrixForm:
            names = index_names(value, _more_letters())
            left = Indexed(symbol, tuple(names[axis] for axis in value.axes)) if value.axes else symbol
            return left, _indexed(value, names, self)


def notation(expr: Expr, layer: int = 0, activations: Mapping[int, ScalarFunction] | None = None) -> Layout:
    """An expression in mathematical notation.

    Example:
        >>> from sifrc.ir import Role
        >>> from sifrc.ir.build import einsum
        >>> from sifrc.report.text import text
        >>> i, j = Axis("fc1", 3), Axis("x", 4)
        >>> w, y = Input("W", 1, (i, j), Role.PARAMETER), Input("y", 1, (i,), Role.ADJOINT)
        >>> text(notation(einsum([(w, (i, j)), (y, (i,))], (j,))))
        'W_1ᵀ y_1'
    """
    return Notation(layer, activations or {}).sides(ONE, expr)[1]


@singledispatch
def _matrix(expr: Expr, context: Notation) -> Layout:
    raise TypeError(f"no notation for {type(expr).__name__}")


@_matrix.register
def _(expr: Input, context: Notation) -> Layout:
    return Symbol(expr.family, expr.index, is_shared(expr, context.shared))


@_matrix.register
def _(expr: Delta, context: Notation) -> Layout:
    return IDENTITY


@_matrix.register
def _(expr: Add, context: Notation) -> Layout:
    terms = _over_uses(expr, context) or tuple((f, _matrix(term, context)) for f, term in expr.terms)
    combined = sum_of(terms)
    if not isinstance(combined, Sum):
        return combined
    return Sum(ordered_terms(combined.terms, context.layer))


def _over_uses(expr: Add, context: Notation) -> tuple[tuple[Fraction, Layout], ...]:
    """Terms that are equal but for the layer, as uses of shared parameters, as sums; () if none are."""
    found: dict[tuple[Fraction, str], list[tuple[int, Expr]]] = {}
    for factor, term in expr.terms if context.shared and len(expr.terms) > _MOST_USES else ():
        layer = last_layer(term)
        found.setdefault((factor, generic_key(term, layer, context.shared)), []).append((layer, term))
    if len(found) == len(expr.terms):
        return ()
    terms = []
    for (factor, _), uses in found.items():
        layer, term = min(uses, key=lambda use: use[0])
        body = _matrix(term, replace(context, layer=layer))
        members = tuple(sorted(k for k, _ in uses))
        terms.append((factor, body if len(uses) == 1 else Total(layer, members, body)))
    return tuple(terms)


@_matrix.register
def _(expr: Einsum, context: Notation) -> Layout:
    coefficient, operands, out, averaged = one_product(expr)
    operands, factors = _joined(operands, out, context)
    for operand, labels in operands:
        divides = isinstance(operand, Map) and is_function(operand, RECIPROCAL) and len(labels) < 2
        inside = operand.operands[0][0] if divides and isinstance(operand, Map) else operand
        number, layout = coefficient_of(_matrix(inside, context))
        coefficient = coefficient / number if divides else coefficient * number
        factors.append(Factor(layout, labels, divides))
    product = matrix_product(factors, out, context.layer)
    return sum_of(((coefficient, Mean(product) if averaged else product),))


def _joined(
    operands: list[Operand], out: tuple[Axis, ...], context: Notation
) -> tuple[list[Operand], list[Factor]]:
    """The operands without what joins axes, and as factors those whose axes are joined, or taken apart.

    Raises:
        NoMatrixForm: the axes that are joined are not those of one operand.
    """
    rest, factors = list(operands), []
    for join in [operand for operand in operands if isinstance(operand[0], Affine)]:
        assert isinstance(join[0], Affine)
        if not join[0].joins:
            raise NoMatrixForm("a tensor that reads places")
        rest.remove(join)
        for name, old, new in (("vec", join[1][1:], join[1][:1]), ("unvec", join[1][:1], join[1][1:])):
            touched = [operand for operand in rest if set(old) & set(operand[1])]
            if not set(old) & set(out) and len(touched) == 1 and touched[0][1] == old:
                rest.remove(touched[0])
                factors.append(Factor(Named(name, (_matrix(touched[0][0], context),)), new))
                break
        else:
            raise NoMatrixForm("axes of several factors are joined")
    return rest, factors


@_matrix.register
def _(expr: Affine, context: Notation) -> Layout:
    raise NoMatrixForm("a tensor that joins axes, or reads places")


@_matrix.register
def _(expr: Map, context: Notation) -> Layout:
    return elementwise(expr, [_matrix(operand, context) for operand, _ in expr.operands], context.activations)


@_matrix.register
def _(expr: LogSumExp | LogSoftmax | ArgMax, context: Notation) -> Layout:
    return Named(expr.word, (_matrix(expr.operand, context),))


@_matrix.register
def _(expr: Reduce, context: Notation) -> Layout:
    operand = expr.operand
    if expr.kind == "magnitude":
        while isinstance(operand, Reduce) and operand.kind == "magnitude":
            operand = operand.operand
        return Norm(_matrix(operand, context), "max")
    if isinstance(operand, Map) and is_function(operand, ABS):
        return Norm(_matrix(operand.operands[0][0], context), "max")
    return Named(expr.kind, (_matrix(operand, context),))


@_matrix.register
def _(expr: Solve, context: Notation) -> Layout:
    """A⁻¹ r, with the numbers of both in front."""
    above, rhs = coefficient_of(_matrix(expr.rhs, context))
    below, matrix = coefficient_of(_matrix(expr.matrix, context))
    return sum_of(((above / below, Product((Inverse(matrix), rhs))),))


@_matrix.register
def _(expr: Spectral, context: Notation) -> Layout:
    return Named(_SPECTRAL[expr.kind], (_matrix(expr.matrix, context),))


@_matrix.register
def _(expr: Sylvester, context: Notation) -> Layout:
    return Named("sylvester", tuple(_matrix(part, context) for part in (expr.left, expr.right, expr.rhs)))


@_matrix.register
def _(expr: LinearSolve, context: Notation) -> Layout:
    """The solution, by its equation: A u = r."""
    product, rhs = (_matrix(part[expr.component], context) for part in (expr.products, expr.rhs))
    return Named(_SOLVERS[expr.method], (Equal((product, rhs)),))


@_matrix.register
def _(expr: CubicNewton, context: Notation) -> Layout:
    """The point where the cubic model is least, by a name that nothing else has."""
    return _cubic(expr, Symbol("unknown"), context)


def _cubic(expr: CubicNewton, unknown: Symbol, context: Notation) -> Layout:
    """argmin_η −⟨g, η⟩ + ½ ⟨η, H η⟩ + λ/6 ‖|D3|^⅓ ∘ η‖³."""
    matrix, rhs, third, strength = (_matrix(part, context) for part in expr.children())
    cubed = Norm(Hadamard((CubeRoot(third), unknown)), "cubed")
    damped = Product((Quotient(strength, Constant("6")), cubed))
    bent = Inner(unknown, Product((matrix, unknown)))
    terms = ((Fraction(-1), Inner(rhs, unknown)), (Fraction(1, 2), bent), (Fraction(1), damped))
    return Minimiser(unknown, sum_of(terms))


def _solution(value: Expr) -> LinearSolve | None:
    """The system of one unknown that an expression is the solution of, whatever its axes are called."""
    while isinstance(value, Einsum) and len(value.operands) == 1 and value.operands[0][1] == value.out:
        value = value.operands[0][0]
    return value if isinstance(value, LinearSolve) and len(value.probes) == 1 else None


@singledispatch
def _indexed(expr: Expr, names: Mapping[Axis, str], context: Notation) -> Layout:
    """An entry of an expression; ``names`` are the letters of its axes."""
    labels = tuple(names[axis] for axis in expr.axes if not axis.is_sample)
    layout = _matrix(expr, context)
    return Indexed(layout, labels) if labels else layout


@_indexed.register
def _(expr: Delta, names: Mapping[Axis, str], context: Notation) -> Layout:
    return Indexed(Symbol("δ"), tuple(names[axis] for axis in expr.axes))


@_indexed.register
def _(expr: Affine, names: Mapping[Axis, str], context: Notation) -> Layout:
    return Indexed(Symbol("δ"), delta_indices(expr, [names[axis] for axis in expr.axes]))


@_indexed.register
def _(expr: LinearSolve, names: Mapping[Axis, str], context: Notation) -> Layout:
    """The solution, by its equation, entry by entry."""
    parts = expr.products[expr.component], expr.rhs[expr.component]
    letters = [names[axis] for axis in expr.axes]
    sides = (_indexed(part, dict(zip(part.axes, letters, strict=True)), context) for part in parts)
    return Named(_SOLVERS[expr.method], (Equal(tuple(sides)),))


@_indexed.register
def _(expr: Add, names: Mapping[Axis, str], context: Notation) -> Layout:
    combined = sum_of(tuple((factor, _indexed(term, names, context)) for factor, term in expr.terms))
    return Sum(ordered_terms(combined.terms, context.layer)) if isinstance(combined, Sum) else combined


@_indexed.register
def _(expr: Reduce | ArgMax | LogSumExp | LogSoftmax, names: Mapping[Axis, str], context: Notation) -> Layout:
    """With the letter that it runs over; what is 1 at the largest entry has one of its own."""
    own = names.get(expr.over) or next(_unused(names))
    inner = {**names, expr.over: own}
    return Named(f"{expr.word}_{own}", (_indexed(expr.operand, inner, context),))


@_indexed.register
def _(expr: Map, names: Mapping[Axis, str], context: Notation) -> Layout:
    inner = expr.operands[0][0] if is_function(expr, EXP) else None
    if isinstance(inner, LogSoftmax):
        try:
            return Indexed(_matrix(expr, context), tuple(names[axis] for axis in expr.out))
        except NoMatrixForm:
            own = {axis: names[label] for axis, label in zip(inner.axes, expr.operands[0][1], strict=True)}
            return Named(f"softmax_{own[inner.over]}", (_indexed(inner.operand, own, context),))
    return elementwise(expr, [_entry(op, names, context) for op in expr.operands], context.activations)


@_indexed.register
def _(expr: Einsum, names: Mapping[Axis, str], context: Notation) -> Layout:
    coefficient, operands, out, averaged = one_product(expr)
    operands.sort(key=lambda operand: relative_key(operand[0], context.layer))
    letters = {axis: names[axis] for axis in out}
    unused = iter(letter for letter in _more_letters() if letter not in names.values())
    operands, places = places_of(operands, out)
    summed = []
    for labels in [*(labels for _, labels in operands), *(place.labels for place in places.values())]:
        for label in labels:
            if label not in letters and label not in places:
                letters[label] = next(unused)
                summed.append(letters[label])
    letters |= {label: affine_text(*place.terms(letters)) for label, place in places.items()}
    scalars: list[Layout] = []
    tensors: list[Layout] = []
    for operand in operands:
        number, layout = coefficient_of(_entry(operand, letters, context))
        coefficient *= number
        (tensors if operand[1] else scalars).append(layout)
    factors = [*ordered_scalars(scalars, context.layer), *ordered_factors(tensors, context.layer)]
    product: Layout = ONE if not factors else factors[0] if len(factors) == 1 else Product(tuple(factors))
    product = Contraction(tuple(sorted(summed)), product) if summed else product
    return sum_of(((coefficient, Mean(product) if averaged else product),))


def _entry(operand: Operand, letters: Mapping[Axis, str], context: Notation) -> Layout:
    expr, labels = operand
    if isinstance(expr, Einsum) and not expr.operands:
        return Constant("1")
    own = [axis for axis in expr.axes if not axis.is_sample]
    used = [label for label in labels if not label.is_sample]
    return _indexed(expr, {axis: letters[label] for axis, label in zip(own, used, strict=True)}, context)


def _unused(names: Mapping[Axis, str]) -> Iterator[str]:
    """Letters that no axis has."""
    return (letter for letter in _more_letters() if letter not in names.values())


def _more_letters(letters: Sequence[str] = _LETTERS) -> Iterator[str]:
    yield from letters
    for number in itertools.count(1):
        yield from (f"{letter}{number}" for letter in letters)
