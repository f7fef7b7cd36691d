"""The public function on summaries, as data."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["SummaryOperator"]


@dataclass(frozen=True)
class SummaryOperator:
    """Summaries of the derivatives along a direction, GN3(6, 9).

    Args:
        single: first group of every tensor, where each of its entries is a group.
        base: functions that run in any case: states, objective, back-propagation.
        orders: the function of orders 1, 2 and 3, after them.
        whole: the functions of all of order 3, in place of it.
    """

    single: tuple[tuple[str, int], ...]
    base: tuple[str, ...]
    orders: tuple[str, ...]
    whole: tuple[str, ...]
