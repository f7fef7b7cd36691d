"""Generated functions under the transforms of torch.func: what holds of a function of its arguments."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from curvature_modules import load
from layer_cases import LAYER_CASES, layer_spec
from test_layer_types import OPERATORS, At, point_at
from torch import Tensor
from torch.func import functional_call, grad, jacfwd, jacrev, jvp, vjp, vmap

from sifrc.spec import build_spec

FEW = ("max of several", "batch norm of features", "relative positions")
"""Of the fast suite; between them they have largest entries, buffers and tables."""
CLASSES = layer_spec(
    [1, 6, 6],
    [
        {"name": "conv", "type": "conv", "channels": 2, "kernel": 3, "activation": "elu"},
        {"name": "pool", "type": "pool", "function": "max", "kernel": 2},
    ],
    loss="cross_entropy",
)
CASES = LAYER_CASES | {"classes": CLASSES}
Named = dict[str, Tensor]


def along(function: Callable[[Named], Any], params: Named, vector: Named) -> Any:
    """The derivative along a vector."""
    rest = {name: torch.zeros_like(value) for name, value in params.items() if name not in vector}
    return jvp(function, (params,), (vector | rest,))[1]


def rows(stacked: Mapping[str, Tensor], k: int) -> Named:
    return {name: value[k] for name, value in stacked.items()}


def assert_same(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    scale = 1.0 + max(float(value.abs().max()) for value in expected.values())
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=0.0, atol=1e-11 * scale)


def check(module: ModuleType, point: At, vector: Named) -> None:
    """Derivatives and maps of operators, each by the operator that is the same thing."""
    params, x, t = point
    held = {name: value for name, value in params.items() if name not in vector}
    own = {name: params[name] for name in vector}
    gradient, product = module.gradient(*point), module.hessian_vector_product(*point, vector)
    assert_same(grad(lambda p: module.objective(p | held, x, t))(own), gradient)
    assert_same(along(lambda p: module.gradient(p | held, x, t), own, vector), product)
    assert_same(vjp(lambda p: module.gradient(p | held, x, t), own)[1](vector)[0], product)

    stacked = {name: torch.stack([value, -0.5 * value, value.flip(0)]) for name, value in vector.items()}
    each = [module.hessian_vector_product(*point, rows(stacked, k)) for k in range(3)]
    expected = {name: torch.stack([one[name] for one in each]) for name in vector}
    assert_same(vmap(lambda v: module.hessian_vector_product(*point, v))(stacked), expected)
    assert_same(vmap(module.linearize(*point))(stacked), expected)
    assert_same(vmap(lambda p: along(lambda q: module.gradient(q | held, x, t), own, p))(stacked), expected)

    members = {name: torch.stack([value, 0.9 * value]) for name, value in own.items()}
    each = [module.gradient(rows(members, k) | held, x, t) for k in range(2)]
    mapped = vmap(lambda p: module.gradient(p | held, x, t))(members)
    assert_same(mapped, {name: torch.stack([one[name] for one in each]) for name in own})

    # The third derivative is symmetric, whichever way it is taken.
    third = along(lambda p: module.hessian_vector_product(p | held, x, t, vector), own, vector)
    pulled = vjp(lambda p: module.hessian_vector_product(p | held, x, t, vector), own)[1](vector)[0]
    assert_same(pulled, third)
    assert_same(vjp(lambda p: module.linearize(p | held, x, t)(vector), own)[1](vector)[0], third)


@pytest.mark.parametrize("name", [*FEW, "classes"])
def test_operators(name: str, tmp_path: Path) -> None:
    data = CASES[name]
    module = load(build_spec(data), "torch", tmp_path, OPERATORS)
    check(module, *point_at(module, data))


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in CASES if name not in (*FEW, "classes")])
def test_operators_of_every_layer(name: str, tmp_path: Path) -> None:
    data = CASES[name]
    module = load(build_spec(data), "torch", tmp_path, OPERATORS)
    check(module, *point_at(module, data))


@pytest.fixture(scope="module")
def classes(tmp_path_factory: pytest.TempPathFactory) -> tuple[ModuleType, At, Named]:
    module = load(
        build_spec(CLASSES),
        "torch",
        tmp_path_factory.mktemp("classes"),
        ("loss", *OPERATORS, "per_sample_gradients"),
    )
    return module, *point_at(module, CLASSES)


def test_samples_are_mapped_over(classes: Any) -> None:
    """Targets that are classes among what is mapped: the gradients of the samples."""
    module, (params, x, t), _ = classes
    found = vmap(lambda one, target: module.gradient(params, one[None], target[None]))(x, t)
    assert_same(found, module.per_sample_gradients(params, x, t))


def test_networks(classes: Any) -> None:
    """``functional_call`` of the generated network, Jacobians both ways, a mean of mapped losses."""
    module, (params, x, t), _ = classes
    network = module.Network()
    torch.testing.assert_close(functional_call(network, params, (x,)), module.predict(params, x))
    forward = jacfwd(lambda p: functional_call(network, p, (x,)))(params)
    assert_same(jacrev(lambda p: module.predict(p, x))(params), forward)
    one_by_one = grad(lambda p: vmap(lambda a, b: module.loss(p, a[None], b[None]))(x, t).mean())(params)
    assert_same(one_by_one, module.gradient(params, x, t))


def test_parameters_outside_stay_without_a_graph(classes: Any) -> None:
    """Under maps alone nothing is recorded for parameters that require gradients."""
    module, (params, x, t), vector = classes
    trained = {name: value.clone().requires_grad_() for name, value in params.items()}
    stacked = {name: torch.stack([value, value]) for name, value in vector.items()}
    found = vmap(lambda v: module.hessian_vector_product(trained, x, t, v))(stacked)
    assert not any(value.requires_grad for value in found.values())
    assert not any(value.requires_grad for value in module.linearize(trained, x, t)(vector).values())


def test_the_point_of_a_product_is_its_own(classes: Any) -> None:
    """Under transforms too, changes of the tensors that it was made from change no product."""
    module, (params, x, t), vector = classes
    given = {name: value.clone() for name, value in params.items()}
    product = module.linearize(given, x, t)
    stacked = {name: value[None] for name, value in vector.items()}
    expected = vmap(product)(stacked)
    for value in given.values():
        value.zero_()
    assert_same(vmap(product)(stacked), expected)


@pytest.mark.slow
def test_torch_compile_of_a_transform(classes: Any) -> None:
    """It gives the same numbers, outside of the graph; a plain function has no break."""
    module, (params, x, t), _ = classes
    plain = torch.compile(module.gradient, backend="eager", fullgraph=True)
    assert_same(plain(params, x, t), module.gradient(params, x, t))
    transformed = torch.compile(grad(lambda p: module.loss(p, x, t)), backend="eager")
    assert_same(transformed(params), module.gradient(params, x, t))
