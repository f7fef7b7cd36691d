"""Networks whose states have several axes: every operator at every level, and what does not exist."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numba
import numpy as np
import pytest
from cases import CASES
from curvature_modules import load

from sifrc.compiler import Request, compile_spec
from sifrc.errors import DerivationError
from sifrc.methods.registry import find_method
from sifrc.spec import Spec, build_spec
from sifrc.verify.ladder import verify
from sifrc.verify.points import random_point

NAMES = ("places", "places_shared", "flattened")
PLAIN = (
    "gradient",
    "hessian_vector_product",
    "gauss_newton_vector_product",
    "per_sample_gradients",
    "summary",
)
BLOCKS = (
    "block_hessian",
    "curvature_factors",
    "block_vector_product",
    "diagonal",
    "hessian_diagonal",
    "trace",
)


def spec_of(name: str, backend: str = "torch", **changes: Any) -> Spec:
    operators = [*PLAIN, *(BLOCKS if "shared" not in name else ())]
    return build_spec({**CASES[name], "target": {"backend": backend, "operators": operators}, **changes})


@pytest.mark.parametrize("name", NAMES)
def test_identities_and_fifty_digits(name: str) -> None:
    """Derived equations, and the lowered program, against the forward pass alone."""
    report = verify(spec_of(name), levels=(1, 2))
    assert report.passed, report.text()
    proved = {row.quantity for row in report.rows if row.level == 1 and row.passed}
    precise = {row.quantity for row in report.rows if row.level == 2 and row.passed}
    expected = set(spec_of(name).target.operators)
    assert precise >= expected and proved >= expected - {"summary", "curvature_factors"}


@pytest.mark.parametrize("backend", ["torch", "numba"])
@pytest.mark.parametrize("name", NAMES)
def test_generated_modules(name: str, backend: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both backends, also with the passes off that put statements together."""
    monkeypatch.setattr(numba.config, "DISABLE_JIT", 1)
    spec = spec_of(name, backend)
    module = load(spec, backend, tmp_path, spec.target.operators)
    shown = SimpleNamespace(**vars(module))
    report = verify(spec, levels=(3,), module=shown, framework="torch" if backend == "torch" else "numpy")
    assert report.passed, report.text()


def test_inputs_have_the_axes_of_the_spec(tmp_path: Any) -> None:
    """Rows of numbers are refused with both shapes, and so are axes in another order."""
    spec = spec_of("places", "numba")
    module = load(spec, "numba", tmp_path, ("gradient",))
    point = random_point(spec, 1, 3)
    assert module.predict(point.params, point.inputs).shape == (3, 3)
    for wrong in (point.inputs.reshape(3, 6), point.inputs.transpose(0, 2, 1).copy(), point.inputs[0]):
        with pytest.raises(ValueError, match=r"expected shape \(B, 2, 3\), got"):
            module.gradient(point.params, wrong, point.targets)


def test_flattening_is_in_row_major_order(tmp_path: Any) -> None:
    """As in NumPy and Torch: the weight after it reads the last axis fastest."""
    spec = spec_of("flattened", "numba")
    module = load(spec, "numba", tmp_path, ("gradient",))
    point = random_point(spec, 2, 4)
    p = point.params
    flat = np.tanh(point.inputs).reshape(4, -1)
    hidden = np.tanh(flat @ p["fc1.weight"].T + p["fc1.bias"])
    expected = hidden @ p["fc2.weight"].T + p["fc2.bias"]
    np.testing.assert_allclose(module.predict(p, point.inputs), expected, rtol=1e-12)


@pytest.mark.parametrize("name", ["esn", "mk"])
def test_methods_of_chains_are_refused(name: str) -> None:
    """Each with a reason that names a layer; the other methods take such networks."""
    assert find_method(name).name == name
    spec = build_spec({**CASES["places"], "method": {"name": name}})
    with pytest.raises(DerivationError, match=r"fc1|sum1|flat"):
        compile_spec(spec, Request())
    assert compile_spec(spec, Request(method="grouped_newton")).text
    assert compile_spec(spec, Request(method="ea_cg")).text
