"""Private functions of a generated module: each launches the kernels of one lowered system."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sifrc.backends.layout import call, lines_of
from sifrc.backends.numba_common.functions import (
    PrivateFunction,
    function_text,
    is_guarded,
    private_name,
    taken_names,
)
from sifrc.backends.numba_common.nests import Names, indented
from sifrc.backends.numba_common.parts import Parts
from sifrc.backends.numba_common.storage import is_scalar
from sifrc.backends.numba_cuda.kernels import DeviceBlock, Launches
from sifrc.backends.numba_cuda.statements import Writer
from sifrc.lower.program import Function
from sifrc.lower.statements import Loop

__all__ = ["CudaParts"]


@dataclass(frozen=True)
class CudaParts(Parts):
    """A module for CUDA taken apart: each private function launches kernels of its own."""

    def printed(self, function: Function) -> PrivateFunction:
        """The kernels, and the function that launches them."""
        layout = self.layouts[function.batched]
        groups = tuple(layout.used(function))
        name = private_name(function)
        names = Names(self.real, taken_names(self.program, groups) | {"cuda", "entry"}, "cuda")
        numbers = frozenset({"k", *(group.name for group in groups if is_scalar(group.family))})
        unnamed = len(self.program.guards) + 1
        launches = Launches(name, numbers)
        host: dict[str, str] = {}
        owners: dict[str, str] = {}
        known: dict[tuple[str, str], str] = {}
        lines: list[str] = []
        outer = DeviceBlock(layout, None, known, names.taken, host=host, groups=owners)
        for item in function.body:
            if isinstance(item, Loop):
                block = DeviceBlock(layout, item.start, known, names.taken, host=host, groups=owners)
                bounds = f"{item.start}, {item.stop}" + (f", {item.step}" if item.step != 1 else "")
                inner = Writer(block, launches, names, unnamed, 8).lines(item.body)
                lines += [f"for k in range({bounds}):", *indented(inner, 4)]
            else:
                lines += Writer(outer, launches, names, unnamed).lines((item,))
        arguments = [group.name for group in groups] + (["checks"] if is_guarded(function) else [])
        head = lines_of(arguments, f"def {name}(", "):", 0)
        own = [*head, f"    {function_text(function)}", *indented(lines or ["pass"], 4)]
        text = "\n\n\n".join([*(kernel.text for kernel in launches.kernels), "\n".join(own)])
        return PrivateFunction(function, name, groups, is_guarded(function), text, frozenset(names.helpers))

    def number(self, array: str, total: bool) -> str:
        """Read once, for all samples."""
        return f"_mean({array}) * work.batch" if total else f"_mean({array})"

    def calls(self, names: Iterable[str], batched: bool, indent: int) -> list[str]:
        """The calls, and the error of the first check that failed in them."""
        names = tuple(names)
        guarded = any(self.function(name, batched).guarded for name in names)
        tail = [" " * indent + "_refuse(work.checks.code())"] if guarded else []
        return [*super().calls(names, batched, indent), *tail]

    def call_lines(self, function: PrivateFunction, arguments: Sequence[str], indent: int) -> list[str]:
        """The call; checks are looked at when all has been launched."""
        more = ["work.checks"] if function.guarded else []
        return call([], function.name, [*arguments, *more], indent)
