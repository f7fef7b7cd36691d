"""Which layers of a spec are one state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from sifrc.spec.types import LayerSpec

__all__ = ["state_names"]


def state_names(layers: Sequence[LayerSpec]) -> Mapping[str, str]:
    """Map every layer to the state it belongs to.

    A layer of another type without an activation of its own and the activation layer that follows it are one
    state, named by the activation layer, unless the first has another consumer: ``activation:`` is short for
    such a layer. Every other layer is a state of its own.

    Args:
        layers: all layers of a spec, in any order.

    Returns:
        Layer name to state name, in the order of ``layers``.

    Example:
        >>> fc, act = LayerSpec("fc", "dense", ("x",), (2,)), LayerSpec("act", "activation", ("fc",), (2,))
        >>> dict(state_names((fc, act)))
        {'fc': 'act', 'act': 'act'}
    """
    consumers: dict[str, list[LayerSpec]] = {layer.name: [] for layer in layers}
    for layer in layers:
        for name in layer.inputs:
            if name in consumers:
                consumers[name].append(layer)
    names: dict[str, str] = {}
    for layer in layers:
        users = consumers[layer.name]
        plain = layer.kind != "activation" and layer.activation is None
        fused = plain and len(users) == 1 and users[0].kind == "activation"
        names[layer.name] = users[0].name if fused else layer.name
    return MappingProxyType(names)
