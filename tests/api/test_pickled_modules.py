"""What generated modules define, pickled for another process: functions, networks, optimizers, results."""

import copy
import multiprocessing
import os
import pickle
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from small_specs import tiny

import sifrc
from sifrc import cache

torch = pytest.importorskip("torch")

OPERATORS = ("gradient", "hessian_vector_product", "curvature_factors", "summary")
ALONE = """
import pickle, sys
with open(sys.argv[1], "rb") as file:
    calls = pickle.load(file)
result = [function(*arguments) for function, arguments in calls]
with open(sys.argv[2], "wb") as file:
    pickle.dump(result, file)
"""
"""A process that knows nothing of sifrc but where it is installed."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A cache folder of the tests' own, as that of the user, for these processes and their children."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(cache.CACHE_VARIABLE, str(folder))
        patch.setenv("NUMBA_DISABLE_JIT", "1")
        patch.setattr("numba.config.DISABLE_JIT", True)
        yield folder


@pytest.fixture(scope="module")
def modules(folder):
    spec = tiny(name="pickled", loss="squared_error")
    return {name: sifrc.compile(spec, name, operators=OPERATORS) for name in ("torch", "numba")}


def elsewhere(calls, tmp_path, **environment):
    """The results of calls (function, arguments) in another process."""
    given, result = tmp_path / "given.pickle", tmp_path / "result.pickle"
    given.write_bytes(pickle.dumps(calls))
    command = [sys.executable, "-c", ALONE, str(given), str(result)]
    run = subprocess.run(
        command, env={**os.environ, **environment}, capture_output=True, text=True, timeout=120
    )
    if run.returncode:
        raise RuntimeError(run.stderr)
    return pickle.loads(result.read_bytes())


def point(module):
    rng = np.random.default_rng(0)
    own = torch.from_numpy if hasattr(module, "torch") else np.asarray
    params = {name: own(rng.standard_normal(shape)) for name, shape in module.SHAPES.items()}
    return params, own(rng.standard_normal((5, 4))), own(rng.standard_normal((5, 2)))


def assert_same(one, other):
    if isinstance(one, dict):
        assert list(one) == list(other)
        for key in one:
            assert_same(one[key], other[key])
    elif isinstance(one, tuple) and not hasattr(one, "shape"):
        assert type(one) is type(other) and len(one) == len(other)
        for mine, theirs in zip(one, other, strict=True):
            assert_same(mine, theirs)
    else:
        np.testing.assert_array_equal(np.asarray(one), np.asarray(other))


@pytest.mark.parametrize("backend", ["torch", "numba"])
def test_every_public_name_comes_back(modules, backend):
    """In this process it is the same object."""
    module = modules[backend]
    assert module.__name__.startswith("sifrc.compiled.pickled_")
    for name in module.__all__:
        value = getattr(module, name)
        if callable(value):
            assert pickle.loads(pickle.dumps(value)) is value


@pytest.mark.parametrize("backend", ["torch", "numba"])
def test_functions_in_another_process(modules, backend, tmp_path):
    """With results that are types of the module."""
    module = modules[backend]
    at = point(module)
    names = (("gradient", ()), ("curvature_factors", ()), ("summary", at[:1]))
    calls = [(getattr(module, name), (*at, *more)) for name, more in names]
    for found, (function, arguments) in zip(elsewhere(calls, tmp_path), calls, strict=True):
        assert_same(found, function(*arguments))


def test_a_pool_of_processes(modules):
    """Started anew (spawn), as everywhere but on Linux."""
    module = modules["torch"]
    points = [point(module)] * 3
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        for found in pool.map(module.gradient, *zip(*points, strict=True)):
            assert_same(found, module.gradient(*points[0]))


def _outputs(file, inputs):
    return torch.load(file, weights_only=False)(inputs)


def test_a_network_saved_whole(modules, tmp_path):
    """``torch.save(model)``, loaded in another process."""
    module = modules["torch"]
    model, (_, inputs, _) = module.Network(3, torch.float64), point(module)
    torch.save(model, tmp_path / "model.pt")
    again = torch.load(tmp_path / "model.pt", weights_only=False)
    assert type(again) is module.Network
    assert_same(again(inputs).detach(), model(inputs).detach())
    (found,) = elsewhere([(model, (inputs,))], tmp_path)
    assert_same(found.detach(), model(inputs).detach())


def test_model_and_optimizer_go_on_in_another_process(modules, tmp_path):
    """Pickled together, so that they still share parameters: the same steps as here."""
    module = modules["torch"]
    _, inputs, targets = point(module)
    model = module.Network(3, torch.float64)
    optimizer = module.Optimizer(model)
    optimizer.step(inputs[:1], targets[:1])
    model_there, optimizer_there = pickle.loads(pickle.dumps((model, optimizer)))
    (objective,) = elsewhere([(optimizer.step, (inputs[1:2], targets[1:2]))], tmp_path)
    assert float(objective) == float(optimizer.step(inputs[1:2], targets[1:2]))
    optimizer_there.step(inputs[1:2], targets[1:2])
    assert_same(
        {k: v.detach() for k, v in model_there.named_parameters()},
        {k: v.detach() for k, v in model.named_parameters()},
    )


def test_a_state_of_numba_goes_on_in_another_process(modules, tmp_path):
    module = modules["numba"]
    params, inputs, targets = point(module)
    state = module.State(params)
    module.step(params, state, inputs[:1], targets[:1])
    arguments = (params, state, inputs[1:2], targets[1:2])
    (there,) = elsewhere([(module.step, arguments)], tmp_path)
    assert there == module.step(*copy.deepcopy(arguments)) == module.step(*arguments)


def test_memory_of_summaries_is_not_pickled(modules):
    module = modules["numba"]
    params, inputs, targets = point(module)
    memory = module.Workspace()
    first = module.summary(params, inputs, targets, params, workspace=memory)
    for other in (pickle.loads(pickle.dumps(memory)), copy.deepcopy(memory)):
        assert type(other) is module.Workspace
        assert_same(module.summary(params, inputs, targets, params, workspace=other), first)


def test_a_module_that_the_other_process_does_not_have(modules, tmp_path):
    """One error that says where it was looked for, and what would do."""
    module = modules["torch"]
    with pytest.raises(RuntimeError, match="compile its spec here first") as caught:
        calls = [(module.gradient, point(module))]
        elsewhere(calls, tmp_path, **{cache.CACHE_VARIABLE: str(tmp_path / "none")})
    name = module.__name__.rpartition(".")[2]
    last = str(caught.value).strip().splitlines()[-1]
    assert last.startswith(f"ModuleNotFoundError: the generated module '{name}' is not in the cache folder")
    assert str(tmp_path / "none") in last and "sifrc compile" in last


def test_only_whole_entries_are_run(modules, tmp_path):
    """What was changed in the folder of the cache is not executed, nor anything outside of it."""
    module = modules["torch"]
    path, calls = Path(module.__file__), [(module.gradient, point(module))]
    other = tmp_path / "cache"
    other.mkdir()
    text = path.read_text(encoding="utf-8")
    (other / path.name).write_text(text.replace("import math", "raise SystemExit(99)", 1), encoding="utf-8")
    with pytest.raises(RuntimeError, match="is not in the cache folder"):
        elsewhere(calls, tmp_path, **{cache.CACHE_VARIABLE: str(other)})
    (other / path.name).write_text(text, encoding="utf-8")
    elsewhere(calls, tmp_path, **{cache.CACHE_VARIABLE: str(other)})
    (tmp_path / "outside.py").write_text("raise SystemExit(99)\n")
    for name in ("../outside", str(tmp_path / "outside"), "..outside", "__init__"):
        with pytest.raises(ModuleNotFoundError):
            pickle.loads(f"csifrc.compiled.{name}\ngradient\n.".encode())


def test_a_file_of_the_command_pickles_as_any_module(tmp_path):
    """``sifrc compile -o`` writes an ordinary module: it is found on Python's path."""
    spec = tiny(name="written")
    (tmp_path / "written.py").write_text(sifrc.compile_source(spec), encoding="utf-8")
    paths = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])

    def run(code, data=b""):
        command, environment = [sys.executable, "-c", code], {**os.environ, "PYTHONPATH": paths}
        return subprocess.run(command, input=data, env=environment, capture_output=True, check=True).stdout

    data = run("import pickle, sys, written; sys.stdout.buffer.write(pickle.dumps(written.Network(0)))")
    load = "import pickle, sys; model = pickle.loads(sys.stdin.buffer.read()); "
    found = run(load + "print(type(model).__module__, 'sifrc' in sys.modules)", data)
    assert found.split() == [b"written", b"False"]
