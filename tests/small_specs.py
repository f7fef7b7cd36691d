"""Specs that the tests of the API and of the commands share."""

from copy import deepcopy

TINY = {
    "sifrc": 1,
    "name": "tiny",
    "network": {
        "input": {"name": "image", "size": 4},
        "layers": [
            {"name": "fc1", "type": "dense", "units": 3, "activation": "tanh"},
            {"name": "fc2", "type": "dense", "units": 2},
        ],
    },
    "loss": "cross_entropy",
    "regularization": {"state": 0.001},
    "dtype": "float64",
    "method": {"name": "mk", "learning_rate": 0.05},
    "target": {"backend": "torch", "operators": ["gradient"]},
}


def tiny(**changes):
    """The small spec with top-level keys replaced."""
    return {**deepcopy(TINY), **changes}
