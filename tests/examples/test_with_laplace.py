"""The backends for laplace-torch: matrices against dense ones of torch.func, and against its own backends."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from library_examples import example
from torch import nn
from torch.func import functional_call, grad, jacrev, vmap

pytestmark = pytest.mark.slow


@cache
def module() -> Any:
    """Imported when the first test runs."""
    return example("with_laplace", "laplace")


def own_backends() -> tuple[Any, Any]:
    """Those of laplace-torch for the Gauss–Newton matrix and for the empirical Fisher matrix."""
    module()
    from laplace.curvature import CurvlinopsEF, CurvlinopsGGN

    return CurvlinopsGGN, CurvlinopsEF


def network(kind: str) -> nn.Module:
    torch.manual_seed(0)
    if kind == "convolution":
        parts = [nn.Conv2d(1, 3, 3), nn.Tanh(), nn.Flatten(), nn.Linear(48, 3)]
    else:
        parts = [nn.Linear(4, 6), nn.Tanh(), nn.BatchNorm1d(6, affine=False), nn.Linear(6, 3)]
    return nn.Sequential(*parts).double().eval()


def batch(kind: str, likelihood: str, size: int = 14) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(1)
    shape = (1, 6, 6) if kind == "convolution" else (4,)
    x = torch.randn(size, *shape, generator=draw, dtype=torch.float64)
    if likelihood == "classification":
        return x, torch.randint(3, (size,), generator=draw)
    return x, torch.randn(size, 3, generator=draw, dtype=torch.float64)


def jacobians(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """(B, K, parameters)."""
    own = {name: value.detach() for name, value in model.named_parameters()}
    found = jacrev(lambda p: functional_call(model, p, (x,)))(own)
    return torch.cat([value.flatten(2) for value in found.values()], 2)


def curvature(model: nn.Module, x: torch.Tensor, y: torch.Tensor, matrix: str) -> torch.Tensor:
    """Σ Jᵀ Λ J for a log likelihood with covariance 1, or Σ s sᵀ; dense."""
    rows, outputs = jacobians(model, x), model(x).detach()
    if y.dtype == torch.int64:
        p = outputs.softmax(1)
        middle = torch.diag_embed(p) - p[:, :, None] * p[:, None]
        slopes = p - nn.functional.one_hot(y, 3)
        factor = 1.0
    else:
        middle, slopes, factor = torch.eye(3).double().expand(len(x), 3, 3), 2.0 * (outputs - y), 0.5
    if matrix == "ggn":
        return torch.einsum("bip,bij,bjq->pq", rows, middle, rows)
    scores = torch.einsum("bip,bi->bp", rows, slopes)
    return factor * scores.T @ scores


CASES = [
    (kind, likelihood) for kind in ("dense", "convolution") for likelihood in ("classification", "regression")
]


def backend(name: str, model: nn.Module, likelihood: str, **more: Any) -> Any:
    return getattr(module(), name)(model, likelihood, **more)


@pytest.mark.parametrize("kind, likelihood", CASES)
def test_full_and_diagonal(kind: str, likelihood: str) -> None:
    """Of all parameters and of some, with the loss; the mean of a batch norm is a buffer."""
    model, (x, y) = network(kind), batch(kind, likelihood)
    loss = nn.functional.cross_entropy if likelihood == "classification" else nn.functional.mse_loss
    value = float(loss(model(x), y, reduction="sum").detach()) * (
        1.0 if likelihood == "classification" else 0.5
    )
    some = torch.tensor([0, 3, 17, 20])
    for name, matrix in (("SifrcGGN", "ggn"), ("SifrcEF", "ef")):
        dense = curvature(model, x, y, matrix)
        own = backend(name, model, likelihood)
        found, full = own.full(x, y)
        torch.testing.assert_close(full, dense, rtol=0, atol=1e-9)
        assert float(found) == pytest.approx(value, rel=1e-10)
        torch.testing.assert_close(own.diag(x, y)[1], dense.diagonal(), rtol=0, atol=1e-9)
        part = backend(name, model, likelihood, subnetwork_indices=some)
        torch.testing.assert_close(part.full(x, y)[1], dense[some][:, some], rtol=0, atol=1e-9)
        torch.testing.assert_close(part.diag(x, y)[1], dense[some, some], rtol=0, atol=1e-9)
        torch.testing.assert_close(part.jacobians(x)[0], jacobians(model, x)[:, :, some])


@pytest.mark.parametrize("kind, likelihood", CASES)
def test_jacobians_and_gradients(kind: str, likelihood: str) -> None:
    """Of every sample; with a graph back to the inputs where it is asked for."""
    model, (x, y) = network(kind), batch(kind, likelihood)
    own = backend("SifrcGGN", model, likelihood)
    rows, outputs = own.jacobians(x)
    torch.testing.assert_close(rows, jacobians(model, x), rtol=0, atol=1e-12)
    torch.testing.assert_close(outputs, model(x).detach(), rtol=0, atol=1e-12)
    assert own.jacobians(x.clone().requires_grad_(), enable_backprop=True)[0].requires_grad

    params = {name: value.detach() for name, value in model.named_parameters()}

    def loss(p: Any, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = own.lossfunc(functional_call(model, p, (a[None],)), b[None])
        return found

    each = vmap(grad(loss), in_dims=(None, 0, 0))(params, x, y)
    expected = torch.cat([value.flatten(1) for value in each.values()], 1)
    torch.testing.assert_close(own.gradients(x, y)[0], expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind, likelihood", CASES)
def test_kronecker_factors(kind: str, likelihood: str) -> None:
    """Those of curvlinops, whichever way a convolution is taken; batches of other sizes add up."""
    ggn, ef = own_backends()
    model, (x, y) = network(kind), batch(kind, likelihood)
    for name, other in (("SifrcGGN", ggn), ("SifrcEF", ef)):
        for sharing in ("expand", "reduce"):
            both = []
            for one in (backend(name, model, likelihood), other(model, likelihood)):
                parts = [one.kron(x[p], y[p], N=14, kfac_approx=sharing)[1] for p in (slice(9), slice(9, 14))]
                both.append((parts[0] + parts[1]).to_matrix())
            torch.testing.assert_close(both[0], both[1], rtol=0, atol=1e-9)


def test_one_dense_layer_is_exact_in_a_factor() -> None:
    """One sample, one layer: the Kronecker product is the block of the Gauss–Newton matrix."""
    model = nn.Sequential(nn.Linear(4, 3)).double().eval()
    x, y = batch("dense", "classification", 1)
    found = backend("SifrcGGN", model, "classification").kron(x, y, N=1)[1].to_matrix()
    dense = curvature(model, x, y, "ggn")
    torch.testing.assert_close(found[:12, :12], dense[:12, :12], rtol=0, atol=1e-12)
    torch.testing.assert_close(found[12:, 12:], dense[12:, 12:], rtol=0, atol=1e-12)


def test_drawn_targets_have_the_right_mean() -> None:
    """The stochastic form over many draws, as laplace-torch asks for it."""
    model, (x, y) = network("dense"), batch("dense", "classification", 6)
    torch.manual_seed(0)
    dense = curvature(model, x, y, "ggn")
    found = backend("SifrcGGN", model, "classification", stochastic=True, num_samples=200).full(x, y)[1]
    assert float((found - dense).norm() / dense.norm()) < 0.2
    few = backend("SifrcGGN", model, "classification", stochastic=True)
    assert not torch.equal(few.full(x, y)[1], few.full(x, y)[1])  # other draws each time
    factors = [few.kron(x, y, N=6)[1].to_matrix() for _ in range(100)]
    expected = backend("SifrcGGN", model, "classification").kron(x, y, N=6)[1].to_matrix()
    assert float((sum(factors) / 100 - expected).norm() / expected.norm()) < 0.2


@pytest.mark.parametrize("structure", ["full", "kron", "diag"])
@pytest.mark.parametrize("layers", ["all", "last_layer"])
def test_posteriors(layers: str, structure: str) -> None:
    """Marginal likelihood and predictions, with the precision of the prior optimised, by both backends."""
    found = []
    model = module().trained()
    for one in (module().SifrcGGN, own_backends()[0]):
        posterior = module().approximation(model, one, layers, structure)
        values = [posterior.log_marginal_likelihood().detach()]
        posterior.optimize_prior_precision(pred_type="glm", method="marglik", n_steps=10)
        values += [posterior.log_marginal_likelihood().detach(), posterior(module().spiral()[0][:5]).detach()]
        found.append(torch.cat([value.reshape(-1) for value in values]))
    torch.testing.assert_close(found[0], found[1], rtol=1e-7, atol=1e-9)
