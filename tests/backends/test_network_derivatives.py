"""Automatic differentiation of a generated ``Network``: second derivatives are right in every mode.

Some functions of Torch have a derivative whose own derivative is wrong, as ``native_layer_norm``: twice
forward, reverse over forward, and in ``torch.func.hessian``. A forward pass calls none of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from curvature_modules import load
from curvature_oracle import assert_close
from elementary_layers import Elementary, loss_of_outputs
from layer_cases import HIDDEN, LAYER_CASES, layer_spec
from test_layer_types import point_at
from torch import Tensor
from torch.func import functional_call, grad, hessian, jvp

from sifrc.spec import build_spec

MANY = {**HIDDEN, "units": 12}
"""Entries that are not added one after the other."""
CASES: dict[str, dict[str, Any]] = {
    name: LAYER_CASES[name]
    for name in (
        *("layer norm", "layer norm of one axis", "layer norm over several", "layer norm without a weight"),
        *("rms norm", "group norm", "instance norm", "softmax of places", "causal attention"),
        *("max of several", "residual of convolutions", "transformer", "gated"),
    )
} | {
    f"{kind} of many entries": layer_spec([2, 3], [MANY, {"name": "r", "type": kind}])
    for kind in ("layer_norm", "rms_norm", "softmax")
}
CASES |= {
    f"{name} of entries": layer_spec([2, 3], [{**HIDDEN, "activation": name}])
    for name in ("relu", "elu", "gelu", "silu", "softplus", "sigmoid")
}


def second_order(run: Any, loss: str, point: tuple[Any, Any, Any], vector: dict[str, Tensor]) -> Any:
    """Gradient, the Hessian times a vector in four modes, and vᵀ H v by two forward ones."""
    params, x, t = point

    def value(values: Mapping[str, Tensor]) -> Tensor:
        return loss_of_outputs(loss, run(values, x), t)

    def along(values: Mapping[str, Tensor]) -> Tensor:
        return jvp(value, (values,), (vector,))[1]

    def slope_along(values: Mapping[str, Tensor]) -> Tensor:
        slope = grad(value)(values)
        return torch.stack([(slope[name] * vector[name]).sum() for name in slope]).sum()

    def times_vector(row: Mapping[str, Tensor]) -> Tensor:
        parts = [torch.tensordot(row[name], entry, entry.dim()) for name, entry in vector.items()]
        return torch.stack(parts).sum(0)

    slope, forward_over_reverse = jvp(grad(value), (params,), (vector,))
    return {
        "gradient": slope,
        "forward over reverse": forward_over_reverse,
        "reverse over reverse": grad(slope_along)(params),
        "reverse over forward": grad(along)(params),
        "whole": {name: times_vector(row) for name, row in hessian(value)(params).items()},
        "forward over forward": {"": jvp(along, (params,), (vector,))[1]},
    }


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("case", CASES)
def test_derivatives_of_a_network(case: str, dtype: str, tmp_path: Path) -> None:
    """Modules of either precision, which call other functions, at parameters of double precision."""
    data = CASES[case] | {"dtype": dtype}
    module = load(build_spec(data), "torch", tmp_path, ("gradient",))
    point, vector = point_at(module, data)
    network = module.Network()

    def run(values: Mapping[str, Tensor], x: Any) -> Tensor:
        found: Tensor = functional_call(network, dict(values), (x,))
        return found

    found = second_order(run, data["loss"], point, vector)
    expected = second_order(Elementary(data), data["loss"], point, vector)
    for mode, value in expected.items():
        assert_close(found[mode], value)
