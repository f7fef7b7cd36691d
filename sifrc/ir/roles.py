"""What an input of an expression stands for: it says whether a batch has a value of it per sample."""

from __future__ import annotations

from enum import Enum

__all__ = ["Role"]


class Role(Enum):
    """What an input of an expression stands for.

    States, adjoints, tangents and data have a value per sample (``CLASS`` is data too: vectors with one
    entry 1 and the others 0, whose sum the normal form knows; and so is ``COUNTED``: such vectors, or zeros
    alone where a target does not count; a ``POSITION`` is such a vector that is computed: where a maximum
    is); parameters, directions (tensors shaped like parameters: gradients, Newton directions, vectors),
    hyperparameters and buffers (what a network keeps besides parameters: constants) do not. Statistics are
    states, adjoints and tangents of the whole batch: an equation for one is that for the mean over the
    samples.
    """

    PARAMETER = "parameter"
    STATE = "state"
    ADJOINT = "adjoint"
    TANGENT = "tangent"
    DIRECTION = "direction"
    DATA = "data"
    CLASS = "class"
    COUNTED = "counted class"
    POSITION = "position"
    HYPERPARAMETER = "hyperparameter"
    RANDOM = "random"
    STATISTIC = "statistic"
    BUFFER = "buffer"

    @property
    def per_sample(self) -> bool:
        """Whether inputs of this role take a value per sample in a batch."""
        return self.of_classes or self in (Role.STATE, Role.ADJOINT, Role.TANGENT, Role.DATA)

    @property
    def of_classes(self) -> bool:
        """Whether inputs of this role are vectors of classes, along their last axis."""
        return self in (Role.CLASS, Role.COUNTED, Role.POSITION)
