"""Public functions of CUDA modules that do different things for different arguments."""

from __future__ import annotations

from typing import ClassVar

from sifrc.backends.numba_common.chosen import ChosenPrinter
from sifrc.backends.operators import OperatorPrinter

__all__ = ["CudaPrinter"]


class CudaPrinter(ChosenPrinter):
    """Prints them for arrays on the device."""

    chunks: ClassVar[tuple[tuple[str, str], ...]] = OperatorPrinter.chunks
    summed: ClassVar[str] = "_times(value, len(inputs))"

    def mean(self, family: str) -> str:
        """A number, which is read from the device."""
        return f"_mean({self.member(family, None)})"

    def averaged(self) -> list[str]:
        """Rows at a time: all, or as many as the caller asks for."""
        if not self.operator.chunks:
            return ["_averaged(part, inputs, targets, len(inputs))"]
        return [
            '    rows = len(inputs) if chunk is None else _count("chunk", chunk)',
            "_averaged(part, inputs, targets, rows)",
        ]
