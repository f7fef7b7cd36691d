"""Values and derivatives of orders 0..3 are finite and right at 0, ±1, ±30, ±100, ±1000, in every dialect."""

from __future__ import annotations

import importlib.util
import itertools
import warnings

import numpy as np
import pytest
from mpmath import mp
from scalar_cases import CASES, ORDERS, POINTS, reference, tolerance, tree

from sifrc.scalar import evaluate, helpers, print_code, scalar_from_tree, share

DTYPES = {"float64": (1e-12, 1e-300), "float32": (1e-5, 1e-36)}


def _grid(name: str) -> list[tuple[float, int]]:
    """Points and orders; the square root of one case has no slope at 0."""
    points = [p for p in POINTS if not (name == "log_branch" and p == 0)]
    return list(itertools.product(points, ORDERS))


@pytest.fixture(scope="session")
def expected():
    return {(n, p, k): reference(CASES[n], p, k) for n in CASES for p, k in _grid(n)}


def _check(name, point, order, got, want, dtype):
    relative, tiny = DTYPES[dtype]
    if dtype == "float32" and abs(want) > 3e38:
        pytest.skip("out of range")
    error = abs(mp.mpf(float(got)) - want)
    bound = tolerance(CASES[name], want, point, relative, tiny)
    assert np.isfinite(got) and error <= bound, (name, point, order, float(got), mp.nstr(want, 17))


def _derivatives(name):
    function = CASES[name].function()
    return [function.value_form((order,)) for order in ORDERS]


@pytest.mark.parametrize("name", CASES)
def test_interpreter(name, expected):
    """float64 and float32 through NumPy without a warning; 50 digits through mpmath."""
    points = sorted({p for p, _ in _grid(name)})
    for order, expression in zip(ORDERS, _derivatives(name), strict=True):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            double = evaluate(expression, {"x": np.array(points)})
            single = evaluate(expression, {"x": np.array(points, dtype=np.float32)})
        assert double.dtype == np.float64 and single.dtype == np.float32
        with mp.workdps(60):
            exact = evaluate(expression, {"x": np.array([mp.mpf(p) for p in points])}, "mpmath")
        for i, point in enumerate(points):
            want = expected[name, point, order]
            _check(name, point, order, double[i], want, "float64")
            _check(name, point, order, single[i], want, "float32")
            assert abs(exact[i] - want) <= mp.mpf("1e-50") * (1 + abs(want)), (name, point, order)


def _module(path, text):
    path.write_text(text)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _source(dialect, header, decorator, names):
    """One module with a function per case and order, in the dialect."""
    bodies, used = [], set()
    for name, order in itertools.product(names, ORDERS):
        code = print_code(_derivatives(name)[order], dialect)
        used |= set(code.helpers)
        bodies.append(f"{decorator}\ndef {name}_{order}(x):\n    return {code.text}\n")
    return "\n".join([header, helpers(dialect, used, decorator="@njit"), *bodies])


def _together(header, names):
    """One module with a function per case for Numba, which returns all orders and is compiled once."""
    bodies, used = [], set()
    for name in names:
        codes = [print_code(expression, "numba") for expression in _derivatives(name)]
        used.update(*(code.helpers for code in codes))
        bodies.append(f"@njit\ndef {name}(x):\n    return {', '.join(code.text for code in codes)}\n")
    return "\n".join([header, helpers("numba", used, decorator="@njit"), *bodies])


@pytest.mark.parametrize("dtype", DTYPES)
def test_numba(dtype, expected, tmp_path, monkeypatch):
    """Without the JIT for every case (so that nothing raises there either), compiled for a few."""
    header = f"import math\nimport numpy as np\nfrom numba import njit\nreal = np.{dtype}\n"
    real = np.dtype(dtype).type
    monkeypatch.setattr("numba.njit", lambda f: f)
    plain = _module(tmp_path / f"plain_{dtype}.py", _source("numba", header, "@njit", CASES))
    monkeypatch.undo()
    few = ("elu", "gelu", "custom", "criterion", "powers", "huber")
    compiled = _module(tmp_path / f"compiled_{dtype}.py", _together(header, few))
    with np.errstate(over="ignore", under="ignore"):
        for name in CASES:
            for point, order in _grid(name):
                got = getattr(plain, f"{name}_{order}")(real(point))
                _check(name, point, order, got, expected[name, point, order], dtype)
    for name in few:
        kernel = getattr(compiled, name)
        for point in POINTS:
            for order, got in zip(ORDERS, kernel(real(point)), strict=True):
                _check(name, point, order, got, expected[name, point, order], dtype)
        (signature,) = kernel.nopython_signatures
        assert [str(each) for each in signature.return_type] == [dtype] * len(ORDERS), name


@pytest.mark.parametrize("dtype", DTYPES)
def test_numpy_text(dtype, expected, tmp_path):
    """Vectorised code: both branches are computed, still without overflow; the dtype stays."""
    header = "import numpy as np\nfrom scipy import special\n"
    module = _module(tmp_path / f"vector_{dtype}.py", _source("numpy", header, "", CASES))
    for name in CASES:
        for order in ORDERS:
            points = sorted({p for p, _ in _grid(name)})
            with np.errstate(over="raise", divide="raise", invalid="raise"):
                got = getattr(module, f"{name}_{order}")(np.array(points, dtype=dtype))
            got = np.broadcast_to(got, len(points))
            for i, point in enumerate(points):
                _check(name, point, order, got[i], expected[name, point, order], dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_torch(dtype, expected, tmp_path):
    """Torch code, and torch's own differentiation of it: no NaN from the branch that is not taken."""
    torch = pytest.importorskip("torch")
    source = _source("torch", "import torch\nfrom torch import Tensor\n", "", CASES)
    module = _module(tmp_path / f"torch_{dtype}.py", source)
    for name in CASES:
        points = sorted({p for p, _ in _grid(name)})
        x = torch.tensor(points, dtype=getattr(torch, dtype), requires_grad=True)
        for order in ORDERS:
            got = getattr(module, f"{name}_{order}")(x)
            if isinstance(got, float):
                got = torch.full_like(x, got)
            assert got.dtype == x.dtype
            for i, point in enumerate(points):
                value = got.detach()[i].item()
                _check(name, point, order, value, expected[name, point, order], dtype)
        (slope,) = torch.autograd.grad(getattr(module, f"{name}_0")(x).sum(), x)
        assert torch.isfinite(slope).all(), (name, slope)
        low = getattr(module, f"{name}_0")(torch.tensor(points, dtype=torch.bfloat16))
        assert low.dtype == torch.bfloat16 and torch.isfinite(low).all()


def test_sharing_keeps_values_and_reuses_the_function_value():
    """The shared form computes the same numbers, and f' is expressed through f."""
    for name in ("custom", "elu", "tanh", "gelu"):
        expressions = _derivatives(name)
        assignments, results = share(expressions)
        values = {"x": np.array([-2.0, -0.3, 0.4, 3.0])}
        for symbol, expression in assignments:
            values[symbol.name] = evaluate(expression, values)
        for expression, result in zip(expressions, results, strict=True):
            np.testing.assert_allclose(
                evaluate(result, values), evaluate(expression, {"x": values["x"]}), 1e-12
            )
    (t0, tanh), *_ = share(_derivatives("tanh"))[0]
    assert str(tanh) == "tanh(x)" and str(share(_derivatives("tanh"))[1][0]) == str(t0)


def test_huber_of_two_arguments():
    """Huber loss of (y, t), differentiated in y and in t on both sides of its kink."""
    from scalar_cases import tree

    text = "where(abs(y - t) <= delta, (y - t)**2/2, delta*(abs(y - t) - delta/2))"
    huber = scalar_from_tree(tree(text), ("y", "t"), (("delta", 0.5),), "huber")
    y, t = np.array([1000.0, 0.25, -30.0, 0.5]), np.array([-1000.0, 0.0, 30.0, 0.0])
    e = y - t
    inner = np.abs(e) <= 0.5
    wanted = {
        (0, 0): np.where(inner, e**2 / 2, 0.5 * (np.abs(e) - 0.25)),
        (1, 0): np.where(inner, e, 0.5 * np.sign(e)),
        (0, 1): -np.where(inner, e, 0.5 * np.sign(e)),
        (1, 1): -np.where(inner, 1.0, 0.0),
        (2, 0): np.where(inner, 1.0, 0.0),
        (3, 0): np.zeros(4),
    }
    for orders, want in wanted.items():
        got = evaluate(huber.value_form(orders), {"y": y, "t": t})
        np.testing.assert_allclose(got, want, rtol=1e-15, err_msg=str(orders))


@pytest.mark.parametrize("text", ["silu(exp(-4))*x", "sigmoid(exp(-4))*exp(-4)*sin(x)"])
def test_rules_that_undo_each_other_end(text: str) -> None:
    """With constants a product of exponential and sigmoid comes back to what it was."""
    function = scalar_from_tree(tree(text), ("x",), ())
    value = evaluate(function.value_form((0,)), {"x": np.array(0.7)}, "numpy")
    slope = 1 / (1 + np.exp(-np.exp(-4))) * np.exp(-4)
    assert value == pytest.approx(slope * (0.7 if text.endswith("*x") else np.sin(0.7)), rel=1e-14)
