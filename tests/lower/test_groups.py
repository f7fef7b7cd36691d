"""Products with arrays over groups: which factors get an array of their own, and that the value stays."""

from __future__ import annotations

import numpy as np
import pytest

from sifrc.derive.groups import group_axis
from sifrc.ir import SAMPLE, Axis, Einsum, Input, Operand, Role
from sifrc.ir.build import einsum
from sifrc.ir.evaluate import evaluate
from sifrc.lower.groups import shared_by_groups

BATCH = 5
S, T = group_axis(2), group_axis(2, 1)
ROW, ROW2, INNER = Axis("i", 3), Axis("j", 3), Axis("k", 4)


def symbol(name: str, *axes: Axis) -> Input:
    return Input(name, None, axes, Role.STATE)


SIGMA, WEIGHT, OTHER = symbol("σ", SAMPLE, ROW), symbol("t", SAMPLE), symbol("c", SAMPLE, ROW)
LEFT, RIGHT = symbol("A", SAMPLE, INNER), symbol("B", INNER, ROW)
TANGENT = symbol("ẋ", S, SAMPLE, ROW)
PAIR = (TANGENT, (S, SAMPLE, ROW)), (TANGENT, (T, SAMPLE, ROW2))


def product(*operands: Operand, out: tuple[Axis, ...]) -> Einsum:
    """Not in normal form: that may join factors."""
    return Einsum(operands, out)


CASES: dict[str, tuple[Einsum, list[set[str]]]] = {
    "outer product": (
        product((SIGMA, (SAMPLE, ROW)), (SIGMA, (SAMPLE, ROW2)), (WEIGHT, (SAMPLE,)), *PAIR, out=(S, T)),
        [{"σ", "t"}],
    ),
    "outer product in a product": (
        product(
            (
                einsum(
                    [(SIGMA, (SAMPLE, ROW)), (SIGMA, (SAMPLE, ROW2)), (WEIGHT, (SAMPLE,))],
                    (SAMPLE, ROW, ROW2),
                ),
                (SAMPLE, ROW, ROW2),
            ),
            *PAIR,
            out=(S, T),
        ),
        [{"σ", "t"}],
    ),
    "entry by entry": (
        product((SIGMA, (SAMPLE, ROW)), (OTHER, (SAMPLE, ROW)), (TANGENT, TANGENT.axes), out=(S,)),
        [{"σ", "c"}],
    ),
    "tied by a sum": (
        product((LEFT, (SAMPLE, INNER)), (RIGHT, (INNER, ROW)), (TANGENT, TANGENT.axes), out=(S,)),
        [{"A", "B"}],
    ),
    "one array": (product((SIGMA, (SAMPLE, ROW)), (TANGENT, TANGENT.axes), out=(S,)), []),
    "no groups": (product((SIGMA, (SAMPLE, ROW)), (OTHER, (SAMPLE, ROW2)), out=(ROW, ROW2)), []),
}


@pytest.mark.parametrize("name", CASES)
def test_what_is_made(name: str) -> None:
    """No array is larger than one of the factors, and the whole product has the same value."""
    expr, expected = CASES[name]
    made, others = shared_by_groups(expr, 1)
    found = [
        {o.family for o, _ in value.operands if isinstance(o, Input)}
        for value, _ in made
        if isinstance(value, Einsum)
    ]
    assert found == expected
    assert all(len(labels) <= 2 for _, labels in made)
    rng = np.random.default_rng(0)
    inputs = (SIGMA, WEIGHT, OTHER, LEFT, RIGHT, TANGENT)
    values = {s: rng.normal(size=[BATCH if a.size is None else a.size for a in s.axes]) for s in inputs}
    whole = Einsum((*others, *made), expr.out)
    computed = evaluate({"whole": whole, "expr": expr}, values, samples=BATCH)
    np.testing.assert_allclose(computed["whole"], computed["expr"], rtol=1e-12)
