"""The verification ladder on summaries and steps of grouped Newton: right passes, and it fails closed."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import mpmath
import numba
import numpy as np
import pytest
from cases import CASES, CHAINS
from cubic_problems import make, model_value

import sifrc
from sifrc.ir.arithmetic import MPMATH
from sifrc.spec import Spec, build_spec
from sifrc.verify import verify
from sifrc.verify.oracles.grouped_step import NoMinimiserError, least_cubic
from sifrc.verify.precise.steps import step_rows
from sifrc.verify.table import Report

ASKED = {"backend": "torch", "operators": ["summary"]}
GROUPED = {"name": "grouped_newton"}
LEVELS = {(1, "normal form"), (2, "nested duals"), (2, "identities")}
GENERATED = {(3, "torch.func, float64"), (3, "identities")}


def spec_of(name: str, partition: Any = "canonical", **changes: Any) -> Spec:
    """A case that asks for summaries."""
    return build_spec({**CASES[name], "partition": partition, "target": ASKED, "dtype": "float64", **changes})


def compiled(spec: Spec, backend: str = "torch", **changes: Any) -> SimpleNamespace:
    """The module of a spec with some functions replaced."""
    return SimpleNamespace(**{**vars(sifrc.compile(spec, backend, cache=False)), **changes})


def rows_of(report: Report, quantity: str = "summary") -> set[tuple[int, str]]:
    return {(row.level, row.oracle) for row in report.rows if row.quantity == quantity}


@pytest.mark.parametrize(
    ("name", "partition"),
    [
        ("granular", "canonical"),
        ("shared_skip", "weights-biases"),
        ("one_layer", "trivial"),
        ("reduction_sum", {"first": ["fc1.*"], "rest": ["fc2.*"]}),
        pytest.param("tanh_cross_entropy_2", "canonical", marks=pytest.mark.slow),
        pytest.param("skip", "weights-biases", marks=pytest.mark.slow),
        pytest.param("shared_skip", "trivial", marks=pytest.mark.slow),
    ],
)
def test_summaries_pass_every_level(name: str, partition: Any) -> None:
    """Chains, skips, shared parameters, sums over the batch; partitions of every sort."""
    spec = spec_of(name, partition)
    report = verify(spec, module=compiled(spec))
    assert report.passed, report.text()
    assert rows_of(report) == LEVELS | GENERATED


def test_summaries_of_the_other_backend_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    """Arrays in place of tensors; what the JIT makes of them is tested with the backend."""
    monkeypatch.setattr(numba.config, "DISABLE_JIT", True)
    spec = spec_of("reduction_sum", "weights-biases")
    report = verify(spec, levels=(3,), module=compiled(spec, "numba"))
    assert report.passed, report.text()
    assert all(row.digits is not None and row.digits > 10 for row in report.rows if row.quantity == "summary")


def test_summaries_of_single_numbers_pass() -> None:
    """Many groups: sums of entries with random coefficients, which the rows say."""
    spec = spec_of("one_layer", "discrete")
    report = verify(spec, module=compiled(spec))
    assert report.passed, report.text()
    notes = [row.note for row in report.rows if row.quantity == "summary" and "func" in row.oracle]
    assert all("random coefficients" in note for note in notes)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", CASES)
def test_summaries_pass_on_every_case(name: str, dtype: str) -> None:
    """All levels on every named case."""
    spec = spec_of(name, dtype=dtype)
    report = verify(spec, module=compiled(spec))
    assert report.passed, report.text()


def test_summaries_have_rows_only_where_they_are_asked_for() -> None:
    """By an operator, by the method, or by the caller; who leaves them out gets none."""
    plain, grouped = CHAINS["one_layer"], {**CHAINS["one_layer"], "method": GROUPED}
    assert not rows_of(verify(build_spec(dict(plain)), levels=(1, 2)))
    asked = verify(build_spec(dict(plain)), levels=(1, 2), summaries=True)
    assert rows_of(asked) == LEVELS and ("summary", 2) in asked.requested
    by_method = verify(build_spec(grouped), levels=(1, 2))
    assert by_method.passed and rows_of(by_method) == LEVELS and ("summary", 1) in by_method.requested
    assert not rows_of(verify(build_spec(grouped), levels=(1, 2), summaries=False))


def test_the_interface_compiles_what_it_checks() -> None:
    """A spec that names no operators: the module has those that are required, and the summary."""
    spec = {**CHAINS["tanh_squared_error_2"], "method": GROUPED, "target": {"backend": "torch"}}
    report = sifrc.verify(spec, levels=(3,), cache=False)
    assert report.passed, report.text()
    assert rows_of(report) == GENERATED
    without = sifrc.verify(spec, levels=(3,), summaries=False, cache=False)
    assert without.passed and not rows_of(without)


def test_a_module_without_the_function_is_not_passed() -> None:
    spec = spec_of("one_layer")
    module = compiled(spec)
    del module.summary
    assert ("summary", 3) in verify(spec, levels=(3,), module=module).missing


# ── wrong modules ─────────────────────────────────────────────────────────────────────────────────────


def _scaled(field: str, orders: tuple[tuple[int, bool], ...]) -> Any:
    """One result off by 1e-9 for some orders."""

    def wrong(result: Any, order: int, full: bool, chunk: int | None) -> Any:
        value = getattr(result, field)
        return result._replace(**{field: value * (1 + 1e-9)}) if (order, full) in orders else result

    return wrong


def _lopsided(field: str) -> Any:
    """A tensor that is not symmetric, in one entry."""

    def wrong(result: Any, order: int, full: bool, chunk: int | None) -> Any:
        value = getattr(result, field)
        if value is None or value.ndim < 2:
            return result
        value = value.clone()
        value[(0, 1, 0)[: value.ndim]] += 1e-6
        return result._replace(**{field: value})

    return wrong


def _chunked(result: Any, order: int, full: bool, chunk: int | None) -> Any:
    return result if chunk is None else result._replace(g=2 * result.g)


def _other_gradient(result: Any, order: int, full: bool, chunk: int | None) -> Any:
    if result.gradient is None:
        return result
    return result._replace(gradient={name: -value for name, value in result.gradient.items()})


def _cut(result: Any, order: int, full: bool, chunk: int | None) -> Any:
    return result if order < 3 else result._replace(D3=result.D3[:-1])


EVERY = ((1, False), (2, False), (3, False), (3, True))
WRONG: dict[str, tuple[Any, set[str]]] = {
    "order 1": (_scaled("g", EVERY), {"torch.func, float64", "identities"}),
    "order 1, of one order": (_scaled("g", EVERY[:1]), {"torch.func, float64", "identities"}),
    "order 2": (_scaled("H", EVERY[1:]), {"torch.func, float64", "identities"}),
    "order 3, the diagonal": (_scaled("D3", EVERY[2:3]), {"torch.func, float64", "identities"}),
    "order 3, all of it": (_scaled("D3", EVERY[3:]), {"torch.func, float64", "identities"}),
    "order 2 not symmetric": (_lopsided("H"), {"torch.func, float64", "identities"}),
    "order 3 not symmetric": (_lopsided("D3"), {"torch.func, float64", "identities"}),
    "in parts": (_chunked, {"identities"}),
    "the gradient": (_other_gradient, {"identities"}),
    "a shape": (_cut, {"torch.func, float64", "identities"}),
}


@pytest.fixture(scope="module")
def right() -> tuple[Spec, SimpleNamespace]:
    spec = spec_of("tanh_cross_entropy_3", "weights-biases")
    return spec, compiled(spec)


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_module_fails_level_3(name: str, right: tuple[Spec, SimpleNamespace]) -> None:
    """Results off by 1e-9 in one field for one order, tensors that are not symmetric, parts, shapes."""
    spec, module = right
    change, oracles = WRONG[name]

    def wrong(*arguments: Any, order: int = 2, full: bool = False, chunk: Any = None, **more: Any) -> Any:
        result = module.summary(*arguments, order=order, full=full, chunk=chunk, **more)
        return change(result, order, full, chunk)

    report = verify(spec, levels=(3,), module=SimpleNamespace(**{**vars(module), "summary": wrong}))
    assert not report.passed
    assert {row.oracle for row in report.failures if row.quantity == "summary"} == oracles


def test_what_the_normal_form_leaves_open_is_tested(monkeypatch: pytest.MonkeyPatch) -> None:
    """Identities of the summaries are evaluated at 50 digits then, and the row says so."""
    from sifrc.verify.symbolic import rows as symbolic

    monkeypatch.setattr(symbolic, "_proved", lambda residual: False)
    report = verify(spec_of("skip"), levels=(1,))
    (row,) = [row for row in report.rows if row.quantity == "summary"]
    assert row.oracle == "50 digits" and row.passed and (row.digits or 0) >= 40
    assert "6 of 6 not decided by the normal form" in row.note


# ── steps ─────────────────────────────────────────────────────────────────────────────────────────────

OPTIONS: dict[str, dict[str, Any]] = {
    "as in GN3": {},
    "without positive part": {"positive": False, "internal_damping": 3.0},
    "clipped, from the gradient": {"direction": "gradient", "clip": 0.05},
    "Adam, ridge, diagonal": {"direction": "adam", "regularization": "ridge", "interactions": "diagonal"},
    "no regularisation": {"regularization": "none", "positive": False},
}


STEPPED = {"tanh_cross_entropy_3": "canonical", "skip": "trivial", "shared": "canonical"}
FAST_STEPS = {
    ("tanh_cross_entropy_3", "as in GN3"),
    ("skip", "as in GN3"),
    ("skip", "without positive part"),
    ("shared", "clipped, from the gradient"),
    ("tanh_cross_entropy_3", "Adam, ridge, diagonal"),
    ("skip", "no regularisation"),
}
"""Every network and every choice."""


@pytest.mark.parametrize(
    ("name", "options"),
    [
        pytest.param(name, options, marks=() if (name, options) in FAST_STEPS else pytest.mark.slow)
        for name in STEPPED
        for options in OPTIONS
    ],
)
def test_steps_of_grouped_newton_have_a_row(name: str, options: str) -> None:
    """Program against the oracle's own algorithm, with every choice of the method."""
    method = {**GROUPED, **OPTIONS[options]}
    spec = build_spec({**CASES[name], "partition": STEPPED[name], "method": method})
    (row,) = (check() for _, _, check in step_rows(spec, 50, 0))
    assert row is not None and row.passed and (row.digits or 0) > 40, row


def test_a_step_that_nowhere_exists_is_not_checked_and_says_why() -> None:
    """Piecewise affine activations with the squared error and a tensor a group: D̄ is zero."""
    plain = CASES["leaky_relu_squared_error_2"]
    first, last = plain["network"]["layers"]
    network = {**plain["network"], "layers": [{**first, "units": 2}, {**last, "units": 2}]}
    case = {**plain, "network": network, "partition": "canonical", "method": GROUPED}
    report = verify(build_spec(case), levels=(2,), digits=30)
    (row,) = (row for row in report.rows if row.quantity == "step")
    assert row.passed is None and report.passed
    assert "cubic model" in row.note and "random points" in row.note


@pytest.mark.parametrize("kind", ["definite", "indefinite", "near"])
def test_the_oracle_finds_the_lowest_point(kind: str) -> None:
    """By value, against many other points."""
    for seed in range(3):
        problem = make(kind, 4, seed)
        with mpmath.workdps(60):
            found = least_cubic(*(MPMATH.array(v) for v in problem.operands), 60)
        found = found.astype(np.float64)
        rng = np.random.default_rng(seed)
        lowest = model_value(problem, found)
        scale = np.abs(found).max()
        for size in (1e-3, 1e-1, 1.0, 10.0):
            others = found + size * scale * rng.standard_normal((50, 4))
            assert all(model_value(problem, other) > lowest for other in others)


def test_the_oracle_says_that_the_hard_case_has_no_single_lowest_point() -> None:
    with mpmath.workdps(60), pytest.raises(NoMinimiserError):
        least_cubic(*(MPMATH.array(v) for v in make("hard", 4, 0, exact=True).operands), 60)
