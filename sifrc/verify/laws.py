"""What must hold between results of a subject, beside what each of them means."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from sifrc.catalogue.meaning import Along, Blocks, Gradient
from sifrc.catalogue.record import Case, KindPlan, Operator
from sifrc.derive.curvature.kinds import Kind
from sifrc.errors import VerificationError
from sifrc.ir.arithmetic import Array
from sifrc.verify.comparison import Agreement, allowed_digits, separate_digits
from sifrc.verify.meaning import SINGLE
from sifrc.verify.oracles.curvature_expected import Expected
from sifrc.verify.oracles.curvature_reference import is_exact, is_gauss_newton, limit_of
from sifrc.verify.subjects.base import Results, Subject, choices_of

__all__ = ["definite", "exact_limit", "orders_agree", "symmetric"]


def exact_limit(subject: Subject, operator: Operator, plan: KindPlan, kind: Kind) -> Iterator[float]:
    """What a rewritten kind is exactly under the conditions of this batch, from the oracle's derivatives."""
    limit = limit_of(kind, subject.oracle.measured)
    if limit is None or is_exact(kind) or is_gauss_newton(kind):
        return
    exact = Kind("exact", kind.source) if limit == "hessian" else Kind("exact", "loss", residual="dropped")
    expected = Expected(subject.oracle.measured, exact, None, subject.oracle.factor)
    ((_, found),) = _blocks(subject, operator, plan, dense=False)
    yield separate_digits(found, expected.bias_blocks(), subject.oracle.limit)


def definite(subject: Subject, operator: Operator, plan: KindPlan, dense: bool) -> Iterator[float]:
    """Digits by which the least eigenvalue of every block is not negative.

    They are blocks of one matrix, so that its largest eigenvalue is what counts: a block may be nothing but
    rounding, as that of a bias which all outputs have in common.
    """
    ((_, found),) = _blocks(subject, operator, plan, dense)
    for name, block in found.items():
        if not np.isfinite(block).all():
            raise VerificationError(f"{name} is not finite")
    every = {name: np.linalg.eigvalsh((block + block.T) / 2) for name, block in found.items()}
    largest = max(float(np.abs(eigenvalues).max()) for eigenvalues in every.values())
    for name, block in found.items():
        negative = max(-float(every[name][0]), float(np.abs(block - block.T).max()))
        text = f"{name}: least eigenvalue {every[name][0]:.3g}, largest of all blocks {largest:.3g}"
        limit = subject.oracle.limit
        yield Agreement(allowed_digits(negative / largest) if negative > 0 else limit, text)


def _blocks(subject: Subject, operator: Operator, plan: KindPlan, dense: bool) -> Results:
    """The blocks of the batch."""
    for case in operator.fitting(plan):
        if all(result.meaning == Blocks(dense) for result in case.results):
            return subject.call(operator, case, plan, next(choices_of(case)))
    raise VerificationError(f"{operator.name} has no blocks of a batch for kind '{plan.name}'")


def orders_agree(subject: Subject, operator: Operator, cases: tuple[Case, ...]) -> Iterator[float]:
    """Every order has the lower ones, the diagonal is that of all, and the gradient goes with them."""
    found: dict[Along, Array] = {}
    for case in cases:
        for meaning, arrays in subject.call(operator, case, None, next(choices_of(case)), ("gradient",)):
            if isinstance(meaning, Gradient):
                own = found.get(Along(1))
                products = [_inner(part, arrays) for part in subject.oracle.parts]
                if own is not None:
                    yield _near(own, np.asarray(products), subject)
            if isinstance(meaning, Along):
                value = arrays[SINGLE]
                if meaning in found:
                    yield _near(value, found[meaning], subject)
                found[meaning] = value
    whole, diagonal = found.get(Along(3, full=True)), found.get(Along(3))
    if whole is not None and diagonal is not None:
        yield _near(diagonal, np.einsum("sss->s", whole), subject, whole)


def symmetric(subject: Subject, operator: Operator, cases: tuple[Case, ...]) -> Iterator[float]:
    """Summaries do not change where groups change places."""
    for meaning, arrays in subject.call(operator, cases[-1], None, next(choices_of(cases[-1]))):
        value = arrays.get(SINGLE)
        if not isinstance(meaning, Along) or value is None:
            continue
        if value.ndim == 2:
            yield _near(value, value.T, subject)
        if value.ndim == 3:
            yield _near(value, value.transpose(1, 0, 2), subject)
            yield _near(value, value.transpose(0, 2, 1), subject)


def _inner(part: Mapping[str, Array], gradient: Mapping[str, Array]) -> object:
    return sum((part[name] * gradient[name]).sum() for name in part)


def _near(found: Array, expected: Array, subject: Subject, scale: Array | None = None) -> float:
    """Digits of agreement, relative to the largest entry of ``expected`` or ``scale``."""
    largest = np.abs(expected if scale is None else scale).max(initial=0)
    ours, theirs = np.append(found, largest), np.append(expected, largest)
    return separate_digits({"summary": ours}, {"summary": theirs}, subject.oracle.limit)
