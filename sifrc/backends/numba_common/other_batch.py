"""A step whose periodic part runs on a batch of its own: the compiled loop's side of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sifrc.backends.numba_common.functions import PrivateFunction
from sifrc.backends.numba_common.loop import OTHER, LoopText, Piece
from sifrc.backends.numba_common.parts import STATES, TARGETS, Parts
from sifrc.backends.numba_common.storage import Group, is_scalar
from sifrc.ir.quantity import Storage
from sifrc.lower.arrays import OTHER_INPUTS
from sifrc.lower.lifetimes import handed_families

__all__ = ["OtherBatch", "other_batch", "periodic_pieces"]

_INDENT = 16
"""Of calls: in a step, if the periodic part runs, and if there is another batch."""


@dataclass(frozen=True)
class OtherBatch:
    """What runs on the other batch.

    Args:
        before: functions that run on it first.
        periodic: names of the periodic functions that run on it.
        groups: variables that it has of its own.
        further: names of the arrays of samples of the inputs after the first.
        holds: whether checked inputs are several arrays.
    """

    before: tuple[PrivateFunction, ...]
    periodic: frozenset[str]
    groups: tuple[Group, ...]
    further: tuple[str, ...] = ()
    holds: bool = False

    @property
    def parameters(self) -> list[str]:
        """Of the compiled loop."""
        own = [f"{OTHER}samples", f"{OTHER}labels", f"{OTHER}order"]
        own[1:1] = [f"{OTHER}{name}" for name in self.further]
        return [*own, *(f"{OTHER}{group.name}" for group in self.groups)]

    @property
    def values(self) -> list[str]:
        """What ``_run`` passes for them: ``other`` is the workspace of the other batch."""
        data = ["*source"]
        if self.holds:
            data = ["source[0].first", *(f"source[0].others[{k}]" for k, _ in enumerate(self.further, 1))]
            data += ["source[1]", "source[2]"]
        return [
            *data,
            *("DTYPE(1.0 / other.batch)" if is_scalar(g.family) else f"other.{g.name}" for g in self.groups),
        ]

    def argument(self, group: Group) -> str:
        """A variable of a function that runs on the other batch."""
        return f"{OTHER}{group.name}" if group in self.groups else group.name


def other_batch(parts: Parts) -> OtherBatch | None:
    """The functions that run on a batch of their own, if the program has such."""
    program = parts.program
    if not program.curvature_batch:
        return None
    before = tuple(parts.functions[name, True] for name in program.curvature_batch)
    periodic = [parts.functions[name, True] for name in program.step_batched if name in program.periodic]
    periodic = [f for f in periodic if any(None in shape for g in f.groups for _, shape in g.members)]
    functions = (*before, *periodic)
    written = {family for function in functions for family in function.function.writes}
    own = ({STATES, TARGETS, OTHER_INPUTS, "mean"} | written) - handed_families(program)
    groups = [
        group
        for group in parts.groups(functions)
        if group.family.name in own
        and not parts.is_memory(group)
        and group.family.storage not in (Storage.PARAMETER, Storage.BUFFER)
    ]
    return OtherBatch(
        before, frozenset(f.function.name for f in periodic), tuple(groups), parts.further, parts.holds
    )


def periodic_pieces(loop: LoopText, other: OtherBatch, function: PrivateFunction, first: bool) -> list[Piece]:
    """A periodic function on the other batch if there is one, else on that of the step.

    Args:
        loop: where it stands.
        other: the batch.
        function: the function.
        first: whether it is the first one that runs there.
    """
    before = other.before if first else ()
    there = [line for own in (*before, function) for line in _call(loop, own, other.argument)]
    here = _call(loop, function, lambda group: group.name)
    launched = all(own.launched for own in (*before, function))
    return loop.periodic(_fill_lines(loop, other) if first else [], there, here, launched)


def _fill_lines(loop: LoopText, other: OtherBatch) -> list[str]:
    """Copy the next samples of the other batch; from column 0."""
    targets = next((group for group in other.groups if group.family.name == TARGETS), None)
    states = next(group for group in other.groups if loop.parts.has_input(group))
    return [
        f"{OTHER}rows = {OTHER}{states.name}[0]",
        f"if first + len({OTHER}rows) > len({OTHER}order):",
        "    first = 0",
        *loop.samples(targets, f"len({OTHER}rows)", "first", OTHER),
        f"first += len({OTHER}rows)",
    ]


def _call(loop: LoopText, function: PrivateFunction, argument: Callable[[Group], str]) -> list[str]:
    """The call from column 0, as long as it may be at its place in the module."""
    lines = loop.call(function, [argument(group) for group in function.groups], _INDENT)
    return [line[_INDENT:] for line in lines]
