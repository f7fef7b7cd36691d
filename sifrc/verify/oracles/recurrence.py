"""One direction of a recurrent layer, step by step, in elementary operations."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sifrc.spec.layers.recurrence import RecurrentSpec
from sifrc.spec.parser import parse_expression
from sifrc.spec.types import FunctionSpec, LayerSpec

__all__ = ["cells"]


def cells(
    layer: LayerSpec,
    rows: Sequence[Any],
    parameters: Mapping[str, Any],
    activate: Callable[[FunctionSpec, Any], Any],
    begun: Sequence[Any] = (),
    reads: Sequence[Any] | None = None,
) -> list[tuple[Any, ...]]:
    """The states of each row, in the order of the rows: h, and c of an LSTM.

    Args:
        layer: of the spec.
        rows: what is read at each step.
        parameters: ``ih.weight``, ``hh.weight``, and biases perhaps.
        activate: applies a scalar function to an array.
        begun: state before the first row, and cell; nothing for zeros.
        reads: 1 for each row that is read, 0 for one after which all is as before it; None for all.
    """
    settings = layer.settings
    assert isinstance(settings, RecurrentSpec)
    n, found = settings.units, list[tuple[Any, ...]]()

    def product(name: str, vector: Any) -> Any:
        value = parameters[f"{name}.weight"] @ vector
        return value + parameters[f"{name}.bias"] if layer.bias else value

    def function(text: str, value: Any) -> Any:
        return activate(FunctionSpec("custom", parse_expression(text)), value)

    def sigmoid(value: Any) -> Any:
        return function("1/(1 + exp(-x))", value)

    def tanh(value: Any) -> Any:
        return function("tanh(x)", value)

    zero = parameters["hh.weight"][:n, 0] * 0
    state, cell = [*begun, zero, zero][:2] if len(begun) != 1 else (begun[0], zero)
    for number, row in enumerate(rows):
        before = state, cell
        read, moved = product("ih", row), product("hh", state)
        if layer.kind == "rnn":
            assert settings.function is not None
            state = activate(settings.function, read + moved)
        elif layer.kind == "lstm":
            gates = read + moved
            cell = sigmoid(gates[n : 2 * n]) * cell + sigmoid(gates[:n]) * tanh(gates[2 * n : 3 * n])
            state = sigmoid(gates[3 * n :]) * tanh(cell)
        else:
            update = sigmoid(read[n : 2 * n] + moved[n : 2 * n])
            fresh = tanh(read[2 * n :] + sigmoid(read[:n] + moved[:n]) * moved[2 * n :])
            state = fresh - update * fresh + update * state
        if reads is not None:
            state, cell = (
                reads[number] * new + (1 - reads[number]) * old
                for new, old in zip((state, cell), before, strict=True)
            )
        found.append((state, cell) if layer.kind == "lstm" else (state,))
    return found
