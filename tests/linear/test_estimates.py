"""Estimators against exact values, within the errors that are proved for them; spectra against dense ones."""

from __future__ import annotations

from math import sqrt

import pytest
import torch
from dense_oracle import Case, close

import sifrc
from sifrc.linear import CurvatureOperators, LinearOperator
from sifrc.linear.density import lanczos
from sifrc.linear.probes import signs

CASE = Case("conv", sizes=(20,))
SIGMAS = 5.0
"""Standard deviations within which a mean is; seeds are fixed, so that no verdict changes."""


@pytest.fixture(scope="module")
def ops() -> CurvatureOperators:
    return CASE.operators()


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("which", ["H", "G"])
def test_hutchinson_is_within_its_variance(ops: CurvatureOperators, which: str, seed: int) -> None:
    matrix = getattr(CASE, which)
    found = getattr(ops, which).trace("hutchinson", probes=40, seed=seed)
    beside = matrix - torch.diag(matrix.diagonal())
    proved = sqrt(2 * float(beside.square().sum()) / 40)
    assert abs(found.value - float(matrix.trace())) < SIGMAS * proved
    assert 0.5 * proved < found.error < 2 * proved and found.products == 40


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("method", ["hutch++", "xtrace"])
@pytest.mark.parametrize("which", ["H", "G"])
def test_better_estimators_are_better_by_what_the_range_takes_away(
    ops: CurvatureOperators, which: str, method: str, seed: int
) -> None:
    """At most Hutchinson's on what is beside the best range of a sixth of the products (Hutch++, 2.1)."""
    matrix, probes = getattr(CASE, which), 48
    found = getattr(ops, which).trace(method, probes=probes, seed=seed)
    values = torch.linalg.eigvalsh(matrix).abs().sort(descending=True).values
    beside = sqrt(2 * float(values[probes // 6 :].square().sum()) / (probes // 3))
    difference = abs(found.value - float(matrix.trace()))
    assert difference < SIGMAS * beside
    assert difference < SIGMAS * found.error + 1e-12
    assert found.products <= probes


@pytest.mark.parametrize("method", ["hutch++", "xtrace"])
def test_they_are_exact_for_what_probes_span(ops: CurvatureOperators, method: str) -> None:
    """A block that is small enough, and the matrix of two samples with three classes, of rank 4."""
    part, exact = ops.G["out.bias"], float(CASE.G[-3:, -3:].trace())
    found = part.trace(method, probes=12)
    assert abs(found.value - exact) < 1e-13 and found.error == 0.0
    low = sifrc.operators(CASE.data, None, (CASE.inputs[:2], CASE.targets[:2]), params=CASE.params).G
    rank = int(torch.linalg.matrix_rank(low.to_dense()))
    assert rank == 4
    close_to = float(low.to_dense().trace())
    found = low.trace(method, probes=30)
    assert abs(found.value - close_to) < 1e-12 and found.error < 1e-12
    close(low.diagonal("xdiag", probes=30).value, low.to_dense().diagonal())


@pytest.mark.parametrize("method", ["hutchinson", "xdiag"])
@pytest.mark.parametrize("which", ["H", "G"])
def test_diagonals_are_within_their_variance(ops: CurvatureOperators, which: str, method: str) -> None:
    matrix, probes = getattr(CASE, which), 60
    found = getattr(ops, which).diagonal(method, probes=probes, seed=4)
    beside = (matrix - torch.diag(matrix.diagonal())).square().sum(1)
    proved = (beside / probes).sqrt()
    difference = (found.value - matrix.diagonal()).abs()
    assert bool((difference < SIGMAS * proved + 1e-14).all())
    if method == "hutchinson":
        assert 0.8 < float(found.error.norm() / proved.norm()) < 1.2
    elif which == "G":
        assert float(difference.norm()) < 0.3 * float(proved.norm())


@pytest.mark.parametrize("which", ["H", "G"])
def test_leaving_probes_out_one_at_a_time_gives_the_same(ops: CurvatureOperators, which: str) -> None:
    """XTrace and XDiag as they are defined: a range of its own for each probe."""
    op, matrix, count = getattr(ops, which), getattr(CASE, which), 8
    n, probes, eye = len(matrix), signs(op, count, 3), torch.eye(len(matrix), dtype=torch.float64)
    traces, diagonals = [], []
    for k in range(count):
        others = [j for j in range(count) if j != k]
        q = torch.linalg.qr(matrix @ probes[:, others])[0]
        beside = eye - q @ q.T
        z, left = probes[:, k], beside @ probes[:, k]
        scale = (n - count + 1) / float(left @ left)
        traces.append((q.T @ matrix @ q).trace() + scale * (left @ matrix @ left))
        diagonals.append((q @ q.T @ matrix).diagonal() + z * (beside @ matrix @ z))
    expected = torch.stack(traces)
    found = op.trace("xtrace", probes=2 * count, seed=3)
    assert abs(found.value - float(expected.mean())) < 1e-11
    assert abs(found.error - float(expected.std()) / sqrt(count)) < 1e-11
    close(op.diagonal("xdiag", probes=2 * count, seed=3).value, torch.stack(diagonals).mean(0), 1e-10)


def test_norms(ops: CurvatureOperators) -> None:
    for op, matrix in ((ops.H, CASE.H), (ops.H.sub("conv", "out"), CASE.H[:57, 57:])):
        found = op.norm("frobenius", probes=400)
        exact = float(matrix.norm())
        proved = sqrt(2 * float((matrix.T @ matrix).square().sum()) / 400) / (2 * exact)
        assert abs(found.value - exact) < SIGMAS * proved and 0.8 * proved < found.error < 1.25 * proved
        assert abs(op.norm("spectral").value / float(torch.linalg.matrix_norm(matrix, 2)) - 1) < 1e-10
    with pytest.raises(sifrc.OperatorError, match="a norm 'nuclear'"):
        ops.H.norm("nuclear")  # type: ignore[arg-type]


@pytest.mark.parametrize("which", ["LA", "SA", "LM", "BE"])
def test_eigenvalues_and_vectors(ops: CurvatureOperators, which: str) -> None:
    values = torch.linalg.eigvalsh(CASE.H)
    order = {
        "LA": values.argsort(descending=True)[:4],
        "SA": values.argsort()[:4],
        "LM": values.abs().argsort(descending=True)[:4],
        "BE": torch.tensor([0, 1, len(values) - 2, len(values) - 1]),
    }
    expected = values[order[which]].sort(descending=True).values
    found = ops.H.eigsh(4, which)  # type: ignore[arg-type]
    size = float(values.abs().max())
    assert float((found.values - expected).abs().max()) < 1e-10 * size
    close(found.vectors.T @ found.vectors, torch.eye(4, dtype=torch.float64), 1e-9)
    left = CASE.H @ found.vectors - found.vectors * found.values
    assert float(left.abs().max()) < 1e-9 * size


def test_eigenvalues_by_lobpcg_and_of_small_parts(ops: CurvatureOperators) -> None:
    values = torch.linalg.eigvalsh(CASE.H)
    found = ops.H.eigsh(3, method="lobpcg", tolerance=1e-8)
    assert float((found.values - values.flip(0)[:3]).abs().max()) < 1e-7
    close(ops.H["out.bias"].eigsh(3).values, torch.linalg.eigvalsh(CASE.H[-3:, -3:]).flip(0))
    for arguments, message in (
        ({"k": 0}, "0 eigenvalues of H"),
        ({"k": 2, "which": "largest"}, "eigenvalues 'largest'"),
        ({"k": 2, "which": "LM", "method": "lobpcg"}, "'LM' by 'lobpcg'"),
    ):
        with pytest.raises(sifrc.OperatorError, match=message):
            ops.H.eigsh(**arguments)
    with pytest.raises(sifrc.OperatorError, match="of 3 eigenvalues of H after all iterations"):
        ops.H.eigsh(3, "BE", limit=1)


def test_lanczos_with_all_steps_has_the_spectrum(ops: CurvatureOperators) -> None:
    """No eigenvalue comes twice: without reorthogonalisation some would."""
    op: LinearOperator = ops.H["out"]
    n = op.shape[0]
    start = torch.randn(n, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    diagonal, beside = lanczos(op, start, n)
    found = torch.linalg.eigvalsh(torch.diag(diagonal) + torch.diag(beside, 1) + torch.diag(beside, -1))
    exact = torch.linalg.eigvalsh(CASE.H[57:, 57:])
    distinct = exact[exact.abs() > 1e-9 * exact.abs().max()]
    nearest = (distinct[:, None] - found).abs().amin(1)
    size = float(exact.abs().max())
    assert float(nearest.max()) < 1e-12 * size
    assert int((found.abs() > 1e-9 * size).sum()) == len(distinct)


def test_a_density_has_the_moments_of_the_spectrum(ops: CurvatureOperators) -> None:
    """A rule of m nodes is exact for polynomials of degree 2m − 1: what is left is the variance of probes."""
    found = ops.H.spectral_density(probes=20, steps=5)
    n = len(CASE.H)
    for power in (1, 2, 9):
        matrix = torch.linalg.matrix_power(CASE.H, power)
        exact, proved = float(matrix.trace()) / n, sqrt(2 * float(matrix.square().sum()) / 20) / n
        mean, error = found.mean(lambda values, power=power: values**power)  # type: ignore[misc]
        assert abs(mean - exact) < SIGMAS * proved and error < 3 * proved
    points = found.points(2000, margin=0.5)
    heights = found.density(points)
    assert abs(float(torch.trapezoid(heights, points)) - 1) < 1e-3
    assert bool((heights >= 0).all())
    assert bool((found.weights.sum(1) - 1).abs().max() < 1e-12)


def test_the_same_seed_gives_the_same(ops: CurvatureOperators) -> None:
    for method in ("hutchinson", "hutch++", "xtrace"):
        one, same, other = (ops.H.trace(method, seed=seed).value for seed in (1, 1, 2))
        assert one == same != other
    assert torch.equal(ops.H.eigsh(2).vectors, ops.H.eigsh(2).vectors)


def test_too_few_probes_and_unknown_methods_are_refused(ops: CurvatureOperators) -> None:
    for method, probes in (("hutchinson", 1), ("hutch++", 5), ("xtrace", 3), ("xtrace", 4.5)):
        with pytest.raises(sifrc.OperatorError, match="probes"):
            ops.H.trace(method, probes=probes)  # type: ignore[arg-type]
    with pytest.raises(sifrc.OperatorError, match="the trace of H by 'lanczos'"):
        ops.H.trace("lanczos")
    with pytest.raises(sifrc.OperatorError, match="the diagonal of H by 'xtrace'"):
        ops.H.diagonal("xtrace")
    with pytest.raises(sifrc.OperatorError, match="1 steps of Lanczos"):
        ops.H.spectral_density(steps=1)


def test_numbers_that_are_too_coarse_are_refused() -> None:
    params = {name: value.bfloat16() for name, value in CASE.params.items()}
    ops = sifrc.operators(CASE.data, None, (CASE.inputs.bfloat16(), CASE.targets), params=params)
    vector = torch.ones(ops.H.shape[1], dtype=torch.bfloat16)
    close((ops.H @ vector).double(), CASE.H @ vector.double(), 0.1)
    for estimate in (
        lambda: ops.H.trace("xtrace"),
        lambda: ops.H.trace("hutch++"),
        lambda: ops.H.diagonal("xdiag"),
        ops.H.spectral_density,
    ):
        with pytest.raises(sifrc.OperatorError, match=r"an operator of torch\.bfloat16"):
            estimate()
    assert ops.H.trace("hutchinson", probes=4).products == 4


def test_a_width_is_positive(ops: CurvatureOperators) -> None:
    found = ops.H["out.bias"].spectral_density(probes=2, steps=3)
    with pytest.raises(sifrc.OperatorError, match="a density of width 0"):
        found.density(found.points(), width=0)
