"""Imported modules: the numbers of the module itself, and derivatives as torch differentiates it."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from importing_cases import CASES
from sampled import one_in
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

import sifrc

OPERATORS = ("gradient", "hessian_vector_product", "gauss_newton_vector_product")


def arguments_of(example: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if isinstance(example, dict):
        return (), example
    return (example if isinstance(example, tuple) else (example,)), {}


def doubled(example: Any) -> Any:
    if isinstance(example, Tensor):
        return example.double() if example.is_floating_point() else example
    if isinstance(example, dict):
        return {name: doubled(value) for name, value in example.items()}
    return tuple(doubled(value) for value in example)


def expected_of(
    module: nn.Module, example: Any, loss: Any, targets: Tensor, vector: dict[str, Tensor]
) -> Any:
    """Loss, gradient, Hessian and Gauss–Newton products by reverse mode twice."""
    args, kwargs = arguments_of(example)
    params = {name: value.detach().clone().requires_grad_() for name, value in module.named_parameters()}
    buffers = {name: value.clone() for name, value in module.named_buffers()}
    with sdpa_kernel(SDPBackend.MATH):
        outputs = functional_call(module, params | buffers, args, kwargs)
        value = loss(outputs, targets)
        values = list(params.values())
        gradient = torch.autograd.grad(value, values, create_graph=True)
        inner = sum((g * vector[name]).sum() for g, name in zip(gradient, params, strict=True))
        hessian = torch.autograd.grad(inner, values, retain_graph=True, materialize_grads=True)
        # Jᵀ H J v, J v by reverse mode through a dummy.
        dummy = torch.zeros_like(outputs, requires_grad=True)
        pulled = torch.autograd.grad(outputs, values, dummy, create_graph=True, materialize_grads=True)
        along = sum((g * vector[name]).sum() for g, name in zip(pulled, params, strict=True))
        (pushed,) = torch.autograd.grad(along, dummy, retain_graph=True)
        free = outputs.detach().requires_grad_()
        (slope,) = torch.autograd.grad(loss(free, targets), free, create_graph=True)
        (bent,) = torch.autograd.grad((slope * pushed.detach()).sum(), free)
        gauss = torch.autograd.grad(outputs, values, bent, materialize_grads=True)
    names = list(params)
    return value.detach(), *(dict(zip(names, each, strict=True)) for each in (gradient, hessian, gauss))


def check_derivatives(module: nn.Module, example: Any, loss: Any, oracle: nn.Module | None = None) -> None:
    """Outputs, gradient, Hessian and Gauss–Newton product of a module in float64, by its own names.

    Args:
        module: that is imported.
        example: a batch of inputs.
        loss: of torch.
        oracle: with the same tensors in the same order, where torch's derivatives of the module are wrong.
    """
    args, kwargs = arguments_of(example)
    before = copy.deepcopy(module.state_dict())
    spec = sifrc.from_torch(module, example, loss, target={"operators": list(OPERATORS)})
    after = module.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before), "the import changed the module"
    generated: Any = sifrc.compile(spec)
    generator = torch.Generator().manual_seed(5)
    outputs = copy.deepcopy(module)(*args, **kwargs)
    if isinstance(loss, nn.CrossEntropyLoss):
        shape = (outputs.shape[0], *outputs.shape[2:])
        targets = torch.randint(outputs.shape[1], shape, generator=generator)
    else:
        targets = torch.randn(outputs.shape, generator=generator, dtype=torch.float64)
    vector = {
        name: torch.randn(value.shape, generator=generator, dtype=torch.float64)
        for name, value in module.named_parameters()
    }
    if oracle is None:
        expected = expected_of(copy.deepcopy(module), example, loss, targets, vector)
    else:
        own = dict(zip((name for name, _ in oracle.named_parameters()), vector.values(), strict=True))
        value, *rest = expected_of(oracle, example, loss, targets, own)
        expected = value, *(dict(zip(vector, each.values(), strict=True)) for each in rest)
    held = dict(module.named_parameters()) | dict(module.named_buffers())
    names = {own: spec.names.get(own, own) for own in (*generated.SHAPES, *getattr(generated, "BUFFERS", {}))}
    params = {own: held[given].detach() for own, given in names.items()}
    inputs = tuple(kwargs[source.name] for source in spec.inputs) if kwargs else args
    inputs = inputs[0] if len(inputs) == 1 else inputs
    of_batch = any(isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d) for part in module.modules())
    if not (module.training and of_batch):
        predicted = generated.predict(params, inputs)
        torch.testing.assert_close(predicted, outputs.detach(), rtol=1e-12, atol=1e-12)
    found = generated.gradient(params, inputs, targets)
    moved = {own: vector[names[own]] for own in generated.SHAPES}
    products = [getattr(generated, each)(params, inputs, targets, moved) for each in OPERATORS[1:]]
    torch.testing.assert_close(generated.loss(params, inputs, targets), expected[0], rtol=1e-12, atol=1e-12)
    assert set(names.values()) >= {name for name, _ in module.named_parameters()}
    for result, wanted in zip((found, *products), expected[1:], strict=True):
        scale = max(float(value.abs().max()) for value in wanted.values())
        for own, value in result.items():
            torch.testing.assert_close(value, wanted[names[own]], rtol=1e-9, atol=1e-9 * scale)


@pytest.mark.parametrize("name", one_in(2, CASES))
def test_derivatives(name: str) -> None:
    """Gradient, Hessian and Gauss–Newton product of the module's own parameters by their own names."""
    make, example, loss = CASES[name]
    torch.manual_seed(0)
    check_derivatives(make().double(), doubled(example), loss)
