"""Equations of one system as lines of text, for the docstrings of generated code."""

from __future__ import annotations

from sifrc.derive.system import System
from sifrc.model import Model
from sifrc.report.book import lines_of, names_of
from sifrc.report.grouping import rows_of

__all__ = ["describe_system"]


def describe_system(system: System, model: Model) -> tuple[str, ...]:
    """One line for each equation, generic k first, with its range and its source.

    Example:
        >>> from sifrc.derive.derived import Derived
        >>> from sifrc.model import build_model
        >>> from sifrc.spec import parse_spec, starter_spec
        >>> model = build_model(parse_spec(starter_spec("digits")))
        >>> describe_system(Derived(model).first.gradient, model)[1]
        'G_n = −b_n x_{n−1}ᵀ  [ESN(10)]'
    """
    lines: list[str] = []
    for row in rows_of(lines_of(system, system.name), names_of(model)):
        where = f",  {row.range.text}" if row.range.text else ""
        source = f"  [{row.source}]" if row.source != "definition" else ""
        lines.append(f"{row.left.text} = {row.right.text}{where}{source}")
    return tuple(lines)
