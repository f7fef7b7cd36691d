"""Rows of verification at the third level for a random spec; one that fails is looked at more closely."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
from spec_arrays import error_of, finite, largest
from spec_findings import Finding, Tally, of_call
from spec_points import expected, largest_inside, moved, precise

from sifrc.errors import SifrcError
from sifrc.spec.types import Spec
from sifrc.verify import generated, laws, meaning
from sifrc.verify.comparison import EPSILON, separate_digits
from sifrc.verify.generated import generated_rows
from sifrc.verify.points import random_point
from sifrc.verify.records import looked_at
from sifrc.verify.rows import Check
from sifrc.verify.subjects import module as subject

__all__ = ["NOISE", "compare_rows"]

_BATCH = 3
_MANY_DIGITS = 400
_ROUNDING = 1e-11
"""Relative error at which the oracle cannot tell a fault in a row from its own rounding."""
_ZEROS = {"float64": 1e-11, "float32": 1e-4}
"""What is left where everything cancels, by dtype."""
_LARGE = 1e4
"""States beyond which third derivatives are what is left of much larger terms."""
NOISE = 64.0
"""How many times what the last bits of the point change a number may be off."""
_MOVES = 3
_MOST_GROUPS = 24

Make: TypeAlias = Callable[[int], Any]
"""Rows for a seed."""


def compare_rows(
    spec: Spec, modules: Mapping[str, Any], seed: int, tally: Tally, blocks: Iterable[str], summary: bool
) -> None:
    """Compare Newton directions, blocks and summaries of the modules with the oracles of verification.

    Args:
        spec: of the modules.
        modules: ``torch`` and ``numpy`` to a module.
        seed: of the point.
        tally: takes counts and findings.
        blocks: operators on blocks that the modules have.
        summary: whether they have summaries.
    """
    if largest_inside(spec, random_point(spec, seed, _BATCH)) > _LARGE:
        tally.counts["specs with too large states for rows"] += 1
        return
    wanted = {
        "newton": ["newton_direction"],
        "blocks": list(blocks),
        "summary": ["summary"] if summary else [],
    }
    for framework, module in modules.items():
        for part, names in wanted.items():
            if names:

                def make(s: int, n: list[str] = names, m: Any = module, f: str = framework) -> list[Check]:
                    return list(generated_rows(spec, looked_at(spec, n, m), m, f, s))

                with np.errstate(all="ignore"):
                    _Rows(spec, part, framework, make, seed, tally).compare()


@dataclass
class _Digits:
    """Digits of agreement as verification counts them, but for what is zero to rounding on both sides.

    Args:
        tally: counts numbers.
        dtype: of the module.
        noise: how far each number of each comparison moves with the last bits of the point.
        seen: what was compared, in order.
    """

    tally: Tally
    dtype: str
    noise: list[dict[str, Any]] | None = None
    seen: list[dict[str, Any]] = field(default_factory=list)

    def __call__(self, found: Mapping[str, Any], wanted: Mapping[str, Any], limit: float) -> Any:
        self.tally.counts["numbers compared"] += sum(np.size(value) for value in found.values())
        self.seen.append({name: np.array(value, dtype=np.float64) for name, value in found.items()})
        if max(largest(found), largest(wanted)) < _ZEROS[self.dtype]:
            return limit
        # Where a loss of zero cancels beside a small regularisation, its rounding stays.
        rounding: dict[str, Any] = dict.fromkeys(found, 32 * EPSILON[self.dtype])
        if self.noise is not None:
            own = self.noise[len(self.seen) - 1]
            rounding = {name: bound + NOISE * own[name] for name, bound in rounding.items()}
        settled = {
            name: np.where(np.abs(value - wanted[name]) <= rounding[name], wanted[name], value)
            if np.shape(value) == np.shape(wanted.get(name))
            else value
            for name, value in found.items()
        }
        return separate_digits(settled, wanted, limit)


@contextmanager
def _measuring(digits: _Digits, moves: int = 0) -> Iterator[None]:
    """Rows count digits like this, at a point whose last bits are changed in one of several ways."""
    modules: tuple[Any, ...] = (meaning, laws, generated)
    for module in modules:
        module.separate_digits = digits

    def point(spec: Spec, seed: int, batch: int = 1) -> Any:
        own = random_point(spec, seed, batch)
        return moved(own, seed + moves, EPSILON[spec.dtype]) if moves else own

    subject.random_point = point
    whole = generated.Generated.whole
    generated.Generated.whole = _MOST_GROUPS  # all of order 3 by nested derivatives takes a minute for 60
    try:
        yield
    finally:
        generated.Generated.whole = whole
        for module in modules:
            module.separate_digits = separate_digits
        subject.random_point = random_point


@dataclass
class _Rows:
    """The rows of one part of one module."""

    spec: Spec
    part: str
    framework: str
    make: Make
    seed: int
    tally: Tally

    def digits(self, noise: list[dict[str, Any]] | None = None) -> _Digits:
        return _Digits(self.tally, self.spec.dtype, noise)

    def compare(self) -> None:
        try:
            with _measuring(self.digits()):
                rows = self.make(self.seed)
        except Exception as error:
            self.excused(error, self.part)
            return
        for index, (quantity, oracle, check) in enumerate(rows):
            try:
                with _measuring(self.digits()):
                    row = check()
            except Exception as error:
                self.excused(error, quantity)
                continue
            if row is None or row.passed is None:
                continue
            if row.passed:
                self.tally.counts[f"rows of {self.part}"] += 1
            elif _rounding(self.spec, self.seed):
                self.tally.counts["rows whose oracle is rounding"] += 1
            else:
                self.look_again(row, index, f"{self.framework} {quantity} ({oracle})")

    def look_again(self, row: Any, index: int, place: str) -> None:
        """Other points, and what the last bits of the point make of the numbers, before it is a finding."""
        digits = [row.digits, *self.elsewhere(index)]
        few = sum(1 for each in digits if each is not None and each < (row.tolerance or 0) - 7)
        if few < 3 or few < len(digits):
            self.tally.counts["rows within rounding of what is ill-conditioned"] += 1
        elif self.within_noise(index):
            self.tally.counts["rows within rounding of terms that cancel"] += 1
        else:
            text = f"digits {' '.join(f'{d:.1f}' for d in digits)} of {row.tolerance:.1f}; {row.note[:60]}"
            self.tally.findings.append(Finding("wrong number", place, text))

    def elsewhere(self, index: int) -> list[float]:
        """Digits of one row at other points, where it can be compared."""
        found = []
        for turn in range(1, 5):
            try:
                with _measuring(self.digits()):
                    row = self.make(self.seed + 1000 * turn)[index][2]()
            except Exception:
                continue
            if row is not None and row.digits is not None:
                found.append(row.digits)
        return found

    def within_noise(self, index: int) -> bool:
        """Whether the row passes where what the last bits of the point change is not counted."""
        try:
            runs = []
            for moves in range(_MOVES + 1):
                digits = self.digits()
                with _measuring(digits, moves):
                    self.make(self.seed)[index][2]()
                runs.append(digits.seen)
            first, *others = runs
            noise = [
                {
                    name: max(largest({name: run[n][name] - value}) for run in others)
                    for name, value in each.items()
                }
                for n, each in enumerate(first)
            ]
            with _measuring(self.digits(noise)):
                return bool(self.make(self.seed)[index][2]().passed)
        except Exception:
            return False

    def excused(self, error: Exception, quantity: str) -> None:
        """An exception of a row: what is not finite is counted, anything else is a finding."""
        cause = error.__cause__ if isinstance(error.__cause__, Exception) else error
        text = str(cause)
        bad = isinstance(cause, FloatingPointError | np.linalg.LinAlgError) or "finite" in text
        if bad:
            self.tally.counts["rows that are not finite"] += 1
        elif isinstance(cause, SifrcError):
            self.tally.findings.append(Finding("wrong number", f"{self.framework} {quantity}", text[:120]))
        else:
            self.tally.findings.append(of_call(cause, quantity, self.framework))


def _rounding(spec: Spec, seed: int) -> bool:
    """Whether automatic differentiation in float64 itself has few digits: what should cancel does not."""
    point = random_point(spec, seed, _BATCH)
    values = expected(spec, point)
    if max(largest(values[name]) for name in ("gradient", "hessian_vector_product")) < _ZEROS[spec.dtype]:
        return True  # a constant
    for quantity in ("gradient", "hessian_vector_product"):
        exact = precise(spec, point, quantity) or precise(spec, point, quantity, _MANY_DIGITS)
        if exact is None:
            return True
        for name, wanted in values[quantity].items():
            found, right = {name: wanted}, {name: exact[name]}
            if not finite(found) or error_of(found, right) > _ROUNDING * (1e-3 + largest(found)):
                return True
    return False
