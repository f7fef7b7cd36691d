"""Products and sums that are equal but for their layer come in one order, with one name for each label."""

from __future__ import annotations

from fractions import Fraction
from itertools import permutations

from sifrc.ir import Add, Axis, Einsum, Expr, Input, Role
from sifrc.ir.build import add, einsum
from sifrc.ir.relative import ordered_operands, ordered_terms
from sifrc.lower.products import ordered

LAYERS = range(2, 30)
OUT = tuple(Axis(f"out{n}", 4) for n in range(3))
PLACES = tuple(Axis(f"place{n}", 5 + n) for n in range(3))

HEAD = Axis("head", 3)


def symbol(family: str, layer: int, axes: tuple[Axis, ...]) -> Input:
    return Input(family, layer, axes, Role.DIRECTION)


def shown(expr: Expr, layer: int) -> str:
    """An expression with its factors in order, the names of all labels and no layer."""
    if isinstance(expr, Einsum):
        parts = [f"{shown(e, layer)}[{','.join(map(str, ls))}]" for e, ls in ordered_operands(expr, layer)]
        return f"({' '.join(parts)} -> {','.join(map(str, expr.out))})"
    assert isinstance(expr, Input) and expr.index is not None
    return f"{expr.family}{expr.index - layer:+d}"


def test_parts_of_products_have_the_same_labels_at_every_layer() -> None:
    """Keys of arrays for parts have these names in them: what is one array at a layer is one at all."""
    found = set()
    for layer in LAYERS:
        moved = symbol("c", layer - 1, (OUT[0], *PLACES))
        shared, pulled = symbol("s", layer, PLACES), symbol("b", layer, (OUT[0], HEAD, *PLACES))
        factors = [(moved, (OUT[0], *PLACES)), (moved, (OUT[1], *PLACES)), (shared, PLACES)]
        head = symbol("h", layer, (HEAD, PLACES[0]))
        product = einsum([*factors, (pulled, (OUT[2], HEAD, *PLACES)), (head, (HEAD, PLACES[0]))], OUT)
        found.add(shown(ordered(product, layer), layer))
    assert len(found) == 1, found


def test_terms_with_the_same_factors_have_one_order() -> None:
    """Σ over the ways to join the factors: which label is summed with which tells the terms apart."""
    orders = set()
    for layer in LAYERS:
        moved, weight = symbol("c", layer - 1, (OUT[0], *PLACES[:1])), symbol("b", layer, PLACES[:1])
        one, two = Axis("one", 5), Axis("two", 5)
        terms = []
        for first, second, third in list(permutations(OUT))[::2]:
            alone = [(moved, (first, one)), (weight, (one,))]
            pair = [(moved, (second, two)), (moved, (third, two)), (weight, (two,))]
            terms.append((Fraction(1), einsum([*alone, *pair], OUT)))
        whole = add(terms, OUT)
        assert isinstance(whole, Add) and len(whole.terms) == 3
        orders.add(tuple(joined(term, layer) for _, term in ordered_terms(whole, layer)))
    assert len(orders) == 1, orders


def joined(term: Expr, layer: int) -> str:
    """The label of the result whose factor is summed with a weight alone."""
    assert isinstance(term, Einsum)
    slots = [labels for factor, labels in ordered_operands(term, layer) if len(labels) == 2]
    (alone,) = [own[0] for own in slots if sum(own[1] == other[1] for other in slots) == 1]
    return alone.name
