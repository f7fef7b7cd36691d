"""Epochs of ``ea_cg`` in Numba modules: batches, resumed states, and the compiled code."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
from newton_blocks import module, network, point_of, start

METHODS: dict[str, dict[str, Any]] = {
    "ea_cg": {"solver": "ea_cg", "period": 3},
    "cg averaged": {"solver": "cg", "decay": 0.5, "period": 2},
    "kfi": {"solver": "kfi", "kind": "fisher"},
    "exact": {"solver": "exact", "kind": "hessian", "alpha": 0.5},
    "sampled": {"solver": "ea_cg", "kind": "sampled_fisher", "period": 2},
}
# Integers that wrap are silent in compiled code only.
pytestmark = pytest.mark.filterwarnings("ignore:overflow")


def build(name: str, jit: bool = False) -> tuple[Any, Any]:
    spec_data = network(METHODS[name], sizes=(5, 4, 4, 3))
    return module(spec_data, "numba", jit=jit), point_of(spec_data, batch=23)[1]


@pytest.mark.parametrize("name", METHODS)
def test_an_epoch_is_its_steps_and_the_last_batch_takes_what_is_left(name: str) -> None:
    made, point = build(name)
    order = np.random.default_rng(0).permutation(23)
    params, parts = start(point), start(point)
    state, other = made.State(params), made.State(parts)
    mean = made.train_epoch(params, state, point.inputs, point.targets, order, batch=5)
    total = 0.0
    for first in range(0, 23, 5):
        chosen = order[first : first + 5]
        total += len(chosen) * made.step(parts, other, point.inputs[chosen], point.targets[chosen])
    np.testing.assert_equal(params, parts)
    assert mean == pytest.approx(total / 23, rel=1e-13)
    assert state.steps == other.steps == 5
    np.testing.assert_equal(state.state_dict(), other.state_dict())


@pytest.mark.parametrize("name", METHODS)
def test_a_resumed_state_goes_on_to_the_same_bits(name: str) -> None:
    """In the middle of a period, after a refresh."""
    made, point = build(name)
    params = start(point)
    state = made.State(params, lr=0.02)
    made.refresh(params, state, point.inputs[:7], point.targets[:7])
    made.train_epoch(params, state, point.inputs, point.targets, np.arange(8), batch=2)
    saved, copied = copy.deepcopy(state.state_dict()), copy.deepcopy(params)
    again = made.State(copied)
    again.load_state_dict(saved)
    for one, own in ((state, params), (again, copied)):
        made.train_epoch(own, one, point.inputs, point.targets, np.arange(8, 20), batch=3)
    np.testing.assert_equal(params, copied)
    np.testing.assert_equal(state.state_dict(), again.state_dict())
    assert again.lr == 0.02


def test_a_refused_batch_keeps_the_steps_before_it() -> None:
    """Parameters and state are those after the batches before; the batch is named."""
    made, point = build("ea_cg")
    params, reference = start(point), start(point)
    state, other = made.State(params), made.State(reference)
    inputs = point.inputs.copy()
    inputs[13, 2] = np.nan
    with pytest.raises(FloatingPointError, match="batch that begins with sample 12"):
        made.train_epoch(params, state, inputs, point.targets, np.arange(20), batch=4)
    made.train_epoch(reference, other, point.inputs, point.targets, np.arange(12), batch=4)
    np.testing.assert_equal(params, reference)
    np.testing.assert_equal(state.state_dict(), other.state_dict())


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [name for name in METHODS if name != "ea_cg"]
)  # "sampled" compiles all of it
def test_a_compiled_epoch_is_that_of_plain_python(name: str) -> None:
    """Sums may be reordered by the compiler, so agreement is to rounding; a refresh and reports too."""
    results = []
    for jit in (False, True):
        made, point = build(name, jit)
        params = start(point)
        state = made.State(params)
        made.train_epoch(params, state, point.inputs, point.targets, np.arange(23), batch=5)
        made.refresh(params, state, point.inputs[:9], point.targets[:9])
        value = made.train_epoch(params, state, point.inputs, point.targets, np.arange(22, -1, -1), batch=4)
        results.append((value, params, state.state_dict()))
    assert results[1][0] == pytest.approx(results[0][0], rel=1e-10)
    for key, expected in results[0][1].items():
        np.testing.assert_allclose(results[1][1][key], expected, rtol=1e-8, atol=1e-11)
    assert results[1][2].pop("method") == results[0][2].pop("method")
    for key, expected in results[0][2].items():
        np.testing.assert_allclose(results[1][2][key], expected, rtol=1e-6, atol=1e-9)
