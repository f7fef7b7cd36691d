"""Types of layers in specs: the canonical form, and one clear error for everything that is wrong."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from typing import Any

import pytest
from layer_cases import LAYER_CASES

from sifrc.errors import SpecError
from sifrc.spec import Spec, build_spec, parse_spec, spec_hash, spec_to_dict
from sifrc.spec.layers import KEYS_OF_TYPE, LAYER_TYPES

OUT = [{"name": "flat", "type": "flatten"}, {"name": "out", "type": "dense", "units": 2}]


def spec_of(size: Any, **layer: Any) -> Spec:
    """Of a layer behind a dense one of four units; a second one, ``e``, where it is read."""
    before: list[dict[str, Any]] = [{"name": "d", "type": "dense", "units": 4}]
    read = layer.get("inputs")
    if isinstance(read, list) and "e" in read:
        before.append({"name": "e", "type": "dense", "units": 3, "inputs": "x"})
    if isinstance(read, list) and "m" in read:
        before.append({"name": "m", "type": "dense", "units": 4, "inputs": "x"})
    layers = [*before, {"name": "r", **layer}, *OUT]
    network = {"input": {"name": "x", "size": size}, "layers": layers}
    return build_spec({"sifrc": 1, "name": "net", "loss": "mse", "network": network})


# ── the canonical form ────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", LAYER_CASES)
def test_the_canonical_form_is_the_same_spec(name: str) -> None:
    """With every default written out, and once more."""
    spec = build_spec(LAYER_CASES[name])
    written = spec_to_dict(spec)
    again = build_spec(written)
    assert again == spec and spec_hash(again) == spec_hash(spec)
    assert spec_to_dict(again) == written
    for layer in written["network"]["layers"]:
        assert set(layer) <= set(KEYS_OF_TYPE[layer["type"]])


def test_every_type_has_a_case() -> None:
    """A new type of layer needs one."""
    used = {layer["type"] for data in LAYER_CASES.values() for layer in data["network"]["layers"]}
    assert used == set(LAYER_TYPES)


def test_what_is_left_out_is_what_is_written_out() -> None:
    """Defaults, axes from either end, and settings that mean the same."""
    same = [
        ({"type": "layer_norm"}, {"type": "layer_norm", "axes": 3, "epsilon": 1e-5, "affine": True}),
        ({"type": "rms_norm", "axes": [-1, 2]}, {"type": "rms_norm", "axes": [2, 3], "epsilon": 1e-6}),
        ({"type": "instance_norm"}, {"type": "instance_norm", "affine": False}),
        ({"type": "softmax"}, {"type": "softmax", "axis": -1}),
        ({"type": "sum"}, {"type": "sum", "axes": [3, 1, 2], "keep": False}),
        ({"type": "upsample"}, {"type": "upsample", "factor": [2, 2], "mode": "nearest"}),
        ({"type": "slice", "start": 1, "stop": 99}, {"type": "slice", "axis": 3, "start": -3, "step": 1}),
        ({"type": "slice", "start": 2, "stop": 3, "step": 7}, {"type": "slice", "start": 2, "stop": 3}),
        ({"type": "reshape", "sizes": [-1, 2]}, {"type": "reshape", "sizes": [12, 2]}),
        ({"type": "pad", "padding": [0, 1, [2, 2]]}, {"type": "pad", "padding": [[0, 0], [1, 1], 2]}),
        ({"type": "scale", "shift": 2}, {"type": "scale", "value": 1, "shift": 2.0}),
        ({"type": "permute", "order": [-1, 1, 2]}, {"type": "permute", "order": [3, 1, 2]}),
    ]
    for short, long in same:
        assert spec_to_dict(spec_of([2, 3, 4], **short)) == spec_to_dict(spec_of([2, 3, 4], **long))
    assert spec_of([3, 4], type="attention", heads=2) == spec_of(
        [3, 4], type="attention", heads=2, groups=2, causal=False, projected=True, value=2**-0.5, bias=True
    )


def test_slices_are_those_of_python() -> None:
    """Which entries are kept, and the same from the canonical form."""
    ends = (None, *range(-4, 5))
    for size, start, stop, step in itertools.product((1, 3), ends, ends, (None, -3, -1, 1, 2)):
        expected = list(range(size))[start:stop:step]
        given = {"type": "slice", "axis": 1, "start": start, "stop": stop, "step": step}
        if not expected:
            with pytest.raises(SpecError, match=f"'r' keeps nothing of an axis of {size}"):
                spec_of([size, 2], **given)
            continue
        spec = spec_of([size, 2], **given)
        layer: Any = spec.layers[1]
        kept = [layer.settings.start + layer.settings.step * n for n in range(layer.shape[0])]
        assert kept == expected and build_spec(spec_to_dict(spec)) == spec


@pytest.mark.parametrize(
    "layer, names",
    [
        ({"type": "layer_norm"}, ["r.weight", "r.bias"]),
        ({"type": "layer_norm", "bias": False}, ["r.weight"]),
        ({"type": "layer_norm", "affine": False}, []),
        ({"type": "rms_norm"}, ["r.weight"]),
        ({"type": "rms_norm", "affine": False}, []),
        ({"type": "instance_norm"}, []),
        ({"type": "instance_norm", "affine": True}, ["r.weight", "r.bias"]),
        ({"type": "group_norm", "groups": 3}, ["r.weight", "r.bias"]),
        ({"type": "positions"}, ["r.weight"]),
        ({"type": "attention", "heads": 2, "projected": False}, []),
        (
            {"type": "attention", "heads": 2, "bias": False},
            [f"r.{part}.weight" for part in ("query", "key", "value", "output")],
        ),
        ({"type": "softmax"}, []),
    ],
)
def test_parameters_are_those_of_torch(layer: dict[str, Any], names: list[str]) -> None:
    """A norm without a mean has no bias, and one of instances neither unless it is asked for."""
    from sifrc.spec.layers import parameter_shapes

    spec = spec_of([3, 4], **layer)
    found = parameter_shapes(spec.layers, spec.shapes)
    assert [name for name in found if name.startswith("r.")] == names


# ── what is refused ───────────────────────────────────────────────────────────────────────────────────

MESSAGES: list[tuple[Any, dict[str, Any], str, str]] = [
    ([2, 3], {"type": "reshape"}, "reshape layer 'r' has no sizes", "e.g. sizes"),
    (
        [2, 3],
        {"type": "reshape", "sizes": [-1, -1]},
        "sizes are whole numbers from 1, one of them",
        "[8, -1]",
    ),
    ([2, 3], {"type": "reshape", "sizes": [0, 8]}, "sizes are whole numbers from 1", "[8, -1]"),
    ([2, 3], {"type": "reshape", "sizes": [-2, 4]}, "sizes are whole numbers from 1", "[8, -1]"),
    ([2, 3], {"type": "reshape", "sizes": [3, 3]}, "'r' cannot make", "8 entries in all"),
    ([2, 3], {"type": "reshape", "sizes": [3, -1]}, "'r' cannot make", "8 entries in all"),
    ([2, 3], {"type": "reshape", "sizes": [16, -1]}, "'r' cannot make", "8 entries in all"),
    ([2, 3], {"type": "permute"}, "permute layer 'r' has no order", "e.g. order"),
    ([2, 3], {"type": "permute", "order": [1, 1]}, "an order of 2 axes has each of them once", "[2, 1]"),
    ([2, 3], {"type": "permute", "order": [1]}, "an order of 2 axes has each of them once", "[2, 1]"),
    ([2, 3], {"type": "permute", "order": [2, 1, 3]}, "'r' has no axis 3: its input has 2", "1 to 2"),
    ([2, 3], {"type": "permute", "order": [0, 1]}, "'r' has no axis 0", "samples do not count"),
    ([2, 3], {"type": "permute", "order": [2, -1]}, "each of them once", "[2, 1]"),
    ([2, 3], {"type": "slice", "axis": 3}, "'r' has no axis 3", "1 to 2"),
    ([2, 3], {"type": "slice", "axis": 0}, "'r' has no axis 0", "1 to 2"),
    ([2, 3], {"type": "slice", "axis": -3}, "'r' has no axis -3", "-1 for the last one"),
    ([2, 3], {"type": "slice", "start": 4}, "'r' keeps nothing of an axis of 4", "as in Python"),
    ([2, 3], {"type": "slice", "start": 2, "stop": 2}, "keeps nothing of an axis of 4", "from 0"),
    ([2, 3], {"type": "slice", "start": 1, "stop": 3, "step": -1}, "keeps nothing", "from 0"),
    ([2, 3], {"type": "slice", "step": 0}, "'r' has a step of 0", "-1 for backwards"),
    ([2, 3], {"type": "concatenate", "inputs": ["d"]}, "has 1 input, it needs two or more", "inputs:"),
    (
        [2, 3],
        {"type": "concatenate", "inputs": ["d", "e"]},
        "'e' with 2 x 3 does not fit behind 'd'",
        "equal",
    ),
    ([2, 3], {"type": "concatenate", "inputs": ["d", "e"], "axis": 0}, "'r' has no axis 0", "1 to 2"),
    ([2, 3], {"type": "concatenate", "inputs": ["d", "e"], "axis": 3}, "'r' has no axis 3", "1 to 2"),
    ([2, 3], {"type": "concatenate", "inputs": ["d", "d"]}, "'d' of layer 'r' is named twice", "once"),
    ([2, 3], {"type": "pad"}, "pad layer 'r' needs one padding for each of 2 axes", "[before, after]"),
    ([2, 3], {"type": "pad", "padding": [1]}, "needs one padding for each of 2 axes", "[before, after]"),
    ([2, 3], {"type": "pad", "padding": 1}, "needs one padding for each of 2 axes", "[before, after]"),
    ([2, 3], {"type": "pad", "padding": [1, -1]}, "needs one padding for each", "a whole number from 0"),
    ([2, 3], {"type": "pad", "padding": [1, True]}, "needs one padding for each", "a whole number from 0"),
    ([2, 3], {"type": "pad", "padding": [1, 1.0]}, "needs one padding for each", "a whole number from 0"),
    ([2, 3], {"type": "pad", "padding": [1, [1, 2, 3]]}, "needs one padding", "a whole number from 0"),
    ([2, 3], {"type": "pad", "padding": [1, [[1], 2]]}, "needs one padding", "a whole number from 0"),
    ([2, 3], {"type": "pad", "padding": "same"}, "needs one padding", "a whole number from 0"),
    ([2, 3], {"type": "pad", "padding": {"a": 1}}, "needs one padding", "a whole number from 0"),
    ([2, 3], {"type": "pad", "padding": [10**7, 0]}, "needs one padding", "a whole number from 0"),
    ([2, 3], {"type": "pad", "padding": [0, 0], "mode": "mirror"}, "unknown mode 'mirror'", "reflect"),
    ([2, 3], {"type": "pad", "padding": [0, 0], "mode": ""}, "unknown mode ''", "one of zeros"),
    ([2, 3], {"type": "pad", "padding": [0, 0], "mode": "y" * 999}, "unknown mode 'yyy", "one of zeros"),
    (
        [2, 3],
        {"type": "pad", "padding": [2, 0], "mode": "reflect"},
        "axis 1 of 2 entries cannot",
        "at most 1",
    ),
    ([2, 3], {"type": "pad", "padding": [0, [0, 5]], "mode": "circular"}, "axis 2 of 4 entries", "at most 4"),
    ([1, 3], {"type": "pad", "padding": [1, 0], "mode": "reflect"}, "axis 1 of 1 entries", "at most 0"),
    (3, {"type": "upsample"}, "upsample layer 'r' takes channels at places", "[3, 8, 8]"),
    (
        [2, 3],
        {"type": "upsample", "mode": "cubic"},
        "unknown mode 'cubic' of upsampling",
        "nearest or linear",
    ),
    ([2, 3], {"type": "upsample", "mode": ""}, "unknown mode '' of upsampling", "nearest or linear"),
    ([2, 3], {"type": "upsample", "factor": [2, 2]}, "2 factors for 1 axes of places", "one for all"),
    ([2, 3], {"type": "upsample", "factor": 0}, "'factor' is too small: the number 0", "at least 1"),
    ([2, 3], {"type": "upsample", "factor": [-1]}, "'factor' is too small", "at least 1"),
    ([2, 3], {"type": "upsample", "factor": "2"}, "'factor' must be a whole number", ""),
    ([2, 3], {"type": "upsample", "factor": 10**7}, "'r' is too large", "at most"),
    ([2, 3], {"type": "scale"}, "scale layer 'r' has no value", "e.g. value"),
    ([2, 3], {"type": "scale", "inputs": ["d", "x"]}, "scale layer 'r' has 2 inputs, it takes one", "add"),
    ([2, 3], {"type": "multiply", "inputs": ["d", "e"]}, "sizes differ in multiply layer 'r'", "multiplies"),
    ([2, 3], {"type": "multiply", "inputs": ["d"]}, "has 1 input, it needs two or more", "inputs:"),
    ([2, 3], {"type": "attention", "heads": 4, "rotary": True}, "a head of 'r' has 1 entries", "even"),
    ([2, 3], {"type": "attention", "heads": 2, "base": 5}, "'r' has no frequencies", "rotary: true"),
    ([2, 3], {"type": "attention", "heads": 2, "rotary": False, "base": 5}, "'r' has no frequencies", "rot"),
    ([2, 3], {"type": "positions", "base": 5}, "'r' has no frequencies", "kind: sinusoids"),
    ([2, 3], {"type": "positions", "kind": "sinusoids", "init": "zeros"}, "'r' has no weight", "learned"),
    ([2, 3], {"type": "positions", "kind": "sines"}, "kind", "sinusoids"),
    ([2, 3, 2], {"type": "positions", "kind": "sinusoids"}, "are of places along one axis", "features"),
    ([2, 3], {"type": "entrywise", "inputs": ["d", "m"]}, "entrywise layer 'r' has no expression", "x1*sig"),
    (
        [2, 3],
        {"type": "entrywise", "inputs": ["d", "m"], "expression": "x1*x2*b", "parameters": {"b": 1, "x1": 2}},
        "'x1' has a meaning of its own in expressions",
        "another name",
    ),
    (
        [2, 3],
        {"type": "entrywise", "inputs": ["d", "e"], "expression": "x1*x2"},
        "sizes differ in entrywise layer 'r'",
        "an entrywise layer takes inputs of equal size",
    ),
    (
        [2, 3],
        {"type": "entrywise", "inputs": ["d"], "expression": "x1"},
        "has 1 input, it needs two or more",
        "inputs:",
    ),
    ([2, 3], {"type": "multiply", "inputs": []}, "has 0 inputs, it needs two or more", "inputs:"),
    (3, {"type": "matmul", "inputs": ["d", "e"]}, "takes two axes or more, and 'd' has one", "reshape"),
    ([2, 3], {"type": "matmul", "inputs": ["d", "e"]}, "2 x 4 and 2 x 3 cannot be multiplied", "rows"),
    (
        [2, 2, 3],
        {"type": "matmul", "inputs": ["d", "m"], "transpose": ["first", "second"]},
        "4 x 2 and",
        "rows",
    ),
    (
        [2, 3],
        {"type": "matmul", "inputs": ["d", "m"], "transpose": "both"},
        "transpose names factors",
        "first",
    ),
    ([2, 3], {"type": "matmul", "inputs": ["d"]}, "has 1 input, it needs two", "inputs:"),
    ([2, 3], {"type": "matmul", "inputs": ["d", "m", "x"]}, "has 3 inputs, it takes two", ""),
    ([2, 3], {"type": "sum", "axes": []}, "axes are named once each", "e.g. axes"),
    ([2, 3], {"type": "sum", "axes": [1, 1]}, "axes are named once each", "e.g. axes"),
    ([2, 3], {"type": "mean", "axes": [2, -1]}, "axes are named once each", "e.g. axes"),
    ([2, 3], {"type": "max", "axes": [3]}, "'r' has no axis 3: its input has 2", "1 to 2"),
    ([2, 3], {"type": "mean", "axes": 0}, "'r' has no axis 0", "1 to 2"),
    ([2, 3], {"type": "max", "inputs": ["d", "x"]}, "max layer 'r' has 2 inputs, it takes one", "add"),
    ([2, 3], {"type": "softmax", "axis": 0}, "'r' has no axis 0", "1 to 2"),
    ([2, 3], {"type": "softmax", "axis": -3}, "'r' has no axis -3", "1 to 2"),
    ([2, 3], {"type": "softmax", "axis": 10**8}, "'axis' is too large", "at most"),
    ([2, 3], {"type": "layer_norm", "axes": []}, "axes are named once each", "e.g. axes"),
    ([2, 3], {"type": "layer_norm", "axes": [2, -1]}, "axes are named once each", "e.g. axes"),
    ([2, 3], {"type": "rms_norm", "axes": [3]}, "'r' has no axis 3", "1 to 2"),
    ([2, 3], {"type": "layer_norm", "epsilon": -1e-9}, "epsilon is zero or more", "1.0e-5"),
    ([2, 3], {"type": "layer_norm", "epsilon": float("nan")}, "'epsilon'", ""),
    (
        [2, 3],
        {"type": "layer_norm", "affine": False, "bias": True},
        "'r' has a bias, but no weight",
        "affine",
    ),
    ([2, 3], {"type": "dropout", "probability": 1.0}, "with probability 1", "less than 1"),
    ([2, 3], {"type": "dropout", "activation": "tanh"}, "type dropout has no 'activation'", "accepted keys"),
    ([2, 3], {"type": "instance_norm", "bias": True}, "'r' has a bias, but no weight", "affine: true"),
    ([2, 3], {"type": "rms_norm", "bias": True}, "a layer of type rms_norm has no 'bias'", "accepted keys"),
    ([2, 3], {"type": "layer_norm", "parameters": {"a": 1.0}}, "parameters but no activation", "activation"),
    ([2, 3], {"type": "layer_norm", "activation": "tan"}, "", "tanh"),
    ([2, 3], {"type": "group_norm"}, "group_norm layer 'r' has no groups", "e.g. groups"),
    ([2, 3], {"type": "group_norm", "groups": 3}, "3 groups do not divide 2 channels", "first axis"),
    (3, {"type": "group_norm", "groups": 4}, "would normalise single numbers", "fewer groups"),
    (3, {"type": "instance_norm"}, "would normalise single numbers", "fewer groups"),
    ([2, 3], {"type": "group_norm", "groups": 0}, "'groups' is too small", "at least 1"),
    (3, {"type": "positions"}, "positions layer 'r' takes places with features", "[places, 8]"),
    ([2, 3], {"type": "positions", "init": "hee"}, "", "he"),
    ([2, 3], {"type": "attention"}, "attention layer 'r' has no heads", "e.g. heads"),
    ([2, 3], {"type": "attention", "heads": 3}, "3 heads do not divide 4 features", "heads: 1"),
    ([2, 3], {"type": "attention", "heads": 4, "groups": 3}, "3 groups do not divide 4 heads", "fewer"),
    ([2, 3], {"type": "attention", "heads": 2, "groups": 4}, "4 groups do not divide 2 heads", "fewer"),
    ([2, 3], {"type": "attention", "heads": 0}, "'heads' is too small", "at least 1"),
    (3, {"type": "attention", "heads": 1}, "takes places with features, and 'd' has 4", "[places, features]"),
    ([2, 2, 3], {"type": "attention", "heads": 1}, "'d' has 2 x 2 x 4", "[places, features]"),
    ([2, 3], {"type": "attention", "heads": 1, "inputs": []}, "has 0 inputs, it needs 1", ""),
    (
        [2, 3],
        {"type": "attention", "heads": 4, "groups": 2, "projected": False},
        "do not fit",
        "as many keys as values",
    ),
    (
        [2, 3],
        {"type": "attention", "heads": 2, "inputs": ["d", "x"], "projected": False},
        "queries 2 x 4, keys 2 x 3 and values 2 x 3 do not fit",
        "as many keys",
    ),
    (
        [2, 3],
        {"type": "attention", "heads": 1, "inputs": ["d", "e", "m", "x"]},
        "4 inputs, it takes three",
        "",
    ),
]


@pytest.mark.parametrize("number", range(len(MESSAGES)))
def test_every_message(number: int) -> None:
    """One error, which says what is wrong and what would do; the place is that of the layer."""
    size, layer, message, hint = MESSAGES[number]
    with pytest.raises(SpecError) as error:
        spec_of(size, **layer)
    found = error.value
    assert message in found.message and hint in (found.hint or ""), str(found)
    assert "network.layers[" in found.message and "\n" not in found.message
    assert len(found.message) < 300 and not re.search("<size|None|Error", str(found))


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("x1*x3", "undeclared symbol 'x3' in an entrywise expression"),
        ("x1*x1", "an entrywise expression must depend on 'x2', this one is constant"),
        ("where(x1 > x2, 1, 0)", "an entrywise expression that is constant on both sides of its jumps"),
        ("x1*", "an entrywise expression"),
    ],
)
def test_wrong_expressions(expression: str, message: str) -> None:
    """Each argument is there, and one of them outside of conditions."""
    with pytest.raises(SpecError, match=re.escape(message)):
        spec_of([2, 3], type="entrywise", inputs=["d", "m"], expression=expression)


@pytest.mark.parametrize("expression", ["where(x2 <= x1, 0, -1e30)", "x1", "where(x2 < 1, 2, 3)"])
def test_rules_of_fixed_numbers_may_have_jumps_and_leave_axes_out(expression: str) -> None:
    layers = [
        {"name": "rule", "type": "table", "sizes": [2, 3], "expression": expression},
        {"name": "both", "type": "add", "inputs": ["x", "rule"]},
        {"name": "d", "type": "dense", "units": 3},
    ]
    network = {"input": {"name": "x", "size": [2, 3]}, "layers": layers}
    spec = build_spec({"sifrc": 1, "name": "net", "loss": "mse", "network": network})
    assert spec.layers[0].shape == (2, 3)
    layers[0]["expression"] = "2*3"
    with pytest.raises(SpecError, match="a table expression must depend on 'x1', this one is constant"):
        build_spec({"sifrc": 1, "name": "net", "loss": "mse", "network": network})


@pytest.mark.parametrize(
    "layer",
    [
        {"type": "positions", "kind": "sinusoids"},
        {"type": "attention", "heads": 1, "projected": False},
        {"type": "layer_norm", "affine": False},
    ],
)
def test_a_network_has_something_to_train(layer: dict[str, Any]) -> None:
    """Types that have parameters may have none."""
    network = {"input": {"name": "x", "size": [2, 4]}, "layers": [{"name": "r", **layer}]}
    with pytest.raises(SpecError, match="the network has nothing to train"):
        build_spec({"sifrc": 1, "name": "net", "loss": "mse", "network": network})


def test_causal_attention_reads_as_many_places_as_it_has() -> None:
    layers = [
        {"name": "d", "type": "dense", "units": 4},
        {"name": "less", "type": "slice", "axis": 1, "start": 1},
        {"name": "r", "type": "attention", "heads": 2, "inputs": ["d", "less"], "causal": True},
        *OUT,
    ]
    network = {"input": {"name": "x", "size": [3, 4]}, "layers": layers}
    data = {"sifrc": 1, "name": "net", "loss": "mse", "network": network}
    with pytest.raises(SpecError, match="reads as many places as it has"):
        build_spec(data)
    layers[2] = {**layers[2], "causal": False, "inputs": ["d", "less", "x"]}
    with pytest.raises(SpecError, match="keys 2 x 4 and values 3 x 4 do not fit"):
        build_spec(data)


GOOD: dict[str, dict[str, Any]] = {
    "reshape": {"sizes": [4, -1]},
    "permute": {"order": [2, 1]},
    "slice": {"axis": 2, "start": 0, "stop": 2, "step": 1},
    "concatenate": {"axis": 1, "inputs": ["d", "m"]},
    "pad": {"padding": [0, [1, 2]], "mode": "zeros"},
    "upsample": {"factor": 2, "mode": "nearest"},
    "multiply": {"inputs": ["d", "m"], "activation": "tanh"},
    "entrywise": {"inputs": ["d", "m"], "expression": "x1*x2*b", "parameters": {"b": 2.0}},
    "matmul": {"inputs": ["d", "m"], "transpose": "second"},
    "scale": {"value": 0.5, "shift": 1.0},
    "sum": {"axes": [1], "keep": True},
    "mean": {"axes": [1], "keep": True},
    "max": {"axes": [1], "keep": True},
    "softmax": {"axis": 1},
    "layer_norm": {"axes": [1], "epsilon": 0.1, "affine": True, "bias": True, "activation": "tanh"},
    "dropout": {"probability": 0.25},
    "rms_norm": {"axes": [1], "epsilon": 0.1, "affine": True, "activation": "tanh"},
    "group_norm": {"groups": 3, "epsilon": 0.1, "affine": True, "bias": True, "activation": "tanh"},
    "instance_norm": {"epsilon": 0.1, "affine": True, "bias": True, "activation": "tanh"},
    "attention": {
        "heads": 2,
        "groups": 1,
        "causal": True,
        "value": 0.5,
        "projected": True,
        "bias": True,
        "rotary": "interleaved",
        "base": 9,
    },
    "positions": {"init": "zeros"},
}
"""Keys of each type that are right."""

_HUGE = (10**12, -(10**12), 10**5000)
_WHOLE = (True, "2", 1.5, float("nan"), {}, [1], *_HUGE)
_COUNT = (*_WHOLE, 0, -1)
_NUMBER = (True, "2", float("nan"), float("inf"), {}, [], 10**400)
_FLAG = (0, 1, "yes", 1.0, [], {})
_WORD = (True, 1, [], {"a": 1}, 2.5)
_LIST = (True, 1.5, "x", {}, [], [None], ["x"], [1.0], [[1]], [True], [0], [1] * 9, [10**12], [10**5000])
WRONG: dict[str, tuple[Any, ...]] = {
    **dict.fromkeys(("heads", "groups"), _COUNT),
    **dict.fromkeys(("axis", "start", "stop", "step"), _WHOLE),
    **dict.fromkeys(("epsilon", "value", "shift"), _NUMBER),
    "probability": (*_NUMBER, 1.0, -0.5),
    **dict.fromkeys(("keep", "causal", "projected", "affine", "bias"), _FLAG),
    "rotary": (1, "yes", "half", 1.0, [], {}),
    "base": (*_NUMBER, 1, 0, -5, 1e13),
    **dict.fromkeys(("sizes", "order", "axes"), _LIST),
    "mode": (*_WORD, "", "x"),
    "padding": (*_LIST, None, 1, -1, "same", [1], [[1, 2, 3], 0], [[True, 1], 0], [-1, 0], ["1", 0]),
    "factor": (*_COUNT[:3], "x", 0, -1, [], [0], [1.5], [True], [2, 2], *_HUGE),
    "transpose": (True, 1, "third", ["first", "third"], [1], [None], {}),
    "activation": (True, 1, [], "nothing", {"function": 1}, {"expression": "y"}, {"functions": "tanh"}),
    "init": (True, 1, [], "nothing", {"kind": "he", "value": 1.0}, {"kind": "sparse", "connections": 0}),
    "inputs": (1, True, {}, [1], [None], ["nobody"], "nobody", ["r"], ["d", "d"], ["d"] * 4, []),
}
"""Values that are wrong for a key, whatever the type is."""


def pairs() -> Iterator[tuple[str, str]]:
    for kind, keys in GOOD.items():
        yield from ((kind, key) for key in (*keys, "inputs") if key in WRONG)


@pytest.mark.parametrize("kind, key", sorted({*pairs()}))
def test_wrong_values_are_one_error(kind: str, key: str) -> None:
    """And no other exception, whatever stands there."""
    assert spec_of([3, 2], type=kind, **GOOD[kind])
    for value in WRONG[key]:
        with pytest.raises(SpecError) as error:
            spec_of([3, 2], **{"type": kind, **GOOD[kind], key: value})
        found = error.value
        assert key in found.message or found.hint, str(found)
        assert len(str(found)) < 700 and not re.search("<size|Traceback|pydantic", str(found)), str(found)


@pytest.mark.parametrize("kind", GOOD)
def test_keys_of_another_type_are_refused(kind: str) -> None:
    """Each of them, with those that there are."""
    others = {key: value for keys in GOOD.values() for key, value in keys.items() if key != "inputs"}
    for key, value in {**others, "units": 3, "channels": 2, "kernel": 3, "share": "d"}.items():
        if key in LAYER_TYPES[kind].keys:  # type: ignore[index]
            continue
        with pytest.raises(SpecError, match=f"a layer of type {kind} has no '{key}'") as error:
            spec_of([3, 2], **{"type": kind, **GOOD[kind], key: value})
        assert (error.value.hint or "").startswith("accepted keys: name type inputs")


def test_errors_have_a_place_in_the_file() -> None:
    text = """\
sifrc: 1
name: bad
loss: mse
network:
  input: {name: x, size: [3, 4]}
  layers:
    - {name: a, type: attention, heads: 3}
    - {name: flat, type: flatten}
    - {name: out, type: dense, units: 2}
"""
    with pytest.raises(SpecError) as error:
        parse_spec(text)
    assert ":7:41" in str(error.value) and "3 heads do not divide 4 features" in str(error.value)
