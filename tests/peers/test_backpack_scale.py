"""The reference against automatic differentiation, and what BackPACK computes against the reference."""

from __future__ import annotations

from itertools import combinations

import pytest
import reference
from chains import BATCH, CHAINS, CLOSED, SIZES
from peer import (
    HBP_TYPES,
    TOLERANCE,
    agree,
    distance,
    empirical,
    exact_blocks,
    extended,
    extensions,
    factors,
    hbp,
)


@pytest.mark.parametrize(("sizes", "activation", "loss"), CHAINS)
def test_reference_is_the_second_derivative(sizes, activation, loss):
    """EA-CG(4a–c) in closed form against torch.func on the forward pass, float64."""
    chain, inputs, targets = reference.random_chain(sizes, activation, loss)
    state = reference.state_of(chain, inputs, targets)
    blocks = reference.sample_recursion(chain, state)
    agree(blocks, reference.autodiff_blocks(chain, inputs, targets), 1e-13)
    for found, expected in zip(
        reference.diagonal(state, blocks), reference.autodiff_diagonal(chain, inputs, targets)
    ):
        agree(list(found), list(expected), 1e-13)
    if loss == "cross_entropy":
        fisher = reference.score_blocks(chain, state, reference.fisher_scores(chain, inputs))
        agree(fisher, reference.score_blocks(chain, state, reference.loss_scores(state)), 1e-13)


@pytest.mark.parametrize("loss", ["mse", "cross_entropy"])
@pytest.mark.parametrize("activation", ["tanh", "sigmoid"])
def test_cases_tell_the_kinds_apart(activation, loss):
    """Any two kinds differ, in one of the cases at least, by far more than the tolerance."""
    apart: dict[tuple[int, int], float] = {}
    for sizes in SIZES:
        chain, inputs, targets = reference.random_chain(sizes, activation, loss)
        state = reference.state_of(chain, inputs, targets)
        kinds = [reference.mean_recursion(chain, state, residual) for residual in HBP_TYPES]
        kinds.append(reference.batch_mean(reference.sample_recursion(chain, state)))
        kinds.append(reference.score_blocks(chain, state, reference.loss_scores(state)))
        kinds.append(reference.score_blocks(chain, state, state.outer[-1][:, :, None]))
        for i, j in combinations(range(len(kinds)), 2):
            apart[i, j] = max(apart.get((i, j), 0.0), distance(kinds[i], kinds[j]))
    assert min(apart.values()) > 1000 * TOLERANCE


@pytest.mark.parametrize("residual", HBP_TYPES)
@pytest.mark.parametrize(("sizes", "activation", "loss"), CHAINS)
def test_backpack_hbp_is_the_expectation_recursion(sizes, activation, loss, residual):
    """EA-CG(6) with the residual kept, (8b) with it absolute or clipped, KFRA without it."""
    chain, inputs, targets = reference.random_chain(sizes, activation, loss)
    state = reference.state_of(chain, inputs, targets)
    expected = reference.mean_recursion(chain, state, residual)
    blocks, moments = factors(extended(chain, inputs, targets, hbp(residual)), "hbp")
    agree(blocks, expected)
    agree(moments, reference.second_moments(state))
    # A sum over the batch, for the mean squared error over the entries too, scales B and leaves A.
    blocks, moments = factors(extended(chain, inputs, targets, hbp(residual), "sum"), "hbp")
    scale = BATCH * (sizes[-1] if loss == "mse" else 1)
    agree(blocks, [scale * block for block in expected])
    agree(moments, reference.second_moments(state))
    if residual == "dropped":
        agree(factors(extended(chain, inputs, targets, extensions.KFRA()), "kfra")[0], expected)


@pytest.mark.parametrize(("sizes", "activation", "loss"), CHAINS)
def test_backpack_exact_quantities(sizes, activation, loss):
    """HMP, DiagHessian, KFLR and BatchGrad have the reference's scale: means over the batch."""
    chain, inputs, targets = reference.random_chain(sizes, activation, loss)
    state = reference.state_of(chain, inputs, targets)
    blocks = reference.sample_recursion(chain, state)
    agree(exact_blocks(extended(chain, inputs, targets, extensions.HMP()))[0], reference.batch_mean(blocks))
    layers = extended(chain, inputs, targets, extensions.DiagHessian())
    for layer, expected in zip(layers, reference.diagonal(state, blocks)):
        agree([layer.weight.diag_h, layer.bias.diag_h], list(expected))
    layers = extended(chain, inputs, targets, extensions.KFLR())
    agree(factors(layers, "kflr")[0], reference.score_blocks(chain, state, reference.loss_scores(state)))
    agree(
        empirical(extended(chain, inputs, targets, extensions.BatchGrad())),
        reference.score_blocks(chain, state, state.outer[-1][:, :, None]),
    )


@pytest.mark.parametrize("loss", ["mse", "cross_entropy"])
@pytest.mark.parametrize(("sizes", "activation", "last"), CLOSED)
def test_backpack_has_its_own_output_layer(sizes, activation, last, loss):
    """An activation of the output is one more layer to BackPACK; the paper has it inside the loss.

    The two agree without positive parts where ∂²ξ/∂h² is the same for all samples: mse, or one sample.
    """
    for batch in (1, BATCH):
        chain, inputs, targets = reference.random_chain(sizes, activation, loss, last, batch=batch)
        state = reference.state_of(chain, inputs, targets)
        for residual in HBP_TYPES:
            blocks, _ = factors(extended(chain, inputs, targets, hbp(residual)), "hbp")
            agree(blocks, reference.mean_recursion(chain, state, residual))
            whole = reference.whole_output(chain, state, residual)
            if residual in ("kept", "dropped") and (batch == 1 or loss == "mse"):
                agree(blocks[-1:], [whole])
            elif batch > 1:
                assert distance(blocks[-1:], [whole]) > 100 * TOLERANCE
