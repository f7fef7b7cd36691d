"""Specs, generated Torch modules, and an oracle that sees only the forward pass."""

from __future__ import annotations

import functools
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import torch
from torch.nn import functional as F

from sifrc.backends import find_backend
from sifrc.backends.base import LayerInfo, ModuleSource
from sifrc.lower.lowering import lower
from sifrc.methods.planning import make_plan
from sifrc.model import build_model
from sifrc.spec import parse_spec, spec_hash, spec_to_dict

STATE = 0.02
OPERATORS = (
    "loss, objective, gradient, objective_and_gradient, hessian_vector_product, gauss_newton_vector_product"
)
CHAIN = "\n".join(f"    - {{name: fc{k}, type: dense, units: 4, activation: ACTIVATION}}" for k in (1, 2, 3))
SKIP = """\
    - {name: fc1, type: dense, units: 4, activation: ACTIVATION}
    - {name: fc2, type: dense, units: 4, activation: ACTIVATION}
    - {name: sum1, type: add, inputs: [fc1, fc2]}
    - {name: again, type: dense, share: fc2, activation: ACTIVATION}"""

ACTIVATIONS = {
    "leaky_relu": lambda x: F.leaky_relu(x, 0.01),
    "softplus": F.softplus,
    "elu": F.elu,
    "gelu": F.gelu,
    "tanh": torch.tanh,
    "relu": F.relu,
}
LOSSES = {
    "cross_entropy": F.cross_entropy,
    "squared_error": lambda y, t: 0.5 * ((y - t) ** 2).sum(1).mean(),
    "bounded": lambda y, t: torch.sigmoid(-5.0 * (F.softmax(y, 1).gather(1, t[:, None]) - 0.2)).mean(),
    "mse": lambda y, t: ((y - t) ** 2).mean(),
}


def spec_text(
    activation: str = "leaky_relu",
    loss: str = "cross_entropy",
    *,
    layers: str = CHAIN,
    operators: str = OPERATORS,
    method: str = "",
    dtype: str = "float64",
    extra: str = "",
) -> str:
    """A network 5 → 4 → 4 → 4 → 3 (or with a skip connection)."""
    return f"""\
sifrc: 1
name: sample_net
network:
  input: {{name: image, size: 5}}
  layers:
{layers.replace("ACTIVATION", activation)}
    - {{name: out, type: dense, units: 3}}
loss: {{function: {loss}{extra}}}
regularization: {{state: {STATE}}}
dtype: {dtype}
{f"method: {method}" if method else ""}
target: {{backend: torch, operators: [{operators}]}}
"""


def module_source(text: str) -> ModuleSource:
    """What the compiler hands to a backend for a spec."""
    spec = parse_spec(text)
    model = build_model(spec)
    plan = make_plan(model).plan
    layers = tuple(
        LayerInfo(
            p.index,
            p.layer,
            tuple(axis.entries for axis in p.weight.axes),
            None if p.bias is None else tuple(axis.entries for axis in p.bias.axes),
            p.initialization.kind,
            p.initialization.value,
            p.initialization.connections,
        )
        for p in model.parameters
    )
    return ModuleSource(
        program=lower(plan),
        name=spec.name,
        summary="Curvature operators",
        architecture="5 → 4 → 4 → 4 → 3",
        version="0.0.0",
        spec_hash=spec_hash(spec),
        spec=spec_to_dict(spec),
        dtype=spec.dtype,
        layers=layers,
        input_shape=spec.input.shape,
        output_size=spec.layers[-1].size,
        targets=spec.loss.targets,
        seed=spec.seed,
        reduction=spec.loss.reduction,
        method=spec.method.name if spec.method else "",
    )


@functools.cache
def emitted(text: str) -> str:
    """The generated module's text."""
    return find_backend("torch").emit(module_source(text))


def loaded(text: str, folder: Path, name: str = "generated_sample") -> ModuleType:
    """The generated module, imported from a file."""
    path = folder / f"{name}.py"
    path.write_text(emitted(text))
    return imported(path)


def imported(path: Path) -> ModuleType:
    """Import a file."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


def forward(params, inputs, activation="leaky_relu", skip=False):
    """Outputs and regularisation, written as a user would."""
    act = ACTIVATIONS[activation]

    def dense(name, x):
        return x @ params[f"{name}.weight"].T + params[f"{name}.bias"]

    first = act(dense("fc1", inputs))
    second = act(dense("fc2", first))
    # The sum reads the activations, so that each state of the chain is regularised once.
    states = [first, second, first + second, act(dense("fc2", first + second))] if skip else [first, second]
    if not skip:
        states.append(act(dense("fc3", second)))
    regularisation = sum((x**2).sum(1).mean() for x in states) * STATE / 2
    return dense("out", states[-1]), regularisation


def objective(params, inputs, targets, activation="leaky_relu", loss="cross_entropy", skip=False):
    """Mean loss and regularisation."""
    outputs, regularisation = forward(params, inputs, activation, skip)
    return LOSSES[loss](outputs, targets) + regularisation


def data(loss="cross_entropy", batch=6, dtype=torch.float64, seed=0):
    """Inputs and targets."""
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(batch, 5, generator=generator, dtype=torch.float64).to(dtype)
    if loss in ("cross_entropy", "bounded"):
        return inputs, torch.randint(0, 3, (batch,), generator=generator)
    return inputs, torch.randn(batch, 3, generator=generator, dtype=torch.float64).to(dtype)


def parameters(module, seed=0):
    """Random parameters, biases too."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: 0.6 * torch.randn(shape, generator=generator, dtype=torch.float64)
        for name, shape in module.SHAPES.items()
    }


def difference(found, expected):
    """Largest difference relative to the largest entry."""
    scale = max(float(value.abs().max()) for value in expected.values())
    return max(float((found[name] - expected[name]).abs().max()) for name in expected) / scale
