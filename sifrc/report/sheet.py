"""A sheet of equations: data, and how it becomes text, LaTeX and HTML."""

from __future__ import annotations

import html
import textwrap
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from types import MappingProxyType

from sifrc.extras import MissingDependency, optional
from sifrc.report.prose import prose_latex

__all__ = ["EquationSheet", "Formula", "Row", "Section"]

_OPENING, _CLOSING = "([{⟨", ")]}⟩"
_LONG_LATEX = 70

MK_NUMBERS = MappingProxyType(
    {
        "ESN(2)": "MK(1)",
        "ESN(5)": "MK(13)",
        "ESN(9)": "MK(17)",
        "ESN(10)": "MK(20)",
        "ESN(11)": "MK(21)",
        "ESN(16)": "MK(30)",
        "ESN(17)": "MK(35)",
    }
)
"""The same equation in the other paper; parts such as ESN(16.3) belong to their whole."""


def both_sources(source: str) -> str:
    """A source with its counterpart in the other paper.

    Example:
        >>> both_sources("ESN(16.3)"), both_sources("definition")
        ('ESN(16.3), MK(30)', '')
    """
    if source == "definition":
        return ""
    whole = f"{source.split('.')[0]})" if "." in source else source
    other = MK_NUMBERS.get(whole)
    return source if other is None else f"{source}, {other}"


@dataclass(frozen=True)
class Formula:
    """One piece of mathematics.

    Args:
        text: as one line of text.
        latex: for math mode.
        pieces: the LaTeX cut where a line may break.
    """

    text: str
    latex: str
    pieces: tuple[str, ...] = ()


@dataclass(frozen=True)
class Row:
    """One equation.

    Args:
        name: short label of what it is, e.g. ``adjoint``.
        left: left side.
        right: right side, possibly a chain of equal things.
        range: layers it holds for; empty where it stands for one.
        source: equation of a paper such as ``ESN(9)``, ``definition`` or ''.
    """

    name: str
    left: Formula
    right: Formula
    range: Formula
    source: str

    @property
    def sources(self) -> str:
        """The source with its counterpart in the other paper."""
        return both_sources(self.source)


@dataclass(frozen=True)
class Section:
    """Equations that belong together, and remarks about them."""

    title: str
    equations: tuple[Row, ...]
    notes: tuple[str, ...] = ()

    def _repr_latex_(self) -> str | None:
        return _aligned(self.equations) if self.equations else None

    def _repr_html_(self) -> str:
        return _page((self,)) or f"<pre>{html.escape(EquationSheet(self.title, (self,)).text())}</pre>"


@dataclass(frozen=True)
class EquationSheet:
    """The derived equations of a model.

    Args:
        title: name of the network.
        sections: in the order of the derivation.
    """

    title: str
    sections: tuple[Section, ...]

    def section(self, title: str) -> Section:
        """The section with a title.

        Raises:
            KeyError: there is none.
        """
        return {section.title: section for section in reversed(self.sections)}[title]

    def text(self, width: int = 120) -> str:
        """The equations in aligned columns: name, equation, range, source.

        Args:
            width: number of characters of a line; long equations continue on further lines.
        """
        rows = [row for section in self.sections for row in section.equations]
        names = max((len(row.name) for row in rows), default=0) + 2
        ranges = max((len(row.range.text) for row in rows), default=0)
        sources = max((len(row.sources) for row in rows), default=0)
        column = max(24, width - 2 - names - ranges - sources - 4)
        longest = max((_width(f"{row.left.text} = {row.right.text}") for row in rows), default=0)
        column = min(column, longest)
        lines = [self.title]
        for section in self.sections:
            lines += ["", section.title]
            before = ""
            for row in section.equations:
                body = _wrapped(f"{row.left.text} = {row.right.text}", column, _width(row.left.text) + 3)
                label = row.name if row.name != before else ""
                padded = body[0] + " " * (column - _width(body[0]))
                first = f"  {label:<{names}}{padded}  {row.range.text:<{ranges}}  {row.sources}"
                lines += [first.rstrip(), *(" " * (2 + names) + line for line in body[1:])]
                before = row.name
            for note in section.notes:
                lines += textwrap.wrap(
                    note, width, initial_indent="  · ", subsequent_indent="    ", break_on_hyphens=False
                )
        return "\n".join(lines) + "\n"

    def latex(self) -> str:
        """A complete document for plain LaTeX with amsmath."""
        parts = [
            r"\documentclass[a4paper,10pt]{article}",
            r"\usepackage[margin=20mm]{geometry}",
            r"\usepackage{amsmath}",
            r"\allowdisplaybreaks",
            r"\begin{document}",
            rf"\section*{{{prose_latex(self.title)}}}",
        ]
        for section in self.sections:
            parts.append(rf"\subsection*{{{prose_latex(section.title)}}}")
            if section.equations:
                parts.append(_align(section.equations))
            if section.notes:
                items = [rf"  \item {prose_latex(note)}" for note in section.notes]
                parts += [r"\begin{itemize}", *items, r"\end{itemize}"]
        return "\n".join([*parts, r"\end{document}"]) + "\n"

    def _repr_latex_(self) -> str:
        return _aligned(row for section in self.sections for row in section.equations)

    def _repr_html_(self) -> str:
        page = _page(self.sections)
        if not page:
            return f"<pre>{html.escape(self.text())}</pre>"
        return f"<h3>{html.escape(self.title)}</h3>\n{page}"


def _aligned(rows: Iterable[Row]) -> str:
    """Equations as one formula for notebooks."""
    body = " \\\\\n".join(f"{row.left.latex} &= {row.right.latex} && {row.range.latex}" for row in rows)
    return f"$\\displaystyle \\begin{{aligned}}\n{body}\n\\end{{aligned}}$"


def _page(sections: Iterable[Section]) -> str:
    """Sections as HTML with MathML, or nothing where what makes it is not installed."""
    try:
        convert = optional("latex2mathml.converter", "equations in HTML").convert
    except MissingDependency:
        return ""
    out = []
    for section in sections:
        out.append(f"<h4>{html.escape(section.title)}</h4>")
        if section.equations:
            out.append("<table>")
        before = ""
        for row in section.equations:
            formula = convert(f"{row.left.latex} = {row.right.latex}")
            name = row.name if row.name != before else ""
            texts = (html.escape(name), formula, html.escape(row.range.text), html.escape(row.sources))
            cells = "".join(f'<td style="text-align: left">{text}</td>' for text in texts)
            out.append(f"<tr>{cells}</tr>")
            before = row.name
        if section.equations:
            out.append("</table>")
        out += [f"<p>{html.escape(note)}</p>" for note in section.notes]
    return "\n".join(out)


def _wrapped(line: str, width: int, indent: int) -> list[str]:
    """Cut a long equation before operators outside of all brackets, the rest indented."""
    out: list[str] = []
    current = ""
    for piece in _pieces(line):
        if current and _width(current) + _width(piece) > width:
            out.append(current.rstrip())
            current = " " * min(indent, 8) + piece.lstrip()
        else:
            current += piece
    return [*out, current]


def _width(line: str) -> int:
    """How many columns a line takes; a combining mark takes none."""
    return sum(1 for letter in line if not unicodedata.combining(letter))


def _pieces(line: str) -> Iterator[str]:
    depth = start = 0
    first = line.find(" = ")  # a line never breaks there
    for position, letter in enumerate(line):
        depth += (letter in _OPENING) - (letter in _CLOSING)
        operator = line[position : position + 3] in (" + ", " − ", " = ")
        if operator and depth == 0 and position not in (start, first):
            yield line[start:position]
            start = position
    yield line[start:]


def _align(rows: tuple[Row, ...]) -> str:
    lines: list[str] = []
    for row in rows:
        broken = _latex_lines(row.right.pieces or (row.right.latex,))
        tag = rf" \tag*{{\footnotesize {prose_latex(row.sources)}}}" if row.sources else ""
        lines.append(rf"{row.left.latex} &= {broken[0]} && {row.range.latex}{tag}")
        lines += [rf"&\quad {rest}" for rest in broken[1:]]
    return "\\begin{align*}\n" + " \\\\\n".join(lines) + "\n\\end{align*}"


def _latex_lines(pieces: tuple[str, ...]) -> list[str]:
    """Put pieces together into lines whose visible length is bearable."""
    lines: list[str] = []
    length = 0
    for piece in pieces:
        seen = _visible(piece)
        if lines and length + seen <= _LONG_LATEX:
            lines[-1] += f" {piece}"
            length += seen
        else:
            lines.append(piece)
            length = seen
    return lines


def _visible(code: str) -> int:
    """About how many characters a formula shows."""
    words = code.replace("\\left", "").replace("\\right", "").replace("\\operatorname", "").replace("\\,", "")
    return sum(1 for letter in words if letter not in "{}_^ ") - 3 * words.count("\\")
