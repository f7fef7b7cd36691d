"""exp, expm1, tanh, sigmoid and softplus of Numba modules in single precision, against double precision."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import numpy.typing as npt
import pytest
from numba import njit

from sifrc.scalar import helpers, print_code
from sifrc.scalar.single import SINGLE

Array = npt.NDArray[np.float32]
NAMES = ("_exp", "_expm1", "_sigmoid", "_softplus", "_tanh")


def expm1_of(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.asarray(np.expm1(x))


REFERENCES: dict[str, Callable[[npt.NDArray[np.float64]], npt.NDArray[np.float64]]] = {
    "_exp": np.exp,
    "_expm1": expm1_of,
    "_tanh": np.tanh,
    "_sigmoid": lambda x: np.where(
        x >= 0, 1 / (1 + np.exp(-np.abs(x))), np.exp(-np.abs(x)) / (1 + np.exp(-np.abs(x)))
    ),
    "_softplus": lambda x: np.log1p(np.exp(-np.abs(x))) + np.maximum(x, 0),
}


def load(text: str, folder: Path) -> ModuleType:
    """Helper functions as a module."""
    file = folder / "single_helpers.py"
    file.write_text("import numpy as np\nfrom numba import njit\n\n\n" + text)
    spec = importlib.util.spec_from_file_location("single_helpers", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def module(tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    text = helpers("numba", NAMES, real="np.float32", decorator='@njit(error_model="numpy")')
    return load(text, tmp_path_factory.mktemp("single"))


def over(function: Callable[[np.float32], np.float32], values: Array) -> Array:
    """A helper in the loop of a module, with its fast-math flags."""

    @njit(error_model="numpy", fastmath={"contract", "reassoc"})
    def loop(x, out):  # type: ignore[no-untyped-def]
        for i in range(len(x)):
            out[i] = function(x[i])

    out = np.empty_like(values)
    loop(values, out)
    return out


def all_sizes() -> Array:
    """Every 1009th single-precision number, both signs, without NaN."""
    bits = np.arange(0, 2**32, 1009, dtype=np.uint64).astype(np.uint32)
    values = bits.view(np.float32)
    return values[np.isfinite(values)]


@pytest.mark.parametrize("name", NAMES)
def test_two_units_in_the_last_place(module: ModuleType, name: str) -> None:
    near = np.random.default_rng(0).uniform(-110, 95, 500_000).astype(np.float32)
    small = np.random.default_rng(1).normal(0, 2, 500_000).astype(np.float32)
    values = np.concatenate([all_sizes(), near, small])
    with np.errstate(over="ignore"):
        exact = REFERENCES[name](values.astype(np.float64))
        rounded = exact.astype(np.float32)
    found = over(getattr(module, name), values)
    finite = np.isfinite(rounded)
    assert np.array_equal(found[~finite], rounded[~finite])
    unit = np.spacing(np.abs(rounded[finite])).astype(np.float64)
    assert np.max(np.abs(found[finite] - exact[finite]) / unit) <= 2.5


@pytest.mark.parametrize("name", NAMES)
def test_ends_and_nan(module: ModuleType, name: str) -> None:
    values = np.array([np.inf, -np.inf, np.nan, 0.0, 88.72, -200.0, 1e-42, 3e38, -3e38], np.float32)
    with np.errstate(over="ignore"):
        exact = REFERENCES[name](values.astype(np.float64)).astype(np.float32)
    np.testing.assert_allclose(over(getattr(module, name), values), exact, rtol=3e-7, atol=0)


def test_tanh_keeps_the_sign_of_zero(module: ModuleType) -> None:
    found = over(module._tanh, np.array([0.0, -0.0], np.float32))
    assert list(np.signbit(found)) == [False, True]


@pytest.mark.parametrize("name", ["_exp", "_expm1", "_tanh", "_sigmoid"])
def test_loops_become_vector_instructions(module: ModuleType, name: str) -> None:
    function = getattr(module, name)

    @njit(error_model="numpy", fastmath={"contract", "reassoc"})
    def loop(x, out):  # type: ignore[no-untyped-def]
        for i in range(len(x)):
            out[i] = function(x[i])

    loop(np.zeros(4, np.float32), np.zeros(4, np.float32))
    (code,) = loop.inspect_llvm().values()
    assert "x float> @llvm.rint" in code or "x float> @llvm.nearbyint" in code


def test_without_the_compiler_too(module: ModuleType) -> None:
    for name in NAMES:
        function = getattr(module, name)
        value = np.float32(-1.7)
        assert abs(float(function.py_func(value)) - float(function(value))) < 1e-6


def test_only_single_precision_has_them() -> None:
    import sympy

    x = sympy.Symbol("x", real=True)
    assert print_code(sympy.tanh(x), "numba", real="np.float32").text == "_tanh(x)"
    assert print_code(sympy.tanh(x), "numba", real="np.float64").text == "np.tanh(x)"
    assert print_code(sympy.tanh(x), "torch").text == "torch.tanh(x)"


def test_needed_helpers_come_along() -> None:
    text = helpers("numba", ["_tanh"], real="np.float32")
    assert [name for name in SINGLE if f"def {name}(" in text] == [
        "_expm1",
        "_tanh",
        "_exp_parts",
        "_power_of_two",
    ]
