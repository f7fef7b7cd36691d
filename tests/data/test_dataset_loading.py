"""Data sets by name, from files made here, and the errors that say what would do."""

import gzip
import hashlib
import os
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from sifrc.data import DATASET_NAMES, check_fits, load_dataset
from sifrc.data.files import read_idx
from sifrc.errors import DataError

FASHION = Path("/usr/share/datasets/fashion-mnist")


@pytest.fixture(autouse=True)
def no_folder_of_data_sets(monkeypatch):
    monkeypatch.delenv("SIFRC_DATA", raising=False)


def images(count, seed):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, 28, 28), dtype=np.uint8), rng.integers(0, 10, count, dtype=np.uint8)


def idx_bytes(array):
    """The format as its description has it: 0, 0, 8 for bytes, number of axes, sizes, values."""
    sizes = b"".join(struct.pack(">I", size) for size in array.shape)
    return bytes([0, 0, 8, array.ndim]) + sizes + array.tobytes()


def write_npz(folder, name="mnist"):
    for part, count, seed in (("train", 30, 1), ("test", 20, 2)):
        x, y = images(count, seed)
        np.savez(folder / f"{name}_{part}.npz", X=x, y=y)
    return folder


def write_idx(folder, compressed=True):
    for part, count, seed in (("train", 30, 1), ("t10k", 20, 2)):
        for what, array in zip(("images-idx3", "labels-idx1"), images(count, seed), strict=True):
            content = idx_bytes(array)
            name = f"{part}-{what}-ubyte"
            if compressed:
                (folder / f"{name}.gz").write_bytes(gzip.compress(content))
            else:
                (folder / name).write_bytes(content)
    return folder


def test_digits_are_split_by_class_and_standardised():
    sklearn = pytest.importorskip("sklearn.datasets")
    data = load_dataset("digits", dtype="float64")
    bunch = sklearn.load_digits()
    assert data.train_inputs.shape == (1437, 64)
    assert data.test_inputs.shape == (360, 64)
    for targets, share in ((data.train_targets, 1437 / 1797), (data.test_targets, 360 / 1797)):
        counts = np.bincount(targets, minlength=10)
        assert (np.abs(counts - np.bincount(bunch.target) * share) < 1).all()
    remainder = np.bincount(bunch.target) * 360 / 1797 % 1
    rounded_up = np.bincount(data.test_targets) > np.bincount(bunch.target) * 360 / 1797
    assert remainder[rounded_up].min() >= remainder[~rounded_up].max()
    assert data.train_inputs.mean() == pytest.approx(0, abs=1e-12)
    assert data.train_inputs.std() == pytest.approx(1, abs=1e-12)
    # Every sample is there once, with its own label: undo the scaling and look it up.
    low, high = data.train_inputs.min(), data.train_inputs.max()
    everything = np.rint((np.vstack([data.train_inputs, data.test_inputs]) - low) / (high - low) * 16)
    labels = np.concatenate([data.train_targets, data.test_targets])
    ours = sorted((*row, label) for row, label in zip(everything.tolist(), labels.tolist(), strict=True))
    theirs = sorted((*r, t) for r, t in zip(bunch.data.tolist(), bunch.target.tolist(), strict=True))
    assert ours == theirs


def test_seed_decides_the_split():
    assert load_dataset("digits").fingerprint == load_dataset("digits", seed=0).fingerprint
    assert load_dataset("digits").fingerprint != load_dataset("digits", seed=1).fingerprint


@pytest.mark.parametrize("form", ["npz", "idx", "idx.gz"])
def test_image_files_give_scaled_rows(tmp_path, form):
    if form == "npz":
        write_npz(tmp_path)
    else:
        write_idx(tmp_path, form == "idx.gz")
    data = load_dataset("mnist", path=tmp_path, dtype="float64")
    (train_x, train_y), (test_x, test_y) = images(30, 1), images(20, 2)
    np.testing.assert_allclose(data.train_inputs, (train_x.reshape(30, 784) / 255 - 0.1307) / 0.3081)
    np.testing.assert_allclose(data.test_inputs, (test_x.reshape(20, 784) / 255 - 0.1307) / 0.3081)
    assert data.train_targets.dtype == np.int64
    assert (data.train_targets == train_y).all()
    assert (data.test_targets == test_y).all()
    assert (data.classes, data.image_shape) == (10, (28, 28))
    assert str(tmp_path) not in data.describe()
    assert ("mnist_train.npz" if form == "npz" else "train-images-idx3-ubyte") in data.source


def test_folder_from_the_environment(tmp_path, monkeypatch):
    """Both image sets side by side, each in a folder of its own; a given path comes first."""
    for name in ("mnist", "fashion-mnist"):
        (tmp_path / name).mkdir()
    write_idx(tmp_path / "mnist")
    write_npz(tmp_path / "fashion-mnist", "fashion_mnist")
    monkeypatch.setenv("SIFRC_DATA", str(tmp_path))
    mnist, fashion = load_dataset("mnist"), load_dataset("fashion_mnist")
    assert "SIFRC_DATA" in mnist.source
    np.testing.assert_allclose(
        fashion.train_inputs * 0.3530 + 0.2860, mnist.train_inputs * 0.3081 + 0.1307, atol=1e-6
    )
    with pytest.raises(DataError, match="not in the given folder"):
        load_dataset("mnist", path=tmp_path / "fashion-mnist")


def test_missing_files_are_an_error_unless_a_fallback_is_allowed(tmp_path, monkeypatch):
    with pytest.raises(DataError, match="SIFRC_DATA is not set") as caught:
        load_dataset("mnist")
    assert "mnist_train.npz" in str(caught.value)
    assert "digits" in str(caught.value)
    with pytest.raises(DataError, match="does not exist"):
        load_dataset("mnist", path=tmp_path / "nowhere")
    monkeypatch.setenv("SIFRC_DATA", str(tmp_path))
    with pytest.raises(DataError, match="folder that SIFRC_DATA names"):
        load_dataset("mnist")
    data = load_dataset("mnist", fallback=True, train_count=5000)
    assert data.name == "digits"
    assert "in place of MNIST" in data.source
    assert data.train_inputs.shape == (1437, 64)


def test_fallback_does_not_hide_damaged_files(tmp_path):
    write_npz(tmp_path)
    (tmp_path / "mnist_train.npz").write_bytes(b"not an archive")
    with pytest.raises(DataError, match=r"cannot read mnist_train\.npz"):
        load_dataset("mnist", path=tmp_path, fallback=True)


def test_one_set_is_not_taken_for_the_other(tmp_path):
    """The idx files have the same names; here 60,000 images as bright as Fashion-MNIST."""
    write_npz(tmp_path)
    x = np.full((60_000, 28, 28), 73, np.uint8)
    np.savez(tmp_path / "mnist_train.npz", X=x, y=np.zeros(60_000, np.uint8))
    with pytest.raises(DataError, match=r"this is not MNIST.*0\.2863"):
        load_dataset("mnist", path=tmp_path)


@pytest.mark.skipif(not FASHION.is_dir(), reason="the Debian package dataset-fashion-mnist is not installed")
def test_fashion_mnist_of_the_debian_package():
    data = load_dataset("fashion_mnist")
    assert data.train_inputs.shape == (60_000, 784)
    assert data.train_inputs.mean() == pytest.approx(0, abs=1e-3)
    assert data.train_inputs.std() == pytest.approx(1, abs=1e-3)
    assert "Debian" in data.source


BAD_IDX = {
    "is not an idx file": b"\x1f\x8b\0\0\0\0\0\0",
    "ends inside its header": b"\0\0\x08\x03\0\0",
    "4 bytes, but 3 follow": b"\0\0\x08\x01\0\0\0\x04abc",
    "2 bytes, but 3 follow": b"\0\0\x08\x01\0\0\0\x02abc",
}


@pytest.mark.parametrize("message", BAD_IDX)
def test_damaged_idx(tmp_path, message):
    (tmp_path / "a").write_bytes(BAD_IDX[message])
    with pytest.raises(DataError, match=message):
        read_idx(tmp_path / "a")
    (tmp_path / "a.gz").write_bytes(gzip.compress(BAD_IDX[message]))
    with pytest.raises(DataError, match=message):
        read_idx(tmp_path / "a.gz")


def test_damaged_gzip_and_big_endian_numbers(tmp_path):
    (tmp_path / "a.gz").write_bytes(gzip.compress(idx_bytes(np.zeros(9, np.uint8)))[:-9])
    with pytest.raises(DataError, match=r"cannot read a\.gz"):
        read_idx(tmp_path / "a.gz")
    (tmp_path / "b").write_bytes(b"\0\0\x0d\x01\0\0\0\x02" + struct.pack(">2f", 1.5, -2.0))
    assert read_idx(tmp_path / "b").tolist() == [1.5, -2.0]


def test_curves_are_generated_from_the_seed():
    data = load_dataset("curves", train_count=40, test_count=30, seed=5)
    assert data.train_inputs.shape == (40, 784)
    assert data.test_inputs.shape == (30, 784)
    assert (data.train_targets == data.train_inputs).all()
    assert (data.classes, data.image_shape) == (None, (28, 28))
    longer = load_dataset("curves", train_count=60, test_count=30, seed=5)
    assert (longer.train_inputs[:40] == data.train_inputs).all()
    assert not (data.test_inputs == data.train_inputs[:30]).all(axis=1).any()
    assert data.fingerprint != load_dataset("curves", train_count=40, test_count=30, seed=6).fingerprint


def test_generated_and_split_data_do_not_depend_on_the_process():
    """The same digest in a fresh process with another hash seed."""
    code = (
        "from sifrc.data import load_dataset; "
        "print(load_dataset('curves', train_count=9, test_count=9).fingerprint)"
    )
    prints = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for seed in ("1", "2")
    }
    assert prints == {load_dataset("curves", train_count=9, test_count=9).fingerprint}


def test_fingerprint_is_that_of_the_arrays():
    data = load_dataset("curves", train_count=3, test_count=2)
    digest = hashlib.sha256()
    for array in (data.train_inputs, data.train_targets, data.test_inputs, data.test_targets):
        digest.update(f"<f4{array.shape}".encode() + array.tobytes())
    assert data.fingerprint == digest.hexdigest()


OWN = {
    "train_X": np.arange(12.0).reshape(4, 3),
    "train_y": np.array([0, 1, 2, 1]),
    "test_X": np.ones((2, 3)),
    "test_y": np.array([2, 0]),
}


def own(folder, **changes):
    arrays = {k: v for k, v in {**OWN, **changes}.items() if v is not None}
    np.savez(folder / "own.npz", **arrays)
    return load_dataset("own.npz", path=folder, dtype="float64")


def test_own_archive(tmp_path):
    data = own(tmp_path)
    assert (data.name, data.classes, data.image_shape, data.source) == ("own", 3, None, "own.npz")
    assert (data.train_inputs == OWN["train_X"]).all()
    assert load_dataset(str(tmp_path / "own.npz"), dtype="float64").fingerprint == data.fingerprint
    assert own(tmp_path, classes=np.array(5)).classes == 5
    vectors = own(tmp_path, train_y=np.ones((4, 2)), test_y=np.zeros((2, 2)))
    assert (vectors.classes, vectors.target_kind, vectors.target_size) == (None, "vectors", 2)
    auto = own(tmp_path, train_y=None, test_y=None)
    assert (auto.test_targets == auto.test_inputs).all()
    bytes_ = own(tmp_path, train_X=np.full((4, 3, 2), 51, np.uint8), test_X=np.zeros((2, 3, 2), np.uint8))
    assert bytes_.image_shape == (3, 2)
    np.testing.assert_allclose(bytes_.train_inputs, np.full((4, 6), 0.2))


BAD_OWN = {
    "has the arrays": {"test_y": None},
    "has the arrays ": {"extra": np.zeros(1)},
    "labels from -1": {"test_y": np.array([0, -1])},
    "labels from 0 to 3": {"classes": np.array(3), "test_y": np.array([0, 3])},
    "train_X has entries that are not finite": {"train_X": np.full((4, 3), np.nan)},
    r"train_y has shape \(4, 2, 1\)": {"train_y": np.ones((4, 2, 1))},
    "4 training inputs but 3 targets": {"train_y": np.array([0, 1, 2])},
    "training inputs have 3 entries, test inputs 4": {"test_X": np.ones((2, 4))},
    r"train_X has shape \(4,\)": {"train_X": np.ones(4)},
    "a training target has shape": {"test_y": np.ones((2, 3))},
    "cannot read own.npz": {"train_X": np.array([[object()]])},
}


@pytest.mark.parametrize("message", BAD_OWN)
def test_own_archive_that_does_not_fit(tmp_path, message):
    with pytest.raises(DataError, match=message):
        own(tmp_path, **BAD_OWN[message])


def test_one_hot():
    data, plain = load_dataset("digits", one_hot=True, dtype="float64"), load_dataset("digits")
    assert data.train_targets.shape == (1437, 10)
    assert data.train_targets.dtype == np.float64
    assert (data.train_targets.sum(axis=1) == 1).all()
    assert (data.train_targets.argmax(axis=1) == plain.train_targets).all()
    assert data.classes == 10
    with pytest.raises(DataError, match="no classes"):
        load_dataset("curves", train_count=2, test_count=2, one_hot=True)


def test_counts_and_dtypes():
    data = load_dataset("digits", train_count=50, test_count=7)
    whole = load_dataset("digits", dtype="bfloat16")
    assert (data.train_inputs == whole.train_inputs[:50]).all()
    assert len(data.test_targets) == 7
    assert whole.train_inputs.dtype == np.float32
    assert data.train_inputs.flags.c_contiguous
    for arguments, message in (
        ({"train_count": 1438}, "1438 samples asked for, there are 1437"),
        ({"test_count": 0}, "0 test samples"),
        ({"dtype": "int8"}, "unknown dtype 'int8'"),
        ({"seed": -1}, "seed"),
    ):
        with pytest.raises(DataError, match=message):
            load_dataset("digits", **arguments)


def border_and_inside(inputs, side, pad):
    """Entries of the frame, plane by plane (N, planes, n), and the rows of the images inside it."""
    planes = inputs.reshape(len(inputs), -1, side + 2 * pad, side + 2 * pad)
    inside = np.zeros(planes.shape[2:], bool)
    inside[pad : side + pad, pad : side + pad] = True
    return planes[:, :, ~inside], planes[:, :, inside].reshape(len(inputs), -1)


def test_padding_puts_the_background_around_images(tmp_path):
    """The frame is what a pixel 0 becomes, and what is inside it the image without padding."""
    write_npz(tmp_path)
    curves = {"train_count": 3, "test_count": 2}
    for name, side, background, options in (
        ("mnist", 28, (0 - 0.1307) / 0.3081, {"path": tmp_path}),
        ("digits", 8, load_dataset("digits", dtype="float64").train_inputs.min(), {}),
        ("curves", 28, 0.0, curves),
    ):
        plain = load_dataset(name, dtype="float64", **options)
        wide = load_dataset(name, dtype="float64", pad=2, **options)
        assert wide.image_shape == (side + 4, side + 4)
        for part in ("train_inputs", "test_inputs"):
            border, inside = border_and_inside(getattr(wide, part), side, 2)
            np.testing.assert_allclose(border, background, rtol=1e-12)
            np.testing.assert_array_equal(inside, getattr(plain, part))
            assert getattr(wide, part).flags.c_contiguous
        assert (name == "curves") == (wide.train_targets is wide.train_inputs)


def test_padding_that_cannot_be(tmp_path):
    with pytest.raises(DataError, match="-1 pixels"):
        load_dataset("digits", pad=-1)
    with pytest.raises(DataError, match="taken as they are"):
        load_dataset("own.npz", path=tmp_path, pad=1)


def test_unknown_name_lists_the_known_ones():
    assert DATASET_NAMES == ("cifar10", "curves", "digits", "fashion_mnist", "mnist")
    with pytest.raises(DataError, match="unknown data set 'imagenet'") as caught:
        load_dataset("imagenet")
    assert all(name in str(caught.value) for name in DATASET_NAMES)
    with pytest.raises(DataError, match=r"no data file nothing\.npz"):
        load_dataset("nothing.npz")


def test_fit_of_data_and_network():
    digits = load_dataset("digits")
    curves = load_dataset("curves", train_count=2, test_count=2)
    check_fits(digits, 64, 10, "classes")
    check_fits(load_dataset("digits", one_hot=True), 64, 10, "vectors")
    check_fits(curves, 784, 784, "vectors")
    for data, sizes, kind, message in (
        (digits, (784, 10), "classes", "takes 784 inputs, the data set 'digits' has 64"),
        (digits, (64, 9), "classes", "has 9 outputs, the data set 'digits' has 10 classes"),
        (digits, (64, 10), "vectors", "one_hot: true"),
        (curves, (784, 10), "vectors", "has 10 outputs, the data set 'curves' has 784 entries"),
        (curves, (784, 784), "classes", "target vectors of 784"),
        (digits, (64, 10), "labels", "unknown kind"),
    ):
        with pytest.raises(DataError) as caught:
            check_fits(data, *sizes, kind)
        assert message in str(caught.value)
