"""Products with weights and of tensors, embeddings."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import torch

from sifrc.importing.atoms import SAMPLES, Atoms, Held, Value, fresh, permuted, size_of, viewed
from sifrc.importing.calls import Call, Refused, axes_for, number_in
from sifrc.importing.rules.entrywise import aligned, combined
from sifrc.importing.rules.indices import indexed
from sifrc.importing.rules.reductions import reduced

__all__ = ["RULES", "dense", "product"]


def _linear(call: Call) -> Value:
    weight, bias = call["weight"], call.get("bias")
    if _whole(call, weight):
        if bias is None or _whole(call, bias):
            held = call.held("bias") if bias is not None else None
            return dense(call, call.value("input"), weight.source, held)
        found = dense(call, call.value("input"), weight.source, None)
    else:
        found = product(call, call.value("input"), permuted(call.value("weight"), (1, 0)))
    return found if bias is None else combined(call, "add", [found, call.as_value(bias)])


def _whole(call: Call, found: Any) -> bool:
    """Whether a tensor is a parameter that a layer can have as its own."""
    return call.own(found) and found.source.name in call.draft.parameters


def dense(call: Call, value: Value, weight: Held, bias: Held | None) -> Value:
    """W x + β along the last dimension."""
    features = value.dims[-1]
    if SAMPLES in features:
        raise Refused("a product with a weight along the samples", "along another dimension")
    path, (units, _) = call.draft.weight_of(weight)
    name = call.draft.name(path)
    # The weight may be that of a layer without a bias, as that of an embedding.
    apart = bias is not None and call.draft.has_alone(weight)
    share = call.draft.own(name, "dense", {"weight": weight} if apart else {"weight": weight, "bias": bias})
    stated, source = call.directly(value)
    if not stated.layout or stated.layout[-1] != features:
        others = [tuple(a for a in axis if a not in features) for axis in stated.layout]
        order = (*filter(None, others), features)
        source = call.draft.arranged(stated, order)
        stated = replace(stated, source=source, layout=order)
    call.draft.add(
        "dense",
        (source,),
        name,
        units=None if share else units,
        bias=False if bias is None and not share else None,
        share=share,
    )
    out = fresh([units])[0]
    found = Value(name, (*stated.layout[:-1], out), (*value.dims[:-1], out))
    if not apart or bias is None:
        return found
    axis = (fresh([units])[0],)
    return combined(call, "add", [found, Value(bias, axis, axis)])


def _addmm(call: Call) -> Value:
    if number_in(call["beta"]) != 1.0 or number_in(call["alpha"]) != 1.0:
        raise Refused(f"{call.name} with factors", "alpha and beta of one")
    one, two = ("mat1", "mat2") if call.name == "addmm" else ("batch1", "batch2")
    second = call.value(two)
    return combined(call, "add", [product(call, call.value(one), second), call.value("self")])


def _matmul(call: Call) -> Value:
    other = "mat2" if "mat2" in call.arguments else "vec" if "vec" in call.arguments else "other"
    other = "tensor" if "tensor" in call.arguments else other
    return product(call, call.value("self"), call.value(other))


def product(call: Call, left: Value, right: Value) -> Value:
    """A matrix product of the last two dimensions, for each index of those before."""
    vectors = len(left.dims) == 1, len(right.dims) == 1
    left = replace(left, dims=((), *left.dims)) if vectors[0] else left
    right = replace(right, dims=(*right.dims, ())) if vectors[1] else right
    held = right.source
    turned = len(right.dims) == 2 and right.dims == right.layout[::-1]
    if isinstance(held, Held) and held.trained and turned and held.name not in call.draft.plain:
        # x Wᵀ, written with a transposed weight.
        return _without(dense(call, left, held, None), vectors)
    rank = max(len(left.dims), len(right.dims))
    left, right = (replace(v, dims=((),) * (rank - len(v.dims)) + v.dims) for v in (left, right))
    lead = [_one_of(a, b) for a, b in zip(left.dims[:-2], right.dims[:-2], strict=True)]
    if any(SAMPLES in atoms for v in (left, right) for atoms in v.dims[-2:]):
        return _along_samples(call, left, right, lead, vectors)
    if not any(right.dims[:-2]) and any(left.dims[:-2]):
        # One matrix for all: the rows of the first are all its dimensions but the last.
        rows = tuple(a for axis in axes_for(left.dims[:-1]) for a in axis)
        first = call.draft.arranged(left, (rows, left.dims[-1]))
        second = call.draft.arranged(right, right.dims[-2:])
        out = fresh([size_of(right.dims[-1])])[0]
        name = call.layer("matmul", first, second, hint="product")
        return _without(Value(name, (rows, out), (*left.dims[:-1], out)), vectors)
    for value, name in ((left, "first"), (right, "second")):
        for own, wanted in zip(value.dims[:-2], lead, strict=True):
            if size_of(own) != size_of(wanted) and axes_for([wanted]):
                raise Refused(
                    f"a matrix product that repeats the {name} factor", "expand it by a product of entries"
                )
    axes = axes_for(lead)
    first, second = (
        call.draft.arranged(each, (*axes_for(aligned(each.dims[:-2], lead)), *each.dims[-2:]))
        for each in (left, right)
    )
    row, column = fresh([size_of(left.dims[-2]), size_of(right.dims[-1])])
    if first == second:
        second = call.layer("scale", second, hint="again", value=1.0)
    name = call.layer("matmul", first, second, hint="product")
    return _without(Value(name, (*axes, row, column), (*lead, row, column)), vectors)


def _one_of(one: Atoms, two: Atoms) -> Atoms:
    if one and two and size_of(one) != size_of(two):
        raise Refused(f"{size_of(one)} and {size_of(two)} matrices")
    return one if SAMPLES in one else two if SAMPLES in two else one or two


def _along_samples(
    call: Call, left: Value, right: Value, lead: Sequence[Atoms], vectors: tuple[bool, bool]
) -> Value:
    """Samples are the rows of the first factor: one matrix for all of them, or each its own row."""
    if SAMPLES in left.dims[-1] or right.of_samples:
        raise Refused("a matrix product that sums or mixes samples", "products of what each sample has")
    moved = replace(left, dims=(*left.dims[:-2], left.dims[-2], (), left.dims[-1]))
    inner = replace(right, dims=(*right.dims[:-2], (), *right.dims[-2:]))
    found = product(call, moved, inner)
    dims = (*found.dims[:-2], found.dims[-1])
    return _without(replace(found, dims=dims), vectors)


def _without(value: Value, vectors: tuple[bool, bool]) -> Value:
    """Without the dimensions of factors that were vectors."""
    dims = value.dims
    dims = (*dims[:-2], dims[-1]) if vectors[0] else dims
    return replace(value, dims=dims[:-1] if vectors[1] else dims)


def _embedding(call: Call) -> Value:
    weight, indices = call.held("weight"), call["indices"]
    assert weight is not None
    path, (count, units) = call.draft.weight_of(weight)
    if isinstance(indices, torch.Tensor):
        return _rows(call, call.value("weight"), indices)
    value = call.value("indices")
    call.draft.classes(value, count)
    stated, source = call.directly(value)
    name = call.draft.name(path)
    share = call.draft.own(name, "embedding", {"weight": weight})
    call.draft.add("embedding", (source,), name, units=None if share else units, share=share)
    out = fresh([units])[0]
    return Value(name, (*stated.layout, out), (*value.dims, out))


def _rows(call: Call, value: Value, indices: torch.Tensor) -> Value:
    """Rows of a tensor that fixed numbers name."""
    return indexed(call, value, 0, indices)


def _index_select(call: Call) -> Value:
    index = call["index"]
    if not isinstance(index, torch.Tensor):
        raise Refused("entries of a tensor by computed indices", "an embedding")
    return indexed(call, call.value("self"), call.dim(), index)


def _index(call: Call) -> Value:
    """x[…, indices, …] with one tensor of fixed indices."""
    given = list(call["indices"])
    places = [n for n, each in enumerate(given) if each is not None]
    if len(places) != 1 or not isinstance(given[places[0]], torch.Tensor):
        raise Refused(
            "entries of a tensor by computed indices, or by several tensors of them", "one that is fixed"
        )
    index = given[places[0]]
    if index.dtype == torch.bool:
        index = index.nonzero().flatten()
    return indexed(call, call.value("self"), places[0], index)


def _einsum(call: Call) -> Value:
    """One product of two tensors, or one tensor moved and summed."""
    text = str(call["equation"]).replace(" ", "")
    given, _, out = text.partition("->")
    labels = given.split(",")
    if (
        "..." in text
        or len(labels) > 2
        or "->" not in text
        or any(len(set(part)) < len(part) for part in labels)
    ):
        raise Refused(
            f"the einsum {text}", "one or two tensors, each with different labels, and -> the result"
        )
    values = [call.as_value(each) for each in call["tensors"]]
    if len(values) == 1:
        value, left_over = _summed(call, values[0], labels[0], out)
        return permuted(value, [left_over.index(label) for label in out])
    (left, right), (one, two) = values, labels
    left, one = _summed(call, left, one, two + out)
    right, two = _summed(call, right, two, one + out)
    both = [label for label in one if label in two and label in out]
    inner = [label for label in one if label in two and label not in out]
    rows = [label for label in one if label not in two]
    columns = [label for label in two if label not in one]
    if not inner:
        own, other = _spread(left, one, out), _spread(right, two, out)
        return combined(call, "multiply", [own, other])
    first = permuted(left, [one.index(label) for label in (*both, *rows, *inner)])
    second = permuted(right, [two.index(label) for label in (*both, *inner, *columns)])
    first = _grouped(first, len(both), len(rows), len(inner))
    second = _grouped(second, len(both), len(inner), len(columns))
    # Rows and columns were joined; the dimensions come back from their atoms.
    found = product(call, first, second)
    taken = [
        [value.dims[own.index(label)] for label in labels]
        for value, own, labels in ((left, one, rows), (right, two, columns))
    ]
    found, dims = _refined(found, len(both), *taken)
    order = [*both, *rows, *columns]
    return permuted(replace(found, dims=dims), [order.index(label) for label in out])


def _summed(call: Call, value: Value, own: str, left: str) -> tuple[Value, str]:
    """Without dimensions whose labels are nowhere else: sums over them."""
    dims = [n for n, label in enumerate(own) if label not in left]
    if not dims:
        return value, own
    kept = "".join(label for label in own if label in left)
    return reduced(call, "sum", value, dims, hint="sum"), kept


def _spread(value: Value, own: str, out: str) -> Value:
    """Dimensions in the order of the result, with one entry where there is none."""
    return replace(value, dims=tuple(value.dims[own.index(a)] if a in own else () for a in out))


def _grouped(value: Value, lead: int, rows: int, columns: int) -> Value:
    """The last dimensions as two."""
    dims = value.dims
    one = tuple(a for atoms in dims[lead : lead + rows] for a in atoms)
    two = tuple(a for atoms in dims[lead + rows :] for a in atoms)
    return replace(value, dims=(*dims[:lead], one, two))


def _refined(
    found: Value, lead: int, rows: Sequence[Atoms], columns: Sequence[Atoms]
) -> tuple[Value, tuple[Atoms, ...]]:
    """The last two dimensions as several."""
    sizes = [(size_of(a), SAMPLES in a) for a in (*found.dims[:lead], *rows, *columns)]
    split = viewed(found, sizes)
    if split is None:
        raise Refused("an einsum whose dimensions cannot be taken apart again")
    return split, split.dims


RULES: Mapping[str, Callable[[Call], Any]] = MappingProxyType(
    dict.fromkeys(("matmul", "mm", "bmm", "mv", "dot", "vdot"), _matmul)
    | {
        "linear": _linear,
        "addmm": _addmm,
        "baddbmm": _addmm,
        "embedding": _embedding,
        "index_select": _index_select,
        "index": _index,
        "einsum": _einsum,
    }
)
"""Operator -> what it becomes."""
