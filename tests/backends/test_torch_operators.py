"""Operators of generated Torch modules against automatic differentiation of the plain forward pass."""

from __future__ import annotations

import subprocess
import sys
from functools import partial

import pytest
import torch
from torch_cases import (
    ACTIVATIONS,
    CHAIN,
    LOSSES,
    OPERATORS,
    SKIP,
    STATE,
    data,
    difference,
    emitted,
    forward,
    loaded,
    objective,
    parameters,
    spec_text,
)

from sifrc.backends.torch_eager.reserved import MODULE_MEMBERS
from sifrc.errors import BackendError

# A hundred roundings: depth times the length of the longest sum, and the same in the oracle.
ROUNDING = 100 * torch.finfo(torch.float64).eps
CASES = [(a, "cross_entropy", False) for a in ACTIVATIONS] + [("softplus", loss, False) for loss in LOSSES]
CASES += [("elu", "squared_error", True), ("gelu", "cross_entropy", True)]


@pytest.mark.parametrize(("activation", "loss", "skip"), CASES)
def test_operators_agree_with_torch_func(activation, loss, skip, tmp_path):
    """Objective, gradient, Hessian and Gauss–Newton products; the oracle differentiates the forward pass."""
    module = loaded(spec_text(activation, loss, layers=SKIP if skip else CHAIN), tmp_path)
    params, (inputs, targets) = parameters(module), data(loss)
    vector = parameters(module, seed=1)
    plain = partial(objective, inputs=inputs, targets=targets, activation=activation, loss=loss, skip=skip)
    gradient, product = torch.func.jvp(torch.func.grad(plain), (params,), (vector,))
    outputs = partial(lambda p: forward(p, inputs, activation, skip)[0])
    y, dy = torch.func.jvp(outputs, (params,), (vector,))
    curved = torch.func.jvp(torch.func.grad(lambda y: LOSSES[loss](y, targets)), (y,), (dy,))[1]
    gauss_newton = torch.func.vjp(outputs, params)[1](curved)[0]

    value, both = module.objective_and_gradient(params, inputs, targets)
    assert value.shape == () and float(value) == pytest.approx(float(plain(params)), rel=ROUNDING)
    assert float(module.objective(params, inputs, targets)) == float(value)
    assert float(module.loss(params, inputs, targets)) == pytest.approx(
        float(LOSSES[loss](y, targets)), rel=1e-13
    )
    assert difference(both, gradient) < ROUNDING
    assert difference(module.gradient(params, inputs, targets), gradient) < ROUNDING
    assert difference(module.hessian_vector_product(params, inputs, targets, vector), product) < ROUNDING
    again = module.linearize(params, inputs, targets)
    assert difference(again(vector), product) < ROUNDING
    assert difference(again(params), module.hessian_vector_product(params, inputs, targets, params)) == 0.0
    found = module.gauss_newton_vector_product(params, inputs, targets, vector)
    assert difference(found, gauss_newton) < ROUNDING
    assert list(both) == list(module.SHAPES)


@pytest.mark.parametrize("loss", ["mse", "binary_cross_entropy", "huber", "cross_entropy"])
def test_sums_are_those_of_torch(loss, tmp_path):
    """``reduction: sum`` is PyTorch's: over the samples, and over the outputs where a mean was."""
    theirs = {
        "mse": torch.nn.MSELoss,
        "binary_cross_entropy": torch.nn.BCEWithLogitsLoss,
        "huber": torch.nn.HuberLoss,
        "cross_entropy": torch.nn.CrossEntropyLoss,
    }[loss](reduction="sum")
    text = spec_text("tanh", f"{loss}, reduction: sum", operators="gradient").replace(
        f"regularization: {{state: {STATE}}}\n", ""
    )
    module = loaded(text, tmp_path)
    params, (inputs, targets) = parameters(module), data(loss)
    plain = lambda p: theirs(forward(p, inputs, "tanh")[0], targets)  # noqa: E731
    gradient, value = torch.func.grad_and_value(plain)(params)
    assert float(module.loss(params, inputs, targets)) == pytest.approx(float(value), rel=1e-13)
    assert difference(module.gradient(params, inputs, targets), gradient) < ROUNDING


@pytest.mark.parametrize("loss", ["cross_entropy", "squared_error"])
@pytest.mark.parametrize("activation", ["leaky_relu", "softplus", "elu"])
def test_newton_direction_solves_the_newton_equation(activation, loss, tmp_path):
    """H·(N, η) = gradient, also with the singular Hessian of softmax."""
    module = loaded(spec_text(activation, loss, operators="newton_direction"), tmp_path)
    params, (inputs, targets) = parameters(module), data(loss, batch=1)
    plain = partial(objective, inputs=inputs, targets=targets, activation=activation, loss=loss)
    direction = module.newton_direction(params, inputs[0], targets[0])
    gradient, product = torch.func.jvp(torch.func.grad(plain), (params,), (direction,))
    assert difference(product, gradient) < 1e-10
    if loss == "cross_entropy":
        same = module.newton_direction(params, inputs[0], int(targets[0]))
        assert difference(same, direction) == 0.0


def test_sum_reduction_multiplies_by_the_batch_size(tmp_path):
    """Sum of the samples' objectives and its derivatives."""
    mean = loaded(spec_text(), tmp_path, "reduced_mean")
    total = loaded(spec_text(extra=", reduction: sum"), tmp_path, "reduced_sum")
    params, (inputs, targets) = parameters(mean), data()
    vector = parameters(mean, seed=1)
    assert float(total.loss(params, inputs, targets)) == pytest.approx(
        6 * float(mean.loss(params, inputs, targets))
    )
    for name in ("gradient", "hessian_vector_product"):
        more = (vector,) if name.endswith("product") else ()
        expected = getattr(mean, name)(params, inputs, targets, *more)
        found = getattr(total, name)(params, inputs, targets, *more)
        assert difference(found, {key: 6 * value for key, value in expected.items()}) < ROUNDING


@pytest.mark.parametrize("bias", ["first", "none"])
def test_layers_without_bias(bias, tmp_path):
    """Gradient and Hessian product where some layers, or all, have no bias."""
    last = ", bias: false" if bias == "none" else ""
    layers = "    - {name: fc1, type: dense, units: 4, activation: softplus, bias: false}"
    text = spec_text(layers=layers, loss="squared_error").replace("units: 3}", f"units: 3{last}}}")
    module = loaded(text, tmp_path)
    params, (inputs, targets) = parameters(module), data("squared_error")
    vector = parameters(module, seed=1)
    assert len(params) == (3 if bias == "first" else 2)

    def plain(p):
        x = ACTIVATIONS["softplus"](inputs @ p["fc1.weight"].T)
        y = x @ p["out.weight"].T + p.get("out.bias", 0.0)
        return LOSSES["squared_error"](y, targets) + STATE / 2 * (x**2).sum(1).mean()

    gradient, product = torch.func.jvp(torch.func.grad(plain), (params,), (vector,))
    assert difference(module.gradient(params, inputs, targets), gradient) < ROUNDING
    assert difference(module.hessian_vector_product(params, inputs, targets, vector), product) < ROUNDING


INITIAL = {
    "he": ("{kind: he}", lambda w: 0.8 < w.std() / (2 / 400) ** 0.5 < 1.2),
    "glorot": ("{kind: glorot}", lambda w: 0.9 < w.abs().max() / (6 / 600) ** 0.5 <= 1.0),
    "sparse": ("{kind: sparse, connections: 3}", lambda w: bool(((w != 0).sum(1) == 3).all())),
    "zeros": ("{kind: zeros}", lambda w: bool((w == 0).all())),
    "constant": ("{kind: constant, value: 0.25}", lambda w: bool((w == 0.25).all())),
}


@pytest.mark.parametrize("kind", INITIAL)
def test_initialisation(kind, tmp_path):
    """Spread, places and values of each kind; biases are zero except for ``constant``."""
    option, holds = INITIAL[kind]
    layers = f"    - {{name: fc1, type: dense, units: 200, activation: tanh, init: {option}}}"
    text = spec_text(layers=layers, operators="loss").replace("size: 5", "size: 400")
    start = loaded(text, tmp_path).initialize(2)
    assert holds(start["fc1.weight"])
    assert bool((start["fc1.bias"] == (0.25 if kind == "constant" else 0.0)).all())


def test_network_is_differentiable_and_its_start_is_reproducible(tmp_path):
    """Autograd through ``Network``; the same seed gives the same parameters, torch's generator unused."""
    module = loaded(spec_text("softplus"), tmp_path)
    before = torch.get_rng_state()
    network = module.Network(seed=3)
    assert torch.equal(before, torch.get_rng_state())
    assert {name: tuple(value.shape) for name, value in network.named_parameters()} == module.SHAPES
    start = module.initialize(3)
    assert all(torch.equal(value, start[name]) for name, value in network.named_parameters())
    assert not torch.equal(start["fc1.weight"], module.initialize(4)["fc1.weight"])
    inputs, targets = data()
    params = {name: value.detach().clone() for name, value in network.named_parameters()}
    loss = torch.nn.functional.cross_entropy(network(inputs), targets)
    loss.backward()
    plain = torch.func.grad(
        lambda p: torch.nn.functional.cross_entropy(forward(p, inputs, "softplus")[0], targets)
    )
    assert difference({n: p.grad for n, p in network.named_parameters()}, plain(params)) < ROUNDING
    assert torch.equal(module.predict(params, inputs), network(inputs).detach())
    assert module.Network(dtype=torch.float32).fc1.weight.dtype == torch.float32


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_results_have_the_dtype_of_the_parameters(dtype, tmp_path):
    """Low precision in, low precision out, near the result in float64."""
    module = loaded(spec_text("softplus", operators=OPERATORS + ", newton_direction"), tmp_path)
    params, (inputs, targets) = parameters(module), data()
    low = {name: value.to(dtype) for name, value in params.items()}
    exact = module.gradient({n: v.double() for n, v in low.items()}, inputs.to(dtype).double(), targets)
    found = module.gradient(low, inputs.to(dtype), targets)
    assert {value.dtype for value in found.values()} == {dtype}
    assert difference({n: v.double() for n, v in found.items()}, exact) < 20 * torch.finfo(dtype).eps
    direction = module.newton_direction(low, inputs[0].to(dtype), targets[0])
    assert {value.dtype for value in direction.values()} == {dtype}


BAD = {
    "missing name": (
        lambda p, x, t: ({k: v for k, v in p.items() if k != "fc1.bias"}, x, t),
        ValueError,
        "fc1.bias",
    ),
    "shape": (
        lambda p, x, t: (p | {"fc1.bias": torch.zeros(7)}, x, t),
        ValueError,
        r"fc1.bias.*\(4\).*\(7,\)",
    ),
    "no tensor": (lambda p, x, t: (p | {"fc1.bias": 1.0}, x, t), TypeError, "float"),
    "mixed dtypes": (lambda p, x, t: (p | {"fc1.bias": torch.zeros(4)}, x, t), TypeError, "float64.*float32"),
    "inputs dtype": (lambda p, x, t: (p, x.float(), t), TypeError, "inputs.*float64.*float32"),
    "inputs shape": (lambda p, x, t: (p, x[0], t), ValueError, r"inputs.*\(B, 5\).*\(5,\)"),
    "no sample": (lambda p, x, t: (p, x[:0], t[:0]), ValueError, "at least one sample"),
    "target count": (lambda p, x, t: (p, x, t[:2]), ValueError, r"targets.*\(6,\).*\(2,\)"),
    "target dtype": (lambda p, x, t: (p, x, t.double()), TypeError, "integers"),
    "target range": (lambda p, x, t: (p, x, t + 5), ValueError, "classes 0 to 2"),
    "negative target": (
        lambda p, x, t: (p, x, torch.tensor([2, -1, 2, 2, 2, 2])),
        ValueError,
        "classes 0 to 2, got -1 to 2",
    ),
    "integers": (lambda p, x, t: ({k: v.long() for k, v in p.items()}, x, t), TypeError, "int64"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_arguments_are_named(case, tmp_path):
    """Which argument, what was expected, what came."""
    module = loaded(spec_text(operators="gradient"), tmp_path)
    change, kind, text = BAD[case]
    arguments = change(parameters(module), *data())
    with pytest.raises(kind, match=text):
        module.gradient(*arguments)


def test_text_is_formatted_and_stands_alone(tmp_path):
    """ruff format changes nothing; only torch is needed."""
    here = emitted(spec_text("softplus", method="{name: esn, variant: exact}"))
    path = tmp_path / "formatted.py"
    path.write_text(here)
    ruff = [sys.executable, "-m", "ruff", "--config", "line-length = 110"]
    for command in (["format", "--check"], ["check", "--ignore", "RUF"]):
        run = subprocess.run([*ruff[:3], *command, *ruff[3:], str(path)], capture_output=True, text=True)
        assert run.returncode == 0, run.stdout
    imports = [line for line in here.splitlines() if line.startswith(("import ", "from "))]
    assert not [line for line in imports if "sifrc" in line or "numpy" in line]


def test_layer_names_that_torch_modules_have_are_refused():
    """The static list holds every public member of ``torch.nn.Module``."""
    public = {name for name in dir(torch.nn.Module()) if not name.startswith("_")}
    assert public <= MODULE_MEMBERS
    with pytest.raises(BackendError, match="train"):
        emitted(spec_text(layers="    - {name: train, type: dense, units: 4, activation: ACTIVATION}"))
