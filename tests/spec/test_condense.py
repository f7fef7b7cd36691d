"""Deep networks without repeated layers: the same things can be derived for them."""

from __future__ import annotations

from typing import Any

import pytest

from sifrc.cli import abilities
from sifrc.model import build_model
from sifrc.model.partition import partition_of
from sifrc.spec import Spec, build_spec
from sifrc.spec.condense import condense


def spec_of(layers: list[dict[str, Any]], **keys: Any) -> Spec:
    network = {"input": {"name": "image", "size": 3}, "layers": layers}
    return build_spec({"sifrc": 1, "name": "deep", "network": network, "loss": "squared_error", **keys})


def dense(name: str, **keys: Any) -> dict[str, Any]:
    return {"name": name, "type": "dense", "units": 3, "activation": "tanh", **keys}


def chain(count: int, **keys: Any) -> list[dict[str, Any]]:
    return [dense(f"fc{k}", **keys) for k in range(1, count + 1)]


def residual(count: int) -> list[dict[str, Any]]:
    """x + F(W x + β), again and again."""
    layers, before = [dense("fc0")], "fc0"
    for k in range(1, count + 1):
        layers.append(dense(f"fc{k}", inputs=before))
        layers.append({"name": f"add{k}", "type": "add", "inputs": [f"fc{k}", before]})
        before = f"add{k}"
    return [*layers, dense("last")]


def shared(count: int) -> list[dict[str, Any]]:
    users = [{"name": f"fc{k}", "type": "dense", "share": "fc0", "activation": "tanh"} for k in range(count)]
    return [dense("first"), {**dense("fc0"), "name": "fc0"}, *users[1:], dense("last")]


def with_one(count: int, place: int, **keys: Any) -> list[dict[str, Any]]:
    """A chain of which one layer is another."""
    layers = chain(count)
    layers[place] = {**layers[place], **keys}
    return layers


@pytest.mark.parametrize("count", [30, 300])
def test_a_chain_is_cut_to_the_same_network_whatever_its_depth(count: int) -> None:
    small = condense(spec_of(chain(count)))
    assert [layer.name for layer in small.spec.layers] == [
        *("fc1", "fc2", "fc3", "fc4"),
        *(f"fc{k}" for k in range(count - 3, count + 1)),
    ]
    assert small.spec.layers[4].inputs == ("fc4",)
    assert sorted(name for names in small.alike.values() for name in names) == sorted(
        f"fc{k}" for k in range(1, count + 1)
    )


def test_skips_and_shared_parameters_are_joined_as_before() -> None:
    """Every layer that is left reads what looks like what it read, at the same distance."""
    small = condense(spec_of(residual(40))).spec
    assert len(small.layers) < 20
    place = {layer.name: index for index, layer in enumerate(small.layers)}
    for index, layer in enumerate(small.layers[1:-1], start=1):
        assert [index - place[name] for name in layer.inputs] == ([1] if layer.kind == "dense" else [1, 2])
    assert build_model(small).depth == len(small.layers)
    users = [layer.share for layer in condense(spec_of(shared(40))).spec.layers]
    assert 3 <= users.count("fc0") < 10


@pytest.mark.parametrize("place", [0, 7, 20, 38, 39])
def test_a_layer_that_is_different_stays(place: int) -> None:
    small = condense(spec_of(with_one(40, place, bias=False)))
    (odd,) = [layer for layer in small.spec.layers if not layer.bias]
    assert odd.name == f"fc{place + 1}"


def test_numbers_of_states_and_groups_are_those_of_the_layers_that_are_left() -> None:
    weights = {f"fc{k}": 0.1 for k in range(1, 40)}
    spec = spec_of(chain(40), regularization={"state": {**weights, "image": 0.2}}, partition="blocks-13")
    small = condense(spec).spec
    names = [layer.name for layer in small.layers]
    assert dict(small.regularization.values) == {"image": 0.2, **dict.fromkeys(names[:-1], 0.1)}
    groups = dict(zip(partition_of(spec).names, partition_of(spec).members, strict=True))
    left = partition_of(small)
    assert len(left.names) > 4
    for name, members in zip(left.names, left.members, strict=True):
        assert set(members) <= set(groups[name])


NETWORKS: dict[str, list[dict[str, Any]]] = {
    "chain": chain(9),
    "one without a bias": with_one(10, 1, bias=False),
    "residual": residual(8),
    "shared": shared(8),
}
"""Just deep enough that layers repeat."""


@pytest.mark.parametrize(
    "name",
    # Without a bias the same is refused as with skips and shared parameters.
    [
        "chain",
        pytest.param("one without a bias", marks=pytest.mark.slow),
        pytest.param("residual", marks=pytest.mark.slow),
        "shared",
    ],
)
def test_the_same_is_possible_with_the_same_reasons(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Operators, methods, kinds and conditions of a network with and without its repeated layers."""
    model = build_model(spec_of(NETWORKS[name], regularization={"state": 0.1}))
    whole = abilities.find_abilities(model)
    monkeypatch.setattr(abilities, "_DEEP", 0)
    assert len(condense(model.spec).spec.layers) < len(model.spec.layers)
    small = abilities.find_abilities(model)
    assert small.rows == whole.rows
    assert small.conditions == whole.conditions
    assert small.problem is None and whole.problem is None
