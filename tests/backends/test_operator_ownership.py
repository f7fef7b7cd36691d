"""What operators of generated modules keep of their arguments, what their results share, and with whom."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from itertools import combinations
from pathlib import Path
from types import ModuleType
from typing import Any

import numba
import numpy as np
import pytest
import torch
from compiling import compile_once
from operator_calls import LINEARIZED, NETWORKS, arrays_in, calls, given, operators_of

from sifrc.cache import load_text
from sifrc.catalogue import registry
from sifrc.compiler import Request, compile_spec
from sifrc.spec import build_spec

BACKENDS = ("torch", "numba")
BOTH = [(name, backend) for name in NETWORKS for backend in BACKENDS]
PRODUCTS = [
    (name, backend, kind)
    for name, backend in BOTH
    for kind in LINEARIZED
    if f"{kind}_vector_product" in operators_of(name)
]


@pytest.fixture(scope="module")
def modules(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Modules with all operators by network and backend; those of Numba without its JIT."""
    folder = tmp_path_factory.mktemp("ownership")
    made: dict[tuple[str, str], ModuleType] = {}

    def module(name: str, backend: str) -> ModuleType:
        if (name, backend) not in made:
            operators = operators_of(name)
            kinds = None if name == "squared error" else ("hessian", "ggn", "pch1")
            request = Request(backend=backend, method="none", operators=operators, curvature=kinds)
            compiled = compile_once(build_spec(NETWORKS[name]), request)
            path = folder / f"{compiled.name}.py"
            path.write_text(compiled.text, encoding="utf-8")
            made[name, backend] = load_text(path.stem, path, compiled.text)
        return made[name, backend]

    before = numba.config.DISABLE_JIT
    numba.config.DISABLE_JIT = True
    yield module
    numba.config.DISABLE_JIT = before


def copies(value: Any) -> list[np.ndarray]:
    return [array.copy() for array in arrays_in(value)]


def same(found: list[np.ndarray], expected: list[np.ndarray], text: str) -> None:
    """To the bit, and something at all."""
    assert len(found) == len(expected) > 0, text
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other, err_msg=text)


@pytest.mark.parametrize("backend", BACKENDS)
def test_calls_have_every_operator(modules: Any, backend: str) -> None:
    """An operator that is new is one more here."""
    module = modules("cross entropy", backend)
    called = {text.partition(",")[0] for text, _ in calls(module, given(module))}
    assert called >= set(registry.OPERATORS)


@pytest.mark.parametrize("name, backend, kind", PRODUCTS)
def test_linearize_keeps_its_point(modules: Any, name: str, backend: str, kind: str) -> None:
    """Whatever is done to the arrays that it was made from, before its first product or after."""
    module = modules(name, backend)
    at = given(module)
    expected = copies(getattr(module, f"{kind}_vector_product")(*at.point, at.vector))
    products = [module.linearize(*at.point, kind=kind) for _ in range(2)]
    same(arrays_in(products[0](at.vector)), expected, "before the change")
    at.change()
    for product in products:
        for _ in range(2):
            same(arrays_in(product(at.vector)), expected, "after the change")


@pytest.mark.parametrize("backend", BACKENDS)
def test_linearize_keeps_its_point_through_steps(modules: Any, backend: str) -> None:
    """As the README builds it: from the parameters of a model that an optimizer changes in place."""
    module = modules("cross entropy", backend)
    at = given(module)
    if backend == "torch":
        model = module.Network(0)
        at.params = dict(model.named_parameters())
    expected = copies(module.hessian_vector_product(*at.point, at.vector))
    product = module.linearize(*at.point)
    slopes = module.gradient(*at.point)
    with torch.no_grad():
        for key, value in at.params.items():
            value -= 0.1 * slopes[key]
    same(arrays_in(product(at.vector)), expected, "after a step")
    again = arrays_in(module.linearize(*at.point)(at.vector))
    assert any((one != other).any() for one, other in zip(again, expected, strict=True))


@pytest.mark.parametrize("name, backend", BOTH)
def test_results_share_memory_with_nothing(modules: Any, name: str, backend: str) -> None:
    """Neither with arguments, nor with each other, nor with those of another call."""
    module = modules(name, backend)
    at = given(module)
    own = arrays_in((at.params, at.inputs, at.targets, at.vector))
    for text, call in calls(module, at):
        first, second = arrays_in(call()), arrays_in(call())
        for one in first:
            repeated = [n for n, stride in zip(one.shape, one.strides, strict=True) if stride == 0]
            assert all(n == 1 for n in repeated), f"{text}: one number stands for many"
        for one, other in combinations([*first, *second], 2):
            assert not np.shares_memory(one, other), f"{text}: two results share memory"
        for one in first:
            assert not any(np.shares_memory(one, array) for array in own), f"{text}: shares its argument's"


@pytest.mark.parametrize("name, backend", BOTH)
def test_results_and_arguments_may_be_changed(modules: Any, name: str, backend: str) -> None:
    """Writing into a result changes no later one, and no argument was written to."""
    module = modules(name, backend)
    at = given(module)
    before = copies((at.params, at.inputs, at.targets, at.vector))
    for text, call in calls(module, at):
        found = call()
        expected = copies(found)
        for array in arrays_in(found):
            array[...] = np.nan
        same(arrays_in(call()), expected, text)
    same(arrays_in((at.params, at.inputs, at.targets, at.vector)), before, "arguments")


@pytest.mark.parametrize("name, backend", BOTH)
def test_operators_from_many_threads(modules: Any, name: str, backend: str) -> None:
    """Each operator, and one product and one workspace, from eight threads: the same bits as from one."""
    module = modules(name, backend)
    points = [given(module, seed=seed) for seed in range(3)]
    listed = [dict(calls(module, at)) for at in points]
    _from_threads(listed)


def _from_threads(listed: list[dict[str, Any]], rounds: int = 3) -> None:
    expected = [{text: copies(call()) for text, call in found.items()} for found in listed]
    with ThreadPoolExecutor(8) as pool:
        for text in expected[0]:
            jobs = [
                (number, pool.submit(call[text])) for _ in range(rounds) for number, call in enumerate(listed)
            ]
            for number, job in jobs:
                same(arrays_in(job.result()), expected[number][text], text)


@pytest.mark.parametrize("kind", LINEARIZED)
@pytest.mark.parametrize("backend", BACKENDS)
def test_one_product_with_many_vectors_from_many_threads(modules: Any, backend: str, kind: str) -> None:
    """Vectors that differ, so that arrays in common would show."""
    module = modules("cross entropy", backend)
    at = given(module, batch=40)
    product = module.linearize(*at.point, kind=kind)
    vectors = [given(module, seed=seed).vector for seed in range(16)]
    expected = [copies(product(vector)) for vector in vectors]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(5):
            for found, wanted in zip(pool.map(product, vectors), expected, strict=True):
                same(arrays_in(found), wanted, kind)


MODES: dict[str, tuple[Any, Any]] = {
    "autocast": (lambda: torch.autocast("cpu", dtype=torch.bfloat16), nullcontext),
    "autocast to float16": (lambda: torch.autocast("cpu", dtype=torch.float16), nullcontext),
    "inference_mode": (torch.inference_mode, nullcontext),
    "no_grad": (torch.no_grad, nullcontext),
    "enable_grad": (torch.enable_grad, nullcontext),
    "inference_mode at the point": (torch.inference_mode, torch.inference_mode),
    "autocast at the point": (nullcontext, lambda: torch.autocast("cpu", dtype=torch.bfloat16)),
    "inference tensors": (nullcontext, torch.inference_mode),
}
"""Contexts of the calls, and of what they are made from (parameters, data, ``linearize``)."""


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", NETWORKS)
def test_torch_operators_under_modes_of_torch(modules: Any, name: str, mode: str) -> None:
    """The numbers and dtypes are those of the arguments; no result requires a gradient."""
    module = modules(name, "torch")
    plain = {text: copies(call()) for text, call in calls(module, given(module))}
    around, at_the_point = MODES[mode]
    manager: AbstractContextManager[Any] = at_the_point()
    with manager:
        at = given(module)
        if mode.startswith("inference"):
            at.params = {key: value.clone() for key, value in at.params.items()}
            at.inputs = at.inputs.clone()
        else:
            at.params = {key: value.clone().requires_grad_() for key, value in at.params.items()}
        made = list(calls(module, at))
    for text, call in made:
        with around():
            found = call()
        assert not any(tensor.requires_grad for tensor in tensors_in(found)), text
        for one, other in zip(arrays_in(found), plain[text], strict=True):
            assert one.dtype == other.dtype, text
            np.testing.assert_array_equal(one, other, err_msg=text)


def tensors_in(value: Any) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    items = value.values() if isinstance(value, dict) else value if isinstance(value, tuple) else ()
    return [tensor for item in items for tensor in tensors_in(item)]


def test_the_network_follows_autocast_as_modules_do(modules: Any) -> None:
    """The user's own forward pass is theirs: half precision inside, gradients outside."""
    module = modules("cross entropy", "torch")
    model, at = module.Network(0), given(module)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = torch.nn.functional.cross_entropy(model(at.inputs), at.targets)
    loss.backward()
    exact = module.gradient(dict(model.named_parameters()), at.inputs, at.targets)
    for key, value in model.named_parameters():
        assert value.grad is not None and value.grad.dtype == torch.float32
        assert float((value.grad - exact[key]).abs().max()) < 0.05


@pytest.mark.slow
def test_compiled_operators_from_many_threads(tmp_path: Path) -> None:
    """With Numba's JIT, whose functions let other threads run."""
    operators = ("hessian_vector_product", "gauss_newton_vector_product")
    request = Request(backend="numba", method="none", operators=operators)
    compiled = compile_spec(build_spec(NETWORKS["cross entropy"]), request)
    module = load_text(f"threads_{compiled.name}", tmp_path / f"threads_{compiled.name}.py", compiled.text)
    points = [given(module, batch=200, seed=seed) for seed in range(4)]
    _from_threads([dict(calls(module, at)) for at in points], rounds=8)
