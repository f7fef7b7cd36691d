"""CIFAR-10 from files made here: the original binary form, and JPEG images in an archive."""

import importlib
import io
import os
from pathlib import Path

import numpy as np
import pytest

from sifrc.data import load_dataset
from sifrc.errors import DataError

# the scaling as everybody has it, by colour
MEAN = np.array([0.4914, 0.4822, 0.4465])
DEVIATION = np.array([0.2470, 0.2435, 0.2616])
FOLDER = os.environ.get("SIFRC_DATA", "")
NAMES = [*(f"data_batch_{number}.bin" for number in range(1, 6)), "test_batch.bin"]


@pytest.fixture(autouse=True)
def no_folder_of_data_sets(monkeypatch):
    monkeypatch.delenv("SIFRC_DATA", raising=False)


def write_batches(folder, each=3):
    """Six files of the binary version, and what they hold."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(1)
    written = []
    for name in NAMES:
        classes = rng.integers(0, 10, each, dtype=np.uint8)
        pixels = rng.integers(0, 256, (each, 3072), dtype=np.uint8)
        content = b"".join(bytes([label]) + row.tobytes() for label, row in zip(classes, pixels, strict=True))
        (folder / name).write_bytes(content)
        written.append((pixels, classes))
    return written


def jpeg(colour, size=(32, 32), form="JPEG"):
    image = pytest.importorskip("PIL.Image").new("RGB", size, colour)
    stream = io.BytesIO()
    image.save(stream, form, **({"quality": 100, "subsampling": 0} if form == "JPEG" else {}))
    return stream.getvalue()


def write_archive(folder, **changes):
    """Images of one colour, (20 * class, 10 * number in its class, 100), in the order of their classes."""
    arrays = {}
    for part, each in (("train", 3), ("test", 1)):
        images = [jpeg((20 * label, 10 * k, 100)) for label in range(10) for k in range(each)]
        arrays[f"{part}_blob"] = np.frombuffer(b"".join(images), np.uint8)
        arrays[f"{part}_off"] = np.cumsum([0, *map(len, images)]).astype(np.uint32)
        arrays[f"{part}_y"] = np.repeat(np.arange(10), each).astype(np.uint8)
    arrays |= changes
    np.savez(folder / "cifar10_jpeg_12k.npz", **{k: v for k, v in arrays.items() if v is not None})
    return arrays


def pixels_of(inputs):
    """Bytes (N, 3, 1024) from scaled rows."""
    planes = inputs.reshape(len(inputs), 3, 1024)
    return (planes * DEVIATION[:, None] + MEAN[:, None]) * 255


def test_padding_is_black_in_every_colour(tmp_path):
    write_batches(tmp_path)
    plain = load_dataset("cifar10", path=tmp_path, dtype="float64")
    data = load_dataset("cifar10", path=tmp_path, dtype="float64", pad=1)
    assert data.image_shape == (34, 34)
    planes = data.train_inputs.reshape(15, 3, 34, 34)
    inside = planes[:, :, 1:33, 1:33]
    np.testing.assert_array_equal(inside.reshape(15, -1), plain.train_inputs)
    black = np.broadcast_to((-MEAN / DEVIATION)[:, None], (15, 3, 34))
    for edge in (planes[:, :, 0], planes[:, :, -1], planes[..., 0], planes[..., -1]):
        np.testing.assert_allclose(edge, black, rtol=1e-12)


@pytest.mark.parametrize("below", [".", "cifar-10-batches-bin", "cifar10"])
def test_binary_version_keeps_its_order(tmp_path, below):
    """Images, classes and entries of a row are in the order of the files."""
    written = write_batches(tmp_path / below)
    data = load_dataset("cifar10", path=tmp_path, dtype="float64")
    assert (data.name, data.classes, data.image_shape) == ("cifar10", 10, (32, 32))
    assert data.train_inputs.shape == (15, 3072) and data.test_inputs.shape == (3, 3072)
    pixels = np.concatenate([pixels for pixels, _ in written[:5]])
    np.testing.assert_allclose(pixels_of(data.train_inputs).reshape(15, -1), pixels, atol=1e-9)
    np.testing.assert_allclose(pixels_of(data.test_inputs).reshape(3, -1), written[5][0], atol=1e-9)
    assert data.train_targets.tolist() == [label for _, classes in written[:5] for label in classes]
    assert data.test_targets.tolist() == written[5][1].tolist()
    assert data.train_targets.dtype == np.int64
    assert data.train_inputs.flags.c_contiguous
    assert "test_batch.bin in the given folder" in data.source


def test_archive_of_jpeg_images(tmp_path):
    """Each image has its class, colours are planes, and the first ten rows hold every class."""
    write_archive(tmp_path)
    data = load_dataset("cifar10", path=tmp_path, dtype="float64")
    assert data.train_inputs.shape == (30, 3072)
    assert data.train_targets.tolist() == [*range(10)] * 3
    assert data.test_targets.tolist() == [*range(10)]
    rows = pixels_of(data.train_inputs)
    expected = np.array([(20 * label, 10 * (row // 10), 100) for row, label in enumerate(data.train_targets)])
    # JPEG rounds colours by a few levels, far less than the steps between the images.
    assert np.abs(rows - expected[:, :, None]).max() <= 3
    assert "cifar10_jpeg_12k.npz" in data.source and str(tmp_path) not in data.source
    first = load_dataset("cifar10", path=tmp_path, dtype="float64", train_count=11, test_count=2)
    assert (first.train_inputs == data.train_inputs[:11]).all()
    assert (first.test_inputs == data.test_inputs[:2]).all()
    assert load_dataset("cifar10", path=tmp_path).train_inputs.dtype == np.float32
    with pytest.raises(DataError, match="31 samples asked for, there are 30"):
        load_dataset("cifar10", path=tmp_path, train_count=31)


def test_rows_and_columns_of_an_image_are_not_exchanged(tmp_path):
    """A red upper half: the first 512 entries of the red plane are high, the others low."""
    library = pytest.importorskip("PIL.Image")
    image = library.new("RGB", (32, 32), (0, 0, 0))
    image.paste((255, 0, 0), (0, 0, 32, 16))
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=100, subsampling=0)
    content = np.frombuffer(stream.getvalue(), np.uint8)
    one = {"blob": content, "off": np.array([0, len(content)]), "y": np.array([4])}
    write_archive(
        tmp_path, **{f"{part}_{key}": value for part in ("train", "test") for key, value in one.items()}
    )
    red, green, blue = pixels_of(load_dataset("cifar10", path=tmp_path).train_inputs)[0]
    assert red[:512].min() > 240 and red[512:].max() < 15
    assert green.max() < 15 and blue.max() < 15


def test_the_original_comes_before_the_archive_and_the_variable_is_searched(tmp_path, monkeypatch):
    write_archive(tmp_path)
    monkeypatch.setenv("SIFRC_DATA", str(tmp_path))
    assert "JPEG images, in SIFRC_DATA" in load_dataset("cifar10").source
    write_batches(tmp_path / "cifar-10-batches-bin")
    assert "data_batch_5.bin" in load_dataset("cifar10").source


def test_without_files_the_error_says_what_would_do(tmp_path):
    with pytest.raises(DataError, match="SIFRC_DATA is not set") as caught:
        load_dataset("cifar10")
    for name in ("cifar-10-batches-bin", "test_batch.bin", "cifar10_jpeg_12k.npz", "digits"):
        assert name in str(caught.value)
    (tmp_path / "cifar-10-batches-py").mkdir()
    with pytest.raises(DataError, match="cifar-10-batches-py is there, but it is pickled"):
        load_dataset("cifar10", path=tmp_path)
    smaller = load_dataset("cifar10", path=tmp_path, fallback=True)
    assert smaller.name == "digits" and "in place of CIFAR-10" in smaller.source


@pytest.mark.parametrize("name", NAMES)
def test_a_part_of_the_binary_version_is_refused(tmp_path, name):
    write_batches(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(DataError, match=f"not complete, without {name}"):
        load_dataset("cifar10", path=tmp_path, fallback=True)


def test_damaged_binary_version(tmp_path):
    write_batches(tmp_path)
    whole = (tmp_path / NAMES[2]).read_bytes()
    for content, message in (
        (whole[:-1], r"data_batch_3\.bin has 9218 bytes"),
        (b"", "has 0 bytes"),
        (b"\x0a" + whole[1:], "a class is 10"),
    ):
        (tmp_path / NAMES[2]).write_bytes(content)
        with pytest.raises(DataError, match=message):
            load_dataset("cifar10", path=tmp_path)


def test_damaged_archive(tmp_path):
    good = write_archive(tmp_path)
    off, blob = good["train_off"], good["train_blob"]
    broken = blob.copy()
    broken[off[3] : off[4]] = 0
    wide, other = (
        np.frombuffer(jpeg((0, 0, 0), **kind), np.uint8) for kind in ({"size": (33, 32)}, {"form": "PNG"})
    )
    cases = {
        "has the arrays": {"test_off": None},
        "train image 3 cannot be decoded": {"train_blob": broken},
        "train image 0 cannot be decoded": {
            "train_blob": other,
            "train_off": np.array([0, len(other)]),
            "train_y": np.array([1]),
        },
        "train image 0 has 33x32 pixels": {
            "train_blob": wide,
            "train_off": np.array([0, len(wide)]),
            "train_y": np.array([1]),
        },
        "30 classes and 30 offsets": {"train_off": off[:-1]},
        "not increasing": {"train_off": off[::-1].copy()},
        "not increasing ": {"train_blob": blob[:-1]},
        "a class is 10": {"train_y": good["train_y"] + 1},
        "a class is -1": {"train_y": good["train_y"].astype(int) - 1},
        "train_y has shape": {"train_y": good["train_y"].astype(float)},
        "train_blob has shape": {"train_blob": blob.astype(np.uint16)},
    }
    for message, changes in cases.items():
        write_archive(tmp_path, **changes)
        with pytest.raises(DataError) as caught:
            load_dataset("cifar10", path=tmp_path)
        assert message.strip() in str(caught.value)


def test_without_pillow_the_error_names_both_ways_out(tmp_path, monkeypatch):
    write_archive(tmp_path)

    def refuse(name):
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", refuse)
    with pytest.raises(DataError, match="Pillow") as caught:
        load_dataset("cifar10", path=tmp_path)
    assert "sifrc[data]" in str(caught.value) and "binary version" in str(caught.value)


@pytest.mark.skipif(
    not (FOLDER and (Path(FOLDER) / "cifar10_jpeg_12k.npz").is_file()),
    reason="cifar10_jpeg_12k.npz is not in the folder that SIFRC_DATA names",
)
def test_real_archive():
    """Balanced, and nearly standardised: the sample is a fifth of the whole, recompressed."""
    pytest.importorskip("PIL.Image")
    data = load_dataset("cifar10", path=Path(FOLDER))
    assert data.train_inputs.shape == (10_000, 3072) and data.test_inputs.shape == (2_000, 3072)
    assert (np.bincount(data.train_targets) == 1000).all() and (np.bincount(data.test_targets) == 200).all()
    planes = data.train_inputs.reshape(-1, 3, 1024)
    np.testing.assert_allclose(planes.mean((0, 2)), 0, atol=0.02)
    np.testing.assert_allclose(planes.std((0, 2)), 1, atol=0.02)
