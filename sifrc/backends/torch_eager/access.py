"""Names, subscripts and broadcasting: how a load of the program reads as a Torch expression.

A family with an index is a dict from its own subscript to a tensor, so that generated code has the
subscripts of the equations; a family without one is a tensor.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from sifrc.backends.names import indexed, owner_name, subscript_text
from sifrc.ir.quantity import Storage
from sifrc.lower.access import absolute, classes_of, loads_of, targets_of, unrolled
from sifrc.lower.arrays import (
    AtStep,
    Change,
    Counted,
    Family,
    Load,
    OneHot,
    Ref,
    Reshape,
    Slot,
    Take,
    Upto,
    Window,
)
from sifrc.lower.program import Function, Program
from sifrc.lower.statements import Kernel, Statement

__all__ = ["FLOATS", "LIKE", "Member", "Names", "accesses", "aligned", "function_members"]

LIKE = "like"
"""Local variable with a tensor whose dtype and device new tensors get."""
FLOATS = frozenset({Storage.CONSTANT, Storage.HYPERPARAMETER})
"""Families that are Python numbers in generated code."""

Member = tuple[str, int | None]
"""Family name and absolute subscript."""


def aligned(text: str, labels: tuple[str, ...], target: tuple[str, ...]) -> str:
    """A tensor over ``labels``, so that it broadcasts against one over ``target``.

    Example:
        >>> aligned("b", ("p",), ("p", "i")), aligned("b", ("i",), ("p", "i"))
        ('b[:, None]', 'b')
        >>> aligned("H", ("i", "s", "i", "s"), ("i", "s"))
        'H.diagonal(dim1=0, dim2=2).diagonal(dim1=0, dim2=1)'
    """
    while repeated := next((label for label in labels if labels.count(label) > 1), None):
        first, second = (n for n, label in enumerate(labels) if label == repeated)
        text = f"{text}.diagonal(dim1={first}, dim2={second})"
        labels = (*(label for label in labels if label != repeated), repeated)
    order = sorted(range(len(labels)), key=lambda n: target.index(labels[n]))
    if order != list(range(len(labels))):
        text += ".T" if len(order) == 2 else f".permute({', '.join(map(str, order))})"
    present = [label in labels for label in target]
    if True not in present:
        return text
    tail = present[present.index(True) :]
    return text if all(tail) else f"{text}[{', '.join(':' if here else 'None' for here in tail)}]"


@dataclass(frozen=True)
class Names:
    """How one function refers to arrays.

    Args:
        program: of which it is part.
        batched: with a sample axis.
        plain: families that are local variables, without a subscript.
        stepped: families of which each array of one step is a local variable.
        single: the module computes in single precision or less.
        in_place: tensors that nothing else has may be overwritten; not where Torch differentiates.
    """

    program: Program
    batched: bool
    plain: frozenset[str] = frozenset()
    stepped: frozenset[str] = frozenset()
    single: bool = False
    in_place: bool = False

    def family(self, load: Load) -> Family:
        """The family of a load."""
        return self.program.family(load.ref.family)

    def is_float(self, load: Load) -> bool:
        """Whether it is a Python number."""
        return self.family(load).storage in FLOATS

    def ref(self, ref: Ref) -> str:
        """Source text of an array, e.g. ``x[k - 1]``."""
        if ref.family in self.stepped:
            return self.flat(ref)
        family = self.program.family(ref.family)
        code = family.code.upper() if family.storage is Storage.CONSTANT else family.code
        if ref.subscript is None or ref.family in self.plain:
            return code
        return f"{code}[{subscript_text(ref.subscript)}]"

    def array(self, load: Load) -> str:
        """Source text of an array, or of the window of it that is meant."""
        if any(isinstance(part, AtStep) for part in load.window):
            text = f"{self.slices(load)[0]}[step]"
        else:
            text = indexed(self.ref(load.ref), [self._part(part) for part in load.window])
        shape, rank = self._whole_shape(load), load.rank
        for change in load.changes:
            text = self._changed(text, change, shape, rank)
            shape = None if shape is None else change.of(shape)
            rank = len(change.of((None,) * rank))
        return text

    def _changed(self, text: str, change: Change, shape: tuple[int | None, ...] | None, rank: int) -> str:
        """An array in another shape, or read at other places."""
        if isinstance(change, OneHot):
            return f"_one_hot({text}, {change.size}, {LIKE})"
        if isinstance(change, Counted):
            return f"({text} != -1).to({LIKE}.dtype)"
        if isinstance(change, Take):
            return self._taken(text, change, rank)
        first = change.position
        if isinstance(change, Reshape):
            if change.joins:
                return f"{text}.flatten({first}, {first + len(change.sizes) - 1})"
            return f"{text}.unflatten({first}, {change.sizes})"
        if change.steps == (1,) and change.divisor == 1:
            (size,), start = change.sizes, change.offset
            extent = None if shape is None else shape[first]
            if extent is not None and start >= 0 and start + size <= extent:
                return f"{text}.narrow({first}, {start}, {size})"
            return f"_entries_from({text}, {first}, {start}, {size})"
        divisor = f", {change.divisor}" if change.divisor != 1 else ""
        return f"_read_at({text}, {first}, {change.sizes}, {change.steps}, {change.offset}{divisor})"

    def classes(self, ref: Ref, partial: bool) -> str:
        """Source text of classes that may be read at; what does not count has the first one."""
        text = self.ref(ref)
        return f"{text}.where({text} != -1, 0)" if partial else text

    def _taken(self, text: str, take: Take, rank: int) -> str:
        """An array read at classes."""
        classes, dim = self.classes(take.classes, take.partial), take.position
        if rank == 2 and dim == 0 and set(take.along) == {None}:
            return f"torch.nn.functional.embedding({classes}, {text})"
        if take.along == tuple(each for each in range(rank) if each != dim):
            return f"{text}.gather({dim}, {classes}.unsqueeze({dim})).squeeze({dim})"
        if rank == dim + 1 and take.along == (*range(dim), *(None for _ in take.along[dim:])):
            return f"{text}.gather({dim}, {classes}.flatten({dim})).view_as({classes})"
        places = [along for along in take.along if along is not None]
        last = rank == dim + 1 and places == [*range(dim - len(places), dim)] and None in take.along
        if last and take.along[: len(places)] == tuple(places):
            return f"_read_along({text}, {classes}, {len(places)})"
        return f"_taken({text}, {classes}, {take.position}, {take.along})"

    def slices(self, load: Load) -> tuple[str, str]:
        """A list of the steps of an array, and the expression that makes it.

        Args:
            load: of the array at a step.
        """
        slot = next(n for n, part in enumerate(load.window) if isinstance(part, AtStep))
        before = load.window[:slot]
        text = indexed(self.ref(load.ref), [self._part(part) for part in before])
        dim = sum(not isinstance(part, int | Slot) for part in before)
        return f"{self.flat(load.ref)}_at", f"{text}.unbind({dim})"

    def flat(self, ref: Ref) -> str:
        """A name for an array that is none of its subscript, e.g. ``x_2``."""
        code = self.program.family(ref.family).code
        return code if ref.subscript is None else f"{code}_{ref.subscript.offset}"

    def _part(self, part: Window) -> str:
        if isinstance(part, Slot):
            return f"{owner_name(part.family)}[{subscript_text(part.subscript)}]"
        if isinstance(part, Upto):
            return f":len({self.ref(part.ref)})"
        return ":" if part is None else str(part)

    def shape(self, load: Load) -> tuple[int | None, ...] | None:
        """Sizes of the dimensions of a load, None for the batch; None if rounds of a loop differ."""
        shape = self._whole_shape(load)
        for change in load.changes:
            shape = None if shape is None else change.of(shape)
        return shape

    def _whole_shape(self, load: Load) -> tuple[int | None, ...] | None:
        """The same before changes."""
        shapes, subscript = dict(self.family(load).shapes), load.ref.subscript
        if subscript is not None and subscript.relative:
            return None
        shape = shapes[None if subscript is None else subscript.offset]
        shape = shape if self.batched else tuple(n for n in shape if n is not None)
        window = (*load.window, *(None for _ in shape[len(load.window) :]))
        pairs = zip(shape, window, strict=True)
        return tuple(n for n, part in pairs if not isinstance(part, int | Slot | AtStep))

    def sizes(self, load: Load) -> dict[str, int | None]:
        """Label -> extent; None is the batch."""
        family = self.family(load)
        if not load.labels:
            return {}
        shapes = dict(family.shapes)
        subscript = load.ref.subscript
        index = None if subscript is None else subscript.offset
        # Inside a loop the extents differ from round to round.
        if subscript is not None and subscript.relative:
            return {}
        if load.window:
            return {}
        shape = shapes[index] if self.batched else tuple(n for n in shapes[index] if n is not None)
        return dict(zip(load.labels, load.changed(shape), strict=True))

    def common_sizes(self, load: Load) -> dict[str, int]:
        """Label -> extent, for those that are the same whichever member of the family it is."""
        if load.window:
            return {}
        shapes = [shape for _, shape in self.family(load).shapes]
        if not self.batched:
            shapes = [tuple(n for n in shape if n is not None) for shape in shapes]
        if not load.ref.subscript or not load.ref.subscript.relative:
            return {label: size for label, size in self.sizes(load).items() if size is not None}
        if load.changes or len({len(shape) for shape in shapes}) > 1:
            return {}
        sizes = zip(load.labels, zip(*shapes, strict=True), strict=True)
        return {label: each[0] for label, each in sizes if len(set(each)) == 1 and each[0] is not None}


def accesses(statement: Statement) -> Iterator[tuple[Load, bool]]:
    """Loads and targets (True) in the order in which they happen."""
    if isinstance(statement, Kernel):
        table = dict(statement.loads)
        read: list[list[Load]] = [[] for _ in statement.assigns]
        for name, load in table.items():
            for number in statement.readers.get(name, ()):
                read[number] += (load, *classes_of(load))
        for loads, assign in zip(read, statement.assigns, strict=True):
            yield from ((load, False) for load in loads)
            yield assign.target, True
    else:
        yield from ((load, False) for load in loads_of(statement))
        yield from ((target, True) for target in targets_of(statement))


def function_members(function: Function) -> tuple[tuple[Member, ...], tuple[Member, ...]]:
    """Members that a function reads before it writes them, and members that it writes, in order."""
    needed: dict[Member, None] = {}
    written: dict[Member, None] = {}
    for statement, k in unrolled(function.body):
        for load, is_target in accesses(statement):
            member = absolute(load.ref, k)
            if is_target:
                written.setdefault(member)
            elif member not in written:
                needed.setdefault(member)
    return tuple(needed), tuple(written)
