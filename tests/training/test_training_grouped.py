"""Training by grouped Newton: curvature batches, plateau and log, through checkpoints, on both backends."""

import json

import numpy as np
import pytest
from grouped_runs import CANONICAL, SPEC, build, close, part_of
from training_helpers import stop_after

import sifrc
from sifrc.errors import SpecError, TrainingError
from sifrc.spec import build_spec, spec_to_dict
from sifrc.training import (
    CurvatureSampler,
    Plateau,
    SummaryLog,
    TrainingInterrupted,
    fit,
    make_trainable,
    summary_of,
    train,
)
from sifrc.training.checkpoint import load_checkpoint
from sifrc.training.plateau import PlateauState
from sifrc.training.state import encode_state

SETTINGS = {"epochs": 3, "batch": 20, "seed": 11, "progress": False}
EVERYTHING = {"curvature_batch": 70, "plateau": Plateau(patience=0, factor=0.5, threshold=0.6)}


@pytest.fixture(scope="module")
def make(tmp_path_factory):
    folder = tmp_path_factory.mktemp("modules")
    return lambda backend, *rest, **options: build(folder, backend, *rest, **options)


@pytest.fixture
def some(toy):
    return part_of(toy)


def assert_same_files(whole, cut):
    a, b = (load_checkpoint(folder / "checkpoint.npz") for folder in (whole, cut))
    for key, value in a.parameters.items():
        assert value.tobytes() == b.parameters[key].tobytes(), key
    for one, other in ((a.state, b.state), (a.extra, b.extra)):
        (text, arrays), (text2, arrays2) = encode_state(one), encode_state(other)
        assert text == text2
        assert all(x.tobytes() == y.tobytes() for x, y in zip(arrays, arrays2, strict=True))
    rows = a.history.array(), b.history.array()
    assert np.delete(rows[0], 1, axis=1).tobytes() == np.delete(rows[1], 1, axis=1).tobytes()
    logs = [SummaryLog.load(folder / "summaries.npz") for folder in (whole, cut)]
    assert len(logs[0]) and logs[0].digest() == logs[1].digest()


@pytest.mark.parametrize("summaries", [None, 2])
@pytest.mark.parametrize("backend", ["torch", "numba"])
def test_stopped_and_resumed_run_is_bit_identical(tmp_path, make, some, backend, summaries):
    """The period is no divisor of the steps of a chunk (13, 3), and the rate falls in the run."""
    module, settings = make(backend, period=4), {**SETTINGS, **EVERYTHING, "summaries": summaries}
    history = fit(make_trainable(module, backend, seed=2), some, directory=tmp_path / "whole", **settings)
    assert history.last.train_loss < 0.8 * history.rows[0].train_loss
    for chunks in (1, 3):
        cut = tmp_path / f"cut{chunks}"
        with pytest.raises(TrainingInterrupted):
            first = stop_after(make_trainable(module, backend, seed=2), chunks)
            fit(first, some, directory=cut, checkpoint_every=0, **settings)
        (cut / ".summaries.npz.part").write_bytes(b"half a fi")
        second = make_trainable(module, backend, seed=2)
        fit(second, some, directory=cut, resume=True, **settings)
        assert_same_files(tmp_path / "whole", cut)
    assert second.learning_rate < 0.1
    log = SummaryLog.load(tmp_path / "whole" / "summaries.npz")
    every = 1 if summaries is None else 2
    assert log.steps.tolist() == list(range(0, 48, 4 * every))
    assert close(log.epochs, log.steps / 16) and log.groups == CANONICAL


@pytest.mark.parametrize("backend", ["torch", "numba"])
def test_a_log_ahead_of_the_checkpoint_is_cut_and_another_one_refused(tmp_path, make, some, backend):
    """A kill between writing the log and writing the checkpoint leaves records too many."""
    module, settings = make(backend, period=4), {**SETTINGS, **EVERYTHING}
    for folder, epochs in (("whole", 3), ("cut", 2)):
        run = make_trainable(module, backend, seed=2)
        fit(run, some, directory=tmp_path / folder, **{**settings, "epochs": epochs})
    longer = (tmp_path / "whole" / "summaries.npz").read_bytes()
    (tmp_path / "cut" / "summaries.npz").write_bytes(longer)
    run = make_trainable(module, backend, seed=2)
    fit(run, some, directory=tmp_path / "cut", resume=True, **settings)
    assert_same_files(tmp_path / "whole", tmp_path / "cut")
    shorter = SummaryLog.load(tmp_path / "cut" / "summaries.npz").truncated(3)
    shorter.save(tmp_path / "cut" / "summaries.npz")
    with pytest.raises(TrainingError, match=r"summaries\.npz does not belong"):
        fit(run, some, directory=tmp_path / "cut", resume=True, **settings)
    with pytest.raises(TrainingError, match="another curvature batch size: 70, not 80"):
        changed = {**settings, "curvature_batch": 80}
        fit(run, some, directory=tmp_path / "whole", resume=True, **changed)


@pytest.mark.parametrize("size", [0, 70])
@pytest.mark.parametrize("backend", ["torch", "numba"])
def test_the_log_has_what_the_operator_gives(tmp_path, make, some, backend, size):
    """Period 1 and the gradient for a direction, against operators of the same module."""
    module = make(backend, ("summary", "gradient"), period=1, direction="gradient")
    run = make_trainable(module, backend, seed=2)
    seen, usual = [], run.train_periodic

    def watched(inputs, targets, order, batch, periodic):
        for start in range(0, len(order), batch):
            seen.append((run.parameters(), order[start : start + batch]))
            periodic.begin(len(seen) - 1)
            last = usual(inputs, targets, order[start : start + batch], batch, periodic)
        return last

    run.train_periodic = watched
    fit(run, some, directory=tmp_path, curvature_batch=size, **{**SETTINGS, "epochs": 1})
    log, sampler = SummaryLog.load(tmp_path / "summaries.npz"), CurvatureSampler(310, seed=11, size=70)
    assert log.steps.tolist() == list(range(16))
    wrap = (lambda x: x) if backend == "numba" else __import__("torch").from_numpy
    for k, (values, positions) in enumerate(seen):
        point = {name: wrap(value) for name, value in values.items()}
        data = [(some.train_inputs[p], some.train_targets[p]) for p in (positions, sampler.batches(k, 1))]
        (step, other) = [(wrap(x), wrap(t)) for x, t in data]
        direction = module.gradient(point, *step)
        found = module.summary(point, *(other if size else step), direction, order=3)
        for name, value in (("summary_g", found.g), ("summary_h", found.H), ("summary_d", found.D3)):
            assert close(getattr(log, name)[k], np.asarray(value)), (k, name)
    newest = summary_of(run._state if backend == "numba" else run._optimizer)
    assert close(newest.rates, log.rates[-1]) and newest.learning_rate == log.learning_rates[-1] == 0.1
    positive = np.maximum(log.rates_found, 0)
    assert close(log.rates[1:], 0.5 * log.rates[:-1] + 0.5 * positive[1:])


def test_backends_find_the_same_summaries(tmp_path, make, some):
    logs = []
    for backend in ("torch", "numba"):
        start = make_trainable(make("numba", period=4), "numba", seed=2).parameters()
        run = make_trainable(make(backend, period=4), backend, initial=start)
        fit(run, some, directory=tmp_path / backend, **{**SETTINGS, "epochs": 1}, **EVERYTHING)
        logs.append(SummaryLog.load(tmp_path / backend / "summaries.npz"))
    for name in ("summary_g", "summary_h", "summary_d", "rates_found", "rates"):
        assert np.allclose(getattr(logs[0], name), getattr(logs[1], name), rtol=1e-6, atol=1e-9), name


@pytest.mark.parametrize("count", [10, 1000])
@pytest.mark.parametrize("size", [1, 4, 1000])
def test_curvature_batches_pass_through_the_training_set(count, size):
    sampler = CurvatureSampler(count, seed=3, size=size)
    each = count // sampler.size
    whole = sampler.batches(0, 2 * each).reshape(2, -1)
    for one in whole:
        assert len(set(one.tolist())) == len(one) == each * sampler.size
    again = CurvatureSampler(count, seed=3, size=size)
    assert (again.batches(each, each) == whole[1]).all()
    assert (sampler.size == count) or not (np.sort(whole[0]) == whole[0]).all()


@pytest.mark.parametrize("seed", range(8))
def test_plateau_is_torchs(seed):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(seed)
    rule = Plateau(int(rng.integers(0, 4)), float(rng.uniform(0.1, 0.9)), float(rng.choice([1e-4, 0.1])))
    losses = np.exp(-0.02 * np.arange(60)) * rng.uniform(0.9, 1.1, 60)
    losses[rng.integers(0, 60, 3)] = np.nan
    sgd = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.3)
    theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(
        sgd, patience=rule.patience, factor=rule.factor, threshold=rule.threshold
    )
    rate, state, rates = 0.3, PlateauState(), set()
    for loss in losses.tolist():
        theirs.step(loss)
        state, fallen = rule.after(state, loss)
        rate = rule.reduced(rate) if fallen else rate
        rates.add(rate)
        assert rate == sgd.param_groups[0]["lr"]
    assert len(rates) > 1


def test_methods_without_a_curvature_batch_refuse_it(tmp_path, fake_numba, fake_torch, toy):
    for module, backend in ((fake_numba, "numba"), (fake_torch, "torch")):
        for setting, message in (
            ({"curvature_batch": 100}, "takes no curvature batch.*\n.*grouped_newton"),
            ({"curvature_batch": -1}, "-1 samples"),
            ({"summaries": 5}, "keeps no summaries"),
            ({"summaries": -5}, "-5 summaries"),
            ({"plateau": Plateau(), "schedule": lambda epoch: 1.0}, "both a schedule and a plateau"),
        ):
            with pytest.raises(TrainingError, match=message):
                train(module, backend, toy, directory=tmp_path, **SETTINGS, **setting)
        history = train(module, backend, toy, plateau=Plateau(0), **SETTINGS)  # any method with a rate
        assert len(history) == 4
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "numbers", [{"patience": -1}, {"factor": 1.0}, {"factor": 0.0}, {"threshold": -0.1}, {"threshold": 1.0}]
)
def test_plateaus_out_of_range_are_refused(numbers):
    with pytest.raises(TrainingError, match=f"plateau: a {next(iter(numbers))}"):
        Plateau(**numbers)


KEYS = {"curvature_batch": 50, "plateau": {"patience": 2, "factor": 0.25}, "summaries": 3}


def test_the_keys_of_a_spec_arrive(tmp_path, some, draws):
    """They survive the canonical form, and a run says in its checkpoint what it was made with."""
    spec = build_spec({**SPEC, "training": {"batch": 20, "epochs": 1, **KEYS}})
    assert build_spec(spec_to_dict(spec)) == spec
    assert spec_to_dict(spec)["training"].items() >= KEYS.items()
    defaults = spec_to_dict(build_spec({**SPEC, "training": {"plateau": {}}}))["training"]
    assert defaults["plateau"] == {"patience": 5, "factor": 0.5} and "curvature_batch" not in defaults
    sifrc.train(spec, some, directory=tmp_path, backend="torch", progress=False, cache=False, period=1)
    identity = load_checkpoint(tmp_path / "checkpoint.npz").identity
    assert identity["curvature batch size"] == "50" and "factor=0.25" in identity["plateau"]
    assert len(SummaryLog.load(tmp_path / "summaries.npz")) == 3
    assert {"interactions.png", "rates.png"} <= {path.name for path in tmp_path.iterdir()}


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"curvature_batch": -1}, "'curvature_batch' is too small"),
        ({"plateau": {"factor": 0}}, "'factor' is too small: .*\n.*more than 0"),
        ({"plateau": {"factor": 1.0}}, "'factor' is too large"),
        ({"plateau": {"patients": 3}}, "did you mean 'patience'"),
        ({"summaries": 1.5}, "'summaries' must be a whole number"),
    ],
)
def test_wrong_keys_are_refused_with_their_place(keys, message):
    with pytest.raises(SpecError, match=message):
        build_spec({**SPEC, "training": keys})


def test_a_spec_whose_method_has_no_curvature_batch_is_refused_with_its_place(tmp_path, some):
    path = tmp_path / "spec.yaml"
    path.write_text(json.dumps({**SPEC, "method": "ea_cg", "training": {"curvature_batch": 50}}))
    with pytest.raises(TrainingError, match=r"(?s)no curvature batch.*--> .*spec\.yaml:1:"):
        sifrc.train(path, some, backend="torch", progress=False, cache=False)


def test_the_command_takes_a_curvature_batch_and_says_what_it_wrote(tmp_path, monkeypatch, some, draws):
    from typer.testing import CliRunner

    from sifrc.cli.main import app

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SIFRC_CACHE", str(tmp_path / "cache"))
    (tmp_path / "spec.json").write_text(json.dumps({**SPEC, "training": {"batch": 20}}))
    parts = {"train_X": some.train_inputs, "train_y": some.train_targets}
    np.savez("some.npz", **parts, test_X=some.test_inputs, test_y=some.test_targets)
    base = ["train", "spec.json", "--data", "some.npz", "--epochs", "1", "-o", "run", "--curvature-batch"]
    result = CliRunner().invoke(app, [*base, "99"])
    assert result.exit_code == 0, result.output
    for name in ("summaries.npz", "interactions.png", "rates.png"):
        assert f"wrote run/{name}" in result.output.replace("\\", "/")
    assert load_checkpoint(tmp_path / "run" / "checkpoint.npz").identity["curvature batch size"] == "99"
    refused = CliRunner().invoke(app, [*base, "99", "--method", "ea_cg"])
    assert refused.exit_code != 0 and "takes no curvature batch" in refused.stderr
