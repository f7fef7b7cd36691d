"""A subject: something that has operators, at a point of its own, with the oracle there."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from itertools import product
from types import MappingProxyType
from typing import Any, TypeAlias

from sifrc.catalogue.meaning import Meaning
from sifrc.catalogue.record import Case, KindPlan, Operator
from sifrc.ir.arithmetic import Array
from sifrc.verify.oracles.batch import BatchOracle

__all__ = ["Choices", "Results", "Subject", "choices_of"]

Results: TypeAlias = list[tuple[Meaning, dict[str, Array]]]
"""What each result means, and its arrays by name."""
Choices: TypeAlias = Mapping[str, Any]
"""Arguments of an operator by name."""


class Subject(ABC):
    """Operators at one point."""

    @property
    @abstractmethod
    def oracle(self) -> BatchOracle:
        """The oracle at the point."""

    @property
    @abstractmethod
    def samples(self) -> int:
        """In the batch."""

    @abstractmethod
    def call(
        self,
        operator: Operator,
        case: Case,
        kind: KindPlan | None,
        choices: Choices = MappingProxyType({}),
        switches: tuple[str, ...] = (),
    ) -> Results:
        """The results of an operator.

        Args:
            operator: its record.
            case: of the record.
            kind: of curvature, where it has kinds.
            choices: values of the arguments, which are of the case.
            switches: that are on.
        """


def choices_of(case: Case) -> Iterator[Choices]:
    """Every combination of the values that the arguments have in a case."""
    names = [name for name, _ in case.choices]
    for values in product(*(values for _, values in case.choices)):
        yield MappingProxyType(dict(zip(names, values, strict=True)))
