"""The cubic model in generated modules: the helpers against the reference, and steps that contain it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from cubic_cases import compiled
from cubic_problems import EPS, KINDS, Problem, condition, make, scaled
from hypothesis import given, settings
from hypothesis import strategies as st
from numba_cases import load
from torch_cases import imported

from sifrc.backends.numba_cpu.statements import Writer
from sifrc.backends.torch_eager.statements import Writer as TorchWriter
from sifrc.errors import BackendError
from sifrc.ir.arithmetic import NUMPY
from sifrc.lower.arrays import Load, Ref
from sifrc.lower.interpret import Machine, run_functions
from sifrc.lower.statements import SolveCubic

Solver = Callable[..., np.ndarray]
IMPLEMENTATIONS = ("numba", "numba without jit", "torch")
checked = settings(derandomize=True, deadline=None, max_examples=60)
sizes, seeds, spreads = st.integers(1, 6), st.integers(0, 10**6), st.sampled_from([0.0, 1.0, 4.0, 12.0])
unique = st.one_of(
    st.builds(make, st.sampled_from((*KINDS[:3], "near")), sizes, seeds, spreads),
    st.builds(make, st.sampled_from(("still", "hard", "double")), st.integers(2, 6), seeds, spreads),
)


def _module(backend: str, folder: Path, dtype: str = "float64", unbounded: str = "refuse") -> ModuleType:
    text = compiled(backend.split()[0], dtype, unbounded).text
    if backend == "torch":
        path = folder / f"cubic_{dtype}_{unbounded}.py"
        path.write_text(text)
        return imported(path)
    return load(text, folder, jit=backend == "numba")


def _solver(backend: str, module: ModuleType, dtype: str = "float64") -> Solver:
    """The helper as a function of arrays."""

    def by_numba(matrix, rhs, third, strength, unbounded):  # type: ignore[no-untyped-def]
        operands = [np.array(operand, dtype=dtype) for operand in (matrix, rhs, third)]
        result = np.empty_like(operands[1])
        module._solve_cubic(*operands, float(strength), unbounded == "absolute", result)
        return result

    def by_torch(matrix, rhs, third, strength, unbounded):  # type: ignore[no-untyped-def]
        kind = getattr(torch, dtype)
        operands = [torch.tensor(np.array(operand)).to(kind) for operand in (matrix, rhs, third)]
        result = module._solve_cubic(*operands, float(strength), unbounded == "absolute")
        assert result.dtype == kind
        return result.double().numpy()

    return by_torch if backend == "torch" else by_numba


@pytest.fixture(scope="module")
def solvers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Solver]:
    folder = tmp_path_factory.mktemp("cubic")
    return {name: _solver(name, _module(name, folder)) for name in IMPLEMENTATIONS}


def _assert_same(solvers: dict[str, Solver], problem: Problem, unbounded: str, allowed: float) -> None:
    expected = NUMPY.cubic_newton(*problem.operands, unbounded)
    for name, solver in solvers.items():
        found = solver(*problem.operands, unbounded)
        assert np.array_equal(np.isnan(found), np.isnan(expected)), name
        held = ~np.isnan(expected)
        weights = np.where(problem.third == 0, 1.0, scaled(problem)[2])[held]
        error = np.linalg.norm(weights * (found - expected)[held])
        assert error <= allowed * np.linalg.norm(weights * expected[held]), name


@checked
@given(unique)
def test_implementations_agree(solvers: dict[str, Solver], problem: Problem) -> None:
    """Within what the condition of the lowest point allows; where it is 1e3 that is 1e-9 and less."""
    limit = condition(problem, NUMPY.cubic_newton(*problem.operands, "refuse"))
    _assert_same(solvers, problem, "refuse", 300 * len(problem.rhs) * EPS * limit)


@checked
@given(st.sampled_from(KINDS[:3]), st.integers(2, 6), seeds, st.sampled_from(["refuse", "absolute"]))
def test_implementations_agree_on_groups_without_cubic_term(
    solvers: dict[str, Solver], kind: str, size: int, seed: int, unbounded: str
) -> None:
    """Some or all D3_s zero; definite, singular and indefinite blocks."""
    rng = np.random.default_rng(seed)
    problem = make(kind, size, seed)
    third = np.where(rng.random(size) < 0.5, 0.0, problem.third)
    matrix, rhs = problem.matrix.copy(), problem.rhs.copy()
    if rng.random() < 0.3:  # a group that nothing depends on
        silent = rng.integers(size)
        matrix[silent], matrix[:, silent], rhs[silent], third[silent] = 0.0, 0.0, 0.0, 0.0
    strength = 0.0 if rng.random() < 0.1 else problem.strength
    _assert_same(solvers, Problem(matrix, rhs, third, strength), unbounded, 1e-8)


numbers = st.one_of(
    st.floats(width=64), st.sampled_from([0.0, -0.0, 5e-324, -2e-310, 1e-160, 1e160, -1e300, 1.7e308, 1.0])
)


@settings(checked, max_examples=60)
@given(st.integers(1, 4), st.data(), st.sampled_from(["refuse", "absolute"]))
def test_any_input_ends_with_numbers_or_nan(
    solvers: dict[str, Solver], size: int, data: st.DataObject, unbounded: str
) -> None:
    count = size * size + 2 * size + 1
    values = np.array(data.draw(st.lists(numbers, min_size=count, max_size=count)))
    matrix, rest = values[: size * size].reshape(size, size), values[size * size :]
    with np.errstate(all="ignore"):
        for solver in solvers.values():
            found = solver(matrix, rest[:size], rest[size : 2 * size], rest[-1], unbounded)
            assert found.shape == (size,)


@pytest.mark.parametrize("unbounded", ["refuse", "absolute"])
def test_a_group_without_curvature_that_is_pulled_a_little_is_unbounded(
    solvers: dict[str, Solver], unbounded: str
) -> None:
    problem = Problem(np.diag([1.0, 0.0, 1.0]), np.array([1.0, 1e-9, 1.0]), np.array([0.0, 0, 1]), 1.0)
    _assert_same(solvers, problem, unbounded, 1e-14)


@pytest.mark.parametrize("seed", range(10))
def test_entries_of_groups_that_are_far_apart_have_their_digits(
    solvers: dict[str, Solver], seed: int
) -> None:
    """Each entry by itself, with third derivatives up to 1e30 apart."""
    rng = np.random.default_rng(seed)
    factor, third = rng.standard_normal((4, 4)), 10.0 ** (3 * rng.uniform(-5, 5, 4))
    operands = (factor @ factor.T + 0.1 * np.eye(4), rng.standard_normal(4), third, 1.0)
    expected = NUMPY.cubic_newton(*operands, "refuse")
    for solver in solvers.values():
        np.testing.assert_allclose(solver(*operands, "refuse"), expected, rtol=1e-9)


def test_of_equal_entries_the_first_is_positive(solvers: dict[str, Solver]) -> None:
    """No pull, and a lowest eigenvector with entries of one size and both signs."""
    matrix = np.array([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 2.0]])
    problem = Problem(matrix, np.zeros(3), np.ones(3), 2.0)
    for solver in (NUMPY.cubic_newton, *solvers.values()):
        found = solver(*problem.operands, "refuse")
        np.testing.assert_allclose(found, [0.5**0.5, -(0.5**0.5), 0.0], rtol=1e-9, atol=1e-12)


def test_a_matrix_is_used_as_the_symmetric_one_that_it_is_up_to_rounding(solvers: dict[str, Solver]) -> None:
    problem = make("definite", 3, 0)
    noise = 1e-3 * np.triu(np.ones((3, 3)), 1)
    skew = Problem(problem.matrix + noise - noise.T, problem.rhs, problem.third, problem.strength)
    for third in (problem.third, [0.0, 0.0, 1.0]):
        expected = NUMPY.cubic_newton(problem.matrix, problem.rhs, np.array(third), 1.0, "refuse")
        for solver in (NUMPY.cubic_newton, *solvers.values()):
            found = solver(skew.matrix, skew.rhs, np.array(third), 1.0, "refuse")
            np.testing.assert_allclose(found, expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("backend", "dtype", "tolerance"),
    [("numba without jit", "float32", 1e-5), ("torch", "float32", 1e-5), ("torch", "bfloat16", 0.1)],
)
def test_short_numbers_are_solved_in_float64(
    backend: str, dtype: str, tolerance: float, tmp_path: Path
) -> None:
    """Rounding of the operands is all; a block that is singular in their numbers is not unbounded."""
    solver = _solver(backend, _module(backend, tmp_path, dtype), dtype)
    for kind in KINDS[:3]:
        problem = make(kind, 4, 3)
        found, expected = solver(*problem.operands, "refuse"), NUMPY.cubic_newton(*problem.operands, "refuse")
        assert np.linalg.norm(found - expected) <= tolerance * np.linalg.norm(expected)
    third = np.float32(1) / np.float32(3)
    matrix = np.array([[1, third, 0], [third, third * third, 0], [0, 0, 1]], dtype=np.float32)
    rhs = np.array([1, third, 1], dtype=np.float32)
    found = solver(matrix, rhs, [0.0, 0.0, 1.0], 2.0, "refuse")
    np.testing.assert_allclose(found[0] + found[1] / 3, 1.0, rtol=10 * tolerance)


# -- steps

B = 6
RNG = np.random.default_rng(4)
INPUTS, TARGETS = RNG.standard_normal((B, 4)), RNG.standard_normal((B, 3))
PARAMETERS = {
    "fc1.weight": RNG.standard_normal((5, 4)),
    "fc1.bias": RNG.standard_normal(5),
    "fc2.weight": RNG.standard_normal((3, 5)),
    "fc2.bias": RNG.standard_normal(3),
}
NUMBERS = {"lr": 0.3, "strength": 0.5, "bend": 3.0}


def _moved_bias(unbounded: str, numbers: dict[str, float]) -> np.ndarray:
    """The last bias after a step, by hand: residuals of ½‖x_2 − t‖² are the gradients of samples."""
    states = np.tanh(INPUTS @ PARAMETERS["fc1.weight"].T + PARAMETERS["fc1.bias"])
    residuals = states @ PARAMETERS["fc2.weight"].T + PARAMETERS["fc2.bias"] - TARGETS
    mean = residuals.mean(0)
    matrix = residuals.T @ residuals / B - numbers["bend"] * np.outer(mean, mean)
    step = NUMPY.cubic_newton(matrix, mean, mean, numbers["strength"], unbounded)
    return PARAMETERS["fc2.bias"] - numbers["lr"] * step


def _step(backend: str, module: ModuleType, numbers: dict[str, float]) -> dict[str, np.ndarray]:
    """Parameters after a step, or after a refused one."""
    if backend != "torch":
        params = {name: value.copy() for name, value in PARAMETERS.items()}
        try:
            module.step(params, module.State(params, **numbers), INPUTS, TARGETS)
        except FloatingPointError as error:
            assert "fc2" in str(error)
        return params
    network = module.Network()
    with torch.no_grad():
        for name, value in network.named_parameters():
            value.copy_(torch.tensor(PARAMETERS[name]))
    optimizer = module.Optimizer(network, **numbers)
    try:
        optimizer.step(torch.tensor(INPUTS), torch.tensor(TARGETS))
    except FloatingPointError as error:
        assert "fc2" in str(error)
    return {name: value.detach().numpy() for name, value in network.named_parameters()}


def _interpreted(unbounded: str, numbers: dict[str, float]) -> np.ndarray:
    program = compiled("numba", "float64", unbounded).source.program
    values = {(name, None): value for name, value in numbers.items()}
    values |= {("mean", None): 1 / B, ("x", 0): INPUTS, ("t", None): TARGETS}
    for layer in (1, 2):
        values["W", layer], values["β", layer] = (
            PARAMETERS[f"fc{layer}.weight"],
            PARAMETERS[f"fc{layer}.bias"],
        )
    machine = Machine(program, values)
    run_functions(machine, [program.function(name, batched=True) for name in program.step_batched])
    return machine.arrays["β", 2]


@pytest.mark.parametrize("backend", ["numba without jit", "torch"])
@pytest.mark.parametrize("strength", [0.5, 0.0])
def test_a_step_with_a_cubic_model(backend: str, strength: float, tmp_path: Path) -> None:
    """Indefinite, with and without cubic terms: interpreter and modules do what was written by hand."""
    numbers = NUMBERS | {"strength": strength}
    for unbounded in ("refuse", "absolute"):
        module = _module(backend, tmp_path, unbounded=unbounded)
        params = _step(backend, module, numbers)
        expected = _moved_bias(unbounded, numbers)
        if np.isnan(expected).any():
            assert strength == 0.0 and unbounded == "refuse"
            for name, value in PARAMETERS.items():
                np.testing.assert_array_equal(params[name], value)
            with pytest.raises(FloatingPointError, match="fc2"):
                _interpreted(unbounded, numbers)
            continue
        np.testing.assert_allclose(params["fc2.bias"], expected, rtol=1e-9)
        np.testing.assert_allclose(_interpreted(unbounded, numbers), expected, rtol=1e-9)
        assert np.any(params["fc1.weight"] != PARAMETERS["fc1.weight"])


def test_the_helper_comes_only_with_the_node() -> None:
    for backend in ("numba", "torch"):
        text = compiled(backend).text
        assert text.count("def _solve_cubic(") == 1 and "argmin_{rate_n}" in text
        assert "import numpy" not in text or backend == "numba"


def test_a_treatment_that_a_backend_does_not_know_is_an_error() -> None:
    loads = [
        Load(Ref(name), tuple(labels))
        for name, labels in zip("eHgdl", ("i", "ij", "i", "i", ""), strict=True)
    ]
    statement = SolveCubic(*loads, "guess")
    for writer in (Writer(None, None, 0), TorchWriter(None)):  # type: ignore[arg-type]
        write = writer.write if isinstance(writer, Writer) else writer.lines
        with pytest.raises(BackendError, match="guess"):
            write(statement)
