"""Products with arrays over groups: what all groups share is computed once, and not for each group."""

from __future__ import annotations

from collections.abc import Iterable

from sifrc.ir import Axis, Einsum, Input, Operand
from sifrc.ir.build import einsum
from sifrc.ir.relative import ordered_operands
from sifrc.lower.products import kept_labels, without_outer

__all__ = ["shared_by_groups"]


def shared_by_groups(expr: Einsum, layer: int | None) -> tuple[tuple[Operand, ...], tuple[Operand, ...]]:
    """Factors that want an array of their own because all groups share them, and the other factors.

    Shared factors are multiplied with each other where their product is no larger than one of them: what is
    larger, like an outer product, is better multiplied with an array over groups one by one.

    Args:
        expr: the product.
        layer: of its equation.
    """
    if not any(_over_groups(labels) for _, labels in expr.operands):
        return (), expr.operands
    # In an order that is the same for layers that are alike.
    operands = ordered_operands(without_outer(expr), layer)
    shared = [op for op in operands if op[1] and not _over_groups(op[1])]
    others = [op for op in operands if op not in shared]
    needed = {*expr.out, *(label for _, labels in others for label in labels)}
    made: list[Operand] = []
    for part in _joined(shared, needed):
        if len(part) == 1 and isinstance(part[0][0], Input):
            others += part
            continue
        axes = kept_labels(part, needed)
        made.append((einsum(part, axes), axes))
    return tuple(made), tuple(others)


def _over_groups(labels: Iterable[Axis]) -> bool:
    return any(label.is_group for label in labels)


def _joined(shared: list[Operand], needed: set[Axis]) -> list[list[Operand]]:
    """Parts of the product: tied by a label that nothing else has, or within the labels of another part."""
    tied: list[list[Operand]] = []
    for operand in shared:
        inner = set(operand[1]) - needed
        touching = [part for part in tied if any(inner & set(labels) for _, labels in part)]
        tied = [part for part in tied if part not in touching]
        tied.append([op for part in touching for op in part] + [operand])
    parts: list[list[Operand]] = []
    for part in sorted(tied, key=lambda part: -len(kept_labels(part, needed))):
        own = set(kept_labels(part, needed))
        host = next((other for other in parts if own <= set(kept_labels(other, needed))), None)
        if host is None:
            parts.append(list(part))
        else:
            host += part
    return parts
