"""Steps of ESN and MK against the papers' formulas, written here with dense linear algebra.

States and back-propagated adjoints come from torch autograd on a plain forward pass; nothing of the compiler
is used for the oracle.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.linalg
import torch

from sifrc.cache import load_text
from sifrc.compiler import compile_spec
from sifrc.errors import MethodError
from sifrc.spec import build_spec

SIZES = (5, 4, 4, 3)
LAMBDA = 0.3
RATE = 0.05
Params = dict[str, torch.Tensor]


def spec(method: dict[str, Any], loss: str = "squared_error", regularization: Any = LAMBDA) -> Any:
    layers = [
        {"name": f"fc{k}", "type": "dense", "units": n, "activation": "tanh" if k == 2 else "softplus"}
        for k, n in enumerate(SIZES[1:], start=1)
    ]
    del layers[-1]["activation"]
    return build_spec(
        {
            "sifrc": 1,
            "name": "chain",
            "network": {"input": {"name": "image", "size": SIZES[0]}, "layers": layers},
            "loss": {"function": loss, "targets": "vectors"},
            "regularization": {"state": regularization},
            "dtype": "float64",
            "method": {"learning_rate": RATE, **method},
            "target": {"backend": "torch", "operators": ["newton_direction"]},
        }
    )


def module(text_spec: Any, folder: Path) -> Any:
    compiled = compile_spec(text_spec)
    name = f"{compiled.name}_{compiled.source.spec_hash[:12]}"  # one name, one module in a process
    return load_text(name, folder / f"{name}.py", compiled.text)


def factors(params: Params, x0: torch.Tensor, target: torch.Tensor, loss: str) -> list[tuple[Any, Any]]:
    """(x_{k−1}, y_k) of one sample, k = 1..n; y_k = −dℓ_R/da_k."""
    functions = (torch.nn.functional.softplus, torch.tanh, lambda a: a)
    states, pre_activations = [x0], []
    for k, function in enumerate(functions, start=1):
        a = states[-1] @ params[f"fc{k}.weight"].T + params[f"fc{k}.bias"]
        a = a.detach().requires_grad_() if not pre_activations else a
        a.retain_grad()
        pre_activations.append(a)
        states.append(function(a))
    output = states[-1]
    value = (
        0.5 * ((output - target) ** 2).sum()
        if loss == "squared_error"
        else -(target * torch.log_softmax(output, 0)).sum()
    )
    value = value + 0.5 * LAMBDA * sum((x**2).sum() for x in states[1:-1])
    value.backward()
    return [(x.detach().numpy(), -a.grad.numpy()) for x, a in zip(states, pre_activations, strict=False)]


def data(count: int, loss: str) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    inputs = torch.randn(count, SIZES[0], generator=generator, dtype=torch.float64)
    targets = torch.randn(count, SIZES[-1], generator=generator, dtype=torch.float64)
    return inputs, targets if loss == "squared_error" else torch.softmax(targets, 1)


def run(generated: Any, inputs: torch.Tensor, targets: torch.Tensor, steps: int = 1) -> list[Params]:
    """Parameters before the first step and after each."""
    model = generated.Network(seed=1)
    optimizer = generated.Optimizer(model)
    found = [{name: p.detach().clone() for name, p in model.named_parameters()}]
    for _ in range(steps):
        optimizer.step(inputs, targets)
        found.append({name: p.detach().clone() for name, p in model.named_parameters()})
    return found


def compare(before: Params, after: Params, directions: list[tuple[Any, Any]]) -> None:
    for k, (weight, bias) in enumerate(directions, start=1):
        for name, direction in ((f"fc{k}.weight", weight), (f"fc{k}.bias", bias)):
            moved = (before[name] - after[name]).numpy() / RATE
            np.testing.assert_allclose(moved, direction, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("loss", ["squared_error", "cross_entropy"])
@pytest.mark.parametrize("batch", [1, 6])
def test_rank_one_is_esn_26_with_the_sample_for_every_expectation(
    tmp_path: Path, loss: str, batch: int
) -> None:
    """N_k = −(I + y yᵀ)⁻¹ y (λ x)ᵀ, η_k = N_k x; a batch takes the mean."""
    inputs, targets = data(batch, loss)
    before, after = run(module(spec({"name": "esn"}, loss), tmp_path), inputs, targets)
    total: list[list[Any]] = [[0.0, 0.0] for _ in SIZES[1:]]
    for x0, t in zip(inputs, targets, strict=True):
        for entry, (x, y) in zip(total, factors(before, x0, t, loss), strict=True):
            n = -np.linalg.solve(np.eye(len(y)) + np.outer(y, y), np.outer(y, LAMBDA * x))
            entry[0] += n / batch
            entry[1] += n @ x / batch
    compare(before, after, [(w, b) for w, b in total])


@pytest.mark.parametrize("form", ["identity", "sylvester"])
@pytest.mark.parametrize("weights", ["none", "error"])
def test_direct_averages_solve_esn_24_or_26(tmp_path: Path, form: str, weights: str) -> None:
    """Moving averages of the moments over two steps, then a dense or a Sylvester solve."""
    inputs, targets = data(40, "squared_error")
    method = {"name": "esn", "precision": "direct", "form": form, "sample_weights": weights, "decay": 0.8}
    history = run(module(spec(method), tmp_path), inputs, targets, steps=2)
    averages: list[dict[str, Any]] = [{} for _ in SIZES[1:]]
    for before, after in pairwise(history):
        samples = [factors(before, x0, t, "squared_error") for x0, t in zip(inputs, targets, strict=True)]
        outputs = [s[-1][1] for s in samples]  # identity output, ℓ²: y_n = t − x_n
        w = [float(o @ o) if weights == "error" else 1.0 for o in outputs]
        directions = []
        for k, average in enumerate(averages):
            pairs = [(wp, *s[k]) for wp, s in zip(w, samples, strict=True)]
            fresh = {
                "w": np.mean([wp for wp, _, _ in pairs]),
                "A": np.mean([wp * np.outer(y, y) for wp, _, y in pairs], axis=0),
                "C": np.mean([wp * np.outer(y, LAMBDA * x) for wp, x, y in pairs], axis=0),
                "m": np.mean([wp * x for wp, x, _ in pairs], axis=0),
                "S": np.mean([wp * np.outer(x, x) for wp, x, _ in pairs], axis=0),
            }
            for name, value in fresh.items():
                average[name] = 0.8 * average.get(name, 0.0) + 0.2 * value
            a = average
            mass = a["w"] if weights == "error" else 1.0
            if form == "identity":
                n = -np.linalg.solve(mass * np.eye(len(a["A"])) + a["A"], a["C"])
            else:
                n = scipy.linalg.solve_sylvester(a["A"], a["S"] - np.outer(a["m"], a["m"]) / mass, -a["C"])
            directions.append((n, n @ a["m"] / mass))
        compare(before, after, directions)


@pytest.mark.parametrize("scaling", ["mean", "sum"])
def test_recursive_least_squares_is_its_normal_equations(tmp_path: Path, scaling: str) -> None:
    """D_T = −(ρᵀ I + w Σ ρ^{T−t} y yᵀ)⁻¹ w Σ ρ^{T−t} y (λ x)ᵀ, w = 1 or 1 − ρ."""
    decay = 0.9
    inputs, targets = data(1, "squared_error")
    method = {"name": "esn", "precision": "recursive", "scaling": scaling, "decay": decay}
    history = run(module(spec(method), tmp_path), inputs, targets, steps=4)
    weight = 1.0 if scaling == "sum" else 1 - decay
    sums = [{"P": np.eye(n), "C": 0.0, "m": 0.0} for n in SIZES[1:]]
    for before, after in pairwise(history):
        directions = []
        for entry, (x, y) in zip(sums, factors(before, inputs[0], targets[0], "squared_error"), strict=True):
            entry["P"] = decay * entry["P"] + weight * np.outer(y, y)
            entry["C"] = decay * entry["C"] + weight * np.outer(y, LAMBDA * x)
            entry["m"] = decay * entry["m"] + (1 - decay) * x
            n = -np.linalg.solve(entry["P"], entry["C"])
            directions.append((n, n @ entry["m"]))
        compare(before, after, directions)


@pytest.mark.parametrize("damping", [0.0, 0.7])
def test_mk_is_mk_42(tmp_path: Path, damping: float) -> None:
    """N = λ/(μλ + ‖g‖²) G, η = c/(μc + ‖g‖²) g with c = λ‖x‖² + 1_{k=n}‖d − x_n‖²; ℓ², linear output."""
    inputs, targets = data(1, "squared_error")
    before, after = run(module(spec({"name": "mk", "damping": damping}), tmp_path), inputs, targets)
    directions = []
    pairs = factors(before, inputs[0], targets[0], "squared_error")
    for k, (x, y) in enumerate(pairs, start=1):
        c = LAMBDA * x @ x + (y @ y if k == len(pairs) else 0.0)
        weight = -LAMBDA / (damping * LAMBDA + y @ y) * np.outer(y, x)
        directions.append((weight, -c / (damping * c + y @ y) * y))
    compare(before, after, directions)


@pytest.mark.parametrize("loss", ["squared_error", "cross_entropy"])
@pytest.mark.parametrize("variant", ["exact", "saddle_free"])
def test_exact_and_saddle_free_are_esn_17_and_21(tmp_path: Path, variant: str, loss: str) -> None:
    """N_k = −y (λ x)ᵀ/‖y‖²; η_k = 1_{k=n} v ∓ N_k x; v solves ∂²ℓ v = ∂ℓ at a linear output."""
    inputs, targets = data(1, loss)
    generated = module(spec({"name": "esn", "variant": variant}, loss), tmp_path)
    before, after = run(generated, inputs, targets)
    pairs = factors(before, inputs[0], targets[0], loss)
    y_n = pairs[-1][1]
    if loss == "squared_error":
        curvature = np.eye(len(y_n))
    else:
        s = targets[0].numpy() - y_n  # softmax of the output: y_n = t − softmax
        curvature = np.diag(s) - np.outer(s, s)
    granular = -np.linalg.pinv(curvature) @ y_n
    sign = -1.0 if variant == "exact" else 1.0
    directions = []
    for k, (x, y) in enumerate(pairs, start=1):
        n = -np.outer(y, LAMBDA * x) / (y @ y)
        directions.append((n, sign * n @ x + (granular if k == len(pairs) else 0.0)))
    compare(before, after, directions)
    if variant == "exact":
        named = generated.newton_direction(before, inputs[0], targets[0])
        compare(before, after, [(named[f"fc{k}.weight"], named[f"fc{k}.bias"]) for k in (1, 2, 3)])


def test_spectral_lambda_is_mk_65_and_68(tmp_path: Path) -> None:
    """λ_k = ‖y°_{k+1}‖/‖F'(a_k)‖_∞ and λ_n = ‖b°_n‖: the objective that a step reports."""
    text = spec({"name": "mk"}, regularization="spectral")
    text = type(text)(
        **{**text.__dict__, "regularization": type(text.regularization)("spectral", output="spectral")}
    )
    generated = module(text, tmp_path)
    inputs, targets = data(1, "squared_error")
    params = {name: p.detach() for name, p in generated.Network(seed=1).named_parameters()}
    functions = (torch.nn.functional.softplus, torch.tanh, lambda a: a)
    slopes = (torch.sigmoid, lambda a: 1 - torch.tanh(a) ** 2, torch.ones_like)
    x, states, pre = inputs[0], [], []
    for k, function in enumerate(functions, start=1):
        pre.append(x @ params[f"fc{k}.weight"].T + params[f"fc{k}.bias"])
        x = function(pre[-1])
        states.append(x)
    adjoint = targets[0] - x  # b°_n
    expected = adjoint.norm() * 0.5 * ((x - targets[0]) ** 2).sum()
    for k in (2, 1):
        following = slopes[k](pre[k]) * adjoint  # y°_{k+1}
        factor = following.norm() / slopes[k - 1](pre[k - 1]).abs().max()
        expected = expected + 0.5 * factor * (states[k - 1] ** 2).sum()
        adjoint = params[f"fc{k + 1}.weight"].T @ following
    found = generated.objective(params, inputs, targets)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize(
    ("method", "regularization", "message"),
    [
        ({"name": "esn"}, "none", "without state regularisation"),
        ({"name": "mk"}, 0.0, "without state regularisation"),
        ({"name": "esn", "form": "sylvester"}, LAMBDA, "needs moments"),
        ({"name": "esn", "sample_weights": "error"}, LAMBDA, "cancel"),
        ({"name": "esn", "precision": "recursive", "decay": 1.0}, LAMBDA, "1 − decay"),
        ({"name": "esn", "precision": "direct", "decay": 1.0}, LAMBDA, "without any weight"),
        ({"name": "esn", "variant": "exakt"}, LAMBDA, "cannot be 'exakt'"),
        ({"name": "esn", "rate": 0.1}, LAMBDA, "has no option 'rate'"),
        ({"name": "mk", "damping": -1.0}, LAMBDA, "'damping' is -1.0"),
        ({"name": "newton"}, LAMBDA, "unknown method 'newton'"),
    ],
)
def test_options_that_cannot_work_are_refused(method: Any, regularization: Any, message: str) -> None:
    """One clear error instead of a step that does nothing."""
    with pytest.raises(MethodError, match=message):
        compile_spec(spec(method, regularization=regularization))
