"""The example with SciPy: a stationary point to 1e-6 by torch's own derivatives, and its spectrum."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from library_examples import example
from scipy.sparse.linalg import eigsh
from torch.func import functional_call, grad, hessian


@cache
def module() -> Any:
    """Imported when the first test runs."""
    return example("with_scipy", "sklearn")


@pytest.fixture(scope="module")
def trained() -> tuple[Any, Any]:
    problem = module().digits()
    return problem, module().trained(problem)


def objective(problem: Any, own: Any) -> Any:
    inputs, targets = problem.batch
    loss = torch.nn.functional.cross_entropy(functional_call(problem.model, own, (inputs,)), targets)
    return loss + module().DECAY / 2 * sum((value**2).sum() for value in own.values())


def flat(tensors: Any) -> Any:
    return torch.cat([value.detach().reshape(-1) for value in tensors]).numpy()


def test_it_ends_where_the_gradient_is_zero(trained: Any) -> None:
    """The gradient of the written objective by torch, at the parameters in the model."""
    problem, found = trained
    own = {name: value.detach() for name, value in problem.model.named_parameters()}
    assert found.success and np.linalg.norm(found.jac) < 1e-6
    assert np.linalg.norm(flat(grad(lambda p: objective(problem, p))(own).values())) < 1e-6
    assert float(objective(problem, own)) == pytest.approx(found.fun, rel=1e-12)
    assert found.fun < 0.2
    assert np.array_equal(problem.start(), found.x)


def test_the_spectrum_is_that_of_the_dense_hessian(trained: Any) -> None:
    """The largest eigenvalues, and one entry after the other; the smallest is positive: a minimum."""
    problem, found = trained
    own = {name: value.detach() for name, value in problem.model.named_parameters()}
    second = hessian(lambda p: objective(problem, p))(own)
    sizes = {name: value.numel() for name, value in own.items()}
    rows = [torch.cat([second[a][b].reshape(sizes[a], sizes[b]) for b in own], 1) for a in own]
    dense = torch.cat(rows).numpy()
    vector = np.random.default_rng(0).normal(size=len(dense))
    np.testing.assert_allclose(problem.product(found.x, vector), dense @ vector, rtol=0, atol=1e-9)
    values = np.linalg.eigvalsh(dense)
    operator = problem.hessian(found.x)
    largest = np.sort(eigsh(operator, k=3, which="LA", return_eigenvectors=False))
    np.testing.assert_allclose(largest, values[-3:], rtol=1e-8)
    assert values[0] > 0
