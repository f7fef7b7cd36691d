"""The verification ladder: it passes what is right, and fails closed."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from cases import CASES, CHAINS

from sifrc.spec import build_spec
from sifrc.spec.types import Spec
from sifrc.verify import oracle_torch, verify

TOGETHER = (
    "tanh_cross_entropy_3",
    "spectral",
    "reduction_sum",
    "custom_squared_error_2",
    "selu_huber",
    "skip",
    "shared_skip",
    "criterion",
)


def module_for(spec: Spec, **changes: Any) -> SimpleNamespace:
    """A stand-in for a generated module, made of the oracle and rounded to the spec's dtype."""
    forward = oracle_torch.forward_torch(spec)
    dtype = getattr(torch, spec.dtype)

    def double(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {name: double(item) for name, item in value.items()}
        return value.double() if value.is_floating_point() else value

    def rounded(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {name: rounded(item) for name, item in value.items()}
        return value.to(dtype)

    def function(compute: Any) -> Any:
        return lambda *arguments: rounded(compute(*map(double, arguments)))

    def newton(params: Any, sample: torch.Tensor, target: torch.Tensor) -> Any:
        batch = sample[None], target[None]
        hessian = oracle_torch.dense_hessian(spec, params, *batch)
        gradient = oracle_torch.flatten(oracle_torch.gradient(spec, params, *batch))
        return oracle_torch.unflatten(
            torch.linalg.pinv(hessian, hermitian=True, rtol=1e-12) @ gradient, params
        )

    def hvp(*arguments: Any) -> Any:
        return oracle_torch.hvp(spec, *arguments)

    functions: dict[str, Any] = {
        "loss": function(forward.loss),
        "objective": function(forward),
        "gradient": function(lambda *a: oracle_torch.gradient(spec, *a)),
        "objective_and_gradient": lambda *a: (functions["objective"](*a), functions["gradient"](*a)),
        "hessian_vector_product": function(hvp),
        "linearize": lambda *a: lambda vector: functions["hessian_vector_product"](*a, vector),
        "gauss_newton_vector_product": function(lambda *a: oracle_torch.ggn_vp(spec, *a)),
        "newton_direction": function(newton),
        "torch": torch,
    }
    functions.update(changes)
    return SimpleNamespace(**functions)


@pytest.mark.parametrize("name", TOGETHER)
def test_the_ladder_passes_what_is_derived(name: str) -> None:
    """Levels 1 and 2 pass, and every row says what it compared."""
    report = verify(build_spec(dict(CASES[name])), levels=(1, 2))
    assert report.passed, report.text()
    assert {row.level for row in report.rows} == {1, 2}


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_the_ladder_passes_every_case(name: str) -> None:
    """Levels 1 and 2 pass on every named case."""
    report = verify(build_spec(dict(CASES[name])), levels=(1, 2))
    assert report.passed, report.text()


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
@pytest.mark.parametrize("name", ["tanh_cross_entropy_3", "skip"])
def test_a_right_module_passes_level_3(name: str, dtype: str) -> None:
    """A module that rounds exact values to its dtype is within the tolerance of the dtype."""
    spec = build_spec({**CASES[name], "dtype": dtype})
    report = verify(spec, levels=(3,), module=module_for(spec))
    assert report.passed, report.text()


WRONG: dict[str, Any] = {
    "objective": lambda value: value * (1 + 1e-9),
    "gradient": lambda value: {name: -item for name, item in value.items()},
    "hessian_vector_product": lambda value: {name: item * 2 for name, item in value.items()},
    "gauss_newton_vector_product": lambda value: {name: item.float() for name, item in value.items()},
    "newton_direction": lambda value: {name: item * 0.5 for name, item in value.items()},
    "loss": lambda value: value * float("nan"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_module_fails_level_3(name: str) -> None:
    """A sign, a factor, a wrong dtype or NaN in one function fails that function's row and the report."""
    spec = build_spec(dict(CHAINS["tanh_cross_entropy_3"]))
    right = getattr(module_for(spec), name)
    wrong = module_for(spec, **{name: lambda *arguments: WRONG[name](right(*arguments))})
    report = verify(spec, levels=(3,), module=wrong)
    assert not report.passed
    assert name in [row.quantity for row in report.failures]


def test_an_exception_is_a_failed_row_with_its_reason() -> None:
    """It fails closed: nothing that a module raises escapes, and nothing passes by raising."""
    spec = build_spec(dict(CHAINS["tanh_squared_error_2"]))

    def broken(*_: Any) -> Any:
        raise RuntimeError("no gradient today")

    report = verify(spec, levels=(3,), module=module_for(spec, gradient=broken))
    assert not report.passed
    (row,) = [row for row in report.failures if row.quantity == "gradient"]
    assert "no gradient today" in row.note and row.result == "FAILED"


def test_what_was_requested_and_not_checked_is_not_passed() -> None:
    """No module at level 3, a function that is missing, a quantity nobody knows: none of them passes."""
    spec = build_spec(dict(CHAINS["tanh_squared_error_2"]))
    module = module_for(spec)
    del module.gradient
    for report in (
        verify(spec, levels=(3,)),
        verify(spec, levels=(3,), module=module, quantities=["gradient"]),
        verify(spec, levels=(3,), module=module_for(spec), quantities=["summary"]),
    ):
        assert not report.passed and report.missing
        assert any(row.result == "not checked" for row in report.rows)
        assert "not checked" in report.text()


def test_a_newton_direction_that_cannot_exist_fails_only_if_requested() -> None:
    """On a skip connection it is listed with the reason; asking for it is a failure."""
    spec = build_spec(dict(CASES["skip"]))
    assert verify(spec, levels=(1,)).passed
    report = verify(spec, levels=(1,), quantities=["gradient", "newton_direction"])
    assert not report.passed and "skip connection" in report.text()


def test_rows_are_text_for_a_table() -> None:
    """Every row has one cell for each header."""
    report = verify(build_spec(dict(CHAINS["one_layer"])), levels=(1, 2))
    assert all(len(row) == len(report.headers) for row in report.table())
    assert report.text().endswith("one_layer: passed")


def test_what_the_normal_form_leaves_open_is_tested_at_fifty_digits(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a normal form that proves nothing, identities are evaluated, and the rows say so."""
    from sifrc.verify import symbolic

    monkeypatch.setattr(symbolic, "_proved", lambda residual: False)
    report = verify(build_spec(dict(CHAINS["tanh_cross_entropy_2"])), levels=(1,))
    rows = [row for row in report.rows if row.oracle == "50 digits"]
    assert report.passed and len(rows) == 4
    assert all(row.digits is not None and row.digits >= 40 for row in rows)
    assert all("not decided by the normal form" in row.note for row in rows)


def test_a_false_identity_fails_at_fifty_digits(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Newton direction of half the size leaves residuals that no random point makes vanish."""
    from fractions import Fraction

    import sifrc.derive.newton as newton
    from sifrc.ir.build import scale

    original = newton.solve_linear

    def half(*arguments: Any) -> Any:
        value, *rest = original(*arguments)
        return (scale(Fraction(1, 2), value), *rest)

    monkeypatch.setattr(newton, "solve_linear", half)
    report = verify(build_spec(dict(CHAINS["tanh_squared_error_2"])), levels=(1, 2))
    failed = {(row.quantity, row.level) for row in report.failures}
    assert failed == {("newton_direction", 1), ("newton_direction", 2)}


def test_the_expansion_notices_a_wrong_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    """SymPy's derivative of the expanded objective against a gradient with one sign wrong."""
    from sifrc.derive.derived import Derived
    from sifrc.model import build_model
    from sifrc.verify.expansion import Expansion
    from sifrc.verify.points import capped
    from sifrc.verify.systems import SampleSystems

    derived = Derived(build_model(capped(build_spec(dict(CHAINS["tanh_cross_entropy_2"])), 2)))
    assert Expansion(derived).gradient() and Expansion(derived).hessian_vector_product()
    for quantity in ("gradient", "hessian_vector_product"):
        right = getattr(SampleSystems, quantity)

        def wrong(run: Any, *arguments: Any, right: Any = right) -> Any:
            result = right(run, *arguments)
            return {**result, "fc1.weight": -result["fc1.weight"]}

        with monkeypatch.context() as patch:
            patch.setattr(SampleSystems, quantity, wrong)
            assert not getattr(Expansion(derived), quantity)()
