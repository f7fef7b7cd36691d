"""CUDA modules in Numba's simulator: what modules for the CPU compute, without a GPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from operator_calls import NETWORKS, operators_of

from sifrc.compiler import Request, compile_spec
from sifrc.spec import build_spec

CUDA = "cuda"
ROOT = Path(__file__).resolve().parents[2]
ROUNDING = {"float64": 1e-10, "float32": 2e-5}

KINDS = {"squared error": ("hessian", "ggn", "sampled_fisher"), "quartic": ("hessian", "ggn", "pch1")}

_CHAIN = [
    {"name": "fc1", "type": "dense", "units": 3, "activation": "tanh"},
    {"name": "fc2", "type": "dense", "units": 3, "activation": "softplus"},
    {"name": "out", "type": "dense", "units": 2},
]
METHODS: Mapping[str, dict[str, Any]] = {
    "mk": {"name": "mk"},
    "esn": {"name": "esn"},
    "esn_exact": {"name": "esn", "variant": "exact"},
    "esn_saddle_free": {"name": "esn", "variant": "saddle_free"},
    "esn_direct": {"name": "esn", "form": "sylvester", "precision": "direct"},
    "esn_recursive": {"name": "esn", "precision": "recursive", "sample_weights": "error"},
    "ea_cg": {"name": "ea_cg"},
    "ea_cg_kfi": {"name": "ea_cg", "solver": "kfi", "decay": 0.5, "kind": "kfra"},
    "ea_cg_exact": {"name": "ea_cg", "solver": "exact", "kind": "fisher", "moment": "mean"},
    "ea_cg_sampled": {
        "name": "ea_cg",
        "solver": "kfi",
        "kind": "sampled_fisher",
        "moment": "mean",
        "period": 3,
    },
    "grouped_newton": {"name": "grouped_newton"},
    "grouped_newton_adam": {
        "name": "grouped_newton",
        "direction": "adam",
        "regularization": "ridge",
        "clip": 1.0,
        "interactions": "diagonal",
    },
}


def method_spec(method: Mapping[str, Any], dtype: str = "float64") -> dict[str, Any]:
    """A small network with a method."""
    network = {"input": {"name": "x", "size": 3}, "layers": _CHAIN}
    head = {"sifrc": 1, "name": "small", "network": network, "loss": "cross_entropy", "dtype": dtype}
    return head | {"regularization": {"state": 0.01}, "method": dict(method)}


def errors(jobs: Mapping[str, tuple[dict[str, Any], Mapping[str, Any]]], folder: Path) -> dict[str, Any]:
    """What the simulator finds for specs, each with what is asked for."""
    for name, (data, asked) in jobs.items():
        for backend, place in (("numba", "cpu"), (CUDA, "cuda")):
            text = compile_spec(build_spec(data), Request(backend=backend, **asked)).text
            (folder / f"{name}_{place}.py").write_text(text, encoding="utf-8")
    (folder / "jobs.json").write_text(json.dumps(list(jobs)), encoding="utf-8")
    env = os.environ | {"NUMBA_ENABLE_CUDASIM": "1", "NUMBA_DISABLE_JIT": "1"}
    command = [sys.executable, str(ROOT / "tests/backends/cuda_simulated.py"), str(folder)]
    ran = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=env, check=False)
    assert ran.returncode == 0, ran.stderr[-2000:]
    found: dict[str, Any] = json.loads(ran.stdout)
    return found


def assert_same(found: Mapping[str, Mapping[str, float | str]], dtype: str) -> None:
    """Every call is right to rounding, and there is one."""
    for name, calls in found.items():
        assert calls, name
        wrong = {
            call: off for call, off in calls.items() if isinstance(off, str) or not off <= ROUNDING[dtype]
        }
        assert not wrong, (name, wrong)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["squared error", "quartic"])
def test_operators(name: str, tmp_path: Path) -> None:
    """Every operator with every sort of argument."""
    data = NETWORKS[name]
    operators = tuple(one for one in operators_of(name) if one != "newton_direction")
    asked = {"method": "none", "operators": operators, "curvature": KINDS[name]}
    assert_same(errors({"all": (data, asked)}, tmp_path), data["dtype"])


@pytest.mark.slow
def test_methods(tmp_path: Path) -> None:
    """Parameters and state after an epoch and a step; ``test_cuda_device`` has all variants."""
    jobs = {name: (method_spec(METHODS[name]), {}) for name in ("mk", "esn", "ea_cg", "grouped_newton")}
    found = errors(jobs, tmp_path)
    assert set(found) == set(jobs)
    assert_same(found, "float64")


@pytest.mark.slow
def test_a_sample(tmp_path: Path) -> None:
    """Products, reductions, systems and a step."""
    few = {"method": "none", "operators": ("objective_and_gradient", "hessian_vector_product")}
    jobs = {"few": (method_spec(METHODS["mk"]), few), "mk": (method_spec(METHODS["mk"]), {})}
    found = errors(jobs, tmp_path)
    assert len(found["few"]) >= 3
    assert_same(found, "float64")
