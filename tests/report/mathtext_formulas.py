"""Formulas of an equation sheet, read by Matplotlib's own TeX parser."""

from __future__ import annotations

from functools import cache

import pytest

from sifrc.report.sheet import EquationSheet

__all__ = ["parsed"]

_UNKNOWN = {
    r"\tfrac": r"\frac",
    r"\top": "T",
    r"\ ": r"\;",
    r"\operatorname*{arg\,min}": r"\operatorname{argmin}",
    r"\_": "",
}
"""What the parser does not know, and what stands for it."""


def parsed(sheet: EquationSheet) -> int:
    """Read every formula that has no environment in it; how many there are."""
    pytest.importorskip("matplotlib.mathtext")
    codes = [f"{row.left.latex} = {row.right.latex}" for part in sheet.sections for row in part.equations]
    plain = [code for code in codes if r"\begin" not in code]
    for code in plain:
        _parse(code)
    return len(plain)


@cache
def _parse(code: str) -> None:
    """The sheets of networks have many formulas in common."""
    from matplotlib.mathtext import MathTextParser

    for unknown, known in _UNKNOWN.items():
        code = code.replace(unknown, known)
    MathTextParser("path").parse(f"${code}$")
