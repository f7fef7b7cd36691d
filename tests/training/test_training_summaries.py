"""The log of summaries, its pictures, and its rates as parameter groups of torch's optimizers."""

import numpy as np
import pytest
from grouped_runs import CANONICAL, build, close, part_of

from sifrc.errors import TrainingError
from sifrc.training import Summary, SummaryLog, fit, interactions_plot, make_trainable, rates_plot, summary_of

MIXED = {"first": ("fc1.weight", "fc1.bias"), "second": ("fc2.weight", "fc2.bias")}
KINDS = {"weights": ("fc1.weight", "fc2.weight"), "biases": ("fc1.bias", "fc2.bias")}
LINEAR = [(5, 4), (4, 3)]


def summary(groups=CANONICAL, seed=0, third=True, rates=None):
    rng, count = np.random.default_rng(seed), len(groups)
    matrix = rng.standard_normal((count, count))
    g, d, found = rng.standard_normal((3, count))
    rates = np.abs(found) if rates is None else np.array(rates, float)
    return Summary(groups, g, matrix + matrix.T, d if third else None, found, rates, 0.1)


def log_of(groups=CANONICAL, count=3, third=True):
    log = SummaryLog(groups)
    for k in range(count):
        log.append(summary(groups, k, third), step=10 * k, epoch=0.7 * k)
    return log


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("modules")


@pytest.mark.parametrize("third", [True, False])
@pytest.mark.parametrize("groups", [CANONICAL, MIXED])
@pytest.mark.parametrize("count", [0, 3])
def test_a_log_survives_its_file(tmp_path, groups, third, count):
    log, path = log_of(groups, count, third), tmp_path / "log.npz"
    log.save(path)
    again = SummaryLog.load(path)
    assert again.digest() == log.digest() and again.groups == log.groups and len(again) == count
    assert again.epochs.tobytes() == log.epochs.tobytes()
    assert log.summary_h.shape == (count, len(groups), len(groups))
    with np.load(path, allow_pickle=False) as archive:
        assert archive["groups"].tolist() == list(groups)
        owned = [archive["groups"][k] for k in archive["group_of_tensor"]]
        pairs = list(zip(owned, archive["tensors"], strict=True))
        assert pairs == [(name, tensor) for name, tensors in groups.items() for tensor in tensors]
        assert ("summary_d" in archive) == (third or not count)
    assert [path.name for path in tmp_path.iterdir()] == ["log.npz"]
    assert log.truncated(2).digest() == log_of(groups, min(2, count), third).digest()


def test_what_is_no_log_is_refused(tmp_path):
    with pytest.raises(TrainingError, match=r"there is no log of summaries log\.npz"):
        SummaryLog.load(tmp_path / "log.npz")
    (tmp_path / "log.npz").write_bytes(b"PK\x03\x04 no")
    with pytest.raises(TrainingError, match="no log of summaries, or damaged"):
        SummaryLog.load(tmp_path / "log.npz")
    np.savez(tmp_path / "log.npz", **{**log_of().arrays(), "rates": np.zeros((3, 7))})
    with pytest.raises(TrainingError, match="damaged"):
        SummaryLog.load(tmp_path / "log.npz")
    with pytest.raises(TrainingError, match="the log is of first, second"):
        log_of(MIXED).append(summary(), step=0, epoch=0.0)
    with pytest.raises(TrainingError, match="another order"):
        log_of().append(summary(third=False), step=0, epoch=0.0)


@pytest.mark.parametrize("options", [{}, {"regularization": "ridge"}, {"interactions": "diagonal"}])
@pytest.mark.parametrize("backend", ["torch", "numba"])
def test_summary_of_a_state(folder, toy, backend, options):
    module = build(folder, backend, **options)
    run = make_trainable(module, backend, seed=1)
    source = run._state if backend == "numba" else run._optimizer
    with pytest.raises(TrainingError, match="no summary yet"):
        summary_of(source)
    run.train_chunk(toy.train_inputs, toy.train_targets, np.arange(50), 50)
    found = summary_of(source)
    assert list(found.groups) == list(CANONICAL) and found.learning_rate == 0.1
    assert found.summary_h.shape == (4, 4) and close(found.summary_h, found.summary_h.T)
    assert (found.summary_d is None) == (options == {"regularization": "ridge"})
    assert close(found.rates, np.maximum(found.rates_found, 0))
    before = found.rates.copy()
    run.train_chunk(toy.train_inputs, toy.train_targets, np.arange(1000), 50)
    assert (found.rates == before).all()  # a copy


def test_objects_without_summaries_are_refused(folder):
    torch = pytest.importorskip("torch")
    sgd = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    for source in (sgd, 3, build(folder, "numba")):
        with pytest.raises(TrainingError, match="keeps no summaries"):
            summary_of(source)


def panels(draw, log, path, monkeypatch, **options):
    """Axes with a title, by drawing and looking."""
    from matplotlib.figure import Figure

    seen, usual = [], Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda self, *a, **k: (seen.append(self), usual(self, *a, **k)))
    draw(log, path, **options)
    assert path.read_bytes().startswith(b"\x89PNG")
    return [ax for ax in seen[-1].axes if ax.get_title()]


def test_interactions_of_the_canonical_partition(tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    log = log_of()
    axes = panels(interactions_plot, log, tmp_path / "a.png", monkeypatch, records=(1,))
    kinds = ("weight–weight", "weight–bias", "bias–bias")
    assert [ax.get_title() for ax in axes] == [f"{m} {k}, epoch 0.7" for m in ("H̄", "H̄⁻¹") for k in kinds]
    w, b = [0, 2], [1, 3]
    for matrix, row in ((log.summary_h[1], axes[:3]), (np.linalg.inv(log.summary_h[1]), axes[3:])):
        for ax, down, across in zip(row, (w, w, b), (w, b, b), strict=True):
            (image,) = ax.images
            assert close(image.get_array(), matrix[np.ix_(down, across)])
            low, high = image.get_clim()
            assert low == -high and close(high, np.abs(image.get_array()).max())
            for labels in (ax.get_xticklabels(), ax.get_yticklabels()):
                assert [label.get_text() for label in labels] == ["fc1", "fc2"]


def test_other_interactions(tmp_path, monkeypatch):
    """One map for other partitions, by default of the first and the last record; and no inverse."""
    pytest.importorskip("matplotlib")
    axes = panels(interactions_plot, log_of(KINDS), tmp_path / "a.png", monkeypatch)
    assert len(axes) == 4 and axes[0].images[0].get_array().shape == (2, 2)
    assert [label.get_text() for label in axes[0].get_xticklabels()] == ["weights", "biases"]
    log = SummaryLog({"all": tuple(CANONICAL)})
    one = np.zeros(1)
    log.append(Summary(log.groups, one, np.zeros((1, 1)), None, one, one, 0.1), step=0, epoch=0.0)
    axes = panels(interactions_plot, log, tmp_path / "b.png", monkeypatch)
    assert [len(ax.images) for ax in axes] == [1, 0] and axes[1].texts[0].get_text() == "singular"
    with pytest.raises(TrainingError, match="no record 3"):
        interactions_plot(log_of(), tmp_path / "c.png", records=(3,))
    with pytest.raises(TrainingError, match="the log is empty"):
        rates_plot(SummaryLog(CANONICAL), tmp_path / "c.png")


@pytest.mark.parametrize(
    ("groups", "curves"),
    [
        (CANONICAL, {"weights": ["fc1", "fc2"], "biases": ["fc1", "fc2"]}),
        (KINDS, {"weights": ["weights"], "biases": ["biases"]}),
        (MIXED, {"groups": ["first", "second"]}),
    ],
)
def test_rates_over_epochs(tmp_path, monkeypatch, groups, curves):
    pytest.importorskip("matplotlib")
    log = log_of(groups)
    axes = panels(rates_plot, log, tmp_path / "a.png", monkeypatch)
    drawn = {ax.get_title(): [line.get_label() for line in ax.get_lines()] for ax in axes}
    assert drawn == curves and axes[0].get_yscale() == "log"
    (first, *_) = axes[0].get_lines()
    assert close(first.get_xdata(), log.epochs) and close(first.get_ydata(), log.rates[:, 0])
    axes = panels(rates_plot, log, tmp_path / "a.png", monkeypatch, averaged=False)
    assert close(axes[0].get_lines()[0].get_ydata(), log.rates_found[:, 0])


def users_model(torch, names=("a", "b")):
    """The network of the spec, as a user would write it; its layers are registered by name."""
    layers = dict(zip(names, (torch.nn.Linear(i, o, dtype=torch.float64) for i, o in LINEAR), strict=True))

    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            for name in sorted(layers):
                setattr(self, name, layers[name])

        def forward(self, x):
            return getattr(self, names[1])(torch.tanh(getattr(self, names[0])(x)))

    return Model()


@pytest.mark.parametrize("names", [("a", "b"), ("z", "b")])
@pytest.mark.parametrize("partition", [None, "weights-biases", {"first": "fc1", "rest": "fc2"}])
def test_sgd_makes_the_same_step(folder, toy, partition, names):
    """One step of grouped Newton with the gradient, and of SGD with its rates on a copy."""
    import copy

    torch = pytest.importorskip("torch")
    from sifrc.training.export import param_groups

    module = build(folder, "torch", partition=partition, direction="gradient", period=1)
    model = users_model(torch, names)
    bound = dict(zip(("fc1", "fc2"), names, strict=True))
    optimizer, twin = module.Optimizer(model, lr=0.3, names=bound), copy.deepcopy(model)
    x, t = torch.from_numpy(toy.train_inputs[:200]), torch.from_numpy(toy.train_targets[:200])
    start = copy.deepcopy(model.state_dict())
    optimizer.step(x, t)
    for source in (optimizer, summary_of(optimizer)):
        twin.load_state_dict(start)
        sgd = torch.optim.SGD(param_groups(twin, source, names=bound))
        assert [group["name"] for group in sgd.param_groups] == list(module.GROUPS)
        sgd.zero_grad()
        torch.nn.functional.cross_entropy(twin(x), t).backward()
        sgd.step()
        for name, value in model.state_dict().items():
            assert torch.allclose(value, twin.state_dict()[name], rtol=1e-12, atol=1e-14), name
    own = param_groups(model, optimizer)  # as the optimizer is bound
    assert [group["lr"] for group in own] == [group["lr"] for group in sgd.param_groups]
    assert {id(p) for group in own for p in group["params"]} == {id(p) for p in model.parameters()}


def test_rates_of_a_numba_run_for_a_sequential_model(tmp_path, folder, toy):
    """From the state and from the log; its linear layers are taken in order."""
    torch = pytest.importorskip("torch")
    from sifrc.training.export import param_groups

    run = make_trainable(build(folder, "numba"), "numba")
    fit(run, part_of(toy), epochs=1, batch=20, directory=tmp_path, progress=False)
    log = SummaryLog.load(tmp_path / "summaries.npz")
    model = torch.nn.Sequential(torch.nn.Linear(5, 4), torch.nn.Tanh(), torch.nn.Linear(4, 3))
    groups, other = param_groups(model, log, scale=1.0), param_groups(model, run._state)
    torch.optim.Adam(groups)
    assert [tuple(p.shape for p in group["params"]) for group in groups] == [
        ((4, 5),),
        ((4,),),
        ((3, 4),),
        ((3,),),
    ]
    assert close([group["lr"] for group in groups], log.rates[-1])
    assert close([group["lr"] for group in other], 0.1 * log.rates[-1])


def test_rates_that_do_not_train_and_models_that_do_not_fit_are_refused():
    torch = pytest.importorskip("torch")
    from sifrc.training.export import param_groups

    model = users_model(torch)
    names = {"fc1": "a", "fc2": "b"}
    for rates, message in (
        ([1, -2, 3, 4], "rate of group 'fc1.bias' is negative: -2.*\n.*floor=0.0"),
        ([0, 0, 0, 0], "no group has a positive rate"),
        ([1, np.nan, 3, 4], "'fc1.bias' is nan"),
    ):
        with pytest.raises(TrainingError, match=message):
            param_groups(model, summary(rates=rates), names=names)
    with pytest.raises(TrainingError, match="no group has a positive rate"):
        param_groups(model, summary(rates=[-1, -1, 0, 0]), names=names, floor=0.0)
    with pytest.raises(TrainingError, match=r"rates times 0\.0"):
        param_groups(model, summary(), names=names, scale=0.0)
    raised = param_groups(model, summary(rates=[1, -2, 0, 4]), names=names, floor=0.5, scale=2.0)
    assert [group["lr"] for group in raised] == [2.0, 1.0, 1.0, 8.0]
    with pytest.raises(TrainingError, match="is empty"):
        param_groups(model, SummaryLog(CANONICAL), names=names)
    for wrong, message in (
        ({"fc3": "a"}, "'fc3' is not in the spec"),
        ({"fc1": "a"}, r"it lacks fc2.weight \(as fc2.weight\)"),
        ({"fc1": "a", "fc2": "a"}, r"the spec lacks b\.weight, b\.bias"),
    ):
        with pytest.raises(TrainingError, match=message):
            param_groups(model, summary(), names=wrong)
    with pytest.raises(TrainingError, match="does not tell the order of layers"):
        param_groups(model, summary(MIXED))
    with pytest.raises(TrainingError, match="keeps no summaries"):
        param_groups(model, model)
