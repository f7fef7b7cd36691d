"""The example of training curves: an equal search, and a run on scikit-learn's digits."""

import csv
import importlib
import math
import sys
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import sifrc  # noqa: E402
from sifrc.data import Dataset  # noqa: E402
from sifrc.training.history import EpochMetrics, History  # noqa: E402

FOLDER = Path(__file__).resolve().parents[2] / "examples"
MODULES = ("train_curvature", "compare", "layer_errors")


@pytest.fixture(scope="module")
def example():
    """The script with its folder on the path, as ``python examples/train_curvature.py`` has it."""
    sys.path.insert(0, str(FOLDER))
    try:
        yield importlib.import_module("train_curvature")
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


@pytest.mark.parametrize("trials", range(1, 13))
def test_every_method_has_as_many_runs(example, trials):
    curved, plain = example.grids(trials, True), example.grids(trials, False)
    assert math.prod(map(len, curved.values())) == len(plain["lr"]) <= trials
    assert len(plain["lr"]) > trials / 2
    assert all(0 < alpha <= 1 for alpha in curved["alpha"])


def test_pooled_images_are_means_of_squares_color_by_color(example):
    image = np.arange(2 * 4 * 4, dtype=np.float32).reshape(1, -1)
    data = Dataset("toy", "made up", image, np.zeros(1, int), image, np.zeros(1, int), 2, (4, 4))
    small = example.pooled(data, 2)
    # 0 1 4 5 have the mean 2.5; two to the right add 2, two rows below add 8, the next colour adds 16
    expected = [2.5, 4.5, 10.5, 12.5, 18.5, 20.5, 26.5, 28.5]
    np.testing.assert_array_equal(small.train_inputs, [expected])
    np.testing.assert_array_equal(small.test_inputs, [expected])
    assert small.image_shape == (2, 2) and example.pooled(data, 1) is data
    with pytest.raises(SystemExit, match="does not divide"):
        example.pooled(data, 3)


def test_the_search_takes_the_least_loss_whose_full_run_lasts(example, capsys):
    """Least at lr 3, which diverges in full; then lr 2. A short run that diverges is out."""

    def ends_with(loss):
        return History("toy", (EpochMetrics(1, 0.1, loss, loss, loss),))

    def short(chosen):
        if chosen["alpha"] < 0.5:
            raise sifrc.TrainingError("diverged") from FloatingPointError()
        return ends_with(10.0 - chosen["lr"])

    def full(chosen):
        if chosen["lr"] == 3.0:
            raise sifrc.TrainingError("diverged later") from FloatingPointError()
        return ends_with(1.0)

    grid = {"lr": [1.0, 2.0, 3.0], "alpha": [0.1, 0.9]}
    found = example.search("toy", grid, short, full)
    assert found.chosen == {"lr": 2.0, "alpha": 0.9} and found.edges == ()
    assert "diverged later" in capsys.readouterr().out
    ended = example.search("toy", {"lr": [1.0, 2.0, 2.5]}, lambda chosen: ends_with(-chosen["lr"]), full)
    assert ended.edges == ("lr",)
    with pytest.raises(SystemExit, match="every one of its 1"):
        example.search("toy", {"lr": [3.0]}, lambda chosen: ends_with(1.0), full)


@pytest.mark.parametrize("loss", ["cross_entropy", "bounded", "squared_error"])
def test_sgd_descends_the_same_loss(example, loss):
    """PyTorch's way to write it against the generated module."""
    import compare

    spec = sifrc.spec.build_spec(
        {
            "sifrc": 1,
            "name": "toy",
            "network": {"input": {"size": 4}, "layers": [{"type": "dense", "units": 3}]},
            "loss": {"function": loss, "targets": "classes"},
            "dtype": "float64",
        }
    )
    module = sifrc.compile(spec, "torch", "none", operators=("loss",), cache=False)
    params = module.initialize(0)
    x, t = torch.randn(7, 4, dtype=torch.float64), torch.tensor([0, 1, 2, 2, 1, 0, 1])
    ours = compare.torch_loss(spec)(module.predict(params, x), t)
    torch.testing.assert_close(ours, module.loss(params, x, t), rtol=1e-12, atol=0)


def test_a_loss_that_sgd_does_not_have_is_refused(example):
    import compare

    spec = sifrc.spec.build_spec(
        {
            "sifrc": 1,
            "name": "toy",
            "network": {"input": {"size": 4}, "layers": [{"type": "dense", "units": 3}]},
            "loss": "huber",
        }
    )
    with pytest.raises(SystemExit, match="huber"):
        compare.torch_loss(spec)


def test_run_on_digits(example, tmp_path, capsys):
    """All start at the same loss, whatever the method, and end lower; KFRA is out where not convex."""
    pytest.importorskip("sklearn")
    settings = (
        "--data digits --loss both --kinds pch1,kfra --trials 1 --epochs 2 --search-epochs 1 --batch 50"
    )
    example.main([*settings.split(), "--train-count", "300", "-o", str(tmp_path)])
    shown = capsys.readouterr().out
    assert "64-128-96-64-48-32-24-16-10 sigmoid" in shown and "2 epochs, 12 steps" in shown
    for loss, kinds in (("cross_entropy", ("pch1", "kfra")), ("bounded", ("pch1",))):
        file = tmp_path / f"training_digits_narrow_{loss}.csv"
        assert file.with_suffix(".png").stat().st_size > 1000
        with file.open(encoding="utf-8") as stream:
            rows = list(csv.DictReader(stream))
        names = ["SGD", *(f"{title} {kind}" for title in ("EA-CG", "KFI") for kind in kinds)]
        assert list(dict.fromkeys(row["method"] for row in rows)) == names
        losses = {(row["method"], row["epoch"]): float(row["train_loss"]) for row in rows}
        assert len(losses) == 3 * len(names)
        assert len({losses[name, "0"] for name in names}) == 1
        for name in names:
            assert losses[name, "2"] < losses[name, "0"]
        assert all((row["alpha"] == "") == (row["method"] == "SGD") for row in rows)


def test_refuses_unknown_kinds(example, capsys):
    with pytest.raises(SystemExit):
        example.main(["--kinds", "pch3"])
    assert "pch3" in capsys.readouterr().err
