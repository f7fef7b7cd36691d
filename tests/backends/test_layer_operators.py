"""Blocks, diagonals, traces and gradients of samples on networks with norms, attention and positions.

The oracle is the dense Hessian, Gauss–Newton matrix or sum of outer products of a network that is written out
in elementary operations; what does not exist is refused with a reason.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from curvature_modules import load
from curvature_oracle import assert_close
from elementary_layers import Elementary, loss_of_outputs
from layer_cases import HIDDEN, LAYER_CASES, layer_spec
from sampled import one_in
from test_layer_types import At, point_at
from torch.func import grad, jacrev, vmap

from sifrc.compiler import Request, compile_spec
from sifrc.errors import DerivationError
from sifrc.spec import build_spec

OPERATORS = (
    *("per_sample_gradients", "block_hessian", "block_vector_product", "diagonal", "hessian_diagonal"),
    "trace",
)
EXACT = ("hessian", "ggn", "fisher", "empirical_fisher")

CONV = {"name": "c", "type": "conv", "channels": 4, "kernel": 2, "activation": "tanh"}
NETWORKS: Mapping[str, dict[str, Any]] = {
    "layer norm": LAYER_CASES["layer norm"],
    "layer norm of one axis": LAYER_CASES["layer norm of one axis"],
    "layer norm over several": LAYER_CASES["layer norm over several"],
    "rms norm": LAYER_CASES["rms norm"],
    "group norm": layer_spec([2, 3], [CONV, {"name": "r", "type": "group_norm", "groups": 2}]),
    "instance norm": layer_spec([2, 3], [CONV, {"name": "r", "type": "instance_norm", "affine": True}]),
    "attention": LAYER_CASES["attention"],
    "attention of one group": LAYER_CASES["attention of one group"],
    "attention without weights": LAYER_CASES["attention without weights"],
    "attention to others": LAYER_CASES["attention to others"],
    "positions": LAYER_CASES["positions"],
    "multiply three": LAYER_CASES["multiply three"],
    "matmul": LAYER_CASES["matmul"],
    "concatenate three": LAYER_CASES["concatenate three"],
    "pad circular": LAYER_CASES["pad circular"],
    "upsample linear": LAYER_CASES["upsample linear"],
    "max of several": LAYER_CASES["max of several"],
    "softmax of places": LAYER_CASES["softmax of places"],
    "scale with a shift": LAYER_CASES["scale with a shift"],
    "mean": LAYER_CASES["mean"],
    "group norm without places": LAYER_CASES["group norm without places"],
    "rms norm of one axis": layer_spec(3, [HIDDEN, {"name": "r", "type": "rms_norm", "affine": False}]),
    "residual of convolutions": LAYER_CASES["residual of convolutions"],
    "transformer": LAYER_CASES["transformer"],
    "gated": LAYER_CASES["gated"],
    "a token, and positions of more places": LAYER_CASES["a token, and positions of more places"],
}


class Dense:
    """Matrices of a network at a point, all parameters one after the other."""

    def __init__(self, data: Mapping[str, Any], point: At) -> None:
        self.params, x, t = point
        self.sizes = {name: value.numel() for name, value in self.params.items()}
        run, loss = Elementary(data), data["loss"]

        def named(flat: Any) -> dict[str, Any]:
            parts = torch.split(flat, list(self.sizes.values()))
            return {
                name: part.reshape(self.params[name].shape)
                for name, part in zip(self.sizes, parts, strict=True)
            }

        flat = torch.cat([value.flatten() for value in self.params.values()])

        def one(flat: Any, x: Any, t: Any) -> Any:
            return loss_of_outputs(loss, run(named(flat), x[None]), t[None])

        self.gradients = vmap(grad(one), (None, 0, 0))(flat, x, t)
        self.hessian = vmap(jacrev(jacrev(one)), (None, 0, 0))(flat, x, t).mean(0)
        outputs = run(self.params, x)
        jacobian = jacrev(lambda flat: run(named(flat), x))(flat)
        curved = vmap(jacrev(jacrev(lambda y, t: loss_of_outputs(loss, y[None], t[None]))))(outputs, t)
        self.ggn = torch.einsum("bop,boq,bqr->pr", jacobian, curved, jacobian) / len(x)
        self.empirical = self.gradients.T @ self.gradients / len(x)

    def split(self, flat: Any) -> dict[str, Any]:
        """The last axis by parameter, in its shape."""
        parts = torch.split(flat, list(self.sizes.values()), -1)
        return {
            name: part.reshape(*part.shape[:-1], *self.params[name].shape)
            for name, part in zip(self.sizes, parts, strict=True)
        }

    def blocks(self, kind: str) -> dict[str, Any]:
        """Diagonal blocks by parameter; the Fisher matrix of squares and classes is the Gauss–Newton one."""
        matrix = {"hessian": self.hessian, "empirical_fisher": self.empirical}.get(kind, self.ggn)
        found, start = {}, 0
        for name, size in self.sizes.items():
            found[name] = matrix[start : start + size, start : start + size]
            start += size
        return found


pytestmark = pytest.mark.usefixtures("jit_off")


def made(
    name: str, backend: str, folder: Path, operators: tuple[str, ...]
) -> tuple[ModuleType, tuple[Any, ...], Any, Dense]:
    """Module, its arguments, a vector and the oracle."""
    data = NETWORKS[name]
    module = load(build_spec(data), backend, folder, operators)
    point, vector = point_at(module, data)

    def own(value: Any) -> Any:
        if backend == "torch":
            return value
        return {k: own(v) for k, v in value.items()} if isinstance(value, dict) else value.numpy()

    return module, tuple(map(own, point)), own(vector), Dense(data, point)


def check(operator: str, module: ModuleType, given: tuple[Any, ...], vector: Any, dense: Dense) -> None:
    """An operator, for every kind that is exact."""
    params = dense.params
    if operator == "per_sample_gradients":
        each, mean = dense.gradients, dense.gradients.mean(0)
        moments = {"none": each, "second": (each**2).mean(0), "variance": ((each - mean) ** 2).mean(0)}
        for moment, value in moments.items():
            assert_close(module.per_sample_gradients(*given, moment=moment), dense.split(value))
        norms = {key: (value.flatten(1) ** 2).sum(1) for key, value in dense.split(each).items()}
        assert_close(module.per_sample_gradients(*given, moment="norm"), norms)
        return
    for kind in EXACT:
        blocks = dense.blocks(kind)
        diagonals = {key: torch.diagonal(value).reshape(params[key].shape) for key, value in blocks.items()}
        if operator == "block_hessian":
            assert_close(module.block_hessian(*given, kind=kind, dense=True), blocks)
        elif operator == "block_vector_product":
            products = {
                key: (value @ torch.as_tensor(vector[key]).flatten()).reshape(params[key].shape)
                for key, value in blocks.items()
            }
            assert_close(module.block_vector_product(*given, vector, kind=kind), products)
        elif operator == "diagonal":
            assert_close(module.diagonal(*given, kind=kind), diagonals)
        elif operator == "trace":
            traces = {key: torch.trace(value) for key, value in blocks.items()}
            assert_close(module.trace(*given, kind=kind, by="parameter"), traces)
            whole = {"whole": sum(traces.values(), torch.zeros((), dtype=torch.float64))}
            (found,) = module.trace(*given, kind=kind, by="whole").values()
            assert_close({"whole": found}, whole)
        elif kind == "hessian":
            assert_close(module.hessian_diagonal(*given), diagonals)


def calls(names: Iterable[str], fast: Iterable[str]) -> list[Any]:
    """In Torch, and in Numba where it is fast; the others are slow."""
    kept = set(fast)
    slow = [pytest.mark.slow]
    return [
        *(pytest.param(*own.values, "torch", marks=own.marks) for own in one_in(3, names)),
        *(pytest.param(name, "numba", marks=[] if name in kept else slow) for name in names),
    ]


@pytest.mark.parametrize(
    "name, backend", calls(NETWORKS, ("attention without weights", "matmul", "layer norm"))
)
def test_operators(name: str, backend: str, tmp_path: Path) -> None:
    """All of them: blocks times a vector and dense, diagonals, traces, and gradients of samples."""
    found = made(name, backend, tmp_path, OPERATORS)
    for operator in OPERATORS:
        check(operator, *found)


@pytest.mark.parametrize("name", ["layer norm", "group norm", "attention", "positions"])
def test_what_does_not_exist_is_refused(name: str) -> None:
    """With the layer that it is about."""
    with pytest.raises(DerivationError, match=r"'[dcr](\.query)?'") as error:
        compile_spec(build_spec(NETWORKS[name]), Request(operators=("newton_direction",)))
    assert error.value.hint


@pytest.mark.parametrize("operator", ["block_hessian", "diagonal", "curvature_factors"])
def test_states_that_read_themselves_are_refused(operator: str) -> None:
    """Blocks go from state to state."""
    data = layer_spec([3, 2], [{"name": "r", "type": "gru", "units": 3}])
    with pytest.raises(DerivationError, match="gru layer 'r' reads its own states a step before") as error:
        compile_spec(build_spec(data), Request(operators=(operator,)))
    assert error.value.hint


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("a product with a bent parameter, plus what is given", "layer 'r' is not linear in 'p.weight'"),
        ("a parameter that is normalised", "the block of 'n.weight' is not one product"),
    ],
)
def test_parameters_that_layers_bend_are_refused(name: str, reason: str) -> None:
    with pytest.raises(DerivationError, match=reason) as error:
        compile_spec(build_spec(LAYER_CASES[name]), Request(operators=("diagonal",)))
    assert "hessian_vector_product" in str(error.value.hint)
