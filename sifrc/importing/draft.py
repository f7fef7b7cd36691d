"""The spec while it is written: layers by names of the module, states in the order that layers want."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from itertools import pairwise
from math import prod
from typing import Any

from sifrc.errors import ModuleImportError
from sifrc.importing.atoms import SAMPLES, Atom, Atoms, Held, Value, fresh, size_of
from sifrc.spec.names import MAX_NAME, name_problem
from sifrc.spec.schema import MAX_VALUES

__all__ = ["LEFT_OUT", "Draft", "Tied"]

_MANY = 256
"""Numbers from which on a mask is worth a formula."""
LEFT_OUT = 1e30
"""In the place of infinity, in masks that are added to scores: as large to an exponential."""


class Tied(ModuleImportError):
    """Layers use a tensor in different ways, so that no layer can have it as its own.

    Args:
        message: what is wrong.
        names: of the tensors.
        hint: what would do.
    """

    def __init__(self, message: str, names: Collection[str], hint: str) -> None:
        super().__init__(message, hint=hint)
        self.names = frozenset(names)


class Draft:
    """Layers so far.

    Args:
        shapes: of all tensors that the module keeps, by name.
        samples: of the batch that was traced; 0 where sizes are symbols.
        parameters: names of those that are parameters, trained or frozen.
        plain: names of tensors that no layer has as its own: they are states, and what reads them is written
            out as products.
    """

    def __init__(
        self,
        shapes: Mapping[str, tuple[int, ...]],
        samples: int = 0,
        parameters: Collection[str] = (),
        plain: Collection[str] = (),
    ) -> None:
        self.shapes, self.samples, self.parameters = shapes, samples, parameters
        self.plain = frozenset(plain)
        self.layers: list[dict[str, Any]] = []
        self.inputs: list[dict[str, Any]] = []
        self.tensors: dict[str, str] = {}
        """Tensor of the spec -> tensor of the module."""
        self.modes: set[str] = set()
        """What the traced module did: ``training``, ``evaluation``."""
        self.fixed: set[str] = set()
        """Buffers whose numbers layers were made from."""
        self.path = ""
        """Of the module whose operator is taken."""
        self._names: set[str] = set()
        self._owners: dict[str, tuple[str, str]] = {}
        self._frozen: set[str] = set()
        self._tables: dict[tuple[Any, bytes], str] = {}
        self._arranged: dict[tuple[str, tuple[Atoms, ...], tuple[Atoms, ...]], str] = {}

    # Names

    def name(self, path: str, hint: str = "") -> str:
        """A name for a layer that nothing has yet, from a path in the module.

        Example:
            >>> draft = Draft({})
            >>> [draft.name("layer1.0.conv1"), draft.name("0"), draft.name("", "sum")]
            ['layer1_0_conv1', 'layer_0', 'sum_1']
        """
        words = "_".join(filter(None, (path, hint)))
        words = re.sub(r"[^A-Za-z0-9_]+", "_", words).strip("_") or "layer"
        words = words if words[0].isalpha() else f"layer_{words}"
        words = words if len(words) <= MAX_NAME - 5 else words[: MAX_NAME // 2] + words[-MAX_NAME // 2 + 6 :]
        name, number = words, 1
        while name in self._names or name_problem(name) is not None:
            number += name in self._names or number > 1
            name = f"{words}_{number}"
        self._names.add(name)
        return name

    def input(self, name: str, sizes: Sequence[int], whole: bool) -> Value:
        """An input of the network; classes are counted when something reads them."""
        layout = fresh(sizes)
        source = self.name(name)
        self.inputs.append({"name": source, "size": list(sizes)})
        if not sizes and not whole:
            source = self._reshape(source, ((),))
            layout = ((),)
        return Value(source, layout, ((SAMPLES,), *(layout if sizes else ())), whole)

    def classes(self, value: Value, count: int) -> None:
        """Say of how many classes an input of whole numbers is."""
        found = next((each for each in self.inputs if each["name"] == value.source), None)
        if found is None or found.setdefault("classes", count) != count:
            raise ModuleImportError(
                "an embedding reads what is no input of the network, or two of different sizes read one",
                hint="classes are an input of whole numbers, read by embeddings of as many classes",
            )

    # Layers

    def add(self, kind: str, inputs: Sequence[str], name: str, **keys: Any) -> str:
        """A layer; its name."""
        layer: dict[str, Any] = {"name": name, "type": kind}
        if inputs:
            layer["inputs"] = inputs[0] if len(inputs) == 1 else list(inputs)
        if name in self._frozen:
            keys["frozen"] = True
        self.layers.append(layer | {key: value for key, value in keys.items() if value is not None})
        return name

    def own(self, layer: str, kind: str, tensors: Mapping[str, Held | None]) -> str | None:
        """Let a layer have tensors of the module: its own, or those of a layer that has them already.

        Args:
            layer: name of the layer.
            kind: its type.
            tensors: what comes after its name -> tensor of the module, the weight first.

        Returns:
            The layer that it shares with; None where the tensors are its own.

        Raises:
            ModuleImportError: another layer has some of them only.
        """
        weight = next(held for held in tensors.values() if held is not None)
        wanted = {slot: held.name for slot, held in tensors.items() if held is not None}
        if weight.name not in self._owners:
            if clash := [name for name in wanted.values() if name in self._owners]:
                raise self.tied(clash, layer)
            trained = {held.trained for held in tensors.values() if held is not None}
            if len(trained) > 1:
                raise ModuleImportError(
                    f"some tensors of {layer} are trained and some are frozen",
                    hint="freeze all tensors of a layer (requires_grad=False), or none",
                )
            if trained == {False}:
                self._frozen.add(layer)
            for slot, own in wanted.items():
                self.tensors[f"{layer}.{slot}"] = own
                self._owners[own] = layer, kind
            return None
        owner, owned = self._owners[weight.name]
        theirs = {
            name.removeprefix(f"{owner}."): own
            for name, own in self.tensors.items()
            if name.startswith(f"{owner}.")
        }
        tied = (owned, kind) == ("embedding", "dense")
        if (owned != kind and not tied) or theirs != wanted:
            raise self.tied([weight.name, *theirs.values(), *wanted.values()], layer)
        return owner

    def has_alone(self, weight: Held) -> bool:
        """Whether a layer has a weight without a bias."""
        owner = self._owners.get(weight.name)
        return owner is not None and f"{owner[0]}.bias" not in self.tensors

    def tied(self, names: Sequence[str], layer: str) -> Tied:
        """The error for tensors that two layers use, which cannot share."""
        name = names[0]
        return Tied(
            f"{self._owners[name][0]} and {layer} use the tensor {name}, each in another way",
            names,
            hint="layers of one type share tensors, and so do an embedding and a dense layer without bias",
        )

    def table(self, numbers: Any) -> str:
        """A layer of fixed numbers; equal ones are one.

        Raises:
            ModuleImportError: there are too many, or some are not finite.
        """
        spread = numbers.double().clamp(min=-LEFT_OUT, max=LEFT_OUT)
        key = tuple(numbers.shape), spread.numpy().tobytes()
        if key not in self._tables:
            if spread.isnan().any():
                raise ModuleImportError("fixed numbers of the module are not numbers (NaN)")
            sizes = list(numbers.shape) or [1]
            expression = _of_causal(spread)
            regions = None if expression else _regions(spread)
            if regions is not None:
                self._tables[key] = self._of_regions(*regions)
                return self._tables[key]
            expression = expression or _of_frame(spread)
            if expression is None and numbers.numel() > MAX_VALUES:
                raise ModuleImportError(
                    f"the module has {numbers.numel()} fixed numbers in one tensor, a table has {MAX_VALUES}",
                    hint="register it as a buffer",
                )
            keys = {"expression": expression} if expression else {"values": spread.flatten().tolist()}
            self._tables[key] = self.add("table", (), self.name(self.path, "table"), sizes=sizes, **keys)
        return self._tables[key]

    def _of_regions(self, labels: Any, same: float, other: float) -> str:
        """One number where two entries have one label, another where they have not."""
        *lead, count = labels.shape
        flat = labels.flatten().tolist()
        sizes = ([*lead, count, 1], [*lead, 1, count])
        tables = [
            self.add("table", (), self.name(self.path, "regions"), sizes=each, values=flat) for each in sizes
        ]
        # Labels are whole numbers, one or more apart where they differ.
        step, cut = other - same, "max" if other < same else "min"
        text = f"{same!r} + {cut}({step!r}*abs(x1 - x2), {step!r})"
        return self.add("entrywise", tables, self.name(self.path, "mask"), expression=text)

    def weight_of(self, held: Held) -> tuple[str, tuple[int, ...]]:
        """What a tensor of the module is called, for a layer that has it, and its shape."""
        return re.sub(r"[._]?(weight|bias)$", "", held.name) or held.name, self.shapes[held.name]

    # Arrangement

    def stated(self, value: Value) -> Value:
        """With a state: what the module keeps becomes a layer."""
        if not isinstance(value.source, Held):
            return value
        held = value.source
        known = self._owners.get(held.name)
        if known is not None and known[1] != "parameter":
            raise self.tied([held.name], "an operator")
        if known is None:
            name = self.name(held.name)
            slot = "weight" if held.trained else "value"
            sizes = [size_of(atoms) for atoms in value.layout] or [1]
            start = {"init": {"kind": "zeros"}} if held.trained else {"trained": False}
            self.add("parameter", (), name, sizes=list(self.shapes[held.name]) or sizes, **start)
            self.tensors[f"{name}.{slot}"] = held.name
            self._owners[held.name] = name, "parameter"
        name = self._owners[held.name][0]
        # The layer has an axis for each dimension of the tensor, those of one entry too.
        return Value(name, value.layout, value.dims, value.whole)

    def arranged(self, value: Value, wanted: Sequence[Atoms]) -> str:
        """A state with these axes, in this order; layers that move and join axes where there is none.

        Args:
            value: a tensor.
            wanted: atoms of the axes, none for an axis of one entry.

        Raises:
            ModuleImportError: it would repeat numbers.
        """
        value = self.stated(value)
        assert isinstance(value.source, str)
        target = tuple(tuple(atoms) for atoms in wanted)
        if target == value.layout:
            return value.source
        key = value.source, value.layout, target
        if key not in self._arranged:
            repeated = {atom for atoms in target for atom in atoms} - value.held
            if repeated:
                raise ModuleImportError(
                    "numbers are repeated along a dimension before an operator that does not do so itself",
                    hint="leave expand to operators that repeat dimensions of one entry, as + and *",
                )
            self._arranged[key] = self._moved(value.source, value.layout, target)
        return self._arranged[key]

    def _moved(self, source: str, layout: tuple[Atoms, ...], target: tuple[Atoms, ...]) -> str:
        """Reshape, permute, reshape, each where it does something."""
        flat = [atom for atoms in target for atom in atoms]
        if [atom for atoms in layout for atom in atoms] != flat:
            units = _units(layout, target)
            split = sorted(units, key=lambda unit: _place(layout, unit))
            if split != list(layout):
                source = self._reshape(source, split)
            order = [split.index(unit) + 1 for unit in units]
            source = self.add("permute", (source,), self.name(self.path, "permute"), order=order)
            layout = tuple(units)
        return source if layout == target else self._reshape(source, target)

    def _reshape(self, source: str, axes: Sequence[Atoms]) -> str:
        sizes = [size_of(atoms) for atoms in axes]
        if len(sizes) == 1 and sizes != [1]:
            return self.add("flatten", (source,), self.name(self.path, "flatten"))
        return self.add("reshape", (source,), self.name(self.path, "reshape"), sizes=sizes or [1])


def _place(layout: tuple[Atoms, ...], unit: Atoms) -> int:
    flat = [atom for atoms in layout for atom in atoms]
    return flat.index(unit[0])


def _units(layout: tuple[Atoms, ...], target: tuple[Atoms, ...]) -> list[Atoms]:
    """Runs of atoms that follow each other in both, within an axis of one of them, as the target has them."""
    after = dict(pairwise(atom for axis in layout for atom in axis))
    within = {pair for axis in layout for pair in pairwise(axis)}
    joined = {pair for axis in target for pair in pairwise(axis)}
    units: list[list[Atom]] = []
    for atom in (atom for atoms in target for atom in atoms):
        last = units[-1][-1] if units else None
        if last is not None and after.get(last) is atom and (last, atom) in within | joined:
            units[-1].append(atom)
        else:
            units.append([atom])
    return [tuple(unit) for unit in units]


def _of_causal(numbers: Any) -> str | None:
    """A formula of what has one number on and below the diagonal and another above it; else None."""
    if numbers.dim() != 2 or numbers.shape[0] != numbers.shape[1] or len(numbers) < 2:
        return None
    inside, outside = float(numbers[0, 0]), float(numbers[0, 1])
    whole = numbers.new_full(numbers.shape, inside).tril() + numbers.new_full(numbers.shape, outside).triu(1)
    return f"where(x2 <= x1, {inside!r}, {outside!r})" if bool((whole == numbers).all()) else None


def _of_frame(numbers: Any) -> str | None:
    """A formula of what has one number in a box and another around it, as padding has; else None."""
    values = numbers.unique().tolist()
    if numbers.numel() < _MANY or len(values) != 2:
        return None
    for outside, inside in (values, reversed(values)):
        places = (numbers == inside).nonzero()
        low, high = places.amin(0).tolist(), places.amax(0).tolist()
        if len(places) != prod(last + 1 - first for first, last in zip(low, high, strict=True)):
            continue
        text = repr(inside)
        for axis, (first, last, size) in enumerate(zip(low, high, numbers.shape, strict=True), 1):
            if first > 0:
                text = f"where(x{axis} < {first}, {outside!r}, {text})"
            if last + 1 < size:
                text = f"where(x{axis} <= {last}, {text}, {outside!r})"
        return text
    return None


def _regions(numbers: Any) -> tuple[Any, float, float] | None:
    """Labels of the entries along the last dimension, where a mask says which of them are in one region."""
    if numbers.dim() < 2 or numbers.shape[-1] != numbers.shape[-2] or numbers.numel() < _MANY:
        return None
    values = numbers.unique()
    if len(values) != 2:
        return None
    same, other = (values[0], values[1]) if numbers.flatten()[0] == values[0] else (values[1], values[0])
    labels = (numbers == same).to(numbers.dtype).argmax(-1).to(numbers.dtype)
    whole = (labels[..., :, None] == labels[..., None, :]).to(numbers.dtype)
    found = whole * same + (1 - whole) * other
    return (labels, float(same), float(other)) if bool((found == numbers).all()) else None
