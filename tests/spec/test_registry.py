"""Built-in activations and losses agree with PyTorch's, which shares no code with them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import pytest

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


def test_relu_passes_nan_on() -> None:
    value = evaluate(built_in_expression("activation", "relu"), {"x": torch.tensor(math.nan)})
    assert math.isnan(float(value))
