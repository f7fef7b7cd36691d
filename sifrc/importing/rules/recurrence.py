"""Recurrent layers as PyTorch has them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import torch

from sifrc.importing.atoms import SAMPLES, Atoms, Held, Value, fresh, permuted, size_of
from sifrc.importing.calls import Call, Refused
from sifrc.importing.rules.shapes import joined, sliced

__all__ = ["RULES"]


def _recurrent(kind: str, function: str | None = None) -> Callable[[Call], Any]:
    def rule(call: Call) -> Any:
        value = call.value("input")
        count, both = int(call["num_layers"]), bool(call["bidirectional"])
        dropout = float(call["dropout"]) if call["train"] else 0.0
        time, samples = (1, 0) if call["batch_first"] else (0, 1)
        if len(value.dims) != 3 or value.dims[samples] != (SAMPLES,):
            raise Refused("a recurrent layer over something else than samples, steps and features")
        given = call["hx"]
        given = list(given) if isinstance(given, list | tuple) else [given]
        started = not all(isinstance(h, torch.Tensor) and not bool(h.any()) for h in given)
        # States after the last step, and cells where something reads them.
        ends: list[Value] = []
        held: list[Value] | None = [] if kind == "lstm" and call.gives(2) else None
        found = value
        tensors = [call.kept(tensor, "weight") for tensor in call["params"]]
        each = len(tensors) // (count * (2 if both else 1))
        for layer in range(count):
            first = layer * each * (2 if both else 1)
            own = tensors[first : first + each * (2 if both else 1)]
            # Before what is read of given states, which would take the name of the module.
            name = _named(call, own[0])
            starts = [_rows(call, h, layer, both) for h in given] if started else []
            cells = held is not None
            found = _one_layer(call, kind, function, found, name, own, both, starts, time, cells)
            units = units_of(call, own)
            if held is not None:
                width = units * (2 if both else 1)
                held += _last(call, found, time, units, both, width)
                found = sliced(call, found, 2, 0, width)
            ends += _last(call, found, time, units, both)
            if dropout and layer < count - 1:
                call.draft.modes.add("training")
                stated, source = call.directly(found)
                found = call.same(stated, call.layer("dropout", source, hint="dropout", probability=dropout))
        return (found, joined(call, ends, 0), *([joined(call, held, 0)] if held else []))

    return rule


def _named(call: Call, weight: Held) -> str:
    """A name for one layer: that of the module, and which layer of it."""
    path = call.draft.weight_of(weight)[0].removesuffix("weight_ih").rstrip("._")
    base, _, level = weight.name.rpartition("weight_ih_")
    return call.draft.name(
        f"{base.rstrip('.')}_{level}" if level not in ("", "l0") else base.rstrip(".") or path
    )


def _rows(call: Call, found: Any, layer: int, both: bool) -> str:
    """Rows of a given state that are those of a layer."""
    value = call.as_value(found)
    width = 2 if both else 1
    part = sliced(call, value, 0, layer * width, (layer + 1) * width)
    # One entry along the samples: fixed numbers, which are the same for all of them.
    if part.dims[1] not in ((SAMPLES,), ()):
        raise Refused("a state to begin with that is not of each sample", "zeros, or one for each sample")
    wanted = (part.dims[2],) if not both else (part.dims[0], part.dims[2])
    return call.draft.arranged(part, wanted)


def _one_layer(
    call: Call,
    kind: str,
    function: str | None,
    value: Value,
    name: str,
    tensors: list[Held],
    both: bool,
    starts: list[str],
    time: int,
    cells: bool,
) -> Value:
    """A layer of the spec: all of its steps, and after the states the cells where they are wanted."""
    source = call.draft.arranged(value, (value.dims[time], value.dims[2]))
    biased = bool(call["has_biases"])
    units = units_of(call, tensors)
    slots = {}
    per = len(tensors) // (2 if both else 1)
    for direction in range(2 if both else 1):
        suffix = "l0_reverse" if direction else "l0"
        mine = tensors[direction * per : (direction + 1) * per]
        if per > (4 if biased else 2):
            raise Refused("an LSTM with projections", "proj_size=0")
        for part, n in (("ih", 0), ("hh", 1)):
            slots[f"{part}_{suffix}.weight"] = mine[n]
            if biased:
                slots[f"{part}_{suffix}.bias"] = mine[n + 2]
    share = call.draft.own(name, kind, slots)
    call.draft.add(
        kind,
        (source,),
        name,
        units=None if share else units,
        bidirectional=True if both and not share else None,
        bias=None if biased or share else False,
        function=None if function in (None, "tanh") else function,
        state=starts or None,
        cells=True if cells else None,
        share=share,
    )
    width = units * (2 if both else 1) * (2 if cells else 1)
    steps, features = fresh([size_of(value.dims[time]), width])
    dims: list[Atoms] = [(SAMPLES,), (SAMPLES,), features]
    dims[time] = steps
    return Value(name, (steps, features), tuple(dims))


def units_of(call: Call, tensors: list[Held]) -> int:
    """Units of a layer, from the weight that its state is multiplied with."""
    return call.draft.shapes[tensors[1].name][1]


def _last(call: Call, value: Value, time: int, units: int, both: bool, first: int = 0) -> list[Value]:
    """The state after the last step that each direction takes: 1 × samples × units.

    Args:
        call: of the operator.
        value: all steps.
        time: dimension of the steps.
        units: of one direction.
        both: whether there are two.
        first: of the features, from which on they are those of the state; cells come after the others.
    """
    steps, found = size_of(value.dims[time]), []
    for direction in range(2 if both else 1):
        at = 0 if direction else steps - 1
        part = sliced(call, value, time, at, at + 1)
        part = sliced(call, part, 2, first + direction * units, first + (direction + 1) * units)
        found.append(part if time == 0 else permuted(part, (1, 0, 2)))
    return found


RULES: Mapping[str, Callable[[Call], Any]] = MappingProxyType(
    {
        "lstm": _recurrent("lstm"),
        "gru": _recurrent("gru"),
        "rnn_tanh": _recurrent("rnn"),
        "rnn_relu": _recurrent("rnn", "relu"),
    }
)
"""Operator -> what it becomes."""
