"""Small runs of grouped Newton that several tests of training share."""

from copy import deepcopy

import numpy as np
import pytest
from training_helpers import plain_python

import sifrc
from sifrc.data import Dataset

SPEC = {
    "sifrc": 1,
    "name": "grouped",
    "network": {
        "input": {"size": 5},
        "layers": [
            {"name": "fc1", "type": "dense", "units": 4, "activation": "tanh"},
            {"name": "fc2", "type": "dense", "units": 3},
        ],
    },
    "loss": "cross_entropy",
    "dtype": "float64",
    "method": "grouped_newton",
}
LAYERS = ("fc1", "fc2")
CANONICAL = {f"{layer}.{kind}": (f"{layer}.{kind}",) for layer in LAYERS for kind in ("weight", "bias")}


def build(folder, backend, operators=(), partition=None, **options):
    """A module for the small spec."""
    pytest.importorskip("torch")
    with plain_python(backend):
        return sifrc.compile(
            deepcopy(SPEC), backend, operators=operators, partition=partition, cache=folder, **options
        )


def part_of(toy, count=310):
    """Two chunks of an epoch with batches of 20 (260, 50); the last batch is a small one."""
    train = toy.train_inputs[:count], toy.train_targets[:count]
    return Dataset("some", "of the toy", *train, toy.test_inputs, toy.test_targets, classes=3)


def close(a, b):
    """Equal up to rounding."""
    return np.allclose(a, b, rtol=1e-9, atol=1e-12)
