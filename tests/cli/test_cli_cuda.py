"""Commands with the backend cuda, on a machine without a device."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from simulated import process
from small_specs import tiny
from typer.testing import CliRunner

from sifrc.cli.main import app

CUDA = {"backend": "cuda", "operators": ["gradient"]}
WITHOUT = """
import sys
sys.modules.update(dict.fromkeys(("numba", "numba_cuda", "torch")))  # none can be imported
from sifrc.cli.main import main
main()
"""


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    """A small spec whose backend is cuda, and data that fit it."""
    rng = np.random.default_rng(7)
    inputs, labels = rng.standard_normal((6, 4)), np.arange(6) % 2
    np.savez(tmp_path / "two.npz", train_X=inputs, train_y=labels, test_X=inputs[:2], test_y=labels[:2])
    path = tmp_path / "net.yaml"
    path.write_text(json.dumps(tiny(target=CUDA)))
    return path


def test_a_module_is_written_without_what_runs_it(spec: Path, tmp_path: Path) -> None:
    """No device, no Numba, no Torch; what is asked for on the command line is what the spec asks for."""
    first = process("-c", WITHOUT, "compile", spec, "-o", "one", folder=tmp_path, simulated=False)
    assert first.returncode == 0 and f"wrote {Path('one/tiny_mk_cuda.py')}" in first.stdout, first.stderr
    spec.write_text(json.dumps(tiny()))
    arguments = ("compile", spec, "-o", "two", "--backend", "cuda")
    second = process("-c", WITHOUT, *arguments, folder=tmp_path, simulated=False)
    assert second.returncode == 0, second.stderr
    one, two = ((tmp_path / name / "tiny_mk_cuda.py").read_text() for name in ("one", "two"))
    assert one == two and "from numba import cuda" in one


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("spam=1", "backend 'cuda' has no option 'spam'"),
        ("block=7", "option 'block' of backend 'cuda' is 7"),
    ],
)
def test_wrong_options_are_refused(spec: Path, tmp_path: Path, option: str, message: str) -> None:
    """With their place, and without files."""
    out = tmp_path / "out"
    ran = CliRunner().invoke(app, ["compile", str(spec), "-o", str(out), "--option", f"backend.{option}"])
    assert ran.exit_code == 1 and ran.stderr.count("error:") == 1 and message in ran.stderr
    assert f"--option backend.{option}" in ran.stderr and not out.exists()


@pytest.mark.parametrize("command", ["check", "compile", "train"])
def test_a_dtype_that_it_does_not_have(spec: Path, tmp_path: Path, command: str) -> None:
    """Said before anything is looked for."""
    spec.write_text(json.dumps(tiny(target=CUDA, dtype="bfloat16")))
    more = {"check": [], "compile": ["-o", "out"], "train": ["--data", str(tmp_path / "two.npz")]}
    ran = CliRunner().invoke(app, [command, str(spec), *more[command]])
    assert ran.exit_code == 1 and ran.stderr.count("error:") == 1, ran.stderr
    assert "bfloat16" in ran.stderr and "float32 float64" in ran.stderr and not Path("out").exists()


def test_training_without_a_device_is_one_error(spec: Path, tmp_path: Path) -> None:
    """What is missing, what to install, and the way to the simulator."""
    ran = process("-m", "sifrc", "train", spec, "--data", "two.npz", folder=tmp_path, simulated=False)
    assert ran.returncode == 1 and ran.stderr.count("error:") == 1 and "Traceback" not in ran.stderr
    assert "training a CUDA module needs a CUDA device, and none was found" in ran.stderr
    assert 'pip install "sifrc[cuda]"' in ran.stderr and "NUMBA_ENABLE_CUDASIM=1" in ran.stderr


def test_verify_takes_the_simulator_by_itself(spec: Path, tmp_path: Path) -> None:
    """It says so, on the error stream and in the table."""
    ran = process("-m", "sifrc", "verify", spec, "--levels", "3", folder=tmp_path, simulated=False)
    assert ran.returncode == 0 and "tiny: passed" in ran.stdout, ran.stderr
    assert ran.stderr.count("warning:") == 1 and "runs in Numba's simulator and on no CUDA" in ran.stderr
    assert "cuda in Numba's simulator, float64, batch 3" in ran.stdout


def test_train_takes_the_simulator_where_it_is_asked_for(spec: Path, tmp_path: Path) -> None:
    """And says so once."""
    arguments = ("train", spec, "--data", "two.npz", "--epochs", 1, "--batch", 3, "-o", "run")
    ran = process("-m", "sifrc", *arguments, folder=tmp_path, simulated=True)
    assert ran.returncode == 0 and "test accuracy" in ran.stdout, ran.stderr
    assert ran.stderr.count("warning:") == 1 and "runs in Numba's simulator and on no CUDA" in ran.stderr
    assert (tmp_path / "run/checkpoint.npz").is_file()
