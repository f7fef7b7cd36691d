"""Load a data set by name, scaled.

- ``digits``: 8x8 images that come with scikit-learn; divided by 16, then shifted and scaled by the
  mean and the standard deviation of all pixels of the training part.
- ``mnist``: ``mnist_train.npz`` and ``mnist_test.npz`` with X and y, or the four idx files;
  divided by 255, then (x - 0.1307) / 0.3081.
- ``fashion_mnist``: likewise, with 0.2860 and 0.3530.
- ``cifar10``: the original binary files, or an archive of JPEG images; divided by 255, then likewise
  by colour; 3072 entries: the red plane, the green, the blue (:mod:`sifrc.data.cifar`).
- ``curves``: generated; values in [0, 1], the targets are the inputs.
- ``<file>.npz``: the user's own arrays; bytes are divided by 255, anything else stays as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sifrc.data.archive import load_archive
from sifrc.data.cifar import load_cifar10
from sifrc.data.curves import curve_images, curve_points
from sifrc.data.dataset import Dataset
from sifrc.data.folders import MissingImagesError
from sifrc.data.images import IMAGE_SETS, load_images
from sifrc.data.request import Request, first_rows, padded
from sifrc.errors import DataError
from sifrc.extras import MissingDataDependency, optional

__all__ = ["DATASET_NAMES", "load_dataset"]

_DIGITS_TRAIN, _DIGITS_TEST = 1437, 360
_CURVES_TRAIN, _CURVES_TEST = 20_000, 2_000


def load_dataset(
    name: str,
    *,
    path: Path | None = None,
    dtype: str = "float32",
    seed: int = 0,
    one_hot: bool = False,
    fallback: bool = False,
    train_count: int | None = None,
    test_count: int | None = None,
    pad: int = 0,
) -> Dataset:
    """Load a data set, scaled, with one sample a row.

    Args:
        name: one of :data:`DATASET_NAMES`, or the path of an ``.npz`` archive with ``train_X``
            (N, ...), ``test_X``, and optionally ``train_y`` and ``test_y``: (N,) whole numbers are
            classes, (N, n) are vectors; without them the targets are the inputs. ``classes`` gives
            the number of classes where the largest label does not.
        path: folder of the files; for an archive, the folder its name is relative to. Without it
            the folder in the environment variable SIFRC_DATA is searched, then, for
            Fashion-MNIST, the one of the Debian package.
        dtype: of the inputs and of vector targets: ``float32`` or ``float64``; ``bfloat16`` gives
            float32, since NumPy has no such type.
        seed: of the split of digits and of the generated curves; the others have a fixed split.
        one_hot: turn class indices (N,) into vectors (N, classes).
        fallback: if MNIST, Fashion-MNIST or CIFAR-10 is not there, take digits instead and say so
            in ``source``. Its images are smaller: 64 inputs.
        train_count: the number of training samples: the first ones, and how many curves are
            generated (20,000 if not given).
        test_count: the same for the test part (2,000 curves).
        pad: pixels of background added at each side of every image, before the scaling, whose mean
            and deviation stay those of the images without; 2 makes 32x32 of MNIST's 28x28. An
            archive is taken as it is.

    Raises:
        DataError: unknown name, missing or damaged files, or too few samples.

    Example:
        >>> digits = load_dataset("digits")
        >>> digits.train_inputs.shape, digits.test_inputs.shape, digits.train_targets.dtype.name
        ((1437, 64), (360, 64), 'int64')
    """
    if dtype not in ("float32", "float64", "bfloat16"):
        raise DataError(f"unknown dtype '{dtype}'", hint="known dtypes: float32, float64, bfloat16")
    if seed < 0:
        raise DataError(f"the seed of a data set is {seed}", hint="a whole number of at least 0")
    for part, count in (("training", train_count), ("test", test_count)):
        if count is not None and count < 1:
            raise DataError(f"{name}: {count} {part} samples asked for", hint="at least 1, or none given")
    if pad < 0 or (pad and name.endswith(".npz")):
        raise DataError(
            f"{name}: {pad} pixels of padding asked for",
            hint="at least 0; none for an archive, whose arrays are taken as they are",
        )
    stored = "float32" if dtype == "bfloat16" else dtype
    request = Request(Path(path) if path is not None else None, stored, seed, train_count, test_count, pad)
    if name in _LOADERS:
        dataset = _LOADERS[name](request)
    elif name in _FILES:
        dataset = _load_images(name, request, fallback)
    elif name.endswith(".npz"):
        dataset = load_archive(name, request)
    else:
        raise DataError(
            f"unknown data set '{name}'",
            hint=f"known data sets: {', '.join(DATASET_NAMES)}, or the path of an .npz archive",
        )
    return _with_one_hot(dataset) if one_hot else dataset


def _load_images(name: str, request: Request, fallback: bool) -> Dataset:
    """An image set; digits where it is missing and the caller allows that."""
    try:
        return _FILES[name](request)
    except MissingImagesError as error:
        if not fallback:
            raise
        smaller = replace(
            request,
            train_count=None if request.train_count is None else min(request.train_count, _DIGITS_TRAIN),
            test_count=None if request.test_count is None else min(request.test_count, _DIGITS_TEST),
        )
        digits = _load_digits(smaller)
        return replace(digits, source=f"{digits.source}, in place of {error.title}: {error.reason}")


def _load_digits(request: Request) -> Dataset:
    """scikit-learn's 1797 images of 8x8 pixels, split so that both parts have the same classes."""
    datasets = optional("sklearn.datasets", "the data set 'digits'", MissingDataDependency)
    bunch: Any = datasets.load_digits()
    inputs = np.asarray(bunch.data, np.float64) / 16
    labels = np.asarray(bunch.target, np.int64)
    train, test = _stratified_split(labels, _DIGITS_TEST, request.seed)
    mean, deviation = inputs[train].mean(), inputs[train].std()
    scaled = ((padded(inputs, 8, request.pad) - mean) / deviation).astype(request.dtype)
    return Dataset(
        name="digits",
        source=f"scikit-learn's digits, split {_DIGITS_TRAIN}/{_DIGITS_TEST} with seed {request.seed}",
        train_inputs=first_rows(scaled[train], request.train_count, "digits"),
        train_targets=first_rows(labels[train], request.train_count, "digits"),
        test_inputs=first_rows(scaled[test], request.test_count, "digits"),
        test_targets=first_rows(labels[test], request.test_count, "digits"),
        classes=10,
        image_shape=(8 + 2 * request.pad,) * 2,
    )


def _load_curves(request: Request) -> Dataset:
    """Generated curves; the training and the test part come from different streams of one seed."""
    counts = (request.train_count or _CURVES_TRAIN, request.test_count or _CURVES_TEST)
    train, test = (
        padded(curve_images(curve_points(count, seed=int(child)), dtype=request.dtype), 28, request.pad)
        for count, child in zip(counts, np.random.SeedSequence(request.seed).generate_state(2), strict=True)
    )
    return Dataset(
        name="curves",
        source=f"generated with seed {request.seed}: smooth curves through three random points",
        train_inputs=train,
        train_targets=train,
        test_inputs=test,
        test_targets=test,
        image_shape=(28 + 2 * request.pad,) * 2,
    )


_LOADERS: Mapping[str, Callable[[Request], Dataset]] = MappingProxyType(
    {"digits": _load_digits, "curves": _load_curves}
)

# sets in files that the user has
_FILES: Mapping[str, Callable[[Request], Dataset]] = MappingProxyType(
    {**{name: partial(load_images, name) for name in IMAGE_SETS}, "cifar10": load_cifar10}
)

DATASET_NAMES: tuple[str, ...] = (*sorted((*_LOADERS, *_FILES)),)


def _stratified_split(
    labels: NDArray[np.int64], test_count: int, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Shuffled indices of a training and a test part in which every class has its share.

    The places that the rounding leaves go to the classes with the largest remainders.
    """
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed)))
    values, counts = np.unique(labels, return_counts=True)
    share = counts * test_count / len(labels)
    take = np.floor(share).astype(np.int64)
    take[np.argsort(take - share, kind="stable")[: test_count - take.sum()]] += 1
    train, test = [], []
    for value, count in zip(values, take, strict=True):
        members = rng.permutation(np.flatnonzero(labels == value))
        test.append(members[:count])
        train.append(members[count:])
    return rng.permutation(np.concatenate(train)), rng.permutation(np.concatenate(test))


def _with_one_hot(dataset: Dataset) -> Dataset:
    """The same data with vectors instead of class indices."""
    if dataset.target_kind != "classes" or dataset.classes is None:
        raise DataError(
            f"the data set '{dataset.name}' has no classes, so one_hot does not apply",
            hint="one_hot: false",
        )
    identity = np.eye(dataset.classes, dtype=dataset.train_inputs.dtype)
    vectors = {key: identity[getattr(dataset, key)] for key in ("train_targets", "test_targets")}
    return replace(dataset, **vectors)
