"""Diagonals and traces of every kind of curvature: those of the blocks, and of one another."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import pytest
from cases import CASES
from curvature_modules import Calls, load

from sifrc.spec import build_spec
from sifrc.verify.points import random_point

BACKENDS = ("torch", "numba")
NAMES = ("skip", "no_bias", "reduction_sum", "places")
OPERATORS = ("block_hessian", "diagonal", "hessian_diagonal", "trace")


@pytest.fixture(
    scope="module", params=[(name, backend) for name in NAMES for backend in BACKENDS], ids="-".join
)
def made(request: pytest.FixtureRequest, tmp_path_factory: Any) -> Any:
    name, backend = request.param
    spec = build_spec({**CASES[name], "dtype": "float64"})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(numba.config, "DISABLE_JIT", 1)
        module = load(spec, backend, tmp_path_factory.mktemp("diagonals"), OPERATORS)
        yield spec, module, Calls(module, random_point(spec, 5, 4))


def test_the_diagonal_is_that_of_the_blocks(made: Any) -> None:
    """Of every kind, weights and biases; of kinds of the batch the products of means are the same."""
    _, module, call = made
    for kind in module._KINDS:
        found = call("diagonal", kind=kind)
        for name, block in call("block_hessian", kind=kind, dense=True).items():
            wanted = np.diagonal(np.asarray(block)).reshape(np.shape(found[name]))
            np.testing.assert_allclose(
                found[name], wanted, atol=1e-12 * (1 + np.abs(wanted).max()), err_msg=kind
            )
    exact, named = call("diagonal", kind="hessian"), call("hessian_diagonal")
    assert all(np.array_equal(exact[name], named[name]) for name in exact)


def test_traces_are_sums_of_the_diagonal(made: Any) -> None:
    """By parameter, layer and group, and of all of it."""
    _, module, call = made
    for kind in module._KINDS:
        sums = {name: float(np.sum(value)) for name, value in call("diagonal", kind=kind).items()}
        found = {by: call("trace", kind=kind, by=by) for by in ("parameter", "layer", "group", "whole")}
        assert {name: pytest.approx(value, rel=1e-10, abs=1e-12) for name, value in sums.items()} == {
            name: float(value) for name, value in found["parameter"].items()
        }
        layers = {
            layer: sum(v for n, v in sums.items() if n.startswith(f"{layer}.")) for layer in found["layer"]
        }
        assert {k: float(v) for k, v in found["layer"].items()} == {
            k: pytest.approx(v, rel=1e-10, abs=1e-12) for k, v in layers.items()
        }
        total = sum(sums.values())
        for by in ("group", "whole"):
            assert sum(map(float, found[by].values())) == pytest.approx(total, rel=1e-10, abs=1e-12)
