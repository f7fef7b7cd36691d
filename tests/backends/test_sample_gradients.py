"""Gradients of single samples, their norms and moments, against automatic differentiation of each sample."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import numba
import numpy as np
import pytest
import torch
from cases import CASES
from compiling import compile_once

from sifrc.cache import load_text
from sifrc.compiler import Request
from sifrc.spec import Spec, build_spec
from sifrc.verify.oracles import forward_torch as oracle
from sifrc.verify.points import Point, random_point

BACKENDS = ("torch", "numba")
NAMES = (
    "tanh_cross_entropy_3",
    "no_bias",
    "shared_skip",
    "skip",
    "spectral_smooth",
    "reduction_sum",
    "selu_huber",
    "places",
    "places_shared",
)
BATCH = 5


def module_of(spec: Spec, backend: str, folder: Path) -> ModuleType:
    text = compile_once(
        spec, Request(backend=backend, method="none", operators=("gradient", "per_sample_gradients"))
    ).text
    path = folder / f"{folder.name}_{backend}.py"
    path.write_text(text, encoding="utf-8")
    return load_text(path.stem, path, text)


def called(module: ModuleType, backend: str, point: Point, name: str, **choices: Any) -> dict[str, Any]:
    """A result as arrays."""
    given: list[Any] = [dict(point.params), point.inputs, point.targets]
    if backend == "torch":
        given = [{k: torch.from_numpy(v) for k, v in point.params.items()}, *map(torch.from_numpy, given[1:])]
    found = getattr(module, name)(*given, **choices)
    return {key: np.asarray(value) for key, value in found.items()}


def each(spec: Spec, point: Point) -> dict[str, Any]:
    """The gradient of every sample by itself; the mean of one sample is that sample."""
    params = {name: torch.from_numpy(value) for name, value in point.params.items()}
    inputs, targets = torch.from_numpy(point.inputs), torch.from_numpy(point.targets)
    rows = [oracle.gradient(spec, params, inputs[n : n + 1], targets[n : n + 1]) for n in range(len(inputs))]
    return {name: np.stack([row[name].numpy() for row in rows]) for name in params}


@pytest.fixture(
    scope="module", params=[(name, backend) for name in NAMES for backend in BACKENDS], ids="-".join
)
def made(request: pytest.FixtureRequest, tmp_path_factory: Any) -> Any:
    name, backend = request.param
    spec = build_spec({**CASES[name], "dtype": "float64"})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(numba.config, "DISABLE_JIT", 1)
        yield spec, backend, module_of(spec, backend, tmp_path_factory.mktemp("samples"))


def test_moments_are_those_of_the_gradients(made: Any) -> None:
    """None, norm, second and variance, whatever the reduction of the loss is."""
    spec, backend, module = made
    point = random_point(spec, 7, BATCH)
    gradients = each(spec, point)
    expected = {
        "none": gradients,
        "norm": {name: (g**2).reshape(BATCH, -1).sum(1) for name, g in gradients.items()},
        "second": {name: (g**2).mean(0) for name, g in gradients.items()},
        "variance": {name: g.var(0) for name, g in gradients.items()},
    }
    for moment, wanted in expected.items():
        found = called(module, backend, point, "per_sample_gradients", moment=moment)
        assert found.keys() == wanted.keys()
        for name, value in wanted.items():
            scale = max(1e-3, float(np.abs(value).max()))
            np.testing.assert_allclose(found[name], value, atol=1e-11 * scale, err_msg=f"{moment} {name}")


def test_their_mean_is_the_gradient(made: Any) -> None:
    """Or their sum, where the loss is one."""
    spec, backend, module = made
    point = random_point(spec, 8, BATCH)
    gradients = called(module, backend, point, "per_sample_gradients")
    whole = called(module, backend, point, "gradient")
    for name, value in gradients.items():
        total = value.sum(0) if spec.loss.reduction == "sum" else value.mean(0)
        np.testing.assert_allclose(total, whole[name], atol=1e-12)


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_unknown_moment_is_named(backend: str, tmp_path: Path) -> None:
    spec = build_spec({**CASES["one_layer"], "dtype": "float64"})
    module = module_of(spec, backend, tmp_path)
    with pytest.raises(
        ValueError, match=r"^moment: expected 'none', 'norm', 'second' or 'variance', got moment='l2'"
    ):
        called(module, backend, random_point(spec, 1, 2), "per_sample_gradients", moment="l2")
