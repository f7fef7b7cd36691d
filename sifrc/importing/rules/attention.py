"""Scaled dot products: a layer of attention, or the products that it is made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import torch

from sifrc.importing.atoms import SAMPLES, Atoms, Value, fresh, permuted, size_of
from sifrc.importing.calls import Call, Refused
from sifrc.importing.rules.entrywise import combined
from sifrc.importing.rules.products import product
from sifrc.importing.rules.reductions import softmax

__all__ = ["RULES"]


def _attention(call: Call) -> Value:
    query, key, value = (call.value(name) for name in ("query", "key", "value"))
    mask, dropout = call.get("attn_mask"), float(call.get("dropout_p", 0.0))
    width = size_of(query.dims[-1])
    scale = call.get("scale")
    scale = width**-0.5 if scale is None else float(scale)
    causal = bool(call.get("is_causal", False))
    if isinstance(mask, torch.Tensor) and _is_causal(mask):
        mask, causal = None, True
    heads = _heads(query, key, value)
    if mask is None and dropout == 0.0 and heads is not None:
        return _layer(call, (query, key, value), heads, scale, causal)
    return _written_out(call, (query, key, value), mask, dropout, scale, causal)


def _is_causal(mask: torch.Tensor) -> bool:
    """Whether a fixed mask lets read a place itself and those before it."""
    if mask.dim() < 2 or mask.numel() != mask.shape[-1] * mask.shape[-2] or mask.shape[-1] != mask.shape[-2]:
        return False
    flat = mask.reshape(mask.shape[-2:])
    read = flat if flat.dtype == torch.bool else flat == 0
    below = torch.ones_like(read, dtype=torch.bool).tril()
    left_out = flat.dtype == torch.bool or bool((flat[~below] < -1e4).all())
    return bool((read == below).all()) and left_out


def _heads(query: Value, key: Value, value: Value) -> tuple[Atoms, Atoms] | None:
    """Atoms of the heads of queries and of keys, where there is nothing before them but samples."""
    found = []
    for each in (query, _unrepeated(key), _unrepeated(value)):
        lead = tuple(a for atoms in each.dims[:-2] for a in atoms)
        if not lead or lead[0] is not SAMPLES or SAMPLES in lead[1:] or not each.dims[-2]:
            return None
        if len([atoms for atoms in each.dims[:-2] if any(a is not SAMPLES for a in atoms)]) > 1:
            return None
        if any(SAMPLES in atoms for atoms in each.dims[-2:]):
            return None
        found.append(lead[1:])
    sizes = [size_of(heads) for heads in found]
    widths = {size_of(each.dims[-1]) for each in (query, key, value)}
    if sizes[1] != sizes[2] or sizes[0] % sizes[1] or len(widths) > 1:
        return None
    return found[0], found[1]


def _unrepeated(value: Value) -> Value:
    """Without what repeats each head of keys or values: queries that share one are next to each other."""
    held = value.held | {SAMPLES}
    dims = []
    for atoms in value.dims[:-2]:
        own = tuple(atom for atom in atoms if atom in held)
        dims.append(own if own == atoms[: len(own)] else atoms)
    return replace(value, dims=(*dims, *value.dims[-2:]))


def _layer(
    call: Call, states: tuple[Value, Value, Value], heads: tuple[Atoms, Atoms], scale: float, causal: bool
) -> Value:
    """A layer without weights of its own: queries, keys and values are what layers before it give."""
    counts = size_of(heads[0]), size_of(heads[1])
    sources = []
    for value in (states[0], _unrepeated(states[1]), _unrepeated(states[2])):
        own = tuple(a for atoms in value.dims[:-2] for a in atoms if a is not SAMPLES)
        sources.append(call.draft.arranged(value, (value.dims[-2], (*own, *value.dims[-1]))))
    query = states[0]
    width = size_of(query.dims[-1])
    name = call.layer(
        "attention",
        *([sources[0]] if len(set(sources)) == 1 else _apart(call, sources)),
        hint="attention",
        heads=counts[0],
        groups=None if counts[0] == counts[1] else counts[1],
        causal=True if causal else None,
        value=None if scale == width**-0.5 else scale,
        projected=False,
    )
    places, head, feature = fresh([size_of(query.dims[-2]), counts[0], width])
    dims = _lead(query, head)
    return Value(name, (places, (*head, *feature)), (*dims, places, feature))


def _apart(call: Call, sources: list[str]) -> list[str]:
    """Each of the states once, others by a layer that gives it again."""
    found: list[str] = []
    for source in sources:
        found.append(call.layer("scale", source, hint="again", value=1.0) if source in found else source)
    return found


def _lead(query: Value, head: Atoms) -> tuple[Atoms, ...]:
    """Dimensions of samples and heads, with new atoms for the heads."""
    found: list[Atoms] = []
    for atoms in query.dims[:-2]:
        own = any(a is not SAMPLES for a in atoms)
        found.append(((SAMPLES,) if SAMPLES in atoms else ()) + (head if own else ()))
    return tuple(found)


def _written_out(
    call: Call,
    states: tuple[Value, Value, Value],
    mask: Any,
    dropout: float,
    scale: float,
    causal: bool,
) -> Value:
    """softmax(scale · q kᵀ + mask) v in layers of their own."""
    query, key, value = states
    if call.get("enable_gqa", False) and size_of(query.dims[-3]) != size_of(key.dims[-3]):
        raise Refused("grouped queries with a mask or dropout", "attention without them, or as many heads")
    order = [*range(len(key.dims) - 2), len(key.dims) - 1, len(key.dims) - 2]
    scores = product(call, query, permuted(key, order))
    stated, source = call.directly(scores)
    scores = replace(stated, source=call.layer("scale", source, hint="scores", value=scale))
    if causal:
        rows, columns = size_of(scores.dims[-2]), size_of(scores.dims[-1])
        mask = torch.full((rows, columns), -torch.inf).triu(1)
    if mask is not None:
        if isinstance(mask, torch.Tensor) and mask.dtype == torch.bool:
            mask = torch.zeros(mask.shape).masked_fill(~mask, -torch.inf)
        scores = combined(call, "add", [scores, call.as_value(mask)])
    weights = softmax(call, "softmax", scores, len(scores.dims) - 1, "weights")
    if dropout > 0.0:
        call.draft.modes.add("training")
        stated, source = call.directly(weights)
        weights = call.same(stated, call.layer("dropout", source, hint="dropout", probability=dropout))
    return product(call, weights, value)


RULES: Mapping[str, Callable[[Call], Any]] = MappingProxyType({"scaled_dot_product_attention": _attention})
"""Operator -> what it becomes."""
