"""Whether a Newton direction is accepted: its substitution into the tetrad must leave zero.

The normal form decides where it can. What it leaves open is evaluated at 50 digits at random points, on
the solution of the forward and adjoint equations; the verdict says which of the two it was.
"""

from __future__ import annotations

import random
from typing import Any

import mpmath
import numpy as np

from sifrc.derive.newton import Newton
from sifrc.errors import VerificationError
from sifrc.ir import Expr, Input
from sifrc.ir.arithmetic import MPMATH, Array
from sifrc.ir.build import zero
from sifrc.ir.evaluate import evaluate
from sifrc.ir.traverse import inputs_of

__all__ = ["accept"]

_DIGITS = 50
_POINTS = 3


def accept(newton: Newton) -> str:
    """How the direction was accepted: ``normal form`` or ``50 digits at random points``.

    Raises:
        VerificationError: the substitution does not leave zero, or has no value.
    """
    open_equations = {
        label: residual for label, residual in newton.residuals.items() if residual is not zero(residual.axes)
    }
    if not open_equations:
        return "normal form"
    with mpmath.workdps(_DIGITS + 15):
        for point in range(_POINTS):
            for label, size in _sizes(newton, open_equations, random.Random(point)).items():
                if mpmath.isnan(size):
                    raise VerificationError(
                        f"the Newton direction has no value at random points, by equation {label}",
                        hint="the curvature of the loss may vanish everywhere; the Hessian–vector product "
                        "does not need it",
                    )
                if not size < mpmath.mpf(10) ** -_DIGITS:
                    raise VerificationError(
                        f"the Newton direction does not satisfy equation {label} by {mpmath.nstr(size, 5)}",
                        hint="this is a limit of the derivation; the Hessian–vector product does not need it",
                    )
    return f"{_DIGITS} digits at random points"


def _sizes(newton: Newton, equations: dict[str, Expr], generator: random.Random) -> dict[str, Array]:
    """Largest entries of the equations at one random point."""
    first = newton.second.first
    values: dict[Input, Array] = {}

    def number(symbol: Input) -> Array:
        shape = tuple(axis.size or 1 for axis in symbol.axes)
        entries = [mpmath.mpf(generator.randint(1, 2**40)) / 2**40 for _ in range(int(np.prod(shape)))]
        centred = entries if symbol.family == "λ" else [2 * entry - 1 for entry in entries]
        return MPMATH.array(np.array(centred, dtype=object).reshape(shape))

    known = (*first.forward.equations, *first.adjoint.equations)
    defined = {equation.symbol for equation in known}
    for symbol in inputs_of(*(equation.value for equation in known), *equations.values()):
        if symbol not in defined:
            values[symbol] = number(symbol)
    for equation in known:
        values[equation.symbol] = evaluate({"value": equation.value}, values, MPMATH)["value"]
    found = evaluate(equations, values, MPMATH)
    return {label: _largest(np.ravel(value)) for label, value in found.items()}


def _largest(entries: Array) -> Any:
    """The largest magnitude; not a number where an entry is none."""
    if any(mpmath.isnan(entry) for entry in entries):
        return mpmath.nan
    return max((abs(entry) for entry in entries), default=mpmath.mpf(0))
