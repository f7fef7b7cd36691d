"""How a load reads in generated code, and the local names that a block gives to arrays."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from math import prod

from sifrc.backends.names import indexed, owner_name, subscript_text
from sifrc.backends.numba_common.storage import Group, Layout, Shape, is_scalar
from sifrc.errors import BackendError
from sifrc.ir.quantity import Storage
from sifrc.lower.access import absolute
from sifrc.lower.arrays import AtStep, Gather, Load, Slot, Subscript, Upto, Window

__all__ = ["Block", "constant_name", "extent_of"]


def constant_name(code: str) -> str:
    """Module-level name of a CONSTANT family."""
    return code.upper()


@dataclass
class Block:
    """One straight-line block: the body of a function, or of its loop over k.

    Args:
        layout: variables of the form.
        k: a value of the loop index inside a loop, None outside: all values have the same ranks.
        names: variable and suffix -> local name, of the whole function.
        taken: names that locals may not have.
        locals: array, or array in another shape -> its local name, in the order of first use.
    """

    layout: Layout
    k: int | None
    names: dict[tuple[str, str], str]
    taken: set[str]
    locals: dict[Load, str] = field(default_factory=dict)
    _fresh: list[Load] = field(default_factory=list)

    def group(self, load: Load) -> Group:
        """The variable that holds the array."""
        return self.layout.group(*absolute(load.ref, self.k))

    def array(self, load: Load) -> str:
        """The array, e.g. ``x[k - 1]``, or the window that is meant; not for numbers."""
        group = self.group(load)
        text = group.name
        if load.ref.subscript is not None and group.is_tuple:
            text = f"{group.name}[{subscript_text(load.ref.subscript)}]"
        text = indexed(text, [self._part(part) for part in load.window])
        return _changed_text(load, text)

    def slice(self, load: Load, fixed: Collection[str]) -> str:
        """The entries of an array, or of the window that is meant, at the values of some of its labels."""
        if load.changes:
            parts = [label if label in fixed else ":" for label in load.labels]
            return f"{self.local(load)}[{', '.join(parts)}]"
        parts = []
        for dimension, entry in enumerate(self._index(load)):
            window = load.window[dimension] if dimension < len(load.window) else None
            kept = isinstance(window, Slot | AtStep | int) or entry in fixed
            parts.append(entry if kept else self._part(window))
        return indexed(self.local(load), parts)

    def _part(self, part: Window) -> str:
        """An index or a slice."""
        if isinstance(part, Upto):
            return f": len({self.array(Load(part.ref))})"
        return ":" if part is None else self.position(part)

    def position(self, part: Slot | AtStep | int) -> str:
        """The number of a group, or of the step of a loop over steps."""
        if isinstance(part, AtStep):
            return "step"
        if isinstance(part, int):
            return str(part)
        return f"{owner_name(part.family)}[{subscript_text(part.subscript)}]"

    def local(self, load: Load) -> str:
        """A local name for the array, assigned before the statement that is being printed."""
        group = self.group(load)
        if not load.changes and (load.ref.subscript is None or not group.is_tuple):
            return group.name
        array = replace(load, labels=("",) * len(load.labels)) if load.changes else Load(load.ref)
        if array not in self.locals:
            subscript = load.ref.subscript
            own = group.name if subscript is None else f"{group.name}_{_suffix(subscript)}"
            text = self.array(array)
            key = own, text if load.changes else ""
            if key not in self.names:
                name = f"{own}{_CHANGED[_gathers(load)]}" if load.changes else own
                while name in self.taken:
                    name += "_"
                self.taken.add(name)
                self.names[key] = name
            new = self.names[key] not in self.locals.values()
            self.locals[array] = self.names[key]
            if new:
                self._fresh.append(array)
        return self.locals[array]

    def new_locals(self) -> list[tuple[str, str]]:
        """Name and value of the locals that the last statement asked for first."""
        found = [(self.locals[array], self.array(array)) for array in self._fresh]
        self._fresh = []
        return found

    def is_number(self, load: Load) -> bool:
        """Whether the load is a plain name of a number, or a constant of the module."""
        return is_scalar(self.group(load).family)

    def entry(self, load: Load) -> str:
        """An entry, e.g. ``x_prev[p, i]``."""
        family = self.layout.program.family(load.ref.family)
        if family.storage is Storage.HYPERPARAMETER:
            return family.code
        if family.storage is Storage.CONSTANT:
            name = constant_name(family.code)
            return name if load.ref.subscript is None else f"{name}[{subscript_text(load.ref.subscript)}]"
        if family.storage is Storage.IDENTITY:
            return f"_delta({', '.join(self._positions(load))})"
        index = self._index(load)
        if not index:
            group = self.group(load)
            if group.rank:
                raise BackendError(f"'{group.name}' is an array; its entry needs labels")
            if group.is_tuple:
                return f"{self.array(load)}[()]"
            return (
                f"{group.name}[{'0' if load.ref.subscript is None else subscript_text(load.ref.subscript)}]"
            )
        return f"{self.local(load)}[{', '.join(index)}]"

    def _positions(self, load: Load) -> list[str]:
        """The index of each dimension before it is taken apart."""
        index = list(load.labels)
        for change in reversed(load.changes):
            first, *others = index[change.position : change.position + len(change.sizes)]
            if isinstance(change, Gather):
                terms = zip(change.steps, (first, *others), strict=True)
                first = " + ".join([str(change.offset), *(f"{step} * ({label})" for step, label in terms)])
                # A place that is no whole number is none.
                first = f"({first}) / {change.divisor}" if change.divisor != 1 else first
            else:
                for label, size in zip(others, change.sizes[1:], strict=True):
                    first = f"({first}) * {size} + {label}" if "*" in first else f"{first} * {size} + {label}"
            index[change.position : change.position + len(change.sizes)] = [first]
        return index

    def _index(self, load: Load) -> list[str]:
        """One index for each dimension: the first entries of a window are those of the array."""
        if load.changes:
            return list(load.labels)
        labels = iter(load.labels)
        leading = [
            self.position(part) if isinstance(part, Slot | AtStep | int) else next(labels)
            for part in load.window
        ]
        return [*leading, *labels]

    def shape(self, load: Load) -> Shape:
        """Shape of the array, None is the batch; in a loop, of its first round."""
        return self.layout.shape(load, self.k)

    def extent(self, load: Load, label: str) -> str:
        """Source text of the number of values of a label."""
        dimension = self._index(load).index(label)
        part = load.window[dimension] if dimension < len(load.window) and not load.changes else None
        if isinstance(part, Upto):
            load, dimension = Load(part.ref), 0
        name = self.local(load)
        return f"len({name})" if dimension == 0 else f"{name}.shape[{dimension}]"


_CHANGED = ("_reshaped", "_windows")
"""Ends of local names of arrays in another shape, or read at other places."""


def _gathers(load: Load) -> bool:
    """Whether an array is read at other places."""
    return any(isinstance(change, Gather) for change in load.changes)


def _changed_text(load: Load, text: str) -> str:
    """Source text of an array as it is read, from that of the array."""
    if not _gathers(load):
        return f"{text}.reshape({_shape_text(load, text)})" if load.changes else text
    sizes = [f"{text}.shape[{dimension}]" for dimension in range(load.rank)]
    for change in load.changes:
        first, last = change.position, change.position + 1
        if isinstance(change, Gather):
            after = " * ".join(sizes[last:]) or "1"
            reading = f"{change.sizes}, {change.steps}, {change.offset}, {change.divisor}"
            text = f"_read_at({text}.reshape((-1, {sizes[first]}, {after})), {reading})"
            new = [str(size) for size in change.sizes]
        elif change.joins:
            last = first + len(change.sizes)
            new = [str(prod(change.sizes))]
        else:
            new = [str(size) for size in change.sizes]
        sizes[first:last] = new
    return f"{text}.reshape(({', '.join(sizes)},))"


def _shape_text(load: Load, text: str) -> str:
    """Source text of the shape in which an array is read; what is not reshaped keeps its size."""
    kept = [-1 - dimension for dimension in range(load.rank)]
    sizes = load.changed(tuple(kept))
    alone = sum(size is not None and size < 0 for size in sizes) == 1
    parts = []
    for size in sizes:
        assert size is not None
        parts.append(str(size) if size > 0 else "-1" if alone else f"{text}.shape[{-1 - size}]")
    return f"({', '.join(parts)}{',' if len(parts) == 1 else ''})"


def _suffix(subscript: Subscript) -> str:
    if not subscript.relative:
        return str(subscript.offset)
    known = {0: "k", -1: "prev", 1: "next"}
    offset = subscript.offset
    return known.get(offset, f"k_{'m' if offset < 0 else 'p'}{abs(offset)}")


def extent_of(block: Block, label: str, loads: Sequence[Load]) -> str:
    """Source text of the size of a label, from an array that is there; identities are none."""
    for load in loads:
        if label in load.labels and block.group(load).family.storage is not Storage.IDENTITY:
            return block.extent(load, label)
    raise BackendError(f"no array of the statement has the label '{label}'")
