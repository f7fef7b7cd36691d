"""Normalisation and dropout."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from sifrc.importing.atoms import SAMPLES, Held, Value
from sifrc.importing.calls import Call, Refused, axes_for, number_in
from sifrc.importing.rules.entrywise import combined

__all__ = ["RULES"]


def _affine(call: Call, name: str, kind: str, bias: str | None = "bias") -> dict[str, Any]:
    """Weight and bias of a norm as keys of its layer."""
    weight = call.held("weight")
    shift = call.held(bias) if bias is not None else None
    if weight is None:
        if shift is not None:
            raise Refused("a norm with a bias and no weight", "both, or none of them")
        return {"affine": False}
    share = call.draft.own(name, kind, {"weight": weight, "bias": shift})
    if share is not None:
        # Its weight is a factor of both, then.
        raise call.draft.tied([held.name for held in (weight, shift) if held is not None], name)
    keys = {"affine": True}
    return keys if bias is None else keys | {"bias": shift is not None}


def _apart(call: Call) -> bool:
    """Whether the weight of a norm is no layer's own, but a factor of what comes out."""
    return any(call.get(name) is not None and not call.own(call[name]) for name in ("weight", "bias"))


def _written_out(call: Call, found: Value, dims: int) -> Value:
    """A norm times its weight plus its bias, with some dimensions of one entry after theirs."""
    for name, what in (("weight", "multiply"), ("bias", "add")):
        if call.get(name) is not None:
            value = call.value(name)
            found = combined(call, what, [found, replace(value, dims=(*value.dims, *[()] * dims))])
    return found


def _named(call: Call) -> str:
    weight = call["weight"]
    if isinstance(weight, Value) and isinstance(weight.source, Held):
        return call.draft.name(call.draft.weight_of(weight.source)[0])
    return call.named()


def _channels(call: Call, value: Value) -> str:
    """A state with channels, the second dimension, first."""
    if value.dims[0] != (SAMPLES,):
        raise Refused(f"{call.name} with samples in another dimension than the first")
    return call.natural(value)[1]


def _over_channels(call: Call, kind: str, affine: bool = True, **keys: Any) -> tuple[Value, str]:
    """A norm whose weight has an entry for each channel, the second dimension.

    Args:
        call: of the operator.
        kind: type of the layer.
        affine: whether such a layer has a weight where its keys say nothing.
        keys: others of the layer.

    Returns:
        What comes out, and the name of the layer.
    """
    value = call.value("input")
    source = _channels(call, value)
    apart = _apart(call)
    name = call.named() if apart else _named(call)
    given = {"affine": False} if apart else _affine(call, name, kind)
    call.draft.add(kind, (source,), name, **keys, **_unless(given, {"affine": affine, "bias": True}))
    found = Value(name, axes_for(value.dims), value.dims)
    return (_written_out(call, found, len(value.dims) - 2) if apart else found), name


def _batch_norm(training: bool) -> Callable[[Call], Any]:
    def rule(call: Call) -> Any:
        mean, variance = call.get("running_mean"), call.get("running_var")
        tracked = isinstance(mean, Value)
        of_batch = bool(call.get("training", training)) and training
        call.draft.modes.add("training" if of_batch else "evaluation")
        momentum = call["momentum"]
        if "running_mean" in call.arguments and (
            not tracked or mean.source.name in call.draft.tensors.values()
        ):
            raise Refused("a batch norm is used twice, with one mean of all steps", "a norm for each call")
        found, name = _over_channels(
            call,
            "batch_norm",
            epsilon=call["eps"],
            momentum=None if momentum == 0.1 or not tracked else momentum,
            track=None if tracked else False,
        )
        if tracked:
            for slot, held in (("running_mean", mean), ("running_var", variance)):
                assert isinstance(held.source, Held)
                call.draft.tensors[f"{name}.{slot}"] = held.source.name
        return (found, None, None, None, None)

    return rule


def _unless(keys: dict[str, Any], defaults: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in keys.items() if defaults.get(key) != value}


def _last(call: Call, count: int) -> tuple[Value, str, list[int]]:
    """A value whose last dimensions are whole axes, and these axes."""
    value = call.value("input")
    rank = len(value.dims)
    found, axes = call.apart(value, range(rank - count, rank))
    assert isinstance(found.source, str)
    if axes != list(range(len(found.layout) - len(axes), len(found.layout))):
        # The weight has the dimensions in their order, at the end.
        last = [value.dims[n] for n in range(rank - count, rank) if value.dims[n]]
        first = [axis for axis in found.layout if axis not in last and axis]
        source = call.draft.arranged(found, [*first, *last])
        found = Value(source, (*first, *last), value.dims)
        axes = list(range(len(first), len(first) + len(last)))
    assert isinstance(found.source, str)
    return found, found.source, axes


def _layer_norm(kind: str) -> Callable[[Call], Value]:
    def rule(call: Call) -> Value:
        shape = call["normalized_shape"]
        if any(int(size) == 1 for size in shape):
            raise Refused("a norm over a dimension of one entry", "norms over dimensions of several entries")
        value, source, axes = _last(call, len(shape))
        apart = _apart(call)
        name = call.named() if apart else _named(call)
        bias = "bias" if kind == "layer_norm" else None
        keys = {"affine": False} if apart else _affine(call, name, kind, bias)
        epsilon = call["eps"]
        if epsilon is None:
            raise Refused("rms_norm without eps, whose value depends on the dtype", "eps=1e-6")
        call.draft.add(
            kind,
            (source,),
            name,
            axes=None if axes == [len(value.layout) - 1] else [axis + 1 for axis in axes],
            epsilon=epsilon,
            **_unless(keys, {"affine": True, "bias": True}),
        )
        found = call.same(value, name)
        return _written_out(call, found, 0) if apart else found

    return rule


def _group_norm(call: Call) -> Value:
    return _over_channels(call, "group_norm", groups=int(call["num_groups"]), epsilon=call["eps"])[0]


def _instance_norm(call: Call) -> Value:
    if not call["use_input_stats"]:
        raise Refused("an instance norm with running statistics", "track_running_stats=False")
    return _over_channels(call, "instance_norm", affine=False, epsilon=call["eps"])[0]


def _dropout(call: Call) -> Any:
    value = call.value("input")
    probability = number_in(call["p"]) or 0.0
    several = call.name == "native_dropout"
    if not call.get("train", True) or probability == 0.0:
        return (value, None) if several else value
    if probability >= 1.0:
        raise Refused("a dropout that leaves out everything", "a probability below one")
    call.draft.modes.add("training")
    stated, source = call.directly(value)
    found = call.same(stated, call.layer("dropout", source, probability=probability))
    return (found, None) if several else found


RULES: Mapping[str, Callable[[Call], Any]] = MappingProxyType(
    {
        "_native_batch_norm_legit_no_training": _batch_norm(False),
        "_native_batch_norm_legit_functional": _batch_norm(True),
        "_native_batch_norm_legit": _batch_norm(True),
        "layer_norm": _layer_norm("layer_norm"),
        "rms_norm": _layer_norm("rms_norm"),
        "group_norm": _group_norm,
        "instance_norm": _instance_norm,
        "native_dropout": _dropout,
        "dropout": _dropout,
    }
)
"""Operator -> what it becomes."""
