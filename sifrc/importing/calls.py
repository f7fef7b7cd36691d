"""One call of an operator, as rules see it: its arguments by name, and layers for what it gives."""

from __future__ import annotations

import operator
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from sifrc.errors import ModuleImportError
from sifrc.importing.atoms import SAMPLES, Atoms, Held, Value, fresh
from sifrc.importing.draft import Draft
from sifrc.importing.exported import sizes_of

__all__ = ["Call", "Refused", "axes_for", "number_in", "refusal"]


class Refused(Exception):
    """An operator that no layer does: what is wrong, and what would do."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message, self.hint = message, hint


@dataclass
class Call:
    """A call of an operator.

    Args:
        node: of the graph.
        draft: the spec so far.
        arguments: by the names of the operator's schema; tensors are values, or numbers where nothing of the
            module is in them.
        name: of the operator, without its overload.
        overload: of the operator.
        path: of the module that calls it, and whether that does nothing else.
        needed: nodes that the output of the network depends on.
    """

    node: torch.fx.Node
    draft: Draft
    arguments: Mapping[str, Any]
    name: str
    overload: str
    path: tuple[str, bool]
    needed: Collection[torch.fx.Node] = ()
    _named: list[str] = field(default_factory=list)

    def __getitem__(self, name: str) -> Any:
        return self.arguments[name]

    def get(self, name: str, default: Any = None) -> Any:
        """An argument, or a default where the operator has none of this name."""
        return self.arguments.get(name, default)

    # Arguments

    def value(self, name: str) -> Value:
        """A tensor as a value; fixed numbers become a table."""
        return self.as_value(self[name])

    def as_value(self, found: Any) -> Value:
        """A tensor as a value; fixed numbers become a table."""
        if isinstance(found, Value):
            return found
        if isinstance(found, torch.Tensor):
            return self._table(found)
        raise Refused(f"{self.name} of {type(found).__name__}")

    def held(self, name: str) -> Held | None:
        """A tensor that the module keeps, as it keeps it; None where there is none.

        Raises:
            Refused: the tensor is computed, or it is a view.
        """
        found = self[name]
        if found is None:
            return None
        if not isinstance(found, Value) or not isinstance(found.source, Held):
            raise Refused(
                f"the {name} of {self.name} is computed",
                "a tensor that the module keeps; products of two computed tensors are matrix products",
            )
        shape = self.draft.shapes[found.source.name]
        if found.sizes() != shape or found.dims != found.layout:
            raise Refused(f"the {name} of {self.name} is a view of {found.source.name}")
        return found.source

    def gives(self, number: int) -> bool:
        """Whether the output of the network depends on one of several results of the operator."""
        return any(
            user.target is operator.getitem and user.args[1] == number and user in self.needed
            for user in self.node.users
        )

    def own(self, found: Any) -> bool:
        """Whether a tensor is as the module keeps it, so that a layer can have it as its own."""
        held = found.source if isinstance(found, Value) else None
        if not isinstance(held, Held) or held.name in self.draft.plain:
            return False
        return bool(found.dims == found.layout)

    def kept(self, found: Any, name: str) -> Held:
        """A tensor that the module keeps, which cannot be missing."""
        if not isinstance(found, Value) or not isinstance(found.source, Held):
            raise Refused(f"the {name} of {self.name} is computed", "a tensor that the module keeps")
        return found.source

    def dim(self, name: str = "dim", value: str = "self") -> int:
        """A dimension, from 0."""
        rank = len(self.value(value).dims)
        found = int(self[name])
        return found + rank if found < 0 else found

    def dims(self, name: str = "dim", value: str = "self") -> list[int]:
        """Dimensions, from 0, in order; all of them where none are given."""
        rank, found = len(self.value(value).dims), self[name]
        if found is None or found == []:
            return list(range(rank))
        found = [found] if isinstance(found, int) else found
        return sorted(int(dim) % rank for dim in found)

    def sizes(self) -> tuple[tuple[int, bool], ...]:
        """Sizes of what comes out, without samples, and whether each has these."""
        return sizes_of(self.node.meta["val"], self.draft.samples)

    def _table(self, numbers: torch.Tensor) -> Value:
        """A layer of fixed numbers; each tensor once."""
        numbers = numbers.detach()
        known = self.draft.table(numbers)
        layout = fresh(numbers.shape) or ((),)
        return Value(known, layout, layout if numbers.dim() else ())

    # Layers

    def layer(self, kind: str, *inputs: str, hint: str = "", **keys: Any) -> str:
        """A layer named by where it is called."""
        return self.draft.add(kind, inputs, self.named(hint), **keys)

    def named(self, hint: str = "") -> str:
        """A name: that of the module if it does nothing else, or what is done in it."""
        path, alone = self.path
        first = not self._named
        self._named.append(hint)
        return self.draft.name(path, "" if alone and first and not hint else hint or self.name.strip("_"))

    def same(self, value: Value, source: str) -> Value:
        """A state with the axes of another one."""
        return replace(value, source=source, whole=False)

    def directly(self, value: Value) -> tuple[Value, str]:
        """A value and its state, in whatever order its axes are."""
        stated = self.draft.stated(value)
        assert isinstance(stated.source, str)
        return stated, stated.source

    def natural(self, value: Value) -> tuple[tuple[Atoms, ...], str]:
        """Axes for the dimensions in their order, without samples, and the state that has them."""
        wanted = axes_for(value.dims)
        return wanted, self.draft.arranged(value, wanted)

    def apart(self, value: Value, dims: Sequence[int]) -> tuple[Value, list[int]]:
        """A value with a whole axis of its state for each of some dimensions, and which these are, from 0.

        Dimensions of one entry have none.
        """
        groups = [value.dims[dim] for dim in dims if value.dims[dim]]
        if any(SAMPLES in group for group in groups):
            raise Refused(
                f"{self.name} acts along the samples of the batch",
                "the first dimension of inputs is that of the samples, which only batch norm mixes",
            )
        stated, source = self.directly(value)
        if any(stated.axis_of(group) is None for group in groups):
            rest = [tuple(a for a in axis if not any(a in g for g in groups)) for axis in stated.layout]
            order = sorted(
                [*groups, *filter(None, rest)],
                key=lambda group: [a for axis in stated.layout for a in axis].index(group[0]),
            )
            source = self.draft.arranged(stated, order)
            stated = replace(stated, source=source, layout=tuple(order))
        found = [stated.axis_of(group) for group in groups]
        return stated, [axis for axis in found if axis is not None]


def number_in(found: Any) -> float | None:
    """A number, or that of a tensor of one entry; None for anything else."""
    if isinstance(found, bool | int | float):
        return float(found)
    if isinstance(found, torch.Tensor) and found.numel() == 1:
        return float(found)
    return None


def axes_for(dims: Sequence[Atoms]) -> tuple[Atoms, ...]:
    """An axis for each dimension, what is before and after samples apart; none for samples alone."""
    axes: list[Atoms] = []
    for atoms in dims:
        if SAMPLES not in atoms:
            axes.append(atoms)
            continue
        at = atoms.index(SAMPLES)
        axes += [part for part in (atoms[:at], atoms[at + 1 :]) if part]
    return tuple(axes)


def refusal(error: Refused, name: str, path: str, place: str) -> ModuleImportError:
    """The error of an operator that cannot be taken: which, in which module, at which line."""
    where = f" in {path}" if path else ""
    line = f", {place}" if place else ""
    return ModuleImportError(f"{error.message} (operator {name}{where}{line})", hint=error.hint or None)
