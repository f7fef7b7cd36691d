"""Rows of a data set for networks whose input has several axes: what fits, and what is said otherwise."""

import numpy as np
import pytest

import sifrc
from sifrc.api import load_data
from sifrc.data import Dataset, check_fits
from sifrc.errors import DataError
from sifrc.training.inputs import input_shape, shaped


def rows(count):
    x = np.arange(4.0 * count).reshape(4, count)
    return Dataset("rows", "counted", x, np.array([0, 1, 1, 0]), x, np.array([1, 0, 1, 0]), classes=2)


def document(size, data, *, units=2, **training):
    layers = [
        {"name": "fc1", "type": "dense", "units": 3, "activation": "tanh"},
        {"name": "flat", "type": "flatten"},
        {"name": "fc2", "type": "dense", "units": units},
    ]
    return {
        "sifrc": 1,
        "name": "axes",
        "network": {"input": {"name": "image", "size": size}, "layers": layers},
        "loss": "cross_entropy",
        "training": {"data": str(data), **training},
    }


@pytest.fixture
def archive(tmp_path):
    """Images of 2 x 3 pixels, which an archive keeps as they are and a data set as rows."""
    x = np.random.default_rng(0).standard_normal((20, 2, 3))
    path = tmp_path / "images.npz"
    np.savez(path, train_X=x, train_y=np.arange(20) % 2, test_X=x[:6], test_y=np.arange(6) % 2)
    return path


@pytest.mark.parametrize("size", [12, (12,), (3, 4), (4, 3), (2, 2, 3), (1, 12), (12, 1, 1)])
def test_a_row_fits_wherever_it_has_as_many_entries(size):
    check_fits(rows(12), size, 2, "classes")


@pytest.mark.parametrize(
    ("size", "message", "hint"),
    [
        (13, "the network takes 13 inputs, the data set 'rows' has 12", "give the network input size 12,"),
        ((13,), "the network takes 13 inputs, the data set 'rows' has 12", "give the network input size 12,"),
        (
            (3, 5),
            "the network takes 3 x 5 inputs, the data set 'rows' has 12",
            "give the network input sizes of product 12,",
        ),
        (
            (2, 2, 2),
            "the network takes 2 x 2 x 2 inputs, the data set 'rows' has 12",
            "give the network input sizes of product 12,",
        ),
    ],
)
def test_what_does_not_fit_is_said_with_its_axes(size, message, hint):
    with pytest.raises(DataError) as caught:
        check_fits(rows(12), size, 2, "classes")
    assert caught.value.message == message and hint in str(caught.value)


@pytest.mark.parametrize("size", [6, [2, 3], [3, 2], [1, 6]])
def test_images_of_an_archive_fit_any_axes_with_their_entries(archive, size):
    spec, dataset = load_data(document(size, archive))
    assert dataset.train_inputs.shape == (20, 6) and dataset.image_shape == (2, 3)
    assert spec == sifrc.build_spec(document(size, archive))


def test_images_of_an_archive_that_do_not_fit_are_refused(archive):
    with pytest.raises(DataError, match="the network takes 2 x 4 inputs, the data set 'images' has 6"):
        load_data(document([2, 4], archive))
    with pytest.raises(DataError, match="the network takes 2 x 4 inputs, the data set 'rows' has 12"):
        sifrc.train({**document([2, 4], archive), "method": "grouped_newton"}, rows(12), progress=False)


def test_digits_fit_a_network_over_images():
    pytest.importorskip("sklearn")
    spec, dataset = load_data(document([8, 8], "digits", units=10))
    assert (spec.input.shape, dataset.train_inputs.shape) == ((8, 8), (1437, 64))
    assert load_data(document([10, 10], "digits", units=10, pad=1))[1].input_size == 100


@pytest.mark.parametrize("size", [784, [784]])
def test_a_fallback_gives_one_axis_the_size_of_digits(tmp_path, monkeypatch, size):
    pytest.importorskip("sklearn")
    monkeypatch.delenv("SIFRC_DATA", raising=False)
    spec, dataset = load_data(document(size, "mnist", units=10), tmp_path, fallback=True)
    assert (dataset.name, spec.input.shape, spec.shapes["flat"]) == ("digits", (64,), (3,))


def test_a_fallback_does_not_rearrange_several_axes(tmp_path, monkeypatch):
    """Nobody knows which of 8 x 8, 4 x 16, ... is meant in place of 28 x 28."""
    pytest.importorskip("sklearn")
    monkeypatch.delenv("SIFRC_DATA", raising=False)
    with pytest.raises(DataError) as caught:
        load_data(document([28, 28], "mnist", units=10), tmp_path, fallback=True)
    assert caught.value.message == "the network takes 28 x 28 inputs, the data set 'digits' has 64"
    assert "sizes of product 64" in str(caught.value)


def test_a_fallback_whose_images_fit_is_taken(tmp_path, monkeypatch):
    pytest.importorskip("sklearn")
    monkeypatch.delenv("SIFRC_DATA", raising=False)
    spec, dataset = load_data(document([4, 16], "mnist", units=10), tmp_path, fallback=True)
    assert (dataset.name, spec.input.shape) == ("digits", (4, 16))


# Rows as a network takes them


@pytest.mark.parametrize(
    ("spec", "shape"),
    [
        ({"network": {"input": {"name": "x", "size": [2, 3]}}}, (2, 3)),
        ({"network": {"input": {"size": (2, 3)}}}, (2, 3)),
        ({"network": {"input": {"size": 6}}}, ()),
        ({"network": {"input": {}}}, ()),
        ({"network": []}, ()),
        ({}, ()),
        (None, ()),
    ],
)
def test_axes_of_a_module_are_those_of_its_spec(spec, shape):
    class Module:
        SPEC = spec

    assert input_shape(Module) == shape


def test_rows_are_read_in_the_order_of_the_last_axis():
    """``x[:, i, j]`` is entry 3 i + j of a row, whatever the memory of the rows looks like."""
    x = np.arange(24.0).reshape(4, 6)
    for given in (x, np.asfortranarray(x), np.concatenate([x, x], axis=1)[:, :6]):
        found = shaped(given, (2, 3))
        assert found.shape == (4, 2, 3)
        assert all(found[n, i, j] == x[n, 3 * i + j] for n in range(4) for i in range(2) for j in range(3))


def test_rows_are_not_copied():
    x = np.arange(24.0).reshape(4, 6)
    assert np.shares_memory(shaped(x, (2, 3)), x)
    assert shaped(x, ()) is x and shaped(x, (6,)) is x
    images = shaped(x, (2, 3))
    assert shaped(images, (2, 3)) is images
    assert shaped(images, (3, 2)).shape == (4, 3, 2)
    assert shaped(x[:0], (2, 3)).shape == (0, 2, 3)


def test_what_does_not_fit_is_left_to_the_network():
    x = np.arange(24.0).reshape(4, 6)
    assert shaped(x, (2, 4)) is x
