"""Speed of generated modules against those that another checkout generates, in one run.

    python benchmarks/before.py CHECKOUT [--rounds 15] [--threads 2] [--only TEXT]

For each case the same spec is compiled by both compilers, and both modules are timed in turns. A ratio
above 1 says that the module of today is faster.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("before", type=Path, help="the other checkout")
parser.add_argument("--rounds", type=int, default=15)
parser.add_argument("--threads", type=int, default=2)
parser.add_argument("--only", default="", help="cases with this text in their name")
arguments = parser.parse_args()
if not (arguments.before / "sifrc").is_dir():
    parser.error(f"{arguments.before} is no checkout: it has no folder sifrc")
os.environ["OMP_NUM_THREADS"] = str(arguments.threads)
os.environ["OPENBLAS_NUM_THREADS"] = "1"

import numpy as np  # noqa: E402
import torch  # noqa: E402

_COMPILE = """
import json, sys
from sifrc.compiler import Request, compile_spec
from sifrc.spec import build_spec
data, request = json.loads(sys.stdin.read())
request["operators"] = tuple(request["operators"])
sys.stdout.write(compile_spec(build_spec(data), Request(**request)).text)
"""
_HERE = Path(__file__).resolve().parents[1]
_SLOPE = {"function": "leaky_relu", "parameters": {"slope": 0.1}}


def chain(sizes: tuple[int, ...], activation: Any, **more: Any) -> dict[str, Any]:
    """A spec of dense layers in float32."""
    layers = [
        {"name": f"fc{k}", "type": "dense", "units": units}
        | ({"activation": activation} if k < len(sizes) - 1 else {})
        for k, units in enumerate(sizes[1:], 1)
    ]
    network = {"input": {"name": "image", "size": sizes[0]}, "layers": layers}
    head = {"sifrc": 1, "name": "chain", "loss": {"function": "cross_entropy"}, "init": "glorot"}
    return head | {"network": network, "dtype": "float32"} | more


def module(root: Path, folder: Path, data: dict[str, Any], request: dict[str, Any]) -> ModuleType:
    """The module that a checkout generates."""
    import json

    path = folder / f"m{len(list(folder.iterdir()))}.py"
    text = subprocess.run(
        [sys.executable, "-c", _COMPILE],
        input=json.dumps([data, request]),
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    path.write_text(text, encoding="utf-8")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = loaded
    spec.loader.exec_module(loaded)
    return loaded


def samples(data: dict[str, Any], count: int) -> tuple[Any, Any]:
    """Random inputs and classes."""
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(count, data["network"]["input"]["size"])).astype(np.float32)
    return inputs, rng.integers(0, 10, count)


def epoch(made: ModuleType, data: dict[str, Any], batch: int, **state: Any) -> Callable[[], object]:
    """An epoch in compiled code."""
    inputs, targets = samples(data, 2000)
    params = made.init(0)
    own = made.State(params, **state)
    order = np.arange(2000)
    return lambda: made.train_epoch(params, own, inputs, targets, order, batch)


def summary(made: ModuleType, data: dict[str, Any], order: int) -> Callable[[], object]:
    """A summary along the gradient, batch 1000."""
    inputs, targets = samples(data, 1000)
    if hasattr(made, "Network"):
        start, given = dict(made.Network(seed=0).state_dict()), (torch.tensor(inputs), torch.tensor(targets))
        more: dict[str, Any] = {}
    else:
        start, given = made.init(0), (inputs, targets)
        more = {"workspace": made.Workspace(), "threads": arguments.threads}
    direction = made.gradient(start, *given)
    return lambda: made.summary(start, *given, direction, order=order, **more)


def grouped(made: ModuleType, data: dict[str, Any]) -> Callable[[], object]:
    """Ten steps of grouped Newton on 100 samples, one summary on 1000."""
    inputs, targets = samples(data, 1000)
    parts = [slice(100 * n, 100 * n + 100) for n in range(10)]
    if not hasattr(made, "Network"):
        params = made.init(0)
        state = made.State(params)

        def numba_steps() -> None:
            for part in parts:
                made.step(params, state, inputs[part], targets[part], curvature=(inputs, targets))

        return numba_steps
    model = made.Network(seed=0)
    optimizer = made.Optimizer(model)
    given = torch.tensor(inputs), torch.tensor(targets)

    def torch_steps() -> None:
        for part in parts:
            optimizer.step(given[0][part], given[1][part], curvature=given)

    return torch_steps


def cases() -> dict[str, tuple[dict[str, Any], dict[str, Any], Callable[[ModuleType, dict[str, Any]], Any]]]:
    """Name -> spec, request, and what is timed."""
    mnist = chain((784, 256, 32, 10), _SLOPE, regularization={"state": 1e-3})
    found: dict[str, Any] = {}
    for method in ("mk", "esn"):
        request = {"backend": "numba", "method": method, "operators": []}
        found[f"one sample at a time, {method}, numba"] = (
            mnist,
            request,
            lambda m, d: epoch(m, d, 1, lr=1e-3),
        )
    networks = {"1024-200-100-10": (1024, 200, 100, 10), "784-512-256-32-10": (784, 512, 256, 32, 10)}
    for name, sizes in networks.items():
        for backend in ("numba", "torch"):
            request = {"backend": backend, "method": "none", "operators": ["gradient", "summary"]}
            for order in (2, 3):
                found[f"summary of order {order}, {name}, {backend}"] = (
                    chain(sizes, "tanh"),
                    request,
                    lambda m, d, o=order: summary(m, d, o),
                )
    method = {"name": "grouped_newton", "learning_rate": 0.1, "internal_damping": 10.0, "period": 10}
    for backend in ("numba", "torch"):
        request = {"backend": backend, "operators": []}
        data = chain((1024, 200, 100, 10), "tanh", method=method)
        found[f"ten steps of grouped Newton, {backend}"] = (data, request, grouped)
    return found


def main() -> None:
    """Print the ratios."""
    torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as name:
        print(f"{'case':55}{'before, ms':>12}{'now, ms':>10}{'ratio':>8}")
        for case, (data, request, timed) in cases().items():
            if arguments.only not in case:
                continue
            runs = [
                timed(module(root, Path(name), data, request), data) for root in (arguments.before, _HERE)
            ]
            spent: list[list[float]] = [[], []]
            for number in range(arguments.rounds + 2):
                for which in (0, 1) if number % 2 else (1, 0):
                    start = time.perf_counter()
                    runs[which]()
                    spent[which].append(time.perf_counter() - start)
            before, now = (statistics.median(times[2:]) for times in spent)
            ratio = statistics.median(a / b for a, b in zip(*(t[2:] for t in spent), strict=True))
            print(f"{case:55}{1e3 * before:12.2f}{1e3 * now:10.2f}{ratio:8.3f}", flush=True)


if __name__ == "__main__":
    main()
