"""Run commands and functions of the API in a process where a library is not installed, or is broken.

python without_dependency.py LIBRARY absent|broken, in an empty folder; prints what became of each as JSON.
"""

import importlib.abc
import importlib.machinery
import json
import sys
import traceback
import warnings


class Broken(importlib.abc.Loader):
    """A library whose shared objects are missing."""

    def create_module(self, spec):
        return None

    def exec_module(self, module):
        raise OSError("libgomp.so.1: cannot open shared object file: No such file or directory")


class Without(importlib.abc.MetaPathFinder):
    """Another finder, without the library."""

    def __init__(self, inner, library, how):
        self.inner, self.library, self.how = inner, library, how

    def find_spec(self, fullname, path=None, target=None):
        if fullname.partition(".")[0] != self.library:
            return self.inner.find_spec(fullname, path, target)
        if self.how == "broken" and self.inner is importlib.machinery.PathFinder:
            return importlib.machinery.ModuleSpec(fullname, Broken(), is_package=True)
        return None


LAYERS = [{"name": "fc1", "type": "dense", "units": 3, "activation": "tanh"}]
LAYERS.append({"name": "fc2", "type": "dense", "units": 2})
SPEC = {
    "sifrc": 1,
    "name": "tiny",
    "network": {"input": {"name": "image", "size": 4}, "layers": LAYERS},
    "loss": "cross_entropy",
    "regularization": {"state": 0.001},
    "method": {"name": "mk", "learning_rate": 0.05},
    "training": {"data": "own.npz", "epochs": 1, "batch": 1},
    "target": {"backend": "torch", "operators": ["gradient"]},
}


def on(data, size):
    """The network for a data set with ten classes."""
    layers = [LAYERS[0], {**LAYERS[1], "units": 10}]
    network = {"input": {"name": "image", "size": size}, "layers": layers}
    return {**SPEC, "network": network, "training": {"data": data, "epochs": 1, "batch": 1}}


CIFAR, DIGITS = on("cifar10", 3072), on("digits", 64)


def command(*arguments):
    from typer.testing import CliRunner

    from sifrc.cli.main import app

    def run():
        result = CliRunner().invoke(app, list(arguments))
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result.exit_code, result.output

    return run


def function(call):
    import sifrc

    def run():
        try:
            call()
        except sifrc.SifrcError as error:
            return 1, f"{type(error).__name__}: {error}"
        return 0, ""

    return run


def plot():
    from sifrc.training.plots import new_figure

    new_figure(width=1, height=1)


def rates():
    import sifrc.training.export  # noqa: F401


def baselines():
    import sifrc.training.baselines  # noqa: F401


def numbers():
    import numpy as np

    import sifrc

    module = sifrc.compile(SPEC, backend="numba", method="none", operators=["loss"])
    module.loss(module.init(0), np.zeros((1, 4), module.DTYPE), np.zeros(1, np.int64))


def write_files():
    """What the actions read."""
    import numpy as np

    np.savez(
        "own.npz",
        train_X=np.ones((4, 4), np.float32),
        train_y=np.array([0, 1, 0, 1]),
        test_X=np.ones((2, 4), np.float32),
        test_y=np.array([0, 1]),
    )
    parts = {}
    for part in ("train", "test"):
        parts |= {f"{part}_blob": np.zeros(4, np.uint8), f"{part}_off": np.array([0, 4], np.int64)}
        parts[f"{part}_y"] = np.zeros(1, np.int64)
    np.savez("cifar10_jpeg_12k.npz", **parts)
    with open("tiny.yaml", "w", encoding="utf-8") as file:
        json.dump(SPEC, file)
    with open("digits_net.yaml", "w", encoding="utf-8") as file:
        json.dump(DIGITS, file)


def actions():
    """Everything that is run, by name."""
    import sifrc.api

    return {
        "new": command("new", "some"),
        "check": command("check", "tiny.yaml"),
        "equations": command("equations", "tiny.yaml"),
        "compile": command("compile", "tiny.yaml", "-o", "."),
        "compile for numba": command("compile", "tiny.yaml", "--backend", "numba", "-o", "."),
        "compile for cuda": command("compile", "tiny.yaml", "--backend", "cuda", "-o", "."),
        "verify": command("verify", "tiny.yaml"),
        "verify levels 1 and 2": command("verify", "tiny.yaml", "--levels", "1,2"),
        "verify numba": command("verify", "tiny.yaml", "--levels", "3", "--backend", "numba"),
        "verify cuda": command("verify", "tiny.yaml", "--levels", "3", "--backend", "cuda"),
        "train": command("train", "tiny.yaml"),
        "train for cuda": command("train", "tiny.yaml", "--backend", "cuda"),
        "train on digits": command("train", "digits_net.yaml"),
        "api.compile": function(lambda: sifrc.compile(SPEC, cache=False)),
        "api.compile for numba": function(numbers),
        "api.compile for cuda": function(lambda: sifrc.compile(SPEC, backend="cuda", cache=False)),
        "api.compile_source": function(lambda: sifrc.compile_source(SPEC)),
        "api.equations": function(lambda: sifrc.equations(SPEC)._repr_html_()),
        "api.verify": function(lambda: sifrc.verify(SPEC, levels=[3])),
        "api.train": function(lambda: sifrc.train(SPEC, directory=None, progress=False)),
        "api.load_data digits": function(lambda: sifrc.api.load_data(DIGITS)),
        "api.load_data cifar10": function(lambda: sifrc.api.load_data(CIFAR, ".")),
        "plot": function(plot),
        "rates for torch": function(rates),
        "baselines": function(baselines),
    }


def main(library, how, *names):
    sys.meta_path[:] = [Without(finder, library, how) for finder in sys.meta_path]
    write_files()
    found, known = {}, actions()
    warnings.simplefilter("ignore")
    for name in names:
        try:
            found[name] = known[name]()
        except Exception:
            found[name] = (70, traceback.format_exc())
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
