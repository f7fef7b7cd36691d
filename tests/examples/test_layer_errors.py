"""The layer-error example: its definitions against hand computation, its run on scikit-learn's digits."""

import csv
import importlib.util
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from sifrc.data import Dataset  # noqa: E402

FILE = Path(__file__).resolve().parents[2] / "examples" / "layer_errors.py"


@pytest.fixture(scope="module")
def example():
    spec = importlib.util.spec_from_file_location("layer_errors_example", FILE)
    module = importlib.util.module_from_spec(spec)
    sys.modules["layer_errors_example"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules["layer_errors_example"]


def test_totals_of_the_paper_are_roots_of_sums_of_squares(example):
    """To what rounding allows: half a unit in each of the nine numbers; so the typed numbers fit too."""
    for table in example.PAPER.values():
        for column, values in table.columns.items():
            assert len(values) == 9, column
            assert example.total(values[:-1]) == pytest.approx(values[-1], abs=5e-5 * (1 + 8**0.5))


def test_absolute_value_is_by_eigenvalues(example):
    """[[0, 2], [2, 0]] has the eigenvalues 2 and -2, so its absolute value is 2 I."""
    block = example.absolute(torch.tensor([[0.0, 2.0], [2.0, 0.0]]))
    torch.testing.assert_close(block, 2 * torch.eye(2, dtype=torch.float64))


def test_errors_are_averaged_over_the_places_visited(example):
    """One parameter θ moving by -1 a step from 3; block -θ, approximation 1: the error is |1 - |θ||."""

    def block_hessian(params, inputs, targets, kind):
        theta = params["fc1.bias"]
        return {"fc1.bias": -theta[:, None] if kind == "hessian" else torch.ones(1, 1)}

    module = SimpleNamespace(
        initialize=lambda seed: {"fc1.bias": torch.tensor([3.0])},
        loss=lambda params, inputs, targets: params["fc1.bias"].sum(),
        gradient=lambda params, inputs, targets: {"fc1.bias": torch.ones(1)},
        block_hessian=block_hessian,
    )
    x, t = np.zeros((5, 2), np.float32), np.zeros(5, np.int64)
    data = Dataset("toy", "made up", x, t, x, t, classes=1)
    found = example.run(module, data, ["pch1"], batch=2, steps=5, every=2, rate=1.0, momentum=0.0)
    # measured at 3, 1, -1
    assert found.layers == ("fc1",)
    assert found.kinds["pch1"][0] == pytest.approx((2 + 0 + 0) / 3)
    assert found.exact[0] == pytest.approx((3 + 1 + 1) / 3)
    assert found.losses == (3.0, 2.0, 1.0, 0.0, -1.0)


def test_batches_are_shuffled_epochs(example):
    x = np.arange(7, dtype=np.float32)[:, None]
    data = Dataset("toy", "made up", x, np.arange(7), x, np.arange(7), classes=7)
    stream = example.batches(data, 3, 0)
    epochs = [[next(stream) for _ in range(2)] for _ in range(2)]
    for epoch in epochs:
        seen = torch.cat([targets for _, targets in epoch])
        assert len(set(seen.tolist())) == 6
        assert all((inputs[:, 0].long() == targets).all() for inputs, targets in epoch)
    with pytest.raises(SystemExit, match="there are 7"):
        next(example.batches(data, 8, 0))


@pytest.mark.parametrize("name", ["wide", "narrow"])
def test_networks_have_the_paper_s_depth(example, name):
    import sifrc

    spec = sifrc.load_spec(example.NETWORKS[name])
    sizes = [spec.input.size, *(layer.size for layer in spec.layers)]
    assert len(sizes) == 9 and sizes[0] == 3072 and sizes[-1] == 10
    if name == "wide":
        assert sizes == [3072, 1024, 512, 256, 128, 64, 32, 16, 10]


def test_run_on_digits(example, tmp_path, capsys):
    """Exact at the output under cross-entropy: GN and both PCH; PCH under the bounded criterion too."""
    pytest.importorskip("sklearn")
    example.main(["--data", "digits", "--steps", "2", "--batch", "16", "-o", str(tmp_path)])
    shown = capsys.readouterr().out
    assert "64-128-96-64-48-32-24-16-10 sigmoid" in shown and "paper:" not in shown
    with (tmp_path / "layer_errors_digits_narrow.csv").open(encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 9 * (6 + 5)
    errors = {(row["loss"], row["layer"], row["kind"]): float(row["error"]) for row in rows}
    for loss in ("cross_entropy", "bounded"):
        exact = ("fisher", "kfra", "pch1", "pch2") if loss == "cross_entropy" else ("pch1", "pch2")
        for kind in exact:
            assert errors[loss, "fc8", kind] < 1e-6
            column = [error for (of, layer, k), error in errors.items() if (of, k) == (loss, kind)]
            assert column[-1] == pytest.approx(np.linalg.norm(column[:-1]), rel=1e-4)
        for kind in ("sampled_fisher", "empirical_fisher"):
            assert errors[loss, "fc8", kind] > 1e-4
    assert not any(row["paper_error"] for row in rows)
