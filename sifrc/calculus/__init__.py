"""Symbolic differentiation of tensor expressions: forward (JVP) and reverse (VJP) transforms."""

from sifrc.calculus.forward import jvp, softmax
from sifrc.calculus.reverse import vjp
from sifrc.calculus.seeded import jacobian, seeded

__all__ = ["jacobian", "jvp", "seeded", "softmax", "vjp"]
