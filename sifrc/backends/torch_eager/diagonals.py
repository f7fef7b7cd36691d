"""Entries on the diagonal of a matrix."""

from __future__ import annotations

from dataclasses import replace

from sifrc.backends.torch_eager.expressions import Formula

__all__ = ["diagonal_text"]


def diagonal_text(text: str, formula: Formula) -> str:
    """Statement that writes a formula, one of whose labels comes twice; other entries stay in the new matrix.

    Args:
        text: source text of the matrix.
        formula: over its labels.
    """
    labels = formula.labels
    repeated = next(label for label in labels if labels.count(label) > 1)
    first, second = (n for n, label in enumerate(labels) if label == repeated)
    inner = (*(label for label in labels if label != repeated), repeated)
    value = replace(formula, labels=inner).text()
    return f"{text} = torch.diagonal_scatter({text}, {value}, 0, {first}, {second})"
