"""Memory of a summary of a deep network, in sets of activations.

    python benchmarks/summary_memory.py [--batch 1000] [--layers 100] [--width 100] [--chunks 5]

Tanh layers, cross-entropy, float32, two groups (weights, biases) for each of the chunks of layers (GN3 App. H).
One set of activations is one number for each unit and sample. Numba: the workspace, which is all that a call
allocates of any size. Torch: the largest sum of the allocations of a call.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import torch
from memory import numbers_in, peak_numbers
from networks import Chain
from timing import print_table

import sifrc

KINDS: dict[str, dict[str, Any]] = {
    "order 2": {"order": 2},
    "order 3": {"order": 3},
    "all of order 3": {"order": 3, "full": True},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=1000)
    parser.add_argument("--layers", type=int, default=100)
    parser.add_argument("--width", type=int, default=100)
    parser.add_argument("--chunks", type=int, default=5)
    arguments = parser.parse_args()
    network = Chain((arguments.width,) * arguments.layers + (10,), "tanh")
    spec = network.spec(partition=f"chunks-{arguments.chunks}")
    inputs, targets = network.samples(arguments.batch)
    activations = arguments.batch * sum(network.sizes[1:])
    rows = []
    for backend in ("numba", "torch"):
        start = time.perf_counter()
        module = sifrc.compile(spec, backend=backend, method="none", operators=("summary",))
        seconds = time.perf_counter() - start
        for name, choices in KINDS.items():
            if backend == "numba":
                params = module.init(0)
                workspace = module.Workspace()
                module.summary(params, inputs, targets, params, workspace=workspace, **choices)
                works = [work for kept in workspace._work.values() for work in kept.values()]
                numbers = float(numbers_in(works)) - inputs.size
            else:
                weights = module.initialize(0)
                data = torch.from_numpy(inputs), torch.from_numpy(targets)
                module.summary(weights, *data, weights, **choices)
                numbers = peak_numbers(lambda c=choices: module.summary(weights, *data, weights, **c))
            rows.append(
                [backend, name, f"{numbers / 1e6:.1f}", f"{numbers / activations:.2f}", f"{seconds:.0f}"]
            )
    print_table(
        f"{network.name}, {2 * arguments.chunks} groups, batch {arguments.batch}: "
        f"a set of activations has {activations / 1e6:.1f} M numbers",
        ["backend", "summary", "M numbers", "sets of activations", "s to compile the module"],
        rows,
    )


if __name__ == "__main__":
    main()
