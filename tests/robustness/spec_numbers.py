"""Numbers of a generated module against oracles that read the spec's own trees."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from spec_arrays import distance, error_of, finite, largest, largest_of, shown
from spec_findings import Finding, Tally, of_call
from spec_points import (
    QUANTITIES,
    behind_a_constant,
    beyond,
    expected,
    few_digits,
    largest_in_formulas,
    largest_inside,
    moved,
    near_kink,
    point_of,
    precise,
)
from spec_rows import NOISE, compare_rows

from sifrc.spec.types import Spec
from sifrc.verify.comparison import EPSILON, rounding_bound
from sifrc.verify.points import Point

__all__ = ["compare"]

VARIANTS = ("generic", "large", "zero")
_BATCH = 3
_ROUNDINGS = 8.0
_CONDITION = 300.0
_MORE_DIGITS = (400, 2000)
_DIGITS_BESIDE, _SIDES, _ENOUGH = 120, 24, 6
_OVERFLOWING = {"float64": 1e50, "float32": 1e9}
"""States whose second derivatives may be beyond the numbers of the dtype."""
_INSIDE = 1e3
"""Numbers in formulas at points that are not large, whose squares a rounding may have."""
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
_MOVES = 3
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
            for digits in _MORE_DIGITS:
                found = found or precise(self.spec, self.point, quantity, digits)
            self.exact[quantity] = found
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
                agrees = error_of(found, beside) <= bound * max(float(largest_of(beside)), 1.0)
            same.add(agrees)
            if len(same) == 2:
                return "continued from one side"
            if agrees and seed == _ENOUGH:
                return "continued"
        return ""

    def spread(self, quantity: str) -> float:
        """How far the oracle moves with the last bits of the point."""
        if self.spreads is None:
            self.spreads = dict.fromkeys(QUANTITIES, 0.0)
            for turn in range(3):
                other = expected(self.spec, moved(self.point, self.seed + turn, EPSILON[self.spec.dtype]))
                for name, value in other.items():
                    self.spreads[name] = max(self.spreads[name], distance(value, self.values[name]))
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
    for turn, variant in enumerate(VARIANTS):
        at = _At(spec, point_of(spec, seed + turn, _BATCH, variant), variant, seed)
        with np.errstate(all="ignore"):
            at.values = expected(spec, at.point)
            for framework, module in modules.items():
                for operator, quantity in _CALLS:
                    _compare_call(at, module, framework, operator, quantity, tally)
    compare_rows(spec, modules, seed, tally, blocks, summary)


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
        tally.findings.append(of_call(error, operator, framework))
        return
    verdict, detail = _verdict(at, quantity, found)
    if verdict == "wrong number" and few_digits(at.spec, at.point):
        verdict, detail = "ill-conditioned as written", ""
    if verdict == "wrong number" and _within_noise(function, operator, at, framework, quantity, found):
        verdict, detail = "within rounding of terms that cancel", ""
    tally.counts[verdict] += 1
    if verdict == "compared":
        tally.counts["numbers compared"] += sum(np.size(value) for value in found.values())
    if detail:
        # What has no value, or overflows, mostly does so in all operators: one fault.
        place = label if verdict == "wrong number" else f"at a {at.variant} point"
        tally.findings.append(Finding(verdict, place, f"{label}: {detail}"))


def _within_noise(
    function: Any, operator: str, at: _At, framework: str, quantity: str, found: dict[str, Any]
) -> bool:
    """Whether a result is off by what the last bits of the point make of it."""
    exact = at.precise(quantity)
    if exact is None or {n: np.shape(v) for n, v in found.items()} != {n: v.shape for n, v in exact.items()}:
        return False
    noise = 0.0
    for turn in range(1, _MOVES + 1):
        point = moved(at.point, at.seed + turn, EPSILON[at.spec.dtype])
        noise = max(noise, distance(_called(function, operator, replace(at, point=point), framework), found))
    return error_of(found, exact) <= NOISE * noise


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
    scale = max(largest(value) for value in at.values.values()) if finite(wanted) else 0.0
    both = finite(found), finite(wanted)
    if both == (True, True):
        scale = scale if np.isfinite(scale) else largest(wanted)
        error = distance(found, wanted)
        if error <= bound * max(scale, 1e-300):
            return "compared", ""
        if error <= bound * max(largest(wanted), 1.0) + _CONDITION * at.spread(quantity):
            return "compared", ""
    elif both == (False, False):
        return "not finite, as the oracle", ""
    exact = at.precise(quantity)
    if exact is None:
        if both[0] and not both[1]:
            if worth := at.continued(quantity, found, bound):
                return worth, ""
            if at.near_kink():
                return "at a kink", ""
            if behind_a_constant(at.spec):
                return "behind a constant", ""
            if beyond(at.spec, at.point, quantity):
                return "too large", ""
            if at.variant == "zero" and not np.isfinite(largest_inside(at.spec, at.point)):
                # BLAS may leave out what a weight of zero multiplies.
                return "zero times what is not a number", ""
            return "a number where there is none", f"{shown(found)} where real numbers have no value"
        return "without reference", ""
    size = largest_of(exact)
    if size > 1e290 or (both == (False, True) and not np.isfinite(at.spread(quantity))):
        return "too large", ""
    if not both[0]:
        inside = largest_in_formulas(at.spec, at.point)
        # Beside such a number another one is lost, and with it what keeps a norm from being zero.
        lost = at.variant == "large" and inside > 1 / EPSILON[at.spec.dtype]
        if lost or inside > _OVERFLOWING[at.spec.dtype]:
            return "too large", ""
    if not both[0] and at.near_kink():
        return "at a kink", ""
    if not both[0]:
        return "not finite", f"the oracle has {shown(wanted)}"
    error = error_of(found, exact)
    if error > bound * max(float(size), scale, 1e-300):
        # What cancels is left as the rounding of few digits.
        more = [precise(at.spec, at.point, quantity, digits) for digits in _MORE_DIGITS]
        if None in more or error_of(more[0], more[1]) > bound * float(largest_of(more[1])):
            return "without reference", ""
        exact = more[1]
        size = largest_of(exact)
        error = error_of(found, exact)
    allowed = bound * max(float(size), scale, 1e-300)
    power = 1 if quantity in ("loss", "objective", "gradient") else 2
    # Terms of first and second derivatives that cancel are that large.
    most = _OVERFLOWING[at.spec.dtype] if at.variant == "large" else _INSIDE
    allowed += EPSILON[at.spec.dtype] * min(largest_in_formulas(at.spec, at.point), most) ** power
    if both[1]:
        allowed += _CONDITION * (at.spread(quantity) + error_of(wanted, exact))
    else:
        states = min(largest_inside(at.spec, at.point), _OVERFLOWING[at.spec.dtype])
        allowed = 1e-6 * float(size) + bound + EPSILON[at.spec.dtype] * states**power
    if error <= allowed:
        return "compared", ""
    if at.near_kink():
        return "at a kink", ""
    return (
        "wrong number",
        f"off by {error:.1e}, allowed {allowed:.1e}: {shown(found)}, right {shown(exact)}",
    )
