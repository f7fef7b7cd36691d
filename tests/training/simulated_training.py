"""Trains CUDA modules in Numba's simulator and the same ones for the CPU; prints what differs as JSON.

    python simulated_training.py PART ...

In an empty folder, where the environment asks for the simulator. Numbers are the largest differences.
"""

import json
import sys
import warnings
from pathlib import Path

import numpy as np

import sifrc
from sifrc.data import Dataset
from sifrc.simulation import SimulationWarning
from sifrc.training import SummaryLog, companion, fit, make_trainable, run
from sifrc.training.checkpoint import saved_parameters

LAYERS = [
    {"name": "all", "type": "flatten"},
    {"name": "fc1", "type": "dense", "units": 3, "activation": "tanh"},
    {"name": "fc2", "type": "dense", "units": 2},
]
MK = {"name": "mk"}
GROUPED = {"name": "grouped_newton", "learning_rate": 0.5, "period": 2}


def spec(method):
    """A small network; that of grouped Newton has samples with two axes."""
    size, layers = ([2, 2], LAYERS) if method is GROUPED else (4, LAYERS[1:])
    network = {"input": {"name": "x", "size": size}, "layers": layers}
    head = {"sifrc": 1, "name": "small", "network": network, "loss": "cross_entropy", "dtype": "float64"}
    return head | {"regularization": {"state": 0.01}, "method": method}


def data(count=5):
    """Rows of four numbers."""
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 2, count + 3)
    inputs = rng.standard_normal((count + 3, 4)) + labels[:, None]
    return Dataset(
        "toy", "of a test", inputs[:count], labels[:count], inputs[count:], labels[count:], classes=2
    )


def numbers(history):
    return np.array([[row.train_objective, row.train_loss, row.test_accuracy] for row in history.rows[1:]])


def trained(backend, method, folder, *, epochs=2, **settings):
    """History and parameters of a run."""
    settings |= {"batch": 3, "seed": 1, "checkpoint_every": float("inf"), "progress": False}
    history = sifrc.train(spec(method), data(), backend=backend, directory=folder, epochs=epochs, **settings)
    return numbers(history), saved_parameters(Path(folder))


def difference(ours, theirs):
    """Of two runs."""
    found = [np.abs(ours[0] - theirs[0]).max()]
    found += [np.abs(ours[1][name] - value).max() for name, value in theirs[1].items()]
    return float(max(found))


def runs():
    found = {}
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        whole = trained("cuda", MK, "whole")
    found["said"] = [str(one.message) for one in said if issubclass(one.category, SimulationWarning)]
    found["other warnings"] = [str(one.message) for one in said if one.category is RuntimeWarning]
    found["mk"] = difference(whole, trained("numba", MK, "mk"))
    trained("cuda", MK, "cut", epochs=1)
    found["resumed"] = difference(trained("cuda", MK, "cut", resume=True), whole)
    return found


def summaries():
    """Runs with a part on a batch of its own, whose results are recorded."""
    found = {}
    settings = {"curvature_batch": 2, "summaries": 9}
    found["grouped"] = difference(*(trained(name, GROUPED, name, **settings) for name in ("cuda", "numba")))
    logs = [SummaryLog.load(f"{name}/summaries.npz") for name in ("cuda", "numba")]
    arrays = [(getattr(logs[0], name), getattr(logs[1], name)) for name in ("summary_h", "rates")]
    found["summaries"] = max(float(np.abs(ours - theirs).max()) for ours, theirs in arrays)
    found["recorded"] = len(logs[0])
    return found


def adapter():
    """Parameters go to the device and come back; nothing that comes back is the module's own."""
    module = sifrc.compile(spec(MK), backend="cuda", operators=())
    other = sifrc.compile(spec(MK), backend="numba", operators=())
    some = data()
    trainable = make_trainable(module, "cuda", seed=2, hyperparameters={"lr": 0.25})
    start = {name: value.copy() for name, value in trainable.parameters().items()}
    for value in trainable.parameters().values():
        value[...] = 7.0
    again = make_trainable(module, "cuda", seed=3, initial=start)
    before = again.state()
    again.warm_up(some.train_inputs, some.train_targets, 3)
    unchanged = all(np.array_equal(before[name], value) for name, value in again.state().items())
    again.set_learning_rate(0.125)
    found = {
        "equal": all(np.array_equal(start[name], value) for name, value in again.parameters().items()),
        "types": sorted({type(value).__name__ for value in start.values()}),
        "unchanged": unchanged,
        "rates": [trainable.learning_rate, again.learning_rate],
        "identity": trainable.identity["backend"],
        "predicted": float(
            np.abs(again.predict(some.test_inputs) - other.predict(start, some.test_inputs)).max()
        ),
        "threads": module.BLOCK,
    }
    steep = make_trainable(module, "cuda", hyperparameters={"lr": 1e308, "damping": 0.0})
    work = {
        "refused": lambda: make_trainable(module, "cuda", hyperparameters={"lr": float("nan")}),
        "other network": lambda: make_trainable(module, "cuda", initial={"fc1.weight": np.zeros(3)}),
        "step": lambda: fit(steep, some, epochs=1, batch=3, progress=False),
    }
    for name, attempt in work.items():
        try:
            attempt()
            found[name] = "nothing"
        except sifrc.SifrcError as error:
            found[name] = f"{type(error).__name__}: {error.message}"
    return found


def no_pictures():
    """Which take longer than the runs."""
    for module, name in ((run, "training_plot"), (companion, "interactions_plot"), (companion, "rates_plot")):
        setattr(module, name, lambda *arguments: None)


if __name__ == "__main__":
    no_pictures()
    warnings.simplefilter("ignore")
    parts = {"runs": runs, "adapter": adapter, "summaries": summaries}
    print(json.dumps({name: parts[name]() for name in sys.argv[1:]}))
