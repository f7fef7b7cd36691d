"""Unknowns of conjugate gradients as arrays of NumPy, or as numbers."""

from __future__ import annotations

from dataclasses import dataclass

from sifrc.backends.numba_common.access import Block
from sifrc.lower.statements import Unknown

__all__ = ["CpuUnknown", "unknown_text"]


def unknown_text(block: Block, unknown: Unknown, real: str) -> CpuUnknown:
    """Texts of one unknown."""
    loads = (unknown.solution, unknown.rhs, unknown.residual, unknown.direction, unknown.product)
    names = [block.local(load) if load.labels else block.entry(load) for load in loads]
    solution, rhs, residual, direction, product = names
    return CpuUnknown(solution, rhs, residual, direction, product, len(unknown.rhs.labels), real)


@dataclass(frozen=True)
class CpuUnknown:
    """Texts of what is done to the arrays of one unknown.

    Args:
        solution, rhs, residual, direction, product: names of its arrays, or texts of its numbers.
        rank: number of their dimensions.
        real: type of all numbers.
    """

    solution: str
    rhs: str
    residual: str
    direction: str
    product: str
    rank: int
    real: str

    @property
    def is_array(self) -> bool:
        """Whether it is no number."""
        return self.rank > 0

    def begun(self, scale: str) -> list[str]:
        """Solution zero, residual and direction the right side divided by a number."""
        return [
            self._set(self.solution, f"{self.real}(0.0)"),
            self._set(self.residual, f"{self.rhs} / {scale}"),
            self._set(self.direction, self.residual),
        ]

    def inner(self, left: str, right: str) -> str:
        """⟨left, right⟩ in float64: squares of small numbers are smaller."""
        return f"_inner({left}, {right})" if self.is_array else f"np.float64({left}) * np.float64({right})"

    def largest(self) -> str:
        """Largest magnitude of the right side."""
        return f"_magnitude(_entries({self.rhs}))" if self.is_array else f"abs({self.rhs})"

    def terms(self) -> str:
        """Sum of the sizes of the axes."""
        return " + ".join(f"{self.rhs}.shape[{n}]" for n in range(self.rank)) or "1"

    def moved(self, rate: str) -> list[str]:
        """solution += rate · direction, residual −= rate · product."""
        return [
            self._move(self.solution, rate, self.direction),
            self._move(self.residual, f"-{rate}", self.product),
        ]

    def turned(self, rate: str) -> str:
        """direction = residual + rate · direction."""
        if self.is_array:
            return f"_turn({self.direction}, {rate}, {self.residual})"
        return f"{self.direction} = {self.residual} + {rate} * {self.direction}"

    def scaled(self, factor: str) -> str:
        """The solution times a number, in place."""
        return f"_scale({self.solution}, {factor})" if self.is_array else f"{self.solution} *= {factor}"

    def _set(self, target: str, value: str) -> str:
        return f"{target}[:] = {value}" if self.is_array else f"{target} = {value}"

    def _move(self, target: str, rate: str, along: str) -> str:
        return f"_add({target}, {rate}, {along})" if self.is_array else f"{target} += {rate} * {along}"
