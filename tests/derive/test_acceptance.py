"""A Newton direction is accepted by the normal form, else by 50 digits, else not at all."""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType

import pytest
from cases import CASES

from sifrc.derive.acceptance import accept
from sifrc.derive.derived import Derived
from sifrc.derive.newton import derive_newton
from sifrc.errors import VerificationError
from sifrc.ir.build import einsum, subtract, total
from sifrc.ir.normal import expand
from sifrc.ir.traverse import count_nodes
from sifrc.model import build_model
from sifrc.spec import build_spec

CHAIN = next(name for name in CASES if name.startswith("tanh") and "squared" in name)


def derived() -> Derived:
    return Derived(build_model(build_spec(dict(CASES[CHAIN]))))


def test_the_normal_form_decides_where_it_can() -> None:
    """Nothing is left of the tetrad."""
    found = derived()
    assert found.newton.proved and found.accepted_by == "normal form"


def test_fifty_digits_decide_what_the_normal_form_leaves_open() -> None:
    """An equation that holds on the solution, but not by the normal form, is accepted at random points."""
    found = derived()
    newton = derive_newton(found.second)
    forward = found.first.forward.equations[0]
    true = subtract(forward.symbol, forward.value)  # a_1 − (W_1 x_0 + β_1)
    left = replace(newton, residuals=MappingProxyType({**newton.residuals, "(5)": true}))
    assert accept(left) == "50 digits at random points"


def test_rounding_of_terms_is_not_mistaken_for_what_is_left() -> None:
    """Products that cancel up to rounding: the numbers have more digits than are asked for."""
    found = derived()
    newton = derive_newton(found.second)
    forward = found.first.forward.equations[0]
    true = subtract(forward.symbol, forward.value)
    other = einsum([(forward.symbol, forward.symbol.axes), (true, true.axes)], true.axes)
    left = replace(newton, residuals=MappingProxyType({**newton.residuals, "(5)": expand(other)}))
    assert accept(left) == "50 digits at random points"


def test_what_is_not_zero_is_refused() -> None:
    """An equation that does not hold names itself."""
    found = derived()
    newton = derive_newton(found.second)
    forward = found.first.forward.equations[0]
    wrong = total([forward.symbol, forward.value], forward.symbol.axes)
    left = replace(newton, residuals=MappingProxyType({**newton.residuals, "(5)": wrong}))
    with pytest.raises(VerificationError, match=r"\(5\)"):
        accept(left)


def test_node_counts_are_linear_in_depth() -> None:
    """The Sifrian of a chain grows by the same number of nodes for every ten layers."""

    def nodes(depth: int) -> int:
        layers = [{"type": "dense", "units": 4, "activation": "tanh"} for _ in range(depth)]
        data = {
            "sifrc": 1,
            "name": "deep",
            "network": {"input": {"size": 4}, "layers": layers},
            "loss": "squared_error",
            "regularization": {"state": 0.1},
        }
        return count_nodes(Derived(build_model(build_spec(data))).second.sifrian)

    counts = [nodes(depth) for depth in (10, 20, 30, 40)]
    assert counts[1] - counts[0] == counts[2] - counts[1] == counts[3] - counts[2] > 0


def test_a_direction_without_a_value_is_refused() -> None:
    """One output is its own mean: the curvature is zero, which the normal form does not see."""
    layers = [
        {"type": "dense", "units": 1, "activation": {"expression": f}} for f in ("tanh(x)", "tanh(1)*x")
    ]
    data = {"sifrc": 1, "name": "flat", "network": {"input": {"size": 2}, "layers": layers}}
    loss = "sqrt(1 + dot((y - mean(y)) - t, (y - mean(y)) - t))"
    with pytest.raises(VerificationError, match="no value at random points"):
        _ = Derived(build_model(build_spec({**data, "loss": {"expression": loss}}))).newton
