"""Operators of generated Numba modules against automatic differentiation of a hand-written forward pass."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numba_cases import CASES, chain, data, flat, flat_objective, load, parameters, source

EXACT = {"rtol": 1e-11, "atol": 1e-12}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("modules")


def _check(name: str, folder: Path, jit: bool) -> None:
    case = CASES[name]
    module = load(source(case.spec), folder, jit=jit)
    params = parameters(module)
    inputs, targets, vectors = data(module)
    function = flat_objective(case, params, inputs, vectors)
    point = torch.tensor(flat(params))
    scale = len(inputs) if case.total else 1
    gradient = scale * torch.func.grad(function)(point).numpy()
    hessian = scale * torch.func.hessian(function)(point).numpy()
    rng = np.random.default_rng(1)
    vector = {key: rng.standard_normal(value.shape) for key, value in params.items()}

    assert module.objective(params, inputs, targets) == pytest.approx(
        scale * float(function(point)), rel=1e-12
    )
    outputs = torch.tensor(module.predict(params, inputs))
    mean_loss = float(case.loss(outputs, torch.tensor(vectors)).mean())
    assert module.loss(params, inputs, targets) == pytest.approx(scale * mean_loss, rel=1e-12)
    np.testing.assert_allclose(flat(module.gradient(params, inputs, targets)), gradient, **EXACT)
    value, both = module.objective_and_gradient(params, inputs, targets)
    assert value == pytest.approx(scale * float(function(point)), rel=1e-12)
    np.testing.assert_allclose(flat(both), gradient, **EXACT)
    product = module.hessian_vector_product(params, inputs, targets, vector)
    np.testing.assert_allclose(flat(product), hessian @ flat(vector), **EXACT)
    assert {key: value.shape for key, value in product.items()} == dict(module.SHAPES)


@pytest.mark.parametrize("name", CASES)
def test_gradient_and_hessian_products_are_those_of_the_objective(name: str, folder: Path) -> None:
    _check(name, folder, jit=False)


@pytest.mark.parametrize(
    "name", [pytest.param("tanh, cross entropy", marks=pytest.mark.slow), "skip, shared, custom"]
)
def test_compiled_code_computes_the_same(name: str, folder: Path) -> None:
    _check(name, folder, jit=True)


@pytest.mark.parametrize("name", [name for name in CASES if "skip" not in name])
def test_hessian_times_newton_direction_is_the_gradient(name: str, folder: Path) -> None:
    case = CASES[name]
    module = load(source(case.spec), folder, jit=False)
    params = parameters(module)
    inputs, targets, vectors = data(module)
    function = flat_objective(case, params, inputs[:1], vectors[:1])
    point = torch.tensor(flat(params))
    gradient = torch.func.grad(function)(point).numpy()
    hessian = torch.func.hessian(function)(point).numpy()
    direction = flat(module.newton_direction(params, inputs[0], targets[0]))
    assert np.linalg.norm(hessian @ direction - gradient) <= 1e-11 * np.linalg.norm(gradient)


def test_gauss_newton_product_is_jacobian_times_loss_hessian_times_jacobian(folder: Path) -> None:
    case = CASES["tanh, cross entropy"]
    module = load(source(case.spec), folder, jit=False)
    params = parameters(module)
    inputs, targets, vectors = data(module)

    def outputs(point: torch.Tensor) -> torch.Tensor:
        tensors, start = {}, 0
        for key, value in params.items():
            tensors[key] = point[start : start + value.size].reshape(value.shape)
            start += value.size
        x = torch.tensor(inputs)
        for name in ("fc1", "fc2"):
            x = torch.tanh(x @ tensors[f"{name}.weight"].T + tensors[f"{name}.bias"])
        return x @ tensors["fc3.weight"].T + tensors["fc3.bias"]

    point = torch.tensor(flat(params))
    jacobian = torch.func.jacrev(outputs)(point)
    y, t = outputs(point), torch.tensor(vectors)
    inner = torch.stack([torch.func.hessian(lambda v: case.loss(v, t[p]))(y[p]) for p in range(len(y))])
    expected = torch.einsum("pia,pij,pjb->ab", jacobian, inner, jacobian).numpy() / len(inputs)
    vector = {key: np.cos(np.arange(value.size)).reshape(value.shape) for key, value in params.items()}
    product = module.gauss_newton_vector_product(params, inputs, targets, vector)
    np.testing.assert_allclose(flat(product), expected @ flat(vector), **EXACT)
    kept = module.linearize(params, inputs, targets, kind="gauss_newton")
    np.testing.assert_array_equal(flat(kept(vector)), flat(product))


def test_linearized_products_keep_their_point_and_own_their_results(folder: Path) -> None:
    module = load(source(CASES["tanh, cross entropy"].spec), folder, jit=False)
    params = parameters(module)
    inputs, targets, _ = data(module)
    vector = module.init(8)
    expected = module.hessian_vector_product(params, inputs, targets, vector)
    product = module.linearize(params, inputs, targets)
    first = product(vector)
    for value in params.values():
        value[...] = 0.0
    second = product({key: 2.0 * value for key, value in vector.items()})
    np.testing.assert_array_equal(flat(first), flat(expected))
    np.testing.assert_allclose(flat(second), 2.0 * flat(expected), **EXACT)


def test_float32_modules_stay_in_float32(folder: Path) -> None:
    module = load(source(chain("softplus", dtype="float32")), folder, jit=False)
    params = parameters(module)
    inputs, targets, _ = data(module)
    results = [
        module.gradient(params, inputs, targets),
        module.newton_direction(params, inputs[0], targets[0]),
    ]
    assert {value.dtype for result in results for value in result.values()} == {np.dtype(np.float32)}
    assert module.predict(params, inputs).dtype == np.float32


def test_a_loss_of_large_outputs_does_not_overflow(folder: Path) -> None:
    module = load(source(chain(dtype="float32")), folder, jit=False)
    params = module.init(0)
    params["fc3.bias"][:] = [1000.0, -1000.0, 0.0]
    inputs, _, _ = data(module, 1)
    assert module.loss(params, inputs, np.array([1])) == pytest.approx(2000.0, rel=1e-3)


BAD = {
    "array": (lambda m, p, x, t: (p, x.tolist(), t), TypeError, "inputs: expected an array, got list"),
    "dtype": (lambda m, p, x, t: (p, x.astype(np.float32), t), TypeError, "inputs: expected dtype float64"),
    "shape": (
        lambda m, p, x, t: (p, x[:, :2], t),
        ValueError,
        r"inputs: expected shape \(B, 6\), got \(7, 2\)",
    ),
    "empty": (lambda m, p, x, t: (p, x[:0], t[:0]), ValueError, "at least one sample"),
    "count": (lambda m, p, x, t: (p, x, t[:-1]), ValueError, r"targets: expected shape \(7,\), got \(6,\)"),
    "class": (lambda m, p, x, t: (p, x, t + 1), ValueError, "targets: expected classes 0 to 2"),
    "negative class": (
        lambda m, p, x, t: (p, x, np.where(np.arange(len(t)) == 1, -1, t)),
        ValueError,
        "targets: expected classes 0 to 2, got -1 to 2",
    ),
    "float": (lambda m, p, x, t: (p, x, t * 1.0), TypeError, "targets: expected integers"),
    "name": (lambda m, p, x, t: ({"a": p["fc1.bias"]}, x, t), ValueError, "params: expected the names"),
    "weight": (
        lambda m, p, x, t: ({**p, "fc1.weight": p["fc1.weight"].T}, x, t),
        ValueError,
        r"params\['fc1.weight'\]: expected shape \(5, 6\), got \(6, 5\)",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_arguments_are_refused_with_their_name(name: str, folder: Path) -> None:
    change, error, text = BAD[name]
    module = load(source(CASES["tanh, cross entropy"].spec), folder, jit=False)
    inputs, targets, _ = data(module)
    targets[:] = 2
    with pytest.raises(error, match=text):
        module.gradient(*change(module, module.init(0), inputs, targets))


def test_initialisation_is_the_one_of_the_spec_and_of_the_seed(folder: Path) -> None:
    module = load(source(CASES["tanh, cross entropy"].spec), folder, jit=False)
    first, again, other = module.init(4), module.init(4), module.init(5)
    np.testing.assert_array_equal(flat(first), flat(again))
    assert not np.array_equal(flat(first), flat(other))
    assert np.abs(first["fc1.weight"]).max() <= (6 / 11) ** 0.5
    assert not first["fc1.bias"].any()
