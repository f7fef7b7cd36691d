"""Checks of a step that arrays are finite, as Torch statements."""

from __future__ import annotations

from sifrc.backends.names import subscript_text
from sifrc.backends.torch_eager.access import Names
from sifrc.lower.statements import Guard

__all__ = ["guard_text"]


def guard_text(statement: Guard, names: Names) -> str:
    """Source text of what adds the check to the others."""
    text, code = names.array(statement.operand), subscript_text(statement.code)
    if statement.rows:
        return f"checks.extend(_rows_finite({code}, {text}))"
    # For small tensors the calls count, for large ones the passes.
    few = len(statement.operand.labels) <= 1
    verdict = f"torch.isfinite({text}).all()" if few else f"_all_finite({text})"
    return f"checks.append(({code}, {verdict}))"
