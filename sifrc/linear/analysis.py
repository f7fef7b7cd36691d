"""The curvature of a network in numbers: spectrum, traces and eigenvalues by module, interactions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sifrc.linear.curvature import CurvatureOperators
from sifrc.linear.density import SpectralDensity
from sifrc.linear.operator import Estimate, LinearOperator
from sifrc.linear.probes import count_of_probes, signs

__all__ = ["Analysis", "ModuleCurvature", "analyze"]


@dataclass(frozen=True)
class ModuleCurvature:
    """What belongs to one module.

    Args:
        name: of the module.
        parameters: numbers that it has.
        gradient: Euclidean norm of its part of the gradient.
        hessian: trace of its block of the Hessian.
        gauss_newton: that of the Gauss–Newton matrix.
        largest: largest eigenvalue of its block of the Hessian.
    """

    name: str
    parameters: int
    gradient: float
    hessian: Estimate
    gauss_newton: Estimate
    largest: float


@dataclass(frozen=True, eq=False)
class Analysis:
    """The curvature of a network at a point.

    Args:
        name: of the network.
        parameters: numbers that it has.
        samples: of the data.
        objective: of the data.
        gradient: Euclidean norm.
        largest: largest eigenvalues of the Hessian, the largest first.
        smallest: its smallest ones, the smallest first.
        gauss_newton: largest eigenvalues of the Gauss–Newton matrix.
        modules: what belongs to each module, in order.
        density: of the Hessian's eigenvalues.
        interactions: ⟨u_s, H u_t⟩ of the modules s and t, u the gradient at length one within each module.
    """

    name: str
    parameters: int
    samples: int
    objective: float
    gradient: float
    largest: tuple[float, ...]
    smallest: tuple[float, ...]
    gauss_newton: tuple[float, ...]
    modules: tuple[ModuleCurvature, ...]
    density: SpectralDensity
    interactions: Tensor

    def to_dict(self) -> dict[str, Any]:
        """Numbers, texts, lists and mappings alone, as JSON has them."""

        def estimate(found: Estimate) -> dict[str, Any]:
            return {"value": float(found.value), "error": float(found.error), "method": found.method}

        return {
            "name": self.name,
            "parameters": self.parameters,
            "samples": self.samples,
            "objective": self.objective,
            "gradient_norm": self.gradient,
            "hessian": {"largest": list(self.largest), "smallest": list(self.smallest)},
            "gauss_newton": {"largest": list(self.gauss_newton)},
            "modules": [
                {
                    "name": module.name,
                    "parameters": module.parameters,
                    "gradient_norm": module.gradient,
                    "hessian_trace": estimate(module.hessian),
                    "gauss_newton_trace": estimate(module.gauss_newton),
                    "largest_eigenvalue": module.largest,
                }
                for module in self.modules
            ],
            "density": {
                "eigenvalues": self.density.nodes.flatten().tolist(),
                "weights": self.density.weights.flatten().tolist(),
            },
            "interactions": self.interactions.tolist(),
        }


def analyze(
    operators: CurvatureOperators, *, top: int = 5, probes: int = 10, steps: int = 40, seed: int = 0
) -> Analysis:
    """The curvature of a network at a point.

    Args:
        operators: of the network and the data.
        top: eigenvalues at each end of the spectrum.
        probes: random vectors for traces and for the density.
        steps: of Lanczos for the density.
        seed: of random vectors.

    Example:
        >>> import sifrc, torch
        >>> spec = {"sifrc": 1, "name": "line", "loss": "squared_error", "dtype": "float64", "network": {
        ...     "input": {"size": 2}, "layers": [{"name": "fc", "type": "dense", "units": 1}]}}
        >>> x = torch.tensor([[1.0, 0.0], [0.0, 2.0]], dtype=torch.float64)
        >>> ops = sifrc.operators(spec, None, (x, torch.ones(2, 1, dtype=torch.float64)))
        >>> found = analyze(ops, top=2, probes=4, steps=3)
        >>> [round(value, 3) for value in found.largest], found.modules[0].name
        ([2.651, 0.849], 'fc')
    """
    hessian, gauss_newton = operators.H, operators.G
    size = hessian.shape[0]
    top = max(1, min(top, size - 1))
    gradient: Any = operators.gradient("flat")
    parts = hessian.per("module")
    places = _places(hessian, parts)
    traces = [_traces(each, places, probes, seed) for each in (hessian, gauss_newton)]
    lengths = {name: float(gradient[where].norm()) for name, where in places.items()}
    modules = tuple(
        ModuleCurvature(
            name,
            len(places[name]),
            lengths[name],
            traces[0][name],
            traces[1][name],
            _largest(part),
        )
        for name, part in parts.items()
    )
    near = _tolerance(hessian)
    largest = hessian.eigsh(top, seed=seed, tolerance=near).values
    # Shifted, so that those near zero converge: what is asked of them is relative to the largest.
    bound = float(largest.abs().max())
    shifted = hessian - bound * operators.identity
    smallest = shifted.eigsh(top, "SA", seed=seed, tolerance=near).values + bound
    return Analysis(
        name=operators.name,
        parameters=size,
        samples=operators.samples,
        objective=operators.objective(),
        gradient=float(gradient.norm()),
        largest=tuple(sorted(largest.tolist(), reverse=True)),
        smallest=tuple(sorted(smallest.tolist())),
        gauss_newton=tuple(
            sorted(gauss_newton.eigsh(top, seed=seed, tolerance=near).values.tolist(), reverse=True)
        ),
        modules=modules,
        density=hessian.spectral_density(probes=probes, steps=min(steps, size), seed=seed),
        interactions=_interactions(hessian, gradient, places, lengths),
    )


def _tolerance(operator: LinearOperator) -> float:
    """Relative, of eigenvalues: products have the rounding of a pass through the network themselves."""
    return 100 * torch.finfo(operator.dtype).eps


def _places(operator: LinearOperator, parts: Mapping[str, LinearOperator]) -> dict[str, Tensor]:
    """Positions of each module's numbers in a flat vector."""
    whole = operator.rows.split(torch.arange(operator.shape[0], dtype=operator.dtype))
    return {
        name: torch.cat([whole[tensor].flatten() for tensor in part.rows.shapes]).long()
        for name, part in parts.items()
    }


def _largest(part: LinearOperator) -> float:
    """The largest eigenvalue of a block."""
    if part.shape[0] < 3:
        return float(torch.linalg.eigvalsh(part.to_dense())[-1])
    return float(part.eigsh(1, tolerance=_tolerance(part)).values[0])


def _traces(
    operator: LinearOperator, places: Mapping[str, Tensor], probes: int, seed: int
) -> dict[str, Estimate]:
    """Traces of the blocks of all modules from the same products (Hutchinson 1989)."""
    probes = count_of_probes(probes, 2, "Hutchinson's estimator")
    drawn = signs(operator, probes, seed)
    products = drawn * (operator @ drawn)
    found = {}
    for name, where in places.items():
        values = products[where].sum(0)
        error = float(values.std() / probes**0.5)
        found[name] = Estimate(float(values.mean()), error, "hutchinson", probes)
    return found


def _interactions(
    operator: LinearOperator, gradient: Tensor, places: Mapping[str, Tensor], lengths: Mapping[str, float]
) -> Tensor:
    """⟨u_s, H u_t⟩ for all pairs of modules."""
    directions = torch.zeros(len(gradient), len(places), dtype=gradient.dtype, device=gradient.device)
    for column, (name, where) in enumerate(places.items()):
        length = lengths[name]
        directions[where, column] = gradient[where] / length if length > 0 else 0.0
    found = directions.T @ (operator @ directions)
    return (found + found.T) / 2
