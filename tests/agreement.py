"""The comparison of derived quantities with torch.func that several tests share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from sifrc.derive.derived import Derived
from sifrc.model import build_model
from sifrc.spec import build_spec
from sifrc.verify.comparison import rounding_bound
from sifrc.verify.oracles import forward_torch as oracle_torch
from sifrc.verify.points import random_point
from sifrc.verify.precise.systems import SampleSystems

__all__ = ["check"]


def close(found: dict[str, Any], expected: dict[str, torch.Tensor], bound: float, scale: float) -> None:
    """Entries agree to ``bound`` relative to the largest number involved."""
    assert list(found) == list(expected)
    for name, value in expected.items():
        assert np.shape(found[name]) == tuple(value.shape)
        error = np.max(np.abs(np.asarray(found[name]) - value.numpy()), initial=0.0)
        assert error <= bound * max(scale, float(value.abs().max())), (name, error, scale)


def check(data: Mapping[str, Any], seed: int) -> None:
    """All first- and second-order quantities of one spec at one random point, one sample."""
    spec = build_spec(dict(data))
    point = random_point(spec, seed)
    derived = SampleSystems(Derived(build_model(spec)), point.params, *point.sample())
    params = {name: torch.from_numpy(value) for name, value in point.params.items()}
    vector = {name: torch.from_numpy(value) for name, value in point.vector.items()}
    batch = (params, torch.from_numpy(point.inputs), torch.from_numpy(point.targets))
    forward = oracle_torch.ForwardTorch(spec)
    objective = float(forward(*batch))
    gradient = oracle_torch.gradient(spec, *batch)
    # Roundings of the states reach a derivative with the size of the objective and of the gradient.
    scale = max(1.0, abs(objective), float(oracle_torch.flatten(gradient).abs().max()))
    moved = oracle_torch.hvp(spec, *batch, vector)
    assert (
        abs(float(derived.loss()) - float(forward.loss(*batch)))
        <= rounding_bound(spec, "loss", "float64") * scale
    )
    assert abs(float(derived.objective()) - objective) <= rounding_bound(spec, "objective", "float64") * scale
    close(derived.gradient(), gradient, rounding_bound(spec, "gradient", "float64"), scale)
    scale = max(scale, float(oracle_torch.flatten(moved).abs().max()))
    bound = rounding_bound(spec, "hessian_vector_product", "float64")
    close(derived.hessian_vector_product(point.vector), moved, bound, scale)
    close(
        derived.gauss_newton_vector_product(point.vector),
        oracle_torch.ggn_vp(spec, *batch, vector),
        bound,
        scale,
    )
