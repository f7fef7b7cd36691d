"""Steps and epochs of generated Numba modules."""

from __future__ import annotations

import copy
import itertools
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from numba_cases import chain, data, flat, load, parameters, source
from sampled import one_in

METHODS = {
    "mk": "{name: mk, damping: 0.5}",
    "exact": "{name: esn, variant: exact}",
    "direct": "{name: esn, variant: randomised, precision: direct}",
    "sylvester": "{name: esn, variant: randomised, precision: direct, form: sylvester}",
    "recursive": "{name: esn, variant: randomised, precision: recursive}",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("modules")


def _module(method: str, folder: Path, *, jit: bool = False, short: bool = False) -> ModuleType:
    return load(source(chain(method=METHODS[method], short=short)), folder, jit=jit)


def test_an_exact_step_is_the_newton_direction_times_the_rate(folder: Path) -> None:
    module = _module("exact", folder)
    params = parameters(module)
    inputs, targets, _ = data(module, 1)
    direction = module.newton_direction(params, inputs[0], targets[0])
    before = {key: value.copy() for key, value in params.items()}
    objective = module.objective(params, inputs, targets)
    returned = module.step(params, module.State(params, lr=0.3), inputs, targets)
    assert returned == pytest.approx(objective, rel=1e-14)
    for key in params:
        np.testing.assert_allclose(before[key] - params[key], 0.3 * direction[key], rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize("method", METHODS)
def test_an_epoch_is_its_steps_in_order(method: str, folder: Path) -> None:
    module = _module(method, folder)
    inputs, targets, _ = data(module)
    order = np.array([3, 1, 1, 6])
    params, single = parameters(module), parameters(module)
    state, other = module.State(params), module.State(single)
    mean = module.train_epoch(params, state, inputs, targets, order)
    values = [module.step(single, other, inputs[i : i + 1], targets[i : i + 1]) for i in order]
    np.testing.assert_array_equal(flat(params), flat(single))
    assert mean == pytest.approx(np.mean(values), rel=1e-14)
    assert state.steps == other.steps == 4


@pytest.mark.parametrize("method", ["mk", "direct"])
def test_the_last_batch_takes_what_is_left(method: str, folder: Path) -> None:
    module = _module(method, folder)
    inputs, targets, _ = data(module)
    params, parts = parameters(module), parameters(module)
    state, other = module.State(params), module.State(parts)
    mean = module.train_epoch(params, state, inputs, targets, np.arange(5), batch=3)
    first = module.step(parts, other, inputs[:3], targets[:3])
    second = module.step(parts, other, inputs[3:5], targets[3:5])
    np.testing.assert_array_equal(flat(params), flat(parts))
    assert mean == pytest.approx((3 * first + 2 * second) / 5, rel=1e-14)
    assert state.steps == 2


def test_a_batch_of_equal_samples_takes_the_step_of_one(folder: Path) -> None:
    module = _module("mk", folder)
    inputs, targets, _ = data(module, 1)
    one, many = parameters(module), parameters(module)
    module.step(one, module.State(one), inputs, targets)
    module.step(many, module.State(many), np.repeat(inputs, 4, 0), np.repeat(targets, 4))
    np.testing.assert_allclose(flat(many), flat(one), rtol=1e-12)


@pytest.mark.parametrize("jit", one_in(2, [False, True]))
def test_a_refused_step_changes_nothing_and_says_where(jit: bool, folder: Path) -> None:
    module = _module("mk", folder, jit=jit)
    inputs, targets, _ = data(module)
    params, reference = parameters(module), parameters(module)
    state = module.State(params)
    inputs[4, 2] = np.nan
    with pytest.raises(FloatingPointError, match=r"step refused at sample 4: .* is not finite"):
        module.train_epoch(params, state, inputs, targets, np.array([0, 1, 4, 2]))
    module.train_epoch(reference, module.State(reference), inputs, targets, np.array([0, 1]))
    np.testing.assert_array_equal(flat(params), flat(reference))
    assert state.steps == 2


@pytest.mark.parametrize("method", ["mk", "direct", "recursive"])
def test_a_resumed_state_goes_on_to_the_same_bits(method: str, folder: Path) -> None:
    module = _module(method, folder)
    inputs, targets, _ = data(module)
    params = parameters(module)
    state = module.State(params, lr=0.02)
    module.train_epoch(params, state, inputs, targets, np.arange(4))
    saved, copied = copy.deepcopy(state.state_dict()), {key: value.copy() for key, value in params.items()}
    module.train_epoch(params, state, inputs, targets, np.arange(4, 7))
    again = module.State(copied)
    again.load_state_dict(saved)
    assert again.lr == 0.02 and again.steps == 4
    module.train_epoch(copied, again, inputs, targets, np.arange(4, 7))
    np.testing.assert_array_equal(flat(params), flat(copied))


def test_a_state_of_other_names_or_shapes_is_refused(folder: Path) -> None:
    module = _module("direct", folder)
    state = module.State(module.init(0))
    values = state.state_dict()
    with pytest.raises(ValueError, match="state: expected the names"):
        state.load_state_dict({"lr": 0.1})
    key = next(key for key, value in values.items() if isinstance(value, np.ndarray))
    with pytest.raises(ValueError, match="expected shape"):
        state.load_state_dict({**values, key: np.zeros(1)})
    with pytest.raises(ValueError, match="lr: expected a finite number"):
        module.State(module.init(0), lr=float("inf"))


def test_periodic_parts_run_at_the_first_step_and_every_period(folder: Path) -> None:
    module = _module("direct", folder)
    inputs, targets, _ = data(module)
    params = parameters(module)
    state = module.State(params, period=3)
    kept = []
    for _ in range(5):
        module.step(params, state, inputs, targets)
        kept.append(state.state_dict()["direction.1"])
    changed = [not np.array_equal(a, b) for a, b in itertools.pairwise(kept)]
    assert kept[0].any()
    assert changed == [False, False, True, False]


@pytest.mark.parametrize(
    ("method", "batch", "count", "short"),
    [
        ("mk", 1, 7, False),
        pytest.param("direct", 3, 6, True, marks=pytest.mark.slow),
        pytest.param("mk", 3, 7, False, marks=pytest.mark.slow),
        pytest.param("direct", 3, 7, False, marks=pytest.mark.slow),
        pytest.param("direct", 1, 7, False, marks=pytest.mark.slow),
    ],
)
def test_compiled_steps_are_those_of_plain_python(
    method: str, batch: int, count: int, short: bool, folder: Path
) -> None:
    """Sums may be reordered by the compiler, so agreement is to rounding.

    Functions of a batch and of one sample take a quarter of a minute each: six samples in batches of three
    need the first alone, and seven need both. Loops over layers need three of them: one method has them.
    """
    results = []
    for jit in (False, True):
        module = _module(method, folder, jit=jit, short=short)
        inputs, targets, _ = data(module, count)
        params = parameters(module)
        module.train_epoch(params, module.State(params), inputs, targets, np.arange(count), batch=batch)
        results.append(flat(params))
    np.testing.assert_allclose(results[1], results[0], rtol=1e-9, atol=1e-12)


def test_parameters_that_cannot_be_updated_in_place_are_refused(folder: Path) -> None:
    module = _module("mk", folder)
    inputs, targets, _ = data(module)
    params = module.init(0)
    state = module.State(params)
    params["fc1.weight"] = np.asfortranarray(params["fc1.weight"])
    with pytest.raises(ValueError, match=r"params\['fc1.weight'\]: expected a contiguous array"):
        module.step(params, state, inputs, targets)


@pytest.mark.parametrize(
    ("order", "batch", "error"),
    [
        (np.array([7]), 1, ValueError),
        (np.array([-1]), 1, ValueError),
        (np.array([3, -1, 2]), 1, ValueError),
        (np.array([0.0]), 1, TypeError),
        (np.array([], np.int64), 1, ValueError),
        (np.array([0]), 0, ValueError),
        (np.array([0]), 1.0, TypeError),
    ],
)
def test_bad_orders_and_batches_are_refused(
    order: np.ndarray, batch: int, error: type[Exception], folder: Path
) -> None:
    module = _module("mk", folder)
    inputs, targets, _ = data(module)
    params = module.init(0)
    with pytest.raises(error, match=r"order|batch"):
        module.train_epoch(params, module.State(params), inputs, targets, order, batch=batch)


def test_arrays_of_the_last_batch_sizes_are_kept(folder: Path) -> None:
    """A few sizes in turn need no new arrays, and many sizes do not fill the memory."""
    module = _module("mk", folder)
    state = module.State(module.init(0))
    first = state.workspace(3)
    assert state.workspace(5) is not first and state.workspace(3) is first
    for batch in range(6, 20):
        state.workspace(batch)
        assert len(state._work) <= 4
