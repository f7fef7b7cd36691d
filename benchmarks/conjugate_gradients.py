"""EA-CG in compressed coordinates against the textbook algorithm on EA-CG(11b), at equal iterates.

    python benchmarks/conjugate_gradients.py [--rows 1024] [--columns 3072] [--iterations 50]

One layer; the program with the structure pass and without it, both backends, float32. Times are of
the function that solves for the directions alone. The difference is that of the two directions,
relative to the largest entry.
"""

from __future__ import annotations

import argparse
import inspect
import os
import tempfile
from pathlib import Path
from types import ModuleType

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--rows", type=int, default=1024)
parser.add_argument("--columns", type=int, default=3072)
parser.add_argument("--iterations", type=int, default=50)
parser.add_argument("--threads", type=int, default=2)
parser.add_argument("--rounds", type=int, default=7)
arguments = parser.parse_args()
for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = str(arguments.threads)

import numpy as np  # noqa: E402
import torch  # noqa: E402
from timing import interleaved, print_table  # noqa: E402

import sifrc  # noqa: E402
from sifrc.cache import load_text  # noqa: E402
from sifrc.compiler import Request, compile_spec  # noqa: E402
from sifrc.lower.lowering import Passes  # noqa: E402

SPEC = {
    "sifrc": 1,
    "name": "one_layer",
    "network": {
        "input": {"name": "image", "size": arguments.columns},
        "layers": [{"name": "fc1", "type": "dense", "units": arguments.rows}],
    },
    "loss": {"expression": "logsumexp(y) - mean(t*y)"},
    "dtype": "float32",
    "method": {"name": "ea_cg", "alpha": 0.1, "kind": "pch1"},
}


def module(backend: str, structure: bool, folder: Path) -> ModuleType:
    """The generated module with the structure pass or without it."""
    request = Request(backend=backend, operators=(), passes=Passes(structure=structure))
    compiled = compile_spec(sifrc.build_spec(SPEC), request)
    path = folder / f"{compiled.name}_{structure}.py"
    path.write_text(compiled.text, encoding="utf-8")
    return load_text(path.stem, path, compiled.text)


def main() -> None:
    torch.set_num_threads(arguments.threads)
    rng = np.random.default_rng(0)
    n, m = arguments.rows, arguments.columns
    factor = rng.normal(size=(n, n)).astype(np.float32) / np.float32(np.sqrt(n))
    values = {
        "mean_block": factor @ factor.T,
        "mean_input": rng.normal(size=m).astype(np.float32) / np.float32(np.sqrt(m)),
        "gradient_weights": rng.normal(size=(n, m)).astype(np.float32),
        "gradient_biases": rng.normal(size=n).astype(np.float32),
    }
    numbers = {"alpha": 0.1, "cg_iterations": float(arguments.iterations), "cg_tolerance": 0.0}
    candidates = {}
    directions = {}
    with tempfile.TemporaryDirectory() as folder:
        for backend in ("torch", "numba"):
            for structure in (False, True):
                name = f"{backend}, {'compressed' if structure else 'textbook'}"
                made = module(backend, structure, Path(folder))
                run, direction = (_torch if backend == "torch" else _numba)(made, values, numbers)
                run()
                directions[name] = np.array(direction())
                candidates[name] = run
        results = interleaved(candidates, "torch, textbook", arguments.rounds, warmup=1)
    rows = []
    for name, result in results.items():
        backend = name.partition(",")[0]
        base = f"{backend}, textbook"
        difference = np.abs(directions[name] - directions[base]).max() / np.abs(directions[base]).max()
        gain = f"{results[base].seconds / result.seconds:.1f}"
        rows.append([name, f"{1e3 * result.seconds:.2f}", gain, f"{difference:.1e}"])
    print_table(
        f"{n} × {m}, {arguments.iterations} iterations, float32, {arguments.threads} threads",
        ["solver", "ms", "× faster than textbook", "difference"],
        rows,
    )


def _torch(made: ModuleType, values: dict[str, np.ndarray], numbers: dict[str, float]) -> tuple:  # type: ignore[type-arg]
    given = {name: {1: torch.from_numpy(value)} for name, value in values.items()} | numbers
    names = list(inspect.signature(made._direction).parameters)
    kept: list[object] = []

    def run() -> None:
        kept[:] = [made._direction(*(given.get(name, []) for name in names))]

    text = inspect.getsource(made._direction)
    returned = [
        part.strip() for part in text[text.rindex("return") + 6 :].strip(" ()\n").split(",") if part.strip()
    ]
    return run, lambda: kept[0][returned.index("direction")][1].numpy()  # type: ignore[index]


def _numba(made: ModuleType, values: dict[str, np.ndarray], numbers: dict[str, float]) -> tuple:  # type: ignore[type-arg]
    params = made.init(0)
    work = made.State(params).workspace(2)
    given = {name: (np.zeros((0,) * value.ndim, np.float32), value) for name, value in values.items()}
    names = list(inspect.signature(made._direction.py_func).parameters)
    arrays = [
        given[name]
        if name in given
        else np.float32(numbers[name])
        if name in numbers
        else getattr(work, name)
        for name in names
    ]
    return (lambda: made._direction(*arrays)), (lambda: work.direction[1])


if __name__ == "__main__":
    main()
