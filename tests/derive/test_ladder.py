"""The verification ladder: it passes what is right, and fails closed."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from cases import CASES, CHAINS
from sampled import one_in

import sifrc
from sifrc.catalogue.registry import BLOCK_OPERATORS
from sifrc.spec import build_spec
from sifrc.spec.types import Spec
from sifrc.verify import verify
from sifrc.verify.oracles import forward_torch as oracle_torch

TOGETHER = (
    "tanh_cross_entropy_2",
    "spectral",
    "reduction_sum",
    "custom_squared_error_2",
    "selu_huber",
    "skip",
    "shared_skip",
)
"""One of every sort; cross-entropy of two layers, since SymPy's expansion takes by far the longest."""


def module_for(spec: Spec, **changes: Any) -> SimpleNamespace:
    """A stand-in for a generated module, made of the oracle and rounded to the spec's dtype."""
    forward = oracle_torch.ForwardTorch(spec)
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

    def vector_product(kind: str, point: tuple[Any, ...], vector: Any) -> Any:
        return functions[f"{kind}_vector_product"](*point, vector)

    def samples(params: Any, inputs: torch.Tensor, targets: torch.Tensor, *, moment: str = "none") -> Any:
        arguments = double(params), double(inputs), double(targets)
        rows = [
            oracle_torch.gradient(spec, arguments[0], x[None], t[None])
            for x, t in zip(*arguments[1:], strict=True)
        ]
        each = {name: torch.stack([row[name] for row in rows]) for name in params}
        moments = {
            "none": lambda g: g,
            "norm": lambda g: g.square().flatten(1).sum(1),
            "second": lambda g: g.square().mean(0),
            "variance": lambda g: g.var(0, correction=0),
        }
        return rounded({name: moments[moment](value) for name, value in each.items()})

    functions: dict[str, Any] = {
        "loss": function(forward.loss),
        "objective": function(forward),
        "gradient": function(lambda *a: oracle_torch.gradient(spec, *a)),
        "objective_and_gradient": lambda *a: (functions["objective"](*a), functions["gradient"](*a)),
        "hessian_vector_product": function(hvp),
        "linearize": lambda *a, kind="hessian": partial(vector_product, kind, a),
        "gauss_newton_vector_product": function(lambda *a: oracle_torch.ggn_vp(spec, *a)),
        "newton_direction": function(newton),
        "per_sample_gradients": samples,
        "torch": torch,
    }
    functions.update(changes)
    return SimpleNamespace(**functions)


@pytest.mark.parametrize("name", one_in(2, TOGETHER))
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
    for row in report.failures:
        # What was compared, with both numbers, or what went wrong.
        numbers = {
            "newton_direction": "against |H| |d| + |g|",
            "loss": "not finite",
            "gauss_newton_vector_product": "expected dtype float64, got torch.float32",
        }
        assert numbers.get(name, ", expected ") in row.note, row.note


NORMS = ("sqrt(mean((y - t)**2))", "sqrt(sum((y - t)**2))", "sum(abs(y - t))", "sum(y*t)")
SLOW_NORMS = {(NORMS[0], 3), (NORMS[1], 1), (NORMS[2], 1), (NORMS[3], 1)}
"""Beside these, one norm has one output and one has several; of linear losses every matrix is zero."""


@pytest.mark.parametrize(
    ("expression", "units"),
    [
        pytest.param(norm, units, marks=pytest.mark.slow if (norm, units) in SLOW_NORMS else ())
        for norm in NORMS
        for units in (1, 3)
    ],
)
def test_a_norm_has_no_newton_direction(expression: str, units: int) -> None:
    """Its second derivative is zero along its gradient: refused with the reason.

    With one output the output matrix is zero, and rounding would make a direction of 10^15 of it.
    """
    from sifrc.compiler import Request, compile_spec
    from sifrc.errors import DerivationError

    case = {**CHAINS["tanh_squared_error_2"], "loss": {"expression": expression}}
    layers = case["network"]["layers"]
    case["network"] = {**case["network"], "layers": [*layers[:-1], {**layers[-1], "units": units}]}
    spec = build_spec(case)
    for row in verify(spec, levels=(1, 2), quantities=("newton_direction",)).rows:
        if row.quantity == "newton_direction":
            assert row.passed is False and "no Newton direction" in row.note
        else:
            assert row.passed is not False, row.note
    for request in (
        Request(operators=("newton_direction",)),
        Request(method="esn", options={"variant": "exact"}),
    ):
        with pytest.raises(DerivationError, match="no Newton direction"):
            compile_spec(spec, request)
    # What needs no such system is not refused.
    assert compile_spec(spec, Request(operators=("hessian_vector_product",))).text


@pytest.mark.parametrize(
    "loss",
    [
        "mse",
        {"function": "huber", "parameters": {"delta": 1e-3}},
        {"expression": "logsumexp(y) - dot(t, y)"},
        {"expression": "sqrt(0.01 + sum((y - t)**2))"},
        {"expression": "sum((y - t)**4)"},
        "bounded",
    ],
    ids=str,
)
def test_losses_that_are_solvable_somewhere_are_not_refused(loss: Any) -> None:
    """Near the target alone, for targets that are probabilities alone, or where the matrix is indefinite."""
    from sifrc.derive.output_range import check_output_range
    from sifrc.model import build_model

    check_output_range(build_model(build_spec({**CHAINS["tanh_squared_error_3"], "loss": loss})))


def test_a_system_without_a_solution_says_so() -> None:
    """Cross-entropy with a target that does not sum to one: the condition, not a number of digits."""
    from sifrc.ir.arithmetic import NUMPY
    from sifrc.verify.points import random_point
    from sifrc.verify.subjects.program import RunningProgram, program_of

    case = {**CHAINS["tanh_squared_error_2"], "loss": {"expression": "logsumexp(y) - dot(t, y)"}}
    spec = build_spec(case)
    point = random_point(spec, 3)
    sample, target = point.sample()
    with pytest.raises(FloatingPointError, match="not in the range of the matrix"):
        program = program_of(spec, ("newton_direction",))
        RunningProgram(*program, point.params, sample, target, NUMPY).call("newton_direction")


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
    from sifrc.verify.symbolic import rows as symbolic

    monkeypatch.setattr(symbolic, "_proved", lambda residual: False)
    report = verify(build_spec(dict(CHAINS["tanh_squared_error_2"])), levels=(1,))
    rows = [row for row in report.rows if row.oracle == "50 digits"]
    assert report.passed and len(rows) == 5
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
    from sifrc.verify.capped import capped
    from sifrc.verify.precise.systems import SampleSystems
    from sifrc.verify.symbolic.expansion import Expansion

    derived = Derived(build_model(capped(build_spec(dict(CHAINS["tanh_squared_error_2"])), 2)))
    assert Expansion(derived).gradient() and Expansion(derived).hessian_vector_product()
    for quantity in ("gradient", "hessian_vector_product"):
        right = getattr(SampleSystems, quantity)

        def wrong(run: Any, *arguments: Any, right: Any = right) -> Any:
            result = right(run, *arguments)
            return {**result, "fc1.weight": -result["fc1.weight"]}

        with monkeypatch.context() as patch:
            patch.setattr(SampleSystems, quantity, wrong)
            assert not getattr(Expansion(derived), quantity)()


# ── curvature blocks ──────────────────────────────────────────────────────────────────────────────────

BLOCKS = BLOCK_OPERATORS
KINDS_LISTED = [
    "hessian",
    "pch1",
    "ggn",
    "fisher",
    "sampled_fisher",
    "kfra",
    {"name": "each", "kind": "pch2", "expectation": False},
]


SMALL_SKIP = {
    "input": {"name": "image", "size": 3},
    "layers": [
        {"name": "fc1", "type": "dense", "units": 2, "activation": "tanh"},
        {"name": "fc2", "type": "dense", "units": 2, "activation": "softplus"},
        {"name": "sum1", "type": "add", "inputs": ["fc1", "fc2"]},
        {"name": "fc3", "type": "dense", "units": 2},
    ],
}
"""The network of the case with fewer units: what nested derivatives of blocks cost."""


def blocks_spec(name: str, **changes: Any) -> Spec:
    """A case that asks for the operators on curvature blocks."""
    target = {"backend": "torch", "operators": list(BLOCKS)}
    return build_spec({**CASES[name], "target": target, **changes})


def compiled(spec: Spec, **changes: Any) -> SimpleNamespace:
    """The module of a spec with some functions replaced."""
    return SimpleNamespace(**{**vars(sifrc.compile(spec, cache=False)), **changes})


@pytest.fixture(scope="module")
def listed() -> tuple[Spec, SimpleNamespace]:
    """A module with kinds of every sort."""
    spec = blocks_spec("skip", curvature=KINDS_LISTED, network=SMALL_SKIP)
    return spec, compiled(spec)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("skip", {"network": SMALL_SKIP}),
        ("no_bias", {"loss": "binary_cross_entropy"}),
        # Levels 1 and 2 of it are in test_mutation, level 3 is in the test of definite blocks below.
        pytest.param("skip", {"loss": "bounded", "network": SMALL_SKIP}, marks=pytest.mark.slow),
    ],
    ids=["skip", "no_bias", "not convex"],
)
def test_blocks_pass_every_level(name: str, changes: dict[str, Any]) -> None:
    """Presets of a graph; no biases, and targets that are vectors; a loss that is not convex."""
    spec = blocks_spec(name, **changes)
    report = verify(spec, module=compiled(spec))
    assert report.passed, report.text()
    proved = ("block_hessian", "block_vector_product", "hessian_diagonal")
    for level, quantities in {1: proved, 2: BLOCKS, 3: BLOCKS}.items():
        found = {row.quantity for row in report.rows if row.level == level and row.passed}
        assert found >= set(quantities)
    rows = [row for row in report.rows if row.quantity == "block_hessian"]
    assert {(row.level, row.oracle) for row in rows} == {
        (1, "normal form"),
        (1, "SymPy"),
        (2, "nested duals, dense algebra"),
        (2, "exact limits"),
        (3, "torch.func, float64"),
        (3, "torch.func, dense algebra"),
        (3, "eigenvalues"),
    }


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", [name for name in CASES if "shared" not in name])
def test_blocks_pass_on_every_case(name: str, dtype: str) -> None:
    """All levels on every named case."""
    spec = blocks_spec(name, dtype=dtype)
    report = verify(spec, module=compiled(spec))
    assert report.passed, report.text()


def test_blocks_of_the_kinds_that_the_spec_lists(listed: tuple[Spec, SimpleNamespace]) -> None:
    """Rewrites of the spec's own among them; level 2 says which kinds its rows are of."""
    spec, module = listed
    report = verify(spec, levels=(2, 3), module=module)
    assert report.passed, report.text()
    notes = " ".join(row.note for row in report.rows if row.quantity == "curvature_factors")
    assert "each" in notes and "pch2" not in notes


def test_blocks_have_rows_only_where_they_are_asked_for() -> None:
    """A spec without them, and one that asks for the diagonal alone."""
    plain = verify(build_spec(dict(CHAINS["one_layer"])), levels=(1, 2))
    assert not {row.quantity for row in plain.rows} & set(BLOCKS)
    target = {"backend": "torch", "operators": ["hessian_diagonal"]}
    report = verify(build_spec({**CHAINS["one_layer"], "target": target}), levels=(1, 2))
    assert report.passed
    assert {row.quantity for row in report.rows} & set(BLOCKS) == {"hessian_diagonal"}
    listed = verify(build_spec({**CHAINS["one_layer"], "curvature": ["kfra"]}), levels=(2,))
    assert listed.passed and {row.quantity for row in listed.rows} >= {"block_hessian", "curvature_factors"}


def test_blocks_of_shared_parameters_fail_with_the_reason() -> None:
    """They do not exist, so that asking for them cannot pass."""
    report = verify(blocks_spec("shared_skip"), levels=(1, 2))
    assert not report.passed
    failed = [row for row in report.failures if row.quantity in BLOCKS]
    assert {row.level for row in failed} == {1, 2} and all("shared" in row.note for row in failed)


def _scaled(factor: float, only: str) -> Any:
    """A change of the result for one kind; pairs are changed in their blocks."""

    def change(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {name: change(item) for name, item in value.items()}
        if isinstance(value, tuple) and hasattr(value, "block"):
            return value._replace(block=factor * value.block)
        return tuple(map(change, value)) if isinstance(value, tuple) else factor * value

    def wrap(right: Any) -> Any:
        def wrong(*arguments: Any, **choices: Any) -> Any:
            result = right(*arguments, **choices)
            return change(result) if choices.get("kind", only) == only else result

        return wrong

    return wrap


OF_KINDS = [name for name in BLOCKS if name != "hessian_diagonal"]
WRONG_KINDS = ("hessian", "pch1", "sampled_fisher", "each")


@pytest.mark.parametrize(
    ("operator", "kind"),
    [
        # Every operator with two kinds, and every kind with half of the operators.
        pytest.param(operator, kind, marks=() if (row + column) % 2 == 0 else pytest.mark.slow)
        for row, operator in enumerate(OF_KINDS)
        for column, kind in enumerate(WRONG_KINDS)
    ],
)
def test_a_wrong_kind_fails_level_3(operator: str, kind: str, listed: tuple[Spec, SimpleNamespace]) -> None:
    """One operator of one kind off by 1e-9; the note names the kind."""
    spec, module = listed
    wrong = SimpleNamespace(**{**vars(module), operator: _scaled(1 + 1e-9, kind)(getattr(module, operator))})
    report = verify(spec, levels=(3,), module=wrong)
    assert not report.passed
    assert {row.quantity for row in report.failures} == {operator}
    assert all(f"worst: {kind}" in row.note for row in report.failures)


def test_blocks_that_are_not_definite_fail_level_3() -> None:
    """The Hessian in the place of PCH: by its eigenvalues too."""
    spec = blocks_spec("bounded", curvature=["hessian", "pch1"])
    module = compiled(spec)

    def wrong(*arguments: Any, **choices: Any) -> Any:
        return right(*arguments, **{**choices, "kind": "hessian"})

    right, module.block_hessian = module.block_hessian, wrong
    report = verify(spec, levels=(3,), module=module)
    failed = {row.oracle for row in report.failures}
    assert {"eigenvalues", "torch.func, dense algebra"} <= failed


def test_kinds_that_a_module_lacks_or_invents_fail(listed: tuple[Spec, SimpleNamespace]) -> None:
    """What the spec lists and the module does not know, and the other way round."""
    spec, module = listed
    for kinds in ({"hessian": None}, {**module._KINDS, "invented": None}):
        wrong = SimpleNamespace(**{**vars(module), "_KINDS": kinds})
        report = verify(spec, levels=(3,), module=wrong)
        assert {row.quantity for row in report.failures} >= set(BLOCKS)


def test_draws_that_are_not_random_fail(listed: tuple[Spec, SimpleNamespace]) -> None:
    """Constant numbers, and a module that does not say what it draws."""
    spec, module = listed

    def constant(seed: int, shape: Any, like: Any) -> torch.Tensor:
        return torch.full(shape, 0.5, dtype=like.dtype)

    for draw in (constant, None):
        report = verify(spec, levels=(3,), module=SimpleNamespace(**{**vars(module), "_uniform": draw}))
        assert not report.passed and any("sampled_fisher" in row.note for row in report.failures)


def test_a_module_without_a_function_is_not_passed(listed: tuple[Spec, SimpleNamespace]) -> None:
    """An operator that is asked for and missing."""
    spec, module = listed
    less = {name: value for name, value in vars(module).items() if name != "curvature_factors"}
    report = verify(spec, levels=(3,), module=SimpleNamespace(**less))
    assert ("curvature_factors", 3) in report.missing


def test_what_the_normal_form_leaves_open_of_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Identities of the blocks are evaluated at 50 digits then, and the rows say so."""
    from sifrc.verify.symbolic import rows as symbolic

    monkeypatch.setattr(symbolic, "_proved", lambda residual: False)
    rows = [row for row in verify(blocks_spec("skip"), levels=(1,)).rows if row.quantity in BLOCKS]
    tested = [row for row in rows if row.oracle == "50 digits"]
    assert len(tested) == 5 and all(row.passed and (row.digits or 0) >= 40 for row in tested)
    assert all("not decided by the normal form" in row.note for row in tested)


@pytest.mark.parametrize(
    "method", [{"name": "ea_cg"}, {"name": "ea_cg", "solver": "exact", "moment": "mean"}]
)
def test_a_step_that_uses_structure_has_a_row(method: dict[str, Any]) -> None:
    """Compressed systems give the textbook's iterates."""
    report = verify(build_spec({**CASES["skip"], "method": method}), levels=(2,))
    (row,) = [row for row in report.rows if row.quantity == "step"]
    assert row.passed, row


def test_a_step_that_uses_no_structure_has_no_row() -> None:
    other = verify(build_spec({**CHAINS["one_layer"], "method": "mk"}), levels=(2,))
    assert not [row for row in other.rows if row.quantity == "step"]


DERIVED = ("per_sample_gradients", "diagonal", "trace")


@pytest.mark.parametrize("name", ["tanh_cross_entropy_2", "skip", "no_bias", "output_tanh"])
def test_operators_made_of_blocks_and_samples_have_identities(name: str) -> None:
    """Blocks from the output are those of the recursion; traces are sums of diagonals; norms are norms."""
    asked = {"curvature": ["hessian", "ggn"], "target": {"operators": list(DERIVED)}}
    report = verify(build_spec({**CASES[name], **asked}), levels=(1,))
    assert report.passed, report.text()
    assert {row.quantity for row in report.rows if row.passed} >= set(DERIVED)


@pytest.mark.parametrize(
    ("place", "operator"),
    [
        ("sifrc.derive.curvature.outputs.seeded", "diagonal"),
        ("sifrc.derive.curvature.traces.einsum", "trace"),
        ("sifrc.derive.samples.expand", "per_sample_gradients"),
    ],
)
def test_identities_of_operators_see_a_factor(
    place: str, operator: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twice a Jacobian, a trace, a square."""
    from fractions import Fraction
    from importlib import import_module

    from sifrc.ir.build import scale

    module, _, name = place.rpartition(".")
    right = getattr(import_module(module), name)
    monkeypatch.setattr(place, lambda *arguments: scale(Fraction(2), right(*arguments)))
    asked = {"curvature": ["hessian", "ggn"], "target": {"operators": [operator]}}
    report = verify(build_spec({**CASES["skip"], **asked}), levels=(1,))
    assert operator in {row.quantity for row in report.failures}


@pytest.mark.parametrize("product", ["hessian_vector_product", "gauss_newton_vector_product"])
@pytest.mark.parametrize("backend", ["torch", "numba"])
def test_a_module_with_one_product_is_linearized_for_it(
    product: str, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other kind of ``linearize`` does not exist then."""
    monkeypatch.setattr("numba.config.DISABLE_JIT", 1)
    spec = build_spec({**CASES["skip"], "target": {"backend": backend, "operators": [product]}})
    report = verify(spec, levels=(3,), module=sifrc.compile(spec, cache=False))
    (row,) = [row for row in report.rows if row.quantity == "linearize"]
    assert row.passed and report.passed, report.text()
