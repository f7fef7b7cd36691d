"""Reports for people: derived equations as text, LaTeX and HTML."""

from sifrc.report.document import equations
from sifrc.report.sheet import EquationSheet, Formula, Row, Section

__all__ = ["EquationSheet", "Formula", "Row", "Section", "equations"]
