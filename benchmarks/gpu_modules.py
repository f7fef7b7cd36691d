"""Modules that the benchmark of GPUs runs: what they are made of, and a folder where they are kept.

A module is printed once for given sources of sifrc, so that a machine that only runs them derives nothing.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

__all__ = ["BACKENDS", "Wanted", "load", "sources_digest", "wanted", "write"]

ROOT = Path(__file__).resolve().parents[1]
BACKENDS: Mapping[str, str] = {
    "cuda": "sifrc.backends.numba_cuda:BACKEND",
    "torch": "torch",
    "numba": "numba",
}
"""Name in this benchmark -> name for ``find_backend``."""

DERIVATIVES = ("gradient", "hessian_vector_product", "gauss_newton_vector_product")
_SLOPE = {"function": "leaky_relu", "parameters": {"slope": 0.1}}
Data = dict[str, Any]


@dataclass(frozen=True)
class Wanted:
    """A module that can be printed.

    Args:
        data: the spec as plain data, without a target.
        operators: that it has.
        curvature: kinds of curvature, those of the spec by default.
        options: of the CUDA backend, over those of the command line, where it has them.
    """

    data: Callable[[], Data]
    operators: tuple[str, ...] = ()
    curvature: tuple[str, ...] | None = None
    options: Mapping[str, Any] | None = None


def write(
    name: str, backend: str, folder: Path, dry: bool, options: Mapping[str, Any], dtype: str = "float32"
) -> Path:
    """The file of a module; printed where there is none yet."""
    path = folder / f"{name}_{dtype}_{backend}.py"
    if path.exists():
        return path
    from sifrc.backends import find_backend
    from sifrc.compiler import Request, compile_spec
    from sifrc.spec import build_spec

    entry = wanted(dry)[name]
    data = entry.data() | {"dtype": dtype}
    known = {option.name for option in find_backend(BACKENDS[backend]).options}
    own = {**options, **(entry.options or {})} if backend == "cuda" else {}
    request = Request(
        backend=BACKENDS[backend],
        method=None if "method" in data else "none",
        operators=entry.operators,
        curvature=entry.curvature,
        backend_options={name: value for name, value in own.items() if name in known},
    )
    text = compile_spec(build_spec(data), request).text
    folder.mkdir(parents=True, exist_ok=True)
    # Several processes may print one module at a time.
    mine = path.with_suffix(f".{os.getpid()}")
    mine.write_text(text, encoding="utf-8")
    mine.replace(path)
    return path


def load(path: Path) -> ModuleType:
    """The module of a file."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


def sources_digest() -> str:
    """Of what modules are printed by."""
    digest = hashlib.sha256()
    for folder, pattern in (
        ("sifrc", "*.py"),
        ("templates", "*.jinja"),
        ("examples", "*.yaml"),
        ("benchmarks", "gpu_modules.py"),
    ):
        for path in sorted((ROOT / folder).rglob(pattern)):
            digest.update(path.relative_to(ROOT).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def wanted(dry: bool) -> dict[str, Wanted]:
    """All modules by name; small ones where nothing is timed."""
    found = {
        name: Wanted(lambda name=name: _example(name, dry), _operators(name))  # type: ignore[misc]
        for name in GOLDEN
    }
    found |= _small()
    wide = (6, 4, 3) if dry else (784, 256, 32, 10)
    classes = {"function": "cross_entropy"}
    squares = {"function": "squared_error", "targets": "classes"}
    found["products"] = Wanted(lambda: dense(wide, _SLOPE, classes), DERIVATIVES)
    for method in ("mk", "esn"):
        found[f"online_{method}"] = Wanted(
            lambda method=method: dense(  # type: ignore[misc]
                wide, _SLOPE, squares, regularization={"state": 1e-3}, method={"name": method}
            )
        )
    for number, (sizes, activation) in enumerate(summary_sizes(dry)):
        found[f"summary_{number}"] = Wanted(
            lambda sizes=sizes, activation=activation: dense(  # type: ignore[misc]
                sizes, activation, classes, partition="canonical"
            ),
            ("gradient", "summary"),
        )
    grouped = summary_sizes(dry)[0]
    found["grouped"] = Wanted(
        lambda: dense(*grouped, classes, partition="canonical", method={"name": "grouped_newton"})
    )
    deep = (5, 4, 3, 3) if dry else (3072, 1024, 512, 256, 128, 64, 32, 16, 10)
    found["ea_cg"] = Wanted(
        lambda: dense(deep, "sigmoid", classes, init="glorot", method={"name": "ea_cg"}), ("gradient",)
    )
    # Launches can be looked at one by one where they are not in a graph.
    found["entries"] = Wanted(
        lambda: dense((3, 8, 3) if dry else (64, 4096, 10), "tanh", classes),
        ("gradient",),
        options={"graph": "never"},
    )
    return found


def summary_sizes(dry: bool) -> list[tuple[tuple[int, ...], str]]:
    """Sizes and activations of ``benchmarks/summaries.py``."""
    if dry:
        return [((4, 3, 3), "tanh"), ((4, 3, 2, 3), "tanh"), ((4, *(3,) * 3, 3), "elu")]
    return [
        ((1024, 200, 100, 10), "tanh"),
        ((784, 512, 256, 32, 10), "tanh"),
        ((3072, *(256,) * 10, 10), "elu"),
    ]


def dense(sizes: tuple[int, ...], activation: Any, loss: Any, **more: Any) -> Data:
    """A chain of dense layers, a linear one last."""
    last = len(sizes) - 1
    layers = [
        {"name": f"fc{k}", "type": "dense", "units": units} | ({"activation": activation} if k < last else {})
        for k, units in enumerate(sizes[1:], 1)
    ]
    network = {"input": {"name": "image", "size": sizes[0]}, "layers": layers}
    return {"sifrc": 1, "name": f"chain{last}", "network": network, "loss": loss, "init": "glorot"} | more


GOLDEN = ("digits", "mnist_esn", "custom", "digits_blocks", "digits_grouped")
"""Examples whose modules are in generated/."""


def _example(name: str, dry: bool) -> Data:
    """The spec of an example; as small as can be where kernels are simulated."""
    import yaml

    data: Data = yaml.safe_load((ROOT / "examples" / f"{name}.yaml").read_text(encoding="utf-8"))
    for key in ("target", "training"):
        data.pop(key, None)
    if dry:
        data["network"]["input"]["size"] = 4
        for layer in data["network"]["layers"]:
            if "units" in layer:
                layer["units"] = 3
    return data


def _operators(name: str) -> tuple[str, ...]:
    import yaml

    data = yaml.safe_load((ROOT / "examples" / f"{name}.yaml").read_text(encoding="utf-8"))
    more = ("summary",) if name == "digits_grouped" else ()
    return (*data["target"].get("operators", ("gradient",)), *more)


def _parts(operators: Sequence[str]) -> list[tuple[str, ...]]:
    """Operators in parts whose kernels take about as long to compile: one process goes through a module."""
    words = ("block_", "curvature_factors", "gradient_and_factors")
    alone = ("summary", "diagonal", "trace", "per_sample_gradients")
    blocks = tuple(name for name in operators if name.startswith(words))
    others = [(name,) for name in alone if name in operators]
    rest = tuple(name for name in operators if name not in (*blocks, *alone))
    return [part for part in (*others, blocks, rest) if part]


def _small() -> dict[str, Wanted]:
    """Every operator and every method, on the networks of the tests."""
    sys.path.insert(0, str(ROOT / "tests" / "backends"))
    from operator_calls import NETWORKS, OPERATORS
    from test_cuda_simulator import METHODS, method_spec

    found = {}
    for name, kinds in (("squared error", ("hessian", "ggn")), ("quartic", ("hessian", "ggn", "pch1"))):
        for number, operators in enumerate(_parts(OPERATORS), 1):
            found[f"all_{name.replace(' ', '_')}_{number}"] = Wanted(
                lambda name=name: dict(NETWORKS[name]),  # type: ignore[misc]
                operators,
                kinds,
            )
    for name, method in METHODS.items():
        found[f"method_{name}"] = Wanted(lambda method=method: method_spec(method))  # type: ignore[misc]
    return found
