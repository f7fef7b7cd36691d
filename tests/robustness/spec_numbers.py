"""Numbers of a generated module against oracles that read the spec's own trees."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import mpmath
import numpy as np
import torch
from spec_findings import Finding, Tally, of_exception
from spec_points import (
    QUANTITIES,
    behind_a_constant,
    expected,
    few_digits,
    largest_in_formulas,
    largest_inside,
    moved,
    near_kink,
    point_of,
    precise,
)

from sifrc.errors import SifrcError
from sifrc.spec.types import Spec
from sifrc.verify import curvature_generated, summary_generated
from sifrc.verify.comparison import EPSILON, rounding_bound, separate_digits
from sifrc.verify.curvature_generated import curvature_generated_rows
from sifrc.verify.generated import generated_rows
from sifrc.verify.points import Point, random_point
from sifrc.verify.summary_generated import summary_generated_rows

__all__ = ["compare"]

VARIANTS = ("generic", "large", "zero")
_BATCH = 3
_ROUNDINGS = 8.0
_CONDITION = 300.0
_MANY_DIGITS = 400
_MORE_DIGITS = (400, 2000)
_DIGITS_BESIDE, _SIDES = 120, 24
_ROUNDING = 1e-11
"""Relative error at which the oracle cannot tell a fault in a row from its own rounding."""
_ZEROS = {"float64": 1e-11, "float32": 1e-4}
"""What is left where everything cancels, by dtype."""
_OVERFLOWING = {"float64": 1e50, "float32": 1e9}
"""States whose second derivatives may be beyond the numbers of the dtype."""
_LARGE = 1e4
"""States beyond which third derivatives are what is left of much larger terms."""
_CALLS = (
    ("loss", "loss"),
    ("objective", "objective"),
    ("gradient", "gradient"),
    ("objective_and_gradient", "gradient"),
    ("hessian_vector_product", "hessian_vector_product"),
    ("linearize", "hessian_vector_product"),
    ("linearize gauss_newton", "gauss_newton_vector_product"),
    ("gauss_newton_vector_product", "gauss_newton_vector_product"),
)
_KINDS = {"linearize": "hessian", "linearize gauss_newton": "gauss_newton"}


@dataclass
class _At:
    """A point with what the oracles say there; the costly parts when they are asked for."""

    spec: Spec
    point: Point
    variant: str
    seed: int
    values: dict[str, dict[str, Any]] = field(default_factory=dict)
    exact: dict[str, dict[str, Any] | None] = field(default_factory=dict)
    spreads: dict[str, float] | None = None
    kink: bool | None = None

    def precise(self, quantity: str) -> dict[str, Any] | None:
        if quantity not in self.exact:
            found = precise(self.spec, self.point, quantity)
            # 1 + exp(-300) is 1 with few digits, and its logarithm has no end.
            self.exact[quantity] = found or precise(self.spec, self.point, quantity, _MANY_DIGITS)
        return self.exact[quantity]

    def continued(self, quantity: str, found: Mapping[str, Any], bound: float) -> str:
        """What a number is worth where the quantity has none: its limit from all sides, or from some."""
        same = set()
        for seed in range(1, _SIDES + 1):
            key = f"{quantity} beside {seed}"
            if key not in self.exact:
                self.exact[key] = precise(self.spec, self.point, quantity, _DIGITS_BESIDE, seed)
            beside, agrees = self.exact[key], False
            if beside is not None:
                agrees = _error(found, beside) <= bound * max(float(_largest_of(beside)), 1.0)
            same.add(agrees)
            if len(same) == 2:
                return "continued from one side"
        return "continued" if True in same else ""

    def spread(self, quantity: str) -> float:
        """How far the oracle moves with the last bits of the point."""
        if self.spreads is None:
            self.spreads = dict.fromkeys(QUANTITIES, 0.0)
            for turn in range(3):
                other = expected(self.spec, moved(self.point, self.seed + turn, EPSILON[self.spec.dtype]))
                for name, value in other.items():
                    self.spreads[name] = max(self.spreads[name], _distance(value, self.values[name]))
        return self.spreads[quantity]

    def near_kink(self) -> bool:
        if self.kink is None:
            self.kink = near_kink(self.spec, self.point)
        return self.kink


def compare(
    spec: Spec, modules: Mapping[str, Any], seed: int, tally: Tally, blocks: Iterable[str], summary: bool
) -> None:
    """Compare what the modules compute with the oracles, at several points.

    Args:
        spec: of the modules.
        modules: ``torch`` and ``numpy`` to a module.
        seed: of the points.
        tally: takes counts and findings.
        blocks: operators on blocks that the modules have.
        summary: whether they have summaries.
    """
    for module in (curvature_generated, summary_generated):
        module.separate_digits = _Counting(tally, spec.dtype)  # type: ignore[attr-defined]
    for turn, variant in enumerate(VARIANTS):
        at = _At(spec, point_of(spec, seed + turn, _BATCH, variant), variant, seed)
        with np.errstate(all="ignore"):
            at.values = expected(spec, at.point)
            for framework, module in modules.items():
                for operator, quantity in _CALLS:
                    _compare_call(at, module, framework, operator, quantity, tally)
    if largest_inside(spec, random_point(spec, seed, _BATCH)) > _LARGE:
        tally.counts["specs with too large states for rows"] += 1
        return
    for framework, module in modules.items():
        rows: list[tuple[str, Callable[[int], Any]]] = [
            ("newton", lambda s, m=module, f=framework: generated_rows(spec, m, f, s)),
            (
                "blocks",
                lambda s, m=module, f=framework: curvature_generated_rows(spec, list(blocks), m, f, s),
            ),
        ]
        if summary:
            rows.append(("summary", lambda s, m=module, f=framework: summary_generated_rows(spec, m, f, s)))
        for part, make in rows:
            with np.errstate(all="ignore"):
                _compare_rows(spec, part, framework, make, seed, tally)


def _compare_call(at: _At, module: Any, framework: str, operator: str, quantity: str, tally: Tally) -> None:
    function = getattr(module, operator.partition(" ")[0], None)
    if function is None or (operator in _KINDS and not hasattr(module, quantity)):
        return
    label = f"{framework} {operator}"
    try:
        found = _called(function, operator, at, framework)
    except FloatingPointError:
        tally.counts["refused at run time"] += 1
        return
    except Exception as error:
        tally.findings.append(_of_call(error, operator, framework))
        return
    verdict, detail = _verdict(at, quantity, found)
    if verdict == "wrong number" and few_digits(at.spec, at.point):
        verdict, detail = "ill-conditioned as written", ""
    tally.counts[verdict] += 1
    if verdict == "compared":
        tally.counts["numbers compared"] += sum(np.size(value) for value in found.values())
    if detail:
        # What has no value, or overflows, mostly does so in all operators: one fault.
        place = label if verdict == "wrong number" else f"at a {at.variant} point"
        tally.findings.append(Finding(verdict, place, f"{label}: {detail}"))


def _called(function: Any, operator: str, at: _At, framework: str) -> dict[str, Any]:
    """The result of an operator as float64 arrays by name."""
    point, dtype = at.point, at.spec.dtype

    def given(value: Any) -> Any:
        value = np.array(value)
        value = value.astype(dtype) if value.dtype.kind == "f" else value
        return torch.from_numpy(value) if framework == "torch" else value

    params = {name: given(value) for name, value in point.params.items()}
    vector = {name: given(value) for name, value in point.vector.items()}
    arguments = (params, given(point.inputs), given(point.targets))
    if operator in _KINDS:
        result = function(*arguments, _KINDS[operator])(vector)
    elif operator.endswith("product"):
        result = function(*arguments, vector)
    else:
        result = function(*arguments)
    if operator == "objective_and_gradient":
        result = result[1]
    if not isinstance(result, Mapping):
        result = {"value": result}
    return {name: np.asarray(value, dtype=np.float64) for name, value in result.items()}


def _verdict(at: _At, quantity: str, found: dict[str, Any]) -> tuple[str, str]:
    """What a result is worth: ``compared``, a reason to leave it out, or a kind of finding with a detail."""
    wanted = at.values[quantity]
    if {n: np.shape(v) for n, v in found.items()} != {n: np.shape(v) for n, v in wanted.items()}:
        return "wrong number", "names or shapes differ"
    bound = _ROUNDINGS * rounding_bound(at.spec, quantity, at.spec.dtype)
    scale = max(_largest(value) for value in at.values.values()) if _finite(wanted) else 0.0
    finite = _finite(found), _finite(wanted)
    if finite == (True, True):
        scale = scale if np.isfinite(scale) else _largest(wanted)
        error = _distance(found, wanted)
        if error <= bound * max(scale, 1e-300):
            return "compared", ""
        if error <= bound * max(_largest(wanted), 1.0) + _CONDITION * at.spread(quantity):
            return "compared", ""
    elif finite == (False, False):
        return "not finite, as the oracle", ""
    exact = at.precise(quantity)
    if exact is None:
        if finite[0] and not finite[1]:
            if worth := at.continued(quantity, found, bound):
                return worth, ""
            if at.near_kink():
                return "at a kink", ""
            if behind_a_constant(at.spec):
                return "behind a constant", ""
            return "a number where there is none", f"{_shown(found)} where real numbers have no value"
        return "without reference", ""
    largest = _largest_of(exact)
    if largest > 1e290 or (finite == (False, True) and not np.isfinite(at.spread(quantity))):
        return "too large", ""
    if not finite[0] and largest_in_formulas(at.spec, at.point) > _OVERFLOWING[at.spec.dtype]:
        return "too large", ""
    if not finite[0] and at.near_kink():
        return "at a kink", ""
    if not finite[0]:
        return "not finite", f"the oracle has {_shown(wanted)}"
    error = _error(found, exact)
    if error > bound * max(float(largest), scale, 1e-300):
        # What cancels is left as the rounding of few digits.
        more = [precise(at.spec, at.point, quantity, digits) for digits in _MORE_DIGITS]
        if None in more or _error(more[0], more[1]) > bound * float(_largest_of(more[1])):
            return "without reference", ""
        exact = more[1]
        largest = _largest_of(exact)
        error = _error(found, exact)
    allowed = bound * max(float(largest), scale, 1e-300)
    if at.variant == "large":
        # Terms of first and second derivatives that cancel are that large.
        inside = min(largest_in_formulas(at.spec, at.point), _OVERFLOWING[at.spec.dtype])
        allowed += EPSILON[at.spec.dtype] * inside ** (
            1 if quantity in ("loss", "objective", "gradient") else 2
        )
    if finite[1]:
        allowed += _CONDITION * (at.spread(quantity) + _error(wanted, exact))
    else:
        allowed = 1e-6 * float(largest) + bound
    if error <= allowed:
        return "compared", ""
    if at.near_kink():
        return "at a kink", ""
    return (
        "wrong number",
        f"off by {error:.1e}, allowed {allowed:.1e}: {_shown(found)}, right {_shown(exact)}",
    )


def _error(values: Mapping[str, Any], exact: Mapping[str, Any]) -> float:
    """The largest distance from numbers of many digits."""
    pairs = [
        pair for n, value in exact.items() for pair in zip(np.ravel(values[n]), value.ravel(), strict=True)
    ]
    distances = (abs((a if isinstance(a, mpmath.mpf) else mpmath.mpf(float(a))) - b) for a, b in pairs)
    return float(max(distances, default=0.0))


def _largest_of(exact: Mapping[str, Any]) -> Any:
    return max((abs(entry) for value in exact.values() for entry in value.ravel()), default=mpmath.mpf(0))


def _finite(values: Mapping[str, Any]) -> bool:
    return all(bool(np.isfinite(value).all()) for value in values.values())


def _largest(values: Mapping[str, Any]) -> float:
    return max((float(np.abs(value).max(initial=0.0)) for value in values.values()), default=0.0)


def _distance(one: Mapping[str, Any], other: Mapping[str, Any]) -> float:
    return max((float(np.abs(one[n] - other[n]).max(initial=0.0)) for n in other), default=0.0)


def _shown(values: Mapping[str, Any]) -> str:
    flat = [f"{float(entry):.6g}" for value in values.values() for entry in np.ravel(value)]
    return "[" + " ".join(flat[:4]) + (" …]" if len(flat) > 4 else "]")


def _of_call(error: Exception, operator: str, framework: str) -> Finding:
    found = of_exception(error)
    return Finding("raw error", f"{type(error).__name__} in {framework} {operator}", found.detail)


def _compare_rows(
    spec: Spec, part: str, framework: str, make: Callable[[int], Any], seed: int, tally: Tally
) -> None:
    """Checks of verification at level 3; one that fails is tried at other points before it is a finding."""
    try:
        rows = [row for row in make(seed) if part != "newton" or row[0] == "newton_direction"]
    except Exception as error:
        _excused(error, part, framework, tally)
        return
    for index, (quantity, oracle, check) in enumerate(rows):
        try:
            row = check()
        except Exception as error:
            _excused(error, quantity, framework, tally)
            continue
        if row is None or row.passed is None:
            continue
        if row.passed:
            tally.counts[f"rows of {part}"] += 1
            continue
        if _rounding(spec, seed):
            tally.counts["rows whose oracle is rounding"] += 1
            continue
        digits = [row.digits, *_elsewhere(part, make, seed, index)]
        few = sum(1 for each in digits if each is not None and each < (row.tolerance or 0) - 7)
        if few >= 3 and few == len(digits):
            text = f"digits {' '.join(f'{d:.1f}' for d in digits)} of {row.tolerance:.1f}; {row.note[:60]}"
            tally.findings.append(Finding("wrong number", f"{framework} {quantity} ({oracle})", text))
        else:
            tally.counts["rows within rounding of what is ill-conditioned"] += 1


class _Counting:
    """Digits of agreement as verification counts them, but for what is zero to rounding on both sides."""

    def __init__(self, tally: Tally, dtype: str) -> None:
        self.tally, self.zero, self.rounding = tally, _ZEROS[dtype], 32 * EPSILON[dtype]

    def __call__(self, found: Mapping[str, Any], wanted: Mapping[str, Any], limit: float) -> float:
        self.tally.counts["numbers compared"] += sum(np.size(value) for value in found.values())
        if max(_largest(found), _largest(wanted)) < self.zero:
            return limit
        # Where a loss of zero cancels beside a small regularisation, its rounding stays.
        settled = {
            name: np.where(np.abs(value - wanted[name]) <= self.rounding, wanted[name], value)
            if np.shape(value) == np.shape(wanted.get(name))
            else value
            for name, value in found.items()
        }
        return separate_digits(settled, wanted, limit)


def _rounding(spec: Spec, seed: int) -> bool:
    """Whether automatic differentiation in float64 itself has few digits: what should cancel does not."""
    at = _At(spec, random_point(spec, seed, _BATCH), "generic", seed)
    values = expected(spec, at.point)
    for quantity in ("gradient", "hessian_vector_product"):
        exact = at.precise(quantity)
        if exact is None:
            return True
        for name, wanted in values[quantity].items():
            found, right = {name: wanted}, {name: exact[name]}
            if not _finite(found) or _error(found, right) > _ROUNDING * (1e-3 + _largest(found)):
                return True
    return False


def _elsewhere(part: str, make: Callable[[int], Any], seed: int, index: int) -> list[float]:
    """Digits of one row at other points, where it can be compared."""
    found = []
    for turn in range(1, 5):
        try:
            rows = [
                row for row in make(seed + 1000 * turn) if part != "newton" or row[0] == "newton_direction"
            ]
            row = rows[index][2]()
        except Exception:
            continue
        if row is not None and row.digits is not None:
            found.append(row.digits)
    return found


def _excused(error: Exception, quantity: str, framework: str, tally: Tally) -> None:
    """An exception of a row: what is not finite is counted, anything else is a finding."""
    cause = error.__cause__ if isinstance(error.__cause__, Exception) else error
    text = str(cause)
    if isinstance(cause, FloatingPointError) or "finite" in text or isinstance(cause, np.linalg.LinAlgError):
        tally.counts["rows that are not finite"] += 1
    elif isinstance(cause, SifrcError):
        tally.findings.append(Finding("wrong number", f"{framework} {quantity}", text[:120]))
    else:
        tally.findings.append(_of_call(cause, quantity, framework))
