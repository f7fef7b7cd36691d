"""Partitions of the parameter tensors: words, patterns, lists, and where errors point."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sifrc.compiler import Request, apply_request
from sifrc.errors import SpecError
from sifrc.model import build_model
from sifrc.model.partition import Partition, partition_of
from sifrc.spec import Spec, build_spec, parse_spec, spec_hash, spec_to_dict
from sifrc.spec.partition import tensor_names
from sifrc.spec.partitionspec import choose_partition
from sifrc.spec.types import PartitionSpec


def network(layers: list[dict[str, Any]], partition: Any = "canonical", size: int = 3) -> Spec:
    return build_spec(
        {
            "sifrc": 1,
            "name": "net",
            "network": {"input": {"name": "image", "size": size}, "layers": layers},
            "loss": "mse",
            "partition": partition,
        }
    )


def chain(count: int, partition: Any = "canonical", bias: bool = True) -> Spec:
    layers = [{"name": f"fc{k}", "type": "dense", "units": 2, "bias": bias} for k in range(1, count + 1)]
    return network(layers, partition)


def groups(spec: Spec) -> dict[str, list[str]]:
    partition = partition_of(spec)
    return dict(zip(partition.names, map(list, partition.members), strict=True))


# fc2 has no bias, fc3 uses the parameters of fc1, and the file is not in the order of the network.
GRAPH: list[dict[str, Any]] = [
    {"name": "fc5", "type": "dense", "units": 3, "inputs": "sum1"},
    {"name": "fc1", "type": "dense", "units": 3, "inputs": "image", "activation": "tanh"},
    {"name": "fc2", "type": "dense", "units": 3, "bias": False},
    {"name": "act1", "type": "activation", "function": "tanh"},
    {"name": "fc3", "type": "dense", "share": "fc1"},
    {"name": "sum1", "type": "add", "inputs": ["fc1", "fc3"]},
    {"name": "fc4", "type": "dense", "units": 2, "inputs": "fc5"},
]


def weights(*numbers: int) -> list[str]:
    return [f"fc{k}.weight" for k in numbers]


def biases(*numbers: int) -> list[str]:
    return [f"fc{k}.bias" for k in numbers]


def test_every_tensor_is_its_own_group_by_default() -> None:
    assert groups(chain(2)) == {name: [name] for name in ("fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias")}
    assert chain(2).partition == PartitionSpec()


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("trivial", {"all": ["fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias", "fc3.weight", "fc3.bias"]}),
        ("weights-biases", {"weights": weights(1, 2, 3), "biases": biases(1, 2, 3)}),
        ("chunks-1", {"chunk1_weights": weights(1, 2, 3), "chunk1_biases": biases(1, 2, 3)}),
        (
            "chunks-2",
            {
                "chunk1_weights": weights(1, 2),
                "chunk1_biases": biases(1, 2),
                "chunk2_weights": weights(3),
                "chunk2_biases": biases(3),
            },
        ),
        (
            "blocks-1",
            {
                "block1_weights": weights(1, 2),
                "block1_biases": biases(1, 2),
                "final_weights": weights(3),
                "final_biases": biases(3),
            },
        ),
    ],
)
def test_words_on_a_chain(word: str, expected: dict[str, list[str]]) -> None:
    found = groups(chain(3, word))
    assert found == expected
    assert list(found) == list(expected)


def test_blocks_are_consecutive_and_the_longer_ones_come_first() -> None:
    found = groups(chain(9, "blocks-3"))
    assert len(found) == 2 * 3 + 2
    assert found["block1_weights"] == weights(1, 2, 3)
    assert found["block2_biases"] == biases(4, 5, 6)
    assert found["block3_weights"] == weights(7, 8)
    assert found["final_biases"] == biases(9)


def test_alternate_takes_layers_by_their_number_modulo_k() -> None:
    """GN3, Appendix K: layer l is in block l % k, in weights and biases, and the last layer is apart."""
    found = groups(chain(8, "alternate-3"))
    assert len(found) == 2 * 3 + 2
    assert found["block1_weights"] == weights(1, 4, 7)
    assert found["block2_biases"] == biases(2, 5)
    assert found["block3_weights"] == weights(3, 6)
    assert found["final_weights"] == weights(8)


def test_the_partitions_of_the_paper_have_its_numbers_of_groups() -> None:
    """GN3: 2k + 2 of nine layers in Appendix K, and ten of more than a hundred in Appendix H."""
    sizes = {"trivial": 1, "weights-biases": 2, "blocks-2": 6, "alternate-2": 6, "blocks-4": 10}
    for word, size in {**sizes, "alternate-4": 10, "canonical": 18}.items():
        assert partition_of(chain(9, word)).size == size
    assert partition_of(chain(101, "chunks-5")).size == 10


@pytest.mark.parametrize("word", ["blocks", "alternate", "chunks"])
def test_as_many_blocks_as_layers_are_the_canonical_groups(word: str) -> None:
    most = 4 if word == "chunks" else 3
    found = partition_of(chain(4, f"{word}-{most}"))
    assert found.members == partition_of(chain(4)).members
    with pytest.raises(SpecError, match=f"at most {word}-{most}"):
        chain(4, f"{word}-{most + 1}")


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("trivial", {"all": weights(1, 2, 3)}),
        ("weights-biases", {"weights": weights(1, 2, 3)}),
        ("blocks-1", {"block1_weights": weights(1, 2), "final_weights": weights(3)}),
        (
            "alternate-2",
            {"block1_weights": weights(1), "block2_weights": weights(2), "final_weights": weights(3)},
        ),
        ("chunks-2", {"chunk1_weights": weights(1, 2), "chunk2_weights": weights(3)}),
    ],
)
def test_networks_without_biases_have_no_groups_of_biases(word: str, expected: dict[str, list[str]]) -> None:
    assert groups(chain(3, word, bias=False)) == expected


@pytest.mark.parametrize(
    ("partition", "expected"),
    [
        ("weights-biases", {"weights": weights(1, 2, 5, 4), "biases": biases(1, 5, 4)}),
        (
            "blocks-2",
            {
                "block1_weights": weights(1, 2),
                "block1_biases": biases(1),
                "block2_weights": weights(5),
                "block2_biases": biases(5),
                "final_weights": weights(4),
                "final_biases": biases(4),
            },
        ),
        (
            "alternate-2",
            {
                "block1_weights": weights(1, 5),
                "block1_biases": biases(1, 5),
                "block2_weights": weights(2),
                "final_weights": weights(4),
                "final_biases": biases(4),
            },
        ),
        ({"rest": "fc[!2]", "second": ["fc2"]}, None),
    ],
)
def test_graphs_with_shared_parameters(partition: Any, expected: dict[str, list[str]] | None) -> None:
    """Layers that share have no tensors, and the order is that of the network."""
    found = groups(network(GRAPH, partition))
    if expected is None:
        rest = ["fc1.weight", "fc1.bias", "fc5.weight", "fc5.bias", "fc4.weight", "fc4.bias"]
        expected = {"rest": rest, "second": ["fc2.weight"]}
    assert found == expected
    assert list(found) == list(expected)


@pytest.mark.parametrize("spec", [chain(1), chain(5), network(GRAPH)], ids=["one", "chain", "graph"])
def test_tensors_are_those_of_the_model_in_its_order(spec: Spec) -> None:
    model = build_model(spec)
    assert tensor_names(spec.layers) == tuple(p.name for owned in model.parameters for p in owned.members)


def test_the_discrete_partition_counts_numbers() -> None:
    found = partition_of(network(GRAPH, "discrete"))
    sizes: list[int] = []
    for owned in build_model(network(GRAPH)).parameters:
        for symbol in owned.symbols:
            size = 1
            for axis in symbol.axes:
                assert axis.size is not None
                size *= axis.size
            sizes.append(size)
    assert found.discrete and found.counts == tuple(sizes) and found.size == sum(sizes)
    assert found.members == partition_of(network(GRAPH)).members
    assert found.position["fc1.weight"] == 0 and found.position["fc1.bias"] == 9
    assert found.position["fc2.weight"] == 12
    assert not partition_of(network(GRAPH)).discrete


def test_the_discrete_partition_counts_the_entries_of_kernels() -> None:
    """Channels, channels of a group, entries of the window; places have no numbers of their own."""
    layers = [
        {"name": "conv", "type": "conv", "channels": 6, "groups": 2, "kernel": [3, 2]},
        {"name": "flat", "type": "flatten"},
        {"name": "out", "type": "dense", "units": 2, "bias": False},
    ]
    network = {"input": {"name": "x", "size": [4, 3, 5]}, "layers": layers}
    data = {"sifrc": 1, "name": "kernels", "loss": "mse", "partition": "discrete", "network": network}
    assert partition_of(build_spec(data)).counts == (6 * 2 * 3 * 2, 6, 24 * 2)


def test_groups_come_in_the_order_of_their_first_tensor() -> None:
    by_name = {"late": ["fc3.bias", "fc2"], "early": ["fc3.weight", "fc1"]}
    found = partition_of(chain(3, by_name))
    assert found == Partition(
        ("early", "late"),
        (("fc1.weight", "fc1.bias", "fc3.weight"), ("fc2.weight", "fc2.bias", "fc3.bias")),
    )
    assert found.position["fc2.bias"] == 1
    listed = partition_of(chain(3, list(by_name.values())))
    assert listed == Partition(("group2", "group1"), found.members)


@pytest.mark.parametrize(
    "same",
    [
        {"a": ["fc1", "fc2"], "b": "fc3"},
        {"b": ["fc3.weight", "fc3.bias"], "a": ["fc2", "fc1"]},
        {"a": "fc[12]", "b": "*3*"},
        {"a": ["fc1.*", "fc2.?eight", "fc2.bias", "fc2"], "b": ["fc3"]},
    ],
    ids=str,
)
def test_partitions_that_mean_the_same_are_equal(same: Any) -> None:
    spec, other = chain(3, {"a": ["fc1.*", "fc2.*"], "b": ["fc3.*"]}), chain(3, same)
    assert spec.partition == other.partition
    assert spec_hash(spec) == spec_hash(other)


FORMS = [
    "trivial",
    "weights-biases",
    "blocks-1",
    "blocks-2",
    "alternate-2",
    "chunks-2",
    "discrete",
    {"first": "fc1", "rest": ["fc2", "fc3"]},
    [["*.weight"], ["fc1.bias"], ["fc2.bias", "fc3.bias"]],
]


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_canonical_dict_round_trips(form: Any) -> None:
    spec = chain(3, form)
    data = spec_to_dict(spec)
    assert build_spec(data) == spec and spec_to_dict(build_spec(data)) == data
    assert isinstance(data["partition"], dict) or data["partition"] == form


def test_every_partition_has_a_hash_of_its_own_and_the_default_none() -> None:
    assert len({spec_hash(chain(3, form)) for form in (*FORMS, "canonical")}) == len(FORMS) + 1
    assert "partition" not in spec_to_dict(chain(3))
    assert chain(3, "blocks-02") == chain(3, "blocks-2")


BASE = """\
sifrc: 1
name: net
network:
  input: {name: image, size: 4}
  layers:
    - {name: fc1, type: dense, units: 4}
    - {name: act1, type: activation, function: tanh}
    - {name: fc2, type: dense, units: 4, bias: false}
    - {name: fc3, type: dense, share: fc1}
    - {name: fc4, type: dense, units: 3}
loss: mse
"""

# (what stands at the end of the file, words of the error); § marks the column the error points at.
BAD: dict[str, tuple[str, str]] = {
    "key": ("§partitions: trivial", "did you mean 'partition'?"),
    "word": ("partition: §canonicl", "did you mean 'canonical'?"),
    "underscore": ("partition: §weights_biases", "did you mean 'weights-biases'?"),
    "counted word": ("partition: §block-2", "did you mean 'blocks-2'?"),
    "far word": ("partition: §layers", "words: canonical, trivial, weights-biases, discrete, blocks-K"),
    "no number": ("partition: §blocks", "no whole number after 'blocks-'"),
    "empty number": ("partition: §chunks-", "no whole number after 'chunks-'"),
    "text for a number": ("partition: §alternate-two", "no whole number after 'alternate-'"),
    "digit of another script": ("partition: §blocks-٢", "no whole number"),
    "negative": ("partition: §blocks--1", "no whole number"),
    "zero": ("partition: §alternate-0", "number below 1"),
    "too many blocks": ("partition: §blocks-3", "before the last one: there are 2"),
    "too many classes": ("partition: §alternate-3", "at most alternate-2"),
    "too many chunks": ("partition: §chunks-4", "needs more layers with parameters: there are 3"),
    "huge": (f"partition: §blocks-{'9' * 5000}", "at most blocks-2"),
    "nothing": ("partition: §null", "cannot be nothing"),
    "number": ("partition: §3", "cannot be the number 3"),
    "no groups": ("partition: §{}", "has no groups"),
    "no lists": ("partition: §[]", "has no groups"),
    "list of words": ("partition: [§fc1, fc2, fc4]", "group 'group1' cannot be the text 'fc1'"),
    "number as a group": ("partition: {a: §3}", "group 'a' cannot be the number 3"),
    "groups in a group": ("partition: {a: §{b: fc1}}", "group 'a' cannot be keys and values"),
    "number as a pattern": ("partition: {a: [fc1, §4]}", "an item of group 'a' must be text"),
    "empty group": ("partition: {a: '*', b: §[]}", "group 'b' is empty"),
    "empty list": ("partition: [['*'], §[]]", "group 'group2' is empty"),
    "bad name": ("partition: {§my-group: '*'}", "is not a name"),
    "reserved name": ("partition: {§loss: '*'}", "reserved"),
    "repeated name": ("partition: {a: fc1, §a: fc2}", "duplicate key 'a'"),
    "missing": ("§partition: {a: fc1}", "no group has fc2.weight, fc4.weight or fc4.bias"),
    "missing one": ("§partition:\n  a: [fc1, fc2]\n  b: fc4.weight", "no group has fc4.bias"),
    "two groups": ("partition: {a: fc1, b: '§*.weight'}", "'fc1.weight' is in two groups, 'a' and 'b'"),
    "two lists": ("partition: [['*'], [§fc2]]", "'group1' takes it at line 12, column 15"),
    "unknown layer": ("partition: {a: §fc5, b: '*'}", "did you mean 'fc4'?"),
    "unknown tensor": ("partition: {a: [fc1, §fc2.wight], b: fc4}", "did you mean 'fc2.weight'?"),
    "no such bias": ("partition: {a: §fc2.bias, b: '*'}", "layer 'fc2' has no bias"),
    "shared": ("partition: {a: §fc3, b: '*'}", "uses the parameters of 'fc1'"),
    "shared tensor": ("partition: {a: §fc3.weight, b: '*'}", "uses the parameters of 'fc1'"),
    "activation": ("partition: {a: §act1, b: '*'}", "a layer of type activation has no parameters"),
    "pattern": ("partition: {a: '§gc*', b: '*'}", "matches no tensor"),
    "case": ("partition: {a: §FC1, b: '*'}", "did you mean 'fc1'?"),
    "open bracket": ("partition: {a: '§fc[', b: '*'}", "matches no tensor"),
    "empty pattern": ("partition: {a: §'', b: '*'}", "matches no tensor"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_pointed_at(case: str) -> None:
    end, fragment = BAD[case]
    marked = BASE + end
    before = marked[: marked.index("§")].split("\n")
    with pytest.raises(SpecError) as caught:
        parse_spec(marked.replace("§", ""), "net.yaml")
    error = caught.value
    assert fragment in str(error)
    assert error.location is not None and error.hint is not None
    place = (error.location.line, error.location.column)
    assert place == (len(before), len(before[-1]) + 1), str(error)


def test_the_only_layer_is_the_last_one() -> None:
    with pytest.raises(SpecError, match="use weights-biases or canonical"):
        chain(1, "blocks-1")
    assert partition_of(chain(1, "chunks-1")).size == 2


def test_places_are_kept_and_not_compared() -> None:
    spec = parse_spec(BASE + "partition:\n  first: fc1\n  rest:\n    - fc2\n    - fc4\n")
    location = spec.partition.location
    assert location is not None and location.line == 13
    assert {name: place.line for name, place in spec.partition.group_locations.items()} == {
        "first": 13,
        "rest": 15,
    }
    again = build_spec(spec_to_dict(spec))
    assert again.partition.location is None and again == spec


@pytest.mark.parametrize(
    ("value", "fragment"),
    [
        ({3: ["fc1"]}, "the name of a group must be text, not the number 3"),
        ({"a": ["fc1", "fc9"]}, "partition.a[1]: 'fc9' matches no tensor"),
        ([["fc1"], ["fc1.bias"]], "'group1' takes it at partition[0][0]"),
        ({"a": {"fc1"}}, "group 'a' cannot be a Python set"),
        (3, "partition: 'partition' cannot be the number 3"),
    ],
)
def test_errors_in_python_objects_name_the_path(value: Any, fragment: str) -> None:
    with pytest.raises(SpecError) as caught:
        chain(2, value)
    assert fragment in str(caught.value)
    with pytest.raises(SpecError) as again:
        choose_partition(value, chain(2).layers)
    assert str(again.value) == str(caught.value)


def test_a_request_replaces_the_partition_of_the_spec() -> None:
    spec = chain(3, "trivial")
    assert apply_request(spec, Request()).partition == spec.partition
    assert apply_request(spec, Request(partition="canonical")) == chain(3)
    assert apply_request(spec, Request(partition=(("fc1",), ("fc2", "fc3")))) == chain(
        3, [["fc1"], ["fc2", "fc3"]]
    )


@st.composite
def assignments(draw: st.DrawFn) -> tuple[int, bool, dict[str, list[str]]]:
    """A number of layers, whether they have biases, and tensors by group, in any order."""
    count, bias = draw(st.integers(1, 6)), draw(st.booleans())
    tensors = draw(st.permutations(tensor_names(chain(count, bias=bias).layers)))
    numbers = draw(st.lists(st.integers(1, 5), min_size=len(tensors), max_size=len(tensors)))
    found: dict[str, list[str]] = {}
    for tensor, number in zip(tensors, numbers, strict=True):
        found.setdefault(f"part{number}", []).append(tensor)
    return count, bias, found


@given(assignments(), st.booleans())
def test_any_assignment_of_tensors_resolves_to_itself(
    case: tuple[int, bool, dict[str, list[str]]], listed: bool
) -> None:
    count, bias, assigned = case
    spec = chain(count, list(assigned.values()) if listed else assigned, bias)
    names = {f"group{k}": tensors for k, tensors in enumerate(assigned.values(), start=1)}
    expected = names if listed else assigned
    found = partition_of(spec)
    tensors = tensor_names(spec.layers)
    assert {name: set(members) for name, members in expected.items()} == {
        name: set(members) for name, members in zip(found.names, found.members, strict=True)
    }
    order = [tensors.index(members[0]) for members in found.members]
    assert order == sorted(order)
    assert all(list(members) == sorted(members, key=tensors.index) for members in found.members)
    assert sorted(found.position) == sorted(tensors)
    assert build_spec(spec_to_dict(spec)) == spec


@given(st.integers(1, 12), st.data())
def test_counted_words_are_partitions(count: int, data: st.DataObject) -> None:
    word = data.draw(st.sampled_from(["blocks", "alternate", "chunks"]))
    layers = count + (word != "chunks")
    number = data.draw(st.integers(1, count))
    found = partition_of(chain(layers, f"{word}-{number}"))
    assert sorted(name for members in found.members for name in members) == sorted(
        tensor_names(chain(layers).layers)
    )
    assert found.size == 2 * number + 2 * (word != "chunks")
    sizes = [len(m) for n, m in zip(found.names, found.members, strict=True) if "k" in n and "weights" in n]
    assert max(sizes) - min(sizes) <= 1 and sizes == sorted(sizes, reverse=True)
