import importlib.util
from pathlib import Path

import numpy as np
import pytest

from sifrc.data import Dataset


def load_module(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(autouse=True)
def quick(no_pictures):
    """As most tests of runs want them."""


@pytest.fixture
def fake_numba():
    return load_module(Path(__file__).with_name("fake_numba.py"))


@pytest.fixture
def fake_torch():
    pytest.importorskip("torch")
    return load_module(Path(__file__).with_name("fake_torch.py"))


@pytest.fixture
def toy():
    """1000 training samples of three noisy classes: four chunks an epoch, the last one short."""
    rng = np.random.default_rng(3)
    centres = rng.standard_normal((3, 5))

    def part(count):
        labels = rng.integers(0, 3, count)
        return centres[labels] + 0.7 * rng.standard_normal((count, 5)), labels

    return Dataset("toy", "made in a test", *part(1000), *part(200), classes=3)
