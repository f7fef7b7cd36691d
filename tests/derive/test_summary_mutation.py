"""Deliberate faults in the derivation and the lowering of summaries: every one must be caught.

A fault is caught when the derived systems or the interpreted program disagree with nested derivatives of the
forward pass, or when they cannot be made at all; and by the rows of ``sifrc verify``. Those of memory are in
the tests of modules.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from fractions import Fraction
from functools import cache
from types import MappingProxyType
from typing import Any

import pytest
from cases import CASES
from summary_oracle import Derivatives, derivatives, partition_of_case, point_of
from summary_values import Interpreted, SystemValues, agree

import sifrc.derive.terms as terms
import sifrc.lower.windows as windows
import sifrc.methods.planning as planning
from sifrc.derive.summaries import Summaries
from sifrc.derive.system import Equation, System
from sifrc.ir import Add, Expr
from sifrc.ir.build import add, negative, scale, zero
from sifrc.ir.traverse import inputs_of
from sifrc.methods import grouped_newton
from sifrc.spec import Spec, build_spec
from sifrc.verify import verify
from sifrc.verify.points import Point
from sifrc.verify.precise.steps import step_rows

Fault = Callable[[pytest.MonkeyPatch], AbstractContextManager[None]]
Change = Callable[[Expr], Expr]
NETWORKS = (("tanh_cross_entropy_3", "canonical"), ("shared_skip", "weights-biases"))


@cache
def setting(name: str, word: str) -> tuple[Spec, Point, dict[str, list[str]], Derivatives]:
    """A network, a partition, a point, and what is true there."""
    found = partition_of_case(CASES[name], word)
    assert found is not None
    point = point_of(found[0], 3, 2)
    return found[0], point, found[1], derivatives(found[0], point, found[1])


def caught_by() -> list[str]:
    """Which of the two disagree with the oracle."""
    found = []
    ways: dict[str, Callable[[Spec, Point, Any], Any]] = {
        "systems": SystemValues,
        "program": lambda spec, point, _: Interpreted(spec, point),
    }
    for way, make in ways.items():
        for network in NETWORKS:
            spec, point, groups, expected = setting(*network)
            try:
                agree(make(spec, point, groups), expected)
            except Exception:
                found.append(way)
                break
    return found


def _equations(name: str, change: Callable[[Equation], Expr]) -> Fault:
    """Change the values of a system's equations."""
    return _made(name, lambda system: _changed(system, change))


def _changed(system: System, change: Callable[[Equation], Expr]) -> System:
    equations = tuple(replace(equation, value=change(equation)) for equation in system.equations)
    return replace(system, equations=equations)


def _made(name: str, change: Callable[[Any], Any]) -> Fault:
    """Change what a property of the derivation gives."""

    @contextmanager
    def fault(patch: pytest.MonkeyPatch) -> Iterator[None]:
        own: Any = Summaries.__dict__[name]
        original = own.fget if isinstance(own, property) else own.func
        with patch.context() as local:
            local.setattr(Summaries, name, property(lambda self: change(original(self))))
            yield

    return fault


def _name(module: Any, name: str, change: Callable[[Any], Any]) -> Fault:
    """Replace a function that a module or a class uses."""

    @contextmanager
    def fault(patch: pytest.MonkeyPatch) -> Iterator[None]:
        with patch.context() as local:
            local.setattr(module, name, change(getattr(module, name)))
            yield

    return fault


def _terms(chosen: Callable[[Expr], bool], factor: Fraction) -> Callable[[Equation], Expr]:
    """Terms of a sum times a factor."""

    def change(equation: Equation) -> Expr:
        value = equation.value
        terms = value.terms if isinstance(value, Add) else ((Fraction(1), value),)
        return add([(f * factor if chosen(term) else f, term) for f, term in terms], value.axes)

    return change


def _has(*families: str) -> Callable[[Expr], bool]:
    return lambda term: set(families) <= {symbol.family for symbol in inputs_of(term)}


def _of(change: Change) -> Callable[[Equation], Expr]:
    return lambda equation: change(equation.value)


def _second(change: Callable[[Equation], Expr]) -> Fault:
    return _made("_second", lambda made: (_changed(made[0], change), made[1]))


def _moved(places: Any) -> Any:
    """The first two owners exchanged."""
    table = dict(places)
    first, second = list(table)[:2]
    return MappingProxyType({**table, first: table[second], second: table[first]})


def _shorter(original: Any) -> Any:
    """Windows of tangents of the layer below lack their last group."""

    def support(self: Any, expr: Any, axis: Any) -> tuple[int, int]:
        low, high = original(self, expr, axis)
        family = getattr(expr, "family", "")
        return (low, high - 1) if family == "ẋ" and high > 1 else (low, high)

    return support


def _without_multipliers(*families: str) -> Callable[[Any], Any]:
    """Tangents of some multipliers left out of the joint direction."""

    def wrap(original: Any) -> Any:
        def along(self: Summaries, number: int = 0, **named: Any) -> Any:
            found = original(self, number, **named)
            return {s: v for s, v in found.items() if v.family.rstrip("'") not in families}

        return along

    return wrap


def _half(expr: Expr) -> Expr:
    return scale(Fraction(1, 2), expr)


FAULTS: dict[str, Fault] = {
    "moves: sign": _equations("moves", _of(negative)),
    "pulls: sign": _equations("pulls", _of(negative)),
    "tangents: the move of the weights is missing": _equations("tangent", _terms(_has("Nx"), Fraction(0))),
    "tangents: the move of the biases doubled": _equations("tangent", _terms(_has("η"), Fraction(2))),
    "second tangents: N ẋ once, not twice": _second(_terms(_has("N"), Fraction(1, 2))),
    "second tangents: the curvature of the activation is missing": _second(_terms(_has("ȧ"), Fraction(0))),
    "diagonal of order 3: without second tangents": _made("_second", lambda made: (made[0], {})),
    "diagonal of order 3: one second tangent is missing": _made(
        "_second", lambda made: (made[0], dict(list(made[1].items())[:-1]))
    ),
    "diagonal of order 3: halved": _equations("third", _of(_half)),
    "order 1: sign of the biases": _equations("gradient", _terms(_has("η"), Fraction(-1))),
    "order 2: terms with pulls once": _equations("hessian", _terms(_has("Nᵀy"), Fraction(1, 2))),
    "all of order 3: without ḃ": _name(Summaries, "_along", _without_multipliers("ḃ")),
    "all of order 3: without ẏ": _name(Summaries, "_along", _without_multipliers("ẏ")),
    "tangents of the adjoints: sign": _equations("adjoint_tangent", _of(negative)),
    "the state regularisation is missing": _name(terms, "state_regularizer", lambda f: lambda *a: zero(())),
    "owners: two exchanged": _name(planning, "owners_of", lambda f: lambda d: _moved(f(d))),
    "windows: too short": _name(windows.Windows, "_support", _shorter),
    "windows: assigned where they are added to": _name(windows, "_overlap", lambda f: lambda *a: False),
    "windows: of the first owner": _name(windows.Windows, "_owner", lambda f: lambda self, symbol: (0, 1)),
}


SELDOM = (
    "pulls: sign",
    "tangents: the move of the biases doubled",
    "second tangents: N ẋ once, not twice",
    "diagonal of order 3: without second tangents",
    "diagonal of order 3: halved",
    "all of order 3: without ḃ",
)
"""At places where others of these faults are too."""


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name in SELDOM else ()) for name in FAULTS]
)
def test_fault_is_caught(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong sign, factor, window or owner, or a missing term."""
    with FAULTS[name](monkeypatch):
        found = caught_by()
    assert found, name
    # What is wrong before the lowering is wrong after it too.
    assert "program" in found
    assert ("systems" in found) == (not name.startswith(("owners", "windows")))


# ── the rows of sifrc verify ──────────────────────────────────────────────────────────────────────────


SMALL = build_spec(
    {
        "target": {"backend": "torch", "operators": ["summary"]},
        "sifrc": 1,
        "name": "small",
        "network": {
            "input": {"name": "image", "size": 2},
            "layers": [
                {"name": "fc1", "type": "dense", "units": 2, "activation": "tanh"},
                {"name": "fc2", "type": "dense", "units": 2, "activation": "tanh"},
                {"name": "sum1", "type": "add", "inputs": ["fc2", "image"]},
                {"name": "fc3", "type": "dense", "units": 1},
            ],
        },
        "loss": "squared_error",
        "regularization": {"state": 0.1},
        "dtype": "float64",
        "partition": "weights-biases",
    }
)
"""With few groups and states, which are what the oracle's derivatives cost."""


def rows_that_fail() -> set[str]:
    """Which rows of levels 1 and 2 do not pass, by their oracle."""
    rows = [row for row in verify(SMALL, levels=(1, 2), digits=30).rows if row.quantity == "summary"]
    return {row.oracle for row in rows if not row.passed}


def test_without_a_fault_all_rows_pass() -> None:
    assert rows_that_fail() == set()


@pytest.mark.parametrize("every", [8, pytest.param(1, marks=pytest.mark.slow)])
def test_every_fault_fails_a_row_and_every_row_sees_faults(
    every: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The oracle of level 2 sees them all."""
    seen: dict[str, set[str]] = {}
    for name in list(FAULTS)[::every]:
        with FAULTS[name](monkeypatch):
            seen[name] = rows_that_fail()
    assert all(rows for rows in seen.values()), seen
    # Where the derivation itself breaks, every row has failed, under no oracle's name.
    seen_by = {name: {"nested duals", ""} & rows for name, rows in seen.items()}
    assert all(seen_by.values()), seen
    proved = [name for name, rows in seen.items() if "normal form" in rows or "30 digits" in rows]
    related = [name for name, rows in seen.items() if "identities" in rows]
    assert proved and related
    assert every > 1 or (len(proved) >= 12 and len(related) >= 15), (proved, related)


def _strength(original: Any) -> Any:
    """Twice the internal damping."""

    def node(matrix: Expr, rhs: Expr, third: Expr, strength: Expr, unbounded: str) -> Expr:
        return original(matrix, rhs, third, scale(2, strength), unbounded)

    return node


STEP_FAULTS: dict[str, Fault] = {
    "the cubic term twice": _name(grouped_newton, "CubicNewton", _strength),
    "averages with the decays exchanged": _name(
        grouped_newton, "_averaged", lambda f: lambda decay, old, new: f(decay, new, old)
    ),
    "rates without their positive part": _name(grouped_newton, "_positive", lambda f: lambda value: value),
    "rates of other groups": _name(planning, "owners_of", lambda f: lambda d: _moved(f(d))),
    "the step uphill": _name(
        grouped_newton,
        "subtract",
        lambda f: lambda left, right: add([(Fraction(1), left), (Fraction(1), right)], left.axes),
    ),
    "order 2 halved": _equations("hessian", _of(_half)),
    "diagonal of order 3: halved": _equations("third", _of(_half)),
}


STEPPED = build_spec(
    {
        **CASES["tanh_cross_entropy_2"],
        "partition": "canonical",
        "method": {"name": "grouped_newton", "internal_damping": 1.0},
    }
)
"""With few groups, some of whose rates are negative."""


def step_fails() -> bool:
    """Level 2 of a step."""
    try:
        (row,) = (check() for _, _, check in step_rows(STEPPED, 30, 0))
        return row is None or not row.passed
    except Exception:
        return True


@pytest.mark.parametrize("name", STEP_FAULTS)
def test_fault_of_the_step_is_caught(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong model, average, bound, owner or sign; or wrong summaries."""
    with STEP_FAULTS[name](monkeypatch):
        assert step_fails()


def test_without_a_fault_nothing_is_caught() -> None:
    """The checks pass on the code as it is: after all faults too, so that none of them stays."""
    assert caught_by() == []
    assert not step_fails()
