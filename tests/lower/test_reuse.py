"""Products that are written to the arrays that they end in: no value changes, and one array holds one.

The interpreter gives every product an array of its own; Numba modules (JIT off) share them.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numba
import numpy as np
import pytest
import sympy
from cases import CASES, ONE_AXIS
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from strategies import specs

from sifrc.backends.numba_common import storage
from sifrc.cache import entry_name, module_from_cache
from sifrc.catalogue.registry import BLOCK_OPERATORS
from sifrc.compiler import Request, compile_spec
from sifrc.errors import DerivationError
from sifrc.ir.arithmetic import NUMPY
from sifrc.ir.quantity import Storage
from sifrc.lower.arrays import Family, Load, Ref, Subscript
from sifrc.lower.lowering import lower
from sifrc.lower.program import Function, Program
from sifrc.lower.reuse import aliases
from sifrc.lower.statements import Assign, Contract, Kernel, Loop
from sifrc.methods.planning import make_plan
from sifrc.model import build_model
from sifrc.spec import Spec, build_spec
from sifrc.verify.points import Point, random_point
from sifrc.verify.subjects.program import RunningProgram

RANDOM = settings(
    phases=(Phase.explicit, Phase.generate),
    deadline=None,
    derandomize=True,
    print_blob=True,
    suppress_health_check=list(HealthCheck),
)
KINDS = ["hessian", "pch1", "kfra", "fisher"]
OPERATORS = ("curvature_factors", "block_vector_product", "gradient_and_factors")
NAMES = ("skip", "skip_pre_activation", "output_softplus", "spectral_smooth", "mixed_loss")


def numba_module(spec: Spec, patch: pytest.MonkeyPatch) -> Any:
    """The module as Python."""
    patch.setattr(numba.config, "DISABLE_JIT", 1)
    text = compile_spec(spec, Request(backend="numba", method="none")).text
    return module_from_cache(entry_name("reuse", {"text": text}), lambda: text, None)


def called(made: Any, point: Point, name: str, kind: str, **choices: Any) -> dict[str, Any]:
    """Results by name; pairs as ``layer.moment`` and ``layer.block``."""
    given: list[Any] = [dict(point.params), point.inputs, point.targets]
    if name == "block_vector_product":
        given.append(dict(point.vector))
    results = getattr(made, name)(*given, kind=kind, **choices)
    parts = results if isinstance(results, tuple) and not hasattr(results, "_fields") else (results,)
    found: dict[str, Any] = {}
    for part in parts:
        for key, value in part.items():
            if hasattr(value, "_fields"):
                found[f"{key}.moment"], found[f"{key}.block"] = value
            else:
                found[key] = value
    return found


def agree(spec: Spec, seed: int, patch: pytest.MonkeyPatch) -> int:
    """The module and the interpreter agree on every operator and kind; how many families share."""
    point = random_point(spec, seed, 3)
    made = numba_module(spec, patch)
    targets = point.targets
    if spec.loss.targets == "classes":
        targets = np.eye(spec.layers[-1].size)[point.targets]
    model = build_model(spec)
    program = lower(make_plan(model).plan)
    batch = RunningProgram(model, program, point.params, point.inputs, targets, NUMPY)
    batch.give_direction(point.vector, None)
    scale = len(point.inputs) if spec.loss.reduction == "sum" else 1
    for kind in made._KINDS:
        for name, choices in (
            ("curvature_factors", {"moment": "second"}),
            ("curvature_factors", {"moment": "mean"}),
            ("gradient_and_factors", {"moment": "second"}),
            ("block_vector_product", {"moment": None}),
        ):
            found = called(made, point, name, kind, **choices)
            for key, value in batch.call(name, kind, **choices).items():
                factor = 1 if key.endswith(".moment") else scale
                expected = factor * np.asarray(value)
                bound = 1e-10 * max(1.0, float(np.abs(expected).max(initial=0.0)))
                assert float(np.abs(found[key] - expected).max(initial=0.0)) <= bound, (kind, name, key)
    return len(aliases(program))


def own_parameters(data: Mapping[str, Any]) -> dict[str, Any]:
    """The network without shared weights."""
    units = {layer["name"]: layer["units"] for layer in data["network"]["layers"] if "units" in layer}
    layers = [
        {**{k: v for k, v in layer.items() if k != "share"}, "units": units[layer["share"]]}
        if "share" in layer
        else layer
        for layer in data["network"]["layers"]
    ]
    return {**data, "network": {**data["network"], "layers": layers}}


def spec_of(data: Mapping[str, Any]) -> Spec:
    """With all kinds, or without the Fisher matrix where the loss has none."""
    whole = {**own_parameters(data), "target": {"operators": list(OPERATORS)}}
    spec = build_spec({**whole, "curvature": KINDS})
    try:
        make_plan(build_model(spec))
    except DerivationError as error:
        assert "fisher" in str(error)
        spec = build_spec({**whole, "curvature": KINDS[:-1]})
    return spec


@pytest.mark.parametrize("name", NAMES)
def test_modules_that_share_arrays_agree_with_the_interpreter(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Named networks; products do share arrays in them."""
    assert agree(spec_of(CASES[name]), 3, monkeypatch) > 0


def check_random(data: dict[str, Any], seed: int) -> None:
    try:
        spec = spec_of(data)
        make_plan(build_model(spec))
    except DerivationError as error:
        assert "residual" in str(error)  # EA-CG(8b) needs a diagonal one
        return
    with pytest.MonkeyPatch.context() as patch:
        agree(spec, seed, patch)


@given(data=specs(), seed=st.integers(0, 2**16))
@settings(RANDOM, max_examples=3)
def test_random_networks(data: dict[str, Any], seed: int) -> None:
    check_random(data, seed)


@pytest.mark.slow
@given(data=specs(), seed=st.integers(0, 2**16))
@settings(RANDOM, max_examples=60)
def test_many_random_networks(data: dict[str, Any], seed: int) -> None:
    check_random(data, seed)


@functools.cache
def stepped(solver: str, share: bool) -> tuple[str, dict[str, Any], int]:
    """A module's text, parameters after three steps, and its number of arrays."""
    data = {**CASES["skip"], "method": {"name": "ea_cg", "solver": solver, "kind": "pch1", "decay": 0.5}}
    spec = build_spec(data)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(numba.config, "DISABLE_JIT", 1)
        if not share:
            patch.setattr(storage, "aliases", lambda program: {})
        text = compile_spec(spec, Request(backend="numba")).text
        made = module_from_cache(entry_name("reuse_step", {"text": text}), lambda: text, None)
    point = random_point(spec, 1, 6)
    params = {key: value.copy() for key, value in point.params.items()}
    state = made.State(params, lr=0.1)
    for _ in range(3):
        made.step(params, state, point.inputs, point.targets)
    return text, params, len(made._WORK)


@pytest.mark.parametrize("solver", ["ea_cg", "cg", "kfi", "exact"])
def test_steps_are_to_the_bit_those_with_arrays_of_their_own(solver: str) -> None:
    """The same operations in the same order; fewer arrays."""
    shared, plain = stepped(solver, True), stepped(solver, False)
    assert shared[0] != plain[0] and shared[2] < plain[2]
    np.testing.assert_equal(shared[1], plain[1])


OTHERS = [pytest.param(name, marks=pytest.mark.slow) for name in sorted(ONE_AXIS) if name not in NAMES]


@pytest.mark.parametrize("name", [*NAMES, *OTHERS])
def test_one_array_has_at_most_one_product(name: str) -> None:
    """Over all named networks: products go to arrays of equal shapes that hold nothing else."""
    program = lower(make_plan(build_model(spec_of(CASES[name]))).plan)
    chosen = aliases(program)
    taken: Counter[tuple[str, int | None]] = Counter()
    for product, owner in chosen.items():
        assert program.family(product).part_of and not program.family(owner).part_of and owner not in chosen
        own, shapes = dict(program.family(product).shapes), dict(program.family(owner).shapes)
        assert program.family(owner).storage in (Storage.WORK, Storage.RESULT)
        for index, shape in own.items():
            assert shapes[index] == shape
            taken[owner, index] += 1
    assert set(taken.values()) <= {1}


# -- programs written by hand

X, Y = sympy.symbols("x y", real=True)


def load(family: str, index: int = 1, labels: tuple[str, ...] = ("i", "j")) -> Load:
    return Load(Ref(family, Subscript(index)), labels)


def product(target: str, left: str = "A", right: str = "B") -> Contract:
    return Contract(
        load(target), load(left, labels=("i", "l")), load(right, labels=("l", "j")), sympy.Integer(1)
    )


def kernel(target: str, value: Any, **loads: Load) -> Kernel:
    return Kernel(("i", "j"), (Assign(load(target), value),), tuple(loads.items()))


def program(*body: Any, storage_of_x: Storage = Storage.WORK, shape: tuple[int, ...] = (3, 3)) -> Program:
    families = [
        Family("A", "a", Storage.DATA, ((1, (3, 3)),), ""),
        Family("B", "b", Storage.DATA, ((1, (3, 3)),), ""),
        Family("X", "x", storage_of_x, ((1, shape),), ""),
        Family("Y", "y", Storage.WORK, ((1, (3, 3)),), ""),
        Family("X~1", "x1", Storage.WORK, ((1, (3, 3)),), "", "X"),
        Family("X~2", "x2", Storage.WORK, ((1, (3, 3)),), "", "X"),
    ]
    function = Function("f", "", (), False, ("A", "B"), ("X", "Y"), tuple(body))
    return Program(tuple(families), (function,), ())


USE = kernel("X", X + 1, x=load("X~1"))


def test_a_product_that_is_read_once_lies_in_its_destination() -> None:
    assert aliases(program(product("X~1"), USE)) == {"X~1": "X"}


def test_two_products_on_the_way_to_one_array_do_not_share_it() -> None:
    """x = p q, entry by entry: the second would overwrite the first."""
    both = kernel("X", X * Y, x=load("X~1"), y=load("X~2"))
    chosen = aliases(program(product("X~1"), product("X~2", "B", "A"), both))
    assert list(chosen.values()) == ["X"] and len(chosen) == 1


def test_two_products_in_turn_do_not_share_their_destination_either() -> None:
    """What one kernel adds to the other is in the array already."""
    second = kernel("X", X + Y, x=load("X"), y=load("X~2"))
    chosen = aliases(program(product("X~1"), USE, product("X~2"), second))
    assert "X~2" not in chosen


NOT: dict[str, Program] = {
    "read twice": program(product("X~1"), USE, kernel("Y", X, x=load("X~1"))),
    "never read": program(product("X~1")),
    "transposed": program(product("X~1"), kernel("X", X, x=load("X~1", labels=("j", "i")))),
    "the destination is read before": program(
        kernel("X", X, x=load("A")), product("X~1"), kernel("Y", X, x=load("X")), USE
    ),
    "the product reads the destination": program(kernel("X", X, x=load("A")), product("X~1", "X"), USE),
    "written in between": program(product("X~1"), kernel("X", X, x=load("A")), USE),
    "the kernel reads the destination": program(
        kernel("X", X, x=load("A")), product("X~1"), kernel("X", X + Y, x=load("X~1"), y=load("X"))
    ),
    "not a product": program(kernel("X~1", X, x=load("A")), USE),
    "read by another product": program(product("X~1"), product("X", "X~1")),
    "a parameter": program(product("X~1"), USE, storage_of_x=Storage.PARAMETER),
    "memory": program(product("X~1"), USE, storage_of_x=Storage.MEMORY),
    "data": program(product("X~1"), USE, storage_of_x=Storage.DATA),
    "another shape": program(product("X~1"), USE, shape=(4, 4)),
    "used by two assignments": program(
        product("X~1"),
        Kernel(("i", "j"), (Assign(load("X"), X + 1), Assign(load("Y"), X * 2)), (("x", load("X~1")),)),
    ),
    "written twice": program(product("X~1"), product("X~1", "B", "A"), USE, kernel("Y", X, x=load("X~1"))),
}


@pytest.mark.parametrize("name", NOT)
def test_what_needs_an_array_of_its_own_has_one(name: str) -> None:
    assert aliases(NOT[name]) == {}


def test_a_product_that_is_written_twice_needs_its_array() -> None:
    """Two destinations, each with one place for it: one family, so one array by subscript."""
    first, second = USE, kernel("Y", X, x=load("X~2"))
    assert aliases(program(product("X~1"), first, product("X~2"), second)) == {"X~1": "X", "X~2": "Y"}


def test_the_operators_of_this_file_exist() -> None:
    assert set(OPERATORS) <= set(BLOCK_OPERATORS)


def test_all_rounds_of_a_loop_count() -> None:
    """A product that is read again after the last round needs arrays of its own."""

    def at(family: str, offset: int, *labels: str) -> Load:
        return Load(Ref(family, Subscript(offset, True)), labels or ("i", "j"))

    shapes = ((1, (3, 3)), (2, (3, 3)))
    families = [
        Family("A", "a", Storage.DATA, shapes, ""),
        Family("X", "x", Storage.WORK, shapes, ""),
        Family("Y", "y", Storage.WORK, ((1, (3, 3)),), ""),
        Family("X~1", "x1", Storage.WORK, shapes, "", "X"),
    ]
    one = sympy.Integer(1)
    rounds = (
        Contract(at("X~1", 0), at("A", 0, "i", "l"), at("A", 0, "l", "j"), one),
        Kernel(("i", "j"), (Assign(at("X", 0), X + 1),), (("x", at("X~1", 0)),)),
    )
    again = kernel("Y", X, x=load("X~1", 2))
    for rest, expected in (((), {"X~1": "X"}), ((again,), {})):
        body = (Loop(1, 3, 1, rounds), *rest)
        function = Function("f", "", (), False, ("A",), ("X", "Y"), body)
        assert aliases(Program(tuple(families), (function,), ())) == expected
