"""Formulas of an equation sheet, read by Matplotlib's own TeX parser."""

from __future__ import annotations

from functools import cache

import pytest

from sifrc.report.sheet import EquationSheet

__all__ = ["parsed"]

_UNKNOWN = ((r"\tfrac", r"\frac"), (r"\top", "T"), (r"\ ", r"\;"))
"""What the parser does not know, and what stands for it."""


def parsed(sheet: EquationSheet, *more: tuple[str, str]) -> int:
    """Read every formula that has no environment in it; how many there are.

    Args:
        sheet: with the formulas.
        more: what else the parser does not know in them, and what stands for it.
    """
    pytest.importorskip("matplotlib.mathtext")
    codes = [f"{row.left.latex} = {row.right.latex}" for part in sheet.sections for row in part.equations]
    plain = [code for code in codes if r"\begin" not in code]
    for code in plain:
        for unknown, known in (*_UNKNOWN, *more):
            code = code.replace(unknown, known)
        _parse(code)
    return len(plain)


@cache
def _parse(code: str) -> None:
    """The sheets of networks have many formulas in common."""
    from matplotlib.mathtext import MathTextParser

    MathTextParser("path").parse(f"${code}$")
