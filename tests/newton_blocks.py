"""Steps of ``ea_cg`` in generated modules of both backends, and the same steps by dense algebra.

The algebra is NumPy and uses nothing of the compiler: gradients and factors are given to it, from torch
or from the module's own functions.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Literal

import numba
import numpy as np
import torch
from compiling import compile_once
from curvature_oracle import Oracle

from sifrc.cache import entry_name, module_from_cache
from sifrc.compiler import Compiled, Request
from sifrc.derive.curvature.kinds import Kind
from sifrc.lower.lowering import Passes
from sifrc.spec import Spec, build_spec
from sifrc.verify.oracles import forward_torch as oracle_torch
from sifrc.verify.points import Point, random_point

__all__ = [
    "BACKENDS",
    "Run",
    "averaged_factors",
    "close",
    "compiled",
    "data",
    "factors",
    "gradient",
    "kfi",
    "module",
    "network",
    "own_factors",
    "own_gradient",
    "point_of",
    "search",
    "solved",
    "start",
    "steps",
    "textbook",
]

Array = np.ndarray
Arrays = dict[str, Array]
Factors = dict[str, tuple[Array, Array]]
"""Layer -> moment of its input (second or mean), block of its pre-activation."""

BACKENDS = ("torch", "numba")


def network(
    method: Mapping[str, Any] | None = None,
    *,
    sizes: tuple[int, ...] = (5, 4, 3),
    activation: Any = "tanh",
    loss: Any = "cross_entropy",
    state: Any = 0.3,
    layers: list[dict[str, Any]] | None = None,
    operators: tuple[str, ...] = (),
    **more: Any,
) -> dict[str, Any]:
    """A chain, or given layers, as a plain dict; every size is another one, so that transposing shows."""
    chain = [
        {"name": f"fc{k}", "type": "dense", "units": n, "activation": activation}
        for k, n in enumerate(sizes[1:], start=1)
    ]
    del chain[-1]["activation"]
    return {
        "sifrc": 1,
        "name": "blocks",
        "network": {"input": {"name": "image", "size": sizes[0]}, "layers": layers or chain},
        "loss": loss,
        "regularization": {"state": state},
        "dtype": "float64",
        "method": {"name": "ea_cg", **(method or {})},
        "target": {"operators": list(operators)},
        **more,
    }


def compiled(data: Mapping[str, Any], backend: str = "torch", structure: bool = True) -> Compiled:
    """A spec compiled, with the structure pass or without it."""
    request = Request(backend=backend, passes=Passes(structure=structure))
    return compile_once(build_spec(dict(data)), request)


def module(data: Mapping[str, Any], backend: str, *, structure: bool = True, jit: bool = False) -> ModuleType:
    """The generated module, imported; Numba's functions are plain Python without the JIT."""
    return _module(json.dumps(data), backend, structure, jit)


@functools.cache
def _module(text: str, backend: str, structure: bool, jit: bool) -> ModuleType:
    found = compiled(json.loads(text), backend, structure).text
    before = numba.config.DISABLE_JIT
    numba.config.DISABLE_JIT = not jit
    try:
        name = entry_name("newton_blocks", {"text": found, "jit": jit})
        return module_from_cache(name, lambda: found, None)
    finally:
        numba.config.DISABLE_JIT = before


def point_of(data: Mapping[str, Any], seed: int = 0, batch: int = 7) -> tuple[Spec, Point]:
    """The spec, and parameters and a batch for it."""
    spec = build_spec(dict(data))
    return spec, random_point(spec, seed, batch)


def start(point: Point) -> Arrays:
    """A copy of the parameters."""
    return {name: value.copy() for name, value in point.params.items()}


class Run:
    """An optimizer of a generated module; numbers and arrays go in and out as NumPy.

    Args:
        made: the module.
        params: initial parameters.
        numbers: hyperparameters.
    """

    def __init__(self, made: ModuleType, params: Mapping[str, Array], **numbers: Any) -> None:
        self.module = made
        self.torch = hasattr(made, "torch")
        if self.torch:
            self.model = made.Network()
            self.model.load_state_dict({name: torch.from_numpy(v.copy()) for name, v in params.items()})
            self.optimizer = made.Optimizer(self.model, **numbers)
        else:
            self.own = {name: value.astype(made.DTYPE) for name, value in params.items()}
            self.state = made.State(self.own, **numbers)

    def given(self, value: Any) -> Any:
        """As the module takes it."""
        if not self.torch:
            return (
                np.array(value) if np.asarray(value).dtype.kind != "f" else np.array(value, self.module.DTYPE)
            )
        found = torch.from_numpy(np.array(value))
        return found.to(self.module.DTYPE) if found.is_floating_point() else found

    def step(self, inputs: Array, targets: Array) -> float:
        """One step; the objective before it."""
        batch = self.given(inputs), self.given(targets)
        if self.torch:
            return float(self.optimizer.step(*batch))
        return float(self.module.step(self.own, self.state, *batch))

    def refresh(self, inputs: Array, targets: Array) -> None:
        """Curvature of another batch."""
        batch = self.given(inputs), self.given(targets)
        if self.torch:
            self.optimizer.refresh(*batch)
        else:
            self.module.refresh(self.own, self.state, *batch)

    @property
    def params(self) -> Arrays:
        """A copy of the parameters."""
        if self.torch:
            return {name: value.detach().numpy().copy() for name, value in self.model.named_parameters()}
        return {name: value.copy() for name, value in self.own.items()}

    def memory(self, name: str, k: int) -> Array:
        """A quantity of the state, of the layer with weight number k."""
        if self.torch:
            names = (
                self.module.BIAS_NAMES if self.module.MEMORY[name][1] == "bias" else self.module.WEIGHT_NAMES
            )
            owner = dict(self.model.named_parameters())[names[k]]
            return self.optimizer.state[owner][name].numpy().copy()
        return np.array(getattr(self.state.memory, name)[k])

    def saved(self) -> dict[str, Array]:
        """Everything that the next steps depend on, apart from the parameters, as copies."""
        if not self.torch:
            return {name: np.array(value) for name, value in self.state.state_dict().items()}
        found: dict[str, Array] = {}

        def walk(path: str, value: Any) -> None:
            if isinstance(value, Mapping):
                for key, item in value.items():
                    walk(f"{path}.{key}", item)
            else:
                found[path] = np.array(value.numpy() if isinstance(value, torch.Tensor) else value)

        walk("state", self.optimizer.state_dict()["state"])
        return found


def steps(run: Run, batches: list[tuple[Array, Array]]) -> list[Arrays]:
    """Parameters before the first step and after each."""
    found = [run.params]
    for batch in batches:
        run.step(*batch)
        found.append(run.params)
    return found


def own_gradient(made: ModuleType, params: Arrays, point: Point) -> Arrays:
    """By the module's own function."""
    return {name: np.asarray(value) for name, value in _called(made, "gradient", params, point).items()}


def own_factors(made: ModuleType, params: Arrays, point: Point, kind: str, moment: str) -> Factors:
    """By the module's own function."""
    found = _called(made, "curvature_factors", params, point, kind=kind, moment=moment)
    return {layer: (np.asarray(pair.moment), np.asarray(pair.block)) for layer, pair in found.items()}


def _called(made: ModuleType, name: str, params: Arrays, point: Point, **choices: Any) -> dict[str, Any]:
    given: list[Any] = [params, point.inputs, point.targets]
    if hasattr(made, "torch"):
        given = [{key: torch.from_numpy(value) for key, value in params.items()}]
        given += [torch.from_numpy(point.inputs), torch.from_numpy(point.targets)]
    return dict(getattr(made, name)(*given, **choices).items())


def gradient(spec: Spec, params: Arrays, point: Point) -> Arrays:
    """Of the objective, by torch."""
    tensors = {name: torch.from_numpy(value) for name, value in params.items()}
    found = oracle_torch.gradient(
        spec, tensors, torch.from_numpy(point.inputs), torch.from_numpy(point.targets)
    )
    return {name: value.numpy() for name, value in found.items()}


def factors(spec: Spec, params: Arrays, point: Point, kind: Kind, moment: str) -> Factors:
    """Blocks by torch.func, or by dense algebra where the kind is an approximation; moments by NumPy."""
    oracle = Oracle(spec, Point(params, point.inputs, point.targets, {}))
    blocks = oracle.kind(kind)
    assert blocks is not None
    scale = len(point.inputs) if spec.loss.reduction == "sum" else 1
    found = {}
    for layer, x in oracle.layer_inputs().items():
        mean = x.T @ x / len(x) if moment == "second" else x.mean(axis=0)
        found[layer] = mean, scale * blocks[layer]
    return found


def solved(factor: Factors, g: Arrays, alpha: float) -> Arrays:
    """((1 − α) H ⊗ A + α I) d = g for every weight, ((1 − α) H + α I) d = g for every bias: dense."""
    found = {}
    for name, value in g.items():
        layer, _, part = name.partition(".")
        a, block = factor[layer]
        if part == "weight":
            block = np.kron(block, np.outer(a, a) if a.ndim == 1 else a)
        matrix = (1 - alpha) * block + alpha * np.eye(len(block))
        found[name] = np.linalg.solve(matrix, value.ravel()).reshape(value.shape)
    return found


def kfi(factor: Factors, g: Arrays, alpha: float) -> Arrays:
    """EA-CG(12): (H + √α/π I)⁻¹ G (A + π √α I)⁻¹, π² = (tr A / m) / (tr H / n); EA-CG(13): A = m mᵀ."""
    found = {}
    for name, value in g.items():
        layer, _, part = name.partition(".")
        a, block = factor[layer]
        if part == "bias":
            found[name] = np.linalg.solve(block + alpha * np.eye(len(block)), value)
            continue
        a = np.outer(a, a) if a.ndim == 1 else a
        ratio = np.trace(a) / len(a), np.trace(block) / len(block)
        pi = np.sqrt(ratio[0] / ratio[1]) if min(ratio) > 0 else 1.0
        left = np.linalg.inv(block + np.sqrt(alpha) / pi * np.eye(len(block)))
        found[name] = left @ value @ np.linalg.inv(a + pi * np.sqrt(alpha) * np.eye(len(a)))
    return found


@dataclass(frozen=True)
class Found:
    """What conjugate gradients end with."""

    solution: Array
    iterations: int
    remaining: float


def textbook(apply: Callable[[Array], Array], rhs: Array, limit: int, tolerance: float) -> Found:
    """Conjugate gradients of Hestenes and Stiefel from zero."""
    solution, residual, direction = np.zeros_like(rhs), rhs.copy(), rhs.copy()
    first = size = float(np.sum(rhs * rhs))
    count = 0
    while count < limit and size > tolerance**2 * first:
        product = apply(direction)
        curvature = float(np.sum(direction * product))
        if curvature <= 0:
            break
        solution = solution + size / curvature * direction
        residual = residual - size / curvature * product
        before, size = size, float(np.sum(residual * residual))
        direction = residual + size / before * direction
        count += 1
    return Found(solution, count, np.sqrt(size / first) if first > 0 else 0.0)


def search(factor: Factors, g: Arrays, alpha: float, limit: int, tolerance: float) -> dict[str, Found]:
    """Textbook conjugate gradients on every block, EA-CG(10, 11)."""
    found = {}
    for name, value in g.items():
        layer, _, part = name.partition(".")
        a, block = factor[layer]
        a = np.outer(a, a) if a.ndim == 1 else a

        def apply(p: Array, a: Array = a, block: Array = block, weight: bool = part == "weight") -> Array:
            return (1 - alpha) * (block @ p @ a if weight else block @ p) + alpha * p

        found[name] = textbook(apply, value, limit, tolerance)
    return found


def averaged_factors(history: list[Factors], decay: float) -> Factors:
    """Σ ρ^{T−t} f_t / Σ ρ^{T−t}: the moving average without the bias of its start at zero."""
    weights = [decay ** (len(history) - 1 - t) for t in range(len(history))]
    total = sum(weights)
    return {
        layer: (
            sum(w / total * one[layer][0] for w, one in zip(weights, history, strict=True)),
            sum(w / total * one[layer][1] for w, one in zip(weights, history, strict=True)),
        )
        for layer in history[0]
    }


def close(
    found: Mapping[str, Array], expected: Mapping[str, Array], relative: float = 1e-8, what: str = ""
) -> None:
    """Arrays agree by name, to ``relative`` of the largest entry of each."""
    assert set(found) == set(expected)
    for name, value in expected.items():
        bound = relative * max(float(np.abs(value).max(initial=0.0)), 1e-6)
        error = float(np.abs(found[name] - value).max(initial=0.0))
        assert error <= bound, (what, name, error, bound)  # NaN fails too


Backend = Literal["torch", "numba"]


def data(spec: Spec, seeds: range, batch: int = 7) -> list[tuple[Array, Array]]:
    """Batches of inputs and targets."""
    points = [random_point(spec, seed, batch) for seed in seeds]
    return [(point.inputs, point.targets) for point in points]
