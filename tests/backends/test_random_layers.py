"""Random graphs of all types of layers: generated modules against torch.func, layer by layer by hand."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import numba
import numpy as np
import pytest
import torch
from curvature_modules import load
from curvature_oracle import assert_close
from elementary_layers import Elementary, derivatives_of, drawn_inputs
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from layer_cases import drawn_buffers
from layer_strategies import layer_specs

from sifrc.spec import build_spec, spec_to_dict

OPERATORS = ("gradient", "hessian_vector_product", "gauss_newton_vector_product")
BATCH = 2
RANDOM = settings(deadline=None, derandomize=True, print_blob=True, suppress_health_check=list(HealthCheck))


def agree(data: dict[str, Any], module: ModuleType, seed: int) -> None:
    """Outputs, gradient and both products."""
    generator = torch.Generator().manual_seed(seed)

    def drawn(*shape: int) -> Any:
        return 0.8 * torch.randn(*shape, generator=generator, dtype=torch.float64)

    params, vector = ({name: drawn(*shape) for name, shape in module.SHAPES.items()} for _ in range(2))
    x = drawn_inputs(data, BATCH, generator)
    classes = data["loss"] == "cross_entropy"
    t = torch.randint(3, (BATCH,), generator=generator) if classes else drawn(BATCH, 3)
    buffers = drawn_buffers(module, generator)
    expected = derivatives_of(
        lambda values, x: Elementary(data)(values | buffers, x), data["loss"], (params, x, t), vector
    )
    params = params | buffers
    output = Elementary(data, training=False)(params, x)

    def own(value: Any) -> Any:
        if hasattr(module, "torch"):
            return value
        if isinstance(value, tuple):
            return tuple(map(own, value))
        return {k: own(v) for k, v in value.items()} if isinstance(value, dict) else value.numpy()

    point = tuple(map(own, (params, x, t)))
    np.testing.assert_allclose(module.predict(*point[:2]), output, rtol=1e-11, atol=1e-11)
    assert_close(module.gradient(*point), expected["gradient"])
    for operator in OPERATORS[1:]:
        assert_close(getattr(module, operator)(*point, own(vector)), expected[operator])


@given(data=layer_specs(), seed=st.integers(0, 2**16))
@settings(RANDOM, max_examples=10)
def test_random_layers(data: dict[str, Any], seed: int, tmp_path_factory: Any) -> None:
    """And the canonical form gives the same spec."""
    spec = build_spec(data)
    assert build_spec(spec_to_dict(spec)) == spec
    agree(data, load(spec, "torch", tmp_path_factory.mktemp("layers"), OPERATORS), seed)


@pytest.mark.slow
@pytest.mark.timeout(5400)
@given(data=layer_specs(), seed=st.integers(0, 2**16))
@settings(RANDOM, max_examples=500)
def test_many_random_layers(data: dict[str, Any], seed: int, tmp_path_factory: Any) -> None:
    """The same on many more, on some of them in Numba too, with the JIT off."""
    spec = build_spec(data)
    folder: Path = tmp_path_factory.mktemp("layers")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(numba.config, "DISABLE_JIT", 1)
        for backend in ("torch", "numba") if seed % 5 == 0 else ("torch",):
            agree(data, load(spec, backend, folder, OPERATORS), seed)
