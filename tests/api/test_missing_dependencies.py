"""An optional dependency that is missing or broken is one error, where it is needed and nowhere else."""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from sampled import one_in

from sifrc.errors import BackendError, DataError, SifrcError, TrainingError
from sifrc.extras import (
    MissingDataDependency,
    MissingDependency,
    MissingFramework,
    MissingPlotDependency,
    importing,
    optional,
)

SCRIPT = Path(__file__).with_name("without_dependency.py")
HERE = ("new", "check", "equations", "compile", "compile for numba", "verify levels 1 and 2")
"""Commands that need no optional dependency at all."""
NEEDS = {
    "torch": (
        "sifrc[torch]",
        (
            *("verify", "verify numba", "train", "api.compile", "api.verify", "api.train"),
            *("rates for torch", "baselines"),
        ),
    ),
    "sklearn": ("sifrc[data]", ("train on digits", "api.load_data digits")),
    "PIL": ("sifrc[data]", ("api.load_data cifar10",)),
    "matplotlib": ("sifrc[report]", ("plot",)),
    "latex2mathml": ("sifrc[report]", ()),
    "numba": ("numba", ("api.compile for numba",)),
}
"""Library -> what pip installs, and what fails without it."""
WORKS = {
    "torch": (*HERE, "api.compile_source", "api.equations", "plot"),
    "sklearn": ("new", "check"),
    "PIL": ("check", "compile"),
    "matplotlib": ("check", "train"),
    "latex2mathml": ("equations", "api.equations"),
    "numba": (*HERE[1:4], "api.compile"),
}
"""Library -> what works without it."""


def outcomes(library: str, how: str, folder: Path, names: tuple[str, ...]) -> dict[str, tuple[int, str]]:
    environment = {**os.environ, "SIFRC_CACHE": str(folder / "cache")}
    run = subprocess.run(
        [sys.executable, str(SCRIPT), library, how, *names],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout.splitlines()[-1])


@pytest.mark.parametrize("library", one_in(2, NEEDS))
def test_without_a_library(library: str, tmp_path: Path) -> None:
    """Every command and function, in a process where the library is not installed."""
    package, failing = NEEDS[library]
    found = outcomes(library, "absent", tmp_path, (*failing, *WORKS[library]))
    for name in failing:
        code, text = found[name]
        assert code == 1 and "which is not installed" in text, (name, text)
        assert f'pip install "{package}"' in text or f"pip install {package}" in text, (name, text)
        assert "Traceback" not in text and "bug" not in text, (name, text)
    for name in WORKS[library]:
        assert found[name][0] == 0, (name, found[name])


def test_cuda_without_numba(tmp_path: Path) -> None:
    """What runs a module names the extra that has all of it; what writes one needs none."""
    failing = ("verify cuda", "train for cuda", "api.compile for cuda")
    found = outcomes("numba", "absent", tmp_path, (*failing, "compile for cuda"))
    assert found["compile for cuda"][0] == 0
    for name in failing:
        code, text = found[name]
        assert code == 1 and "needs Numba for CUDA (numba-cuda), which is not installed" in text, (name, text)
        assert 'pip install "sifrc[cuda]"' in text and "Traceback" not in text, (name, text)


@pytest.mark.parametrize("library", ["torch", "sklearn", "matplotlib"])
def test_with_a_library_that_cannot_be_imported(library: str, tmp_path: Path) -> None:
    """It is there, and its shared objects are not: the reason is in the message."""
    package, failing = NEEDS[library]
    works = tuple(name for name in WORKS[library] if name != "train")
    found = outcomes(library, "broken", tmp_path, (*failing, *works))
    for name in failing:
        code, text = found[name]
        assert code == 1 and "cannot be imported: libgomp.so.1" in text, (name, text)
        assert f'pip install "{package}"' in text, (name, text)
        assert "Traceback" not in text, (name, text)
    for name in works:
        assert found[name][0] == 0, (name, found[name])


@pytest.mark.parametrize(
    "error, kinds",
    [
        (MissingFramework, (BackendError,)),
        (MissingDataDependency, (DataError,)),
        (MissingPlotDependency, (TrainingError,)),
    ],
)
def test_what_such_an_error_is(error: type, kinds: tuple[type, ...]) -> None:
    """An error of sifrc, of its stage, and an ImportError, so that usual ways to look for a library work."""
    with pytest.raises(error) as caught:
        optional("absent_library.part", "this", error)
    assert isinstance(caught.value, (*kinds,)) and isinstance(caught.value, (SifrcError, MissingDependency))
    assert isinstance(caught.value, ImportError) and isinstance(caught.value.__cause__, ModuleNotFoundError)


def test_a_library_that_misses_another_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message says which."""
    (tmp_path / "half_installed.py").write_text("import absent_other\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(MissingDependency, match="cannot be imported: No module named 'absent_other'"):
        optional("half_installed", "this")
    with pytest.raises(MissingDependency, match="needs absent_other, which is not"), importing("this"):
        importlib.import_module("half_installed")
