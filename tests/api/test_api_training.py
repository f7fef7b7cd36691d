"""Compiling and training in one call, from data of the user's own."""

import numpy as np
import pytest
from small_specs import tiny

import sifrc
from sifrc.api import load_data

pytestmark = pytest.mark.usefixtures("no_pictures")

pytest.importorskip("torch")


@pytest.fixture
def archive(tmp_path):
    """Two separable classes, 4 inputs."""
    rng = np.random.default_rng(5)

    def part(count):
        labels = rng.integers(0, 2, count)
        return 0.5 * rng.standard_normal((count, 4)) + np.where(labels, 1.0, -1.0)[:, None], labels

    (x, y), (u, v) = part(200), part(60)
    path = tmp_path / "two.npz"
    np.savez(path, train_X=x, train_y=y, test_X=u, test_y=v)
    return path


def test_training_separates_two_classes_and_writes_its_files(archive, tmp_path):
    history = sifrc.train(
        tiny(regularization={"state": 0.1}),
        archive,
        directory=tmp_path / "run",
        epochs=3,
        progress=False,
        cache=False,
        learning_rate=0.5,
    )
    assert len(history) == 4 and history.last.test_accuracy > 0.9
    assert {p.name for p in (tmp_path / "run").iterdir()} >= {"metrics.csv", "checkpoint.npz"}


def test_what_is_not_said_is_the_specs(archive):
    spec = tiny(training={"data": str(archive), "epochs": 2, "batch": 20})
    assert len(sifrc.train(spec, progress=False, cache=False)) == 3


def test_padding_of_the_spec_reaches_the_data():
    """Digits of 8x8 pixels become 10x10, and the spec written out again says so."""
    pytest.importorskip("sklearn")
    content = tiny(training={"data": "digits", "pad": 1})
    content["network"]["input"]["size"] = 100
    content["network"]["layers"][-1]["units"] = 10
    spec, dataset = load_data(content)
    assert dataset.input_size == 100
    assert sifrc.spec.spec_to_dict(spec)["training"]["pad"] == 1


def test_training_needs_a_method(archive):
    with pytest.raises(sifrc.TrainingError, match="needs a method"):
        sifrc.train(tiny(), archive, method="none", progress=False, cache=False)


def test_data_must_fit_the_network(archive):
    content = tiny()
    content["network"]["input"]["size"] = 5
    with pytest.raises(sifrc.DataError, match="5 inputs"):
        load_data(content, archive)


def test_a_fallback_gives_the_network_the_size_of_digits(tmp_path, monkeypatch):
    """MNIST is not in an empty folder; the network then takes 64 inputs in place of 784."""
    pytest.importorskip("sklearn")
    monkeypatch.delenv("SIFRC_DATA", raising=False)
    content = tiny(training={"data": "mnist"})
    content["network"]["input"]["size"] = 784
    content["network"]["layers"][-1]["units"] = 10
    with pytest.raises(sifrc.DataError):
        load_data(content, tmp_path)
    spec, dataset = load_data(content, tmp_path, fallback=True)
    assert (spec.input.size, dataset.name) == (64, "digits") and "in place of MNIST" in dataset.source
