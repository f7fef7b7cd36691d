"""History, method state and plots on their way to disk and back."""

import math
import subprocess
import sys

import numpy as np
import pytest

from sifrc.errors import TrainingError
from sifrc.training import EpochMetrics, History
from sifrc.training.files import replacing
from sifrc.training.plots import comparison_plot, training_plot
from sifrc.training.state import decode_state, encode_state

HISTORY = History(
    "esn",
    (
        EpochMetrics(0, 0.0, math.nan, 2.3, 2.31, 0.1, 0.11),
        EpochMetrics(1, 0.1 + 0.2, 1.1, 1 / 3, 1e-300, 0.9, 0.85),
    ),
)


def test_csv_round_trip_keeps_every_bit(tmp_path):
    HISTORY.write_csv(tmp_path / "metrics.csv")
    again = History.read_csv(tmp_path / "metrics.csv", "esn")
    assert again.array().tobytes() == HISTORY.array().tobytes()
    assert History.from_array("esn", HISTORY.array()).array().tobytes() == HISTORY.array().tobytes()
    assert (tmp_path / "metrics.csv").read_text().splitlines()[1] == "0,0.0,,2.3,2.31,0.1,0.11"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text.replace("test_loss", "loss"), "not a metrics file"),
        (lambda text: text + "2,x,,1,1,1,1\n", "line 4"),
        (lambda text: text + "2,1.0\n", "line 4: 2 entries"),
        (lambda text: "", "not a metrics file"),
    ],
)
def test_csv_of_another_kind_is_refused(tmp_path, change, message):
    path = tmp_path / "metrics.csv"
    HISTORY.write_csv(path)
    path.write_text(change(path.read_text()))
    with pytest.raises(TrainingError, match=message):
        History.read_csv(path)


def test_history_says_what_it_lacks():
    with pytest.raises(TrainingError, match="is empty"):
        _ = History("none").last
    with pytest.raises(TrainingError, match="unknown measurement 'speed'"):
        HISTORY.column("speed")


STATES = {
    "numbers": {"step": 3, "decay": 0.1 + 0.2, "infinite": math.inf, "flag": True, "none": None, "name": "a"},
    "arrays": {
        "factor": np.eye(2, dtype=np.float32),
        "count": np.int32(4),
        "zero-dimensional": np.array(2.5),
    },
    "torch-like": {"state": {0: {"m": np.zeros(3)}, 1: {}}, "param_groups": [{"betas": (0.9, 0.999)}]},
    "empty": {},
}


@pytest.mark.parametrize("name", STATES)
def test_state_round_trip(name):
    def same(a, b):
        assert type(a) is type(b)
        if isinstance(a, dict):
            assert list(a) == list(b)
            for key in a:
                same(a[key], b[key])
        elif isinstance(a, list | tuple):
            assert len(a) == len(b)
            for x, y in zip(a, b, strict=True):
                same(x, y)
        elif isinstance(a, np.ndarray | np.generic):
            assert a.dtype == b.dtype
            assert a.shape == b.shape
            assert a.tobytes() == b.tobytes()
        else:
            assert a == b

    same(STATES[name], decode_state(*encode_state(STATES[name])))


@pytest.mark.parametrize("leaf", [{1, 2}, object(), lambda: 0, np.array([object()])])
def test_state_refuses_what_needs_pickle(leaf):
    with pytest.raises(TrainingError, match=r"state\['a'\]\[0\]"):
        encode_state({"a": [leaf]})


def test_replacing_leaves_the_old_file_when_writing_fails(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def write():
        with replacing(path) as file:
            file.write(b"half of the new")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write()
    assert path.read_bytes() == b"old"


def test_plots_are_drawn_and_reproducible(tmp_path):
    pytest.importorskip("matplotlib")
    for name in ("a.png", "b.png"):
        training_plot(HISTORY, tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    comparison_plot({"esn": HISTORY, "adam": HISTORY}, tmp_path / "c.png")
    assert (tmp_path / "c.png").read_bytes().startswith(b"\x89PNG")
    many = {f"run {k}": HISTORY for k in range(12)}
    comparison_plot(many, tmp_path / "e.png", styles={"run 3": {"color": "black", "ls": "--"}})
    comparison_plot(many, tmp_path / "f.png")
    assert (tmp_path / "e.png").read_bytes() != (tmp_path / "f.png").read_bytes()
    with pytest.raises(TrainingError, match="no run"):
        comparison_plot({}, tmp_path / "d.png")
    with pytest.raises(TrainingError, match="empty"):
        training_plot(History(), tmp_path / "g.png")


def test_package_imports_no_heavy_library():
    """The commands that do not train must not wait for torch, matplotlib, rich or scikit-learn."""
    code = (
        "import sys, sifrc.data, sifrc.training; "
        "print([m for m in ('torch', 'matplotlib', 'rich', 'sklearn', 'numba') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
