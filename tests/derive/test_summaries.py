"""Summaries along a direction: derived systems and lowered programs against nested torch.func derivatives."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
from cases import CASES, marked
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from sampled import one_in
from strategies import specs
from summary_oracle import (
    WORDS,
    Derivatives,
    assert_near,
    derivatives,
    groups_of,
    pairs,
    partition_of_case,
    point_of,
    random_groups,
    rotated,
    spec_with,
    state_derivatives,
)
from summary_values import (
    FIELDS,
    Interpreted,
    SystemValues,
    agree,
    functions_of,
    plan_of,
    program_of,
    summary_of,
)

from sifrc.derive.derived import Derived
from sifrc.ir.traverse import postorder
from sifrc.lower.access import absolute, flat, loads_of, targets_of, unrolled
from sifrc.lower.lowering import Passes
from sifrc.lower.program import Function, Program
from sifrc.lower.statements import Fresh
from sifrc.methods.plan import Plan
from sifrc.model import build_model
from sifrc.model.partition import partition_of
from sifrc.spec import Spec
from sifrc.verify.points import Point, parameter_count

BATCH = 3
OTHERS = (*WORDS[1:], "random")
SMALL = sorted(name for name in CASES if parameter_count(spec_with(CASES[name])) <= 22)
"""For the discrete partition."""
RANDOM = settings(
    # To shrink an example would derive hundreds of networks.
    phases=(Phase.explicit, Phase.generate),
    deadline=None,
    derandomize=True,
    print_blob=True,
    suppress_health_check=list(HealthCheck),
)


@cache
def setting(name: str, word: str) -> tuple[Spec, Point, dict[str, list[str]], Derivatives]:
    """A case with a partition, its groups, a point and what is true there; nothing changes them."""
    found = partition_of_case(CASES[name], word)
    assert found is not None
    spec, groups = found
    point = point_of(spec, 3, BATCH)
    return spec, point, groups, derivatives(spec, point, groups)


@cache
def planned(name: str, word: str) -> Plan:
    """What every pass is given."""
    return plan_of(setting(name, word)[0])


def factor(spec: Spec) -> int:
    """B where the objective is a sum: systems and programs are of the mean."""
    return BATCH if spec.loss.reduction == "sum" else 1


def both_agree(spec: Spec, point: Point, groups: dict[str, list[str]]) -> None:
    """Systems and program, every order."""
    expected = derivatives(spec, point, groups)
    agree(SystemValues(spec, point, groups), expected, factor(spec))
    agree(Interpreted(spec, point), expected, factor(spec))


# ── the oracle ────────────────────────────────────────────────────────────────────────────────────────


def test_the_oracle_is_linear_in_the_parts_of_the_direction() -> None:
    """Order k is a k-linear form: sums over the single numbers of a group are the group's own."""
    data = CASES["output_tanh"]
    single, single_groups, point = spec_with(data), groups_of(spec_with(data), "discrete"), None
    point = point_of(single, 3, BATCH)
    assert single_groups is not None
    fine = derivatives(single, point, single_groups)
    groups = groups_of(single, "weights-biases")
    assert groups is not None
    coarse = derivatives(single, point, groups)
    member = np.array(
        [[float(own[0] in tensors) for own in single_groups.values()] for tensors in groups.values()]
    )
    assert_near(member @ fine.g, coarse.g, 1e-12)
    assert_near(member @ fine.H @ member.T, coarse.H, 1e-12)
    assert_near(np.einsum("ai,bj,ck,ijk->abc", member, member, member, fine.T), coarse.T, 1e-12)


def test_the_oracle_agrees_with_differences() -> None:
    """Along one group, the objective's differences."""
    spec, point, groups, expected = setting("skip", "weights-biases")
    step = 1e-2

    def objective(times: float) -> float:
        params = {
            name: value + times * point.vector[name] * (name in groups["weights"])
            for name, value in point.params.items()
        }
        return derivatives(
            spec, Point(params, point.inputs, point.targets, point.vector), {"none": []}
        ).objective

    f = {n: objective(n * step) for n in range(-3, 4)}
    first = (45 * (f[1] - f[-1]) - 9 * (f[2] - f[-2]) + f[3] - f[-3]) / (60 * step)
    second = (270 * (f[1] + f[-1]) - 27 * (f[2] + f[-2]) + 2 * (f[3] + f[-3]) - 490 * f[0]) / (180 * step**2)
    third = (-13 * (f[1] - f[-1]) + 8 * (f[2] - f[-2]) - (f[3] - f[-3])) / (8 * step**3)
    assert next(iter(groups)) == "weights"
    assert_near(first, expected.g[0], 1e-6)
    assert_near(second, expected.H[0, 0], 1e-6)
    assert_near(third, expected.D[0], 1e-3)


# ── derived systems ───────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", marked(CASES))
def test_systems_by_tensors(name: str) -> None:
    """Every tensor a group of its own."""
    spec, point, groups, expected = setting(name, "canonical")
    agree(SystemValues(spec, point, groups), expected, factor(spec))


@pytest.mark.slow
@pytest.mark.parametrize("name, word", pairs(CASES, OTHERS))
def test_systems_by_larger_groups(name: str, word: str) -> None:
    """Groups of tensors of several layers."""
    spec, point, groups, expected = setting(name, word)
    agree(SystemValues(spec, point, groups), expected, factor(spec))


@pytest.mark.parametrize("name", ["skip", "shared_skip", "skip_pre_activation", "tanh_cross_entropy_3"])
def test_tangents_are_derivatives_of_the_states(name: str) -> None:
    """ẋ_k and ẍ_k of every group; those that are not there are zero."""
    spec, point, groups, _ = setting(name, "weights-biases")
    values = SystemValues(spec, point, groups)
    found = values.after_systems(
        values.summaries.moves, values.summaries.tangent, values.summaries.second_tangent
    )
    states = state_derivatives(spec, point, groups)
    for c in values.model.constraints:
        layer = c.layers[-1]
        first, second = states[layer]
        assert_near(found["ẋ", c.index], first, 1e-12)
        assert_near(found.get(("ẍ", c.index), np.zeros_like(second)), second, 1e-12)


def test_the_sum_over_all_groups_is_the_trivial_partition() -> None:
    """Orders 1 to 3, in the systems themselves."""
    spec, point, groups, _ = setting("shared", "canonical")
    fine = SystemValues(spec, point, groups).whole()
    spec, point, groups, _ = setting("shared", "trivial")
    coarse = SystemValues(spec, point, groups).whole()
    for name, value in coarse.items():
        assert_near(fine[name].sum(keepdims=True), value, 1e-12)


# ── programs ──────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name, word", rotated(CASES, OTHERS)[::6])
def test_program(name: str, word: str) -> None:
    """The statements that backends print, one partition for each of some networks."""
    spec, point, _, expected = setting(name, word)
    program = Interpreted(spec, point)
    agree(program, expected, factor(spec))
    objective = program.order(1)["objective"].mean()
    assert_near(objective, np.array(expected.objective / factor(spec)), 1e-13)


@pytest.mark.slow
@pytest.mark.parametrize("name, word", pairs(CASES, ("canonical", *OTHERS)))
def test_program_with_every_partition(name: str, word: str) -> None:
    """All partitions with all networks."""
    spec, point, _, expected = setting(name, word)
    agree(Interpreted(spec, point), expected, factor(spec))


@pytest.mark.parametrize("name", SMALL[:4])
def test_single_numbers(name: str) -> None:
    """The discrete partition: gradient, Hessian and third derivatives, with the direction in them."""
    spec, point, groups, _ = setting(name, "discrete")
    assert partition_of(spec).discrete and len(groups) == parameter_count(spec)
    both_agree(spec, point, groups)


def test_there_are_small_networks_for_single_numbers() -> None:
    """With shared layers, skips or without biases among them."""
    assert len(SMALL) >= 4


@pytest.mark.parametrize("off", ["share", "structure", "fuse", "roll", "lifetimes"])
@pytest.mark.parametrize("name", one_in(2, ["shared_skip", "tanh_cross_entropy_4"]))
def test_program_without_a_pass(name: str, off: str) -> None:
    """No pass changes a value."""
    word = "alternate-2" if name.startswith("tanh") else "canonical"
    spec, point, _, expected = setting(name, word)
    agree(Interpreted(spec, point, Passes(**{off: False}), planned(name, word)), expected)


def test_batch_of_one_sample() -> None:
    """The mean over one."""
    for name in ("skip", "reduction_sum"):
        spec, _, groups, _ = setting(name, "weights-biases")
        point = point_of(spec, 8, 1)
        expected = derivatives(spec, point, groups)
        agree(SystemValues(spec, point, groups), expected)
        agree(Interpreted(spec, point), expected)


def test_a_direction_of_zeros_gives_zeros() -> None:
    """Nothing is left of earlier groups or of the state regularisation."""
    spec, point, _, _ = setting("skip", "canonical")
    still = {name: np.zeros_like(value) for name, value in point.vector.items()}
    found = Interpreted(spec, Point(point.params, point.inputs, point.targets, still))
    for values in (found.order(3), found.whole()):
        assert all(not value.any() for name, value in values.items() if name != "objective")


@pytest.mark.parametrize("word", [pytest.param("canonical", marks=pytest.mark.slow), "weights-biases"])
def test_factors_of_nested_functions_stay_shared(word: str) -> None:
    """Multiplied out, the third derivative of this loss has hundreds of products of some ten factors each."""
    case = {
        **CASES["tanh_cross_entropy_2"],
        "name": "nested",
        "loss": {"expression": "-log(dot(t, softmax(y/sqrt(1 + dot(y, y)))))", "targets": "classes"},
    }
    spec = spec_with(case, word)
    groups = groups_of(spec, word)
    assert groups is not None
    both_agree(spec, point_of(spec, 3, BATCH), groups)
    for system in Derived(build_model(spec)).summaries.whole():
        for equation in system.equations:
            assert sum(1 for node in postorder(equation.value) for _ in node.children()) < 600


def random_network(data: dict[str, Any], seed: int) -> None:
    """Systems and program of a random graph with a random partition."""
    groups = random_groups(spec_with(data), seed)
    spec = spec_with(data, groups)
    both_agree(spec, point_of(spec, seed, BATCH), groups)


@given(data=specs(), seed=st.integers(0, 2**16))
@settings(RANDOM, max_examples=3)
def test_random_network(data: dict[str, Any], seed: int) -> None:
    """Skips, shared layers, activations and losses of the user's own among them."""
    random_network(data, seed)


@pytest.mark.slow
@given(data=specs(), seed=st.integers(0, 2**16))
@settings(RANDOM, max_examples=150)
def test_many_random_networks(data: dict[str, Any], seed: int) -> None:
    """The same on many more."""
    random_network(data, seed)


# ── what is stored ────────────────────────────────────────────────────────────────────────────────────


def test_a_groups_tangent_begins_at_its_own_layer() -> None:
    """Arrays of early layers hold few groups: that is the point of windows."""
    program = program_of(spec_with(CASES["tanh_cross_entropy_4"]))
    held = {k: shape[0] for k, shape in program.family("ẋ").shapes}
    assert held == {1: 2, 2: 4, 3: 6, 4: 8}
    first = {k: shape[:2] for k, shape in program.family("H̿∑").shapes}
    assert first[1] == (2, 2)


FEW = rotated(sorted(CASES), ("canonical", "alternate-2", "trivial"))[::10]


def runs_of(program: Program) -> list[list[Function]]:
    """What runs for each case, as ``operator_places`` counts it."""
    operator = summary_of(program)
    return [
        [program.function(f, True) for f in (*operator.prepare, "gradient", *case.functions)]
        for case in operator.cases
    ]


@pytest.mark.parametrize("name, word", FEW)
def test_a_place_of_a_summary_holds_one_array_at_a_time(name: str, word: str) -> None:
    """What is read was written last to its place; results and objective are there at the end."""
    found = partition_of_case(CASES[name], word)
    assert found is not None
    program = program_of(found[0])
    shapes = {(f.name, index): shape for f in program.families for index, shape in f.shapes}
    for places, functions in zip(program.operator_places["summary"], runs_of(program), strict=True):
        at = {member: number for number, place in enumerate(places) for member in place.members}
        assert len(at) == sum(len(place.members) for place in places)
        assert not {family for family, _ in at} & set(program.function("gradient", True).writes)
        assert all(len({shapes[member] for member in place.members}) == 1 for place in places)
        holds: dict[int, Any] = {}
        for statement, k in (item for function in functions for item in unrolled(function.body)):
            for load in loads_of(statement):
                member = absolute(load.ref, k)
                assert member not in at or holds.setdefault(at[member], member) == member
            for load in targets_of(statement):
                member = absolute(load.ref, k)
                if member in at:
                    holds[at[member]] = member
        results = {(family, None) for family in ("objective", *FIELDS)}
        assert at.keys() >= {("ḡ", None), ("objective", None)}
        for member in results & at.keys() & set(holds.values()):
            assert holds[at[member]] == member


def test_places_begin_before_the_first_touch_and_end_after_the_last() -> None:
    """Positions of statements by hand: a place lives from the first to the last statement that touches it."""
    program = program_of(spec_with(CASES["shared_skip"]))
    for places, functions in zip(program.operator_places["summary"], runs_of(program), strict=True):
        touched: dict[Any, list[int]] = {}
        statements = [item for function in functions for item in unrolled(function.body)]
        for position, (statement, k) in enumerate(statements):
            for load in (*loads_of(statement), *targets_of(statement)):
                touched.setdefault(absolute(load.ref, k), []).append(position)
        for place in places:
            for member in place.members:
                assert place.first <= min(touched[member]) <= max(touched[member]) <= place.last
                # Results are there to the end, for the caller.
                assert member not in {(f, None) for f in FIELDS} or place.last == len(statements)


def test_windows_are_filled_before_they_are_added_to() -> None:
    """Zeros are written only where windows leave entries out."""
    program = program_of(spec_with(CASES["tanh_cross_entropy_3"]))
    fresh = [
        statement
        for order in (1, 2, 3)
        for name in functions_of(program, order)
        for statement in flat(program.function(name, True).body)
        if isinstance(statement, Fresh)
    ]
    assert fresh and {s.zeros for s in fresh if s.target.ref.family == "ẋ"} <= {False}
