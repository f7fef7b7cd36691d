"""Cases of the comparison with other implementations: (sizes, activation, loss) of chains of dense layers."""

from __future__ import annotations

__all__ = ["BATCH", "CHAINS", "CLOSED", "SIZES"]

BATCH = 8
SIZES = [(5, 4, 3), (4, 6, 5, 3), (3, 3, 3, 3), (6, 3)]
CHAINS = [
    (sizes, activation, loss)
    for sizes in SIZES
    # One layer has no activation.
    for activation in ("tanh", "sigmoid", "relu")[: None if len(sizes) > 2 else 1]
    for loss in ("mse", "cross_entropy")
]
CLOSED = [((4, 6, 3), "tanh", "sigmoid"), ((4, 6, 3), "sigmoid", "tanh")]
"""Output layers with an activation."""
