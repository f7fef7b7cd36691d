"""The option ``compile`` of the Torch backend: the same numbers through ``torch.compile``."""

from __future__ import annotations

import ast
import shutil
from typing import Any

import pytest
import torch

import sifrc

SPEC: dict[str, Any] = {
    "sifrc": 1,
    "name": "compiled_net",
    "dtype": "float64",
    "network": {
        "input": {"name": "image", "size": [1, 6, 6]},
        "layers": [
            {"name": "conv", "type": "conv", "channels": 2, "kernel": 3, "activation": "elu"},
            {"name": "pool", "type": "pool", "function": "max", "kernel": 2},
            {"name": "flat", "type": "flatten"},
            {"name": "out", "type": "dense", "units": 3},
        ],
    },
    "loss": "cross_entropy",
    "target": {"backend": "torch", "operators": ["gradient", "hessian_vector_product"]},
}


def functions(text: str) -> dict[str, list[str]]:
    """Names of the functions of a module, with their decorators."""
    tree = ast.parse(text)
    found = (node for node in tree.body if isinstance(node, ast.FunctionDef))
    return {node.name: [ast.unparse(each) for each in node.decorator_list] for node in found}


def test_what_computes_is_compiled() -> None:
    """The private functions, and none without the option."""
    plain = functions(sifrc.compile_source(SPEC))
    wrapped = functions(sifrc.compile_source(SPEC, backend_options={"compile": True}))
    assert list(plain) == list(wrapped)
    computing = {name for name in wrapped if wrapped[name] != plain[name]}
    assert {"_forward", "_adjoint", "_backward", "_tangent", "_hessian_product"} <= computing
    assert all(wrapped[name] == ["torch.compile"] for name in computing)
    assert not any("torch.compile" in each for each in plain.values())


def test_in_a_spec() -> None:
    """As an option of the target; other values than truth values are refused."""
    target = SPEC["target"] | {"options": {"compile": True}}
    assert "@torch.compile" in sifrc.compile_source(SPEC | {"target": target})
    with pytest.raises(sifrc.SifrcError, match="compile"):
        sifrc.compile_source(SPEC | {"target": SPEC["target"] | {"options": {"compile": 3}}})


@pytest.mark.slow
def test_the_same_numbers() -> None:
    """Loss, gradient and product, on batches of two sizes, against the module without the option."""
    if shutil.which("c++") is None and shutil.which("g++") is None:
        pytest.skip("torch.compile needs a C++ compiler on a CPU")
    plain = sifrc.compile(SPEC, cache=False)
    compiled = sifrc.compile(SPEC, cache=False, backend_options={"compile": True})
    params = plain.initialize()
    for count in (5, 3):
        x, t = torch.randn(count, 1, 6, 6, dtype=torch.float64), torch.arange(count) % 3
        torch.testing.assert_close(compiled.loss(params, x, t), plain.loss(params, x, t))
        for found, expected in (
            (compiled.gradient(params, x, t), plain.gradient(params, x, t)),
            (
                compiled.hessian_vector_product(params, x, t, params),
                plain.hessian_vector_product(params, x, t, params),
            ),
        ):
            for name, value in expected.items():
                torch.testing.assert_close(found[name], value, rtol=1e-12, atol=1e-14)
