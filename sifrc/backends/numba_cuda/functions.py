"""Private functions of a generated module: each launches the kernels of one lowered system."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby

from sifrc.backends.layout import call, lines_of
from sifrc.backends.numba_common.functions import (
    PrivateFunction,
    function_text,
    is_guarded,
    loop_head,
    private_name,
    taken_names,
)
from sifrc.backends.numba_common.nests import Names, indented
from sifrc.backends.numba_common.parts import Parts
from sifrc.backends.numba_common.storage import is_scalar
from sifrc.backends.numba_cuda.kernels import DeviceBlock, Kernel, Launches
from sifrc.backends.numba_cuda.statements import Writer
from sifrc.lower.program import Function
from sifrc.lower.statements import Loop, Statement

__all__ = ["CudaParts"]


@dataclass(frozen=True)
class CudaParts(Parts):
    """A module for CUDA taken apart: each private function launches kernels of its own.

    Args:
        kernels: of each function, filled in when it is printed.
    """

    kernels: dict[str, list[Kernel]] = field(default_factory=dict, compare=False)

    @property
    def most(self) -> int:
        """Threads of a block, at most."""
        return int(self.module.options.get("block", 128))

    @property
    def itemsize(self) -> int:
        """Bytes of a number."""
        return 8 if self.module.dtype == "float64" else 4

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
        for loop, statements in _stretches(function):
            start = None if loop is None else loop.start
            block = DeviceBlock(layout, start, known, names.taken, host=host, groups=owners)
            indent = 4 if loop is None else 8
            inner = Writer(block, launches, names, unnamed, self.most, indent).lines(statements)
            if loop is not None:
                inner = [loop_head(loop), *indented(inner, 4)]
            lines += inner
        arguments = [group.name for group in groups] + (["checks"] if is_guarded(function) else [])
        head = lines_of(arguments, f"def {name}(", "):", 0)
        own = [*head, f"    {function_text(function)}", *indented(lines or ["pass"], 4)]
        self.kernels[name] = list(launches.kernels.values())
        text = "\n\n\n".join([*(kernel.text for kernel in self.kernels[name]), "\n".join(own)])
        helpers = frozenset(names.helpers)
        return PrivateFunction(
            function, name, groups, is_guarded(function), text, helpers, launched=not launches.asks
        )

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


def _stretches(function: Function) -> Iterator[tuple[Loop | None, tuple[Statement, ...]]]:
    """Loops, and the statements between them."""
    for is_loop, items in groupby(function.body, lambda item: isinstance(item, Loop)):
        if is_loop:
            yield from ((item, item.body) for item in items if isinstance(item, Loop))
        else:
            yield None, tuple(item for item in items if not isinstance(item, Loop))
