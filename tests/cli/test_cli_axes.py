"""The commands on networks whose input has several axes."""

from pathlib import Path

import numpy as np
import pytest
import yaml
from small_specs import tiny
from typer.testing import CliRunner

from sifrc.cli.main import app

pytestmark = pytest.mark.usefixtures("no_pictures")


def images(size, **changes):
    """Dense over the rows of an image, flatten, dense; a method that any network has."""
    layers = [
        {"name": "fc1", "type": "dense", "units": 5, "activation": "tanh"},
        {"name": "both", "type": "add", "inputs": ["fc1", "image"]} if size[-1] == 5 else None,
        {"name": "flat", "type": "flatten"},
        {"name": "fc2", "type": "dense", "units": 2},
    ]
    content = tiny(method={"name": "grouped_newton"}, **changes)
    content["network"] = {"input": {"name": "image", "size": size}, "layers": [x for x in layers if x]}
    return content


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs a command on a spec, in an empty folder, with a cache of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SIFRC_CACHE", str(tmp_path / "cache"))

    def run(command, content, *arguments):
        path = tmp_path / "spec.yaml"
        path.write_text(yaml.safe_dump(content))
        return CliRunner().invoke(app, [command, str(path), *(str(a) for a in arguments)])

    return run


@pytest.fixture
def archive(tmp_path):
    """Two classes of images of 2 x 3 pixels."""
    rng = np.random.default_rng(7)
    labels = rng.integers(0, 2, 300)
    x = 0.5 * rng.standard_normal((300, 2, 3)) + np.where(labels, 1.0, -1.0)[:, None, None]
    path = tmp_path / "two.npz"
    np.savez(path, train_X=x[:240], train_y=labels[:240], test_X=x[240:], test_y=labels[240:])
    return path


def test_check_shows_the_axes_of_states(run):
    """3·5 + 5 and 20·2 + 2 parameters, counted by hand; flatten has none."""
    result = run("check", images([2, 2, 3]))
    assert result.exit_code == 0, result.output
    rows = [line.split() for line in result.stdout.splitlines() if line.startswith(("x1", "x2", "x3"))]
    assert rows == [
        ["x1", "fc1", "image", "2", "x", "2", "x", "5", "tanh", "20", "0.001"],
        ["x2", "flat", "fc1", "20", "0.001"],
        ["x3", "fc2", "flat", "2", "42"],
    ]
    assert "3 layers, 3 states, 62 parameters" in result.stdout


def test_check_tries_operators_on_several_axes(run):
    """Products always exist; what does not has a reason."""
    result = run("check", images([2, 5]))
    assert result.exit_code == 0, result.output
    lines = [line for line in result.stdout.splitlines() if line.startswith(("operator", "method"))]
    rows = {line.split()[1]: line.split()[2:] for line in lines}
    for name in ("gradient", "hessian_vector_product", "gauss_newton_vector_product", "grouped_newton"):
        assert rows[name][0] == "yes", name
    assert all(len(row) > 2 for row in rows.values() if row[0] == "no")


def test_check_of_a_deep_network_with_axes(run):
    content = images([3, 4], target={"backend": "torch", "operators": ["hessian_vector_product"]})
    first, *last = content["network"]["layers"]
    middle = [{**first, "name": f"fc1_{k}"} for k in range(200)]
    content["network"]["layers"] = [*middle, *last]
    result = run("check", content)
    assert result.exit_code == 0, result.output
    assert "202 layers, 202 states" in result.stdout and " more like these" in result.stdout
    rows = [line for line in result.stdout.splitlines() if line.startswith("x")]
    assert "3 x 5" in rows[0] and len(rows) < 20


@pytest.mark.parametrize("backend", ["torch", "numba"])
def test_train_takes_images_of_an_archive(run, archive, backend, monkeypatch):
    # Numba's compiler takes longer than the test.
    monkeypatch.setattr(pytest.importorskip("numba").config, "DISABLE_JIT", True)
    short = ("--epochs", 1, "--batch", 60, "--backend", backend)
    result = run("train", images([2, 3]), "--data", archive, *short)
    assert result.exit_code == 0, result.output
    assert "test accuracy" in result.stdout and Path("runs/tiny/checkpoint.npz").is_file()
    assert "in place of" not in result.stderr


def test_train_on_digits_as_images(run):
    """``size: [8, 8]``, dense, flatten, dense on the data set that comes with scikit-learn."""
    pytest.importorskip("sklearn")
    content = images([8, 8], training={"data": "digits", "epochs": 1, "batch": 200})
    content["network"]["layers"][-1]["units"] = 10
    result = run("train", content)
    assert result.exit_code == 0, result.output
    assert "1 epoch in" in result.stdout


def test_train_says_what_does_not_fit(run, archive):
    result = run("train", images([2, 4]), "--data", archive)
    assert result.exit_code == 1
    assert "the network takes 2 x 4 inputs, the data set 'two' has 6" in result.stderr
    assert "sizes of product 6" in result.stderr


def test_a_fallback_is_noted_for_one_axis_and_refused_for_several(run, monkeypatch, tmp_path):
    pytest.importorskip("sklearn")
    monkeypatch.delenv("SIFRC_DATA", raising=False)
    content = images([28, 28], training={"data": "mnist", "epochs": 1, "batch": 200})
    content["network"]["layers"][-1]["units"] = 10
    result = run("train", content, "--data", tmp_path, "--fallback")
    assert result.exit_code == 1
    assert "the network takes 28 x 28 inputs, the data set 'digits' has 64" in result.stderr
    content["network"]["input"]["size"] = 784
    result = run("train", content, "--data", tmp_path, "--fallback")
    assert result.exit_code == 0, result.output
    assert "note: the network input has 64 entries in place of 784" in result.stderr


def test_a_wrong_size_is_a_diagnostic(run):
    for size, message in (([2, 0], "too small: the number 0"), ([], "is a number without axes")):
        content = images([2, 3])
        content["network"]["input"]["size"] = size
        result = run("check", content)
        assert result.exit_code == 1 and message in result.stderr and "^" in result.stderr
