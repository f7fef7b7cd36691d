"""Numbers of the arrays that hold parts of what equations define, so that no two share a name."""

from __future__ import annotations

__all__ = ["PartNames"]


class PartNames:
    """Which numbers are taken.

    Example:
        >>> names = PartNames()
        >>> names.free("backward", "G", 0, 4, owner=4), names.free("backward", "G", 0, 4, owner=1)
        (1, 2)
        >>> names.phase("backward", "G"), names.phase("other kind", "G")
        (0, 1)
    """

    def __init__(self) -> None:
        self._phases: dict[str, list[str]] = {}
        self._owners: dict[tuple[str, str, int, int | None], int | None] = {}

    def free(self, phase: str, family: str, last: int, index: int | None, owner: int | None) -> int:
        """The next number after the last one of an equation.

        What is added at a further use of shared parameters has the subscript of the layer of the use, whose
        own parameters may have parts of the family too.

        Args:
            phase: that computes it.
            family: that it is a part of.
            last: number that the equation had.
            index: subscript of the array.
            owner: subscript of what the equation defines.
        """
        number = last + 1
        while self._owners.setdefault((phase, family, number, index), owner) != owner:
            number += 1
        return number

    def phase(self, phase: str, family: str) -> int:
        """The position of a phase among those that define a family: another kind of curvature, say."""
        phases = self._phases.setdefault(family, [])
        if phase not in phases:
            phases.append(phase)
        return phases.index(phase)
