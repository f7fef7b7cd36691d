"""Conjugate gradients in Torch: an object that is asked for directions, and given the products with them."""

from __future__ import annotations

from collections.abc import Sequence

from sifrc.backends.torch_eager.access import Names
from sifrc.lower.statements import ConjugateGradients

__all__ = ["search_text"]


def search_text(statement: ConjugateGradients, names: Names, body: Sequence[str]) -> list[str]:
    """Lines of a search.

    Args:
        statement: the search.
        names: how the function refers to arrays.
        body: lines of the product with a direction.
    """
    unknowns = statement.unknowns
    rhs, solutions, directions, products = (
        ", ".join(names.array(load) for load in loads)
        for loads in zip(*((u.rhs, u.solution, u.direction, u.product) for u in unknowns), strict=True)
    )
    limits = f"{names.array(statement.limit)}, {names.array(statement.tolerance)}"
    comma = "," if len(unknowns) == 1 else ""
    only = "[0]" if len(unknowns) == 1 else ""
    return [
        f"search = _Search(({rhs}{comma}), {limits})",
        "while search.wanted:",
        f"    {directions} = search.directions{only}",
        *(f"    {line}" for line in body),
        f"    search.advance(({products}{comma}))",
        f"{solutions} = search.solutions{only}",
        f"{names.array(statement.iterations)} = search.count(like)",
        f"{names.array(statement.remaining)} = search.remaining(like)",
    ]
