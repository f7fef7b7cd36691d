"""Unknowns of conjugate gradients as arrays on the device; a number is an array of one."""

from __future__ import annotations

from dataclasses import dataclass

from sifrc.backends.numba_common.access import Block
from sifrc.backends.numba_common.conjugate_gradients import UnknownText
from sifrc.backends.numba_common.nests import Names
from sifrc.lower.arrays import Load
from sifrc.lower.statements import Unknown

__all__ = ["CudaUnknown", "array_text", "unknown_text"]


def array_text(block: Block, load: Load) -> str:
    """An array, or the part of one that holds a number."""
    if load.labels:
        return block.array(load)
    name, _, index = block.entry(load).rstrip("]").partition("[")
    return f"{name}[{index} : {index} + 1]"


def unknown_text(block: Block, unknown: Unknown, names: Names) -> tuple[list[str], CudaUnknown]:
    """Assignments of names to the arrays of one unknown, and its texts."""
    parts = ("solution", "rhs", "residual", "direction", "product")
    own = [names.local(part) for part in parts]
    loads = [getattr(unknown, part) for part in parts]
    lines = [f"{name} = {array_text(block, load)}" for name, load in zip(own, loads, strict=True)]
    solution, rhs, residual, direction, product = own
    rank = max(1, len(unknown.rhs.labels))
    return lines, CudaUnknown(solution, rhs, residual, direction, product, rank)


@dataclass(frozen=True)
class CudaUnknown(UnknownText):
    """Texts of its arrays, and how many dimensions they have."""

    def begun(self, scale: str) -> list[str]:
        """Solution zero, residual and direction the right side divided by a number."""
        return [
            f"_clear({self.solution})",
            f"_combine({self.residual}, 0.0, {self.rhs}, 1.0 / {scale})",
            f"_combine({self.direction}, 0.0, {self.residual}, 1.0)",
        ]

    def inner(self, left: str, right: str) -> str:
        """Read from the device."""
        return f"_inner({left}, {right})"

    def largest(self) -> str:
        """Largest magnitude of the right side."""
        return f"_largest_of({self.rhs})"

    def moved(self, rate: str) -> list[str]:
        """solution += rate · direction, residual −= rate · product."""
        return [
            f"_combine({self.solution}, 1.0, {self.direction}, {rate})",
            f"_combine({self.residual}, 1.0, {self.product}, -{rate})",
        ]

    def turned(self, rate: str) -> str:
        """direction = residual + rate · direction."""
        return f"_combine({self.direction}, {rate}, {self.residual}, 1.0)"

    def scaled(self, factor: str) -> str:
        """The solution times a number, in place."""
        return f"_combine({self.solution}, 0.0, {self.solution}, {factor})"
