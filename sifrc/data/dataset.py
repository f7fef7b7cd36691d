"""What a data set is, and whether it fits a network."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sifrc.errors import DataError

__all__ = ["Dataset", "check_fits"]


@dataclass(frozen=True, eq=False)
class Dataset:
    """Inputs and targets, split in a training and a test part. The first axis is the sample.

    Args:
        name: of the data set, or the stem of an ``.npz`` file.
        source: one line saying where the numbers came from and how they were scaled; it names
            files but no folders.
        train_inputs: (N, n_0), C-contiguous.
        train_targets: (N,) int64 class indices, or (N, n) vectors in the inputs' dtype.
        test_inputs: (M, n_0).
        test_targets: (M,) or (M, n).
        classes: number of classes, also where the targets are one-hot vectors; None without classes.
        image_shape: (height, width) if a row is an image, read row by row, one colour after another.

    Raises:
        DataError: the four arrays do not fit each other.

    Example:
        >>> import numpy as np
        >>> x, t = np.zeros((3, 2)), np.array([0, 1, 1])
        >>> Dataset("toy", "made up", x, t, x, t, classes=2).describe()
        'toy: 3 training and 3 test samples, 2 inputs, 2 classes (made up)'
    """

    name: str
    source: str
    train_inputs: NDArray[Any]
    train_targets: NDArray[Any]
    test_inputs: NDArray[Any]
    test_targets: NDArray[Any]
    classes: int | None = None
    image_shape: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        """Refuse parts that do not fit each other."""
        for part, inputs, targets in (
            ("training", self.train_inputs, self.train_targets),
            ("test", self.test_inputs, self.test_targets),
        ):
            if inputs.ndim != 2 or not inputs.size:
                raise DataError(
                    f"{self.name}: the {part} inputs have shape {inputs.shape}",
                    hint="inputs are (samples, entries), at least one of each",
                )
            if len(targets) != len(inputs):
                raise DataError(f"{self.name}: {len(inputs)} {part} inputs but {len(targets)} targets")
        if self.train_inputs.shape[1] != self.test_inputs.shape[1]:
            raise DataError(
                f"{self.name}: training inputs have {self.train_inputs.shape[1]} entries, "
                f"test inputs {self.test_inputs.shape[1]}"
            )
        if self.train_targets.shape[1:] != self.test_targets.shape[1:]:
            raise DataError(
                f"{self.name}: a training target has shape {self.train_targets.shape[1:]}, "
                f"a test target {self.test_targets.shape[1:]}"
            )

    @property
    def input_size(self) -> int:
        """n_0, the entries of one input."""
        return int(self.train_inputs.shape[1])

    @property
    def target_kind(self) -> str:
        """``classes`` for (N,) integer targets, else ``vectors``."""
        return "classes" if self.train_targets.ndim == 1 else "vectors"

    @property
    def target_size(self) -> int:
        """Entries of a target vector, or the number of classes."""
        if self.train_targets.ndim == 2:
            return int(self.train_targets.shape[1])
        return self.classes if self.classes is not None else int(self.train_targets.max()) + 1

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the four arrays, with their shapes and dtypes."""
        digest = hashlib.sha256()
        for array in (self.train_inputs, self.train_targets, self.test_inputs, self.test_targets):
            digest.update(f"{array.dtype.str}{array.shape}".encode())
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()

    def describe(self) -> str:
        """One line for people."""
        kind = f"{self.classes} classes" if self.classes else f"targets of {self.target_size}"
        return (
            f"{self.name}: {len(self.train_inputs)} training and {len(self.test_inputs)} test samples, "
            f"{self.input_size} inputs, {kind} ({self.source})"
        )


def check_fits(
    dataset: Dataset, input_size: int | tuple[int, ...], output_size: int, target_kind: str
) -> None:
    """Check that a network can be trained on a data set.

    Args:
        dataset: the data.
        input_size: entries the network takes, or the sizes of the axes they have there: a sample fits
            where it has as many entries.
        output_size: entries the network gives.
        target_kind: ``classes`` or ``vectors``, what the loss takes.

    Raises:
        DataError: a size or the kind of target differs; both sides are named.

    Example:
        >>> import numpy as np
        >>> x, t = np.zeros((3, 2)), np.array([0, 1, 1])
        >>> check_fits(Dataset("toy", "made up", x, t, x, t, classes=2), 2, 2, "classes")
        >>> check_fits(Dataset("toy", "made up", x, t, x, t, classes=2), (1, 2), 2, "classes")
    """
    if target_kind not in ("classes", "vectors"):
        raise DataError(f"unknown kind of target '{target_kind}'", hint="known kinds: classes, vectors")
    axes = input_size if isinstance(input_size, tuple) else (input_size,)
    if dataset.input_size != prod(axes):
        wanted = f"size {dataset.input_size}" if len(axes) == 1 else f"sizes of product {dataset.input_size}"
        raise DataError(
            f"the network takes {' x '.join(map(str, axes))} inputs, the data set '{dataset.name}' has "
            f"{dataset.input_size}",
            hint=f"give the network input {wanted}, or choose another data set",
        )
    if dataset.target_kind != target_kind:
        if target_kind == "vectors":
            raise DataError(
                f"the loss takes target vectors, the data set '{dataset.name}' has class indices",
                hint="set one_hot: true under training, or use a loss over class indices",
            )
        raise DataError(
            f"the loss takes class indices, the data set '{dataset.name}' has target vectors of "
            f"{dataset.target_size}",
            hint="use a loss over vectors, or set one_hot: false if the data set has classes",
        )
    if dataset.target_size != output_size:
        what = "classes" if target_kind == "classes" else "entries in a target"
        raise DataError(
            f"the network has {output_size} outputs, the data set '{dataset.name}' has "
            f"{dataset.target_size} {what}",
            hint=f"give the last layer {dataset.target_size} units, or choose another data set",
        )
