"""One sample at a time on 784-256-32-10: Numba MK and ESN against torch SGD and Adam.

    python benchmarks/one_sample.py [--samples 2000]

Samples per second on the same stream of MNIST-sized samples, float32, white layer on. Torch runs with
one thread and with two; its better figure is the base. Ratios are medians over interleaved rounds.
"""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np
import torch
from threadpoolctl import threadpool_limits
from timing import print_table

import sifrc

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--samples", type=int, default=2000, help="per round and candidate")
parser.add_argument("--rounds", type=int, default=9)
parser.add_argument("--loss", default="squared_error", choices=["squared_error", "cross_entropy"])

SLOPE = {"function": "leaky_relu", "parameters": {"slope": 0.1}}


def spec(loss: str) -> dict[str, object]:
    return {
        "sifrc": 1,
        "name": "mnist",
        "network": {
            "input": {"name": "image", "size": 784},
            "layers": [
                {"name": "fc1", "type": "dense", "units": 256, "activation": SLOPE},
                {"name": "fc2", "type": "dense", "units": 32, "activation": SLOPE},
                {"name": "fc3", "type": "dense", "units": 10},
            ],
        },
        "loss": {"function": loss, "targets": "classes"},
        "regularization": {"state": 1e-3},
        "dtype": "float32",
    }


def torch_run(kind: str, loss: str, inputs: torch.Tensor, targets: torch.Tensor, count: int) -> float:
    model = torch.nn.Sequential(
        torch.nn.Linear(784, 256),
        torch.nn.LeakyReLU(0.1),
        torch.nn.Linear(256, 32),
        torch.nn.LeakyReLU(0.1),
        torch.nn.Linear(32, 10),
    )
    optimizer = (
        torch.optim.SGD(model.parameters(), lr=1e-3)
        if kind == "SGD"
        else torch.optim.Adam(model.parameters(), lr=1e-4)
    )
    one_hot = torch.nn.functional.one_hot(targets, 10).float()
    start = time.perf_counter()
    for index in range(count):
        optimizer.zero_grad(set_to_none=True)
        output = model(inputs[index : index + 1])
        if loss == "cross_entropy":
            value = torch.nn.functional.cross_entropy(output, targets[index : index + 1])
        else:
            value = 0.5 * ((output - one_hot[index : index + 1]) ** 2).sum()
        value.backward()
        optimizer.step()
    return count / (time.perf_counter() - start)


def main() -> None:
    arguments = parser.parse_args()
    count = arguments.samples
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(count, 784)).astype(np.float32)
    targets = rng.integers(0, 10, count)
    modules = {
        "MK": sifrc.compile(sifrc.build_spec(spec(arguments.loss)), backend="numba", method="mk"),
        "ESN rank one": sifrc.compile(sifrc.build_spec(spec(arguments.loss)), backend="numba", method="esn"),
    }
    order = np.arange(count)
    runs = {}
    for name, module in modules.items():
        params = module.init(0)
        state = module.State(params, lr=1e-3)
        module.train_epoch(params, state, inputs, targets, order[:4])  # compiles
        runs[name] = (module, params, state)
    t_inputs, t_targets = torch.from_numpy(inputs), torch.from_numpy(targets)
    rates: dict[str, list[float]] = {}
    for _ in range(arguments.rounds):
        for name, (module, params, state) in runs.items():
            for threads in (1, 2):
                with threadpool_limits(threads):
                    start = time.perf_counter()
                    module.train_epoch(params, state, inputs, targets, order)
                    rate = count / (time.perf_counter() - start)
                rates.setdefault(f"{name}, {threads} BLAS thread(s)", []).append(rate)
        for kind in ("SGD", "Adam"):
            for threads in (1, 2):
                torch.set_num_threads(threads)
                short = max(200, count // 4)
                rate = torch_run(kind, arguments.loss, t_inputs, t_targets, short)
                rates.setdefault(f"torch {kind}, {threads} thread(s)", []).append(rate)
    best = {
        kind: max(
            (n for n in rates if n.startswith(f"torch {kind}")), key=lambda n: statistics.median(rates[n])
        )
        for kind in ("SGD", "Adam")
    }
    rows = []
    for name, values in rates.items():
        ratio = {
            kind: statistics.median(v / b for v, b in zip(values, rates[best[kind]], strict=True))
            for kind in best
        }
        median = statistics.median(values)
        rows.append(
            [name, f"{median:.0f}", f"{1e6 / median:.1f}", f"{ratio['SGD']:.1f}", f"{ratio['Adam']:.1f}"]
        )
    print_table(
        f"784-256-32-10 leaky ReLU, {arguments.loss}, one sample at a time, float32",
        ["method", "samples/s", "µs/sample", "× best SGD", "× best Adam"],
        rows,
    )


if __name__ == "__main__":
    main()
