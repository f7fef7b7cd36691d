"""Terms of sums of operators that are no operators: told what would do."""

from __future__ import annotations

from numbers import Real
from typing import Any

from torch import Tensor

from sifrc.errors import OperatorError

__all__ = ["no_operator"]


def no_operator(name: str, sign: str, other: object, *, after: bool = True) -> Any:
    """Refuse the sum or the difference of an operator and something that may seem to be one.

    Args:
        name: of the operator.
        sign: between both.
        other: no operator.
        after: whether it comes after the sign.

    Returns:
        ``NotImplemented`` for other objects, which may know what to do with operators.

    Raises:
        OperatorError: it is a number or a tensor.

    Example:
        >>> no_operator("G", "+", 0.1)
        Traceback (most recent call last):
        sifrc.errors.OperatorError: error: G + 0.1: a number is no operator
          = op + 0.1 * ops.identity
    """
    if isinstance(other, Tensor) and other.ndim:
        what, shown, term = "a tensor", f"a tensor of shape {tuple(other.shape)}", None
    elif isinstance(other, Real | Tensor):
        what, shown = "a number", f"{float(other):g}"
        term = f"{shown} * ops.identity"
    else:
        return NotImplemented
    given, wanted = ((name, shown), ("op", term)) if after else ((shown, name), (term, "op"))
    hint = f" {sign} ".join(map(str, wanted)) if term else "op.to_dense() is a tensor too"
    raise OperatorError(f"{given[0]} {sign} {given[1]}: {what} is no operator", hint=hint)
