"""Order, sizes and states of the graph of layers."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from sifrc.errors import SpecError
from sifrc.spec import build_spec, state_names
from sifrc.spec.types import Spec

ACTIVATION = {"type": "activation", "function": "tanh"}


def spec_of(*layers: dict[str, Any]) -> Spec:
    return build_spec(
        {"sifrc": 1, "name": "g", "loss": "mse", "network": {"input": {"size": 4}, "layers": list(layers)}}
    )


def dense(name: str, units: int = 4, **more: Any) -> dict[str, Any]:
    return {"name": name, "type": "dense", "units": units, **more}


STATES = {
    "fused": ([dense("a"), {"name": "b", **ACTIVATION}, dense("c")], {"a": "b", "b": "b", "c": "c"}),
    "short form": ([dense("a", activation="tanh"), dense("c")], {"a": "a", "c": "c"}),
    "short form, then an activation": (
        [dense("a", activation="tanh"), {"name": "b", **ACTIVATION}, dense("c")],
        {"a": "a", "b": "b", "c": "c"},
    ),
    "another consumer": (
        [
            dense("a"),
            {"name": "b", **ACTIVATION},
            {"name": "s", "type": "add", "inputs": ["a", "b"]},
            dense("c"),
        ],
        {"a": "a", "b": "b", "s": "s", "c": "c"},
    ),
    "two activations": (
        [dense("a"), {"name": "b", **ACTIVATION}, {"name": "b2", **ACTIVATION}, dense("c")],
        {"a": "b", "b": "b", "b2": "b2", "c": "c"},
    ),
    "activation of an add": (
        [
            dense("a"),
            dense("b"),
            {"name": "s", "type": "add", "inputs": ["a", "b"]},
            {"name": "c", **ACTIVATION},
        ],
        {"a": "a", "b": "b", "s": "c", "c": "c"},
    ),
    "add with an activation, then another": (
        [
            dense("a"),
            dense("b"),
            {"name": "s", "type": "add", "inputs": ["a", "b"], "activation": "tanh"},
            {"name": "c", **ACTIVATION},
        ],
        {"a": "a", "b": "b", "s": "s", "c": "c"},
    ),
    "add with another consumer": (
        [
            dense("a"),
            dense("b"),
            {"name": "s", "type": "add", "inputs": ["a", "b"]},
            {"name": "c", **ACTIVATION},
            {"name": "d", "type": "add", "inputs": ["s", "c"]},
        ],
        {"a": "a", "b": "b", "s": "s", "c": "c", "d": "d"},
    ),
    "output": ([dense("a"), {"name": "b", **ACTIVATION}], {"a": "b", "b": "b"}),
}


@pytest.mark.parametrize("case", STATES)
def test_a_layer_fuses_with_its_only_consumer_if_an_activation(case: str) -> None:
    layers, expected = STATES[case]
    assert dict(state_names(spec_of(*layers).layers)) == expected


def test_order_is_topological_whatever_the_order_of_the_file() -> None:
    layers = [
        dense("a", inputs="input"),
        {"name": "b", "inputs": "a", **ACTIVATION},
        dense("c", inputs="b"),
        {"name": "d", "type": "add", "inputs": ["c", "a"]},
    ]
    for order in itertools.permutations(layers):
        spec = spec_of(*order, dense("out", 2, inputs="d"))
        place = {layer.name: index for index, layer in enumerate(spec.layers)}
        assert all(place.get(name, -1) < place[layer.name] for layer in spec.layers for name in layer.inputs)
        assert [layer.name for layer in spec.layers] == ["a", "b", "c", "d", "out"]


def test_independent_layers_keep_the_order_of_the_file() -> None:
    spec = spec_of(
        dense("z", inputs="input"),
        dense("m", inputs="input"),
        dense("a", inputs="input"),
        {"name": "s", "type": "add", "inputs": ["a", "z", "m"]},
    )
    assert [layer.name for layer in spec.layers] == ["z", "m", "a", "s"]


def test_the_owner_of_shared_parameters_comes_first() -> None:
    spec = spec_of(
        {"name": "b", "type": "dense", "share": "a", "inputs": "input"},
        dense("a", inputs="input", bias=False),
        {"name": "s", "type": "add", "inputs": ["a", "b"]},
    )
    assert [layer.name for layer in spec.layers] == ["a", "b", "s"]
    assert [layer.bias for layer in spec.layers[:2]] == [False, False]
    with pytest.raises(SpecError, match=r"cycle: b → a → b\n.*\(a\) must come before 'b'"):
        spec_of({"name": "b", "type": "dense", "share": "a"}, dense("a"))


def test_a_long_chain_is_resolved() -> None:
    layers = [dense(f"fc{k}", activation="tanh") for k in range(1000)]
    assert len(spec_of(*layers).layers) == 1000
    layers[0]["inputs"] = "fc998"
    with pytest.raises(SpecError, match="cycle: fc0 → fc1 → "):
        spec_of(*layers)


def test_a_network_without_parameters_is_refused() -> None:
    with pytest.raises(SpecError, match="nothing to train"):
        spec_of({"name": "a", **ACTIVATION})


@pytest.mark.parametrize("inputs", [[], ["fc1", "fc1"], [3]])
def test_bad_inputs_are_refused(inputs: list[Any]) -> None:
    with pytest.raises(SpecError):
        spec_of(dense("fc1"), dense("fc2", inputs=inputs))


def test_default_initialization_goes_to_layers_without_their_own() -> None:
    data = {
        "sifrc": 1,
        "name": "g",
        "loss": "mse",
        "init": "glorot",
        "network": {"input": {"size": 4}, "layers": [dense("a", init="zeros"), dense("b")]},
    }
    first, second = build_spec(data).layers
    assert first.initialization is not None
    assert second.initialization is not None
    assert (first.initialization.kind, second.initialization.kind) == ("zeros", "glorot")
