"""Normalisation and dropout."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from sifrc.importing.atoms import SAMPLES, Held, Value
from sifrc.importing.calls import Call, Refused, axes_for, number_in

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
        raise Refused(f"a norm is used twice, with the tensors of {share}", "a norm of its own for each call")
    keys = {"affine": True}
    return keys if bias is None else keys | {"bias": shift is not None}


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


def _over_channels(call: Call, kind: str, affine: bool = True, **keys: Any) -> Value:
    """A norm whose weight has an entry for each channel, the second dimension.

    Args:
        call: of the operator.
        kind: type of the layer.
        affine: whether such a layer has a weight where its keys say nothing.
        keys: others of the layer.
    """
    value = call.value("input")
    source = _channels(call, value)
    name = _named(call)
    own = _unless(_affine(call, name, kind), {"affine": affine, "bias": True})
    call.draft.add(kind, (source,), name, **keys, **own)
    return Value(name, axes_for(value.dims), value.dims)


def _batch_norm(training: bool) -> Callable[[Call], Any]:
    def rule(call: Call) -> Any:
        mean, variance = call.get("running_mean"), call.get("running_var")
        tracked = isinstance(mean, Value)
        of_batch = bool(call.get("training", training)) and training
        call.draft.modes.add("training" if of_batch else "evaluation")
        momentum = call["momentum"]
        found = _over_channels(
            call,
            "batch_norm",
            epsilon=call["eps"],
            momentum=None if momentum == 0.1 or not tracked else momentum,
            track=None if tracked else False,
        )
        if tracked:
            for slot, held in (("running_mean", mean), ("running_var", variance)):
                assert isinstance(held.source, Held)
                call.draft.tensors[f"{found.source}.{slot}"] = held.source.name
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
        name = _named(call)
        keys = _affine(call, name, kind, "bias" if kind == "layer_norm" else None)
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
        return call.same(value, name)

    return rule


def _group_norm(call: Call) -> Value:
    return _over_channels(call, "group_norm", groups=int(call["num_groups"]), epsilon=call["eps"])


def _instance_norm(call: Call) -> Value:
    if not call["use_input_stats"]:
        raise Refused("an instance norm with running statistics", "track_running_stats=False")
    return _over_channels(call, "instance_norm", affine=False, epsilon=call["eps"])


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
