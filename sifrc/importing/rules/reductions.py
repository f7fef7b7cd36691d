"""Means, sums, maxima, softmax and norms over dimensions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch

from sifrc.importing.atoms import Value, size_of
from sifrc.importing.calls import Call, Refused
from sifrc.importing.rules.entrywise import applied, combined

__all__ = ["RULES", "reduced", "softmax"]


def reduced(
    call: Call, kind: str, value: Value, dims: Sequence[int], keep: bool = False, hint: str = ""
) -> Value:
    """One number for what is along some dimensions.

    Args:
        call: whose layer it is.
        kind: type of the layer: ``mean``, ``sum`` or ``max``.
        value: a tensor.
        dims: its dimensions that are taken together, from 0.
        keep: whether these stay, with one entry.
        hint: for the name of the layer.
    """
    stated, axes = call.apart(value, dims)
    assert isinstance(stated.source, str)
    source, layout = stated.source, stated.layout
    left = tuple(() if n in dims else atoms for n, atoms in enumerate(value.dims) if keep or n not in dims)
    if axes:
        source = call.layer(kind, source, hint=hint, axes=[axis + 1 for axis in axes])
        layout = tuple(axis for n, axis in enumerate(layout) if n not in axes) or ((),)
    return Value(source, layout, left)


def softmax(call: Call, kind: str, value: Value, dim: int, hint: str = "") -> Value:
    """Softmax, or its logarithm, along a dimension."""
    stated, axes = call.apart(value, [dim])
    assert isinstance(stated.source, str)
    if not axes:
        raise Refused("a softmax over one entry", "several")
    axis = None if axes[0] == len(stated.layout) - 1 else axes[0] + 1
    return call.same(stated, call.layer(kind, stated.source, hint=hint, axis=axis))


def _dims(call: Call, value: Value) -> list[int]:
    """Dimensions that an operator is over; all of them where it names none."""
    return call.dims() if "dim" in call.arguments else list(range(len(value.dims)))


def _keep(call: Call) -> bool:
    return bool(call.get("keepdim", False))


def _reduction(kind: str) -> Callable[[Call], Any]:
    def rule(call: Call) -> Any:
        if kind == "max" and isinstance(call.get("other"), Value | torch.Tensor):
            raise Refused("torch.max of two tensors by this name", "torch.maximum")
        value = call.value("self")
        found = reduced(call, kind, value, _dims(call, value), _keep(call))
        return (found, None) if call.overload == "dim" and kind == "max" else found

    return rule


def _softmax(kind: str) -> Callable[[Call], Value]:
    def rule(call: Call) -> Value:
        return softmax(call, kind, call.value("self"), call.dim())

    return rule


def _deviation(call: Call) -> Value:
    """Variance or standard deviation over dimensions: the mean of squares without the mean."""
    value = call.value("self")
    dims = _dims(call, value)
    count = 1
    for dim in dims:
        count *= size_of(value.dims[dim])
    correction = call.get("correction", call.get("unbiased", 1))
    less = 1.0 if correction is None else float(correction)
    stated, axes = call.apart(value, dims)
    assert isinstance(stated.source, str)
    mean = call.layer("mean", stated.source, hint="mean", axes=[axis + 1 for axis in axes], keep=True)
    kept = tuple(() if n in axes else axis for n, axis in enumerate(stated.layout))
    dims_kept = tuple(() if n in dims else atoms for n, atoms in enumerate(value.dims))
    centred = combined(call, "x1 - x2", [stated, Value(mean, kept, dims_kept)])
    found = reduced(call, "mean", applied(call, centred, "x**2"), dims, _keep(call), "variance")
    text = "sqrt(c*x)" if call.name == "std" else "c*x"
    return applied(call, found, text, {"c": count / (count - less)})


def _weight_norm(call: Call) -> Value:
    """g v / ‖v‖, with a norm for each index of a dimension."""
    value, size = call.value("v"), call.value("g")
    own = int(call["dim"]) % len(value.dims) if int(call["dim"]) >= 0 or len(value.dims) > 1 else 0
    length = _length(call, value, [n for n in range(len(value.dims)) if n != own], True)
    return combined(call, "x1*x2/x3", [value, size, length])


def _log_sum_exp(call: Call) -> Value:
    """log Σ exp x along a dimension is x − log softmax x, whichever entry: without overflow."""
    value, dims = call.value("self"), call.dims()
    if len(dims) != 1:
        raise Refused("logsumexp over several dimensions", "one")
    scores = softmax(call, "log_softmax", value, dims[0])
    return reduced(call, "mean", combined(call, "x1 - x2", [value, scores]), dims, _keep(call))


def _cosine(call: Call) -> Value:
    """x · y / (‖x‖ ‖y‖), lengths at least a small number."""
    one, two, least = call.value("x1"), call.value("x2"), {"a": float(call["eps"])}
    dim = [call.dim(value="x1")]
    inner = reduced(call, "sum", combined(call, "multiply", [one, two]), dim, hint="inner")
    lengths = [applied(call, _length(call, each, dim, False), "max(x, a)", least) for each in (one, two)]
    return combined(call, "x1/(x2*x3)", [inner, *lengths])


def _norm(call: Call) -> Value:
    """The root of the sum of squares over dimensions."""
    if float(call.get("ord", call.get("p", 2)) or 2) != 2.0:
        raise Refused("a norm of another order than two", "ord=2")
    value = call.value("self")
    return _length(call, value, _dims(call, value), _keep(call))


def _length(call: Call, value: Value, dims: Sequence[int], keep: bool) -> Value:
    """The root of the sum of squares over some dimensions."""
    return applied(call, reduced(call, "sum", applied(call, value, "x**2"), dims, keep, "sum"), "sqrt(x)")


RULES: Mapping[str, Callable[[Call], Any]] = MappingProxyType(
    {
        "mean": _reduction("mean"),
        "sum": _reduction("sum"),
        "amax": _reduction("max"),
        "max": _reduction("max"),
        "softmax": _softmax("softmax"),
        "_softmax": _softmax("softmax"),
        "log_softmax": _softmax("log_softmax"),
        "_log_softmax": _softmax("log_softmax"),
        "var": _deviation,
        "std": _deviation,
        "linalg_vector_norm": _norm,
        "norm": _norm,
        "cosine_similarity": _cosine,
        "logsumexp": _log_sum_exp,
        "_weight_norm": _weight_norm,
    }
)
"""Operator -> what it becomes."""
