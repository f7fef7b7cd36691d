"""What levels 2 and 3 of the ladder have in common: every operator of a subject against what it means.

They go over the records: each case, each value of its arguments, each kind of curvature.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

from sifrc.catalogue.meaning import Along, Blocks, Meaning, NewtonDirection
from sifrc.catalogue.record import Case, KindPlan, Operator
from sifrc.derive.curvature.kinds import Kind
from sifrc.errors import VerificationError, words_of
from sifrc.spec.types import Spec
from sifrc.verify.laws import orders_agree, symmetric
from sifrc.verify.meaning import agreement
from sifrc.verify.records import Looked, described
from sifrc.verify.subjects.base import Choices, Subject, choices_of
from sifrc.verify.summary_parts import FEW
from sifrc.verify.table import Row

__all__ = ["LAWS", "MATRIX", "Check", "Finding", "Level", "has_blocks", "is_newton"]

Check = tuple[str, str, Callable[[], Row | None]]
"""Quantity, oracle, and what makes the row; None where there is nothing to check."""

Finding = Callable[[Subject], Iterator[tuple[float, str]]]
"""What finds at a subject digits that agree, and where they do."""

LAWS = "identities"
"""Oracle of relations between results."""
_ATTEMPTS = 5
MATRIX = 2048
"""Up to this many groups orders 2 and 3 are looked at."""


class Level:
    """What the two levels have in common.

    Args:
        spec: the network that is looked at.
        looked: records and kinds.
        number: of the level.
    """

    whole: int
    """Up to this many groups all of order 3 is looked at."""

    def __init__(self, spec: Spec, looked: Looked, number: int) -> None:
        self.spec, self.looked, self.number = spec, looked, number
        self.groups = 0

    def subjects(self, operator: Operator, attempt: int) -> Iterator[Subject]:
        """At random points, others in every attempt."""
        raise NotImplementedError

    def required(self, operator: Operator) -> float:
        """Digits that must agree."""
        raise NotImplementedError

    def notes(self, operator: Operator) -> list[str]:
        """What the row says of the subjects."""
        raise NotImplementedError

    def small_enough(self, case: Case, kind: KindPlan | None, subject: Subject) -> bool:
        """Whether the results of a case are small enough to be compared."""
        orders = [r.meaning for r in case.results if isinstance(r.meaning, Along)]
        size = len(subject.oracle.parts) if orders else 0
        self.groups = size or self.groups
        limit = self.whole
        return all(size <= (limit if meaning.full else MATRIX) for meaning in orders if meaning.order > 1)

    def choices(self, case: Case) -> Iterator[Choices]:
        """Values of the arguments, all that a module is called with; a program knows cases alone."""
        every = choices_of(case)
        return every if self.number == 3 else islice(every, 1)

    def kinds(self, operator: Operator) -> list[tuple[KindPlan | None, Kind | None]]:
        return [
            (plan, None if plan is None else self.looked.kinds[plan.name]) for plan, _ in operator.starts()
        ]

    # -- checks

    def meanings(self, operator: Operator) -> Finding:
        """Digits of every result in every case, and where."""

        def check(subject: Subject) -> Iterator[tuple[float, str]]:
            for plan, kind in self.kinds(operator):
                where = "" if kind is None else f"worst: {kind.name}, batch of {subject.samples}"
                with _named(kind):
                    for case in operator.fitting(plan):
                        if not self.small_enough(case, plan, subject):
                            continue
                        for choices in self.choices(case):
                            for meaning, found in subject.call(operator, case, plan, choices):
                                yield agreement(meaning, found, subject.oracle, kind), where

        return check

    def of_kinds(
        self,
        operator: Operator,
        law: Callable[[Subject, Operator, KindPlan, Kind], Iterator[float]],
        chosen: Callable[[Kind], bool],
    ) -> Finding:
        """Digits by which a law holds for some kinds."""

        def check(subject: Subject) -> Iterator[tuple[float, str]]:
            for plan, kind in self.kinds(operator):
                if plan is not None and kind is not None and chosen(kind):
                    with _named(kind):
                        for digits in law(subject, operator, plan, kind):
                            yield digits, f"worst: {kind.name}"

        return check

    def laws(self, operator: Operator) -> Finding:
        """Relations between the orders of a summary."""

        def check(subject: Subject) -> Iterator[tuple[float, str]]:
            cases = tuple(case for case in operator.cases if self.small_enough(case, None, subject))
            for law in (orders_agree, symmetric):
                for digits in law(subject, operator, cases):
                    yield digits, ""

        return check

    def row(self, operator: Operator, oracle: str, check: Finding) -> Row | None:
        """The worst of what a check finds at all subjects."""
        attempts = _ATTEMPTS if is_newton(operator) else 1
        for attempt in range(attempts):
            try:
                worst, where, skipped = float("inf"), "", attempt
                for subject in self.subjects(operator, attempt):
                    for digits, place in check(subject):
                        if digits < worst:
                            worst, where = digits, place
                break
            except (ZeroDivisionError, FloatingPointError):
                # A condition that depends on the sample, e.g. a zero slope; another point decides.
                if attempt == attempts - 1:
                    raise
        required = self.required(operator)
        if worst == float("inf"):
            note = "nothing that is exact or small enough to be compared"
            return Row(operator.name, self.number, oracle, None, None, None, note)
        notes = [where] if where and worst < required else []
        notes += ["H(N, η) against the gradient"] if is_newton(operator) else []
        notes += self.notes(operator)
        if skipped:
            notes.append(f"{skipped} random points where a run-time condition fails were skipped")
        if operator.kinds:
            notes.append(described(kind for _, kind in self.kinds(operator) if kind is not None))
        if operator.partitioned:
            notes += self._group_notes(oracle)
        passed = worst >= required
        return Row(operator.name, self.number, oracle, worst, required, passed, "; ".join(notes))

    def _group_notes(self, oracle: str) -> list[str]:
        limit = self.whole
        notes = [f"{self.groups} groups"]
        notes += ["entries by random coefficients"] if self.groups > FEW and oracle != LAWS else []
        notes += ["of order 3 the diagonal alone"] if limit < self.groups <= MATRIX else []
        notes += [f"orders 2 and 3 are left out: more than {MATRIX} groups"] if self.groups > MATRIX else []
        return notes


def is_newton(operator: Operator) -> bool:
    return _means(operator, NewtonDirection)


def has_blocks(operator: Operator) -> bool:
    return _means(operator, Blocks)


def _means(operator: Operator, kind: type[Meaning]) -> bool:
    return any(isinstance(result.meaning, kind) for case in operator.cases for result in case.results)


@dataclass(frozen=True)
class _named:
    """Errors that say of which kind they are."""

    kind: Kind | None

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if self.kind is not None and isinstance(error, Exception):
            raise VerificationError(f"kind {self.kind.name}: {words_of(error)}") from error
