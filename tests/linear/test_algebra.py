"""Operators made of operators, and those whose products solve systems."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from dense_oracle import Case, agrees, close

import sifrc
from sifrc.linear import CurvatureOperators, Kronecker, identity

CASE = Case("dense")
EYE = torch.eye(60, dtype=torch.float64)


@pytest.fixture(scope="module")
def ops() -> CurvatureOperators:
    return CASE.operators()


def test_sums_multiples_and_products(ops: CurvatureOperators) -> None:
    agrees(ops.H + ops.G, CASE.H + CASE.G)
    agrees(ops.H - 0.5 * ops.G, CASE.H - 0.5 * CASE.G)
    agrees(-ops.H / 4, -CASE.H / 4)
    agrees(ops.H * 3 + 0.1 * ops.identity, 3 * CASE.H + 0.1 * EYE)
    agrees(sum([ops.H, ops.G]), CASE.H + CASE.G)
    agrees(ops.H @ ops.G, CASE.H @ CASE.G)
    part = ops.H.sub("fc1.weight", "out")
    dense = CASE.H[:20, -15:]
    agrees(part.T @ part, dense.T @ dense)
    assert (part.T @ part).symmetric and (part @ part.T).symmetric and not (ops.H @ ops.G).symmetric
    agrees((ops.H @ ops.G).T, CASE.G @ CASE.H)


def test_what_does_not_fit_is_refused(ops: CurvatureOperators) -> None:
    with pytest.raises(sifrc.OperatorError, match="spaces of other tensors"):
        ops.H + ops.H["fc1"]
    with pytest.raises(sifrc.OperatorError, match="spaces of other tensors"):
        ops.H @ ops.H["fc1"]
    with pytest.raises(sifrc.OperatorError, match=r"float64 on cpu, and torch.float32 on cpu"):
        ops.H + identity(ops.space.shapes)
    with pytest.raises(sifrc.OperatorError, match="a finite number"):
        float("nan") * ops.H
    with pytest.raises(TypeError, match="unsupported operand"):
        ops.H + "1.0"  # type: ignore[operator]
    with pytest.raises(sifrc.OperatorError, match="rows and columns are not the same"):
        ops.H.sub("fc1", "out").trace()
    with pytest.raises(sifrc.OperatorError, match="not known to be symmetric"):
        (ops.H @ ops.G).eigsh()
    with pytest.raises(sifrc.OperatorError, match=r"'fc2.weight' is in none of the parts"):
        ops.H.block_diagonal({"first": ["fc1"], "last": ["out"]})
    with pytest.raises(sifrc.OperatorError, match=r"'fc1.bias' is in several of the parts"):
        ops.H.block_diagonal({"some": ["fc1", "fc2"], "others": ["out", "*.bias"]})
    with pytest.raises(sifrc.OperatorError, match="parts by 'layers'"):
        ops.H.per("layers")


NUMBERS: dict[str, Any] = {
    "number": 1e-2,
    "whole": 2,
    "fraction": Fraction(1, 4),
    "numpy": np.float64(0.5),
    "tensor": torch.tensor(0.5),
}
TERMS = {
    "op + {}": lambda op, c: op + c,
    "op - {}": lambda op, c: op - c,
    "{} + op": lambda op, c: c + op,
    "{} - op": lambda op, c: c - op,
}


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("form", TERMS)
def test_a_number_is_added_with_the_identity(ops: CurvatureOperators, form: str, number: str) -> None:
    """The error says what would do, and that does."""
    value = NUMBERS[number]
    wanted = form.format(f"{float(value):g} * ops.identity")
    with pytest.raises(sifrc.OperatorError, match="a number is no operator") as caught:
        TERMS[form](ops.G, value)
    assert caught.value.hint == wanted
    agrees(eval(wanted, {"ops": ops, "op": ops.G}), TERMS[form](CASE.G, float(value) * EYE))


@pytest.mark.parametrize("form", TERMS)
def test_a_tensor_is_no_operator(ops: CurvatureOperators, form: str) -> None:
    with pytest.raises(sifrc.OperatorError, match=r"a tensor of shape \(60, 60\)") as caught:
        TERMS[form](ops.G, EYE)
    assert "op.to_dense()" in str(caught.value)


def test_conjugate_gradients_solve_damped_systems(ops: CurvatureOperators) -> None:
    matrix = CASE.G + 0.1 * EYE
    inverse = (ops.G + 0.1 * ops.identity).inverse()
    close(inverse @ EYE[:, :3], torch.linalg.inv(matrix)[:, :3], 1e-8)
    named = ops.space.split(EYE[0])
    close(ops.space.join(inverse @ named), torch.linalg.inv(matrix)[0], 1e-8)


def test_block_diagonals_are_inverted_part_by_part(ops: CurvatureOperators) -> None:
    damped = (ops.G + 0.1 * ops.identity).block_diagonal()
    groups = list(ops.space.by_module().values())
    expected = torch.linalg.inv(CASE.block_diagonal(CASE.G + 0.1 * EYE, groups))
    close(damped.inverse() @ EYE[:, ::20], expected[:, ::20], 1e-8)


def test_a_system_that_is_not_definite_says_so(ops: CurvatureOperators) -> None:
    with pytest.raises(sifrc.OperatorError, match="not positive definite") as caught:
        ops.H.inverse() @ torch.ones(60, dtype=torch.float64)
    with pytest.raises(sifrc.OperatorError, match="not positive definite"):
        # Conjugate gradients would end, at what solves the system and minimises nothing.
        (-(ops.G + ops.identity)).inverse() @ torch.ones(60, dtype=torch.float64)
    assert caught.value.hint is not None and "damping" in caught.value.hint
    with pytest.raises(sifrc.OperatorError, match="ended with a relative residual"):
        (ops.G + 1e-6 * ops.identity).inverse(limit=2) @ torch.ones(60, dtype=torch.float64)
    with pytest.raises(sifrc.OperatorError, match="a tolerance of 2"):
        ops.G.inverse(tolerance=2)
    with pytest.raises(sifrc.OperatorError, match="by 'lu'"):
        ops.G.inverse("lu")  # type: ignore[arg-type]
    with pytest.raises(sifrc.OperatorError, match="the inverse of 0 I"):
        (0.0 * ops.identity).inverse()


def test_least_squares_of_least_norm(ops: CurvatureOperators) -> None:
    part, dense = ops.H.sub("fc1", "out"), CASE.H[:25, -15:]
    target = dense @ torch.arange(15, dtype=torch.float64)
    found = part.inverse("lsmr") @ target
    close(dense @ found, target, 1e-7)
    close(found, torch.linalg.pinv(dense, rtol=1e-10) @ target, 1e-5)


KRONECKER = [Case("dense"), Case("conv"), Case("dense", "squared_error")]


@pytest.mark.parametrize("case", KRONECKER, ids=lambda case: f"{case.network} {case.loss}")
@pytest.mark.parametrize("kind", ["ggn", "fisher", "empirical_fisher", "hessian"])
def test_kronecker_factors_are_those_of_all_samples(case: Case, kind: str) -> None:
    """By the products with factors that generated modules have, of one batch with all samples."""
    more = {"sharing": "expand"} if case.network == "conv" else {}
    found = case.operators().kronecker(kind)
    module = sifrc.compile(case.data, "torch", "none", ("block_vector_product",), curvature=(kind,))

    def product(vector: torch.Tensor) -> torch.Tensor:
        given = found.rows.split(vector)
        whole = module.block_vector_product(
            case.params, case.inputs, case.targets, given, kind=kind, moment="second", **more
        )
        return found.rows.join(whole)

    vectors = torch.randn(found.shape[0], 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    close(found @ vectors, torch.stack([product(vector) for vector in vectors.T], 1))


def test_kronecker_factors_have_an_exact_inverse_trace_diagonal_and_spectrum() -> None:
    ops = Case("conv").operators()
    op = 2.0 * ops.kronecker("ggn") + 0.1 * ops.identity
    assert isinstance(op, Kronecker)
    dense = op.to_dense()
    close(dense, dense.T, 1e-14)
    close(op.inverse().to_dense(), torch.linalg.inv(dense), 1e-9)
    close(op.inverse().diagonal("exact").value, torch.linalg.inv(dense).diagonal(), 1e-9)
    close(op.diagonal("exact").value, dense.diagonal())
    close(op.eigenvalues(), torch.linalg.eigvalsh(dense).flip(0))
    assert abs(op.trace("exact").value - float(dense.trace())) < 1e-10
    assert abs(op.logdet() - float(torch.logdet(dense))) < 1e-9
    root = op.function(torch.sqrt)
    close((root @ root).to_dense(), dense)
    with pytest.raises(sifrc.OperatorError, match="is singular: eigenvalues from"):
        ops.kronecker("ggn").inverse()
    with pytest.raises(sifrc.OperatorError, match="no logarithm of the determinant"):
        (ops.kronecker("ggn") - ops.identity).logdet()  # type: ignore[attr-defined]


def test_kronecker_factors_of_a_transposed_convolution_act_on_its_own_layout() -> None:
    """At one sample and one place they are the block; inputs are the first axis of such a weight."""
    torch.manual_seed(0)
    first = torch.nn.ConvTranspose2d(2, 3, 2, padding=2)
    module = torch.nn.Sequential(
        first, torch.nn.Sigmoid(), torch.nn.ConvTranspose2d(3, 1, 1), torch.nn.Flatten()
    )
    data = torch.rand(1, 2, 4, 4, dtype=torch.float64), torch.rand(1, 4, dtype=torch.float64)
    data = data[0], data[1][:, : module.double()(data[0]).shape[1]]
    ops = sifrc.operators(module, torch.nn.MSELoss(), data, progress=False)
    found = ops.kronecker("ggn")
    for name, block in ops.G.per("parameter").items():
        close(found[name].to_dense(), block.to_dense())
    close(found.diagonal("exact").value, ops.G.to_dense().diagonal())
    damped = 2.0 * found + 0.1 * ops.identity
    close(damped.inverse().to_dense(), torch.linalg.inv(damped.to_dense()), 1e-9)
    close(damped.inverse().diagonal("exact").value, torch.linalg.inv(damped.to_dense()).diagonal(), 1e-9)


def test_the_forms_of_weights_at_several_places_are_two() -> None:
    ops = Case("conv").operators()
    one, other = (ops.kronecker("ggn", sharing=sharing).to_dense() for sharing in ("expand", "reduce"))
    assert float((one - other).abs().max()) > 1e-3
    dense = Case("dense").operators()  # where weights act at one place
    close(dense.kronecker("ggn", sharing="reduce").to_dense(), dense.kronecker("ggn").to_dense())
    with pytest.raises(sifrc.OperatorError, match="expand or reduce"):
        dense.kronecker("ggn", sharing="all")  # type: ignore[arg-type]


def test_kinds_of_means_over_a_batch_are_refused_for_several() -> None:
    with pytest.raises(sifrc.OperatorError, match="which is made of means over all samples"):
        CASE.operators().kronecker("kfra")
    one = Case("dense", sizes=(5,)).operators()
    assert one.kronecker("kfra").trace().method == "exact"
    with pytest.raises(sifrc.OperatorError, match="unknown kind of curvature 'gnn'") as caught:
        one.blocks("gnn")
    assert caught.value.label == "did you mean 'ggn'?"


def test_blocks_beside_norms_are_exact_and_factors_are_refused() -> None:
    case = Case("norm")
    agrees(case.operators().blocks("ggn"), case.block_diagonal(case.G))
    with pytest.raises(sifrc.OperatorError, match=r"'norm.weight' has no two matrices") as caught:
        case.operators().kronecker("ggn")
    assert "curvature_factors" in str(caught.value.hint)
