"""Level 2 of the ladder: the program, interpreted at many digits on batches of one and two."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import mpmath

from sifrc.catalogue.record import Operator
from sifrc.derive.curvature.kinds import Kind
from sifrc.lower.program import Program
from sifrc.model import Model
from sifrc.spec.canonical import spec_hash
from sifrc.spec.types import Spec
from sifrc.verify.capped import capped
from sifrc.verify.laws import exact_limit
from sifrc.verify.oracles.batch_mpmath import PreciseBatch, settled
from sifrc.verify.points import parameter_count, random_point
from sifrc.verify.records import Looked
from sifrc.verify.rows import LAWS, Check, Level, has_blocks
from sifrc.verify.subjects.base import Subject
from sifrc.verify.subjects.program import ProgramSubject, program_of
from sifrc.verify.table import Row

__all__ = ["precise_rows"]

_DUALS, _ALGEBRA, _LIMITS = "nested duals", "nested duals, dense algebra", "exact limits"
_CAPS = ((80, 4), (40, 3))
"""Up to so many parameters a network is taken as it is, or its layers are capped: plain operators, others."""


class _Precise(Level):
    whole = 24

    def __init__(self, spec: Spec, looked: Looked, digits: int, seed: int) -> None:
        super().__init__(spec, looked, 2)
        self.digits, self.seed = digits, seed
        self._lowered: dict[tuple[str, ...], tuple[Model, Program]] = {}
        self._oracles: dict[tuple[str, int, bool, int], PreciseBatch] = {}

    def subjects(self, operator: Operator, attempt: int) -> Iterator[Subject]:
        spec, _ = self._small(operator)
        near = operator.partitioned or attempt > 0
        for size in (1, 2) if operator.batched and not operator.plain else (1,):
            yield ProgramSubject(
                self._oracle(spec, size, near, attempt),
                operator.batched,
                lambda: self._program(spec, operator),
            )

    def _small(self, operator: Operator) -> tuple[Spec, int]:
        """The network, with capped layers where it is large, and the cap."""
        largest, cap = _CAPS[0 if operator.plain else 1]
        if operator.partitioned:
            largest, cap = 0, 2 if self.spec.partition.kind == "discrete" else cap
        return (self.spec, 0) if parameter_count(self.spec) <= largest else (capped(self.spec, cap), cap)

    def _oracle(self, spec: Spec, size: int, near: bool, attempt: int) -> PreciseBatch:
        key = spec_hash(spec), size, near, attempt
        if key not in self._oracles:
            seed = self.seed + 101 * attempt + size
            point = random_point(spec, seed, size)
            point = settled(spec, point, seed) if near else point
            self._oracles[key] = PreciseBatch(spec, point, seed, self.digits)
        return self._oracles[key]

    def _program(self, spec: Spec, operator: Operator) -> tuple[Model, Program]:
        """The program of all operators of its sort."""
        names = tuple(r.name for r in self.looked.records if self._small(r)[0] == spec)
        if names not in self._lowered:
            self._lowered[names] = program_of(spec, names)
        return self._lowered[names]

    def required(self, operator: Operator) -> float:
        return self.digits - 10.0

    def notes(self, operator: Operator) -> list[str]:
        spec, cap = self._small(operator)
        notes = [f"layers capped at {cap} units"] if cap else []
        notes += [] if operator.plain else ["batches of 1 and 2"]
        along = operator.plain and parameter_count(spec) > _CAPS[0][0]
        return [*notes, *(["along random directions"] if along else [])]


def _rewritten(kind: Kind) -> bool:
    """Whether a kind is neither second derivatives nor factored."""
    plain = (kind.residual, kind.output) in (("kept", "kept"), ("dropped", "kept"))
    return not kind.factored and (kind.expectation or not plain)


def precise_rows(spec: Spec, looked: Looked, digits: int, seed: int) -> Iterator[Check]:
    """The checks of level 2.

    Args:
        spec: the network.
        looked: what is looked at.
        digits: precision; ten fewer must agree.
        seed: of the random points.
    """
    level = _Precise(spec, looked, digits, seed)

    def at_precision(make: Callable[[], Row | None]) -> Callable[[], Row | None]:
        def run() -> Row | None:
            with mpmath.workdps(digits):
                return make()

        return run

    for operator in looked.records:
        checks = [(_ALGEBRA if operator.kinds else _DUALS, level.meanings(operator))]
        if has_blocks(operator) and any(map(_rewritten, looked.kinds.values())):
            checks.append((_LIMITS, level.of_kinds(operator, exact_limit, _rewritten)))
        if operator.partitioned:
            checks.append((LAWS, level.laws(operator)))
        for oracle, check in checks:
            yield (
                operator.name,
                oracle,
                at_precision(lambda o=operator, n=oracle, c=check: level.row(o, n, c)),  # type: ignore[misc]
            )
