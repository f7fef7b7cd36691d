"""The kernel over single samples: a whole epoch in one cooperative launch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from math import prod
from types import MappingProxyType
from typing import Any

from sifrc.backends.layout import lines_of
from sifrc.backends.names import indexed, subscript_text
from sifrc.backends.numba_common.access import Block
from sifrc.backends.numba_common.functions import PrivateFunction, taken_names
from sifrc.backends.numba_common.nests import Names, indented
from sifrc.backends.numba_common.parts import STATES, TARGETS, Parts
from sifrc.backends.numba_common.step import objective_code
from sifrc.backends.numba_common.storage import Group, is_scalar
from sifrc.backends.numba_cuda.barriers import Wait, array_of
from sifrc.backends.numba_cuda.placement import Part, Placement, is_solver, parts_of, place
from sifrc.backends.numba_cuda.shares import load_sizes, sizes_of
from sifrc.backends.numba_cuda.statements import FUNCTIONS
from sifrc.backends.numba_cuda.threads import RESERVED, Threads, joined
from sifrc.backends.text import assigned, docstring
from sifrc.ir.quantity import Storage
from sifrc.lower import statements as st
from sifrc.lower.arrays import OBJECTIVE, Load, Ref, Subscript, Upto

__all__ = ["THREADS", "online_context"]

THREADS = 256
"""Threads of a block that goes over samples."""
_WAITS: Mapping[Wait, list[str]] = MappingProxyType(
    {"": [], "block": ["cuda.syncthreads()"], "grid": ["grid.sync()"]}
)


@dataclass
class OnlineBlock(Block):
    """Names of arrays in the kernel, each of which is there once for all blocks or once for each."""

    shared: frozenset[tuple[str, int | None]] = frozenset()
    values: Sequence[int | None] = (None,)

    def extent(self, load: Load, label: str) -> str:
        """The number itself where it is one: loops over it and divisions by it are simpler then."""
        windows = any(isinstance(part, Upto) for part in load.window)
        sizes = {load_sizes(load, self.layout, k).get(label) for k in self.values}
        size = next(iter(sizes))
        return super().extent(load, label) if windows or len(sizes) > 1 or size is None else str(size)

    def array(self, load: Load) -> str:
        """The array of this block, or of all."""
        group = self.group(load)
        if not (load.ref.subscript is not None and group.is_tuple):
            return super().array(load)
        home = "0" if array_of(self.layout, load, self.k) in self.shared else "block"
        text = f"all_{group.name}[{subscript_text(load.ref.subscript)}][{home}]"
        text = indexed(text, [self._part(part) for part in load.window])
        return f"{text}.reshape(-1)" if load.reshapes else text


@dataclass
class _Writer:
    """Prints the kernel's parts."""

    parts: Parts
    placement: Placement
    names: Names
    threads: Threads
    known: dict[tuple[str, str], str] = field(default_factory=dict)

    def block(self, values: Sequence[int | None]) -> OnlineBlock:
        """Names of a stretch, at the values of its loop."""
        layout, shared = self.parts.layouts[False], self.placement.shared
        return OnlineBlock(layout, values[0], self.known, self.names.taken, shared=shared, values=values)

    def lines(self, part: Part) -> list[str]:
        """A statement after its wait."""
        statement, share = part.statement, self.placement.shares[part]
        if is_solver(statement):
            return self._solver(statement)
        return self.threads.lines(statement, share)

    def body(self, titles: Sequence[str], found: Sequence[Part], outer: OnlineBlock) -> list[str]:
        """The steps of a sample; before the last function all blocks learn whether a check has failed."""
        body: list[str] = []
        for number, items in groupby(found, lambda part: part.function):
            if number == len(titles) - 1:
                body += _verdict(outer)
            body.append(f"# {titles[number].rstrip('.')}.")
            for loop, stretch in groupby(items, lambda part: part.loop):
                own = list(stretch)
                self.threads.block = outer if loop is None else self.block(own[0].values)
                lines: list[str] = []
                for part in own:
                    lines = joined([*lines, *_WAITS[self.placement.waits[part]]], self.lines(part))
                body += lines if loop is None else self._looped(loop, lines)
        return body

    def _looped(self, loop: st.Loop, lines: Sequence[str]) -> list[str]:
        """The lines in the loop, after the arrays that they name."""
        step = f", {loop.step}" if loop.step != 1 else ""
        local = [f"{name} = {text}" for name, text in self.threads.block.new_locals()]
        return [f"for k in range({loop.start}, {loop.stop}{step}):", *indented([*local, *lines], 4)]

    def _solver(self, statement: st.Statement) -> list[str]:
        array = self.threads.block.array
        match statement:
            case st.SolveSystem(matrix=matrix, rhs=rhs, target=target):
                self.names.helpers.add("_solve_definite" if statement.definite else "_solve")
                texts = [array(matrix), *(self._flat(load) for load in (rhs, target))]
                call = f"_solved({', '.join(texts)}, space, {statement.definite})"
                if statement.definite or not statement.checked:
                    return _call("_solved", [*texts, "space", str(statement.definite)])
                code = len(self.parts.program.guards) + 1 if statement.guard is None else statement.guard
                number = self.threads.checks
                self.threads.checks += 1
                return [
                    f"if {call} != 0.0:",
                    f"    refused = min(refused, first_check + {number} * _NEXT + {code})",
                ]
            case st.MatrixFunction(matrix=matrix, target=target, kind=kind):
                self.names.helpers.add("_function_of")
                own = [array(matrix), array(target), "space", str(FUNCTIONS.index(kind))]
                return _call("_function", own)
            case st.SolveSylvester(left=left, right=right, rhs=rhs, target=target):
                self.names.helpers.add("_solve_sylvester")
                texts = [array(load) for load in (left, right, rhs, target)]
                return _call("_solved_in_bases", [*texts, "0.0", "False", "space"])
        assert isinstance(statement, st.SolveKronecker)
        self.names.helpers.add("_solve_kronecker")
        texts = [array(load) for load in (statement.left, statement.right, statement.rhs, statement.target)]
        shift = self.threads.block.entry(statement.shift)
        return _call("_solved_in_bases", [*texts, shift, "True", "space"])

    def _flat(self, load: Load) -> str:
        text = self.threads.block.array(load)
        return f"{text}.reshape({text}.size)" if len(load.labels) > 1 else text


def _call(function: str, arguments: Sequence[str]) -> list[str]:
    """A call by all threads of the block, in the loop over samples."""
    return [line[8:] for line in lines_of(arguments, f"{function}(", ")", 8)]


def online_context(parts: Parts) -> dict[str, Any]:
    """Names for ``online.py.jinja``; {} where the step is not for one launch."""
    names = parts.program.step_single
    if not names or not all((name, False) in parts.functions for name in names):
        return {}
    layout = parts.layouts[False]
    functions = [parts.functions[name, False] for name in names]
    found = parts_of([function.function for function in functions])
    if found is None or parts.program.periodic:
        return {}
    last = len(functions) - 1
    objective = Load(Ref(OBJECTIVE))
    guard = st.Guard(objective, Subscript(objective_code(parts)))
    if not any(
        isinstance(p.statement, st.Guard) and p.statement.operand.ref.family == OBJECTIVE for p in found
    ):
        first = next(n for n, part in enumerate(found) if part.function == last)
        found.insert(first, Part(guard, None, last - 1))
    groups = parts.groups(functions)
    filled = [(STATES, 0), *([(TARGETS, None)] if any(g.family.name == TARGETS for g in groups) else [])]
    placement = place(found, layout, filled, THREADS)
    if placement is None:
        return {}
    return _context(parts, functions, found, placement)


def _context(
    parts: Parts,
    functions: Sequence[PrivateFunction],
    found: Sequence[Part],
    placement: Placement,
) -> dict[str, Any]:
    groups = parts.groups(functions)
    arrays = [group for group in groups if not is_scalar(group.family)]
    taken = taken_names(parts.program, groups) | RESERVED | {f"all_{group.name}" for group in arrays}
    names = Names(parts.real, set(taken), "cuda")
    writer = _Writer(parts, placement, names, Threads(Block(parts.layouts[False], None, {}, set()), names))
    outer = writer.block((None,))
    body = writer.body([function.function.title for function in functions], found, outer)
    fills = _fills(parts, outer)
    space = max((_space(part, parts) for part in found), default=0)
    local = [f"{group.name} = all_{group.name}[block]" for group in arrays if not group.is_tuple]
    local += [f"{name} = {text}" for name, text in outer.new_locals()]
    head = [
        "grid = cuda.cg.this_grid()",
        "scratch = cuda.shared.array(0, TYPE)",
        "block, blocks = cuda.blockIdx.x, cuda.gridDim.x",
        "thread, threads = cuda.threadIdx.x, THREADS",
        *(["space = all_space[block]"] if space else []),
        *local,
        "first_check = 0",
        "for position in range(order.shape[0]):",
    ]
    inner = ["sample, refused = order[position], _NONE", *_WAITS[placement.begins], *fills, *body]
    tail = ["if block == 0 and thread == 0:", "    reached[0] = order.shape[0]"]
    own = ["order", "samples", "labels", *(["all_space"] if space else [])]
    more = ["found", "sums", "reached"]
    parameters = [*own, *(g.name if is_scalar(g.family) else f"all_{g.name}" for g in groups), *more]
    doc = docstring(
        ["Steps of single samples, all in one launch; the first one that is refused ends it."], indent=4
    )
    lines = [
        "@cuda.jit(cache=True)",
        *lines_of(parameters, "def _online_steps(", "):", 0),
        f"    {doc}",
        *indented([*head, *indented(inner, 4), *tail], 4),
    ]
    return {
        "online": "\n".join(lines),
        "online_helpers": names.helpers,
        "online_values": [_value(parts, group) for group in groups],
        "online_given": [g.name for g in arrays if _is_given(parts, g)],
        "online_memory": [g.name for g in arrays if parts.is_memory(g)],
        "together": assigned(
            "TOGETHER: dict[str, tuple[int | None, ...]] = ", _together(parts, arrays, placement)
        ),
        "online_threads": THREADS,
        "widest": placement.widest,
        "space": space,
    }


def _fills(parts: Parts, block: OnlineBlock) -> list[str]:
    """The sample and its target, each block for itself."""
    groups = parts.groups(parts.functions[name, False] for name in parts.program.step_single)
    states = block.local(Load(Ref(STATES, Subscript(0))))
    shape = parts.layouts[False].shape(Load(Ref(STATES, Subscript(0))), None)
    flat = f"{states}.reshape({prod(size or 1 for size in shape)})" if len(shape) > 1 else states
    lines = [f"_read(samples[sample], {flat})"]
    for group in groups:
        if group.family.name == TARGETS:
            lines.append(f"{'_read_class' if parts.classes else '_read'}(labels[sample], {group.name})")
    return lines


def _verdict(block: OnlineBlock) -> list[str]:
    """All blocks learn of a check that failed; else the objective is added, before the update."""
    objective = block.entry(Load(Ref(OBJECTIVE)))
    return [
        "if refused < _NONE:",
        "    cuda.atomic.min(found, 0, refused)",
        "grid.sync()",
        "if found[0] < _NONE:",
        "    if block == 0 and thread == 0:",
        "        reached[0] = position",
        "    return",
        "if block == 0 and thread == 0:",
        f"    sums[0] += {objective}",
    ]


def _space(part: Part, parts: Parts) -> int:
    """Numbers that a solver needs."""
    if not is_solver(part.statement):
        return 0
    sizes = [n or 1 for k in part.values for n in sizes_of(part.statement, parts.layouts[False], k).values()]
    return 8 * max(sizes) ** 2 + 4 * max(sizes) + 8


def _is_given(parts: Parts, group: Group) -> bool:
    return group.family.storage is Storage.PARAMETER or parts.is_memory(group)


def _value(parts: Parts, group: Group) -> str:
    if is_scalar(group.family):
        return f"DTYPE({'1.0' if group.name == 'mean' else f'state.{group.name}'})"
    return f'given["{group.name}"]' if _is_given(parts, group) else f"work.{group.name}"


def _together(
    parts: Parts, arrays: Sequence[Group], placement: Placement
) -> dict[str, tuple[int | None, ...]]:
    """Subscripts of the arrays that blocks share, by variable."""
    layout = parts.layouts[False]
    table: dict[str, tuple[int | None, ...]] = {}
    for family, index in sorted(
        placement.shared, key=lambda array: (array[0], -1 if array[1] is None else array[1])
    ):
        name = layout.group(family, index).name
        table[name] = (*table.get(name, ()), index)
    return {group.name: table[group.name] for group in arrays if group.name in table}
