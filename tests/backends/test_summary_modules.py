"""The function ``summary`` of generated modules against nested torch.func derivatives, and how it is called.

Numba modules run with the JIT off, three compiled.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import numba
import numpy as np
import pytest
import torch
from cases import CASES, SPREAD, SQUARE
from curvature_modules import rounded
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from strategies import specs
from summary_modules import BACKENDS, SummaryCalls, agree, load, same_bits, texts
from summary_oracle import (
    WORDS,
    assert_near,
    derivatives,
    groups_of,
    pairs,
    partition_of_case,
    point_of,
    random_groups,
    rotated,
    spec_with,
)

from sifrc.lower.lowering import Passes

BATCH = 4
ALL = (*WORDS, "random")
ORDERS: tuple[dict[str, Any], ...] = ({"order": 1}, {"order": 2}, {"order": 3}, {"order": 3, "full": True})
RANDOM = settings(
    phases=(Phase.explicit, Phase.generate),
    deadline=None,
    derandomize=True,
    print_blob=True,
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture(autouse=True)
def jit_off(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Numba's compiler off, except for the tests of compiled modules."""
    monkeypatch.setattr(numba.config, "DISABLE_JIT", int("compiled" not in request.node.name))


def calls_of(
    name: str,
    word: str,
    backend: str,
    folder: Path,
    *,
    batch: int = BATCH,
    passes: Passes | None = None,
    **changes: Any,
) -> SummaryCalls:
    """A module of a case with a partition, at a point."""
    found = partition_of_case(CASES[name], word)
    assert found is not None
    spec = spec_with(CASES[name], found[1] if word == "random" else word, **changes)
    point = rounded(point_of(spec, 7, batch), spec.dtype)
    return SummaryCalls(load(texts(spec, (backend,), passes=passes)[backend], folder), point, spec.dtype)


def case_agrees(name: str, word: str, backends: tuple[str, ...], folder: Path, **more: Any) -> None:
    """Modules of both backends."""
    found = partition_of_case(CASES[name], word)
    assert found is not None
    spec, groups = found
    point = point_of(spec, 7, BATCH)
    expected = derivatives(spec, point, groups)
    for text in texts(spec, backends).values():
        agree(SummaryCalls(load(text, folder), point), expected, tuple(groups), **more)


# ── values ────────────────────────────────────────────────────────────────────────────────────────────


NAMED = (*rotated(SQUARE, ALL, 1), *rotated([name for name in SPREAD if name not in SQUARE], ALL)[::2])


@pytest.mark.parametrize("name, word", NAMED)
def test_named_case(name: str, word: str, tmp_path: Path) -> None:
    """One partition for some chains and for every second network that is none of them, in one backend."""
    case_agrees(name, word, (BACKENDS[NAMED.index((name, word)) % 2],), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name, word", pairs(CASES, ALL))
def test_named_case_with_every_partition(name: str, word: str, tmp_path: Path) -> None:
    """All networks, all partitions, both backends, in parts of the batch too."""
    case_agrees(name, word, BACKENDS, tmp_path)
    case_agrees(name, word, BACKENDS, tmp_path, chunk=3)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name, word", [("skip", "canonical"), ("shared_skip", "weights-biases"), ("spectral", "alternate-2")]
)
def test_compiled(name: str, word: str, tmp_path: Path) -> None:
    """With the JIT."""
    case_agrees(name, word, ("numba",), tmp_path)


@pytest.mark.parametrize("name", ["output_tanh", "no_bias", "one_layer"])
def test_single_numbers(name: str, tmp_path: Path) -> None:
    """The discrete partition: entries are counted along the rows of each tensor."""
    case_agrees(name, "discrete", BACKENDS[:1] if name == "output_tanh" else BACKENDS, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["output_tanh", "no_bias", "granular"])
def test_single_numbers_in_parts_of_the_batch(name: str, tmp_path: Path) -> None:
    """One sample at a time."""
    case_agrees(name, "discrete", BACKENDS, tmp_path, chunk=1)


def test_a_sum_that_goes_to_every_output(tmp_path: Path) -> None:
    """A product of sums in the loss: the adjoint's tangent is one number for all outputs."""
    data = {**CASES["granular"], "loss": {"expression": "dot(y - t, y - t) + mean(y)*sum(tanh(y))"}}
    spec = spec_with(data)
    point = point_of(spec, 7, BATCH)
    groups = groups_of(spec, "canonical")
    assert groups is not None
    expected = derivatives(spec, point, groups)
    for text in texts(spec).values():
        agree(SummaryCalls(load(text, tmp_path), point), expected, tuple(groups))


@given(data=specs(), seed=st.integers(0, 2**16))
@settings(RANDOM, max_examples=1)
def test_random_network(data: dict[str, Any], seed: int, tmp_path_factory: Any) -> None:
    """A random graph with a random partition, both backends."""
    groups = random_groups(spec_with(data), seed)
    spec = spec_with(data, groups)
    point = point_of(spec, seed, BATCH)
    expected = derivatives(spec, point, groups)
    folder = tmp_path_factory.mktemp("random")
    for text in texts(spec).values():
        agree(SummaryCalls(load(text, folder), point), expected, tuple(groups))


@pytest.mark.slow
@given(data=specs(), seed=st.integers(0, 2**16))
@settings(RANDOM, max_examples=80)
def test_many_random_networks(data: dict[str, Any], seed: int, tmp_path_factory: Any) -> None:
    """The same on many more."""
    test_random_network.hypothesis.inner_test(data, seed, tmp_path_factory)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", ["tanh_cross_entropy_3", "shared", "reduction_sum"])
def test_float32(name: str, backend: str, tmp_path: Path) -> None:
    """Within what rounding allows."""
    call = calls_of(name, "canonical", backend, tmp_path, dtype="float32")
    found = partition_of_case(CASES[name], "canonical")
    assert found is not None
    expected = derivatives(found[0], call.point, found[1])
    agree(call, expected, tuple(found[1]), 1e-5)
    agree(call, expected, tuple(found[1]), 1e-5, chunk=1)


def test_torch_module_takes_parameters_of_another_dtype(tmp_path: Path) -> None:
    """Computed in the dtype of the parameters, whatever the module's default is."""
    call = calls_of("skip", "weights-biases", "torch", tmp_path)
    found = partition_of_case(CASES["skip"], "weights-biases")
    assert found is not None
    point = rounded(call.point, "float32")
    expected = derivatives(found[0], point, found[1])
    agree(SummaryCalls(call.module, point, "float32"), expected, tuple(found[1]), 1e-5)


# ── gradient, objective, parts of the batch ───────────────────────────────────────────────────────────


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", ["skip", "reduction_sum", "no_bias"])
def test_gradient_and_objective(name: str, backend: str, tmp_path: Path) -> None:
    """Those of the operators, and Σ_s g_s = ⟨gradient, u⟩; the rest is the same with and without."""
    call = calls_of(name, "canonical", backend, tmp_path)
    gradient, objective = call.gradient(), call.objective()
    product = sum(float((value * call.point.vector[key]).sum()) for key, value in gradient.items())
    for choices in ORDERS:
        for chunk in (None, 3):
            found = call.summary(gradient=True, chunk=chunk, **choices)
            assert found.gradient is not None and list(found.gradient) == list(call.module.SHAPES)
            largest = max(float(np.abs(value).max()) for value in gradient.values())
            for key, value in gradient.items():
                assert_near(found.gradient[key], value, 1e-13, 1000 * largest)
            assert_near(found.objective, objective, 1e-13)
            assert_near(found.g.sum(), product, 1e-12, 1000 * float(np.abs(found.g).max()))
            same_bits(replace(found, gradient=None), call.summary(chunk=chunk, **choices))
            for position, tensors in enumerate(call.module.GROUPS.values()):
                own = sum((gradient[key] * call.point.vector[key]).sum() for key in tensors)
                assert_near(found.g[position], own, 1e-12, 1000 * float(np.abs(found.g).max()))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", ["spectral_smooth", "reduction_sum"])
def test_parts_of_the_batch_add_up(name: str, backend: str, tmp_path: Path) -> None:
    """Parts of 1, 2, B − 1, B and more than B samples."""
    batch = 7
    call = calls_of(name, "weights-biases", backend, tmp_path, batch=batch)
    for choices in ORDERS:
        whole = call.summary(gradient=True, **choices).arrays()
        for chunk in (1, 2, batch - 1, batch, batch + 5):
            parts = call.summary(gradient=True, chunk=chunk, **choices).arrays()
            assert parts.keys() == whole.keys()
            for key, value in whole.items():
                assert_near(parts[key], value, 1e-12)
    single = np.mean([call.summary(rows=slice(n, n + 1), order=3).D3 for n in range(batch)], axis=0)
    factor = batch if "sum" in name else 1
    assert_near(call.summary(order=3, chunk=2).D3, factor * single, 1e-12)


@pytest.mark.parametrize("name", ["spectral_smooth", "reduction_sum"])
def test_threads_share_the_batch(name: str, tmp_path: Path) -> None:
    """More threads than parts, as many, fewer; with memory that is kept; the same bits every time."""
    call = calls_of(name, "weights-biases", "numba", tmp_path, batch=7)
    workspace = call.module.Workspace()
    for choices in ORDERS:
        whole = call.summary(gradient=True, **choices).arrays()
        for threads, chunk in ((2, None), (3, None), (16, None), (2, 2), (3, 1), (2, 7)):
            more = {"threads": threads, "chunk": chunk, "workspace": workspace}
            found = call.summary(gradient=True, **more, **choices)
            for key, value in whole.items():
                assert_near(found.arrays()[key], value, 1e-12)
            same_bits(found, call.summary(gradient=True, **more, **choices))


def test_a_sum_over_the_samples_is_that_many_times_the_mean(tmp_path: Path) -> None:
    """``reduction: sum``, every order."""
    for backend in BACKENDS:
        total = calls_of("reduction_sum", "canonical", backend, tmp_path)
        loss = {"function": "squared_error", "reduction": "mean"}
        mean = calls_of("reduction_sum", "canonical", backend, tmp_path, loss=loss)
        for choices in ORDERS:
            wanted = mean.summary(gradient=True, **choices).arrays()
            for key, value in total.summary(gradient=True, **choices).arrays().items():
                assert_near(value, BATCH * wanted[key], 1e-13)


# ── memory ────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("backend", BACKENDS)
def test_results_are_not_changed_by_the_next_call(backend: str, tmp_path: Path) -> None:
    """Nor are the arguments."""
    call = calls_of("skip", "canonical", backend, tmp_path)
    more = {} if call.torch else {"workspace": call.module.Workspace()}
    given = [*call.given(), call.own(call.point.vector)]
    kept = [*call.given(), call.own(call.point.vector)]
    first = call.module.summary(*given, order=3, gradient=True, **more)
    before = [
        call.own(v) for v in (*map(np.array, first[1:4]), {k: np.array(v) for k, v in first[5].items()})
    ]
    other = call.own({key: 2 * value for key, value in call.point.vector.items()})
    call.module.summary(*given[:1], 3 * given[1], given[2], other, order=3, gradient=True, **more)
    call.module.summary(*given[:1], 3 * given[1], given[2], other, order=3, full=True, gradient=True, **more)
    for value, was in zip((*first[1:4], *first[5].values()), (*before[:3], *before[3].values()), strict=True):
        np.testing.assert_array_equal(np.asarray(value), np.asarray(was))
    for value, was in zip(given, kept, strict=True):
        pairs_of = (
            zip(value.values(), was.values(), strict=True) if isinstance(value, dict) else [(value, was)]
        )
        assert all((mine == theirs).all() for mine, theirs in pairs_of)


@pytest.mark.parametrize(
    "name, word", [("skip", "canonical"), ("criterion", "blocks-1"), ("custom_loss", "random")]
)
def test_a_workspace_serves_calls_of_all_sizes_and_orders(name: str, word: str, tmp_path: Path) -> None:
    """To the bit what a call with memory of its own gives, the memory spoiled in between."""
    call = calls_of(name, word, "numba", tmp_path, batch=9)
    workspace = call.module.Workspace()
    rng = np.random.default_rng(0)
    for _ in range(15):
        choices = {**ORDERS[rng.integers(4)], "gradient": bool(rng.integers(2))}
        choices["chunk"] = (None, 1, 2, 4)[rng.integers(4)]
        rows = slice(int(rng.integers(0, 3)), int(rng.integers(4, 10)))
        found = call.summary(rows=rows, workspace=workspace, **choices)
        same_bits(found, call.summary(rows=rows, **choices))
        for work in chain.from_iterable(workspace._free.values()):
            spoil(work)


def spoil(work: Any) -> None:
    """Overwrite what a call leaves; inputs and mean are set before they are read."""
    for value in work.__dict__.values():
        for array in value if isinstance(value, tuple) else (value,):
            if isinstance(array, np.ndarray) and array.base is not None and array.flags.writeable:
                array[...] = np.nan if array.dtype.kind == "f" else 0


@pytest.mark.parametrize(
    "name, word", rotated(sorted(CASES), ("canonical", "weights-biases", "random"))[3::15]
)
def test_shared_memory_changes_no_bit(name: str, word: str, tmp_path: Path) -> None:
    """Arrays with lifetimes, and each with memory of its own."""
    shared, apart = (
        calls_of(name, word, "numba", tmp_path, passes=Passes(lifetimes=on)) for on in (True, False)
    )
    assert hasattr(shared.module, "_CASE_PLACES") and not hasattr(apart.module, "_CASE_PLACES")
    for choices in ORDERS:
        for more in ({"gradient": True}, {"chunk": 3}):
            same_bits(shared.summary(**choices, **more), apart.summary(**choices, **more))


def test_shared_memory_of_torch_steps_changes_no_bit(tmp_path: Path) -> None:
    """Without lifetimes too."""
    shared, apart = (
        calls_of("skip", "canonical", "torch", tmp_path, passes=Passes(lifetimes=on)) for on in (True, False)
    )
    for choices in ORDERS:
        same_bits(shared.summary(gradient=True, **choices), apart.summary(gradient=True, **choices))


@pytest.mark.parametrize("case", range(4))
def test_no_two_places_that_are_needed_together_overlap(case: int, tmp_path: Path) -> None:
    """In the memory of each kind of summary, for several sizes of batches."""
    call = calls_of("skip", "canonical", "numba", tmp_path)
    table = call.module._CASE_PLACES[case]
    for batch in (1, 5, 64):
        work = call.module._arranged(call.module._Workspace(call.module._WORK, batch), table)
        spans: dict[int, tuple[int, int, int, int]] = {}
        for name, found in table.items():
            for k, (place, first, last) in (found if isinstance(found, dict) else {0: found}).items():
                array = getattr(work, name)[k] if isinstance(found, dict) else getattr(work, name)
                start = array.__array_interface__["data"][0]
                spans[place] = (start, start + array.nbytes, first, last)
        items = list(spans.values())
        for n, (start, end, first, last) in enumerate(items):
            for other in items[:n]:
                if first <= other[3] and other[2] <= last:
                    assert end <= other[0] or other[1] <= start
        used = sum(end - start for start, end, *_ in items)
        assert max(s[1] for s in items) - min(s[0] for s in items) < used + 16 * 8 * len(items)


def test_parameters_that_require_grad_leave_no_graph_behind(tmp_path: Path) -> None:
    """And their ``.grad`` stays as it is."""
    call = calls_of("skip", "canonical", "torch", tmp_path)
    params, inputs, targets = call.given()
    for tensor in params.values():
        tensor.requires_grad_()
    direction = {key: value.requires_grad_() for key, value in call.own(call.point.vector).items()}
    for choices in ORDERS:
        found = call.module.summary(params, inputs, targets, direction, gradient=True, **choices)
        for value in (*found[:4], *found.gradient.values()):
            assert value is None or not (value.requires_grad or value.grad_fn)
    assert all(value.grad is None for value in (*params.values(), *direction.values()))
    assert torch.is_grad_enabled()
