"""The canonical order of products in which factors occur several times, against trying all orders."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import pytest
import sympy

from sifrc.ir import Axis, Delta, Einsum, Input, Role, ordering
from sifrc.ir import build as building
from sifrc.ir.normal import expand
from sifrc.ir.ordering import Product, contracted_names
from sifrc.report.generic import generic_key

SYMBOLS = [Input(f"x{k}", 1, (Axis("a", 3),), Role.STATE) for k in range(2)]
SYMBOLS += [Input(f"M{k}", 1, (Axis("a", 3), Axis("b", 3)), Role.STATE) for k in range(2)]


def text_of(product: Product, order: Sequence[int]) -> list[tuple[str, tuple[str, ...]]]:
    """The factors in an order, contracted labels named as they come."""
    names = dict(product.fixed)
    new = contracted_names(product.fixed)
    text = []
    for position in order:
        for label in product.labels[position]:
            if label not in names:
                names[label] = next(new)
        text.append((product.keys[position], tuple(names[label] for label in product.labels[position])))
    return text


def tried(product: Product, groups: list[list[int]]) -> list[tuple[str, tuple[str, ...]]]:
    """The least of all orders, each of them tried."""
    choices = itertools.product(*(itertools.permutations(group) for group in groups))
    return min(text_of(product, list(itertools.chain(*choice))) for choice in choices)


@pytest.mark.parametrize("seed", range(3))
def test_order_is_the_least_of_all_and_the_same_however_a_product_is_given(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Random products of vectors and matrices, renamed and shuffled."""
    rng = random.Random(seed)
    found = ordering._Search.least
    compared = 0

    def both(search: Any, groups: list[list[int]]) -> list[int]:
        nonlocal compared
        own = found(search, groups)
        if all(len(group) <= 4 for group in groups):
            compared += 1
            assert text_of(search.product, own) == tried(search.product, groups)
        return own

    monkeypatch.setattr(ordering._Search, "least", both)
    for _ in range(200):
        labels = [Axis(f"{rng.choice('#ql')}{k}", 3) for k in range(rng.randint(1, 6))]
        symbols = [rng.choice(SYMBOLS) for _ in range(rng.randint(2, 7))]
        product = [(symbol, tuple(rng.choice(labels) for _ in symbol.axes)) for symbol in symbols]
        used = sorted({label for _, own in product for label in own}, key=lambda axis: axis.place)
        out = tuple(rng.sample(used, rng.randint(0, min(2, len(used)))))
        names = dict(zip(used, (Axis(f"z{k}", 3) for k in rng.sample(range(9), len(used))), strict=True))
        names |= {axis: axis for axis in out}
        renamed = [(symbol, tuple(names[label] for label in own)) for symbol, own in product]
        rng.shuffle(renamed)
        if all(symbols.count(symbol) <= 4 for symbol in symbols):
            assert building._canonical(product, out) == building._canonical(renamed, out)
    assert compared > 100


def test_factors_that_occur_often_are_ordered_without_trying_all_orders(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """∏ ⟨p, u⟩⟨p, v⟩⟨p, w⟩ four times over: 24⁴ orders; of expressions, and up to a shift of layers."""
    calls = 0
    named = ordering._Search.named

    def counted(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        return named(*arguments)

    monkeypatch.setattr(ordering._Search, "named", counted)
    symbols = [Input(name, 1, (Axis("a", 3),), Role.STATE) for name in "puvw"]
    operands = [(symbol, (Axis(f"l{k}", 3),)) for k in range(4) for symbol in symbols]
    operands += [(SYMBOLS[2], (Axis("l0", 3), Axis("l1", 3))), (SYMBOLS[2], (Axis("l2", 3), Axis("l3", 3)))]
    one = building._canonical(operands, ())
    two = building._canonical(operands[::-1], ())
    assert one == two
    assert 0 < calls < 5000
    calls = 0
    assert generic_key(Einsum(tuple(operands), ()), 1) == generic_key(Einsum(tuple(operands[::-1]), ()), 1)
    assert 0 < calls < 5000


def test_a_label_without_an_operand_counts_its_size() -> None:
    """A sum over an axis that nothing depends on, also where a Kronecker delta or a product left it."""
    i, j = Axis("i", 3), Axis("j", 4)
    y = Input("y", 1, (j,), Role.STATE)
    assert building.einsum([(building.ones((i,)), (i,)), (y, (j,))], (j,)) is building.scale(3, y)
    trace = building.einsum([(Delta(i, i.primed), (i, i))], ())
    assert trace is building.scale(3, building.ones())
    assert building.einsum([(Delta(i, i.primed), (i, i)), (y, (j,))], (j,)) is building.scale(3, y)
    spread = building.einsum([(y, (j,))], (i, j))
    assert building.einsum([(spread, (i, j))], (j,)) is building.scale(3, y)
    identity = building.einsum([(Delta(i, i.primed), (i, i.primed))], (i, i.primed))
    assert building.einsum([(identity, (i, i.primed))], (i,)) is building.ones((i,))


def test_constants_that_multiply_to_a_rational_number_are_one_factor() -> None:
    """√2 · √2 is two, √2 · √3 stays a constant."""
    j = Axis("j", 4)
    y = Input("y", 1, (j,), Role.STATE)
    two, three = (building.constant(sympy.sqrt(number)) for number in (2, 3))
    assert building.einsum([(two, ()), (two, ()), (y, (j,))], (j,)) is building.scale(2, y)
    six = building.constant(sympy.sqrt(6))
    product = building.einsum([(two, ()), (three, ()), (y, (j,))], (j,))
    assert product is building.einsum([(six, ()), (y, (j,))], (j,))


def test_expanding_keeps_axes_that_a_term_does_not_depend_on() -> None:
    """A sum over them counts their size."""
    i, j = Axis("i", 3), Axis("j", 4)
    y, z = Input("y", 1, (j,), Role.STATE), Input("z", 1, (i, j), Role.STATE)
    both = building.total([building.einsum([(y, (j,))], (i, j)), z], (i, j))
    squared = expand(building.einsum([(both, (i, j)), (y, (j,))], (j,)))
    own = building.einsum([(y, (j,)), (y, (j,))], (j,))
    mixed = building.einsum([(z, (i, j)), (y, (j,))], (j,))
    assert squared is building.add([(Fraction(3), own), (Fraction(1), mixed)], (j,))
