"""The kernel over single samples: a whole epoch in one cooperative launch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby, pairwise
from types import MappingProxyType
from typing import Any

from sifrc.backends.layout import lines_of
from sifrc.backends.numba_common.access import Block
from sifrc.backends.numba_common.functions import PrivateFunction, loop_head, taken_names
from sifrc.backends.numba_common.nests import Names, indented
from sifrc.backends.numba_common.parts import STATES, TARGETS, Parts
from sifrc.backends.numba_common.step import objective_code
from sifrc.backends.numba_common.storage import Group, is_scalar
from sifrc.backends.numba_cuda.barriers import Wait
from sifrc.backends.numba_cuda.functions import CudaParts
from sifrc.backends.numba_cuda.kernels import DECORATOR
from sifrc.backends.numba_cuda.placement import Part, Placement, is_solver, parts_of, place
from sifrc.backends.numba_cuda.residence import OnlineBlock, Residence, reside
from sifrc.backends.numba_cuda.shares import sizes_of
from sifrc.backends.numba_cuda.statements import FUNCTIONS
from sifrc.backends.numba_cuda.threads import RESERVED, Threads, joined
from sifrc.backends.text import assigned, docstring
from sifrc.ir.quantity import Storage
from sifrc.lower import statements as st
from sifrc.lower.arrays import OBJECTIVE, Load, Ref, Subscript

__all__ = ["THREADS", "online_context"]

THREADS = 256
"""Threads of a block that goes over samples."""
SHARED = 48 * 1024
"""Bytes of shared memory that a block may always have."""
_FEW = 3
"""Copies that are written one by one."""
_WAITS: Mapping[Wait, list[str]] = MappingProxyType(
    {"": [], "block": ["cuda.syncthreads()"], "grid": ["grid.sync()"]}
)


@dataclass
class _Writer:
    """Prints the kernel's parts."""

    parts: Parts
    placement: Placement
    residence: Residence
    names: Names
    threads: Threads
    known: dict[tuple[str, str], str] = field(default_factory=dict)

    def block(self, values: Sequence[int | None]) -> OnlineBlock:
        """Names of a stretch, at the values of its loop."""
        layout, residence = self.parts.layouts[False], self.residence
        return OnlineBlock(
            layout, values[0], self.known, self.names.taken, residence=residence, values=values
        )

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
        local = [f"{name} = {text}" for name, text in self.threads.block.new_locals()]
        return [loop_head(loop), *indented([*local, *lines], 4)]

    def _solver(self, statement: st.Statement) -> list[str]:
        block = self.threads.block
        match statement:
            case st.SolveSystem(matrix=matrix, rhs=rhs, target=target):
                self.names.helpers.add("_solve_definite" if statement.definite else "_solve")
                own = [
                    *map(block.local, (matrix, rhs, target)),
                    block.extent(matrix, matrix.labels[0]),
                    "space",
                ]
                own.append(str(statement.definite))
                if statement.definite or not statement.checked:
                    return _call("_solved", own)
                code = len(self.parts.program.guards) + 1 if statement.guard is None else statement.guard
                number = self.threads.checks
                self.threads.checks += 1
                failed = self.names.local("failed")
                return [
                    *_call("_solved", own, f"{failed} = "),
                    f"if {failed} != 0.0:",
                    f"    refused = min(refused, first_check + {number} * _NEXT + {code})",
                ]
            case st.MatrixFunction(matrix=matrix, target=target, kind=kind):
                self.names.helpers.add("_function_of")
                own = [*map(block.local, (matrix, target)), block.extent(matrix, matrix.labels[0]), "space"]
                return _call("_function", [*own, str(FUNCTIONS.index(kind))])
        assert isinstance(statement, st.SolveSylvester | st.SolveKronecker)
        kronecker = isinstance(statement, st.SolveKronecker)
        self.names.helpers.add("_solve_kronecker" if kronecker else "_solve_sylvester")
        loads = (statement.left, statement.right, statement.rhs, statement.target)
        sizes = [block.extent(statement.rhs, label) for label in statement.rhs.labels]
        shift = block.entry(statement.shift) if isinstance(statement, st.SolveKronecker) else "0.0"
        return _call("_solved_in_bases", [*map(block.local, loads), *sizes, shift, str(kronecker), "space"])


def _call(function: str, arguments: Sequence[str], before: str = "") -> list[str]:
    """A call by all threads of the block, in the loop over samples."""
    return [line[8:] for line in lines_of(arguments, f"{before}{function}(", ")", 8)]


def online_context(parts: CudaParts) -> dict[str, Any]:
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
    parts: CudaParts,
    functions: Sequence[PrivateFunction],
    found: Sequence[Part],
    placement: Placement,
) -> dict[str, Any]:
    layout, groups = parts.layouts[False], parts.groups(functions)
    arrays = [group for group in groups if not is_scalar(group.family)]
    given = [group for group in arrays if _is_given(parts, group) or _shares(group, placement)]
    residence = reside(layout, arrays, placement.shared)
    taken = taken_names(parts.program, groups) | RESERVED | {f"given_{group.name}" for group in given}
    names = Names(parts.real, set(taken), "cuda")
    writer = _Writer(parts, placement, residence, names, Threads(Block(layout, None, {}, set()), names))
    outer = writer.block((None,))
    body = writer.body([function.function.title for function in functions], found, outer)
    fills = _fills(parts, groups, outer)
    space = max((_space(part, parts) for part in found), default=0)
    resident = (THREADS + residence.total) * parts.itemsize <= SHARED
    lasting = [group for group in arrays if _is_given(parts, group)]
    read = [line for group in lasting for line in _copies(residence, group, "_read({given}, {own})")]
    written = [line for group in lasting for line in _copies(residence, group, "_read({own}, {given})")]
    local = [f"{name} = {text}" for name, text in outer.new_locals()]
    lines = [
        "grid = cuda.cg.this_grid()",
        *_memory(resident),
        "block, blocks = cuda.blockIdx.x, cuda.gridDim.x",
        "thread, threads = cuda.threadIdx.x, THREADS",
        *(["space = spaces[block]"] if space else []),
        *local,
        *read,
        "first_check, position = 0, 0",
        "while position < order.shape[0]:",
        *indented(["sample, refused = order[position], _NONE", *_WAITS[placement.begins], *fills, *body], 4),
        "    position += 1",
        "if block == 0:",
        *indented(["cuda.syncthreads()", *written, "if thread == 0:", "    reached[0] = position"], 4),
    ]
    own = ["order", "samples", "labels", *([] if resident else ["memory"]), *(["spaces"] if space else [])]
    scalars = [group.name for group in groups if is_scalar(group.family)]
    parameters = [*own, *(f"given_{group.name}" for group in given), *scalars, "found", "sums", "reached"]
    doc = docstring(
        [
            "Steps of single samples, all in one launch; the first one that is refused ends it.",
            "Arrays have one dimension here. Those in ``own`` each block has for itself.",
        ],
        indent=4,
    )
    head = [DECORATOR, *lines_of(parameters, "def _online_steps(", "):", 0), f"    {doc}"]
    values = [f"_flat({_value(parts, group)})" for group in given]
    values += [_value(parts, group) for group in groups if is_scalar(group.family)]
    return {
        "online": "\n".join([*head, *indented(lines, 4)]),
        "online_helpers": names.helpers,
        "online_tables": _constants(residence),
        "online_values": values,
        "online_threads": THREADS,
        "widest": placement.widest,
        "space": space,
        "resident": resident,
        "own_numbers": residence.total,
    }


def _constants(residence: Residence) -> list[str]:
    """Places in memory in their order, and tables."""
    order = sorted(residence.tables.items(), key=lambda item: (isinstance(item[1], tuple), item[1], item[0]))
    return [assigned(f"{name} = ", value) for name, value in order]


def _memory(resident: bool) -> list[str]:
    """What a block has for itself, and a number for each of its threads."""
    if resident:
        return ["own = cuda.shared.array(0, TYPE)", "scratch = own[OWN:]"]
    return ["own = memory[cuda.blockIdx.x]", "scratch = cuda.shared.array(0, TYPE)"]


def _shares(group: Group, placement: Placement) -> bool:
    return any((group.family.name, index) in placement.shared for index, _ in group.members)


def _copies(residence: Residence, group: Group, text: str) -> list[str]:
    """Copies between what is given and what a block has for itself; many in a loop."""
    if not group.is_tuple:
        if (group.name, None) not in residence.starts:
            return []
        start = residence.start(group, None)
        return [
            text.format(given=f"given_{group.name}", own=f"own[{start} : {start} + given_{group.name}.size]")
        ]
    members = [k for k, _ in group.members if k is not None and (group.name, k) in residence.starts]
    steps = {b - a for a, b in pairwise(members)}
    if len(members) <= _FEW or steps != {1}:
        return [text.format(given=f"given_{group.name}[{k}]", own=residence.text(group, k)) for k in members]
    start = residence.table(group, "starts", {k: residence.starts[group.name, k] for k in members})
    given = f"given_{group.name}[k]"
    own = f"own[{start}[k] : {start}[k] + {given}.size]"
    return [f"for k in range({members[0]}, {members[-1] + 1}):", f"    {text.format(given=given, own=own)}"]


def _fills(parts: Parts, groups: Sequence[Group], block: OnlineBlock) -> list[str]:
    """The sample and its target, each block for itself."""
    lines = [f"_read(samples[sample], {block.local(Load(Ref(STATES, Subscript(0))))})"]
    for group in groups:
        if group.family.name == TARGETS:
            own = block.local(Load(Ref(TARGETS)))
            lines.append(f"{'_read_class' if parts.classes else '_read'}(labels[sample], {own})")
    return lines


def _verdict(block: OnlineBlock) -> list[str]:
    """All blocks learn of a check that failed; else the objective is added, before the update."""
    objective = block.entry(Load(Ref(OBJECTIVE)))
    return [
        "if refused < _NONE:",
        "    cuda.atomic.min(found, 0, refused)",
        "grid.sync()",
        "if found[0] < _NONE:",
        "    break",
        "if block == 0 and thread == 0:",
        f"    sums[0] += {objective}",
    ]


def _space(part: Part, parts: Parts) -> int:
    """The largest size of a system."""
    if not is_solver(part.statement):
        return 0
    return max(
        n or 1 for k in part.values for n in sizes_of(part.statement, parts.layouts[False], k).values()
    )


def _is_given(parts: Parts, group: Group) -> bool:
    return group.family.storage is Storage.PARAMETER or parts.is_memory(group)


def _value(parts: Parts, group: Group) -> str:
    """What the host passes for a variable."""
    if is_scalar(group.family):
        return f"DTYPE({'1.0' if group.name == 'mean' else f'state.{group.name}'})"
    if group.family.storage is Storage.PARAMETER:
        return group.name
    return f"state.memory.{group.name}" if parts.is_memory(group) else f"work.{group.name}"
