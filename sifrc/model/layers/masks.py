"""What a mask, or a constant relation, lets be read: where it is more than 1/2.

It enters conditions only, so that nothing is differentiated by it.
"""

from __future__ import annotations

from fractions import Fraction

import sympy

from sifrc.scalar import ScalarFunction

__all__ = ["LEFT", "READ", "UNLESS_OUTSIDE"]

_MASK = sympy.Symbol("mask", real=True)
READ = ScalarFunction("read", ("mask",), sympy.Piecewise((1, Fraction(1, 2) < _MASK), (0, True)))
"""1 where a mask lets read, else 0."""
LEFT = ScalarFunction("left", ("mask",), sympy.Piecewise((0, Fraction(1, 2) < _MASK), (1, True)))
"""1 where it does not."""
_X, _INSIDE = sympy.symbols("x inside", real=True)
UNLESS_OUTSIDE = ScalarFunction(
    "unless outside",
    ("x", "inside"),
    sympy.Piecewise((_X, Fraction(1, 2) < _INSIDE), (-(sympy.Integer(10) ** 30), True)),
)
"""An entry that is there, or less than all that are."""
