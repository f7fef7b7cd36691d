"""No folder to write to, no home, no space, many processes and threads: modules work all the same."""

import errno
import os
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from small_specs import tiny

import sifrc
from sifrc import cache

USE = """
import sys, warnings
import numpy as np
with warnings.catch_warnings(record=True) as seen:
    warnings.simplefilter("always")
    {make}
    p = module.init(0)
    loss = module.loss(p, np.ones((2, 4)), np.array([0, 1]))
y = np.tanh(np.ones(4) @ p["fc1.weight"].T + p["fc1.bias"]) @ p["fc2.weight"].T + p["fc2.bias"]
print("right" if abs(loss - np.mean(np.log(np.exp(y).sum()) - y)) < 1e-12 else loss)
for warning in seen:
    print(warning.category.__name__, warning.message)
"""
SPEC = tiny(name="unwritable", method=None, target={"backend": "numba", "operators": ["loss"]})


def run(code, **environment):
    """Lines that a process prints whose home and Numba's usual folders cannot be written."""
    nowhere = {"HOME": os.devnull, "XDG_CACHE_HOME": os.devnull, **environment}
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("NUMBA_CACHE")}
    done = subprocess.run(
        [sys.executable, "-c", code], env=inherited | nowhere, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A Numba module in a folder where no ``__pycache__`` can be: its name is taken by a file."""
    folder = tmp_path_factory.mktemp("readonly")
    (folder / "unwritable.py").write_text(sifrc.compile_source(SPEC), encoding="utf-8")
    (folder / "__pycache__").touch()
    return folder


def test_a_numba_module_where_nothing_can_be_cached(written):
    """One warning that says what to do, and the right numbers; with the variable it names, no warning."""
    code = USE.format(make=f"sys.path.insert(0, {str(written)!r}); import unwritable as module")
    loss, *seen = run(code)
    assert loss == "right" and len(seen) == 1 and seen[0].startswith("RuntimeWarning Numba finds no folder")
    assert "NUMBA_CACHE_DIR" in seen[0]
    assert run(code, NUMBA_CACHE_DIR=str(written / "numba")) == ["right"]
    assert any((written / "numba").rglob("*.nbi"))


def test_compile_where_nothing_can_be_written(written):
    """Neither the cache of sifrc, nor Numba's, nor a temporary folder: in memory, with two warnings."""
    taken = str(written / "__pycache__" / "cache")
    make = f"import sifrc.cache, tempfile; tempfile.tempdir = {taken!r}; module = sifrc.compile({SPEC!r})"
    loss, *seen = run(USE.format(make=make), SIFRC_CACHE=taken)
    assert [line.split()[0] for line in seen] == ["CacheWarning", "RuntimeWarning"], seen
    assert "is kept in memory" in seen[0] and "SIFRC_CACHE" in seen[0] and loss == "right"


def forget():
    for name in [name for name in sys.modules if name.startswith("sifrc.compiled.")]:
        del sys.modules[name]


@pytest.fixture
def plain_spec():
    pytest.importorskip("torch")
    yield tiny(name="plain_folders")
    forget()


def test_without_a_home(monkeypatch, plain_spec):
    """A user that the system does not know, without HOME: a warning, and a temporary folder."""

    def unknown(self):
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv(cache.CACHE_VARIABLE, raising=False)
    monkeypatch.setattr(cache.platformdirs, "user_cache_dir", lambda *_, **__: "~/.cache/sifrc")
    monkeypatch.setattr(Path, "expanduser", unknown)
    with pytest.warns(cache.CacheWarning, match="no cache folder") as seen:
        module = sifrc.compile(plain_spec)
    assert len(seen) == 1 and callable(module.gradient) and Path(module.__file__).is_file()


def _fail(code):
    def failing(*_, **__):
        raise OSError(code, os.strerror(code))

    return failing


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EDQUOT])
@pytest.mark.parametrize("function", ["mkstemp", "replace", "fdopen", "mkdir"])
def test_a_write_that_fails_is_one_warning(tmp_path, monkeypatch, plain_spec, function, code):
    """No space, read-only, not allowed, at every call that writes; no part of a file stays behind."""
    text = "x = 1\n"
    home = {"mkstemp": cache.tempfile, "replace": os, "fdopen": os, "mkdir": Path}[function]
    with monkeypatch.context() as patch:
        patch.setattr(home, function, _fail(code))
        with pytest.warns(cache.CacheWarning, match="cannot be used") as seen:
            path = cache.write_entry(tmp_path / "cache" / "entry.py", text)
            module = cache.load_text(f"sifrc.compiled.plain_{function}_{code}", path, text)
    assert len(seen) == 1 and os.strerror(code) in str(seen[0].message) and module.x == 1
    assert list(tmp_path.rglob("*.py*")) == []
    forget()


def test_threads_at_the_same_time_get_one_module(tmp_path, plain_spec):
    """Whole, and the same object, whichever thread imports it first."""
    specs = [{**plain_spec, "name": f"plain_{number % 2}"} for number in range(8)]
    with warnings.catch_warnings(), ThreadPoolExecutor(8) as pool:
        warnings.simplefilter("error", cache.CacheWarning)
        modules = list(pool.map(lambda spec: sifrc.compile(spec, cache=tmp_path), specs))
    assert all(module is modules[number % 2] and module.gradient for number, module in enumerate(modules))
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".py", ".py"]


@pytest.mark.slow
def test_numba_modules_of_processes_at_the_same_time(tmp_path):
    """On one cache folder, compiled code included: the same numbers, no damaged entry, nothing left over."""
    make = f"import sifrc; warnings.simplefilter('error'); module = sifrc.compile({SPEC!r})"
    command = [sys.executable, "-c", USE.format(make=make)]
    environment = {**os.environ, cache.CACHE_VARIABLE: str(tmp_path)}
    running = [
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    results = [process.communicate(timeout=300) for process in running]
    assert [process.returncode for process in running] == [0, 0], results
    assert {out for out, _ in results} == {"right\n"}
    (entry,) = tmp_path.glob("*.py")
    assert cache.read_entry(entry) is not None and not list(tmp_path.glob("*.part"))
