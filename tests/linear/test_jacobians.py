"""Jacobian, its transpose and Fisher matrices against dense matrices of torch.func, over several batches."""

from __future__ import annotations

from math import sqrt

import pytest
import torch
from dense_oracle import NETWORKS, Case, agrees, close

import sifrc

CASES = [Case(network) for network in NETWORKS] + [Case("dense", "squared_error")]


@pytest.fixture(params=CASES, ids=lambda case: f"{case.network} {case.loss}")
def case(request: pytest.FixtureRequest) -> Case:
    found: Case = request.param
    return found


def test_the_jacobian_and_its_transpose(case: Case) -> None:
    ops = case.operators()
    agrees(ops.J, case.J)
    agrees(ops.J.T @ ops.J, case.J.T @ case.J)
    assert ops.J.T.T is ops.J
    vector = ops.space.split(torch.ones(len(case.flat), dtype=torch.float64))
    found = ops.J @ vector
    assert found["outputs"].shape == (8, 3)
    back = ops.J.T @ found
    assert list(back) == list(case.params)


def test_the_exact_and_the_empirical_fisher_matrix(case: Case) -> None:
    ops = case.operators()
    agrees(ops.F(), case.fisher)
    agrees(ops.F("empirical"), case.empirical)


def test_the_fisher_matrix_of_a_likelihood_is_the_gauss_newton_matrix(case: Case) -> None:
    ops, vector = case.operators(), torch.randn(len(case.flat), dtype=torch.float64)
    close(ops.F() @ vector, ops.G @ vector)


def test_exact_traces_of_fisher_matrices() -> None:
    case = Case("conv")
    ops = case.operators()
    for op, matrix in ((ops.F(), case.fisher), (ops.F("empirical"), case.empirical)):
        assert abs(op.trace("exact").value - float(matrix.trace())) < 1e-12
        close(op.diagonal("exact").value, matrix.diagonal())


def test_the_fisher_matrix_of_a_sum_is_a_sum() -> None:
    case = Case("dense")
    keys = (("loss", {"function": "cross_entropy", "reduction": "sum"}),)
    ops = Case("dense", keys=keys).operators()
    agrees(ops.F(), 8 * case.fisher)
    agrees(ops.F("empirical"), 8 * case.empirical)
    agrees(ops.J, case.J)
    vector = torch.ones(60, dtype=torch.float64)
    close(
        ops.F("sampled", samples=3, seed=5) @ vector,
        8 * (case.operators().F("sampled", samples=3, seed=5) @ vector),
    )


def test_state_regularisation_is_no_part_of_the_jacobian() -> None:
    case = Case("dense", keys=(("regularization", {"state": 0.3}),))
    agrees(case.operators().J, case.J)


def test_the_sampled_fisher_matrix_is_the_exact_one_on_average() -> None:
    """A product with one vector, over many draws; its variance is that of single draws."""
    case, count = Case("dense", sizes=(4,)), 400
    ops, vector = case.operators(), torch.linspace(-1, 1, 60, dtype=torch.float64)
    draws = torch.stack([ops.F("sampled", seed=seed) @ vector for seed in range(count)])
    away = (draws.mean(0) - case.fisher @ vector).abs()
    assert bool((away < 5 * draws.std(0) / sqrt(count) + 1e-12).all())
    many = ops.F("sampled", samples=50, seed=1) @ vector
    assert float((many - case.fisher @ vector).norm()) < 5 * float(draws.std(0).norm()) / sqrt(50)
    assert torch.equal(ops.F("sampled", seed=1) @ vector, ops.F("sampled", seed=1) @ vector)


@pytest.mark.parametrize("loss", ["cross_entropy", "sum of means"])
def test_sampled_targets_at_several_places_are_independent(loss: str) -> None:
    """Tokens with a class each: a mean over places has its factor once, over samples as the loss says."""
    reduced = {"function": "cross_entropy", "reduction": "sum", "places": "mean"}
    data = {
        "sifrc": 1,
        "name": "tokens",
        "dtype": "float64",
        "loss": reduced if loss == "sum of means" else loss,
        "network": {
            "input": {"name": "tokens", "size": [2, 3]},
            "layers": [{"name": "out", "type": "dense", "units": 4}],
        },
    }
    drawn = torch.Generator().manual_seed(0)
    inputs = torch.randn(3, 2, 3, generator=drawn, dtype=torch.float64)
    ops = sifrc.operators(data, None, (inputs, torch.randint(4, (3, 2), generator=drawn)))
    vector, exact = torch.linspace(-1, 1, 16, dtype=torch.float64), ops.F()
    close(exact @ vector, ops.G @ vector)
    assert ops.J.shape == (3 * 2 * 4, 16)
    close(ops.J.to_dense().T, ops.J.T.to_dense())
    draws = torch.stack([ops.F("sampled", samples=2, seed=seed) @ vector for seed in range(300)])
    away = (draws.mean(0) - exact @ vector).abs()
    assert bool((away < 5 * draws.std(0) / sqrt(300) + 1e-12).all())


def test_what_does_not_exist_is_refused() -> None:
    squares = Case("dense", "squared_error").operators()
    with pytest.raises(sifrc.OperatorError, match="whose targets are no classes"):
        squares.F("sampled")
    with pytest.raises(sifrc.OperatorError, match="a Fisher matrix 'true'"):
        squares.F("true")  # type: ignore[arg-type]
    with pytest.raises(sifrc.OperatorError, match="0 samples of each target"):
        Case("dense").operators().F("sampled", samples=0)
    huber = Case("dense", "squared_error", keys=(("loss", "huber"),)).operators()
    with pytest.raises(sifrc.DerivationError, match="no distribution of targets is known"):
        huber.F() @ torch.ones(60, dtype=torch.float64)
