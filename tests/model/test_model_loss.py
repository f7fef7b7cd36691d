"""The model of a spec and the oracles against torch's own layers and losses, written by hand."""

from __future__ import annotations

from typing import Any

import mpmath
import numpy as np
import pytest
import torch
from cases import CASES
from torch.nn import functional as F

from sifrc.derive.derived import Derived
from sifrc.errors import ModelError, VerificationError
from sifrc.ir.arithmetic import MPMATH
from sifrc.model import build_model
from sifrc.spec import build_spec
from sifrc.verify.oracles import forward_torch as oracle_torch
from sifrc.verify.oracles.forward_mpmath import ForwardMpmath
from sifrc.verify.points import random_point
from sifrc.verify.precise.systems import SampleSystems

ACTIVATIONS: dict[str, Any] = {
    "relu": F.relu,
    "leaky_relu": F.leaky_relu,
    "elu": F.elu,
    "selu": F.selu,
    "gelu": F.gelu,
    "silu": F.silu,
    "softplus": F.softplus,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "mish": F.mish,
    "sin": torch.sin,
}

LOSSES: dict[str, Any] = {
    "squared_error": lambda y, t: 0.5 * ((y - t) ** 2).sum(),
    "mse": F.mse_loss,
    "huber": F.huber_loss,
    "binary_cross_entropy": F.binary_cross_entropy_with_logits,
    "cross_entropy": F.cross_entropy,
    "bounded": lambda y, t: 1 / (1 + torch.exp(5.0 * (torch.softmax(y, -1)[0, t[0]] - 0.2))),
}


def small(activation: str, loss: Any) -> dict[str, Any]:
    """Three layers of different sizes."""
    layers = [
        {"name": "fc1", "type": "dense", "units": 4, "activation": activation},
        {"name": "fc2", "type": "dense", "units": 3},
    ]
    return {
        "sifrc": 1,
        "name": "small",
        "network": {"input": {"size": 2}, "layers": layers},
        "loss": loss,
        "regularization": {"state": 0.25},
        "dtype": "float64",
    }


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("loss", LOSSES)
def test_objective_is_the_one_torch_computes(activation: str, loss: str) -> None:
    """Model and oracle equal two torch.nn.functional.linear calls, the loss and λ/2 ‖x_1‖²."""
    spec = build_spec(small(activation, loss))
    point = random_point(spec, 4)
    params = {name: torch.from_numpy(value) for name, value in point.params.items()}
    inputs, targets = torch.from_numpy(point.inputs), torch.from_numpy(point.targets)
    hidden = ACTIVATIONS[activation](F.linear(inputs, params["fc1.weight"], params["fc1.bias"]))
    output = F.linear(hidden, params["fc2.weight"], params["fc2.bias"])
    expected = float(LOSSES[loss](output, targets) + 0.125 * (hidden**2).sum())
    derived = SampleSystems(Derived(build_model(spec)), point.params, *point.sample())
    assert float(derived.objective()) == pytest.approx(expected, rel=1e-13)
    assert float(oracle_torch.ForwardTorch(spec)(params, inputs, targets)) == pytest.approx(
        expected, rel=1e-13
    )


def written(short: bool) -> dict[str, Any]:
    """Dense, shared and add layers, each with an activation: its own, or a layer after it."""
    layers: list[dict[str, Any]] = []

    def put(name: str, **keys: Any) -> None:
        if short:
            layers.append({"name": name, **keys, "activation": "tanh"})
        else:
            layers.append({"name": f"{name}_before", **keys})
            layers.append({"name": name, "type": "activation", "function": "tanh"})

    put("fc1", type="dense", units=3)
    put("fc2", type="dense", units=3)
    put("fc3", type="dense", share="fc2" if short else "fc2_before")
    put("sum1", type="add", inputs=["fc1", "fc3"])
    layers.append({"name": "fc4", "type": "dense", "units": 2})
    return {
        "sifrc": 1,
        "name": "written",
        "network": {"input": {"size": 2}, "layers": layers},
        "loss": "squared_error",
        "regularization": {"state": 0.25},
        "dtype": "float64",
    }


WRITTEN: dict[str, Any] = {
    "2*3*sum((y - t)**2)": lambda y, t: 6 * ((y - t) ** 2).sum(),
    "(1/3 + 2)*sum((y - t)**2) - (4 - 1)*dot(y, t)": lambda y, t: (
        (7 / 3) * ((y - t) ** 2).sum() - 3 * (y @ t)
    ),
    "sum((y - t)**2/(2*s**2) + log(s))": lambda y, t: ((y - t) ** 2 / 0.98 + np.log(0.7)).sum(),
    "5/4 + 2**3*sum(y) - 3/(1 + 1)*logsumexp(-y)": lambda y, t: (
        1.25 + 8 * y.sum() - 1.5 * torch.logsumexp(-y, 0)
    ),
    "sqrt(4)*(max(sqrt(2), 1.5)*(sum(y) + sum(y*t)))": lambda y, t: 3 * (y.sum() + (y * t).sum()),
    "sum(y**2) + log(1)*(max(sqrt(2), 1.5)*sum((y - t)*t))": lambda y, t: (y**2).sum(),
}
"""Losses with numbers that are put together out of numbers."""


@pytest.mark.parametrize("text", WRITTEN)
def test_numbers_of_a_written_loss(text: str) -> None:
    """Products, quotients, sums and powers of numbers and parameters."""
    loss = {"expression": text, "parameters": {"s": 0.7} if "s**2" in text else {}}
    spec = build_spec(small("tanh", loss) | {"regularization": {"state": "none"}})
    point = random_point(spec, 4)
    derived = SampleSystems(Derived(build_model(spec)), point.params, *point.sample())
    params = {name: torch.from_numpy(value) for name, value in point.params.items()}
    hidden = torch.tanh(F.linear(torch.from_numpy(point.inputs), params["fc1.weight"], params["fc1.bias"]))
    (output,) = F.linear(hidden, params["fc2.weight"], params["fc2.bias"])
    expected = float(WRITTEN[text](output, torch.from_numpy(point.targets)[0]))
    assert float(derived.objective()) == pytest.approx(expected, rel=1e-13)


def test_a_loss_is_no_number_where_a_part_that_cancels_is_none() -> None:
    """The logarithms cancel where they are numbers; the random outputs have a negative entry."""
    text = "sum(log(y)) - sum(log(y)) + sum((y - t)**2)"
    spec = build_spec(small("tanh", {"expression": text}) | {"regularization": {"state": "none"}})
    point = random_point(spec, 4)
    params = {name: torch.from_numpy(value) for name, value in point.params.items()}
    hidden = torch.tanh(F.linear(torch.from_numpy(point.inputs), params["fc1.weight"], params["fc1.bias"]))
    (output,) = F.linear(hidden, params["fc2.weight"], params["fc2.bias"])
    inside = {**point.params, "fc2.bias": point.params["fc2.bias"] + 10.0}
    assert bool((output < 0).any())
    model = build_model(spec)
    outside = SampleSystems(Derived(model), point.params, *point.sample()).objective()
    assert mpmath.isnan(outside)
    target = torch.from_numpy(point.targets)[0]
    expected = float(((output + 10.0 - target) ** 2).sum())
    found = SampleSystems(Derived(model), inside, *point.sample()).objective()
    assert float(found) == pytest.approx(expected, rel=1e-13)


@pytest.mark.parametrize("text", ["sum(1/(y - y))", "dot(t/(y - y), t)", "sum(log(t + y)*y/(t - t))"])
def test_a_loss_that_is_a_number_nowhere_is_refused(text: str) -> None:
    """Whatever stands above what cancels."""
    spec = build_spec(small("tanh", {"expression": text}))
    with pytest.raises(ModelError, match="not a finite real number"):
        build_model(spec)


def test_an_activation_is_short_for_a_layer_after_it() -> None:
    """One objective, for every kind of layer that has the key: λ/2 ‖x‖² of the activated states alone."""
    spec = build_spec(written(short=True))
    point = random_point(spec, 4)
    params = {name: torch.from_numpy(value) for name, value in point.params.items()}

    def dense(name: str, x: torch.Tensor) -> torch.Tensor:
        return F.linear(x, params[f"{name}.weight"], params[f"{name}.bias"])

    x1 = torch.tanh(dense("fc1", torch.from_numpy(point.inputs)))
    x2 = torch.tanh(dense("fc2", x1))
    x3 = torch.tanh(dense("fc2", x2))
    x4 = torch.tanh(x1 + x3)
    states = sum((x**2).sum() for x in (x1, x2, x3, x4))
    targets = torch.from_numpy(point.targets)
    expected = float(0.5 * ((dense("fc4", x4) - targets) ** 2).sum() + 0.125 * states)
    for short in (True, False):
        own = build_spec(written(short))
        renamed = {name if short else _long(name): value for name, value in point.params.items()}
        model = build_model(own)
        assert [c.name for c in model.constraints] == ["fc1", "fc2", "fc3", "sum1", "fc4"]
        derived = SampleSystems(Derived(model), renamed, *point.sample())
        assert float(derived.objective()) == pytest.approx(expected, rel=1e-13)
        tensors = {name: torch.from_numpy(value) for name, value in renamed.items()}
        found = oracle_torch.ForwardTorch(own)(tensors, torch.from_numpy(point.inputs), targets)
        assert float(found) == pytest.approx(expected, rel=1e-13)


def _long(name: str) -> str:
    layer, _, member = name.partition(".")
    return name if layer == "fc4" else f"{layer}_before.{member}"


@pytest.mark.parametrize("name", CASES)
def test_the_oracles_agree(name: str) -> None:
    """Nested dual numbers and torch.func, which share the reading of trees only: ∇, H v, G v."""
    spec = build_spec(dict(CASES[name]))
    point = random_point(spec, 11)
    sample, target = point.sample()
    params = {key: torch.from_numpy(value) for key, value in point.params.items()}
    vector = {key: torch.from_numpy(value) for key, value in point.vector.items()}
    batch = (params, torch.from_numpy(point.inputs), torch.from_numpy(point.targets))
    probe = random_point(spec, 12).vector
    with mpmath.workdps(30):
        precise = {key: MPMATH.array(value) for key, value in point.params.items()}
        along = {key: MPMATH.array(value) for key, value in point.vector.items()}
        other = {key: MPMATH.array(value) for key, value in probe.items()}
        goal = target if spec.loss.targets == "classes" else MPMATH.array(target)
        at = (precise, MPMATH.array(sample), goal)
        oracle = ForwardMpmath(spec)
        found = [
            float(oracle.objective(*at)),
            float(oracle.derivative(*at, [other])),
            float(oracle.derivative(*at, [along, other])),
            float(oracle.ggn_bilinear(*at, other, along)),
        ]

    def product(tensors: dict[str, torch.Tensor]) -> float:
        return float(sum((tensors[key] * torch.from_numpy(value)).sum() for key, value in probe.items()))

    expected = [
        float(oracle_torch.ForwardTorch(spec)(*batch)),
        product(oracle_torch.gradient(spec, *batch)),
        product(oracle_torch.hvp(spec, *batch, vector)),
        product(oracle_torch.ggn_vp(spec, *batch, vector)),
    ]
    np.testing.assert_allclose(found, expected, rtol=1e-11, atol=1e-12)


def test_third_derivatives_of_nested_duals() -> None:
    """A cubic objective: one linear unit with loss (y − t)⁴/4 has ∂³ = 6 (y − t) x³ along its weight."""
    data = small("tanh", "mse")
    data["network"] = {"input": {"size": 1}, "layers": [{"name": "fc", "type": "dense", "units": 1}]}
    data["loss"], data["regularization"] = {"expression": "sum((y - t)**4)/4"}, {"state": "none"}
    oracle = ForwardMpmath(build_spec(data))
    with mpmath.workdps(30):
        one = MPMATH.array([1.0])
        params = {"fc.weight": MPMATH.array([[2.0]]), "fc.bias": MPMATH.array([0.5])}
        unit = {"fc.weight": MPMATH.array([[1.0]]), "fc.bias": MPMATH.array([0.0])}
        assert oracle.derivative(params, 3 * one, one, [unit] * 3) == 6 * (2 * 3 + 0.5 - 1) * 27


def test_batches_are_means_and_sums() -> None:
    """The objective of a batch is the mean over its samples, with reduction: sum the sum."""
    for name, factor in (("tanh_cross_entropy_2", 1 / 4), ("reduction_sum", 1.0)):
        spec = build_spec(dict(CASES[name]))
        point = random_point(spec, 2, batch=4)
        params = {key: torch.from_numpy(value) for key, value in point.params.items()}
        inputs, targets = torch.from_numpy(point.inputs), torch.from_numpy(point.targets)
        forward = oracle_torch.ForwardTorch(spec)
        model = Derived(build_model(spec))
        each = [float(SampleSystems(model, point.params, *point.sample(i)).objective()) for i in range(4)]
        assert float(forward(params, inputs, targets)) == pytest.approx(sum(each) * factor, rel=1e-13)


def test_spectral_factors_are_the_quotients_of_norms() -> None:
    """λ_1 = ‖F'(a_2) ∘ b_2‖₂ / ‖F'(a_1)‖_∞, written out by hand for two layers with leaky_relu."""
    data = {**CASES["leaky_relu_squared_error_2"], "regularization": {"state": "spectral"}}
    spec = build_spec(data)
    point = random_point(spec, 3)
    params = point.params
    first = params["fc1.weight"] @ point.inputs[0] + params["fc1.bias"]
    hidden = np.where(first > 0, first, 0.1 * first)
    error = params["fc2.weight"] @ hidden + params["fc2.bias"] - point.targets[0]
    expected = np.linalg.norm(error) / np.max(np.where(first > 0, 1.0, 0.1))
    tensors = {key: torch.from_numpy(value) for key, value in params.items()}
    found = oracle_torch.ForwardTorch(spec).factors(
        tensors, torch.from_numpy(point.inputs), torch.from_numpy(point.targets)
    )
    assert list(found) == ["fc1"]
    assert float(found["fc1"][0]) == pytest.approx(expected, rel=1e-13)


def test_spectral_regularisation_needs_a_chain() -> None:
    """MK(65) names one successor of a state; the oracle refuses to invent another."""
    spec = build_spec({**CASES["skip"], "regularization": {"state": "spectral"}})
    point = random_point(spec, 3)
    tensors = {key: torch.from_numpy(value) for key, value in point.params.items()}
    with pytest.raises(VerificationError, match="chains"):
        oracle_torch.ForwardTorch(spec)(
            tensors, torch.from_numpy(point.inputs), torch.from_numpy(point.targets)
        )
