"""Products of products as one product."""

from __future__ import annotations

import itertools
from fractions import Fraction

from sifrc.ir import Add, Axis, Einsum, Input, Operand
from sifrc.report.products import NoMatrixForm

__all__ = ["one_product"]

_MEAN = "mean"


def one_product(expr: Einsum) -> tuple[Fraction, list[Operand], tuple[Axis, ...], bool]:
    """One product without products inside: number, operands, free labels, whether a mean over samples."""
    coefficient = Fraction(1)
    fresh = itertools.count()
    stack: list[Operand] = list(expr.operands)[::-1]
    flat: list[Operand] = []
    while stack:
        operand, labels = stack.pop()
        if isinstance(operand, Add) and len(operand.terms) == 1:
            coefficient *= operand.terms[0][0]
            stack.append((operand.terms[0][1], labels))
        elif isinstance(operand, Einsum) and not _sums_samples(operand):
            table = dict(zip(operand.out, labels, strict=True))
            inlined: list[Operand] = []
            for inner, slots in operand.operands:
                for slot in slots:
                    if slot not in table:
                        table[slot] = slot.summed(f"~{next(fresh)}")
                inlined.append((inner, tuple(table[slot] for slot in slots)))
            covered = {label for _, names in inlined for label in names}
            # A label that only broadcasts still counts where it is summed.
            lonely = tuple(label for label in table.values() if label not in covered)
            stack += inlined[::-1]
            flat += [(Einsum((), (label,)), (label,)) for label in lonely if not label.is_sample]
        else:
            flat.append((operand, labels))
    averaged = _sums_samples(expr)
    if averaged:
        if not any(isinstance(op, Input) and op.family == _MEAN for op, _ in flat):
            raise NoMatrixForm("a sum over samples that is no mean")
        flat = [(op, labels) for op, labels in flat if not (isinstance(op, Input) and op.family == _MEAN)]
    flat = [(op, tuple(label for label in labels if not label.is_sample)) for op, labels in flat]
    out = tuple(label for label in expr.out if not label.is_sample)
    return coefficient, _without_ones(flat, out), out, averaged


def _sums_samples(expr: Einsum) -> bool:
    return any(label.is_sample and label not in expr.out for _, labels in expr.operands for label in labels)


def _without_ones(operands: list[Operand], out: tuple[Axis, ...]) -> list[Operand]:
    """Drop vectors of ones where another factor carries their label."""
    kept: list[Operand] = []
    for position, (operand, labels) in enumerate(operands):
        plain = isinstance(operand, Einsum) and not operand.operands
        others = [*kept, *operands[position + 1 :]]
        elsewhere = {label for _, names in others for label in names} | set(out)
        if not (plain and set(labels) <= elsewhere):
            kept.append((operand, labels))
    return kept
