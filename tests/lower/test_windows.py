"""Which positions of an array windows reach, and whether two of them have one in common."""

from __future__ import annotations

from sifrc.lower.windows import _overlap, _tiles


def test_windows_that_reach_every_position() -> None:
    """Also in pieces, in any order; not if one is missing, the last one included."""
    assert _tiles([(0, 3)], 3) and _tiles([(2, 3), (0, 2)], 3) and _tiles([(0, 2), (1, 3)], 3)
    assert not _tiles([(0, 2)], 3) and not _tiles([(1, 3)], 3) and not _tiles([(0, 1), (2, 3)], 3)


def test_windows_overlap_where_they_do_on_every_axis() -> None:
    """Windows that touch have no position in common."""
    assert _overlap(((0, 2),), ((1, 3),)) and _overlap(((0, 3),), ((1, 2),))
    assert not _overlap(((0, 1),), ((1, 2),)) and not _overlap(((1, 2),), ((0, 1),))
    assert _overlap(((0, 2), (0, 1)), ((1, 2), (0, 3)))
    assert not _overlap(((0, 2), (0, 1)), ((1, 2), (1, 3)))
