"""Numba modules of deep networks, with lists of arrays, give what modules with tuples give, to the bit.

Compiling takes minutes: with the JIT both are compared in the slow tests, and here lists of a small network
with the same module in plain Python.
"""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import numba
import numpy as np
import pytest
from compiling import compile_once
from numba.typed import List

from sifrc.backends.numba_common import parts
from sifrc.backends.numba_cpu import BACKEND
from sifrc.cache import module_from_cache
from sifrc.compiler import Request
from sifrc.spec import Spec, build_spec

SIZES = (5, 6, 4, 4, 4, 3)
SMALL = (5, 4, 3)
assert List is not None
"""Imported with the JIT on: Numba's own functions for lists are compiled or not as they were imported."""
JIT = [False, pytest.param(True, marks=pytest.mark.slow)]


def network(sizes: tuple[int, ...] = SIZES, **more: Any) -> Spec:
    last = len(sizes) - 1
    layers = [
        {"name": f"fc{k}", "type": "dense", "units": units, **({"activation": "tanh"} if k < last else {})}
        for k, units in enumerate(sizes[1:], 1)
    ]
    head = {"sifrc": 1, "name": "lists", "dtype": "float64", "loss": "cross_entropy", "init": "glorot"}
    return build_spec(head | {"network": {"input": {"name": "x", "size": 5}, "layers": layers}} | more)


def module_of(
    spec: Spec, folder: Path, monkeypatch: pytest.MonkeyPatch, *, lists: bool, jit: bool, **choices: Any
) -> ModuleType:
    """The module with tuples or with lists."""
    monkeypatch.setattr(numba.config, "DISABLE_JIT", not jit)
    monkeypatch.setattr(parts, "MOST_IN_TUPLES", 0 if lists else 100)
    text = BACKEND.emit(compile_once(spec, Request(backend="numba", **choices)).source)
    assert ("List()" in text) == lists
    name = f"{'lists' if lists else 'tuples'}_{'compiled' if jit else 'plain'}"
    return module_from_cache(f"{folder.name}_{name}", lambda: text, folder / name)


def both(
    spec: Spec, folder: Path, monkeypatch: pytest.MonkeyPatch, jit: bool, **choices: Any
) -> tuple[ModuleType, ModuleType]:
    """The module with tuples, and the one with lists."""
    tuples, lists = (
        module_of(spec, folder, monkeypatch, lists=lists, jit=jit, **choices) for lists in (False, True)
    )
    return tuples, lists


def data(classes: bool = True) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.normal(size=(20, 5)), rng.integers(0, 3, 20) if classes else rng.normal(size=(20, 3))


def same(one: Any, other: Any) -> None:
    """Numbers, arrays, and tuples and dicts of them."""
    if isinstance(one, dict):
        assert list(one) == list(other)
        for name in one:
            same(one[name], other[name])
    elif isinstance(one, tuple):
        for mine, theirs in zip(one, other, strict=True):
            same(mine, theirs)
    elif isinstance(one, np.ndarray):
        np.testing.assert_array_equal(one, other)
    else:
        assert one == other


@pytest.mark.parametrize("jit", JIT)
def test_operators_and_summaries(jit: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a batch and on one sample; a summary in parts, by threads."""
    operators = ("gradient", "hessian_vector_product", "newton_direction", "summary")
    modules = both(network(), tmp_path, monkeypatch, jit, method="none", operators=operators)
    inputs, targets = data()
    results = []
    for module in modules:
        params = module.init(0)
        vector = module.init(1)
        results.append(
            (
                module.predict(params, inputs),
                module.gradient(params, inputs, targets),
                module.hessian_vector_product(params, inputs, targets, vector),
                module.linearize(params, inputs, targets).__call__(vector)
                if callable(module.linearize(params, inputs, targets))
                else (),
                *(module.summary(params, inputs, targets, vector, order=order) for order in (1, 2, 3)),
                module.summary(params, inputs, targets, vector, order=3, full=True, gradient=True),
                module.summary(params, inputs, targets, vector, order=3, chunk=6, threads=2),
            )
        )
    same(*results)


def test_a_summary_in_parts_by_threads_is_that_of_the_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every part counts once, whoever computes it."""
    module = both(network(), tmp_path, monkeypatch, False, method="none", operators=("summary",))[0]
    (inputs, targets), params, vector = data(), module.init(0), module.init(1)
    expected = module.summary(params, inputs, targets, vector, order=3)
    for chunk, threads in ((2, 2), (2, 3), (3, 2)):
        found = module.summary(params, inputs, targets, vector, order=3, chunk=chunk, threads=threads)
        assert found.objective == pytest.approx(expected.objective, rel=1e-12)
        for name in ("g", "H", "D3"):
            np.testing.assert_allclose(getattr(found, name), getattr(expected, name), rtol=1e-9, atol=1e-12)


METHODS: dict[str, dict[str, Any]] = {
    "esn": {"name": "esn"},
    "mk": {"name": "mk"},
    "ea_cg": {"name": "ea_cg"},
    "grouped_newton": {"name": "grouped_newton", "period": 2},
}


def spec_of(name: str, **more: Any) -> Spec:
    """A network with a method."""
    extra = {"regularization": {"state": 0.1}} if name in ("esn", "mk") else {}
    return network(method=METHODS[name], **extra, **more)


def trained(module: ModuleType, batch: int) -> tuple[Any, ...]:
    """Parameters, state and losses after two epochs and a step with the state loaded again."""
    inputs, targets = data(module.SPEC["loss"]["function"] == "cross_entropy")
    params = module.init(0)
    state = module.State(params)
    losses = [
        module.train_epoch(params, state, inputs, targets, np.arange(20), batch=batch) for _ in range(2)
    ]
    saved = state.state_dict()
    again = module.State(params)
    again.load_state_dict(saved)
    losses.append(module.step(params, again, inputs[:batch], targets[:batch]))
    return params, saved, tuple(np.asarray(loss) for loss in losses)


@pytest.mark.parametrize("jit", JIT)
@pytest.mark.parametrize("name", METHODS)
def test_steps_and_epochs(name: str, jit: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Parameters in place, state saved and loaded."""
    modules = both(spec_of(name), tmp_path, monkeypatch, jit, operators=())
    same(*(trained(module, 1 if name in ("esn", "mk") else 5) for module in modules))


def near(one: Any, other: Any) -> None:
    """As in ``same``, but for roundings, which sums in compiled code may have in another order."""
    if isinstance(one, dict | tuple):
        assert len(one) == len(other)
        pairs = zip(one.values(), other.values(), strict=True) if isinstance(one, dict) else zip(one, other)
        for mine, theirs in pairs:
            near(mine, theirs)
    elif one is not None and not isinstance(one, str):
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-11)


@pytest.mark.slow
def test_compiled_lists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Numba has a type for every list: of a batch, of tangents for groups, of the memory of a step.

    Systems of an output, which the squared error does not need, have no lists.
    """
    spec = spec_of("mk", sizes=SMALL, loss="squared_error")
    inputs, targets = data(classes=False)
    results = []
    for jit in (False, True):
        module = module_of(spec, tmp_path, monkeypatch, lists=True, jit=jit, operators=("summary",))
        params, vector = module.init(0), module.init(1)
        found = module.summary(params, inputs, targets, vector, order=2)
        results.append((found.objective, found.g, found.H, trained(module, 1)))
    near(*results)
