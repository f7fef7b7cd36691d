"""Forms of vectors, names and what is refused: each in one sentence that says what would do."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from dense_oracle import Case, close

import sifrc
from sifrc.linear import CurvatureOperators

CASE = Case("dense")


@pytest.fixture(scope="module")
def ops() -> CurvatureOperators:
    return CASE.operators()


def drawn(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def test_all_forms_give_the_same_in_their_own_form(ops: CurvatureOperators) -> None:
    flat = drawn(60)
    expected = CASE.H @ flat
    close(ops.H @ flat, expected)
    named = ops.space.split(flat)
    found = ops.H @ named
    assert list(found) == list(named) and all(found[name].shape == named[name].shape for name in named)
    close(ops.space.join(found), expected)
    shuffled = {name: named[name] for name in reversed(named)}
    close(ops.space.join(ops.H @ shuffled), expected)
    listed = ops.H @ list(named.values())
    close(torch.cat([part.reshape(-1) for part in listed]), expected)
    several = drawn(60, 4)
    close(ops.H @ several, CASE.H @ several)
    close(ops.H @ several[:, ::2], CASE.H @ several[:, ::2])


def test_results_share_no_memory_with_anything(ops: CurvatureOperators) -> None:
    vector = drawn(60)
    for op in (ops.identity, ops.H, 2.0 * ops.identity, ops.H + ops.identity, ops.H["fc1"] * 2.0):
        part = vector[: op.shape[1]].clone()
        before, found = part.clone(), op @ part
        found.zero_()
        assert torch.equal(part, before)
        assert float((op @ part).abs().max()) > 0


def test_nothing_of_a_result_is_differentiated(ops: CurvatureOperators) -> None:
    vector = drawn(60).requires_grad_()
    assert not (ops.H @ vector).requires_grad


WRONG: list[tuple[str, Any, str]] = [
    ("shape", drawn(59), r"a tensor of shape \(59,\), and the operator takes \(60,\)"),
    ("rank", drawn(60, 1, 1), r"a tensor of shape \(60, 1, 1\)"),
    ("dtype", drawn(60).float(), "of torch.float32, and the operator is one of torch.float64"),
    ("integers", torch.ones(60, dtype=torch.int64), "of torch.int64, and the operator is one of"),
    ("not finite", drawn(60).index_fill(0, torch.tensor([3]), float("nan")), "numbers that are not finite"),
    ("infinite", drawn(60).index_fill(0, torch.tensor([3]), float("inf")), "numbers that are not finite"),
    ("array", np.ones(60), "an object of type ndarray"),
    ("number", 3.0, "an object of type float"),
    ("list", [drawn(5, 4)], "1 tensors, and the space has 5"),
]


@pytest.mark.parametrize("value, message", [row[1:] for row in WRONG], ids=[row[0] for row in WRONG])
def test_a_wrong_vector_is_refused(ops: CurvatureOperators, value: Any, message: str) -> None:
    with pytest.raises(sifrc.OperatorError, match=message) as caught:
        ops.H @ value
    assert caught.value.hint


def test_large_finite_numbers_are_none_that_are_not(ops: CurvatureOperators) -> None:
    assert bool((ops.identity @ torch.full((60,), 1e308, dtype=torch.float64) == 1e308).all())


def test_wrong_names_are_told_the_nearest(ops: CurvatureOperators) -> None:
    named = ops.space.split(drawn(60))
    wrong = {("fc1.wieght" if name == "fc1.weight" else name): value for name, value in named.items()}
    with pytest.raises(sifrc.OperatorError, match=r"'fc1.wieght' is none of its tensors") as caught:
        ops.H @ wrong
    assert caught.value.label == "did you mean 'fc1.weight'?"
    with pytest.raises(sifrc.OperatorError, match=r"'out.bias' is missing"):
        ops.H @ {name: value for name, value in named.items() if name != "out.bias"}
    with pytest.raises(sifrc.OperatorError, match=r"vector\['fc1.bias'\]: a tensor of shape \(4,\)"):
        ops.H @ {**named, "fc1.bias": drawn(4)}
    with pytest.raises(sifrc.OperatorError, match=r"no parameter is called 'fc1.wieght'") as caught:
        ops.H["fc1.wieght"]
    assert caught.value.label == "did you mean 'fc1.weight'?"


def test_parts_are_asked_for_by_name_module_and_pattern(ops: CurvatureOperators) -> None:
    assert list(ops.H["fc1"].rows.shapes) == ["fc1.weight", "fc1.bias"]
    assert list(ops.H["*.bias"].rows.shapes) == ["fc1.bias", "out.bias"]
    assert list(ops.H["out.bias", "fc[12].weight"].rows.shapes) == ["fc1.weight", "fc2.weight", "out.bias"]
    assert ops.H["*"] is ops.H
    nested = ops.H["fc1", "out"]["out"]
    close(nested.to_dense(), CASE.H[-15:][:, -15:])


def test_in_scipy(ops: CurvatureOperators) -> None:
    op, vector = ops.H.to_scipy(), drawn(60).numpy()
    assert op.shape == (60, 60) and op.dtype == np.float64
    close(torch.from_numpy(op @ vector), CASE.H @ torch.from_numpy(vector))
    close(torch.from_numpy(op @ np.eye(60)), CASE.H)
    close(torch.from_numpy(op.rmatvec(vector)), CASE.H @ torch.from_numpy(vector))
    single = ops.H.to_scipy(np.float32)
    assert (single @ vector).dtype == np.float32
    part = ops.H.sub("fc1.weight", "out")
    close(torch.from_numpy(part.to_scipy().T @ np.eye(20)), CASE.H[-15:, :20])
    with pytest.raises(sifrc.OperatorError, match="as an operator of int64"):
        ops.H.to_scipy(np.int64)
