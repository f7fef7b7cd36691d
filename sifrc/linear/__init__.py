"""Curvature as linear operators on the parameters of a model, and what is computed of such operators."""

from sifrc.linear.algebra import identity
from sifrc.linear.curvature import CurvatureOperators
from sifrc.linear.density import SpectralDensity
from sifrc.linear.kronecker import Kronecker
from sifrc.linear.making import make_operators
from sifrc.linear.operator import Estimate, LinearOperator
from sifrc.linear.space import Space
from sifrc.linear.spectrum import Eigen

__all__ = [
    "CurvatureOperators",
    "Eigen",
    "Estimate",
    "Kronecker",
    "LinearOperator",
    "Space",
    "SpectralDensity",
    "identity",
    "make_operators",
]
