"""Specs as YAML and as Python objects: what is accepted, and where errors point."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sifrc.errors import Location, SifrcError, SpecError
from sifrc.spec import build_spec, load_spec, parse_spec, spec_hash, spec_to_dict, starter_spec
from sifrc.spec.document import read_document
from sifrc.spec.names import RESERVED
from sifrc.spec.types import CurvatureSpec

BASE = """\
sifrc: 1
name: net
network:
  input: {name: image, size: 8}
  layers:
    - {name: fc1, type: dense, units: 6}
    - {name: act1, type: activation, function: leaky_relu, parameters: {slope: 0.1}}
    - {name: fc2, type: dense, units: 6, activation: tanh}
    - {name: act3, type: activation, expression: "x*tanh(log(1 + b*exp(x)))", parameters: {b: 0.7}}
    - {name: sum1, type: add, inputs: [act1, act3]}
    - {name: fc3, type: dense, share: fc2}
    - {name: fc4, type: dense, units: 3}
loss: {function: cross_entropy}
regularization: {state: 1.0e-3}
dtype: float32
training: {epochs: 3}
method: {name: esn, variant: exact}
target: {backend: numba, operators: [loss, gradient]}
curvature: [hessian, {name: mine, kind: pch2, output: positive}]
"""


def test_the_base_document_means_what_it_says() -> None:
    spec = parse_spec(BASE)
    assert [layer.name for layer in spec.layers] == ["fc1", "act1", "fc2", "act3", "sum1", "fc3", "fc4"]
    assert [layer.inputs for layer in spec.layers] == [
        ("image",),
        ("fc1",),
        ("act1",),
        ("fc2",),
        ("act1", "act3"),
        ("sum1",),
        ("fc3",),
    ]
    assert [layer.size for layer in spec.layers] == [6, 6, 6, 6, 6, 6, 3]
    assert spec.layers[1].activation is not None
    assert spec.layers[1].activation.parameters == (("slope", 0.1),)
    assert spec.layers[5].share == "fc2"
    assert spec.layers[5].initialization is None
    assert spec.loss.targets == "classes"
    assert spec.regularization.value == 1e-3
    assert spec.method is not None
    assert dict(spec.method.options) == {"variant": "exact"}
    assert spec.method.option_locations["variant"].line == 17
    assert spec.target.operators == ("loss", "gradient")
    assert spec.curvature == (
        CurvatureSpec("hessian", "hessian"),
        CurvatureSpec("mine", "pch2", output="positive"),
    )
    assert spec.curvature[1].location is not None and spec.curvature[1].location.column == 29


# (line to change, what it becomes, words of the error); § marks the column the error points at.
BAD: dict[str, tuple[str, str, str]] = {
    "unknown key": ("dtype: float32", "§dtipe: float32", "did you mean 'dtype'?"),
    "unknown layer key": (
        "fc1, type: dense, units: 6",
        "fc1, type: dense, §unit: 6",
        "did you mean 'units'?",
    ),
    "unknown target key": ("backend: numba,", "backend: numba, §parallel: true,", "go under options"),
    "key that is a word of our own": ("dtype: float32", "§<size>: 3", "unknown key '<size>'"),
    "layer key that is one": ("units: 6}", "units: 6, §<sizes>: 3}", "unknown key '<sizes>' in this layer"),
    "wrong version": ("sifrc: 1", "sifrc: §2", "accepted: 1"),
    "wrong type": ("units: 6}", "units: '§6'}", "must be a whole number, not the text '6'"),
    "true for a number": ("units: 6}", "units: §true}", "must be a whole number, not true"),
    "fraction": ("units: 6}", "units: §6.5}", "must be a whole number"),
    "zero units": ("units: 6}", "units: §0}", "at least 1"),
    "huge units": ("units: 6}", "units: §99999999999999999999999}", "too large|huge"),
    "list for mapping": ("training: {epochs: 3}", "training: §[3]", "must be keys and values"),
    "nothing": ("loss: {function: cross_entropy}", "loss:§", "must be keys and values"),
    "text for layers": ("input: {name: image, size: 8}", "input: §image", "must be keys and values"),
    "quoted number": ("parameters: {slope: 0.1}", "parameters: {slope: '§0.1'}", "remove the quotes"),
    "not finite": ("parameters: {slope: 0.1}", "parameters: {slope: §.inf}", "finite"),
    "layer type": ("fc1, type: dense", "fc1, type: §denze", "did you mean 'dense'?"),
    "dtype": ("dtype: float32", "dtype: §float16", "accepted: float32, float64 or bfloat16"),
    "unknown activation": ("activation: tanh", "activation: §tahn", "did you mean 'tanh'?"),
    "unknown loss": ("function: cross_entropy", "function: §crossentropy", "did you mean 'cross_entropy'?"),
    "unknown parameter": ("{slope: 0.1}", "{§slop: 0.1}", "did you mean 'slope'?"),
    "unknown function": ("x*tanh(log(", "x*tanh(§lug(", "did you mean 'log'?"),
    "undeclared symbol": ("1 + b*exp", "1 + §c*exp", "undeclared symbol 'c'"),
    "not differentiable": ("x*tanh(log(1 + b*exp(x)))", "x*§sign(b*x)", "non-differentiable"),
    "step": ("x*tanh(log(1 + b*exp(x)))", "§where(x > b, 1, 0)", "non-differentiable"),
    "constant": ("x*tanh(log(1 + b*exp(x)))", "§exp(b)", "must depend on 'x'"),
    "unused parameter": ("{b: 0.7}", "{b: 0.7, §c: 1}", "not used"),
    "parameter shadows": ("{b: 0.7}", "{b: 0.7, §exp: 1}", "meaning of its own"),
    "reserved parameter": ("{b: 0.7}", "{b: 0.7, §lambda: 1}", "reserved"),
    "vector loss": ("function: cross_entropy", 'expression: "§(y - t)**2"', "did you mean sum"),
    "loss max": ("function: cross_entropy", 'expression: "§max(y) - sum(t)"', "non-differentiable"),
    "two losses": ("loss: {function: cross_entropy}", "loss: §{function: mse, expression: sum(y)}", "both"),
    "no loss": ("loss: {function: cross_entropy}", "loss: §{}", "no function"),
    "reserved name": ("name: fc1", "name: §lambda", "reserved"),
    "name of generated code": ("name: fc1", "name: §params", "reserved"),
    "not an identifier": ("name: fc1", "name: §fc-1", "is not a name"),
    "dunder": ("name: fc1", "name: §__class__", "is not a name"),
    "unicode name": ("name: fc1", "name: §ℌ1", "is not a name"),
    "long name": ("name: fc1", "name: §" + "a" * 65, "too long"),
    "spec name": ("name: net", "name: §my net", "is not a name"),
    "number as name": ("name: fc1", "name: §1", "must be text"),
    "same name": ("name: act3", "name: §act1", "used twice"),
    "name of the input": ("name: fc1", "name: §image", "used twice"),
    "unknown input": ("[act1, act3]", "[act1, §acd3]", "did you mean 'act3'?"),
    "input twice": ("[act1, act3]", "[act1, §act1]", "named twice"),
    "one input to add": ("[act1, act3]", "§[act1]", "two or more"),
    "two inputs to dense": ("fc4, type: dense,", "fc4, type: dense, inputs: §[fc3, fc1],", "it takes one"),
    "size mismatch": ("[act1, act3]", "[act1, act3, §image]", "'act1' has 6, 'image' has 8"),
    "cycle": ("fc1, type: dense,", "fc1, type: dense, inputs: [§sum1],", "fc1 → act1 → sum1 → fc1"),
    "self": ("fc1, type: dense,", "fc1, type: dense, inputs: [§fc1],", "fc1 → fc1"),
    "unused layer": (
        "[act1, act3]}",
        "[act1, act3]}\n    - {name: §dead, type: dense, units: 2, inputs: fc1}"
        "\n    - {name: fc9, type: dense, units: 6, inputs: sum1}",
        "'dead' is not used",
    ),
    "units missing": (
        "    - {name: fc4, type: dense, units: 3}",
        "    - §{name: fc4, type: dense}",
        "no size",
    ),
    "unknown share": ("share: fc2", "share: §fc7", "unknown layer 'fc7'"),
    "share of nothing": ("share: fc2", "share: §act1", "no parameters"),
    "share with itself": ("share: fc2", "share: §fc3", "itself"),
    "share units": ("share: fc2}", "share: fc2, units: §5}", "'fc3' has 5 units"),
    "share input size": (
        "share: fc2",
        "share: §fc1",
        "'sum1' with 6, 'fc1' whose parameters it shares takes 'image' with 8",
    ),
    "share bias": ("share: fc2}", "share: fc2, bias: §false}", "which has a bias"),
    "share init": ("share: fc2}", "share: fc2, §init: he}", "cannot start them"),
    "share chain": ("fc4, type: dense, units: 3", "fc4, type: dense, share: §fc3", "share: fc2"),
    "key of another type": ("[act1, act3]}", "[act1, act3], §units: 6}", "has no 'units'"),
    "function in dense": ("units: 6, activation: tanh", "units: 6, §function: tanh", "use activation: here"),
    "parameters of nothing": ("fc4, type: dense,", "fc4, type: dense, §parameters: {a: 1},", "no activation"),
    "init kind": ("fc4, type: dense,", "fc4, type: dense, init: §glorat,", "did you mean 'glorot'?"),
    "init option": (
        "fc4, type: dense,",
        "fc4, type: dense, init: {kind: he, §value: 1},",
        "belongs to normal, uniform and constant",
    ),
    "negative regularization": ("state: 1.0e-3", "state: §-1", "zero or more"),
    "regularization word": ("state: 1.0e-3", "state: §spectrall", "did you mean 'spectral'?"),
    "regularization of a fused layer": ("state: 1.0e-3", "state: {§fc1: 0.1}", "write act1"),
    "regularization of nothing": ("state: 1.0e-3", "state: {§act9: 0.1}", "no state is named 'act9'"),
    "loss factor": ("state: 1.0e-3", "state: 0.1, output: §spectral", "spectral states"),
    "regularization value": ("state: 1.0e-3", "state: {act1: §big}", "cannot be the text 'big'"),
    "option value": ("variant: exact", "variant: §[exact]", "cannot be a list"),
    "option not finite": ("variant: exact", "variant: §.nan", "finite"),
    "operator twice": ("[loss, gradient]", "[loss, §loss]", "named twice"),
    "curvature preset": ("[hessian, {", "[§hesian, {", "did you mean 'hessian'?"),
    "curvature of a curvature": ("kind: pch2", "kind: §mine", "presets: hessian, pch1"),
    "curvature without a kind": ("{name: mine, kind: pch2,", "§{name: mine,", "kind: hessian, pch1, pch2"),
    "curvature key": ("output: positive", "§outputs: positive", "'outputs' in this kind of curvature"),
    "curvature rewrite": ("output: positive", "output: §clipped", "accepted: kept, absolute or positive"),
    "curvature expectation": ("output: positive", "expectation: §1", "must be true or false"),
    "curvature name": ("name: mine", "name: §my-kind", "is not a name"),
    "curvature reserved": ("name: mine", "name: §sample", "reserved"),
    "curvature twice": ("[hessian, {", "[hessian, §hessian, {", "the first one is at line 19, column 13"),
    "curvature of another preset": ("name: mine", "name: §hessian", "is a preset"),
    "curvature preset changed": ("name: mine", "name: §pch2", "is a preset"),
    "curvature Fisher": ("kind: pch2, output", "kind: sampled_fisher, §output", "nothing that 'output'"),
    "curvature word": ("curvature: [hessian, {", "curvature: §hessian #", "must be a list"),
    "curvature number": ("[hessian, {", "[§3, {", "an item of 'curvature' must be"),
    "duplicate key": ("dtype: float32", "dtype: float32\n§dtype: float64", "line 15, column 1"),
    "anchor": ("dtype: float32", "dtype: §&d float32", "anchors"),
    "alias": ("dtype: float32", "dtype: §*d", "aliases"),
    "tag": ("dtype: float32", "dtype: §!!python/name:os.system x", "tag"),
    "merge": ("dtype: float32", "§<<: {dtype: float32}", "not accepted as a key"),
    "number as key": ("dtype: float32", "§1: float32", "not accepted as a key"),
    "second document": ("dtype: float32", "§---\ndtype: float32", "one document"),
    "syntax": ("dtype: float32", "dtype: float32§: x", "not YAML"),
    "oversized expression": ("x*tanh(log(1 + b*exp(x)))", "§" + "x + " * 600 + "b", "too long"),
    "deep expression": ("x*tanh(log(1 + b*exp(x)))", "(" * 60 + "§(x*b" + ")" * 61, "nested too deeply"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_pointed_at(case: str) -> None:
    old, new, fragment = BAD[case]
    assert BASE.count(old) >= 1
    marked = BASE.replace(old, new, 1)
    before = marked[: marked.index("§")].split("\n")
    with pytest.raises(SpecError) as caught:
        parse_spec(marked.replace("§", ""), "net.yaml")
    error = caught.value
    assert any(words in str(error) for words in fragment.split("|")), str(error)
    assert error.location is not None
    assert (error.location.file, error.location.line, error.location.column) == (
        "net.yaml",
        len(before),
        len(before[-1]) + 1,
    ), str(error)


def test_the_text_of_an_error_is_a_diagnostic_with_a_caret() -> None:
    with pytest.raises(SpecError) as caught:
        parse_spec(BASE.replace("b*exp(x)", "b*epx(x)"), "nets/deep.yaml")
    lines = str(caught.value).splitlines()
    assert lines[0] == "error: unknown function 'epx' in an activation expression"
    assert lines[1] == " --> nets/deep.yaml:9:68"
    assert lines[3].startswith("9 |     - {name: act3")
    assert lines[4] == "  | " + " " * 67 + "^^^ did you mean 'exp'?"
    assert lines[5].startswith("  = known functions: abs asinh")


@pytest.mark.parametrize("key", ["sifrc", "name", "network", "loss"])
def test_missing_keys_are_named(key: str) -> None:
    data = spec_to_dict(parse_spec(BASE))
    del data[key]
    with pytest.raises(SpecError, match=f"key '{key}' is missing"):
        build_spec(data)


def test_the_first_problem_in_file_order_is_reported() -> None:
    text = BASE.replace("units: 6}", "units: six}", 1).replace("float32", "float23")
    with pytest.raises(SpecError, match="'units' must be"):
        parse_spec(text)


def change(data: dict[str, Any], path: tuple[Any, ...], value: object) -> dict[str, Any]:
    result = copy.deepcopy(data)
    item: Any = result
    for key in path[:-1]:
        item = item[key]
    item[path[-1]] = value
    return result


@pytest.mark.parametrize(
    ("path", "value", "fragment"),
    [
        (("network", "layers", 0, "units"), "6", "network.layers[0].units: 'units' must be a whole number"),
        (("network", "layers", 0, "inputs"), ["imag"], "network.layers[0].inputs[0]: unknown input 'imag'"),
        (("dtype",), 3, "dtype: 'dtype' cannot be the number 3"),
        (("loss", "targets"), object(), "loss.targets: 'targets' cannot be a Python object"),
        (("network", "layers", 3, "expression"), "x*(lug(b))", "network.layers[3].expression:1:4"),
        (("network", "layers"), (1, 2), "a Python tuple"),
        (("method", "variant"), None, "method.variant: option 'variant' cannot be nothing"),
        (("regularization", "state"), {3: 1.0}, "no state is named '3'"),
        (("regularization", "state"), 10**400, "huge number"),
        (("seed",), 10**400, "huge number"),
    ],
)
def test_errors_in_python_objects_name_the_path(path: tuple[Any, ...], value: object, fragment: str) -> None:
    with pytest.raises(SpecError) as caught:
        build_spec(change(spec_to_dict(parse_spec(BASE)), path, value))
    assert fragment in str(caught.value)


VARIANTS = {
    "no curvature": BASE[: BASE.index("curvature")],
    "curvature rewrites": BASE.replace("output: positive", "residual: absolute, expectation: false"),
    "curvature alias": BASE.replace(", output: positive", ""),
    "base": BASE,
    "starter": starter_spec("digits"),
    "spectral": BASE.replace("1.0e-3", "spectral"),
    "none": BASE.replace("1.0e-3", "none"),
    "per state": BASE.replace("1.0e-3", "{fc2: 1e-3, act1: 2}"),
    "custom loss": BASE.replace(
        "function: cross_entropy", 'expression: "sum((y - t)**4)/4", targets: classes'
    ),
    "short loss": BASE.replace("{function: cross_entropy}", "bounded"),
    "short method": BASE.replace("{name: esn, variant: exact}", "mk"),
    "unnamed layer": BASE.replace("name: fc4, type", "type"),
    "add with activation": BASE.replace(
        "[act1, act3]}", "[act1, act3], activation: leaky_relu, parameters: {slope: 1e-2}}"
    ),
    "dense with expression": BASE.replace(
        "activation: tanh", "activation: {expression: 'x + a*x**3', parameters: {a: 0.1}}"
    ),
    "no bias": BASE.replace("activation: tanh", "activation: tanh, bias: false"),
    "init": BASE.replace("dtype: float32", "init: {kind: sparse, connections: 3}"),
    "layer init": BASE.replace("units: 3}", "units: 3, init: {kind: constant, value: 0.5}}"),
    "forward reference": BASE.replace("fc4, type: dense,", "fc4, type: dense, inputs: late,").replace(
        "    - {name: fc4", "    - {name: late, type: dense, units: 2, inputs: fc3}\n    - {name: fc4"
    ),
    "options": BASE.replace("gradient]}", "gradient], options: {parallel: true, block: 32, x: 1.5}}"),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_canonical_dict_round_trips(name: str) -> None:
    spec = parse_spec(VARIANTS[name])
    data = spec_to_dict(spec)
    again = build_spec(data)
    assert again == spec
    assert spec_to_dict(again) == data
    assert spec_hash(again) == spec_hash(spec)


def test_hash_ignores_form_and_sees_meaning() -> None:
    digest = spec_hash(parse_spec(BASE))
    spaced = BASE.replace("x*tanh(log(1 + b*exp(x)))", "( x * tanh(log(1+b*exp(x))) )") + "# comment\n"
    assert spec_hash(parse_spec(spaced + "seed: 0\n")) == digest
    others = {spec_hash(parse_spec(text)) for text in VARIANTS.values()}
    assert len(others) == len(VARIANTS)


def test_a_spec_without_curvature_keeps_the_hash_it_had() -> None:
    assert "curvature" not in spec_to_dict(parse_spec(VARIANTS["no curvature"]))
    assert parse_spec(VARIANTS["no curvature"] + "curvature: []") == parse_spec(VARIANTS["no curvature"])


def test_hash_is_the_same_in_every_process() -> None:
    program = "import sys; from sifrc.spec import parse_spec, spec_hash; "
    code = program + "print(spec_hash(parse_spec(sys.stdin.read())))"
    digests = {spec_hash(parse_spec(VARIANTS["options"]))}
    for seed in ("0", "1"):
        done = subprocess.run(
            [sys.executable, "-c", code],
            input=VARIANTS["options"],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
        )
        digests.add(done.stdout.strip())
    assert len(digests) == 1


def test_yaml_words_are_read_by_the_core_schema() -> None:
    data = read_document("{a: 1e-3, b: no, c: 0x1, d: 1:30, e: ~, f: 'true', g: TRUE, h: !!str 12}").data
    assert data == {
        "a": 1e-3,
        "b": "no",
        "c": "0x1",
        "d": "1:30",
        "e": None,
        "f": "true",
        "g": True,
        "h": "12",
    }


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# nothing",
        "[" * 100_000,
        pytest.param("[" + "a," * 250_000 + "]", marks=pytest.mark.slow),
        "{a: " * 500,
        "- " * 5_000,
        "a: \x00",
        'a: "\\UFFFFFFFF"',
        "%YAML 9.9\n---\na",
        "!<tag:evil> x",
        "a: !!binary aGk=",
        "x" * 1_000_001,
        "- 1",
        "3",
        "? [a]\n: b",
        "a: 1\n...\nb: 2",
    ],
)
def test_hostile_documents_are_refused(text: str) -> None:
    with pytest.raises(SpecError):
        parse_spec(text)


def test_too_many_items_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Up to the limit itself a list takes seconds to read; a lower one is refused in the same way."""
    monkeypatch.setattr("sifrc.spec.document.MAX_ITEMS", 50)
    with pytest.raises(SpecError, match="too many items"):
        parse_spec("[" + "a," * 60 + "]")
    with pytest.raises(SpecError) as caught:
        parse_spec("[" + "a," * 40 + "]")
    assert "too many items" not in str(caught.value)


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=40))
def test_arbitrary_documents_raise_nothing_but_spec_errors(text: str) -> None:
    with pytest.raises(SpecError):
        parse_spec(text)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, len(BASE) - 1), st.integers(0, 12), st.text(max_size=6))
def test_damaged_documents_raise_nothing_but_spec_errors(start: int, length: int, insert: str) -> None:
    try:
        parse_spec(BASE[:start] + insert + BASE[start + length :])
    except SpecError as error:
        assert str(error)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.binary(max_size=2),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3) | st.integers(), inner, max_size=2)
    ),
    max_leaves=4,
)


def paths(item: object, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    pairs = item.items() if isinstance(item, dict) else enumerate(item) if isinstance(item, list) else ()
    return [found for key, value in pairs for found in [(*path, key), *paths(value, (*path, key))]]


BASE_DICT = spec_to_dict(parse_spec(BASE))


@settings(max_examples=120, deadline=None)
@given(st.sampled_from(paths(BASE_DICT)), VALUES)
def test_damaged_objects_raise_nothing_but_spec_errors(path: tuple[Any, ...], value: object) -> None:
    try:
        build_spec(change(BASE_DICT, path, value))
    except SpecError as error:
        assert str(error)


def test_files_are_read_and_named(tmp_path: Path) -> None:
    good = tmp_path / "net.yaml"
    good.write_text("\ufeff" + BASE, encoding="utf-8")
    assert load_spec(good) == parse_spec(BASE)
    good.write_text(BASE.replace("sifrc: 1", "sifrc: 7"), encoding="utf-8")
    with pytest.raises(SpecError, match=r"net\.yaml:1:8"):
        load_spec(good)
    for content, words in ((b"\xff\xfe", "UTF-8"), (b"a" * 1_000_001, "too large")):
        good.write_bytes(content)
        with pytest.raises(SpecError, match=words):
            load_spec(str(good))
    for missing in (tmp_path, tmp_path / "none.yaml", "a\x00b"):
        with pytest.raises(SifrcError, match="cannot read spec"):
            load_spec(missing)
    others: tuple[Any, ...] = (BASE_DICT, None)
    for other in others:
        with pytest.raises(SpecError, match="from a file, not from an object"):
            load_spec(other)
        with pytest.raises(SpecError, match="is text, not an object"):
            parse_spec(other)


def test_windows_line_ends_keep_lines() -> None:
    with pytest.raises(SpecError) as caught:
        parse_spec(BASE.replace("dtype: float32", "dtype: float23").replace("\n", "\r\n"))
    assert caught.value.location is not None
    assert (caught.value.location.line, caught.value.location.text) == (15, "dtype: float23")


@pytest.mark.parametrize("name", ["digits", "a1"])
def test_starter_is_valid(name: str) -> None:
    assert parse_spec(starter_spec(name)).name == name


@pytest.mark.parametrize("name", ["", "a b", "class", "x" * 65, "{evil}"])
def test_starter_refuses_bad_names(name: str) -> None:
    with pytest.raises(SpecError):
        starter_spec(name)


def test_reserved_names_cover_what_generated_code_uses() -> None:
    assert {
        "params",
        "inputs",
        "targets",
        "loss",
        "self",
        "Optimizer",
        "torch",
        "np",
        "numba",
        "def",
    } <= RESERVED


def test_importing_the_stage_loads_no_heavy_library() -> None:
    code = (
        "import sys, sifrc.spec; print([m for m in ('torch', 'numba', 'sympy', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(("length", "column"), [(300, 200), (1200, 1), (1200, 600), (1200, 1198)])
def test_a_long_line_is_cut_around_its_place(length: int, column: int) -> None:
    """The caret still stands below what it means, and the message can be read."""
    line = "a" * (column - 1) + "BCD" + "e" * (length - column - 2)
    shown = str(SpecError("wrong", location=Location("net.yaml", 7, column, column + 3, line))).splitlines()
    text, caret = shown[3].removeprefix("7 | "), shown[4].removeprefix("  | ")
    assert len(text) <= 402 and (len(line) > 400) == ("…" in text)
    assert text[caret.index("^") : caret.rindex("^") + 1] == "BCD"
