"""A deep network without most of its repeated layers: what can be derived for it is the same.

That depends on the layers and on how they are joined, not on how often a pattern of them comes. A run in
which every layer looks like the one ``period`` places before it is cut in its middle: its first and last
repetitions stay, as many as the connections reach, and are joined as the cut ones were.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TypeAlias

from sifrc.spec.partition import groups_of, tensor_names
from sifrc.spec.states import state_names
from sifrc.spec.types import LayerSpec, PartitionSpec, RegularizationSpec, Spec

__all__ = ["Condensed", "condense"]

_PERIODS = 16
"""Longest pattern that is looked for."""
_KEPT = 3
"""Repetitions that stay at either end, at least."""

_Look: TypeAlias = tuple[object, ...]


@dataclass(frozen=True)
class Condensed:
    """A spec without repeated layers.

    Args:
        spec: with the layers that are left, under their own names and places.
        alike: name of a layer that is left -> the layers that it stands for, itself among them, in order.
    """

    spec: Spec
    alike: Mapping[str, tuple[str, ...]]


def condense(spec: Spec) -> Condensed:
    """The spec without most of its repeated layers; the spec itself where nothing is repeated often.

    Args:
        spec: validated.

    Example:
        >>> from sifrc.spec import build_spec
        >>> layers = [{"name": f"fc{k}", "type": "dense", "units": 4, "activation": "tanh"}
        ...     for k in range(1, 101)]
        >>> spec = build_spec({"sifrc": 1, "name": "deep", "loss": "mse",
        ...     "network": {"input": {"size": 4}, "layers": layers}})
        >>> small = condense(spec)
        >>> len(small.spec.layers), small.spec.layers[3].name, small.spec.layers[-1].name
        (8, 'fc4', 'fc100')
        >>> len(small.alike["fc4"])
        93
    """
    looks, reach = _looks(spec)
    cuts = _cuts(looks, reach)
    if not cuts:
        return Condensed(spec, MappingProxyType({layer.name: (layer.name,) for layer in spec.layers}))
    names = [layer.name for layer in spec.layers]
    moved: dict[str, str] = {}
    alike: dict[str, list[str]] = {}
    left: list[LayerSpec] = []
    position = 0
    for start, end, period in (*cuts, (len(names), len(names), 1)):
        for layer in spec.layers[position:start]:
            left.append(replace(layer, inputs=tuple(moved.get(name, name) for name in layer.inputs)))
            alike[layer.name] = [layer.name]
        for index in range(start, end):
            # A whole number of periods is cut, so that the layer one cut before is of the same sort.
            kept = start - period + (index - start) % period
            moved[names[index]] = names[kept]
            alike[names[kept]].append(names[index])
        position = end
    layers = tuple(left)
    return Condensed(
        replace(
            spec,
            layers=layers,
            regularization=_regularization(spec.regularization, spec.input.name, layers),
            partition=_partition(spec, layers),
        ),
        MappingProxyType({name: tuple(others) for name, others in alike.items()}),
    )


def _looks(spec: Spec) -> tuple[list[_Look], list[int]]:
    """What tells layers apart, joints as distances; and how far the joints of each layer reach."""
    place = {layer.name: index for index, layer in enumerate(spec.layers)}
    owners = {layer.share for layer in spec.layers if layer.share is not None}
    states = state_names(spec.layers)
    weighted = dict(spec.regularization.values)
    penalties = dict(spec.regularization.parameters)
    readers: list[list[int]] = [[] for _ in spec.layers]
    sources: list[tuple[int, ...]] = []  # distances; 0 is the network input
    given = [source.name for source in spec.inputs]
    for index, layer in enumerate(spec.layers):
        found = [place.get(name, index) for name in layer.inputs]
        # Distances to layers; inputs of the network are told apart by numbers from 0 down.
        sources.append(
            tuple(index - place[name] if name in place else -given.index(name) for name in layer.inputs)
        )
        for source in found:
            if source != index:
                readers[source].append(index - source)
    looks: list[_Look] = []
    reach: list[int] = []
    for index, layer in enumerate(spec.layers):
        shared = layer.share or (layer.name if layer.name in owners else None)
        looks.append(
            (
                layer.kind,
                layer.shape,
                layer.activation,
                layer.bias,
                layer.settings,
                layer.mask,
                shared,
                layer.name in owners,
                states[layer.name] in weighted,
                tuple(penalties.get(name) for name in tensor_names([layer])),
                sources[index],
                tuple(readers[index]),
            )
        )
        reach.append(max((*sources[index], *readers[index]), default=0))
    return looks, reach


def _cuts(looks: Sequence[_Look], reach: Sequence[int]) -> list[tuple[int, int, int]]:
    """(start, end, period) of what is left out, in order."""
    known: dict[_Look, int] = {}
    numbers = [known.setdefault(look, len(known)) for look in looks]
    cuts: list[tuple[int, int, int]] = []
    index = 0
    while index < len(numbers):
        best: tuple[int, int, int] | None = None
        length = 1
        for period in range(1, _PERIODS + 1):
            end = index
            while end + period < len(numbers) and numbers[end] == numbers[end + period]:
                end += 1
            run = (end - index + period) // period * period if end > index else 0
            farthest = max(reach[index : index + run], default=0)
            kept = max(_KEPT, -(-farthest // period) + 2)
            cut = run - 2 * kept * period
            if cut > 0 and (best is None or cut > best[1] - best[0]):
                start = index + kept * period
                best, length = (start, start + cut, period), run
        if best is not None:
            cuts.append(best)
        index += length
    return cuts


def _regularization(
    given: RegularizationSpec, source: str, layers: Sequence[LayerSpec]
) -> RegularizationSpec:
    """The numbers of the states that are left, and of the white layer."""
    states = {source, *state_names(layers).values()}
    tensors = tensor_names(layers)
    return replace(
        given,
        values=tuple(pair for pair in given.values if pair[0] in states),
        parameters=tuple(pair for pair in given.parameters if pair[0] in tensors),
    )


def _partition(spec: Spec, layers: Sequence[LayerSpec]) -> PartitionSpec:
    """The groups, of the tensors that are left; groups that have none are gone."""
    given = spec.partition
    if given.kind not in ("blocks", "alternate", "chunks", "groups"):
        return given
    left = {layer.name for layer in layers}
    groups = tuple(
        (name, tuple(tensor for tensor in tensors if tensor.partition(".")[0] in left))
        for name, tensors in groups_of(given, spec.layers)
    )
    return replace(given, kind="groups", count=0, groups=tuple(group for group in groups if group[1]))
