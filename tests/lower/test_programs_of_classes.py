"""Classes in programs are integers: the same values as with vectors, and what no program may make of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest

from sifrc.ir.arithmetic import NUMPY
from sifrc.lower.access import flat
from sifrc.lower.arrays import Counted, Load, OneHot, Take
from sifrc.lower.lowering import Passes, lower
from sifrc.lower.program import Program
from sifrc.lower.statements import Contract, Kernel, Loop, Put, Statement, Sum
from sifrc.lower.validate import ProgramError, validate
from sifrc.methods.planning import make_plan
from sifrc.model import Model, build_model
from sifrc.spec import build_spec
from sifrc.verify.subjects.program import RunningProgram

CLASSES, PLACES, BATCH = 6, 3, 4
OPERATORS = ("gradient", "hessian_vector_product", "gauss_newton_vector_product", "summary")
EMBEDDING = {"name": "wte", "type": "embedding", "units": 4}
HIDDEN = {"name": "h", "type": "dense", "units": 4, "activation": "tanh"}
TIED = [EMBEDDING, HIDDEN, {"name": "o", "type": "dense", "share": "wte"}]
CASES: dict[str, dict[str, Any]] = {
    "tied": {"layers": TIED},
    "left out and smoothed": {"layers": TIED, "loss": {"ignore_index": -1, "label_smoothing": 0.1}},
    "squares": {
        "layers": TIED,
        "loss": {"function": "squared_error", "targets": "classes"},
    },
    "recurrent": {
        "layers": [
            EMBEDDING,
            {"name": "h", "type": "gru", "units": 3},
            {**HIDDEN, "name": "o", "units": CLASSES},
        ]
    },
    "two inputs": {
        "inputs": ["tokens", "others"],
        "layers": [
            {**EMBEDDING, "inputs": "tokens"},
            {"name": "second", "type": "embedding", "share": "wte", "inputs": "others"},
            {"name": "both", "type": "multiply", "inputs": ["wte", "second"]},
            {**HIDDEN, "name": "o", "units": CLASSES},
        ],
    },
}


@cache
def lowered(case: str, indices: bool) -> tuple[Model, Program]:
    """The program of a case, with classes as integers or as vectors."""
    chosen = CASES[case]
    inputs = [{"name": name, "size": PLACES, "classes": CLASSES} for name in chosen.get("inputs", ["tokens"])]
    network = {"inputs": inputs, "layers": chosen["layers"]}
    if len(inputs) == 1:
        network = {"input": inputs[0], "layers": chosen["layers"]}
    data = {"sifrc": 1, "name": "classes", "network": network, "target": {"operators": list(OPERATORS)}}
    loss = {"function": "cross_entropy", **chosen.get("loss", {})}
    model = build_model(build_spec(data | {"loss": loss}))
    return model, lower(make_plan(model).plan, Passes(validate=True), indices=indices)


def statements(program: Program) -> Iterator[Statement]:
    """All of them."""
    return (statement for function in program.functions for statement in flat(function.body))


def running(case: str, indices: bool) -> RunningProgram:
    """The program at a random batch."""
    model, program = lowered(case, indices)
    generator = np.random.default_rng(0)
    count = len(CASES[case].get("inputs", ["tokens"]))
    tokens = generator.integers(CLASSES, size=(BATCH, count * PLACES)).astype(float)
    targets = np.eye(CLASSES)[generator.integers(CLASSES, size=(BATCH, PLACES))]
    targets[0, 1] *= "left out" not in case
    params, vector = (
        {t.name: generator.normal(size=[axis.size for axis in t.symbol.axes]) for t in model.tensors}
        for _ in range(2)
    )
    found = RunningProgram(model, program, params, tokens, targets.reshape(BATCH, -1), NUMPY)
    found.give_direction(vector, None)
    return found


@pytest.mark.parametrize("case", CASES)
def test_integers_and_vectors_give_the_same(case: str) -> None:
    """All operators, in all their cases."""
    first, second = (running(case, indices) for indices in (True, False))
    compared = 0
    for operator in first.program.operators:
        for kind, _ in operator.starts():
            for one in operator.fitting(kind):
                pairs = zip(first.run(operator, one, kind), second.run(operator, one, kind), strict=True)
                for (_, found), (_, expected) in pairs:
                    for name, value in expected.items():
                        np.testing.assert_allclose(found[name], value, rtol=1e-12, atol=1e-13)
                        compared += 1
    assert compared > 20


def test_an_embedding_is_read_and_its_gradient_scattered() -> None:
    """No product is made with the vectors of the input."""
    _, program = lowered("tied", True)
    assert program.family("x").classes == {0} and program.family("t").classes == {None}
    assert dict(program.family("x").shapes)[0] == dict(program.family("t").shapes)[None] == (None, PLACES)
    changes: dict[tuple[str, str], set[str]] = {}
    for statement in statements(program):
        if isinstance(statement, Kernel | Sum):
            for _, load in statement.loads:
                kinds = {type(change).__name__ for change in load.changes}
                changes.setdefault((type(statement).__name__, load.ref.family), set()).update(kinds)
    assert changes["Kernel", "W"] == changes["Kernel", "N"] == {"Take"}
    # The targets are compared in the adjoint of the output alone.
    assert changes["Kernel", "t"] == {"OneHot"} and ("Sum", "t") not in changes and ("Kernel", "x") in changes
    assert "OneHot" not in changes["Kernel", "x"]
    scattered = [statement for statement in statements(program) if isinstance(statement, Put)]
    assert scattered and all(s.classes.ref.family == "x" for s in scattered)


def test_what_a_backend_without_them_gets() -> None:
    """Vectors, as any other array."""
    _, program = lowered("tied", False)
    assert not any(family.classes for family in program.families)
    assert dict(program.family("x").shapes)[0] == (None, PLACES, CLASSES)
    assert not any(isinstance(statement, Put) for statement in statements(program))


def broken(change: Any) -> Program:
    """The program with some statements changed."""
    _, program = lowered("left out and smoothed", True)

    def whole(item: Statement | Loop) -> Statement | Loop:
        if isinstance(item, Loop):
            return replace(item, body=tuple(change(each) for each in item.body))
        return change(item)  # type: ignore[no-any-return]

    functions = tuple(replace(f, body=tuple(map(whole, f.body))) for f in program.functions)
    return replace(program, functions=functions)


def _without(kind: type) -> Any:
    """A change of kernels: arrays are read without a change of a kind."""

    def changed(statement: Statement) -> Statement:
        if not isinstance(statement, Kernel):
            return statement
        loads = tuple(
            (name, replace(load, changes=tuple(c for c in load.changes if not isinstance(c, kind))))
            for name, load in statement.loads
        )
        return replace(statement, loads=loads)

    return changed


def _of_takes(**new: Any) -> Any:
    def changed(statement: Statement) -> Statement:
        if not isinstance(statement, Kernel):
            return statement
        loads = tuple(
            (
                n,
                replace(
                    load, changes=tuple(replace(c, **new) if isinstance(c, Take) else c for c in load.changes)
                ),
            )
            for n, load in statement.loads
        )
        return replace(statement, loads=loads)

    return changed


def _put(**new: Any) -> Any:
    return lambda s: replace(s, **{k: make(s) for k, make in new.items()}) if isinstance(s, Put) else s


def _contract(statement: Statement) -> Statement:
    if not isinstance(statement, Contract):
        return statement
    return replace(statement, left=replace(statement.left, changes=(OneHot(CLASSES),)))


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (_without(OneHot), "dimensions and the labels"),
        (_without(Counted), "classes t are read as numbers"),
        (_without(Take), "dimensions and the labels|label"),
        (_of_takes(sizes=(None, PLACES + 1)), r"classes of \w+ are \(None, 3\), not \(None, 4\)|label"),
        (_contract, "dimensions and the labels|read as numbers"),
        (_put(classes=lambda s: s.operand), "a place of the classes|has no classes"),
        (_put(at=lambda s: s.operand.labels[0]), "is no label of the target|in an operand"),
        (_put(operand=lambda s: Load(s.operand.ref, s.operand.labels[:1])), "dimensions and the labels"),
    ],
)
def test_what_is_no_program(change: Any, text: str) -> None:
    """Integers are never read as numbers, and places of classes and arrays agree."""
    with pytest.raises(ProgramError, match=text):
        validate(broken(change))
