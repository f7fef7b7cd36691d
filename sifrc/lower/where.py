"""Where a statement of a program stands, and what can be required of it there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import sympy

from sifrc.errors import SifrcError
from sifrc.lower import statements as st
from sifrc.lower.access import absolute
from sifrc.lower.arrays import SAMPLE_LABEL, AtStep, Counted, Family, Load, OneHot, Slot, Take, Upto
from sifrc.lower.program import Function, Program

__all__ = ["Position", "ProgramError"]

Size: TypeAlias = int | None
"""Of a dimension; None is the batch."""


class ProgramError(SifrcError):
    """A program that no backend may print: a fault of the compiler, never of a spec."""


@dataclass(frozen=True)
class Position:
    """Where a statement stands.

    Args:
        program: that it belongs to.
        families: of the program, by name.
        function: that it belongs to.
        loop: value of the loop index, or None outside of loops.
        statement: the statement.
    """

    program: Program
    families: Mapping[str, Family]
    function: Function
    loop: int | None
    statement: st.Statement

    def require(self, holds: bool, text: str) -> None:
        """Refuse the program where a condition does not hold.

        Raises:
            ProgramError: it does not.
        """
        if not holds:
            where = f"{self.function.name}{'' if self.function.batched else ' (one sample)'}"
            at = "" if self.loop is None else f" at k = {self.loop}"
            raise ProgramError(f"{where}, {type(self.statement).__name__}{at}: {text}")

    def shape(self, load: Load) -> tuple[Size, ...]:
        """Shape of the array that a load refers to, in the form of the function."""
        ref = load.ref
        self.require(ref.family in self.families, f"no family {ref.family}")
        relative = ref.subscript is not None and ref.subscript.relative
        self.require(self.loop is not None or not relative, f"{ref.family} is relative to no loop")
        name, index = absolute(ref, self.loop)
        shapes = dict(self.families[name].shapes)
        self.require(index in shapes, f"no member {name}[{index}]")
        shape = shapes[index]
        return shape if self.function.batched or shape[:1] != (None,) else shape[1:]

    def sizes(self, load: Load) -> tuple[Size, ...]:
        """Sizes of the dimensions that labels name: windows of one position have none."""
        shape = self.shape(load)
        self.require(len(load.window) <= len(shape), f"window of {load.ref.family} has too many parts")
        found: list[Size] = []
        for size, part in zip(shape, load.window, strict=False):
            if isinstance(part, (int, Slot)):
                position = part if isinstance(part, int) else self._owner(part)
                held = size is not None and 0 <= position < size
                self.require(held, f"position {position} of {load.ref.family} is not below {size}")
            elif isinstance(part, AtStep):
                self.require(size is not None, f"a step of {load.ref.family} is a sample")
            elif isinstance(part, Upto):
                (first, *_) = self.shape(Load(part.ref)) or (None,)
                held = size is not None and first is not None and 0 < first <= size
                self.require(held, f"{load.ref.family} has no first {first} positions, but {size}")
                found.append(first)
            else:
                found.append(size)
        return load.changed((*found, *shape[len(load.window) :]))

    def _owner(self, slot: Slot) -> int:
        relative = slot.subscript.relative
        self.require(self.loop is not None or not relative, f"owner of {slot.family} is relative to no loop")
        index = slot.subscript.offset + (self.loop or 0 if relative else 0)
        key = slot.family, index
        self.require(key in self.program.owners, f"{slot.family}[{index}] has no owner")
        return self.program.owners[key]

    def labelled(self, loads: Sequence[Load]) -> dict[str, Size]:
        """Size of every label; a label has one, and the sample is the batch."""
        found: dict[str, Size] = {}
        for load in loads:
            sizes = self.sizes(load)
            family = load.ref.family
            self.require(
                len(sizes) == len(load.labels),
                f"{family} has {len(sizes)} dimensions and the labels ({', '.join(load.labels)})",
            )
            for label, size in zip(load.labels, sizes, strict=True):
                known = found.setdefault(label, size)
                self.require(known == size, f"label {label} of {family} is {size} and {known}")
                self.require(
                    (size is None) == (label == SAMPLE_LABEL), f"label {label} of {family} is {size}"
                )
        return found

    def classes(self, load: Load) -> None:
        """A load is of classes, as they lie in memory."""
        family = self.families[load.ref.family]
        _, index = absolute(load.ref, self.loop)
        self.require(index in family.classes, f"{family.name}[{index}] has no classes")
        self.require(load.is_whole, f"classes {family.name} are read in another shape")

    def numbers(self, load: Load, *, entries: bool) -> None:
        """A load is of numbers; where its entries are read one by one, they may depend on classes."""
        family = self.families[load.ref.family]
        _, index = absolute(load.ref, self.loop)
        vectors = bool(load.changes) and isinstance(load.changes[0], OneHot | Counted)
        self.require(vectors == (index in family.classes), f"classes {family.name} are read as numbers")
        self.require(entries or not load.reads_classes, f"{family.name} is no array as it is read")
        for change in load.changes:
            if isinstance(change, Take):
                self.classes(Load(change.classes, ("",) * len(change.sizes)))
                own = self.shape(Load(change.classes))
                self.require(own == change.sizes, f"classes of {family.name} are {own}, not {change.sizes}")

    def scalar(self, *loads: Load) -> None:
        """Loads are numbers."""
        for load in loads:
            self.require(not load.labels and not self.sizes(load), f"{load.ref.family} is no number")

    def same(self, *loads: Load) -> None:
        """Loads have one shape, whatever their labels are called."""
        first, *rest = [(load.ref.family, self.sizes(load)) for load in loads]
        for name, sizes in rest:
            self.require(sizes == first[1], f"{name} has the shape {sizes}, {first[0]} {first[1]}")

    def distinct(self, labels: Sequence[str], what: str) -> None:
        """No label comes twice."""
        self.require(len(set(labels)) == len(labels), f"{what} has a label twice: ({', '.join(labels)})")

    def code(self, code: int) -> None:
        """A code is that of a row of the table of guards."""
        last = len(self.program.guards)
        self.require(1 <= code <= last, f"code {code} is none of 1 to {last}")

    def bound(self, value: sympy.Expr, loads: Sequence[tuple[str, Load]]) -> None:
        """Every symbol of a value is bound to an entry."""
        free = {symbol.name for symbol in value.free_symbols} - {name for name, _ in loads}
        self.require(not free, f"nothing is bound to {', '.join(sorted(free))}")

    def square(self, matrix: Load) -> None:
        """The last two dimensions of a matrix are of one size."""
        sizes = self.labelled([matrix])
        self.distinct(matrix.labels, matrix.ref.family)
        pair = [sizes[label] for label in matrix.labels[-2:]]
        square = len(pair) == 2 and pair[0] == pair[1] and None not in pair
        self.require(square, f"{matrix.ref.family} is not square")
