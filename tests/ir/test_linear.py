"""Nodes for linear equations whose operator is an expression."""

from __future__ import annotations

import pytest

from sifrc.ir import Axis, Expr, Input, LinearSolve, Role
from sifrc.ir.linear import report_symbols
from sifrc.ir.nodes import AxisError

M, J = Axis("i", 3), Axis("j", 4)


def symbol(name: str, *axes: Axis, role: Role = Role.DIRECTION) -> Input:
    return Input(name, 1, axes, role)


P, R = symbol("p", M, J), symbol("r", M, J)
Q, S = symbol("q", M), symbol("s", M)
LIMIT, TOLERANCE = (Input(name, None, (), Role.HYPERPARAMETER) for name in ("limit", "tolerance"))


def test_each_component_has_the_axes_of_its_probe_and_equal_nodes_are_one() -> None:
    """What differs in the component alone is another node with the same operands."""
    nodes = [LinearSolve((P, Q), (P, Q), (R, S), k, "cg", LIMIT, TOLERANCE) for k in (0, 1)]
    assert [node.axes for node in nodes] == [(M, J), (M,)]
    assert nodes[0] is not nodes[1]
    assert LinearSolve((P, Q), (P, Q), (R, S), 1, "cg", LIMIT, TOLERANCE) is nodes[1]
    assert tuple(nodes[0].children()) == (P, Q, R, S, LIMIT, TOLERANCE)
    assert tuple(LinearSolve((P,), (P,), (R,), 0, "eigen").children()) == (P, R)


@pytest.mark.parametrize(
    ("probe", "product", "rhs", "options"),
    [
        (P, Q, R, {"method": "eigen"}),
        (P, P, S, {"method": "eigen"}),
        (P, symbol("p2", J, M), R, {"method": "eigen"}),
        (P, P, R, {"method": "lu"}),
        (P, P, R, {"method": "cg"}),
        (P, P, R, {"method": "eigen", "limit": LIMIT}),
        (P, P, R, {"method": "cg", "tolerance": TOLERANCE}),
        (P, P, R, {"method": "cg", "limit": LIMIT}),
        (P, P, R, {"method": "eigen", "tolerance": TOLERANCE}),
    ],
)
def test_what_does_not_fit_is_an_error(probe: Input, product: Expr, rhs: Expr, options: dict) -> None:
    """Axes of products and right sides; methods; a limit for a search and for nothing else."""
    with pytest.raises(AxisError):
        LinearSolve((probe,), (product,), (rhs,), 0, **options)


@pytest.mark.parametrize(("products", "rhs"), [((P,), (R, S)), ((P, Q), (R,))])
def test_every_unknown_needs_a_product_and_a_right_side(products: tuple, rhs: tuple) -> None:
    with pytest.raises(ValueError, match="zip"):
        LinearSolve((P, Q), products, rhs, 0, "eigen")


@pytest.mark.parametrize("component", [1, -1])
def test_a_component_that_is_not_there_is_an_error_when_the_node_is_built(component: int) -> None:
    with pytest.raises(AxisError):
        LinearSolve((P,), (P,), (R,), component, "eigen")


def test_reports_are_numbers_named_after_the_solution() -> None:
    """Two for each, of the same layer, not the same for two solutions."""
    iterations, remaining = report_symbols(P)
    assert iterations.axes == remaining.axes == () and iterations.index == remaining.index == P.index
    assert len({iterations, remaining, *report_symbols(Q)}) == 4
