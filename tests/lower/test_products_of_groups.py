"""Products over groups that are equal but for the names of groups, or transposed, are computed once."""

from __future__ import annotations

import re
from collections import Counter

from sifrc.compiler import Request, compile_spec
from sifrc.ir import Axis, Einsum, Input, Role
from sifrc.ir.axes import AxisKind
from sifrc.ir.build import rename, total
from sifrc.lower.groups import in_one_order, key_of_groups
from sifrc.spec import build_spec

FIRST = Axis("group", 3, 0, AxisKind.GROUP)
SECOND = Axis("group", 4, 1, AxisKind.GROUP)
ROW, COLUMN, OTHER = Axis("row", 5), Axis("column", 6), Axis("other", 5)
T = Input("t", 1, (Axis("group", 3, 0, AxisKind.GROUP), ROW, COLUMN), Role.STATE)
U = Input("u", 1, (Axis("group", 4, 0, AxisKind.GROUP), OTHER, COLUMN), Role.STATE)
B = Input("b", 1, (ROW, OTHER), Role.STATE)


def nested(one: Axis, other: Axis, out: tuple[Axis, ...]) -> Einsum:
    """Σ (Σ t b) u with groups of some names."""
    inner = Einsum(((T, (one, ROW, COLUMN)), (B, (ROW, OTHER))), (one, OTHER, COLUMN))
    return Einsum(((inner, (one, OTHER, COLUMN)), (U, (other, OTHER, COLUMN))), out)


def test_keys() -> None:
    """Names of groups and the order in which factors are multiplied do not matter; axes do."""
    product = nested(FIRST, SECOND, (FIRST, SECOND))
    flat = Einsum(
        ((U, (SECOND, OTHER, COLUMN)), (B, (ROW, OTHER)), (T, (FIRST, ROW, COLUMN))), (FIRST, SECOND)
    )
    key = key_of_groups(product, product.axes)
    assert key == key_of_groups(flat, flat.axes)
    swapped = Axis("group", 3, 1, AxisKind.GROUP), Axis("group", 4, 0, AxisKind.GROUP)
    turned = nested(*swapped, (swapped[1], swapped[0]))
    assert key != key_of_groups(turned, turned.axes)
    assert key == key_of_groups(turned, turned.axes[::-1])
    other = Einsum(((T, (FIRST, ROW, COLUMN)), (B, (ROW, OTHER))), (FIRST, OTHER, COLUMN))
    assert key_of_groups(other, other.axes) != key_of_groups(other, (FIRST, COLUMN, OTHER))


def test_what_is_computed_for_an_array_has_its_order() -> None:
    """So that both are matrices as they lie in memory."""
    inner = Einsum(((T, (FIRST, ROW, COLUMN)), (B, (ROW, OTHER))), (FIRST, COLUMN, OTHER))
    product = Einsum(((inner, (FIRST, COLUMN, OTHER)), (U, (SECOND, OTHER, COLUMN))), (FIRST, SECOND))
    (made, labels), (kept, order) = in_one_order(product).operands
    assert kept is U and labels == (FIRST, *order[1:]) and made.axes == (FIRST, OTHER, COLUMN)


def test_a_sum_that_is_computed_for_an_array_has_its_order() -> None:
    """Of whatever its terms are; groups come first."""
    V = Input("v", 1, (ROW, COLUMN, FIRST), Role.STATE)
    made = total([V, rename(T, (FIRST, ROW, COLUMN))], (ROW, COLUMN, FIRST))
    other = Input("u", 1, (Axis("group", 4, 0, AxisKind.GROUP), ROW, COLUMN), Role.STATE)
    product = Einsum(((made, made.axes), (other, (SECOND, ROW, COLUMN))), (FIRST, SECOND))
    ((found, labels), (kept, _)) = in_one_order(product).operands
    assert kept is other and labels == found.axes == (FIRST, ROW, COLUMN)


def test_a_summary_through_attention_has_no_product_twice() -> None:
    """The terms of the second derivative by two tangents are transposes of each other."""
    layers = [
        {"name": "fc", "type": "dense", "units": 4, "activation": "tanh"},
        {"name": "attn", "type": "attention", "heads": 2},
        {"name": "flat", "type": "flatten"},
        {"name": "out", "type": "dense", "units": 2},
    ]
    network = {"input": {"name": "x", "size": [3, 4]}, "layers": layers}
    data = {"sifrc": 1, "name": "n", "network": network, "loss": "cross_entropy", "partition": "canonical"}
    text = compile_spec(
        build_spec(data), Request(backend="torch", method="none", operators=("summary",))
    ).text
    body = text[text.index("def _summary_2(") : text.index("def _summary_3(")]
    products = re.findall(r"[^\n]* @ [^\n]*", body)
    assert products and max(Counter(products).values()) == 1
