"""Kernels: a thread for each entry, or a block for each row, whose threads divide what is to be done in it.

A kernel goes through entries or rows with a stride of the whole grid, so that any grid computes all of them.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from sifrc.backends.layout import lines_of
from sifrc.backends.numba_common.access import Block
from sifrc.backends.numba_common.nests import indented
from sifrc.backends.numba_cuda.threads import looped
from sifrc.backends.text import docstring
from sifrc.errors import BackendError
from sifrc.lower.arrays import Gather, Load

__all__ = ["NO_WINDOWS", "DeviceBlock", "Kernel", "Launches"]

DECORATOR = "@cuda.jit(cache=True)"
NO_WINDOWS = "the CUDA backend does not read windows of arrays"


@dataclass
class DeviceBlock(Block):
    """Names of arrays in kernels, which take them as arguments.

    Args:
        host: local name in kernels -> the array in the function that launches them.
        groups: local name in kernels -> the variable whose array it is.
    """

    host: dict[str, str] = field(default_factory=dict)
    groups: dict[str, str] = field(default_factory=dict)

    def local(self, load: Load) -> str:
        """The name in kernels."""
        name = super().local(load)
        self.host.update(self.new_locals())
        self.host.setdefault(name, name)
        self.groups[name] = self.group(load).name
        return name

    def entry(self, load: Load) -> str:
        """The text of an entry; numbers of all subscripts are in one array, which kernels take too."""
        text = super().entry(load)
        name = text.partition("[")[0]
        if not load.labels and name == self.group(load).name:
            self.host.setdefault(name, name)
        return text

    def array(self, load: Load) -> str:
        """As it lies in memory, or in another shape."""
        if any(isinstance(change, Gather) for change in load.changes):
            raise BackendError(NO_WINDOWS, hint="backends torch and numba have convolutions")
        return super().array(load)

    def extent(self, load: Load, label: str) -> str:
        """An array in a kernel has a shape, and no length."""
        text = super().extent(load, label)
        return f"{text[4:-1]}.shape[0]" if text.startswith("len(") else text


@dataclass
class Kernel:
    """A printed kernel.

    Args:
        name: of its function.
        text: source text.
        rows: whether a block takes a row at a time, or each thread an entry.
        threads: of a block.
        scratch: numbers of a thread in shared memory.
    """

    name: str
    text: str
    rows: bool
    threads: int
    scratch: int


@dataclass
class Launches:
    """The kernels of one private function, in their order.

    Args:
        prefix: of their names.
        numbers: arguments that are numbers, or subscripts of loops.
        kernels: so far, by what they read.
        asks: whether the function has a part on the host, too: it needs numbers of the device, or a library
            that does.
    """

    prefix: str
    numbers: frozenset[str]
    kernels: dict[str, Kernel] = field(default_factory=dict)
    asks: bool = False

    def launch(
        self,
        ranges: Mapping[str, str],
        body: Sequence[str],
        doc: str,
        block: DeviceBlock,
        threads: int | None = None,
        indent: int = 4,
    ) -> list[str]:
        """Add a kernel, and launch it; from column 0.

        Args:
            ranges: labels of what is divided, entries to threads or rows to blocks -> source text of the
                extent in the kernel.
            body: what a thread does for an entry, or the threads of a block for a row; from column 0.
            doc: one line.
            block: names of the arrays.
            threads: of the block of a row; None for entries.
            indent: of the launch in the module, for the length of lines.
        """
        rows = threads is not None
        inner = _of_rows(ranges, body) if rows else _of_entries(ranges, body)
        refuses = any("refused" in line for line in body)
        if refuses:
            tail = ["if refused < _NONE:", "    cuda.atomic.min(found, 0, refused)"]
            inner = ["refused = _NONE", *inner, *tail]
        parameters = self._parameters(inner, block)
        given = [block.host.get(parameter, parameter) for parameter in parameters]
        names = _unsubscripted(parameters, block)
        own = [names[parameter] for parameter in parameters]
        scratch = any("scratch" in line for line in body)
        kernel = self._kernel(
            doc, own, _renamed(inner, names), Kernel("", "", rows, threads or 0, int(scratch))
        )
        size = " * ".join(_on_host(extent, block) for extent in ranges.values()) or "1"
        lines = lines_of([kernel.name, size, *given], "_launch(", ")", indent)
        return [line[indent:] for line in lines]

    def _kernel(self, doc: str, parameters: Sequence[str], body: Sequence[str], like: Kernel) -> Kernel:
        """The kernel with this body: one for all that read the same."""
        key = "\n".join([doc, *parameters, *body])
        if key not in self.kernels:
            name = f"{self.prefix}_{len(self.kernels) + 1}"
            head = lines_of(parameters, f"def {name}(", "):", 0)
            text = [DECORATOR, *head, f"    {docstring(doc, indent=4)}", *indented(body, 4)]
            self.kernels[key] = replace(like, name=name, text="\n".join(text))
        kernel = self.kernels[key]
        kernel.threads = max(kernel.threads, like.threads)
        return kernel

    def _parameters(self, body: Sequence[str], block: DeviceBlock) -> list[str]:
        """Arrays and numbers that the body uses, in the order of their first use."""
        tree = ast.parse("\n".join(body))
        used = [node for node in ast.walk(tree) if isinstance(node, ast.Name)]
        used.sort(key=lambda node: (node.lineno, node.col_offset))
        known = {*block.host, *self.numbers}
        return list(dict.fromkeys(node.id for node in used if node.id in known))


def _on_host(extent: str, block: DeviceBlock) -> str:
    """The extent of a label where the kernel is launched."""
    name, _, rest = extent.partition(".")
    return f"{block.host[name]}.{rest}"


def _of_entries(ranges: Mapping[str, str], body: Sequence[str]) -> list[str]:
    """The body for the entries of a thread."""
    ((label, extent),) = ranges.items()
    return [f"for {label} in range(cuda.grid(1), {extent}, cuda.gridsize(1)):", *indented(body, 4)]


def _of_rows(ranges: Mapping[str, str], body: Sequence[str]) -> list[str]:
    """The body for the rows of a block."""
    lines = ["thread, threads = cuda.threadIdx.x, cuda.blockDim.x"]
    if any("scratch" in line for line in body):
        lines.append("scratch = cuda.shared.array(0, TYPE)")
    if not ranges:
        return [*lines, *body]
    return [*lines, *looped(tuple(ranges), ranges, ("cuda.blockIdx.x", "cuda.gridDim.x"), body, "row")]


def _unsubscripted(parameters: Sequence[str], block: DeviceBlock) -> dict[str, str]:
    """Names of the arguments: without a subscript where only one array of the variable is there."""
    owners = [block.groups.get(name, name) for name in parameters]
    return {
        name: owner if owners.count(owner) == 1 else name
        for name, owner in zip(parameters, owners, strict=True)
    }


def _renamed(lines: Sequence[str], names: Mapping[str, str]) -> list[str]:
    """The lines with other names of arrays; locals for their entries begin with them."""
    words = "|".join(sorted(map(re.escape, names), key=len, reverse=True))
    pattern = re.compile(rf"(?<![\w.])({words})(?![^\W_])") if words else None
    return [pattern.sub(lambda found: names[found[1]], line) if pattern else line for line in lines]
