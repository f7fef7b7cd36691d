"""Axes that are joined, taken apart, or read in windows: arrays as they are read, and products of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from cases import CASES

from sifrc.ir import SAMPLE, Affine, Axis, Einsum, Input, Role
from sifrc.ir.build import einsum
from sifrc.ir.evaluate import evaluate
from sifrc.ir.selections import joined, window
from sifrc.lower.access import flat, loads_of
from sifrc.lower.arrays import Change, Gather, Load, Ref, Reshape
from sifrc.lower.convolutions import as_convolution
from sifrc.lower.lowering import Passes, lower
from sifrc.lower.products import is_matrix_product
from sifrc.lower.selections import Arrays, without_affine
from sifrc.lower.statements import Contract, Kernel
from sifrc.methods.planning import make_plan
from sifrc.model import build_model
from sifrc.spec import build_spec

A, J, K, L = (Axis(name, size) for name, size in (("i", 2), ("j", 3), ("k", 4), ("l", 6)))
GENERATOR = np.random.default_rng(3)


def tensor(name: str, *axes: Axis) -> Input:
    return Input(name, None, axes, Role.STATE)


class Machine:
    """Numbers for what is asked for: every array is a symbol with a value."""

    def __init__(self, values: dict[Input, Any]) -> None:
        self.values = values
        self.made = 0
        self.buffered = 0

    def arrays(self) -> Arrays:
        return Arrays(self.buffer, self.changed, self.identity)

    def _new(self, value: Any) -> Input:
        self.made += 1
        axes = tuple(Axis(f"m{self.made}.{n}", size) for n, size in enumerate(value.shape))
        symbol = tensor(f"made{self.made}", *axes)
        self.values[symbol] = value
        return symbol

    def buffer(self, expr: Any) -> Input:
        if isinstance(expr, Input):
            return expr
        self.buffered += 1
        return self._new(np.array(evaluate({"": expr}, self.values)[""]))

    def changed(self, symbol: Input, change: Change) -> Input:
        value = self.values[symbol]
        if isinstance(change, Gather):
            places = np.array(change.places(value.shape[change.position]))
            value = np.concatenate([value, np.zeros_like(value.take([0], change.position))], change.position)
            value = value.take(places, change.position)  # -1 is the zero at the end
        return self._new(value.reshape(change.of(self.values[symbol].shape)))

    def identity(self, size: int) -> Input:
        return self._new(np.eye(size))


X = tensor("x", A, J)
V = tensor("v", L)
H = tensor("H", L, L.primed)
M = tensor("M", K, L)
U, W = tensor("u", A), tensor("w", J)
JOIN = joined((2, 3))
OTHER = (A.primed, J.primed)

PRODUCTS = {
    "flatten": (([(JOIN, (L, A, J)), (X, (A, J))], (L,)), 0),
    "unflatten": (([(JOIN, (L, A, J)), (V, (L,))], (A, J)), 0),
    "both sides of a matrix": (
        ([(JOIN, (L, A, J)), (H, (L, L.primed)), (JOIN, (L.primed, *OTHER))], (A, J, *OTHER)),
        0,
    ),
    "within a product": (([(M, (K, L)), (JOIN, (L, A, J)), (X, (A, J))], (K,)), 0),
    "turned": (([(JOIN, (L, A, J)), (tensor("t", J, A), (J, A))], (L,)), 1),
    "of two vectors": (([(JOIN, (L, A, J)), (U, (A,)), (W, (J,))], (L,)), 1),
    "alone": (([(JOIN, (L, A, J))], (L, A, J)), 0),
    "alone, some summed": (([(JOIN, (L, A, J))], (L, J)), 1),
    "kept on both sides": (([(JOIN, (L, A, J)), (V, (L,)), (X, (A, J))], (L, A, J)), 0),
    "a part summed": (([(JOIN, (L, A, J)), (U, (A,))], (L, J)), 0),
    "a diagonal": (([(JOIN, (L, A, J)), (H, (L, L))], (A, J)), 1),
    "back and forth": (([(JOIN, (L, A, J)), (X, (A, J)), (JOIN, (L, *OTHER))], OTHER), 0),
}
PLACE, ENTRY, CHANNEL, OUT = Axis("place", 3), Axis("entry", 3), Axis("channel", 2), Axis("out", 5)
WINDOW, CLOSE = window(6, 3, 3, stride=2, dilation=1, padding=1), window(6, 3, 2, dilation=3, padding=2)
IMAGE, GRADIENT = tensor("image", CHANNEL, L), tensor("gradient", OUT, PLACE)
KERNEL = tensor("kernel", OUT, CHANNEL, ENTRY)
AT = (L, PLACE, ENTRY)
SHIFT, FLIP = Affine((6, 6), (1, -1), 2), Affine((6, 6), (1, 1), 5)
PRODUCTS |= {
    "convolution": (
        ([(KERNEL, (OUT, CHANNEL, ENTRY)), (IMAGE, (CHANNEL, L)), (WINDOW, AT)], (OUT, PLACE)),
        0,
    ),
    "transposed convolution": (
        ([(KERNEL, (OUT, CHANNEL, ENTRY)), (GRADIENT, (OUT, PLACE)), (WINDOW, AT)], (CHANNEL, L)),
        0,
    ),
    "gradient of a kernel": (
        ([(GRADIENT, (OUT, PLACE)), (IMAGE, (CHANNEL, L)), (WINDOW, AT)], (OUT, CHANNEL, ENTRY)),
        0,
    ),
    "sums of windows": (([(IMAGE, (CHANNEL, L)), (WINDOW, AT)], (CHANNEL, PLACE)), 0),
    "windows far apart": (
        ([(tensor("pair", A), (A,)), (V, (L,)), (CLOSE, (L, PLACE, A))], (PLACE,)),
        0,
    ),
    "a shift": (([(V, (L,)), (SHIFT, (L, L.primed))], (L.primed,)), 0),
    "a flip of a shift": (
        ([(V, (L,)), (SHIFT, (L, L.primed)), (FLIP, (L.primed, OUT6 := Axis("o", 6)))], (OUT6,)),
        0,
    ),
    "windows alone": (([(WINDOW, AT)], AT), 0),
    "how many windows have an entry": (([(WINDOW, AT)], (L,)), 1),
    "read on both sides": (([(V, (L,)), (WINDOW, AT), (tensor("p", PLACE), (PLACE,))], AT), 0),
}


@pytest.mark.parametrize("name", PRODUCTS)
def test_a_product_without_affine_relations_is_the_product(name: str) -> None:
    """Whatever is summed: another shape of an array, of a product of arrays, or of an identity matrix."""
    (operands, out), buffered = PRODUCTS[name]
    expr = einsum(operands, out)
    assert isinstance(expr, Einsum)
    symbols = [e for e, _ in operands if isinstance(e, Input)]
    machine = Machine({s: GENERATOR.normal(size=[a.size for a in s.axes]) for s in symbols})
    found = without_affine(expr, machine.arrays())
    assert not any(isinstance(e, Affine) for e, _ in found.operands)
    expected = evaluate({"": expr}, machine.values)[""]
    np.testing.assert_allclose(evaluate({"": found}, machine.values)[""], expected, atol=1e-14)
    assert machine.buffered == buffered


@pytest.mark.parametrize("own", [(CHANNEL,), (OUT,), (CHANNEL, OUT)], ids=["channel", "out", "both"])
@pytest.mark.parametrize("out", [(OUT, PLACE), (CHANNEL, L), (OUT, CHANNEL, ENTRY)], ids=len)
def test_factors_without_places_are_part_of_a_convolution(
    own: tuple[Axis, ...], out: tuple[Axis, ...]
) -> None:
    """They go with the image, the kernel or the output, whichever has their labels; or there is none."""
    sides = [(KERNEL, (OUT, CHANNEL, ENTRY)), (IMAGE, (CHANNEL, L)), (GRADIENT, (OUT, PLACE))]
    read = [side for side in sides if set(side[1]) != set(out)]
    expr = einsum([*read, (WINDOW, AT), (tensor("floating", *own), own)], out)
    assert isinstance(expr, Einsum)
    found = as_convolution(expr, None)
    if len(own) == 2 and KERNEL not in [operand for operand, _ in read]:
        assert found is None
        return
    assert found is not None
    factors, _, roles = found
    scalars = [(factor, ()) for factor in factors]
    again = einsum([*scalars, *roles.operands.values(), *roles.windows], out)
    symbols = (KERNEL, IMAGE, GRADIENT, tensor("floating", *own))
    values = {s: GENERATOR.normal(size=[a.size for a in s.axes]) for s in symbols}
    np.testing.assert_allclose(
        evaluate({"": again}, values)[""], evaluate({"": expr}, values)[""], rtol=1e-12
    )


def test_the_joined_position_is_that_of_row_major_order() -> None:
    values = GENERATOR.normal(size=(2, 3))
    found = evaluate({"": einsum([(JOIN, (L, A, J)), (X, (A, J))], (L,))}, {X: values})[""]
    assert np.array_equal(found, values.reshape(-1))


P = SAMPLE
MATRIX_PRODUCTS = [
    (((P, A, J), (K, J), (P, A, K)), True),
    (((P, A, J), (P, A, K), (J, K)), True),
    (((P, A, J, K), (L, J), (P, A, L, K)), True),
    (((A, J, K, L), (K, L), (A, J)), True),
    (((P, A, J), (P, J, K), (P, A, K)), True),
    (((P, A), (P, J), (A, J)), True),
    (((P, A), (P, A), (P,)), False),  # a row by itself is a sum
    (((A, J, K), (A, K, L), (A, J, L)), True),  # once for each value of what both keep
    (((A, J), (J, J), (A,)), False),  # a diagonal
    (((A, J), (K,), (A, J, K)), False),  # nothing is summed
    (((A, J, K), (J,), (A,)), False),  # summed in one factor alone
]


@pytest.mark.parametrize("slots, verdict", MATRIX_PRODUCTS)
def test_what_is_a_matrix_product(slots: Any, verdict: bool) -> None:
    """Groups of labels of any number: rows, columns, and those that are summed."""
    left, right, out = slots
    axes = [tuple(Axis(f"{n}", a.size, kind=a.kind) for n, a in enumerate(own)) for own in (left, right)]
    operands = ((tensor("l", *axes[0]), left), (tensor("r", *axes[1]), right))
    assert is_matrix_product(Einsum(operands, out)) is verdict


def program(name: str, operators: tuple[str, ...], passes: Passes | None = None) -> Any:
    spec = {**CASES[name], "target": {"backend": "numba", "operators": list(operators)}}
    chosen = Passes(validate=True) if passes is None else passes
    return lower(make_plan(build_model(build_spec(spec))).plan, chosen)


def test_flattening_computes_nothing() -> None:
    """A state is read in another shape: there is no selection, no sum and no product."""
    forward = program("places", ("gradient",)).function("forward", True)
    (kernel,) = (s for s in flat(forward.body) if any(load.changes for load in loads_of(s)))
    assert isinstance(kernel, Kernel) and kernel.assigns[0].value.is_Symbol
    ((_, load),) = kernel.loads
    assert load.changes == (Reshape(1, (2, 2), joins=True),) and load.labels == ("p", "i")


def test_dense_layers_on_places_are_matrix_products() -> None:
    """Forward, back and in the gradients: one product for all places."""
    found = program("places", ("gradient",))
    for name in ("forward", "backward"):
        statements = [s for s in flat(found.function(name, True).body) if isinstance(s, Contract)]
        ranks = {len(s.left.labels) for s in statements} | {len(s.right.labels) for s in statements}
        assert 3 in ranks, name
        assert all(isinstance(load, Load) for s in statements for load in loads_of(s))


def test_a_reshape_says_what_its_shape_is() -> None:
    load = Load(Ref("x"), ("p", "i"), (), (Reshape(1, (2, 3), joins=True),))
    assert load.rank == 3 and load.changed((None, 2, 3)) == (None, 6) and not load.is_whole
    apart = Load(Ref("x"), ("i", "j", "l"), (), (Reshape(0, (2, 3), joins=False),))
    assert apart.rank == 2 and apart.changed((6, 4)) == (2, 3, 4)
    assert Load(Ref("x"), ("i",)).is_whole
