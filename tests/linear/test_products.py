"""Hessian, Gauss–Newton matrix and blocks against dense matrices of torch.func, over several batches."""

from __future__ import annotations

import pytest
import torch
from dense_oracle import NETWORKS, Case, agrees, close

import sifrc
from sifrc.linear import LinearOperator

CASES = [Case(network, loss) for network in NETWORKS for loss in ("cross_entropy", "squared_error")]


@pytest.fixture(params=CASES, ids=lambda case: f"{case.network} {case.loss}")
def case(request: pytest.FixtureRequest) -> Case:
    found: Case = request.param
    return found


def test_the_hessian_of_batches_of_other_sizes_is_that_of_all_samples(case: Case) -> None:
    agrees(case.operators().H, case.H)


def test_the_gauss_newton_matrix(case: Case) -> None:
    agrees(case.operators().G, case.G)


def test_one_batch_of_all_samples_gives_the_same(case: Case) -> None:
    ops = case.operators((case.inputs, case.targets))
    agrees(ops.H, case.H)
    agrees(ops.G, case.G)


def test_the_objective_and_its_gradient(case: Case) -> None:
    ops = case.operators()
    flat = case.flat.clone().requires_grad_()
    value = case.of_outputs(case.outputs(flat))
    (slope,) = torch.autograd.grad(value, flat)
    assert abs(ops.objective() - float(value.detach())) < 1e-13
    gradient = ops.gradient()
    assert isinstance(gradient, torch.Tensor)
    close(gradient, slope)
    named = ops.gradient("dict")
    assert isinstance(named, dict) and list(named) == list(case.params)


def test_parts_are_those_of_the_matrix(case: Case) -> None:
    ops, names = case.operators(), list(case.params)
    where = dict(zip(names, torch.split(torch.arange(len(case.flat)), ops.space.sizes), strict=True))
    rows, columns = where[names[0]], torch.cat([where[names[1]], where[names[-1]]])
    agrees(ops.H.sub(names[0], [names[1], names[-1]]), case.H[rows][:, columns])
    agrees(ops.H.sub(names[0], [names[-1], names[1]]).T, case.H[rows][:, columns].T)
    for module, part in ops.G.per().items():
        own = torch.cat([where[name] for name in names if name.rpartition(".")[0] == module])
        agrees(part, case.G[own][:, own])


def test_the_block_diagonal_of_layers_and_of_groups(case: Case) -> None:
    ops = case.operators()
    layers = list(ops.space.by_module().values())
    agrees(ops.H.block_diagonal(), case.block_diagonal(case.H, layers))
    agrees(ops.G.block_diagonal(ops.groups), case.block_diagonal(case.G))


@pytest.mark.parametrize("network", ["dense", "conv"])
@pytest.mark.parametrize("loss", ["cross_entropy", "squared_error"])
def test_blocks_are_those_of_the_matrices(network: str, loss: str) -> None:
    case = Case(network, loss)
    ops = case.operators()
    expected = {"hessian": case.H, "ggn": case.G, "fisher": case.fisher, "empirical_fisher": case.empirical}
    for kind, matrix in expected.items():
        agrees(ops.blocks(kind), case.block_diagonal(matrix))


@pytest.mark.parametrize("network", ["dense", "conv"])
def test_exact_traces_and_diagonals(network: str) -> None:
    case = Case(network)
    ops = case.operators()
    for op, matrix in ((ops.H, case.H), (ops.G, case.G)):
        found = op.diagonal("exact")
        assert found.products == 0
        close(found.value, matrix.diagonal())
        assert abs(op.trace("exact").value - float(matrix.trace())) < 1e-11 * float(matrix.abs().max())
        part = op[next(iter(case.params))]
        assert abs(part.trace("exact").value - float(part.to_dense().trace())) < 1e-12
        damped = 0.5 * op + 0.1 * ops.identity
        close(damped.diagonal("exact").value, 0.5 * matrix.diagonal() + 0.1)


def test_where_nothing_computes_a_trace_it_is_estimated_and_says_so() -> None:
    layers = [
        {"name": "fc1", "type": "dense", "units": 4, "activation": "tanh"},
        {"name": "fc2", "type": "dense", "units": 4, "share": "fc1"},
        {"name": "out", "type": "dense", "units": 3},
    ]
    network = {"input": {"name": "image", "size": 4}, "layers": layers}
    ops = Case(keys=(("network", network),)).operators()
    assert ops.H.trace().method == "xtrace" and ops.H.diagonal().method == "hutchinson"
    with pytest.raises(sifrc.OperatorError, match="nothing computes the trace of H"):
        ops.H.trace("exact")


def test_a_sum_over_samples_adds_batches_up() -> None:
    keys = (("loss", {"function": "cross_entropy", "reduction": "sum"}),)
    case, summed = Case("dense"), Case("dense", keys=keys)
    ops, count = summed.operators(), len(case.targets)
    agrees(ops.H, count * case.H)
    agrees(ops.G, count * case.G)
    agrees(ops.blocks("ggn"), count * case.block_diagonal(case.G))
    close(ops.G.diagonal("exact").value, count * case.G.diagonal())
    agrees(ops.kronecker(), count * case.operators().kronecker().to_dense())
    assert abs(ops.G.trace("exact").value - count * float(case.G.trace())) < 1e-10


def test_state_regularisation_is_part_of_the_hessian_and_not_of_the_gauss_newton_matrix() -> None:
    case = Case("dense", keys=(("regularization", {"state": 0.3}),))
    ops = case.operators()
    agrees(ops.G, Case("dense").G)
    plain = Case("dense").H
    assert float((ops.H.to_dense() - plain).abs().max()) > 1e-3
    whole = case.operators((case.inputs, case.targets))
    agrees(ops.H, whole.H.to_dense())


def test_what_becomes_of_parameters_changes_no_operator() -> None:
    case = Case("dense", sizes=(4,))
    ops = case.operators()
    for value in case.params.values():
        value.zero_()
    agrees(ops.H, Case("dense", sizes=(4,)).H)


def test_in_float32() -> None:
    case = Case("conv")
    params = {name: value.float() for name, value in case.params.items()}
    data = [(x.float(), y) for x, y in case.batches]
    ops = sifrc.operators(case.data, None, data, params=params)
    assert ops.H.dtype == torch.float32
    close(ops.H.to_dense().double(), case.H, 1e-5)
    with pytest.raises(sifrc.OperatorError, match="float64, and the parameters are of"):
        sifrc.operators(case.data, None, case.batches, params=params)


def test_an_operator_is_its_rows_and_columns() -> None:
    op = Case("dense").operators().H
    assert isinstance(op, LinearOperator)
    assert op.shape == (60, 60) and op.dtype == torch.float64 and op.device == torch.device("cpu")
    assert repr(op["fc1"]) == "<H[fc1.weight, fc1.bias]: 25 × 25, float64, cpu>"


def test_transforms_of_torch_func(case: Case) -> None:
    """A product is a linear function: maps over vectors are columns, its pullback is its transpose."""
    ops = case.operators((case.inputs, case.targets))
    several = torch.stack([case.flat, case.flat.flip(0), case.flat**2])
    for operator, dense in ((ops.H, case.H), (ops.G, case.G)):
        close(torch.func.vmap(lambda v: operator @ v)(several).T, dense @ several.T)
        close(torch.func.vjp(lambda v: operator @ v, case.flat)[1](several[1])[0], dense @ several[1])
        close(
            torch.func.jvp(lambda v: v @ (operator @ v), (case.flat,), (several[2],))[1],
            2 * several[2] @ dense @ case.flat,
        )
        close(operator @ several[1], dense @ several[1])
