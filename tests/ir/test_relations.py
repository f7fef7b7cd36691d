"""Relations of the zero test: solved for a product, and put in wherever it occurs."""

from __future__ import annotations

from fractions import Fraction

import pytest

from sifrc.ir import Axis, Input, Role
from sifrc.ir.build import add, einsum, hadamard, inner, scale, subtract, total
from sifrc.ir.normal import condense, expand, is_zero, reduce, relation, terms_of

ROW, COLUMN = Axis("fc1", 3), Axis("x", 2)
W = Input("W", 1, (ROW, COLUMN), Role.PARAMETER)
X = Input("x", 0, (COLUMN,), Role.STATE)
Y, Z = (Input(name, 1, (ROW,), Role.STATE) for name in "yz")
PRODUCT = einsum([(W, (ROW, COLUMN)), (X, (COLUMN,))], (ROW,))
KNOWN = relation("known", add([(Fraction(2), PRODUCT), (Fraction(-3), Y)], (ROW,)), PRODUCT)


def test_a_relation_is_solved_for_its_leading_product() -> None:
    """2 W x − 3 y = 0 gives W x = 3/2 y, also if it is asked for by a multiple of W x."""
    assert KNOWN.lead is PRODUCT and KNOWN.value is scale(Fraction(3, 2), Y)
    other = relation("known", add([(Fraction(2), PRODUCT), (Fraction(-3), Y)], (ROW,)), scale(-5, PRODUCT))
    assert other.lead is PRODUCT and other.value is KNOWN.value


def test_the_product_is_replaced_where_it_occurs() -> None:
    """With its factor, within other products, and not where only a part of it is."""
    assert reduce(scale(4, PRODUCT), [KNOWN]) is scale(6, Y)
    assert is_zero(subtract(hadamard(PRODUCT, Z), scale(Fraction(3, 2), hadamard(Y, Z))), [KNOWN])
    assert not is_zero(subtract(hadamard(PRODUCT, Z), hadamard(Y, Z)), [KNOWN])
    transposed = einsum([(W, (ROW, COLUMN)), (Y, (ROW,))], (COLUMN,))
    assert reduce(transposed, [KNOWN]) is transposed


def test_a_product_that_is_not_there_is_refused() -> None:
    with pytest.raises(ValueError, match="known: the leading product is not a term"):
        relation("known", subtract(Y, Z), PRODUCT)


def test_sums_within_products_stay_where_they_are_shorter_so() -> None:
    """(y + z)³ has 3 operands twice, its expansion 4 terms; relations hold in both forms."""
    both = total([Y, Z], (ROW,))
    cube = hadamard(both, both, both)
    assert condense(cube) is cube
    assert len(terms_of(reduce(cube, []))) == 4
    known = hadamard(cube, PRODUCT)
    assert condense(known, [KNOWN]) is scale(Fraction(3, 2), hadamard(cube, Y))
    within = inner(hadamard(cube, total([PRODUCT, Z], (ROW,))), Y)
    assert condense(within, [KNOWN]) is inner(hadamard(cube, total([scale(Fraction(3, 2), Y), Z], (ROW,))), Y)


def test_sums_within_products_are_multiplied_out_where_that_is_shorter() -> None:
    """(y + z) w − z w is y w, and W x (y + z) − W x z is 3/2 y²."""
    value = subtract(hadamard(total([Y, Z], (ROW,)), PRODUCT), hadamard(Z, PRODUCT))
    assert condense(value) is expand(hadamard(Y, PRODUCT))
    assert condense(value, [KNOWN]) is scale(Fraction(3, 2), hadamard(Y, Y))
