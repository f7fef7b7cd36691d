"""Random vectors of estimators, the same for the same seed on every device."""

from __future__ import annotations

import torch
from torch import Tensor

from sifrc.errors import OperatorError
from sifrc.linear.operator import LinearOperator

__all__ = ["check_factored", "count_of_probes", "normal", "signs"]


def signs(operator: LinearOperator, count: int, seed: int) -> Tensor:
    """Columns of 1 and −1, each with probability ½ (Rademacher)."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(2, (operator.shape[1], count), generator=generator)
    return (2 * drawn - 1).to(operator.device, operator.dtype)


def normal(operator: LinearOperator, count: int, seed: int) -> Tensor:
    """Columns of standard normal numbers."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(operator.shape[1], count, generator=generator, dtype=torch.float64)
    return drawn.to(operator.device, operator.dtype)


def count_of_probes(value: int, least: int, what: str) -> int:
    """A number of probes, checked.

    Raises:
        OperatorError: it is no whole number, or too small.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise OperatorError(f"{what}: {value!r} probes", hint=f"a whole number of at least {least}")
    return value


def check_factored(operator: LinearOperator, what: str) -> None:
    """Refuse what orthogonalises products of an operator in numbers too coarse for it.

    Raises:
        OperatorError: the operator is one of bfloat16.
    """
    if operator.dtype == torch.bfloat16:
        raise OperatorError(
            f"{what} of {operator.name}, an operator of {operator.dtype}",
            hint="hutchinson, or a model in float32",
        )
