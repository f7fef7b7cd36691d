"""Tangents about their mean of states that a softmax reads: which are, what follows, and that it is right."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from summary_oracle import derivatives, groups_of, point_of, spec_with
from summary_values import Interpreted, SystemValues, agree

from sifrc.derive.centring import centred_states
from sifrc.derive.derived import Derived
from sifrc.ir.traverse import inputs_of
from sifrc.model import build_model
from sifrc.spec import Spec

DENSE = {"type": "dense", "units": 3}


def spec_of(*layers: dict[str, Any], size: Any = 3, loss: Any = "squared_error", state: Any = "none") -> Spec:
    """A network of some layers, each tensor a group."""
    whole = {"input": {"name": "image", "size": size}, "layers": list(layers)}
    data = {"sifrc": 1, "name": "centred", "loss": loss, "dtype": "float64", "network": whole}
    return spec_with(data | {"regularization": {"state": state}})


def attention(**keys: Any) -> dict[str, Any]:
    return {"name": "attn", "type": "attention", "heads": 2, **keys}


ENDS = ({"name": "flat", "type": "flatten"}, {"name": "out", **DENSE})
NETWORKS = {
    "between layers": spec_of(
        {"name": "fc1", **DENSE}, {"name": "p", "type": "softmax"}, {"name": "fc2", **DENSE}
    ),
    "with a softmax in the loss": spec_of(
        {"name": "fc1", **DENSE}, {"name": "p", "type": "softmax"}, {"name": "fc2", **DENSE},
        loss="cross_entropy",
    ),
    "a state that others read too": spec_of(
        {"name": "fc1", **DENSE, "activation": "tanh"}, {"name": "p", "type": "softmax"},
        {"name": "both", "type": "add", "inputs": ["fc1", "p"]}, {"name": "fc2", **DENSE},
    ),
    "a state whose adjoint reads it elsewhere": spec_of(
        {"name": "fc1", **DENSE, "activation": "tanh"}, {"name": "p", "type": "softmax"},
        {"name": "square", "type": "entrywise", "inputs": ["fc1", "image"], "expression": "x1*x1*x2"},
        {"name": "both", "type": "add", "inputs": ["square", "p"]}, {"name": "fc2", **DENSE},
    ),
    "of a softmax": spec_of(
        {"name": "fc1", **DENSE}, {"name": "p", "type": "softmax"}, {"name": "q", "type": "softmax"},
        {"name": "fc2", **DENSE},
    ),
    "along an axis": spec_of(
        {"name": "fc1", **DENSE}, {"name": "p", "type": "softmax", "axis": 1}, *ENDS, size=[2, 3]
    ),
    "of a regularised state": spec_of(
        {"name": "fc1", **DENSE}, {"name": "p", "type": "softmax"}, {"name": "fc2", **DENSE}, state=0.1
    ),
    "attention": spec_of(attention(), *ENDS, size=[3, 4]),
    "causal attention": spec_of(attention(causal=True), *ENDS, size=[3, 4], loss="cross_entropy"),
}  # fmt: skip


@pytest.mark.parametrize("name", NETWORKS)
def test_summaries(name: str) -> None:
    """Derived systems and the lowered program, all orders, against nested automatic differentiation."""
    spec = NETWORKS[name]
    groups = groups_of(spec, "canonical")
    assert groups is not None
    point = point_of(spec, 4, 2)
    expected = derivatives(spec, point, groups)
    assert np.abs(expected.T).max() > 1e-6  # something to get wrong
    agree(SystemValues(spec, point, groups), expected)
    agree(Interpreted(spec, point), expected)


def test_what_is_centred() -> None:
    """The states that a softmax reads, and the output where the loss has one."""
    found = {
        name: [c.constraint.index for c in centred_states(build_model(s))] for name, s in NETWORKS.items()
    }
    assert found["between layers"] == [1]
    assert found["with a softmax in the loss"] == [1, 3]
    assert found["of a softmax"] == [1, 2]
    assert len(found["attention"]) == 1 and len(found["causal attention"]) == 2


def test_the_tangent_of_a_softmax_is_one_product() -> None:
    """ẋ = p ∘ ċ, and the second derivatives are those of pairs of ċ at the adjoint of the state."""
    summaries = Derived(build_model(NETWORKS["between layers"])).summaries
    tangent = next(e.value for e in summaries.tangent.equations if e.symbol.index == 2)
    assert [symbol.family for symbol in inputs_of(tangent)].count("ċ") == 1
    assert not any(symbol.family == "ẋ" for symbol in inputs_of(tangent))
    hessian = next(e.value for e in summaries.hessian.equations if e.symbol.index == 2)
    read = {(symbol.family, symbol.index) for symbol in inputs_of(hessian)}
    assert read == {("b", 1), ("ċ", 1)}


def test_another_reader_keeps_the_tangent_as_it_is() -> None:
    """What reads a state elsewhere moves along ẋ; its part of the adjoint is taken off."""
    summaries = Derived(build_model(NETWORKS["a state that others read too"])).summaries
    sums = [e for e in summaries.tangent.equations if e.symbol.index == 3]
    assert {s.family for s in inputs_of(sums[0].value)} == {"ẋ"}
    hessian = next(e.value for e in summaries.hessian.equations if e.symbol.index == 2)
    read = {(symbol.family, symbol.index) for symbol in inputs_of(hessian)}
    assert {("b", 1), ("b", 3), ("ċ", 1)} <= read and ("ẋ", 1) not in read
