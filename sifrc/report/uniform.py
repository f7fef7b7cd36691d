"""One notation for layers with and without an activation, on chains.

Where F_k is the identity, the derivation has b_k for y_k = F_k'(a_k) ∘ b_k, −γ_k for z_k, and c_k and ḃ_k for
their back-propagated forms. Writing the second ones, and saying once that they are equal, lets such a
layer share the equations of the others.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from sifrc.derive.groups import group_axis
from sifrc.derive.quantities import QUANTITIES
from sifrc.ir import Expr, Input, Role
from sifrc.ir.build import negative
from sifrc.ir.traverse import substitute
from sifrc.model import Model
from sifrc.model.partition import partition_of
from sifrc.report.grouping import Line
from sifrc.report.layout import Derivative, Symbol

__all__ = ["Uniform"]

_LETTERS = MappingProxyType({name: known.activated for name, known in QUANTITIES.items() if known.activated})
"""Adjoint -> what it is after back-propagation through the activation."""


class Uniform:
    """The abbreviations of one model; none where it is not a chain.

    Args:
        model: the model.
    """

    def __init__(self, model: Model) -> None:
        own: dict[Input, Expr] = {}
        groups = partition_of(model.spec).size
        linear = [c for c in model.constraints if c.activation is None] if model.is_chain else []
        for c in linear:
            axes = c.axes
            own[Input("b", c.index, axes, Role.ADJOINT)] = Input("y", c.index, axes, Role.ADJOINT)
            own[Input("γ", c.index, axes, Role.TANGENT)] = negative(Input("z", c.index, axes, Role.TANGENT))
            own[Input("b°", c.index, axes, Role.ADJOINT)] = Input("y°", c.index, axes, Role.ADJOINT)
            own[Input("c", c.index, axes, Role.TANGENT)] = Input("dy", c.index, axes, Role.TANGENT)
            # Tangents of the groups, along the axes of which up to three meet.
            for number in range(3):
                slots = (group_axis(groups, number), *c.axes)
                own[Input("ḃ", c.index, slots, Role.TANGENT)] = Input("ẏ", c.index, slots, Role.TANGENT)
        self.table: Mapping[Input, Expr] = MappingProxyType(own)
        self.layers = tuple(c.index for c in linear)

    def line(self, line: Line) -> Line:
        """The line with the abbreviations, but for the equation that the abbreviated symbol itself solves."""
        if not self.table or (line.layer in self.layers and _defines(line)):
            return line
        return replace(line, values=tuple(substitute(value, self.table) for value in line.values))

    def term(self, expr: Expr, family: str, index: int) -> Expr:
        """A term of the Sifrian: y for b, but in the adjoint equation of the layer itself."""
        if family == "ζ" and index in self.layers:
            return expr
        return substitute(expr, {key: value for key, value in self.table.items() if key.family == "b"})

    def definitions(self, family: str, name: str) -> list[Line]:
        """y_k = b_k, z_k = −γ_k, ẏ_k = c_k or ẏ_k = ḃ_k for the layers without an activation.

        Args:
            family: of the symbol that is abbreviated: a key of the table of letters, such as ``b``.
            name: label of the lines.
        """
        lines: list[Line] = []
        for symbol in self.table:
            if symbol.family != family or any(axis.primes for axis in symbol.slots):
                continue
            minus = family == "γ"
            letter = _LETTERS[family]
            right = negative(symbol) if minus else symbol
            lines.append(Line(Symbol(letter, symbol.index), (right,), symbol.index, "definition", name))
        return lines


def _defines(line: Line) -> bool:
    left = line.left
    if isinstance(left, Derivative):
        return isinstance(left.by, Symbol) and left.by.family == "x"
    return isinstance(left, Symbol) and left.family in (*_LETTERS, *_LETTERS.values())
