"""Gradients of single samples, and what is made of them without forming them.

A gradient of a weight is a sum of outer products, y xᵀ for each place where the weight stands: its squared
norm is a sum of products of inner products, and the mean of its squares one matrix product of squares.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import MappingProxyType

from sifrc.derive.lagrangian import FirstOrder
from sifrc.derive.shaped import GRADIENT, shaped
from sifrc.derive.system import Equation, System
from sifrc.ir import Expr, Input, Role
from sifrc.ir.build import apply, hadamard, inner, subtract
from sifrc.ir.normal import expand, terms_of
from sifrc.model import Parameter
from sifrc.scalar.function import POSITIVE_PART

__all__ = ["SAMPLE_GRADIENT", "SAMPLE_SYSTEMS", "SECOND_MOMENT", "SQUARED_NORM", "VARIANCE", "sample_system"]

SAMPLE_GRADIENT = shaped("sample_gradient", "Gˢ", "gˢ")
SQUARED_NORM = shaped("squared_norm", "‖G‖²", "‖g‖²")
SECOND_MOMENT = shaped("second_moment", "G²", "g²")
VARIANCE = shaped("variance", "σ²W", "σ²β")

SAMPLE_SYSTEMS = MappingProxyType(
    {
        "none": "sample_gradients",
        "norm": "gradient_norms",
        "second": "gradient_squares",
        "variance": "gradient_variance",
    }
)
"""The gradients themselves, their squared norms, the mean of their squares, and their variance -> system."""
_MOST_USES = 2
"""Places of the network where a parameter stands, at most, for its gradients not to be formed."""
_TITLES = {
    "none": "Gradients of the samples",
    "norm": "Squared norms of the samples' gradients",
    "second": "Mean of the squared gradients of the samples",
    "variance": "Variance of the gradients of the samples",
}


def sample_system(first: FirstOrder, moment: str) -> System:
    """One of the :data:`SAMPLE_SYSTEMS` for every parameter.

    The variance is the mean of the squares less the square of the mean, both of which are there before; a
    difference below zero is rounding.
    """
    equations = []
    for layer, parameter, value in _gradients(first):
        if moment in ("norm", "second") and len(terms_of(expand(value))) > _MOST_USES:
            # Products of all pairs of uses would be more than the gradient.
            own, whole = _moment(parameter, value, "none")
            equations.append(Equation(own, whole, layer, "definition"))
            value = own
        symbol, found = _moment(parameter, value, moment)
        equations.append(Equation(symbol, found, layer, "definition"))
    return System(SAMPLE_SYSTEMS[moment], _TITLES[moment], tuple(equations))


def _gradients(first: FirstOrder) -> Iterator[tuple[int, Parameter, Expr]]:
    """Layers, last first, with the gradient of one sample by each of their parameters."""
    for owned in reversed(first.model.parameters):
        for parameter in owned.members:
            yield owned.index, parameter, first.gradient[GRADIENT.of(parameter)]


def _moment(parameter: Parameter, value: Expr, moment: str) -> tuple[Input, Expr]:
    if moment == "none":
        result = SAMPLE_GRADIENT.of(parameter)
        return Input(result.family, result.index, result.slots, Role.STATE), value
    if moment == "norm":
        result = SQUARED_NORM.of(parameter)
        return Input(result.family, result.index, (), Role.STATE), expand(inner(value, value))
    if moment == "second":
        return SECOND_MOMENT.of(parameter), expand(hadamard(value, value))
    mean = GRADIENT.of(parameter)
    spread = subtract(SECOND_MOMENT.of(parameter), hadamard(mean, mean))
    return VARIANCE.of(parameter), apply(POSITIVE_PART, spread)
