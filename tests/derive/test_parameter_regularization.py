"""``regularization: {parameters: λ}``: ½ Σ λ ‖θ‖² in the objective, against torch.func on it written out."""

from __future__ import annotations

from functools import cache, partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch.func import grad, hessian, jacfwd, jvp

import sifrc
from sifrc.compiler import Request, compile_spec
from sifrc.spec.canonical import spec_to_dict
from sifrc.verify import verify

NUMBERS = {"fc1.weight": 0.3, "fc2": 0.7}
OPERATORS = ("objective", "gradient", "hessian_vector_product", "gauss_newton_vector_product", "summary")
INPUTS = torch.randn(6, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
TARGETS = torch.arange(6) % 3


def spec_of(parameters: Any = None, *, reduction: str = "mean", **keys: Any) -> Any:
    """A chain of two dense layers, one of its states regularised too unless told otherwise."""
    layers = [
        {"name": "fc1", "type": "dense", "units": 5, "activation": "tanh"},
        {"name": "fc2", "type": "dense", "units": 3},
    ]
    return sifrc.build_spec(
        {
            "sifrc": 1,
            "name": "net",
            "dtype": "float64",
            "loss": {"function": "cross_entropy", "targets": "classes", "reduction": reduction},
            "regularization": {"state": 0.1, "parameters": NUMBERS if parameters is None else parameters},
            "network": {"input": {"name": "image", "size": 4}, "layers": layers},
            **keys,
        }
    )


@cache
def module_of(reduction: str) -> Any:
    return sifrc.compile(
        spec_of(reduction=reduction, target={"operators": [*OPERATORS, "per_sample_gradients"]}), "torch"
    )


def objective(p: Any, x: torch.Tensor = INPUTS, t: torch.Tensor = TARGETS, *, state: float = 0.1) -> Any:
    """The mean objective."""
    a = torch.tanh(x @ p["fc1.weight"].T + p["fc1.bias"])
    y = a @ p["fc2.weight"].T + p["fc2.bias"]
    squares = {name: (value**2).sum() for name, value in p.items()}
    penalty = 0.3 / 2 * squares["fc1.weight"] + 0.7 / 2 * (squares["fc2.weight"] + squares["fc2.bias"])
    return F.cross_entropy(y, t) + state / 2 * (a**2).sum() / len(x) + penalty


def point(seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = module_of("mean").SHAPES
    return {k: torch.randn(shape, dtype=torch.float64, generator=generator) for k, shape in shapes.items()}


def close(found: Any, expected: Any) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_every_derivative_of_the_objective_has_it(reduction: str) -> None:
    """Objective, gradient, Hessian product, gradients of samples; a sum has it once for each sample."""
    module, p, v = module_of(reduction), point(1), point(2)
    count = len(INPUTS) if reduction == "sum" else 1

    def whole(p: Any) -> Any:
        return count * objective(p)

    close(module.objective(p, INPUTS, TARGETS), whole(p))
    close(module.gradient(p, INPUTS, TARGETS), grad(whole)(p))
    close(module.hessian_vector_product(p, INPUTS, TARGETS, v), jvp(grad(whole), (p,), (v,))[1])
    each = module.per_sample_gradients(p, INPUTS, TARGETS)
    for n in range(2):
        expected = grad(objective)(p, INPUTS[n : n + 1], TARGETS[n : n + 1])
        close({name: value[n] for name, value in each.items()}, expected)


def test_summaries_have_it_and_the_gauss_newton_matrix_has_not() -> None:
    """Orders 1 to 3; the Gauss–Newton product stays that of the loss."""
    module, p, v = module_of("mean"), point(1), point(2)
    found, names = module.summary(p, INPUTS, TARGETS, v, order=3), list(p)

    def moved(steps: torch.Tensor) -> Any:
        return objective({name: p[name] + steps[n] * v[name] for n, name in enumerate(names)})

    start = torch.zeros(len(names), dtype=torch.float64)
    close(found.g, grad(moved)(start))
    close(found.H, hessian(moved)(start))
    close(found.D3, torch.einsum("iii->i", jacfwd(hessian(moved))(start)))
    plain = sifrc.compile(
        spec_of(parameters={}, target={"operators": ["gauss_newton_vector_product"]}), "torch"
    )
    product = module.gauss_newton_vector_product(p, INPUTS, TARGETS, v)
    close(product, plain.gauss_newton_vector_product(p, INPUTS, TARGETS, v))


@pytest.mark.parametrize(("solver", "moment"), [("exact", "second"), ("cg", "second"), ("ea_cg", "mean")])
def test_blocks_of_a_step_have_it(solver: str, moment: str) -> None:
    """EA-CG on one sample, where its blocks are exact: ((1 − α) H + α I) d = g with the objective's own H."""
    method = {"name": "ea_cg", "kind": "hessian", "solver": solver, "moment": moment, "alpha": 0.2}
    method |= {"momentum": 0.0, "cg_iterations": 200, "cg_tolerance": 1e-13}
    module: Any = sifrc.compile(spec_of(method=method, regularization={"parameters": NUMBERS}), "torch")
    network = module.Network(1)
    p = {name: value.detach().clone() for name, value in network.named_parameters()}
    x, t = INPUTS[:1], TARGETS[:1]
    module.Optimizer(network, lr=0.5).step(x, t)
    slopes = grad(partial(objective, x=x, t=t, state=0.0))(p)
    blocks = hessian(partial(objective, x=x, t=t, state=0.0))(p)
    for name, value in network.named_parameters():
        size = value.numel()
        damped = 0.8 * blocks[name][name].reshape(size, size) + 0.2 * torch.eye(size, dtype=torch.float64)
        direction = torch.linalg.solve(damped, slopes[name].reshape(-1)).reshape(value.shape)
        torch.testing.assert_close(value.detach(), p[name] - 0.5 * direction, rtol=1e-10, atol=1e-12)


def test_diagonals_of_a_step_have_it() -> None:
    """Scales of a norm have a diagonal for a block: (1 − α) (d + λ) + α divides their gradient."""
    layers = [
        {"name": "fc1", "type": "dense", "units": 5},
        {"name": "norm", "type": "layer_norm"},
        {"name": "fc2", "type": "dense", "units": 3},
    ]
    network = {"input": {"name": "image", "size": 4}, "layers": layers}
    method = {"name": "ea_cg", "kind": "ggn", "momentum": 0.0, "alpha": 0.2}

    def moved(number: float) -> tuple[torch.Tensor, torch.Tensor]:
        keys = {
            "network": network,
            "method": method,
            "regularization": {"parameters": {"norm.weight": number}},
        }
        module: Any = sifrc.compile(spec_of(**keys, target={"operators": ["gradient"]}), "torch")
        model = module.Network(1)
        p = {name: value.detach().clone() for name, value in model.named_parameters()}
        module.Optimizer(model, lr=1.0).step(INPUTS, TARGETS)
        slope = module.gradient(p, INPUTS, TARGETS)["norm.weight"]
        return slope, (p["norm.weight"] - model.get_parameter("norm.weight")).detach()

    (slope, plain), (penalized, found) = moved(0.0), moved(0.9)
    close(penalized, slope + 0.9)  # the scales begin with ones
    close(penalized / found, slope / plain + 0.8 * 0.9)


def checked(report: Any, wanted: set[tuple[str, int]]) -> None:
    """Every row that exists has passed, and those of some quantities exist."""
    rows = [row for row in report.rows if row.passed is not None]
    assert [row for row in rows if not row.passed] == []
    assert wanted <= {(row.quantity, row.level) for row in rows}


def test_verification_knows_it() -> None:
    """Both oracles and the level of symbols; the step of grouped Newton with decay besides."""
    method = {"name": "grouped_newton", "period": 1, "weight_decay": 0.1}
    found = verify(
        spec_of(method=method, target={"operators": ["gradient", "hessian_vector_product"]}), levels=(1, 2)
    )
    checked(found, {("gradient", 1), ("objective", 2), ("hessian_vector_product", 2), ("step", 2)})


def test_networks_that_couple_samples_have_it_once() -> None:
    """A mean over the targets that count, statistics of the batch, a weight with two uses."""
    layers = [
        {"name": "fc1", "type": "dense", "units": 3, "activation": "tanh"},
        {"name": "fc2", "type": "dense", "units": 3, "share": "fc1"},
        {"name": "norm", "type": "batch_norm"},
    ]
    spec = spec_of(
        parameters=0.3,
        network={"input": {"name": "image", "size": 3}, "layers": layers},
        loss={"function": "cross_entropy", "targets": "classes", "ignore_index": 0},
        target={"operators": ["objective", "gradient", "hessian_vector_product"]},
    )
    found = verify(spec, levels=(2, 3), module=sifrc.compile(spec, "torch"))
    checked(found, {(name, level) for name in ("gradient", "hessian_vector_product") for level in (2, 3)})


def test_what_has_no_place_for_it_is_refused() -> None:
    """Closed forms and blocks of pre-activations say so."""
    cases: list[tuple[dict[str, Any], str]] = [
        ({"method": {"name": "mk"}}, "no closed form"),
        ({"method": {"name": "esn"}}, "no closed form"),
        ({"target": {"operators": ["newton_direction"]}}, "no closed form"),
        ({"method": {"name": "ea_cg", "solver": "kfi"}}, "factored inverse"),
        ({"target": {"operators": ["block_hessian"]}, "curvature": ["hessian"]}, "goes by none"),
    ]
    for keys, message in cases:
        with pytest.raises(sifrc.SifrcError, match=message):
            compile_spec(spec_of(**keys), Request(backend="torch"))
    module = compile_spec(spec_of(target={"operators": ["block_hessian"]}), Request(backend="torch"))
    assert "hessian" not in {kind.name for op in module.source.program.operators for kind in op.kinds}


def test_numbers_are_by_tensor_by_layer_or_one_for_all() -> None:
    """A tensor's own name comes before its layer's; zero is none; the canonical form gives the same spec."""
    whole = spec_of(parameters=0.2)
    assert dict(whole.regularization.parameters) == dict.fromkeys(module_of("mean").SHAPES, 0.2)
    assert spec_to_dict(whole)["regularization"]["parameters"] == 0.2
    mixed = spec_of(parameters={"fc2.bias": 0.0, "fc2": 0.7, "fc1.weight": 0.3})
    assert dict(mixed.regularization.parameters) == {"fc1.weight": 0.3, "fc2.weight": 0.7}
    for spec in (whole, mixed, spec_of(parameters={})):
        assert sifrc.build_spec(spec_to_dict(spec)) == spec
    for given, message in (
        (-1.0, "zero or more"),
        ("much", "a number"),
        ({"fc3": 1.0}, "named 'fc3'"),
        ({"fc1": float("nan")}, "zero or more"),
    ):
        with pytest.raises(sifrc.SpecError, match=message):
            spec_of(parameters=given)


def test_the_one_line_optimizer_has_it_by_the_names_of_the_model() -> None:
    """``l2`` is a number, or numbers by patterns; the objective of a step has it."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 5), torch.nn.Tanh(), torch.nn.Linear(5, 3)).double()
    start = [value.detach().clone() for value in model.parameters()]
    data = F.cross_entropy(model(INPUTS), TARGETS).detach()
    options: Any = {"method": "ea_cg", "example": (INPUTS, TARGETS)}
    optimizer: Any = sifrc.optimizer(model, "cross_entropy", l2={"*.weight": 0.5}, **options)
    close(optimizer.step(INPUTS, TARGETS), data + 0.25 * sum((w**2).sum() for w in start[::2]))
    with pytest.raises(sifrc.MethodError, match="head"):
        sifrc.optimizer(model, "cross_entropy", l2={"head.*": 0.5}, **options)


@pytest.mark.parametrize("method", ["ea_cg", "grouped_newton"])
def test_several_batches_of_a_step_have_it_once(method: str) -> None:
    """A list of batches is one step of all of them: with ℓ₂ terms, decay, and rates of groups."""
    found = []
    for batch in ((INPUTS, TARGETS), [(INPUTS[:2], TARGETS[:2]), (INPUTS[2:], TARGETS[2:])]):
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Linear(4, 5), torch.nn.Tanh(), torch.nn.Linear(5, 3)).double()
        groups = [{"params": "0.*", "lr": 0.02}, {"params": "2.*", "lr": 0.1}]
        options: Any = {"method": method, "example": (INPUTS, TARGETS), "groups": groups}
        optimizer: Any = sifrc.optimizer(model, "cross_entropy", l2=0.3, weight_decay=0.2, **options)
        objective = optimizer.step(batch) if isinstance(batch, list) else optimizer.step(*batch)
        found.append([objective, *(value.detach() for value in model.parameters())])
    close(*found)
