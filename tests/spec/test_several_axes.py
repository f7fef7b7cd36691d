"""Inputs and layers with several axes: sizes, refusals with their places, and the canonical form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sifrc.errors import SpecError
from sifrc.spec import build_spec, parse_spec, spec_hash, spec_to_dict
from sifrc.spec.condense import condense
from sifrc.spec.graph import size_text
from sifrc.spec.types import InputSpec, LayerSpec, Spec

ROWS = "{name: rows, type: dense, units: 3, activation: tanh}"
FLAT = "{name: flat, type: flatten}"
OUT = "{name: out, type: dense, units: 2}"


def text(size: str = "[4, 5]", layers: Sequence[str] = (ROWS, FLAT, OUT)) -> str:
    """A document whose size stands in line 4, and whose layers begin in line 6."""
    listed = "\n".join(f"    - {layer}" for layer in layers)
    return (
        "sifrc: 1\nname: net\nnetwork:\n"
        f"  input: {{name: image, size: {size}}}\n  layers:\n{listed}\nloss: mse\n"
    )


def data(size: Any, layers: Sequence[dict[str, Any]]) -> dict[str, Any]:
    network = {"input": {"name": "image", "size": size}, "layers": list(layers)}
    return {"sifrc": 1, "name": "net", "loss": "mse", "network": network}


def shapes(size: str, *layers: str) -> list[tuple[int, ...]]:
    """Of the layers, in order."""
    return [layer.shape for layer in parse_spec(text(size, layers)).layers]


# What is accepted


def test_a_dense_layer_acts_on_the_last_axis_and_flatten_makes_one_of_all() -> None:
    spec = parse_spec(text())
    assert dict(spec.shapes) == {"image": (4, 5), "rows": (4, 3), "flat": (12,), "out": (2,)}
    assert [layer.kind for layer in spec.layers] == ["dense", "flatten", "dense"]
    assert (spec.input.size, [layer.size for layer in spec.layers]) == (20, [12, 12, 2])
    flat = spec.layers[1]
    assert flat.inputs == ("rows",) and flat.activation is None and flat.initialization is None


SHAPES: dict[str, tuple[str, list[str], list[tuple[int, ...]]]] = {
    "one axis alone": ("5", [OUT], [(2,)]),
    "one axis in a list": ("[5]", [OUT], [(2,)]),
    "flatten of one axis": ("5", [FLAT, OUT], [(5,), (2,)]),
    "flatten twice": ("[2, 5]", [FLAT, "{type: flatten}", OUT], [(10,), (10,), (2,)]),
    "flatten at the end": ("[2, 5]", [OUT, FLAT], [(2, 2), (4,)]),
    "activation": (
        "[2, 5]",
        [ROWS, "{name: act, type: activation, function: sin}", FLAT],
        [(2, 3), (2, 3), (6,)],
    ),
    "six axes": (
        "[2, 1, 3, 1, 2, 5]",
        [ROWS, FLAT, OUT],
        [(2, 1, 3, 1, 2, 3), (36,), (2,)],
    ),
    "add": (
        "[2, 3]",
        [ROWS, "{name: sum1, type: add, inputs: [rows, image]}", FLAT],
        [(2, 3), (2, 3), (6,)],
    ),
    "share at equal axes": (
        "[2, 3]",
        [ROWS, "{name: again, type: dense, share: rows}", FLAT],
        [(2, 3), (2, 3), (6,)],
    ),
    "share at other axes before the last": (
        "[2, 6]",
        [
            "{name: a, type: dense, units: 6}",
            "{name: b, type: dense, units: 3}",
            "{name: c, type: flatten}",
            "{name: d, type: dense, share: a}",
        ],
        [(2, 6), (2, 3), (6,), (6,)],
    ),
    "largest size": ("[1000, 10000]", ["{type: flatten}", OUT], [(10_000_000,), (2,)]),
}


@pytest.mark.parametrize("case", SHAPES)
def test_shapes(case: str) -> None:
    size, layers, expected = SHAPES[case]
    assert shapes(size, *layers) == expected


def test_layers_need_no_names() -> None:
    layers = [{"type": "dense", "units": 3}, {"type": "flatten"}, {"type": "dense", "units": 2}]
    spec = build_spec(data([2, 3], layers))
    assert [layer.name for layer in spec.layers] == ["dense1", "flatten2", "dense3"]


@given(st.lists(st.integers(1, 4), min_size=1, max_size=6), st.integers(1, 4))
def test_all_axes_but_the_last_stay(sizes: list[int], units: int) -> None:
    spec = build_spec(data(sizes, [{"type": "dense", "units": units}, {"type": "flatten"}]))
    dense, flat = spec.layers
    assert dense.shape == (*sizes[:-1], units)
    assert flat.shape == (dense.size,)
    assert spec.input.shape == tuple(sizes)


def test_state_of_a_flatten_layer_is_that_of_the_activation_after_it() -> None:
    """As for every layer without an activation of its own."""
    layers = (
        ROWS,
        FLAT,
        "{name: act, type: activation, function: tanh}",
        "{name: flat2, type: flatten}",
        OUT,
    )
    regularization = "regularization: {state: {act: 0.1, rows: 0.2, flat2: 0.3, image: 0.4}}\n"
    spec = parse_spec(text("[2, 5]", layers) + regularization)
    assert dict(spec.regularization.values) == {"act": 0.1, "rows": 0.2, "flat2": 0.3, "image": 0.4}
    with pytest.raises(SpecError, match="write act"):
        parse_spec(text("[2, 5]", layers) + "regularization: {state: {flat: 0.1}}\n")


# Refusals: (size or layers with § at the place, message, hint)

BAD_SIZES = {
    "zero": ("[3, §0]", "'size' is too small: the number 0", "at least 1"),
    "negative": ("[§-2, 3]", "'size' is too small: the number -2", "at least 1"),
    "zero alone": ("§0", "'size' is too small: the number 0", "at least 1"),
    "text": ('"§a"', "'size' must be a whole number, not the text 'a'", None),
    "text in a list": ("[3, §a]", "an item of 'size' must be a whole number, not the text 'a'", None),
    "quoted number": ("[3, '§4']", "an item of 'size' must be a whole number, not the text '4'", None),
    "fraction": ("[§2.5, 3]", "an item of 'size' must be a whole number, not the number 2.5", None),
    "truth value": ("[2, §true]", "an item of 'size' must be a whole number, not true", None),
    "nothing in a list": ("[2, §null]", "an item of 'size' must be a whole number, not nothing", None),
    "nested": ("[§[2, 3], 4]", "an item of 'size' must be a whole number, not a list", None),
    "nested alone": ("[§[2, 3]]", "an item of 'size' must be a whole number, not a list", None),
    "mapping": ("§{height: 2}", "'size' must be a whole number, not keys and values", None),
    "seven axes": ("§[1, 1, 1, 1, 1, 1, 1]", "'size' is too long", "at most 6 items"),
    "one too large": ("[2, §10000001]", "'size' is too large: the number 10000001", "at most 10000000"),
    "huge": ("[2, §999999999999999]", "'size' is too large: the number 999999999999999", "at most 10000000"),
    "product": ("§[4000, 4000]", "'image' is too large: 4000 x 4000 entries", "at most 10000000 in all"),
    "product of six": (
        "§[20, 20, 20, 20, 20, 20]",
        "'image' is too large: 20 x 20 x 20 x 20 x 20 x 20 entries",
        "at most 10000000 in all",
    ),
    "the first of two": ("[§0, a]", "'size' is too small: the number 0", "at least 1"),
}


@pytest.mark.parametrize("case", BAD_SIZES)
def test_bad_sizes_are_refused_at_their_place(case: str) -> None:
    size, message, hint = BAD_SIZES[case]
    before, _, _ = text(size).partition("§")
    with pytest.raises(SpecError) as caught:
        parse_spec(text(size.replace("§", "")), "net.yaml")
    where = caught.value.location
    assert where is not None
    assert (caught.value.message, where.line) == (message, 4)
    assert where.column == len(before.rpartition("\n")[2]) + 1
    if hint is not None:
        assert hint in str(caught.value)


BAD_LAYERS: dict[str, tuple[list[str], str, str]] = {
    "add of other features": (
        [ROWS, "{name: sum1, type: add, inputs: [rows, §image]}", FLAT],
        "sizes differ in add layer 'sum1': 'rows' has 4 x 3, 'image' has 4 x 5",
        "an add layer sums inputs of equal size",
    ),
    "add of as many entries": (
        [FLAT, "{name: sum1, type: add, inputs: [image, §flat]}", "{type: flatten}", OUT],
        "sizes differ in add layer 'sum1': 'image' has 4 x 5, 'flat' has 20",
        "an add layer sums inputs of equal size",
    ),
    "add with the last of three": (
        [ROWS, ROWS.replace("rows", "b"), "{name: s, type: add, inputs: [rows, b, §image]}", FLAT],
        "sizes differ in add layer 's': 'rows' has 4 x 3, 'image' has 4 x 5",
        "an add layer sums inputs of equal size",
    ),
    "share at another last axis": (
        [ROWS, "{name: again, type: dense, share: §rows}", FLAT],
        "sizes differ: 'again' takes 'rows' with 3, 'rows' whose parameters it shares takes 'image' with 5",
        "shared parameters need inputs of equal size",
    ),
    "share after flatten": (
        [ROWS, FLAT, "{name: again, type: dense, share: §rows}"],
        "sizes differ: 'again' takes 'flat' with 12, 'rows' whose parameters it shares takes 'image' with 5",
        "shared parameters need inputs of equal size",
    ),
    "share with flatten": (
        [ROWS, FLAT, "{name: again, type: dense, share: §flat}"],
        "layer 'flat' has no parameters to share",
        "layers of type dense, conv, embedding, rnn, lstm, gru share",
    ),
    "too large a layer": (
        ["§{name: rows, type: dense, units: 2500001}", FLAT],
        "'rows' is too large: 4 x 2500001 entries",
        "at most 10000000 in all",
    ),
    "units of flatten": (
        ["{name: flat, type: flatten, §units: 3}", OUT],
        "a layer of type flatten has no 'units'",
        "accepted keys: name type inputs",
    ),
    "activation of flatten": (
        ["{name: flat, type: flatten, §activation: tanh}", OUT],
        "a layer of type flatten has no 'activation'",
        "accepted keys: name type inputs",
    ),
    "parameters of flatten": (
        ["{name: flat, type: flatten, §parameters: {a: 1}}", OUT],
        "a layer of type flatten has no 'parameters'",
        "accepted keys: name type inputs",
    ),
    "two inputs of flatten": (
        [ROWS, "{name: flat, type: flatten, inputs: §[rows, image]}", OUT],
        "flatten layer 'flat' has 2 inputs, it takes one",
        "a layer of type add sums several inputs",
    ),
    "unknown input of flatten": (
        [ROWS, "{name: flat, type: flatten, inputs: §row}", OUT],
        "unknown input 'row' of layer 'flat'",
        "did you mean 'rows'?",
    ),
    "nearly flatten": (
        [ROWS, "{name: flat, type: §flaten}", OUT],
        "'type' cannot be the text 'flaten'",
        "accepted: dense, conv, pool, activation, add, flatten",
    ),
    "flatten with itself": (
        [ROWS, "{name: flat, type: flatten, inputs: §flat}", OUT],
        "the layers form a cycle: flat → flat",
        "a layer may only take what is computed before it",
    ),
}


@pytest.mark.parametrize("case", BAD_LAYERS)
def test_bad_layers_are_refused_at_their_place(case: str) -> None:
    layers, message, hint = BAD_LAYERS[case]
    before, _, _ = text(layers=layers).partition("§")
    with pytest.raises(SpecError) as caught:
        parse_spec(text(layers=layers).replace("§", ""), "net.yaml")
    where = caught.value.location
    assert where is not None
    assert caught.value.message == message
    assert (where.line, where.column) == (before.count("\n") + 1, len(before.rpartition("\n")[2]) + 1)
    assert hint in str(caught.value)


def test_flatten_alone_has_nothing_to_train() -> None:
    with pytest.raises(SpecError, match="nothing to train"):
        parse_spec(text(layers=["{type: flatten}"]))


@pytest.mark.parametrize(
    ("size", "fragment"),
    [
        ([3, 0], "network.input.size[1]: 'size' is too small: the number 0"),
        ([], "'image' is a number without axes, and flatten layer 'flatten1' takes axes"),
        ([[2, 3], 4], "network.input.size[0]: an item of 'size' must be a whole number, not a list"),
        ((2, 3), "a Python tuple"),
        ([2, 3.0], "network.input.size[1]: an item of 'size' must be a whole number"),
        ([4000, 4000], "network.input.size: 'image' is too large: 4000 x 4000 entries"),
    ],
)
def test_errors_in_python_objects_name_the_item(size: Any, fragment: str) -> None:
    """The tags that tell a number from a list are no part of the path."""
    with pytest.raises(SpecError) as caught:
        build_spec(data(size, [{"type": "flatten"}, {"type": "dense", "units": 2}]))
    assert fragment in str(caught.value)


# The canonical form

LAYERS: list[dict[str, Any]] = [
    {"name": "rows", "type": "dense", "units": 3, "activation": "tanh"},
    {"name": "sum1", "type": "add", "inputs": ["rows", "image"], "activation": "sin"},
    {"name": "again", "type": "dense", "share": "rows"},
    {"name": "flat", "type": "flatten"},
    {"name": "out", "type": "dense", "units": 2, "bias": False},
]


def test_canonical_form_gives_the_same_spec_back() -> None:
    spec = build_spec(data([2, 4, 3], LAYERS))
    canonical = spec_to_dict(spec)
    assert canonical["network"]["input"] == {"name": "image", "size": [2, 4, 3]}
    assert canonical["network"]["layers"][0]["units"] == 3
    assert canonical["network"]["layers"][2]["units"] == 3
    assert canonical["network"]["layers"][3] == {"name": "flat", "type": "flatten", "inputs": ["again"]}
    again = build_spec(canonical)
    assert again == spec
    assert spec_to_dict(again) == canonical
    assert spec_hash(again) == spec_hash(spec)


def test_specs_differ_by_how_entries_are_arranged() -> None:
    sizes = [12, [3, 4], [4, 3], [2, 2, 3], [1, 12], [12, 1]]
    layers = [{"type": "flatten"}, {"type": "dense", "units": 2}]
    specs = [build_spec(data(size, layers)) for size in sizes]
    assert len({spec_hash(spec) for spec in specs}) == len(sizes)
    assert {spec.layers[-1].shape for spec in specs} == {(2,)}


def test_one_axis_is_written_without_a_list() -> None:
    layers = [{"type": "dense", "units": 2}]
    alone, listed = build_spec(data(4, layers)), build_spec(data([4], layers))
    assert alone == listed
    assert spec_to_dict(listed)["network"]["input"] == {"name": "image", "size": 4}
    assert spec_hash(alone) == spec_hash(listed)


def test_a_spec_of_one_axis_keeps_the_hash_it_had() -> None:
    """The one of the time before there were several axes, for a chain and for a graph."""
    chain = data(4, [{"type": "dense", "units": 3, "activation": "tanh"}, {"type": "dense", "units": 2}])
    graph = data(3, [LAYERS[0], LAYERS[1], LAYERS[2], LAYERS[4]])
    assert [spec_hash(build_spec(item))[:16] for item in (chain, graph)] == [
        "2ffd56454dc3617c",
        "e18e2d3543dba2a6",
    ]


def test_specs_made_by_hand_have_shapes() -> None:
    spec = build_spec(data([2, 4, 3], LAYERS))
    wider = replace(spec.input, shape=(5, 3))
    assert (wider.size, wider.name) == (15, "image")
    layer = LayerSpec("flat", "flatten", ("image",), (15,))
    assert layer.size == 15
    assert InputSpec("image", (5, 3)) == wider
    with pytest.raises(TypeError):
        spec.shapes["image"] = (1,)  # type: ignore[index]


def test_sizes_in_words() -> None:
    assert [size_text(shape) for shape in ((10,), (28, 28), (1, 1, 2))] == ["10", "28 x 28", "1 x 1 x 2"]


# Deep networks without their repeated layers


def deep(count: int, size: Any, last: Sequence[dict[str, Any]]) -> Spec:
    layers = [
        {"name": f"fc{k}", "type": "dense", "units": 3, "activation": "tanh"} for k in range(1, count + 1)
    ]
    return build_spec(data(size, [*layers, *last]))


END = ({"name": "flat", "type": "flatten"}, {"name": "out", "type": "dense", "units": 2})


def test_repeated_layers_with_axes_are_left_out() -> None:
    spec = deep(30, [4, 3], END)
    small = condense(spec).spec
    assert len(small.layers) < 12
    assert [layer.shape for layer in small.layers[-3:]] == [(4, 3), (12,), (2,)]
    assert build_spec(spec_to_dict(small)) == small


def test_layers_of_other_axes_do_not_look_alike() -> None:
    """The same units before and after flatten: two runs, each of which keeps both its ends."""
    before = [{"name": f"a{k}", "type": "dense", "units": 12, "activation": "tanh"} for k in range(20)]
    after = [{"name": f"b{k}", "type": "dense", "units": 12, "activation": "tanh"} for k in range(20)]
    spec = build_spec(data([2, 12], [*before, {"name": "flat", "type": "flatten"}, *after]))
    small = condense(spec).spec
    kept = {shape: sum(layer.shape == shape for layer in small.layers) for shape in ((2, 12), (24,), (12,))}
    assert kept[(24,)] == 1
    assert 6 <= kept[(2, 12)] < 12 and 6 <= kept[(12,)] < 12
    assert build_spec(spec_to_dict(small)) == small
