"""What a mask lets be read: an entry of more than 1/2.

It enters conditions only, so that nothing is differentiated by it.
"""

from __future__ import annotations

from fractions import Fraction

import sympy

from sifrc.scalar import ScalarFunction

__all__ = ["LEFT", "READ"]

_MASK = sympy.Symbol("mask", real=True)
READ = ScalarFunction("read", ("mask",), sympy.Piecewise((1, Fraction(1, 2) < _MASK), (0, True)))
"""1 where a mask lets read, else 0."""
LEFT = ScalarFunction("left", ("mask",), sympy.Piecewise((0, Fraction(1, 2) < _MASK), (1, True)))
"""1 where it does not."""
