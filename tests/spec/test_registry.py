"""Built-in activations and losses agree with PyTorch's, which shares no code with them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from sifrc.spec import build_spec, spec_hash, spec_to_dict
from sifrc.spec.checks import check_dependence, check_loss_rank
from sifrc.spec.expression import Binary, Call, Compare, Expression, Name, Negative, Number
from sifrc.spec.functionspec import built_in_expression
from sifrc.spec.registry import ACTIVATIONS, LOSSES

torch = pytest.importorskip("torch")
F = torch.nn.functional


def evaluate(tree: Expression, values: Mapping[str, Any]) -> Any:
    """Plain evaluation of a tree on float64 tensors."""
    functions: dict[str, Callable[..., Any]] = {
        "abs": torch.abs,
        "exp": torch.exp,
        "expm1": torch.expm1,
        "erf": torch.erf,
        "sin": torch.sin,
        "tanh": torch.tanh,
        "sigmoid": torch.sigmoid,
        "softplus": F.softplus,
        "where": torch.where,
        "sqrt": torch.sqrt,
        "sum": torch.sum,
        "mean": torch.mean,
        "dot": torch.dot,
        "softmax": lambda v: torch.softmax(v, 0),
        "log_softmax": lambda v: torch.log_softmax(v, 0),
    }
    match tree:
        case Number(value=value):
            return torch.tensor(float(value), dtype=torch.float64)
        case Name(identifier=name):
            return values[name]
        case Negative(operand=operand):
            return -evaluate(operand, values)
        case Call(function=function, arguments=arguments):
            return functions[function](*(evaluate(argument, values) for argument in arguments))
        case (
            Binary(operator=operator, left=left, right=right)
            | Compare(operator=operator, left=left, right=right)
        ):
            a, b = evaluate(left, values), evaluate(right, values)
            return {
                "+": lambda: a + b,
                "-": lambda: a - b,
                "*": lambda: a * b,
                "/": lambda: a / b,
                "**": lambda: a**b,
                "<": lambda: a < b,
                "<=": lambda: a <= b,
                ">": lambda: a > b,
                ">=": lambda: a >= b,
            }[operator]()


TORCH_ACTIVATIONS: dict[str, Callable[[Any], Any]] = {
    "identity": lambda x: x,
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


@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
def test_activation_equals_torch(name: str) -> None:
    x = torch.linspace(-4, 4, 41, dtype=torch.float64)
    tree = built_in_expression("activation", name)
    check_dependence(tree, "x", name)
    ours = evaluate(tree, {"x": x, **dict(ACTIVATIONS[name].parameters)})
    assert torch.allclose(ours, TORCH_ACTIVATIONS[name](x), rtol=1e-12, atol=1e-14)


TORCH_LOSSES: dict[str, Callable[[Any, Any], Any]] = {
    "squared_error": lambda y, t: 0.5 * F.mse_loss(y, t, reduction="sum"),
    "mse": F.mse_loss,
    "cross_entropy": F.cross_entropy,
    "binary_cross_entropy": F.binary_cross_entropy_with_logits,
    "huber": F.huber_loss,
    "bounded": lambda y, t: torch.sigmoid(-5 * (torch.softmax(y, 0)[t.argmax()] - 0.2)),
}


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_loss_equals_torch(name: str) -> None:
    y = torch.tensor([1.5, -0.3, 2.0, 0.25], dtype=torch.float64)
    t = torch.tensor([0.0, 0.0, 1.0, 0.0], dtype=torch.float64)
    tree = built_in_expression("loss", name)
    check_loss_rank(tree)
    check_dependence(tree, "y", name)
    ours = evaluate(tree, {"y": y, "t": t, **dict(LOSSES[name].parameters)})
    assert math.isclose(float(ours), float(TORCH_LOSSES[name](y, t)), rel_tol=1e-12)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("name", ["mse", "cross_entropy", "binary_cross_entropy", "huber"])
def test_reductions_are_those_of_torch(name: str, reduction: str) -> None:
    """The loss that a spec declares, reduced over a batch, is PyTorch's with its reduction."""
    generator = torch.Generator().manual_seed(3)
    outputs = 2 * torch.randn(5, 3, generator=generator, dtype=torch.float64)
    targets: Any = torch.rand(5, 3, generator=generator, dtype=torch.float64)
    if name == "cross_entropy":
        targets = torch.randint(0, 3, (5,), generator=generator)
    expected = TORCH_LOSSES[name](outputs, targets, reduction=reduction)  # type: ignore[call-arg]
    layers = [{"name": "fc", "type": "dense", "units": 3}]
    spec = build_spec(
        {
            "sifrc": 1,
            "name": "reduced",
            "network": {"input": {"size": 2}, "layers": layers},
            "loss": {"function": name, "reduction": reduction},
        }
    )
    vectors = F.one_hot(targets, 3).to(torch.float64) if name == "cross_entropy" else targets
    parameters = dict(spec.loss.function.parameters)
    each = [
        evaluate(spec.loss.function.expression, {"y": y, "t": t, **parameters})
        for y, t in zip(outputs, vectors, strict=True)
    ]
    found = sum(each) if spec.loss.reduction == "sum" else sum(each) / len(each)
    assert math.isclose(float(found), float(expected), rel_tol=1e-12)
    again = build_spec(spec_to_dict(spec))
    assert again == spec and spec_hash(again) == spec_hash(spec)


@pytest.mark.parametrize("name", ["squared_error", "bounded"])
def test_losses_without_a_mean_over_entries_are_the_same_with_either_reduction(name: str) -> None:
    assert built_in_expression("loss", name, "sum") == built_in_expression("loss", name)


def test_relu_passes_nan_on() -> None:
    value = evaluate(built_in_expression("activation", "relu"), {"x": torch.tensor(math.nan)})
    assert math.isnan(float(value))
