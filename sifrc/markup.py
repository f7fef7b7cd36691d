"""HTML of objects for notebooks: tables without style or script, as Jupyter and VS Code show them."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence

__all__ = ["html_table"]


def html_table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    r"""A table of plain text, aligned to the left.

    Args:
        headings: of the columns.
        rows: cells as text.

    Example:
        >>> print(html_table(["name"], [["a < b"]]).replace("><", ">\n<"))
        <table>
        <tr>
        <th style="text-align: left">name</th>
        </tr>
        <tr>
        <td style="text-align: left">a &lt; b</td>
        </tr>
        </table>
    """
    lines = [_row("th", headings), *(_row("td", row) for row in rows)]
    return f"<table>{''.join(lines)}</table>"


def _row(kind: str, cells: Sequence[str]) -> str:
    each = (f'<{kind} style="text-align: left">{html.escape(cell)}</{kind}>' for cell in cells)
    return f"<tr>{''.join(each)}</tr>"
