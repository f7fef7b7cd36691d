"""Differentials of log-sum-exp and log-softmax against torch.func, and sums of class vectors."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sifrc.calculus import jvp, vjp
from sifrc.ir import Axis, Einsum, Expr, Input, LogSoftmax, LogSumExp, Role
from sifrc.ir.build import add, einsum, inner, ones, scale
from sifrc.ir.evaluate import evaluate

FC, J = Axis("fc1", 4), Axis("class", 3)
OTHER = Axis("other", 4)
U = Input("u", 1, (J, FC), Role.STATE)
V = Input("v", 1, (J, FC), Role.TANGENT)
T = Input("t", None, (FC,), Role.CLASS)
X = Input("x", 1, (FC,), Role.STATE)
FUNCTIONS = {
    "logsumexp": (LogSumExp(U, FC), lambda u: torch.logsumexp(u, 1)),
    "log_softmax": (LogSoftmax(U, FC), lambda u: torch.log_softmax(u, 1)),
    "log_softmax over the first": (LogSoftmax(U, J), lambda u: torch.log_softmax(u, 0)),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_differentials_of_first_and_second_order(name: str) -> None:
    expr, function = FUNCTIONS[name]
    generator = np.random.default_rng(4)
    u, v = generator.normal(size=(2, 3, 4))
    seed = Input("c", 1, expr.axes, Role.TANGENT)
    c = generator.normal(size=[axis.size or 1 for axis in expr.axes])
    env = {U: u, V: v, seed: c}
    moved = jvp(expr, {U: V})
    (pulled,) = vjp(expr, [U], seed)
    assert moved is not None
    twice = jvp(pulled, {U: V})
    assert twice is not None
    found = evaluate({"moved": moved, "pulled": pulled, "twice": twice}, env)
    point, direction = torch.tensor(u), torch.tensor(v)

    def slope(at: torch.Tensor) -> torch.Tensor:
        return torch.func.vjp(function, at)[1](torch.tensor(c))[0]

    expected = {
        "moved": torch.func.jvp(function, (point,), (direction,))[1],
        "pulled": slope(point),
        "twice": torch.func.jvp(slope, (point,), (direction,))[1],
    }
    for key, value in expected.items():
        np.testing.assert_allclose(found[key], value.numpy(), atol=1e-14, err_msg=key)


def test_a_class_vector_that_is_only_summed_is_one() -> None:
    assert inner(T, ones((FC,))) is ones()
    assert einsum([(T, (FC,)), (T, (OTHER,))], ()) is ones()
    assert add([(1, scale(3, inner(T, ones((FC,)))))], ()) is scale(3, ones())


def test_a_class_vector_that_meets_another_factor_stays() -> None:
    kept: list[Expr] = [
        inner(T, X),
        einsum([(T, (FC,)), (T, (FC,))], ()),
        einsum([(T, (FC,)), (X, (FC,))], (FC,)),
    ]
    assert all(isinstance(expr, Einsum) and T in list(expr.children()) for expr in kept)


def test_a_vector_of_data_is_summed() -> None:
    data = Input("t", None, (FC,), Role.DATA)
    assert inner(data, ones((FC,))) is not ones()
