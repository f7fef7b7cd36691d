"""The Newton direction of one sample: H(N, η) = (G, g), with H from automatic differentiation."""

from __future__ import annotations

import copy

import mpmath
import numpy as np
import pytest
import torch
from cases import CASES, CHAINS, derived_of, marked

from sifrc.derive.derived import Derived
from sifrc.errors import DerivationError
from sifrc.ir.arithmetic import MPMATH
from sifrc.ir.traverse import inputs_of
from sifrc.model import build_model
from sifrc.spec import build_spec
from sifrc.verify.comparison import agreed_digits
from sifrc.verify.oracles import forward_torch as oracle_torch
from sifrc.verify.oracles.forward_mpmath import ForwardMpmath
from sifrc.verify.points import random_point
from sifrc.verify.precise.systems import SampleSystems


@pytest.mark.parametrize("name", marked(CHAINS))
@pytest.mark.parametrize("white_layer", [True, False])
def test_newton_direction_solves_the_dense_newton_system(name: str, white_layer: bool) -> None:
    """|H(N, η) − (G, g)| ≤ 1e-10 |(G, g)| in float64, against torch.func's dense Hessian."""
    derived = derived_of(name, white_layer)
    spec = derived.model.spec
    for seed in range(3 if white_layer else 1):
        point = random_point(spec, seed)
        direction = SampleSystems(derived, point.params, *point.sample()).newton_direction()
        params = {key: torch.from_numpy(value) for key, value in point.params.items()}
        batch = (torch.from_numpy(point.inputs), torch.from_numpy(point.targets))
        hessian = oracle_torch.dense_hessian(spec, params, *batch)
        gradient = oracle_torch.flatten(oracle_torch.gradient(spec, params, *batch))
        flat = oracle_torch.flatten({key: torch.tensor(np.array(value)) for key, value in direction.items()})
        residual = torch.linalg.vector_norm(hessian @ flat - gradient)
        assert float(residual) <= 1e-10 * float(torch.linalg.vector_norm(gradient))


@pytest.mark.parametrize("name", marked(CHAINS))
def test_newton_direction_has_forty_digits(name: str) -> None:
    """The same at 50 digits, against nested dual numbers."""
    derived = derived_of(name)
    spec = derived.model.spec
    point = random_point(spec, 1)
    with mpmath.workdps(50):
        params = {key: MPMATH.array(value) for key, value in point.params.items()}
        sample, target = point.sample()
        run = SampleSystems(derived, params, sample, target, MPMATH)
        oracle = ForwardMpmath(spec)
        goal = target if spec.loss.targets == "classes" else MPMATH.array(target)
        direction = run.newton_direction()
        probes = [
            {key: MPMATH.array(value) for key, value in random_point(spec, seed).vector.items()}
            for seed in (2, 3)
        ]
        product = [
            oracle.derivative(params, MPMATH.array(sample), goal, [direction, probe]) for probe in probes
        ]
        gradient = [oracle.derivative(params, MPMATH.array(sample), goal, [probe]) for probe in probes]
        digits = agreed_digits({"probes": np.asarray(product)}, {"probes": np.asarray(gradient)}, 50)
    assert digits >= 40


@pytest.mark.parametrize("name", marked(CHAINS))
def test_substituting_the_solution_leaves_zero(name: str) -> None:
    """The normal form proves every equation of the tetrad."""
    assert derived_of(name).newton.proved


@pytest.mark.parametrize(
    "first, second", [("d", "eps"), ("u", "v"), ("alpha2", "beta2"), ("zz", "aa"), ("k", "m")]
)
def test_the_proof_does_not_depend_on_names(first: str, second: str) -> None:
    """Names of parameters change the order of terms; the reduction terminates for any."""
    data = copy.deepcopy(dict(CASES["criterion"]))
    data["loss"] = {
        "expression": f"1/(1 + exp({first}*(dot(t, softmax(y)) - {second})))",
        "parameters": {first: 5.0, second: 0.2},
        "targets": "classes",
    }
    assert Derived(build_model(build_spec(data))).newton.proved


@pytest.mark.parametrize("name", ["skip", "shared", "no_bias", "relu"])
def test_a_model_outside_the_conditions_is_refused(name: str) -> None:
    """Skip connections, shared parameters, a missing bias and flat activations have no closed form."""
    with pytest.raises(DerivationError):
        _ = Derived(build_model(build_spec(dict(CASES[name])))).newton


def test_the_adjoint_of_the_white_layer_is_put_in() -> None:
    """A loss of centred differences leaves it in the elimination; the model without the layer lacks it."""
    layers = [{"name": "fc1", "type": "dense", "units": 2}]
    network = {"input": {"name": "image", "size": 2}, "layers": layers}
    loss = {"expression": "mean(((y - t) - mean(y - t))**2)", "targets": "vectors"}
    data = {"sifrc": 1, "name": "centred", "network": network, "loss": loss}
    newton = Derived(build_model(build_spec(data))).newton
    for value in (*newton.weights.values(), *newton.biases.values()):
        assert not any(symbol.family == "b" and symbol.index == 0 for symbol in inputs_of(value))


def test_the_steps_of_a_chain_are_told_in_its_indices() -> None:
    """What each step of the proof leaves, for two layers after the white one."""
    found = [step.result for step in derived_of("tanh_squared_error_2").newton.steps]
    assert found == [
        "y[1] ⊗ ζ[0] = 0, so ζ[0] = 0",
        "y[2] ⊗ ζ[1] = 0, so ζ[1] = 0",
        "η[2] = v − N[2] x[1]",
        "ζ[2] in terms of v",
        "γ[2] = −∂²ℓ/∂x² ζ[2]",
        "v, a linear system of the size of the output",
        "η[0] = −N[0] x[-1]",
        "γ[0] = −b[0]",
        "η[1] = −N[1] x[0]",
        "γ[1] = −b[1]",
        "N[1] of least norm with N[1]ᵀ y[1] = −∂ℓ_R/∂x[0]",
        "N[2] of least norm with N[2]ᵀ y[2] = −∂ℓ_R/∂x[1]",
        "N[0] = 0: no equation fixes it",
    ]
