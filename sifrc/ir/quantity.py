"""Quantities: what the arrays of one family hold, how they are called, shown and stored."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType

__all__ = ["Quantity", "Storage", "table_of"]


class Storage(Enum):
    """Where the arrays of a family live and who owns them."""

    PARAMETER = "parameter"
    """Weights and biases: given by the user, updated in place by a step."""
    BUFFER = "buffer"
    """What the network keeps besides its parameters: running statistics, updated in place by a step."""
    DATA = "data"
    """Inputs x[0] and targets t."""
    DIRECTION = "direction"
    """Given tensors shaped like parameters: the vector of a product."""
    RESULT = "result"
    """Tensors shaped like parameters that a function computes: gradients, products, directions."""
    WORK = "work"
    """Intermediate values, one set for each batch size."""
    MEMORY = "memory"
    """State of an optimizer, kept from step to step, updated in place."""
    CONSTANT = "constant"
    """Numbers of the spec, one for each index (λ_k)."""
    RANDOM = "random"
    """Random numbers, one vector for each sample; ``ω`` uniform, ``ε`` normal."""
    TABLE = "table"
    """Fixed tables: numbers that are a function of their indices."""
    IDENTITY = "identity"
    """An identity matrix; it depends on nothing."""
    HYPERPARAMETER = "hyperparameter"
    """Scalars given at each call (lr, damping); ``mean`` is one over the batch size."""


@dataclass(frozen=True)
class Quantity:
    """What the arrays of one family hold, whatever layer they belong to.

    Args:
        name: of the family, as symbols have it.
        code: ASCII identifier in generated code.
        text: what it is, one line.
        storage: where its arrays live.
        shown: its letters in equations, where they are not the name.
        latex: the same in LaTeX, where it does not follow from the letters.
        rank: its place in products and sums; those without one come last.
        leading: its place among the symbols that begin a sum; None for one that does not.
        matrix: whether products with it come before vectors.
        activated: name of what it becomes by back-propagation through an activation, which it is itself where
            the activation is the identity.
    """

    name: str
    code: str
    text: str
    storage: Storage = Storage.WORK
    shown: str = ""
    latex: str = ""
    rank: int | None = None
    leading: int | None = None
    matrix: bool = False
    activated: str = ""


def table_of(*groups: Iterable[Quantity]) -> Mapping[str, Quantity]:
    """Quantities by name.

    Raises:
        ValueError: two of them have one name, or one identifier.

    Example:
        >>> block = Quantity("H", "block", "blocks H_k")
        >>> table_of([block], [Quantity("H̄", "block", "means of the blocks")])
        Traceback (most recent call last):
        ...
        ValueError: H̄ and H are both called 'block'
    """
    found: dict[str, Quantity] = {}
    owners: dict[str, str] = {}
    for quantity in (quantity for group in groups for quantity in group):
        if quantity.name in found:
            raise ValueError(f"two quantities are called {quantity.name}")
        owner = owners.setdefault(quantity.code, quantity.name)
        if owner != quantity.name:
            raise ValueError(f"{quantity.name} and {owner} are both called '{quantity.code}'")
        found[quantity.name] = quantity
    return MappingProxyType(found)
