"""Every statement of a program written by hand, printed for Numba, against plain NumPy and SciPy."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import scipy.linalg
import scipy.special
import sympy
from numba_cases import load
from sampled import one_in

from sifrc.backends.base import LayerInfo, ModuleSource
from sifrc.backends.numba_common.access import Block
from sifrc.backends.numba_common.storage import Layout
from sifrc.backends.numba_cpu import BACKEND
from sifrc.errors import BackendError
from sifrc.ir.quantity import Storage
from sifrc.lower.arrays import Family, Load, Ref, Subscript
from sifrc.lower.program import Function, Program
from sifrc.lower.statements import (
    Assign,
    Contract,
    Guard,
    Kernel,
    LogSumExpOver,
    Loop,
    MatrixFunction,
    MaximumOver,
    SolveSylvester,
    SolveSystem,
    Statement,
    Sum,
)

B, N, M = 4, 5, 3


def _symbol(name: str) -> sympy.Symbol:
    return sympy.Symbol(name, real=True)


def _load(family: str, labels: str = "", k: int | None = None, relative: bool = False) -> Load:
    return Load(Ref(family, None if k is None else Subscript(k, relative)), tuple(labels))


def _single(name: str, *shape: int | None, storage: Storage = Storage.WORK) -> Family:
    return Family(name, name, storage, ((None, shape),), name)


def _module(
    statements: list[Statement | Loop], families: list[Family], folder: Path, *, jit: bool = False, dtype: str
) -> ModuleType:
    """A module with a forward pass x_1 = x_0 and one more function, ``_tried``."""
    forward = Function(
        "forward",
        "Forward",
        (),
        True,
        ("x",),
        ("x",),
        (Kernel(("p", "i"), (Assign(_load("x", "pi", 1), _symbol("x0")),), (("x0", _load("x", "pi", 0)),)),),
    )
    names = tuple(family.name for family in families)
    tried = Function("tried", "Tried", (), True, names, (), tuple(statements))
    states = Family("x", "x", Storage.WORK, ((0, (None, 2)), (1, (None, 2))), "states")
    program = Program((states, *families), (forward, tried), (), guards=(("fc1", "something"),))
    layers = (LayerInfo(1, "fc1", (2, 2), (2,)),)
    module = ModuleSource(
        program, "hand", "by hand", "none", "0", "0" * 64, {}, dtype, layers, (2,), 2, "vectors", 0
    )
    return load(BACKEND.emit(module), folder, jit=jit)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(11)


def test_products_of_all_layouts(rng: np.random.Generator, tmp_path: Path) -> None:
    shapes = {"pi": (B, N), "pj": (B, M), "ij": (N, M), "ji": (M, N), "i": (N,), "j": (M,)}
    cases = [
        ("pi", "pj", "ji"),
        ("pi", "pj", "ij"),
        ("pi", "ij", "pj"),
        ("ij", "pi", "pj"),
        ("ji", "pi", "pj"),
        ("i", "ij", "j"),
        ("i", "ji", "j"),
        ("j", "i", "ij"),
        ("ij", "i", "j"),
    ]
    families, statements, arrays, expected = [], [], {}, {}
    for number, (out, left, right) in enumerate(cases):
        names = [f"{kind}{number}" for kind in "olr"]
        for name, labels in zip(names, (out, left, right), strict=True):
            families.append(_single(name, *shapes[labels]))
            arrays[name] = rng.standard_normal(shapes[labels])
        loads = [_load(name, labels) for name, labels in zip(names, (out, left, right), strict=True)]
        scale = -2 * _symbol("s")
        statements.append(Contract(*loads, scale, (("s", _load("scale")),)))
        spec = f"{left},{right}->{out}"
        expected[names[0]] = -2 * 0.3 * np.einsum(spec, arrays[names[1]], arrays[names[2]])
    families.append(_single("scale", storage=Storage.HYPERPARAMETER))
    module = _module(statements, families, tmp_path, dtype="float64")
    module._tried(*arrays.values(), 0.3)
    for name, value in expected.items():
        np.testing.assert_allclose(arrays[name], value, rtol=1e-13, atol=1e-14)


def test_a_product_that_blas_does_not_have(rng: np.random.Generator, tmp_path: Path) -> None:
    statement = Contract(_load("o", "pi"), _load("l", "pij"), _load("r", "pj"), sympy.Integer(1))
    families = [_single("o", None, N), _single("l", None, N, M), _single("r", None, M)]
    out, left, right = np.empty((B, N)), rng.standard_normal((B, N, M)), rng.standard_normal((B, M))
    _module([statement], families, tmp_path, dtype="float64")._tried(out, left, right)
    np.testing.assert_allclose(out, np.einsum("pij,pj->pi", left, right), rtol=1e-13)


def test_reductions(rng: np.random.Generator, tmp_path: Path) -> None:
    a = _symbol("a")
    bound = (("a", _load("a", "pi")),)
    statements = [
        LogSumExpOver(_load("lse", "p"), _load("a", "pi"), "i"),
        MaximumOver(_load("top", "p"), _load("a", "pi"), "i"),
        Sum(_load("rows", "p"), ("i",), 3 * a**2, bound),
        Sum(_load("columns", "i"), ("p",), 3 * a**2, bound),
    ]
    families = [_single(n, None) for n in ("lse", "top", "rows")] + [
        _single("columns", N),
        _single("a", None, N),
    ]
    values = 1000.0 * rng.standard_normal((B, N))
    out = [np.full(B, 7.0), np.full(B, 7.0), np.full(B, 7.0), np.full(N, 7.0)]
    _module(statements, families, tmp_path, dtype="float64")._tried(*out, values)
    np.testing.assert_allclose(out[0], scipy.special.logsumexp(values, axis=1), rtol=1e-14)
    np.testing.assert_array_equal(out[1], values.max(1))
    np.testing.assert_allclose(out[2], 3 * (values**2).sum(1), rtol=1e-13)
    np.testing.assert_allclose(out[3], 3 * (values**2).sum(0), rtol=1e-13)


def test_a_later_assignment_of_a_kernel_sees_the_entries_that_an_earlier_one_wrote(tmp_path: Path) -> None:
    a, b = _symbol("a"), _symbol("b")
    kernel = Kernel(
        ("i",),
        (Assign(_load("b", "i"), a**2 + b), Assign(_load("a", "i"), a**2 + b)),
        (("a", _load("a", "i")), ("b", _load("b", "i"))),
    )
    first, second = np.array([2.0, 3.0]), np.array([10.0, 20.0])
    _module([kernel], [_single("a", 2), _single("b", 2)], tmp_path, dtype="float64")._tried(first, second)
    np.testing.assert_array_equal(second, [14.0, 29.0])
    np.testing.assert_array_equal(first, [18.0, 38.0])


def test_loops_use_the_subscripts_of_the_equations_also_for_families_of_several_ranks(tmp_path: Path) -> None:
    family = Family("q", "q", Storage.WORK, ((1, (N,)), (2, (N,)), (4, ()), (5, ())), "q")
    constant = Family("c", "c", Storage.CONSTANT, ((2, ()), (3, ())), "c", values=(0.5, 2.0))
    q, c = _symbol("q"), _symbol("c")
    body: list[Statement | Loop] = [
        Loop(
            2,
            3,
            1,
            (
                Kernel(
                    ("i",),
                    (Assign(_load("q", "i", 0, True), q * c),),
                    (("q", _load("q", "i", -1, True)), ("c", _load("c", "", 1, True))),
                ),
            ),
        ),
        Kernel((), (Assign(_load("q", "", 5), q + c),), (("q", _load("q", "", 4)), ("c", _load("c", "", 2)))),
    ]
    vectors, numbers = (np.zeros(0), np.arange(5.0), np.zeros(5)), np.array([0, 0, 0, 0, 3.0, 0])
    _module(body, [family, constant], tmp_path, dtype="float64")._tried(vectors, numbers)
    np.testing.assert_array_equal(vectors[2], 2.0 * np.arange(5.0))
    assert numbers[5] == 3.5


def test_members_of_several_ranks_have_a_variable_each() -> None:
    """A vector of every sample has the dimensions of a matrix, and not the name of the batch's vector."""
    shapes: tuple[tuple[int, tuple[int | None, ...]], ...] = (
        (1, (3, None, 2)),
        (2, (None, 2)),
        (3, (2,)),
        (4, ()),
    )
    program = Program((Family("q", "q", Storage.WORK, shapes, "q"),), (), ())
    names = {
        batched: [group.name for group in Layout(program, batched).families["q"]] for batched in (True, False)
    }
    assert names[True] == ["q", "q_vector", "q_batch_vector", "q_scalar"]
    assert len(set(names[False])) == len(names[False])


def _semidefinite(rng: np.random.Generator, n: int, rank: int, dtype: str) -> np.ndarray:
    factor = rng.standard_normal((n, rank))
    return (factor @ factor.T).astype(dtype)


@pytest.mark.parametrize("place", ["left", "right", "both"])
def test_products_for_each_sample_of_windows(rng: np.random.Generator, tmp_path: Path, place: str) -> None:
    """An array over groups of which one is meant: its samples are its second dimension."""
    left, right = rng.standard_normal((2, B, N, M)), rng.standard_normal((2, B, M))
    inside = {"left": (1, None), "right": (None, 1), "both": (1, 0)}[place]
    loads = [
        _load("l", "pij") if inside[0] is None else Load(Ref("l"), tuple("pij"), (inside[0],)),
        _load("r", "pj") if inside[1] is None else Load(Ref("r"), tuple("pj"), (inside[1],)),
    ]
    given = [array[0] if group is None else array for array, group in zip((left, right), inside, strict=True)]
    families = [_single("o", B, N), _single("l", *given[0].shape), _single("r", *given[1].shape)]
    statement = Contract(_load("o", "pi"), *loads, sympy.Integer(1))
    module = _module([statement], families, tmp_path, dtype="float64")
    out = np.zeros((B, N))
    module._tried(out, *given)
    picked = [array[group or 0] for array, group in zip((left, right), inside, strict=True)]
    np.testing.assert_allclose(out, np.einsum("pij,pj->pi", *picked), rtol=1e-13)


@pytest.mark.parametrize(
    ("dtype", "jit"),
    [("float32", False), ("float64", False), pytest.param("float32", True, marks=pytest.mark.slow)],
)
def test_solutions_of_systems_have_the_least_norm(
    dtype: str, jit: bool, rng: np.random.Generator, tmp_path: Path
) -> None:
    """Singular, regular, negative and indefinite matrices in one batch; then one without solution."""
    families = [_single("m", None, N, N), _single("r", None, N), _single("s", None, N)]
    solve = SolveSystem(_load("s", "pj"), _load("m", "pij"), _load("r", "pi"), 1)
    module = _module([solve], families, tmp_path, dtype=dtype, jit=jit)
    indefinite = rng.standard_normal((N, N))
    matrices = np.stack(
        [
            _semidefinite(rng, N, N - 2, dtype),
            _semidefinite(rng, N, N, dtype) + np.eye(N, dtype=dtype),
            -_semidefinite(rng, N, 1, dtype),
            (indefinite + indefinite.T).astype(dtype),
            np.zeros((N, N), dtype),
        ]
    )
    rhs = np.einsum("pij,pj->pi", matrices, rng.standard_normal((5, N))).astype(dtype)
    solution = np.empty((5, N), dtype)
    assert module._tried(matrices, rhs, solution) == 0
    tolerance = 1e-3 if dtype == "float32" else 1e-9
    for matrix, right, found in zip(matrices, rhs, solution, strict=True):
        expected = np.linalg.pinv(matrix.astype(np.float64), rcond=1e-5) @ right
        np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance)
    rhs[4, 0] = 1.0
    assert module._tried(matrices, rhs, solution) == 1
    rhs[4, 0] = np.nan
    assert module._tried(matrices, rhs, solution) == 1


@pytest.mark.parametrize(
    ("window", "text"),
    [((None, 1), "t[:, 1]"), ((None, None, 1), "t[:, :, 1]"), ((1, None, None), "t[1]"), ((None, None), "t")],
)
def test_windows(window: tuple[int | None, ...], text: str) -> None:
    """What is whole at the end is left out, and nothing else."""
    group = SimpleNamespace(name="t", is_tuple=False)
    block = Block(SimpleNamespace(group=lambda family, index: group), None, {}, set())  # type: ignore[arg-type]
    assert block.array(Load(Ref("t"), ("i",), window)) == text


@pytest.mark.parametrize("sign", [1, -1])
def test_semidefinite_systems_need_no_eigenvalues(
    sign: int, rng: np.random.Generator, tmp_path: Path
) -> None:
    """Regular and singular ones are solved by elimination, one without solution is left to eigenvalues."""
    families = [_single("m", N, N), _single("r", N), _single("s", N)]
    solve = SolveSystem(_load("s", "j"), _load("m", "ij"), _load("r", "i"))
    module = _module([solve], families, tmp_path, dtype="float32")
    for rank in (N, N - 2, 1):
        matrix = sign * _semidefinite(rng, N, rank, "float64")
        rhs = matrix @ rng.standard_normal(N)
        found = np.empty(N, np.float32)
        assert module._solve_semidefinite(matrix.astype(np.float32), rhs.astype(np.float32), found)
        np.testing.assert_allclose(found, np.linalg.pinv(matrix, rcond=1e-5) @ rhs, rtol=2e-3, atol=1e-4)
    assert not module._solve_semidefinite(matrix.astype(np.float32), np.ones(N, np.float32), found)


def test_a_system_without_a_guard_has_a_code_of_its_own(tmp_path: Path) -> None:
    """The table of guards has the guards of the program first, then what needs none."""
    families = [_single("m", N, N), _single("r", N), _single("s", N)]
    solve = SolveSystem(_load("s", "j"), _load("m", "ij"), _load("r", "i"))
    module = _module([solve], families, tmp_path, dtype="float64")
    code = module._tried(np.zeros((N, N)), np.ones(N), np.empty(N))
    assert module.GUARDS[code] == ("network", "solution of a linear system")


@pytest.mark.parametrize("jit", one_in(2, [False, True]))
def test_sylvester_and_spectral_functions(jit: bool, rng: np.random.Generator, tmp_path: Path) -> None:
    families = [_single("a", N, N), _single("b", M, M), _single("r", N, M), _single("s", N, M)]
    families += [_single("q", N, N), _single("up", N, N), _single("size", N, N)]
    statements: list[Statement | Loop] = [
        SolveSylvester(_load("s", "ij"), _load("a", "il"), _load("b", "jm"), _load("r", "ij")),
        MatrixFunction(_load("up", "ij"), _load("q", "ij"), "positive"),
        MatrixFunction(_load("size", "ij"), _load("q", "ij"), "absolute"),
    ]
    module = _module(statements, families, tmp_path, dtype="float64", jit=jit)
    a, b = _semidefinite(rng, N, N, "float64"), _semidefinite(rng, M, M - 1, "float64")
    r, q = rng.standard_normal((N, M)), rng.standard_normal((N, N))
    q += q.T
    s, up, size = np.empty((N, M)), np.empty((N, N)), np.empty((N, N))
    module._tried(a, b, r, s, q, up, size)
    np.testing.assert_allclose(s, scipy.linalg.solve_sylvester(a, b, r), rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(size, scipy.linalg.sqrtm(q @ q).real, rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(up, (q + size) / 2, rtol=1e-7, atol=1e-9)
    # Both singular: the part without a solution of its own is zero.
    module._tried(np.diag([1.0, 0, 0, 0, 0]), np.zeros((M, M)), np.ones((N, M)), s, q, up, size)
    np.testing.assert_allclose(s[0], 1.0)
    np.testing.assert_array_equal(s[1:], 0.0)
    # Eigenvalues that are zero up to rounding are zero.
    for _ in range(4):
        a, b = _semidefinite(rng, N, N - 2, "float64"), _semidefinite(rng, M, M - 1, "float64")
        module._tried(a, b, r, s, q, up, size)
        sums = np.kron(a, np.eye(M)) + np.kron(np.eye(N), b)
        expected = np.linalg.pinv(sums, rcond=1e-9) @ r.ravel()
        np.testing.assert_allclose(s.ravel(), expected, rtol=1e-7, atol=1e-9)


def test_guards_return_their_code(tmp_path: Path) -> None:
    family = Family("q", "q", Storage.WORK, ((1, (N,)), (2, (N,))), "q")
    guard = Guard(_load("q", "i", 0, True), Subscript(4, True))
    module = _module([Loop(1, 3, 1, (guard,))], [family], tmp_path, dtype="float64")
    q = (np.zeros(0), np.zeros(N), np.zeros(N))
    assert module._tried(q) == 0
    q[2][3] = np.inf
    assert module._tried(q) == 6
    q[1][0] = np.nan
    assert module._tried(q) == 5


def test_an_unknown_statement_or_dtype_is_an_error(tmp_path: Path) -> None:
    statement = MatrixFunction(_load("q", "ij"), _load("q", "ij"), "cosine")
    with pytest.raises(BackendError, match="cosine"):
        _module([statement], [_single("q", N, N)], tmp_path, dtype="float64")
    with pytest.raises(BackendError, match="bfloat16"):
        _module([], [], tmp_path, dtype="bfloat16")
