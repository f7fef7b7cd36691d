"""Products with vectors of classes in an order with less work: equal derivatives, fewer multiplications."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.func import grad, jvp, vjp

import sifrc
from sifrc.compiler import Request, compile_spec
from sifrc.lower.cost import cost_of
from sifrc.lower.program import Program
from sifrc.spec import build_spec

OPERATORS = ("gradient", "hessian_vector_product", "gauss_newton_vector_product", "summary")
NAMES = ("rows.weight", "up.weight", "up.bias", "out.weight", "out.bias")


def data_of(classes: int, **keys: Any) -> dict[str, Any]:
    """An embedding that a dense layer reads at every place."""
    return {
        "sifrc": 1,
        "name": "chosen",
        "dtype": "float64",
        "network": {
            "input": {"name": "tokens", "size": 6, "classes": classes},
            "layers": [
                {"name": "rows", "type": "embedding", "units": 5},
                {"name": "up", "type": "dense", "units": 7, "activation": "tanh"},
                {"name": "out", "type": "dense", "units": 3},
            ],
        },
        "loss": "squared_error",
        **keys,
    }


def program_of(classes: int) -> Program:
    request = Request(backend="torch", method="none", operators=("gradient",))
    return compile_spec(build_spec(data_of(classes)), request).source.program


def test_derivatives_are_those_of_the_network() -> None:
    partition = {"first": ["rows.*"], "second": ["up.*"], "third": ["out.*"]}
    module = sifrc.compile(
        data_of(4, partition=partition), backend="torch", method="none", operators=OPERATORS
    )
    torch.manual_seed(0)
    params = {name: torch.randn(shape, dtype=torch.float64) for name, shape in module.SHAPES.items()}
    vector = {name: torch.randn(shape, dtype=torch.float64) for name, shape in module.SHAPES.items()}
    tokens, targets = torch.randint(4, (3, 6)), torch.randn(3, 6, 3, dtype=torch.float64)

    def outputs(params: dict[str, Tensor]) -> Tensor:
        rows = torch.nn.functional.one_hot(tokens, 4).double() @ params["rows.weight"]
        bent = torch.tanh(rows @ params["up.weight"].T + params["up.bias"])
        return bent @ params["out.weight"].T + params["out.bias"]

    def loss(outputs: Tensor) -> Tensor:
        return ((outputs - targets) ** 2).sum() / 2 / len(tokens)

    def whole(params: dict[str, Tensor]) -> Tensor:
        return loss(outputs(params))

    slopes, products = jvp(grad(whole), (params,), (vector,))
    tangent = jvp(outputs, (params,), (vector,))[1]
    curved = jvp(grad(loss), (outputs(params),), (tangent,))[1]
    (factors,) = vjp(outputs, params)[1](curved)
    found = (
        module.gradient(params, tokens, targets),
        module.hessian_vector_product(params, tokens, targets, vector),
        module.gauss_newton_vector_product(params, tokens, targets, vector),
    )
    for own, expected in zip(found, (slopes, products, factors), strict=True):
        for name in NAMES:
            torch.testing.assert_close(own[name], expected[name], rtol=1e-11, atol=1e-11)
    summary = module.summary(params, tokens, targets, vector, order=2)
    groups = [[name for name in NAMES if name.startswith(start)] for start in ("rows", "up", "out")]
    for s, names in enumerate(groups):
        own = {name: vector[name] if name in names else torch.zeros_like(vector[name]) for name in NAMES}
        bent = jvp(grad(whole), (params,), (own,))[1]
        for t, others in enumerate(groups):
            expected = sum((bent[name] * vector[name]).sum() for name in others)
            torch.testing.assert_close(summary.H[s, t], expected, rtol=1e-10, atol=1e-10)


def test_rows_are_multiplied_once_where_there_are_few() -> None:
    """The state of an embedding, and its adjoint, are there only where classes are more than places."""
    few, many = ({f.name: dict(f.shapes) for f in program_of(n).families} for n in (4, 5000))
    assert 1 in many["x"] and 1 in many["b"]
    assert 1 not in few["x"] and 1 not in few["b"]


def test_products_are_fewer() -> None:
    program = program_of(4)
    (operator,) = [each for each in program.operators if each.name == "gradient"]
    functions = tuple(program.function(name, True) for name in operator.functions())
    whole = 6 * (4 * 5 + 5 * 7 + 7 * 3) * 2 + 6 * (5 * 7 + 7 * 3)
    assert cost_of(program, functions).per_sample < whole
