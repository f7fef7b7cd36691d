"""Deliberate faults in the model, the calculus, the derivation and the lowering: every one must be caught.

A fault is caught when an identity of level 1 does not reduce to zero, when a derived number disagrees with
torch.func, when H(N, η) = (G, g) fails, or when the derivation itself refuses. Faults of curvature blocks
are caught by the identities of the recursion or by the rows of level 2.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from functools import cache
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
from agreement import check
from cases import CASES

import sifrc.calculus.forward as forward
import sifrc.calculus.reverse as reverse
import sifrc.derive.curvature.factors as factors
import sifrc.derive.curvature.kronecker as kronecker
import sifrc.derive.curvature.outputs as outputs
import sifrc.derive.curvature.parameters as parameters
import sifrc.derive.curvature.recursion as recursion
import sifrc.derive.curvature.scores as scores
import sifrc.derive.curvature.systems as systems
import sifrc.derive.gauss_newton as gauss_newton
import sifrc.derive.lagrangian as lagrangian
import sifrc.derive.newton as newton
import sifrc.derive.sifrian as sifrian
import sifrc.lower.batch as batch
import sifrc.lower.structure as structure
import sifrc.model.build as build
import sifrc.model.layers.elementary as elementary
import sifrc.model.loss as loss
import sifrc.scalar.function as scalar
from sifrc.derive.derived import Derived
from sifrc.ir import Add, Axis, Einsum, Expr, LogSoftmax, LogSumExp, Map
from sifrc.ir.build import add, einsum, mapped, negative, ones, scale, zero
from sifrc.ir.normal import is_zero
from sifrc.model import build_model
from sifrc.scalar import ABS, EXP, RECIPROCAL
from sifrc.spec import Spec, build_spec
from sifrc.verify.points import random_point
from sifrc.verify.precise.rows import precise_rows
from sifrc.verify.precise.steps import step_rows
from sifrc.verify.precise.systems import SampleSystems
from sifrc.verify.records import looked_at
from sifrc.verify.symbolic.curvature import (
    diagonal_identities,
    product_identities,
    recursion_identities,
)
from sifrc.verify.symbolic.identities import (
    first_order_identities,
    gauss_newton_identities,
    second_order_identities,
)

Fault = Callable[[pytest.MonkeyPatch], Any]

_CHAIN, _SKIP, _SHARED, _MEAN = (
    CASES["tanh_cross_entropy_3"],
    CASES["skip"],
    CASES["shared"],
    CASES["custom_curved"],
)
_EQUAL, _MIXED = CASES["equal_sizes"], CASES["mixed_loss"]


def numbers_differ() -> bool:
    """Derived numbers against torch.func."""
    for case in (_CHAIN, _SKIP, _SHARED, _MEAN, _EQUAL, _MIXED):
        try:
            check(case, seed=3)
        except Exception:
            return True
    return False


def identities_fail() -> bool:
    """Level 1, by the normal form only."""
    try:
        derived = Derived(build_model(build_spec(dict(_CHAIN))))
        for identities in (first_order_identities, second_order_identities, gauss_newton_identities):
            if not all(is_zero(identity.residual) for identity in identities(derived)):
                return True
    except Exception:
        return True
    return False


def newton_fails() -> bool:
    """The substitution test, and H(N, η) = (G, g) by the derived Hessian–vector product."""
    try:
        spec = build_spec(dict(_CHAIN))
        derived = Derived(build_model(spec))
        point = random_point(spec, 5)
        run = SampleSystems(derived, point.params, *point.sample())
        product, gradient = run.hessian_vector_product(run.newton_direction()), run.gradient()
        near = all(np.allclose(product[name], gradient[name], rtol=1e-9, atol=1e-12) for name in gradient)
        return not (derived.newton.proved and near)
    except Exception:
        return True


def _rule(table: Any, node_type: type[Expr], rule: Callable[..., Any]) -> Fault:
    """Replace the rule of one node type; a dispatch table cannot be patched as an attribute."""

    @contextmanager
    def fault(_: pytest.MonkeyPatch) -> Iterator[None]:
        original = table.dispatch(node_type)
        table.register(node_type)(lambda *arguments: rule(original, *arguments))
        try:
            yield
        finally:
            table.register(node_type)(original)

    return fault


def _name(module: Any, name: str, change: Callable[[Any], Any]) -> Fault:
    """Replace a function that a module uses."""

    @contextmanager
    def fault(patch: pytest.MonkeyPatch) -> Iterator[None]:
        with patch.context() as local:
            local.setattr(module, name, change(getattr(module, name)))
            yield

    return fault


def _changed(change: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """The function with its result changed; None stays None."""

    def wrap(function: Any) -> Any:
        def changed(*arguments: Any, **more: Any) -> Any:
            result = function(*arguments, **more)
            return None if result is None else change(result)

        return changed

    return wrap


def _first(change: Callable[[Expr], Expr]) -> Callable[[Any], Any]:
    """The same for a function that returns a tuple: its first item is changed."""
    return _changed(lambda result: (change(result[0]), *result[1:]))


def _half(expr: Expr) -> Expr:
    return scale(Fraction(1, 2), expr)


def _twice(expr: Expr) -> Expr:
    return scale(2, expr)


def _same(expr: Any) -> Any:
    return expr


def _last_dropped(original: Any, node: Einsum, tangent: Any) -> Expr | None:
    """The product rule without the term of its last factor."""
    lost = node.operands[-1][0]
    return original(node, lambda child: None if child is lost and len(node.operands) > 1 else tangent(child))


def _coefficients_lost(original: Any, node: Add, tangent: Any) -> Expr | None:
    moves = [tangent(term) for _, term in node.terms]
    kept = [(Fraction(1), move) for move in moves if move is not None]
    return add(kept, node.axes) if kept else None


def _order(change: int) -> Callable[..., Any]:
    """The slope of an elementwise function with a wrong derivative order."""

    def rule(original: Any, node: Map, *rest: Any) -> Any:
        orders = tuple(max(0, order + change) for order in node.orders)
        moved = mapped(node.function, orders, node.operands, node.out)
        return original(moved if isinstance(moved, Map) else node, *rest)

    return rule


def _no_mean(original: Any, node: LogSoftmax, tangent: Any) -> Expr | None:
    move: Expr | None = tangent(node.operand)
    return move


def _sent(change: Callable[[Expr], Expr]) -> Callable[..., Any]:
    """A reverse rule whose cotangents are changed on the way."""

    def rule(original: Any, node: Expr, cotangent: Expr, depends: Any, send: Any) -> None:
        original(node, cotangent, depends, lambda child, value: send(child, change(value)))

    return rule


def _not_sent_to_last(original: Any, node: Einsum, cotangent: Expr, depends: Any, send: Any) -> None:
    lost = node.operands[-1][0]
    original(node, cotangent, lambda child: child is not lost and depends(child), send)


def _factors_ignored(original: Any, node: Add, cotangent: Expr, depends: Any, send: Any) -> None:
    for _, term in node.terms:
        send(term, cotangent)


def _transposed(expr: Expr) -> Expr:
    """Rows and columns of a square matrix exchanged."""
    if len(expr.axes) == 2 and expr.axes[0].size == expr.axes[1].size:
        rows, columns = expr.axes
        return einsum([(expr, (columns, rows))], (rows, columns))
    return expr


def _without_bias(function: Any) -> Any:
    from dataclasses import replace

    def linear(owned: Any, source: Any, axes: tuple[Axis, ...]) -> Expr:
        return function(replace(owned, members=owned.members[:1]), source, axes)

    return linear


def _wrong_mean(table: Any) -> Any:
    return MappingProxyType({**table, "mean": table["sum"]})


def _wrong_softmax(table: Any) -> Any:
    return MappingProxyType({**table, "log_softmax": lambda axis, v: v})


@contextmanager
def _wrong_scalar_derivative(patch: pytest.MonkeyPatch) -> Iterator[None]:
    """Scalar derivatives twice too large; they are cached, so the caches are emptied around it."""
    caches = (scalar._derivative, scalar._bound)
    original = scalar.differentiate
    for table in caches:
        table.cache_clear()
    try:
        with patch.context() as local:
            local.setattr(
                scalar, "differentiate", lambda expression, symbol: 2 * original(expression, symbol)
            )
            yield
    finally:
        for table in caches:
            table.cache_clear()


FAULTS: dict[str, Fault] = {
    "forward, product: a term of the product rule is missing": _rule(
        forward.forward_rule, Einsum, _last_dropped
    ),
    "forward, product: sign": _rule(forward.forward_rule, Einsum, lambda f, *a: _changed(negative)(f)(*a)),
    "forward, sum: coefficients lost": _rule(forward.forward_rule, Add, _coefficients_lost),
    "forward, function: factor 1/2": _rule(forward.forward_rule, Map, lambda f, *a: _changed(_half)(f)(*a)),
    "forward, function: one order too many": _rule(forward.forward_rule, Map, _order(1)),
    "forward, log softmax: without the mean": _rule(forward.forward_rule, LogSoftmax, _no_mean),
    "reverse, product: sign": _rule(reverse.reverse_rule, Einsum, _sent(negative)),
    "reverse, product: a factor is forgotten": _rule(reverse.reverse_rule, Einsum, _not_sent_to_last),
    "reverse, product: transposed": _rule(reverse.reverse_rule, Einsum, _sent(_transposed)),
    "reverse, sum: coefficients lost": _rule(reverse.reverse_rule, Add, _factors_ignored),
    "reverse, function: factor 1/2": _rule(reverse.reverse_rule, Map, _sent(_half)),
    "reverse, function: one order too many": _rule(reverse.reverse_rule, Map, _order(1)),
    "reverse, logsumexp: factor 2": _rule(reverse.reverse_rule, LogSumExp, _sent(_twice)),
    "reverse, log softmax: factor 2": _rule(reverse.reverse_rule, LogSoftmax, _sent(_twice)),
    "scalar: derivatives twice too large": _wrong_scalar_derivative,
    "model: regularisation without 1/2": _name(build, "state_regularizer", _changed(_twice)),
    "model: bias lost": _name(elementary, "linear", _without_bias),
    "model: activation scaled": _name(build, "apply", _changed(_half)),
    "loss: mean is a sum": _name(loss, "_VECTOR_FUNCTIONS", _wrong_mean),
    "loss: log_softmax without normalisation": _name(loss, "_VECTOR_FUNCTIONS", _wrong_softmax),
    "back-propagation: sign": _name(lagrangian, "solve_unit", _changed(negative)),
    "back-propagation: slopes with the wrong sign": _name(lagrangian, "negative", lambda _: _same),
    "Sifrian: sign of a solved multiplier": _name(sifrian, "solve_unit", _changed(negative)),
    "Sifrian: sign of the product": _name(sifrian, "negative", lambda _: _same),
    "Sifrian: factor 1/2 in a pairing": _name(sifrian, "inner", _changed(_half)),
    "Gauss–Newton: sign of the adjoint": _name(gauss_newton, "solve_unit", _changed(negative)),
    "Gauss–Newton: factor 2 in the linearised model": _name(gauss_newton, "jvp", _changed(_twice)),
    "Newton: sign of the least-norm weight": _name(newton, "solve_minimum_norm", _first(negative)),
    "Newton: factor 2 in the output system": _name(newton, "solve_linear", _first(_twice)),
    "Newton: sign of the output system": _name(newton, "solve_linear", _first(negative)),
    "Newton: sign of a solved multiplier": _name(newton, "solve_unit", _changed(negative)),
    "Newton: factor 1/2 in a common factor": _name(newton, "solve_common_factor", _first(_half)),
}


def caught_by() -> list[str]:
    """Which of the checks notice that something is wrong."""
    checks = {"identities": identities_fail, "numbers": numbers_differ, "Newton": newton_fails}
    return [name for name, fails in checks.items() if fails()]


@cache
def caught(name: str) -> tuple[str, ...]:
    """Which of the checks notice a fault."""
    with pytest.MonkeyPatch.context() as patch, FAULTS[name](patch):
        return tuple(caught_by())


def test_without_a_fault_nothing_is_caught() -> None:
    """The checks pass on the code as it is."""
    assert caught_by() == []


@pytest.mark.parametrize("name", FAULTS)
def test_fault_is_caught(name: str) -> None:
    """A wrong sign, factor, index, order or a missing term is noticed."""
    assert caught(name)


def test_most_faults_are_caught_by_more_than_one_check() -> None:
    """The ladder is redundant: a blind spot of one check is seen by another."""
    assert len(FAULTS) >= 20
    counts = {name: caught(name) for name in FAULTS}
    assert all(counts.values()), [name for name, found in counts.items() if not found]
    twice = sum(len(found) > 1 for found in counts.values())
    assert twice >= len(FAULTS) // 2, counts
    # Nothing stays broken.
    assert caught_by() == []


# ── curvature blocks ──────────────────────────────────────────────────────────────────────────────────

_CHECKED = ("block_hessian", "curvature_factors", "block_vector_product", "hessian_diagonal")
_LAYERS = [
    {"name": "fc1", "type": "dense", "units": 2, "activation": "tanh"},
    {"name": "fc2", "type": "dense", "units": 2, "activation": "softplus"},
    {"name": "sum1", "type": "add", "inputs": ["fc1", "fc2"]},
    {"name": "fc3", "type": "dense", "units": 3, "activation": "tanh"},
]


def _blocks_spec(loss: str, **more: Any) -> Spec:
    """A skip, curved activations on every layer, and state regularisation: no rewrite is idle."""
    return build_spec(
        {
            "sifrc": 1,
            "name": "blocks",
            "network": {"input": {"name": "image", "size": 2}, "layers": _LAYERS},
            "loss": loss,
            "regularization": {"state": 0.3},
            "dtype": "float64",
            **more,
        }
    )


def block_identities_fail() -> bool:
    """Level 1 of curvature blocks, by the normal form only."""
    try:
        derived = Derived(build_model(_blocks_spec("bounded")))
        for identities in (recursion_identities, product_identities, diagonal_identities):
            if not all(is_zero(identity.residual) for identity in identities(derived)):
                return True
    except Exception:
        return True
    return False


def block_numbers_differ() -> bool:
    """Level 2 of curvature blocks: a loss that is not convex, on classes, and one on vectors."""
    for spec in (_blocks_spec("bounded"), _blocks_spec("binary_cross_entropy", curvature=["fisher"])):
        try:
            rows = list(precise_rows(spec, looked_at(spec, _CHECKED), 30, 0))
            if not (rows and all((row := check()) is not None and row.passed for _, _, check in rows)):
                return True
        except Exception:
            return True
    return False


def steps_differ() -> bool:
    """Level 2 of steps that use structure."""
    try:
        (row,) = (check() for _, _, check in step_rows(_blocks_spec("bounded", method="ea_cg"), 30, 0))
        return row is None or not row.passed
    except Exception:
        return True


def _zeroed(expr: Expr) -> Expr:
    return zero(expr.axes)


def _first_operand(_: Any) -> Any:
    """An elementwise function that does nothing."""
    return lambda function, *operands, **more: operands[0]


def _other_part(spectral: Any) -> Any:
    return lambda matrix, kind: spectral(matrix, {"absolute": "positive", "positive": "absolute"}[kind])


def _unscaled(_: Any) -> Any:
    return lambda coefficient, expr: expr


RECURSION_FAULTS: dict[str, Fault] = {
    "recursion: signs of differentials": _name(recursion, "negative", lambda _: _same),
    "recursion: sign of the Jacobians": _name(recursion, "jacobian", _changed(negative)),
    "recursion: transposed Jacobians": _name(recursion, "jacobian", _changed(_transposed)),
    "recursion: a cross term is missing": _name(recursion, "_between", _changed(_zeroed)),
    "recursion: a cross term is transposed": _name(recursion, "_between", _changed(_transposed)),
    "recursion: block times Jacobian transposed": _name(recursion, "_product", _changed(_transposed)),
    "recursion: differentials halved": _name(recursion, "seeded", _changed(_half)),
    "systems: products of factors doubled": _name(systems, "einsum", _changed(_twice)),
    "systems: results doubled": _name(systems, "rename", _changed(_twice)),
    "parameters: block doubled": _name(parameters, "expand", _changed(_twice)),
}
"""Of exact blocks and of products with them: the identities of level 1 see these, and so does level 2."""

KIND_FAULTS: dict[str, Fault] = {
    "rewrite: residual halved": _name(recursion, "diagonal_of", _changed(_half)),
    "rewrite: residual without its absolute value": _name(recursion, "apply", _first_operand),
    "rewrite: the other part of the output's block": _name(recursion, "Spectral", _other_part),
    "scores: classes weighted by p²": _name(scores, "scale", _unscaled),
    "scores: no root of the curvature": _name(scores, "SQRT", lambda _: EXP),
    "scores: Gumbel noise without its logarithms": _name(scores, "_GUMBEL", lambda _: EXP),
    "factors: scores halved on their way": _name(factors, "seeded", _changed(_half)),
    "outputs: Jacobians halved on their way": _name(outputs, "seeded", _changed(_half)),
    "systems: exact columns for averaged ones": _name(
        kronecker.KroneckerFactors, "averaged", lambda _: lambda self, layer, block, *a: block
    ),
    "batch: sums for means": _name(batch, "MEAN", lambda _: ones()),
}
"""Of rewritten and of factored kinds, and of averages: level 2 alone has them."""

SELDOM = (
    *RECURSION_FAULTS,
    "rewrite: residual halved",
    "scores: no root of the curvature",
    "scores: Gumbel noise without its logarithms",
    "outputs: Jacobians halved on their way",
)
"""What others see too: identities, those of operators in ``test_ladder``, mutants of the same places."""

STRUCTURE_FAULTS: dict[str, Fault] = {
    "structure: square for its root": _name(structure, "SQRT", lambda _: ABS),
    "structure: a vector that is not of length one": _name(structure, "INVERSE_ROOT", lambda _: RECIPROCAL),
}
"""Of the structure pass: only steps use it."""


@pytest.mark.parametrize("name", RECURSION_FAULTS)
def test_fault_of_blocks_is_caught_by_identities(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong sign, factor or transposition leaves a residual."""
    with RECURSION_FAULTS[name](monkeypatch):
        assert block_identities_fail()


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow if name in SELDOM else ())
        for name in (*KIND_FAULTS, *RECURSION_FAULTS)
    ],
)
def test_fault_of_blocks_is_caught_by_numbers(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong rewrite, factor or mean is noticed; so is what the identities see."""
    with {**KIND_FAULTS, **RECURSION_FAULTS}[name](monkeypatch):
        assert block_numbers_differ()


@pytest.mark.parametrize("name", STRUCTURE_FAULTS)
def test_fault_of_structure_is_caught(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The step with structure is not the step without it."""
    with STRUCTURE_FAULTS[name](monkeypatch):
        assert steps_differ()


def test_without_a_fault_nothing_is_caught_of_blocks() -> None:
    """The checks pass on the code as it is: after all faults too, so that none of them stays."""
    assert not (block_identities_fail() or steps_differ() or block_numbers_differ())
