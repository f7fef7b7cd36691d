"""The law that blocks of a convex curvature have no negative eigenvalue."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from sifrc.verify import laws


def digits_of(monkeypatch: pytest.MonkeyPatch, blocks: dict[str, Any]) -> list[float]:
    """What the law says of blocks; the limit is 12 digits."""
    found = {name: np.asarray(block, dtype=np.float64) for name, block in blocks.items()}
    monkeypatch.setattr(laws, "_blocks", lambda *_: ((None, found),))
    subject: Any = SimpleNamespace(oracle=SimpleNamespace(limit=12.0))
    nobody: Any = None
    return [float(row) for row in laws.definite(subject, nobody, nobody, dense=True)]


def test_rounding_in_a_block_of_nothing_is_no_negative_eigenvalue(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks are those of one matrix: a bias that all outputs have in common has a block of rounding."""
    digits = digits_of(monkeypatch, {"fc1.weight": [[2.0, 1.0], [1.0, 2.0]], "fc1.bias": [[-1e-17]]})
    assert min(digits) >= 12.0


@pytest.mark.parametrize("wrong", [[[-1e-3]], [[1.0, 2.0], [2.0, 1.0]], [[1.0, 1e-3], [0.0, 1.0]]])
def test_a_negative_or_skew_block_is_found(monkeypatch: pytest.MonkeyPatch, wrong: Any) -> None:
    digits = digits_of(monkeypatch, {"fc1.weight": np.eye(2), "fc1.bias": wrong})
    assert min(digits) < 4.0


def test_what_is_not_finite_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(laws.VerificationError, match=r"fc1.bias is not finite"):
        digits_of(monkeypatch, {"fc1.weight": np.eye(2), "fc1.bias": [[np.nan]]})
