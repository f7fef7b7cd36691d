"""The printed notation means what the expression computes, on every equation of every case."""

from __future__ import annotations

import numpy as np
import pytest
from cases import CASES, CHAINS
from layouts import Entries, Reader, as_matrix
from networks import named, systems, values_of

from sifrc.derive.system import abbreviate
from sifrc.ir import SAMPLE, Axis, Expr, Input, Role
from sifrc.ir.build import add, einsum, total
from sifrc.ir.evaluate import evaluate
from sifrc.lower.batch import batch_equation
from sifrc.report.book import names_of
from sifrc.report.grouping import total_over_layers
from sifrc.report.latex import latex
from sifrc.report.layout import Indexed, Layout, Symbol
from sifrc.report.notation import Notation, notation
from sifrc.report.text import text

ROW, COL, MID = Axis("i", 3), Axis("j", 4), Axis("k", 3)


def vector(family: str, axis: Axis = ROW) -> Input:
    return Input(family, 1, (axis,), Role.STATE)


def matrix(family: str, rows: Axis = ROW, columns: Axis = COL) -> Input:
    return Input(family, 1, (rows, columns), Role.PARAMETER)


def agree(
    value: Expr, written: Layout, activations: dict[int, object], left: Layout = Symbol("left")
) -> None:
    inputs = values_of([value])
    exact = evaluate({"value": value}, inputs)["value"]
    expected = as_matrix(exact)
    reader = Reader(
        {(s.family, s.index): v for s, v in inputs.items()},
        activations,  # type: ignore[arg-type]
        places=np.shape(exact),
    )
    if isinstance(left, Indexed):
        sizes = dict(zip(left.labels, np.shape(exact), strict=True))
        found = Entries(reader, sizes).array(written, left.labels)
    else:
        found = np.broadcast_to(reader.value(written), np.shape(expected))
    assert np.allclose(found, expected, rtol=1e-9, atol=1e-9), text(written)


@pytest.mark.parametrize("name", sorted(CASES))
def test_notation_read_as_mathematics_has_the_value_of_the_expression(name: str) -> None:
    work = named(name)
    activations = names_of(work.model).activations
    for system in systems(work, newton=name in CHAINS):
        for equation in system.equations:
            context = Notation(equation.layer or 0, activations)
            left, right = context.sides(Symbol("left"), equation.value)
            agree(equation.value, right, dict(activations), left)


@pytest.mark.parametrize("name", ["tanh_cross_entropy_4", "skip", "shared_skip", "no_bias", "per_state"])
def test_sums_over_layers_have_the_value_of_the_lagrangian_and_the_sifrian(name: str) -> None:
    work = named(name)
    names = names_of(work.model)
    for whole in (work.first.lagrangian, work.second.sifrian):
        short = abbreviate([whole], work.first.names)[0]
        agree(short, total_over_layers(short, names), dict(names.activations))


PRODUCTS = {
    "W_1 x_1": ([(matrix("W"), (ROW, COL)), (vector("x", COL), (COL,))], (ROW,)),
    "W_1ᵀ y_1": ([(matrix("W"), (ROW, COL)), (vector("y"), (ROW,))], (COL,)),
    "y_1 x_1ᵀ": ([(vector("y"), (ROW,)), (vector("x", COL), (COL,))], (ROW, COL)),
    "x_1 y_1ᵀ": ([(vector("y"), (ROW,)), (vector("x", COL), (COL,))], (COL, ROW)),
    "‖x_1‖²": ([(vector("x"), (ROW,)), (vector("x"), (ROW,))], ()),
    "⟨x_1, y_1⟩": ([(vector("x"), (ROW,)), (vector("y"), (ROW,))], ()),
    "diag(y_1) W_1": ([(matrix("W"), (ROW, COL)), (vector("y"), (ROW,))], (ROW, COL)),
    "W_1 diag(x_1)": ([(matrix("W"), (ROW, COL)), (vector("x", COL), (COL,))], (ROW, COL)),
    "x_1 ∘ (W_1 y_1)": (
        [(matrix("W"), (ROW, COL)), (vector("y", COL), (COL,)), (vector("x"), (ROW,))],
        (ROW,),
    ),
    "N_1ᵀ W_1": (
        [(matrix("N", MID, ROW), (MID, ROW)), (matrix("W", MID, COL), (MID, COL))],
        (ROW, COL),
    ),
    "⟨W_1, G_1⟩": ([(matrix("W"), (ROW, COL)), (matrix("G"), (ROW, COL))], ()),
}


@pytest.mark.parametrize("printed", PRODUCTS)
def test_matrix_notation_is_found_by_pattern(printed: str) -> None:
    operands, out = PRODUCTS[printed]
    expr = einsum(operands, out)
    assert text(notation(expr)) == printed
    agree(expr, notation(expr), {})


def test_a_product_without_matrix_notation_prints_with_indices() -> None:
    block = Input("T", 1, (ROW, COL, MID), Role.STATE)
    out = Input("R", 1, (ROW,), Role.STATE)
    value = einsum([(block, (ROW, COL, MID)), (vector("x", COL), (COL,)), (vector("y", MID), (MID,))], (ROW,))
    left, right = Notation(1, {}).sides(Symbol("R", 1), add([(-2, value), (1, out)], (ROW,)))
    assert text(left) == "R_1[i]"
    assert text(right) == "R_1[i] − 2 Σ_{j,l} T_1[i,j,l] x_1[j] y_1[l]"
    assert r"\sum_{j, l}" in latex(right)


def test_coefficients_and_signs_read_as_written_by_hand() -> None:
    x, y = vector("x"), vector("y")
    assert text(notation(add([(-1, x), (-2, y)], (ROW,)))) == "−x_1 − 2 y_1"
    assert text(notation(total([], (ROW,)))) == "0"
    assert "+ −" not in text(notation(add([(-1, x), (1, y)], (ROW,))))


def test_a_batch_mean_prints_as_mean_p() -> None:
    work = named("tanh_squared_error_2")
    (equation,) = (e for e in work.first.gradient.equations if (e.symbol.family, e.symbol.index) == ("G", 1))
    batched = batch_equation(equation)
    assert SAMPLE not in batched.value.axes
    assert text(notation(batched.value, 1)) == "−mean_p(y_1 x_0ᵀ)"
