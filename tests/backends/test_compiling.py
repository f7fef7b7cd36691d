"""What tests compile once for both backends is what the compiler gives each of them."""

from __future__ import annotations

from typing import Any

import pytest
from cases import CASES
from compiling import compile_once

from sifrc.compiler import Request, compile_spec
from sifrc.spec import build_spec

CHOICES: dict[str, dict[str, Any]] = {
    "operators": {"method": "none", "operators": ("gradient", "block_hessian")},
    "method": {"method": "grouped_newton"},
}


@pytest.mark.parametrize("choices", CHOICES)
def test_modules_are_those_of_the_compiler(choices: str) -> None:
    """Byte by byte, whichever backend was asked for first."""
    for seed, backends in enumerate([("torch", "numba"), ("numba", "torch")], start=71):
        spec = build_spec({**CASES["no_bias"], "seed": seed})
        for backend in backends:
            request = Request(backend=backend, **CHOICES[choices])
            found, expected = compile_once(spec, request), compile_spec(spec, request)
            assert (found.name, found.backend, found.text) == (expected.name, backend, expected.text)
