"""Which samples a run takes when: the order of an epoch, and the batches for the curvature.

Everything here is a function of the seed and of a count, so that a resumed run draws what the
uninterrupted one would have drawn.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from sifrc.errors import TrainingError

__all__ = ["CURVATURE_BATCH", "CurvatureSampler", "chunk_size", "order_generator", "sample_order"]

CURVATURE_BATCH = 1000
"""Samples of a batch for the curvature, B of GN3 Table 2."""

_CHUNKS = 50  # in an epoch, at most
_SMALLEST_CHUNK = 256  # samples; below, calls into compiled code would cost more than the code
_CURVATURE = 0x6375_7276  # keeps the orders for the curvature apart from those of the epochs


def sample_order(count: int, *, seed: int, epoch: int) -> NDArray[np.int64]:
    """The order of the samples in an epoch, a permutation (count,).

    Example:
        >>> a, b = (sample_order(100, seed=1, epoch=3) for _ in range(2))
        >>> bool((a == b).all()), bool((a == sample_order(100, seed=1, epoch=4)).all())
        (True, False)
    """
    return order_generator(seed, epoch).permutation(count).astype(np.int64, copy=False)


def order_generator(seed: int, epoch: int) -> np.random.Generator:
    """The generator that draws the order of an epoch."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, epoch])))


def chunk_size(samples: int, batch: int) -> int:
    """Samples trained between two looks at the clock; whole batches."""
    wanted = max(_SMALLEST_CHUNK, math.ceil(samples / _CHUNKS))
    return math.ceil(wanted / batch) * batch


class CurvatureSampler:
    """Batches of one size from the training set, apart from the order of the steps.

    Each pass goes through the samples in an order of its own and leaves out what does not fill a
    batch. Batch k depends on nothing but the arguments.

    Args:
        count: samples of the training set.
        seed: of the run.
        size: samples in a batch, at least 1; more than ``count`` means all of them.

    Raises:
        TrainingError: a size below 1.

    Example:
        >>> sampler = CurvatureSampler(10, seed=1, size=4)
        >>> len(set(sampler.batches(0, 2).tolist())), sampler.batches(2, 1).shape
        (8, (4,))
        >>> bool((sampler.batches(0, 3)[4:] == sampler.batches(1, 2)).all())
        True
    """

    def __init__(self, count: int, *, seed: int, size: int = CURVATURE_BATCH) -> None:
        """Check the arguments."""
        if size < 1:
            raise TrainingError(f"a curvature batch of {size} samples", hint="at least 1")
        self.size = min(size, count)
        self._count = count
        self._seed = seed
        self._pass = -1
        self._order: NDArray[np.int64] = np.zeros(0, np.int64)

    def batches(self, first: int, number: int) -> NDArray[np.int64]:
        """Positions of the samples of so many batches from batch ``first`` on, (number · size,)."""
        each = self._count // self.size
        parts = []
        for k in range(first, first + number):
            begin = k % each * self.size
            parts.append(self.order(k)[begin : begin + self.size])
        return np.concatenate(parts)

    def order(self, batch: int) -> NDArray[np.int64]:
        """The order that a batch is cut from, a permutation (count,)."""
        number = batch // (self._count // self.size)
        if number != self._pass:
            seeds = np.random.SeedSequence([self._seed, _CURVATURE, number])
            generator = np.random.Generator(np.random.PCG64(seeds))
            self._order = generator.permutation(self._count).astype(np.int64, copy=False)
            self._pass = number
        return self._order
