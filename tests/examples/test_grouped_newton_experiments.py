"""The experiments of the grouped Newton paper: the search, the measures, and small runs on digits."""

import argparse
import csv
import importlib
import itertools
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("sklearn")


import sifrc  # noqa: E402
from sifrc.training import Summary, SummaryLog  # noqa: E402

FOLDER = Path(__file__).resolve().parents[2] / "examples"
MODULES = ("grouped_newton", "grouped_newton_measures", "train_curvature", "compare", "layer_errors")
SPECS = {
    # file -> groups, parameters: the weights and biases of the paper's networks counted by hand
    "mnist_grouped.yaml": (6, 1024 * 200 + 200 * 100 + 100 * 10 + 310),
    "cifar_bigmlp.yaml": (42, 3072 * 1024 + 19 * 1024**2 + 20 * 1024 + 1024 * 10 + 10),
    "cifar_vbigmlp.yaml": (10, 3072 * 1024 + 98 * 1024**2 + 99 * 1024 + 1024 * 10 + 10),
    "cifar_nine_layers.yaml": (18, 3072 * 64 + 7 * 64**2 + 8 * 64 + 64 * 10 + 10),
}


@pytest.fixture(scope="module")
def example():
    """The script with its folder on the path, as ``python examples/grouped_newton.py`` has it."""
    sys.path.insert(0, str(FOLDER))
    try:
        yield importlib.import_module("grouped_newton")
    finally:
        sys.path.remove(str(FOLDER))
        for name in MODULES:
            sys.modules.pop(name, None)


@pytest.fixture(autouse=True)
def one_thread():
    """The script sets the number of threads."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def small_spec(folder, layers=3, units=12, activation="tanh", **changes):
    """A file with a chain for digits in the settings of the examples."""
    content = {
        "sifrc": 1,
        "name": "small",
        "network": {
            "input": {"size": 64},
            "layers": [
                *({"type": "dense", "units": units, "activation": activation} for _ in range(layers)),
                {"type": "dense", "units": 10},
            ],
        },
        "loss": "cross_entropy",
        "init": "glorot",
        "training": {"data": "digits", "batch": 50, "curvature_batch": 200, "plateau": {"patience": 5}},
        "method": {"name": "grouped_newton"},
        "target": {"backend": "torch"},
    } | changes
    file = folder / "small.yaml"
    file.write_text(json.dumps(content), encoding="utf-8")
    return file


def run(example, folder, experiment, *more, **spec):
    file = small_spec(folder, **spec)
    settings = f"--spec {file} --train-count 300 --epochs 2 --search-epochs 1 -o {folder / 'out'}"
    example.main([experiment, *settings.split(), *more])
    with (folder / "out" / f"{experiment}.csv").open(encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert (folder / "out" / f"{experiment}.png").stat().st_size > 1000
    return rows


def losses_of(rows):
    """Method -> training losses by epoch."""
    found = {}
    for row in rows:
        found.setdefault(row["method"], []).append(float(row["train_loss"]))
    return found


@pytest.mark.parametrize("file", SPECS)
def test_specs_are_the_networks_of_the_paper(file):
    from sifrc.model.partition import partition_of

    spec = sifrc.load_spec(FOLDER / file)
    groups, parameters = SPECS[file]
    assert len(partition_of(spec).names) == groups
    sizes = (spec.input.size, *(layer.size for layer in spec.layers if layer.kind == "dense"))
    assert sum((before + 1) * after for before, after in itertools.pairwise(sizes)) == parameters
    assert spec.training.curvature_batch == 1000 and spec.training.batch == 100


@pytest.mark.parametrize("count", range(1, 10))
def test_every_rival_gets_as_many_rates(example, count):
    rates = example.decades(-3.5, count)
    assert len(rates) == count and rates == sorted(set(rates))
    assert all(re.fullmatch(r"[13]e-0\d", f"{rate:.0e}") for rate in rates)
    assert rates[(count - 1) // 2] == 3e-4


def test_methods_have_equal_searches_and_starts(example, tmp_path, capsys):
    rows = run(example, tmp_path, "methods", "--steps", "0.1,0.3", "--dampings", "3,10", layers=1)
    shown = capsys.readouterr().out
    losses = losses_of(rows)
    assert list(losses) == ["grouped Newton", "Adam", "SGD, momentum 0.9"]
    for name, values in losses.items():
        assert len(re.findall(rf"^  {name} .*train loss", shown, re.M)) == 4
        assert len(values) == 3 and values[-1] < values[0] == losses["Adam"][0]
    assert all((row["internal_damping"] == "") == (row["method"] != "grouped Newton") for row in rows)
    folder = tmp_path / "out" / "grouped_Newton"
    assert len(SummaryLog.load(folder / "summaries.npz")) == 2  # 12 steps, one summary in ten
    assert (folder / "interactions.png").is_file() and (folder / "rates.png").is_file()


def test_narrow_networks_and_the_share_between_distant_chunks(example, tmp_path, capsys):
    partition = {"partition": "chunks-3"}
    rows = run(
        example,
        tmp_path,
        "very-deep",
        "--width",
        "8",
        "--steps",
        "0.1",
        "--dampings",
        "10",
        layers=5,
        **partition,
    )
    shown = capsys.readouterr().out
    assert "64-8-8-8-8-8-10" in shown and len(losses_of(rows)) == 3
    log = SummaryLog.load(tmp_path / "out" / "grouped_Newton" / "summaries.npz")
    matrix = np.abs(log.summary_h[0])
    # groups: weights and biases of chunk 1, 2, 3; only 1 and 3 are no neighbours
    expected = 2 * matrix[:2, 4:].sum() / matrix.sum()
    first = re.search(r"first summary +H̄ +([\d.]+) %", shown)
    assert float(first[1]) == pytest.approx(100 * expected, abs=0.005)


def test_distant_shares_of_known_matrices(example):
    """Ones everywhere: 12 of 25 pairs of 5 chunks are no neighbours. A tridiagonal matrix has none."""
    from grouped_newton_measures import distant_median, distant_shares

    names = [f"{kind}{k}" for k in range(5) for kind in "wb"]
    groups = {name: (f"fc{name[1]}.{'weight' if name[0] == 'w' else 'bias'}",) for name in names}
    log, one = SummaryLog(groups), np.ones(10)
    near = np.abs(np.subtract.outer(np.arange(10) // 2, np.arange(10) // 2)) <= 1
    for step, matrix in enumerate((np.ones((10, 10)), near * 1.0, np.eye(10))):
        log.append(Summary(groups, one, matrix, None, one, one, 0.1), step=step, epoch=step / 2)
    assert distant_shares(log, [0]) == pytest.approx([12 / 25] * 4)
    assert distant_shares(log, [1])[0] == 0.0
    assert distant_shares(log, [0, 1])[0] == pytest.approx(6 / 25)
    assert distant_shares(log, [2], inverse=True)[0] == 0.0
    assert distant_median(log, [0]) == 1.0 and distant_median(log, [1]) == 0.0


def test_the_median_between_distant_chunks_has_no_scale(example):
    """Of h_s h_t c_st the distant entries are |c_st|, whatever h, also where the diagonal is negative."""
    from grouped_newton_measures import distant_median

    rng = np.random.default_rng(3)
    groups = {f"{kind}{k}": (f"fc{k}.{kind}",) for k in range(3) for kind in ("weight", "bias")}
    signs, scales = np.diag([1.0, -1, 1, 1, -1, 1]), rng.uniform(0.01, 100, 6)
    near = np.abs(np.subtract.outer(np.arange(6) // 2, np.arange(6) // 2)) <= 1
    matrix = np.where(near, 0.9 * (1 - np.eye(6)), [[0.2]]) + signs
    log, one = SummaryLog(groups), np.ones(6)
    log.append(
        Summary(groups, one, scales[:, None] * matrix * scales, None, one, one, 0.1), step=0, epoch=0.0
    )
    assert distant_median(log, [0]) == pytest.approx(0.2)


@pytest.mark.slow
def test_partitions_and_their_costs(example, tmp_path, capsys):
    """Blocks of four need four layers before the last; the trivial partition has one group."""
    rows = run(example, tmp_path, "partitions", "--steps", "0.1", "--dampings", "10", layers=4)
    losses = losses_of(rows)
    assert tuple(losses) == example.PARTITIONS
    assert len({values[0] for values in losses.values()}) == 1
    assert len({values[-1] for values in losses.values()}) > 2
    groups = re.findall(r"^  (\S+) +(\d+) groups, first step +([\d.]+) s", capsys.readouterr().out, re.M)
    expected = {"trivial": 1, "weights-biases": 2, "blocks-2": 6, "alternate-2": 6}
    expected |= {"blocks-4": 10, "alternate-4": 10, "canonical": 10}
    assert {name: int(count) for name, count, _ in groups} == expected
    assert all(float(seconds) > 0 for _, _, seconds in groups)


def test_diagonal_runs_every_setting_in_full(example, tmp_path, capsys):
    """Ends with the curve up to there where a run breaks off: a step size that is no good for anything."""
    rows = run(example, tmp_path, "diagonal", "--steps", "0.1,1e38", "--dampings", "10", layers=1)
    losses = losses_of(rows)
    assert list(losses) == [f"{kind} H̄, {lr}, 10" for kind in ("full", "diagonal") for lr in ("0.1", "1e+38")]
    assert len({values[0] for values in losses.values()}) == 1
    assert losses["full H̄, 0.1, 10"][-1] != losses["diagonal H̄, 0.1, 10"][-1]
    assert len(losses["full H̄, 0.1, 10"]) == len(losses["diagonal H̄, 0.1, 10"]) == 3
    assert "training stopped" in capsys.readouterr().out


@pytest.mark.slow
def test_cost_in_full_width(example, tmp_path, capsys):
    file = small_spec(tmp_path)
    example.main(["cost", "--spec", str(file), "--train-count", "500", "--width", "6"])
    shown = capsys.readouterr().out
    assert re.search(r"grouped Newton +8 groups", shown) and re.search(r"Adam +0 groups", shown)


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="only Linux counts memory so")
def test_memory_is_the_peak_since_then(example):
    """Of 64 MB that come and go the peak tells, and not of those before."""
    from grouped_newton_measures import Memory

    earlier = np.ones(2**25)
    del earlier
    memory = Memory()
    assert memory.peak() < 8
    for _ in range(2):
        array = np.ones(2**23)
        del array
    assert 60 < memory.peak() < 72


def test_narrowed_keeps_the_output(example, tmp_path):
    spec = example.narrowed(sifrc.load_spec(small_spec(tmp_path)), 5)
    assert [layer.size for layer in spec.layers if layer.kind == "dense"] == [5, 5, 5, 10]


def test_unknown_experiment_is_refused(example, capsys):
    with pytest.raises(SystemExit):
        example.parsed(["shallow"])
    assert "very-deep" in capsys.readouterr().err
    arguments = example.parsed(["deep"])
    assert isinstance(arguments, argparse.Namespace) and arguments.width == 64
