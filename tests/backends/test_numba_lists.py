"""Numba modules of deep networks, with lists of arrays, give what modules with tuples give, to the bit."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from sifrc.backends.numba_cpu import parts
from sifrc.cache import module_from_cache
from sifrc.compiler import Request, compile_spec
from sifrc.spec import Spec, build_spec

SIZES = (5, 6, 4, 4, 4, 3)


def network(**more: Any) -> Spec:
    layers = [
        {"name": f"fc{k}", "type": "dense", "units": units, **({"activation": "tanh"} if k < 5 else {})}
        for k, units in enumerate(SIZES[1:], 1)
    ]
    head = {"sifrc": 1, "name": "lists", "dtype": "float64", "loss": "cross_entropy", "init": "glorot"}
    return build_spec(head | {"network": {"input": {"name": "x", "size": 5}, "layers": layers}} | more)


def both(
    spec: Spec, folder: Path, monkeypatch: pytest.MonkeyPatch, **choices: Any
) -> tuple[ModuleType, ModuleType]:
    """The module with tuples, and the one with lists."""
    found = []
    for most, name in ((100, "tuples"), (0, "lists")):
        monkeypatch.setattr(parts, "MOST_IN_TUPLES", most)
        text = compile_spec(spec, Request(backend="numba", **choices)).text
        assert ("List()" in text) == (name == "lists")
        found.append(module_from_cache(f"{folder.name}_{name}", lambda text=text: text, folder / name))  # type: ignore[misc]
    return found[0], found[1]


def data() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.normal(size=(20, 5)), rng.integers(0, 3, 20)


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


def test_operators_and_summaries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a batch and on one sample; a summary in parts, by threads."""
    operators = ("gradient", "hessian_vector_product", "newton_direction", "summary")
    modules = both(network(), tmp_path, monkeypatch, method="none", operators=operators)
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


METHODS: dict[str, dict[str, Any]] = {
    "esn": {"name": "esn"},
    "mk": {"name": "mk"},
    "ea_cg": {"name": "ea_cg"},
    "grouped_newton": {"name": "grouped_newton", "period": 2},
}


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow) if n in ("mk", "ea_cg") else n for n in METHODS]
)
def test_steps_and_epochs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Parameters in place, state saved and loaded."""
    extra = {"regularization": {"state": 0.1}} if name in ("esn", "mk") else {}
    modules = both(network(method=METHODS[name], **extra), tmp_path, monkeypatch, operators=())
    inputs, targets = data()
    batch = 1 if name in ("esn", "mk") else 5
    results = []
    for module in modules:
        params = module.init(0)
        state = module.State(params)
        losses = [
            module.train_epoch(params, state, inputs, targets, np.arange(20), batch=batch) for _ in range(2)
        ]
        saved = state.state_dict()
        again = module.State(params)
        again.load_state_dict(saved)
        losses.append(module.step(params, again, inputs[:batch], targets[:batch]))
        results.append((params, saved, tuple(np.asarray(loss) for loss in losses)))
    same(*results)
