"""The cache of generated modules: when it is hit, and that it never stands in the way."""

import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import text_backend
from small_specs import tiny

import sifrc
import sifrc.compiler
from sifrc import cache

pytest.importorskip("torch")


@pytest.fixture(autouse=True)
def fresh_imports():
    """Modules of one test are not found loaded by the next."""
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.startswith("sifrc.compiled.tiny_"):
            del sys.modules[name]


@pytest.fixture
def compilations(monkeypatch):
    """How often the compiler ran."""
    calls = []
    compiler = sifrc.compiler.compile_spec

    def counted(*arguments, **named):
        calls.append(arguments)
        return compiler(*arguments, **named)

    monkeypatch.setattr(sifrc.compiler, "compile_spec", counted)
    return calls


def forget():
    for name in [name for name in sys.modules if name.startswith("sifrc.compiled.tiny_")]:
        del sys.modules[name]


def files(folder):
    return sorted(path.name for path in Path(folder).rglob("*.py"))


def test_the_second_compilation_is_a_hit_and_gives_the_same_module(tmp_path, compilations):
    first = sifrc.compile(tiny(), cache=tmp_path)
    assert sifrc.compile(tiny(), cache=tmp_path) is first
    forget()
    again = sifrc.compile(tiny(), cache=tmp_path)
    assert again is not first and again.SPEC == first.SPEC and again.__file__ == first.__file__
    assert len(compilations) == 1 and len(files(tmp_path)) == 1


def test_what_means_the_same_hits(tmp_path, compilations):
    """Defaults written out and the order of keys do not change the canonical spec."""
    sifrc.compile(tiny(), cache=tmp_path)
    sifrc.compile({**dict(reversed(tiny().items())), "seed": 0}, cache=tmp_path)
    assert len(compilations) == 1


@pytest.mark.parametrize(
    "changed",
    [
        {"learning_rate": 0.07},
        {"method": "esn"},
        {"method": "none"},
        {"operators": ("gradient", "loss", "hessian_vector_product")},
        {"backend_options": {"check_forward": False}},
        {"curvature": ("hessian",)},
        {"partition": "trivial"},
        {"partition": {"first": ("fc1",), "rest": "fc2"}},
    ],
    ids=str,
)
def test_another_choice_misses(tmp_path, compilations, changed):
    sifrc.compile(tiny(), cache=tmp_path)
    sifrc.compile(tiny(), cache=tmp_path, **changed)
    assert len(compilations) == 2 and len(files(tmp_path)) == 2


def test_the_partition_of_the_spec_hits(tmp_path, compilations):
    """Also where it is written in another way."""
    sifrc.compile(tiny(partition={"a": ["fc1"], "b": "fc2"}), cache=tmp_path)
    sifrc.compile(tiny(), partition={"b": ("fc2.*",), "a": "fc1"}, cache=tmp_path)
    assert len(compilations) == 1


def test_another_spec_misses(tmp_path, compilations):
    sifrc.compile(tiny(), cache=tmp_path)
    sifrc.compile(tiny(seed=1), cache=tmp_path)
    assert len(compilations) == 2


def test_another_generator_misses(tmp_path, compilations, monkeypatch):
    sifrc.compile(tiny(), cache=tmp_path)
    monkeypatch.setattr(cache, "generator_digest", lambda: "changed")
    sifrc.compile(tiny(), cache=tmp_path)
    assert len(compilations) == 2


def test_the_generator_digest_depends_on_templates_and_sources(monkeypatch):
    digest = cache.generator_digest.__wrapped__
    usual, read = digest(), Path.read_bytes
    for suffix in (".jinja", ".py"):
        monkeypatch.setattr(
            Path, "read_bytes", lambda p, s=suffix: read(p) + (b"#" if p.suffix == s else b"")
        )
        assert digest() != usual


@pytest.mark.parametrize(
    "damage",
    [
        lambda b: b"",
        lambda b: b[: len(b) // 2],
        lambda b: b.replace(b"def ", b"def  ", 1),
        lambda b: b"\xff\xfe\x00",
    ],
    ids=["empty", "half", "changed", "binary"],
)
def test_a_damaged_file_is_compiled_again(tmp_path, compilations, damage):
    sifrc.compile(tiny(), cache=tmp_path)
    (path,) = tmp_path.glob("*.py")
    whole = path.read_bytes()
    path.write_bytes(damage(whole))
    forget()
    with pytest.warns(cache.CacheWarning, match="compiled again"):
        module = sifrc.compile(tiny(), cache=tmp_path)
    assert callable(module.gradient) and len(compilations) == 2
    assert path.read_bytes() == whole


def test_a_folder_that_cannot_be_used_is_a_warning(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.warns(cache.CacheWarning) as warned:
        module = sifrc.compile(tiny(), cache=tmp_path / "file")
    assert ["temporary folder" in str(warning.message) for warning in warned] == [True]
    assert callable(module.gradient)
    assert Path(module.__file__).is_file() and not Path(module.__file__).is_relative_to(tmp_path)


def test_a_write_that_fails_leaves_no_part_behind(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cache.os, "replace", full)
    with pytest.raises(OSError):
        cache._write_whole(tmp_path / "a.py", "x = 1\n")
    assert list(tmp_path.iterdir()) == []


def test_without_cache_nothing_is_kept_in_the_folder_of_the_user(tmp_path, monkeypatch, compilations):
    monkeypatch.setenv(cache.CACHE_VARIABLE, str(tmp_path / "cache"))
    sifrc.compile(tiny(), cache=False)
    sifrc.compile(tiny(), cache=False)
    assert not (tmp_path / "cache").exists() and len(compilations) == 2
    sifrc.compile(tiny())
    assert len(files(tmp_path / "cache")) == 1


def test_a_backend_from_elsewhere_is_asked_every_time(tmp_path, monkeypatch):
    """Its sources are not in our key, so a change in them must still be seen."""
    first = sifrc.compile(tiny(), "text_backend:BACKEND", cache=tmp_path)
    monkeypatch.setattr(text_backend, "REVISION", "second")
    second = sifrc.compile(tiny(), "text_backend:BACKEND", cache=tmp_path)
    assert (first.REVISION, second.REVISION) == ("first", "second")


def test_the_text_of_a_cached_module_is_the_compiled_text(tmp_path):
    module = sifrc.compile(tiny(), cache=tmp_path)
    assert cache.read_entry(Path(module.__file__)) == sifrc.compile_source(tiny())


def test_a_module_that_cannot_be_imported_is_not_left_loaded(tmp_path):
    with pytest.raises(ZeroDivisionError):
        cache.load_text("tiny_broken", tmp_path / "tiny_broken.py", "1 / 0\n")
    assert "tiny_broken" not in sys.modules


def test_processes_at_the_same_time_all_get_the_module(tmp_path):
    code = f"""
import warnings
warnings.simplefilter("error")
import sifrc
print(sifrc.compile({tiny()!r}, operators=("gradient",)).__file__)
"""
    environment = {**os.environ, cache.CACHE_VARIABLE: str(tmp_path)}
    command = [sys.executable, "-c", code]
    running = [
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    results = [process.communicate(timeout=120) for process in running]
    assert [process.returncode for process in running] == [0, 0, 0], results
    assert len({out for out, _ in results}) == 1
    assert [path.suffix for path in tmp_path.iterdir()] == [".py"]


def test_a_good_cache_gives_no_warning(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error", cache.CacheWarning)
        sifrc.compile(tiny(), cache=tmp_path)
        forget()
        sifrc.compile(tiny(), cache=tmp_path)
