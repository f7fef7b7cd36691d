"""Specs for the tests of generated Numba modules, and their objective in plain torch, written by hand."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numba
import numpy as np
import torch

from sifrc.cache import entry_name, module_from_cache
from sifrc.compiler import compile_spec
from sifrc.spec import parse_spec

Tensors = Mapping[str, torch.Tensor]
OPERATORS = (
    "loss, objective, gradient, objective_and_gradient, hessian_vector_product, gauss_newton_vector_product"
)

_CHAIN = """
sifrc: 1
name: {name}
network:
  input: {{name: image, size: 6}}
  layers:
    - {{name: fc1, type: dense, units: 5, activation: {activation}, init: {{kind: glorot}}}}
{middle}
    - {{name: fc3, type: dense, units: 3}}
loss: {{function: {loss}}}
regularization: {{state: 0.02}}
dtype: {dtype}
method: {method}
target: {{backend: numba, operators: [{operators}, newton_direction]}}
"""

_GRAPH = """
sifrc: 1
name: graph
network:
  input: {name: image, size: 6}
  layers:
    - {name: fc1, type: dense, units: 5}
    - {name: act1, type: activation, function: leaky_relu, parameters: {slope: 0.1}}
    - {name: fc2, type: dense, units: 5, activation: tanh, bias: false}
    - {name: sum1, type: add, inputs: [act1, fc2]}
    - {name: fc3, type: dense, share: fc2}
    - {name: act3, type: activation, expression: "x*tanh(log(1 + b*exp(x)))", parameters: {b: 0.7}}
    - {name: fc4, type: dense, units: 3}
loss: {expression: "sum((y - t)**4)/4", targets: vectors, reduction: sum}
regularization: {state: {act1: 1.0e-3, sum1: 0.02}}
dtype: float64
target: {backend: numba, operators: [OPERATORS]}
""".replace("OPERATORS", OPERATORS)


def chain(
    activation: str = "tanh",
    loss: str = "cross_entropy",
    method: str = "{name: mk}",
    dtype: str = "float64",
    name: str = "chain",
    short: bool = False,
) -> str:
    """A chain 6, 5, 4, 3, or 6, 5, 3."""
    middle = "" if short else f"    - {{name: fc2, type: dense, units: 4, activation: {activation}}}"
    return _CHAIN.format(
        activation=activation,
        middle=middle,
        loss=loss,
        method=method,
        dtype=dtype,
        name=name,
        operators=OPERATORS,
    )


@functools.cache
def source(text: str) -> str:
    """The generated module of a spec."""
    return compile_spec(parse_spec(text)).text


@functools.cache
def load(text: str, folder: Path, *, jit: bool) -> ModuleType:
    """A generated module, compiled once; without the JIT its functions are plain Python."""
    before = numba.config.DISABLE_JIT
    numba.config.DISABLE_JIT = not jit
    try:
        name = entry_name("tested", {"text": text, "jit": jit})
        return module_from_cache(name, lambda: text, folder)
    finally:
        numba.config.DISABLE_JIT = before


@dataclass(frozen=True)
class Case:
    """A spec, and its mean objective as a function of parameters, inputs and targets (vectors)."""

    spec: str
    objective: Callable[[Tensors, torch.Tensor, torch.Tensor], torch.Tensor]
    loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    total: bool = False


def _squared(y: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    return 0.5 * ((y - t) ** 2).sum(-1)


def _cross_entropy(y: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    return -(t * torch.log_softmax(y, -1)).sum(-1)


def _quartic(y: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    return ((y - t) ** 4).sum(-1) / 4


def _chain_objective(
    activation: Callable[[torch.Tensor], torch.Tensor],
    loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
) -> Callable[[Tensors, torch.Tensor, torch.Tensor], torch.Tensor]:
    def objective(params: Tensors, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        x, penalty = inputs, torch.zeros(len(inputs), dtype=torch.float64)
        for name in ("fc1", "fc2"):
            x = activation(x @ params[f"{name}.weight"].T + params[f"{name}.bias"])
            penalty = penalty + 0.01 * (x**2).sum(-1)
        return (loss(x @ params["fc3.weight"].T + params["fc3.bias"], targets) + penalty).mean()

    return objective


def _graph_objective(params: Tensors, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    a = inputs @ params["fc1.weight"].T + params["fc1.bias"]
    act1 = torch.where(a > 0, a, 0.1 * a)
    sum1 = act1 + torch.tanh(act1 @ params["fc2.weight"].T)
    z = sum1 @ params["fc2.weight"].T
    act3 = z * torch.tanh(torch.log(1 + 0.7 * torch.exp(z)))
    y = act3 @ params["fc4.weight"].T + params["fc4.bias"]
    penalty = 0.5e-3 * (act1**2).sum(-1) + 0.01 * (sum1**2).sum(-1)
    return (_quartic(y, targets) + penalty).mean()


CASES: Mapping[str, Case] = {
    "tanh, cross entropy": Case(chain(), _chain_objective(torch.tanh, _cross_entropy), _cross_entropy),
    "tanh, squared error": Case(
        chain(loss="squared_error"), _chain_objective(torch.tanh, _squared), _squared
    ),
    "leaky, squared error": Case(
        chain("leaky_relu", "squared_error"),
        _chain_objective(lambda a: torch.nn.functional.leaky_relu(a, 0.01), _squared),
        _squared,
    ),
    "skip, shared, custom": Case(_GRAPH, _graph_objective, _quartic, total=True),
}


def data(module: ModuleType, count: int = 7) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Inputs, targets as the module takes them, and targets as vectors."""
    rng = np.random.default_rng(5)
    inputs = rng.standard_normal((count, 6)).astype(module.DTYPE)
    if (
        module.SPEC["loss"].get("targets") == "classes"
        or module.SPEC["loss"].get("function") == "cross_entropy"
    ):
        classes = rng.integers(0, 3, count)
        return inputs, classes, np.eye(3)[classes]
    vectors = rng.standard_normal((count, 3)).astype(module.DTYPE)
    return inputs, vectors, vectors.astype(np.float64)


def parameters(module: ModuleType, seed: int = 3) -> dict[str, np.ndarray]:
    """Initial parameters with biases that are not zero."""
    params = module.init(seed)
    rng = np.random.default_rng(seed)
    for key, value in params.items():
        if key.endswith("bias"):
            value[:] = 0.2 * rng.standard_normal(value.shape)
    return params


def flat(values: Mapping[str, np.ndarray]) -> np.ndarray:
    """All entries as one float64 vector."""
    return np.concatenate([np.asarray(value, np.float64).ravel() for value in values.values()])


def flat_objective(
    case: Case, params: Mapping[str, np.ndarray], inputs: np.ndarray, vectors: np.ndarray
) -> Callable[[torch.Tensor], torch.Tensor]:
    """The objective as a function of one vector of all parameters, float64."""
    x, t = torch.tensor(inputs, dtype=torch.float64), torch.tensor(vectors)

    def function(point: torch.Tensor) -> torch.Tensor:
        tensors, start = {}, 0
        for key, value in params.items():
            tensors[key] = point[start : start + value.size].reshape(value.shape)
            start += value.size
        return case.objective(tensors, x, t)

    return function
