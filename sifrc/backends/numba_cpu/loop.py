"""The compiled loop over batches, for the CPU."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from sifrc.backends.draws import step_seed
from sifrc.backends.layout import call
from sifrc.backends.numba_common.functions import PrivateFunction
from sifrc.backends.numba_common.loop import LoopText, Piece
from sifrc.backends.numba_common.nests import indented
from sifrc.backends.numba_common.storage import Group
from sifrc.backends.numba_cpu.functions import DECORATOR
from sifrc.lower.arrays import OTHER_INPUTS

__all__ = ["CpuLoop"]

_LETTERS = "jlmnoq"
"""Of the axes of an input."""


class CpuLoop(LoopText):
    """Compiled as a whole, with the loops over samples."""

    decorators: ClassVar[tuple[str, ...]] = (DECORATOR,)

    def samples(self, targets: Group | None, count: str, first: str, prefix: str = "") -> list[str]:
        """Entry by entry."""
        rank = len(self.parts.module.input_shape)
        lines = [
            f"for p in range({count}):",
            f"    sample = {prefix}order[{first} + p]",
            *indented(_copied(f"{prefix}rows", f"{prefix}samples", "p, ", rank), 4),
            *indented(self._further(True, prefix), 4),
        ]
        if targets is None:
            return [*lines, *self._draws(prefix)]
        name, labels = f"{prefix}{targets.name}", f"{prefix}labels"
        filled = self._targets(name, labels, "p, ")
        return [*lines, *indented(filled, 4), *self._draws(prefix)]

    def _draws(self, prefix: str) -> list[str]:
        """What layers draw for a batch: for another one of the periodic part by the seed of the step too."""
        groups = self.parts.layouts[True].families.get(OTHER_INPUTS, ())
        drawn = [
            f"_fill_uniform({prefix}{group.name}[{k}], _DRAWS, draw_seed * 65536 + {k})"
            for group in groups
            for k, _ in group.members
            if k in self.parts.module.draws
        ]
        seed = [] if prefix else [f"draw_seed = {step_seed('seed', 'steps + position // batch')}"]
        return [*seed, *drawn] if drawn else []

    def _further(self, batched: bool, prefix: str = "") -> list[str]:
        """Copy the inputs after the first of one sample."""
        lines = []
        groups = self.parts.layouts[batched].families.get(OTHER_INPUTS, ())
        for group in groups:
            for k, shape in group.members:
                if k in self.parts.module.draws:
                    continue
                samples = f"{prefix}{self.parts.further[(k or 1) - 1]}"
                at = "p, " if batched else ""
                lines += _copied(f"{prefix}{group.name}[{k}]", samples, at, len(shape) - batched)
        return lines

    def _targets(self, name: str, labels: str, before: str) -> list[str]:
        """The targets of one sample: the class of each place, or its vectors."""
        module = self.parts.module
        rank = len(module.places) if self.parts.classes else max(1, len(module.output_shape))
        axes = _LETTERS[:rank]
        # The class of a sample without places is an array of one.
        at = f"{before}{', '.join(axes)}".removesuffix(", ") or "0"
        return _over(axes, labels, [f"{name}[{at}] = {labels}[{', '.join(['sample', *axes])}]"])

    def filled(self, states: Group, targets: Group | None, batched: bool) -> list[str]:
        """A sample by itself is not copied."""
        parts = self.parts
        if batched:
            return self.samples(targets, "batch", "position")
        lines = ["sample = order[position]"]
        lines += (
            [f"{states.name} = work_x", "work_x[0] = samples[sample]"]
            if parts.deep
            else [f"{states.name} = (samples[sample],) + work_x[1:]"]
        )
        lines += self._further(False)
        return lines + ([] if targets is None else self._targets("targets", "labels", ""))

    def call(self, function: PrivateFunction, arguments: Sequence[str], indent: int) -> list[str]:
        """The code of a check comes back from the function."""
        if not function.guarded:
            return call([], function.name, list(arguments), indent)
        pad = " " * indent
        lines = call(["code"], function.name, list(arguments), indent)
        returned = f"{pad}    return total, code, position{self.parts.returned_age}"
        return [*lines, f"{pad}if code != 0:", returned]

    def checked(self, objective: Group, batched: bool, code: int) -> list[str]:
        """Of the sum."""
        value = f"np.sum({objective.name})" if batched else f"{objective.name}[0]"
        return [
            f"if not np.isfinite({value}):",
            f"    return total, {code}, position{self.parts.returned_age}",
        ]

    def added(self, objective: Group, batched: bool) -> list[Piece]:
        """Sample by sample."""
        if not batched:
            return [Piece([f"total += {objective.name}[0]"])]
        return [Piece(["for p in range(batch):", f"    total += {objective.name}[p]"])]

    def saved(self, group: Group) -> list[str]:
        """Every entry."""
        name = group.name
        if not group.is_tuple:
            return [f"{name}_before[:] = {name}"]
        return [f"for k in range(len({name})):", f"    {name}_before[k][:] = {name}[k]"]


def _copied(target: str, samples: str, at: str, rank: int) -> list[str]:
    """Copy one sample of a rank, entry by entry, to a row of a batch or to an array."""
    indices = ", ".join(_LETTERS[:rank])
    return _over(_LETTERS[:rank], samples, [f"{target}[{at}{indices}] = {samples}[sample, {indices}]"])


def _over(letters: str, array: str, lines: list[str]) -> list[str]:
    """The lines for all values of letters, one for each dimension of an array after that of the samples."""
    for dimension, letter in reversed([*enumerate(letters, start=1)]):
        lines = [f"for {letter} in range({array}.shape[{dimension}]):", *indented(lines, 4)]
    return lines
