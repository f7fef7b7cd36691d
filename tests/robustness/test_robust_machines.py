"""Other machines: what is changed and what is not, and a sample of tests on some of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from machines import MACHINES, Machine, Products, another, main, numpy_products

CHANGED = [Machine(order=1), Machine(bits=1), Machine(order=2, bits=3)]


def operands(dtype: str = "float64") -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.Generator(np.random.PCG64(7))
    return rng.normal(size=(20, 30)).astype(dtype), rng.normal(size=(30, 10)).astype(dtype)


@pytest.mark.parametrize("machine", CHANGED, ids=str)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_products_change_in_their_last_places_and_come_back(machine: Machine, dtype: str) -> None:
    """By operator, function and out=, in NumPy and Torch: other bits, the same each time, as accurate."""
    left, right = operands(dtype)
    plain = left @ right
    size = np.abs(left) @ np.abs(right)
    with another(machine):
        out = np.empty_like(plain)
        made = [left @ right, np.dot(left, right), np.matmul(left, right), np.dot(left, right, out)]
        made += [(torch.from_numpy(left) @ torch.from_numpy(right)).numpy()]
        again = left @ right
        tensors = torch.from_numpy(left), torch.from_numpy(right.T.copy())
        linear = torch.nn.functional.linear(*tensors, torch.ones(10, dtype=tensors[0].dtype))
        summed = np.einsum("ij,jk->ik", left, right)
    for found in (*made, linear.numpy() - 1, summed):
        assert np.all(np.abs(found - plain) <= 40 * np.finfo(dtype).eps * (size + 1))
    for found in made:
        assert np.mean(found != plain) > 0.2
    if machine.bits:
        assert np.mean(summed != plain) > 0.2
    np.testing.assert_array_equal(made[0], again)
    np.testing.assert_array_equal(left @ right, plain)
    np.testing.assert_array_equal(np.dot(left, right), plain)


def test_what_is_exact_stays_exact() -> None:
    """Products with units and with small whole numbers, products without a sum, other types of numbers."""
    left, right = operands()
    whole = np.arange(12.0).reshape(3, 4)
    with another(Machine(order=1, bits=1)):
        np.testing.assert_array_equal(np.eye(20) @ left, left)
        np.testing.assert_array_equal(whole @ whole.T, np.dot(whole.astype(int), whole.T.astype(int)))
        np.testing.assert_array_equal(np.einsum("i,j->ij", left[0], right[0]), np.outer(left[0], right[0]))
        assert isinstance(left[0] @ left[1], float)
        assert (np.array([[2**80]], dtype=object) @ np.array([[2**80]], dtype=object))[0, 0] == 2**160


def test_products_that_do_not_fit_are_errors() -> None:
    left, _ = operands()
    with numpy_products(Products(1, 1)):
        with pytest.raises((ValueError, TypeError)):
            left @ left
        with pytest.raises(ValueError):
            np.dot(left, left)


def test_seeds_of_tests_are_shifted_and_those_of_others_are_not() -> None:
    plain = [np.random.default_rng(n).random() for n in (3, 1003)]
    with another(Machine(seeds=1000)):
        assert np.random.default_rng(3).random() == plain[1]
        torch.manual_seed(3)
        drawn = torch.rand(())
    torch.manual_seed(1003)
    assert torch.rand(()) == drawn
    assert np.random.default_rng(3).random() == plain[0]


@pytest.mark.slow
def test_a_sample_of_tests_has_the_same_verdicts_on_other_machines(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Where conjugate gradients end, whichever the last bits are; the table is printed."""
    chosen = ["bits2", "seeds1"]
    suite = "tests/methods/test_conjugate_gradients_rounding.py"
    assert main(["--suites", suite, "--machines", *chosen, "-k", "torch and float64"]) == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in chosen)
    assert "0 verdicts differ, 0 failed" in printed


def test_a_verdict_that_hangs_on_a_last_bit_is_found(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A test that wants a sum to the bit passes here and fails elsewhere, and the table names it."""
    left, right = operands()
    path = tmp_path / "test_bits.py"
    path.write_text(
        "import numpy as np\n\n\n"
        "def operands():\n"
        "    rng = np.random.Generator(np.random.PCG64(7))\n"
        "    return rng.normal(size=(20, 30)), rng.normal(size=(30, 10))\n\n\n"
        "def test_bits():\n"
        "    left, right = operands()\n"
        f"    assert (left @ right).tobytes().hex() == {(left @ right).tobytes().hex()!r}\n\n\n"
        "def test_size():\n"
        "    left, right = operands()\n"
        f"    assert abs((left @ right)[0, 0] - {(left @ right)[0, 0]!r:}) < 1e-9\n".replace("np.float64", "")
    )
    assert main(["--suites", str(path), "--machines", "here", "bits1"]) == 1
    printed = capsys.readouterr().out
    assert "test_bits: here passed, bits1 failed" in printed
    assert "1 verdicts differ, 0 failed" in printed


def test_every_machine_changes_something() -> None:
    assert all(MACHINES[name] != Machine() for name in MACHINES if name != "here")
