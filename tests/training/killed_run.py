"""A run of the fake module in a process of its own: python killed_run.py DIRECTORY [resume]."""

import sys
from pathlib import Path

import numpy as np

from sifrc.data import Dataset
from sifrc.training import train


def main(directory, *options):
    from conftest import load_module

    with np.load(Path(directory) / "toy.npz", allow_pickle=False) as archive:
        arrays = [archive[f"arr_{k}"] for k in range(4)]
    train(
        load_module(Path(__file__).with_name("fake_numba.py")),
        "numba",
        Dataset("toy", "made in a test", *arrays, classes=3),
        epochs=3,
        batch=7,
        seed=11,
        directory=Path(directory),
        resume="resume" in options,
        checkpoint_every=0,
        progress=False,
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
