"""A learning rate that falls when the training loss does not: that of GN3, Algorithm 4."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from sifrc.errors import TrainingError

__all__ = ["Plateau", "PlateauState"]

_SMALLEST_CHANGE = 1e-8  # of the rate; as in torch, a smaller one is not made


@dataclass(frozen=True)
class Plateau:
    """The rule of ``torch.optim.lr_scheduler.ReduceLROnPlateau``, with its defaults for the rest.

    A loss is better if it is below (1 − threshold) times the best so far. After more than ``patience``
    losses in a row that are not, the rate is multiplied by ``factor``.

    Args:
        patience: losses that may be no better; GN3 Table 2 has 5.
        factor: of the rate, between 0 and 1; GN3 Table 2 has 0.5.
        threshold: relative improvement that counts.

    Raises:
        TrainingError: a number is out of range.

    Example:
        >>> rule, state = Plateau(patience=1), PlateauState()
        >>> for loss in (1.0, 1.0, 1.0):
        ...     state, reduced = rule.after(state, loss)
        >>> reduced, rule.reduced(0.1), state.bad
        (True, 0.05, 0)
    """

    patience: int = 5
    factor: float = 0.5
    threshold: float = 1e-4

    def __post_init__(self) -> None:
        """Check the numbers."""
        if self.patience < 0:
            raise TrainingError(
                f"plateau: a patience of {self.patience}", hint="a whole number of at least 0"
            )
        if not 0 < self.factor < 1:
            raise TrainingError(f"plateau: a factor of {self.factor}", hint="between 0 and 1, e.g. 0.5")
        if not 0 <= self.threshold < 1:
            raise TrainingError(f"plateau: a threshold of {self.threshold}", hint="0 or more, below 1")

    def after(self, state: PlateauState, loss: float) -> tuple[PlateauState, bool]:
        """The state after one more loss, and whether the rate falls now."""
        if loss < state.best * (1.0 - self.threshold):
            return PlateauState(best=loss), False
        bad = state.bad + 1
        fallen = bad > self.patience
        return replace(state, bad=0 if fallen else bad), fallen

    def reduced(self, rate: float) -> float:
        """The rate after it fell."""
        lower = rate * self.factor
        return lower if rate - lower > _SMALLEST_CHANGE else rate


@dataclass(frozen=True)
class PlateauState:
    """What the rule remembers.

    Args:
        best: smallest loss so far.
        bad: losses since then, or since the rate fell.
    """

    best: float = math.inf
    bad: int = 0
