"""``from_torch``: a spec from a torch module, and what its tensors are called there."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch

from sifrc.importing.draft import Draft
from sifrc.importing.exported import export, names_of
from sifrc.importing.translate import translate

__all__ = ["network_of"]


def network_of(
    module: torch.nn.Module,
    arguments: Sequence[Any],
    named: Mapping[str, Any],
    trained: Collection[str] | None = None,
    output: int | str | None = None,
) -> tuple[dict[str, Any], dict[str, str], list[str]]:
    """The network of a spec as nested dicts.

    Args:
        module: whose ``forward`` is traced.
        arguments: an example batch by position.
        named: the same by name.
        trained: names of the parameters that are no constants; by default those that want a gradient.
        output: place or name of the output, of several that ``forward`` returns.

    Returns:
        The network; tensor of the spec -> tensor of the module; and the buffers whose numbers are in it.

    Raises:
        ModuleImportError: it cannot be traced, or an operator has no layer.
    """
    exported = export(module, arguments, named, output)
    draft, last = translate(exported, names_of(module, arguments, named), trained)
    layers, read = _reached(draft, last)
    names = {layer["name"] for layer in layers}
    tensors = {
        own: name
        for own, name in draft.tensors.items()
        if any(own.startswith(f"{layer}.") for layer in names)
    }
    inputs = [source for source in draft.inputs if source["name"] in read]
    network: dict[str, Any] = {"input": inputs[0]} if len(inputs) == 1 else {"inputs": inputs}
    network["layers"] = layers
    if "training" not in draft.modes and "evaluation" in draft.modes:
        network["mode"] = "evaluation"
    return network, tensors, sorted(draft.fixed)


def _inputs(layer: Mapping[str, Any]) -> list[str]:
    """All that a layer reads: its inputs, and what a recurrent one begins with."""
    found = layer.get("inputs", [])
    return [*([found] if isinstance(found, str) else found), *layer.get("state", [])]


def _reached(draft: Draft, output: str) -> tuple[list[dict[str, Any]], set[str]]:
    """Layers that lead to the output, which is the last, and the names of all that they read."""
    by_name = {layer["name"]: layer for layer in draft.layers}
    reached, left = {output}, [output]
    while left:
        layer = by_name[left.pop()]
        for name in (*_inputs(layer), *([layer["share"]] if "share" in layer else [])):
            if name in by_name and name not in reached:
                reached.add(name)
                left.append(name)
    kept = [layer for layer in draft.layers if layer["name"] in reached]
    kept.sort(key=lambda layer: layer["name"] == output)
    read = {name for layer in kept for name in _inputs(layer)}
    first = next((each["name"] for each in draft.inputs if each["name"] in read), "")
    return _short(kept, first), read


def _short(layers: Sequence[dict[str, Any]], first: str) -> list[dict[str, Any]]:
    """Without inputs that are the layer before, keys in a readable order."""
    found, previous = [], first
    for layer in layers:
        inputs = layer.get("inputs")
        keys = {"name": layer["name"], "type": layer["type"]}
        if inputs is not None and inputs not in (previous, [previous]):
            keys["inputs"] = inputs
        found.append(keys | {key: value for key, value in layer.items() if key not in (*keys, "inputs")})
        previous = layer["name"]
    return found
