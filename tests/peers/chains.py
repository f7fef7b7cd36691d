"""Cases of the comparison with other implementations: (sizes, activation, loss) of chains of dense layers."""

from __future__ import annotations

__all__ = ["BATCH", "CHAINS", "CLOSED", "SIZES"]

BATCH = 8
SIZES = [(5, 4, 3), (4, 6, 5, 3), (3, 3, 3, 3), (6, 3)]
CHAINS = [
    (s, a, loss) for s in SIZES for a in ("tanh", "sigmoid", "relu") for loss in ("mse", "cross_entropy")
]
CLOSED = [((4, 6, 3), "tanh", "sigmoid"), ((4, 6, 3), "sigmoid", "tanh")]
"""Output layers with an activation."""
