"""Level 2 for summaries: derived equations and the interpreted program at many digits."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import mpmath
import numpy as np

from sifrc.derive.derived import Derived
from sifrc.errors import VerificationError
from sifrc.ir.arithmetic import MPMATH, Array
from sifrc.lower.program import Program
from sifrc.model import Model, build_model
from sifrc.spec.types import PartitionSpec, Spec
from sifrc.verify.comparison import separate_digits
from sifrc.verify.oracles.summary_batch import OracleBatch, settled
from sifrc.verify.points import capped, random_point
from sifrc.verify.precise.summary_program import SummaryProgram, summary_program
from sifrc.verify.precise.systems import SampleSystems
from sifrc.verify.summary_parts import FEW, SUMMARY, Coefficients, Found, compared, parts_of, remembered
from sifrc.verify.table import Row

__all__ = ["summary_precise_rows"]

_CAP, _CAP_DISCRETE = 3, 2
_WHOLE = 24
"""Up to this many groups all of order 3 is looked at, (S, S, S)."""
_BATCHES = (1, 2)
_DUALS, _IDENTITIES = "nested duals", "identities"

Arrays = Mapping[str, Array]


class _Batch:
    """The oracle at one random batch.

    Args:
        spec: the network.
        seed: of the point.
        size: of the batch.
    """

    def __init__(self, spec: Spec, seed: int, size: int) -> None:
        point = settled(spec, random_point(spec, seed, size), seed)
        self.params, self.direction = _precise(point.params), _precise(point.vector)
        self.oracle = OracleBatch(spec, self.params, point)
        self.parts = parts_of(spec, self.direction)
        self.along = remembered(self._along)

    def _along(self, many: Sequence[Coefficients]) -> list[Any]:
        """Derivatives of the mean objective along Σ_s c_s u_s for each of the coefficients."""
        return [self.oracle.derivative([self.combined(MPMATH.array(c)) for c in each]) for each in many]

    def combined(self, coefficients: Array) -> dict[str, Array]:
        """Σ_s c_s u_s."""
        pairs = [(c, part) for c, part in zip(coefficients, self.parts, strict=True) if c != 0]
        return {
            name: sum((c * part[name] for c, part in pairs), np.zeros(value.shape, dtype=object))
            for name, value in self.direction.items()
        }


def _precise(tensors: Arrays) -> dict[str, Array]:
    return {name: MPMATH.array(value) for name, value in tensors.items()}


class _Work:
    """What the checks share.

    Args:
        spec: the network, small.
        digits: precision.
        seed: of the points.
    """

    def __init__(self, spec: Spec, digits: int, seed: int) -> None:
        self.spec, self.digits, self.seed = spec, digits, seed

    @cached_property
    def batches(self) -> tuple[_Batch, ...]:
        return tuple(_Batch(self.spec, self.seed + size, size) for size in _BATCHES)

    @cached_property
    def lowered(self) -> tuple[Model, Program]:
        return summary_program(self.spec)

    @property
    def whole(self) -> bool:
        """Whether all of order 3 is looked at."""
        return len(self.batches[0].parts) <= _WHOLE

    def program(self, batch: _Batch, lowered: tuple[Model, Program] | None = None) -> SummaryProgram:
        oracle = batch.oracle
        return SummaryProgram(*(lowered or self.lowered), batch.params, oracle.inputs, oracle.vectors, MPMATH)

    def digits_of(self, found: Found, batch: _Batch) -> float:
        return separate_digits(*compared(found, batch.along, self.seed), self.digits)

    # -- checks, each the digits of what it compares

    def equations(self) -> Iterator[float]:
        """The derived equations of one sample."""
        batch = self.batches[0]
        sample, target = batch.oracle.inputs[0], batch.oracle.targets[0]
        derived = Derived(build_model(self.spec))
        run = SampleSystems(derived, batch.params, sample, target, MPMATH)
        for number in (1, 2, 3):
            yield self.digits_of(Found.of(run.summary(batch.direction, number)), batch)
        if self.whole:
            yield self.digits_of(Found.of(run.summary(batch.direction, None)), batch)

    def programs(self) -> Iterator[float]:
        """The interpreted program, every function of it."""
        for batch in self.batches:
            program = self.program(batch)
            for number in (1, 2, 3):
                yield self.digits_of(program.order(number, batch.direction), batch)
            if self.whole:
                yield self.digits_of(program.whole(batch.direction), batch)

    def identities(self) -> Iterator[float]:
        """Relations between results of programs."""
        batch = self.batches[-1]
        program = self.program(batch)
        found = program.order(3, batch.direction)
        assert found.h is not None and found.d is not None
        gradient = program.gradient()
        yield self._near(found.g, np.asarray([_inner(part, gradient) for part in batch.parts]))
        yield self._near(found.h, found.h.T)
        generator = np.random.default_rng(self.seed)
        weights = MPMATH.array(generator.normal(size=len(batch.parts)))
        product = program.hessian_vector_product(batch.combined(weights))
        yield self._near(found.h @ weights, np.asarray([_inner(part, product) for part in batch.parts]))
        trivial = self.program(batch, summary_program(replace(self.spec, partition=PartitionSpec("trivial"))))
        one = trivial.order(3, batch.direction)
        assert one.h is not None and one.d is not None
        yield self._near(one.g.sum(), found.g.sum())
        yield self._near(one.h.sum(), found.h.sum())
        if self.whole:
            whole = program.whole(batch.direction)
            assert whole.t is not None
            yield self._near(np.einsum("sss->s", whole.t), found.d, whole.t)
            yield self._near(whole.t, whole.t.transpose(1, 0, 2))
            yield self._near(whole.t, whole.t.transpose(0, 2, 1))
            yield self._near(one.d.sum(), whole.t.sum(), whole.t)

    def _near(self, found: Any, expected: Any, scale: Any = 0) -> float:
        """Digits of agreement, relative to the largest number of ``expected`` or ``scale``."""
        found, expected = np.append(found, 0), np.append(expected, 0)
        largest = np.abs(np.asarray(scale)).max()
        return separate_digits(
            {"summary": np.append(found, largest)}, {"summary": np.append(expected, largest)}, self.digits
        )

    def row(self, oracle: str, check: Callable[[], Iterator[float]], what: str) -> Row:
        with mpmath.workdps(self.digits):
            agreed = min(check(), default=float("-inf"))
            groups = len(self.batches[0].parts)
        if agreed == float("-inf"):
            raise VerificationError("nothing was compared")
        required = self.digits - 10.0
        notes = [f"layers capped at {_cap(self.spec)} units", what, f"{groups} groups"]
        notes += ["entries by random coefficients"] if groups > FEW and oracle == _DUALS else []
        notes += [] if groups <= _WHOLE else ["of order 3 the diagonal alone"]
        return Row(SUMMARY, 2, oracle, agreed, required, agreed >= required, "; ".join(notes))


def _inner(left: Arrays, right: Arrays) -> Any:
    return sum(((left[name] * right[name]).sum() for name in left), mpmath.mpf(0))


def _cap(spec: Spec) -> int:
    return _CAP_DISCRETE if spec.partition.kind == "discrete" else _CAP


def summary_precise_rows(
    spec: Spec, digits: int, seed: int
) -> Iterator[tuple[str, str, Callable[[], Row | None]]]:
    """The checks of level 2 as (quantity, oracle, check).

    Args:
        spec: the network.
        digits: precision; ten fewer must agree.
        seed: of the random points.
    """
    work = _Work(capped(spec, _cap(spec)), digits, seed)
    checks = (
        (_DUALS, work.equations, "equations of one sample"),
        (_DUALS, work.programs, "program, batches of 1 and 2"),
        (_IDENTITIES, work.identities, "program, batch of 2"),
    )
    for oracle, check, what in checks:
        yield SUMMARY, oracle, lambda o=oracle, c=check, w=what: work.row(o, c, w)  # type: ignore[misc]
