"""Memory of a summary of a deep network, in sets of activations.

    python benchmarks/summary_memory.py [--batch 1000] [--layers 100] [--width 100] [--chunks 5]

Tanh layers, cross-entropy, float32, two groups (weights, biases) for each of the chunks of layers as in
GN3 App. H. One set of activations is one number for each unit and sample. Numba: the workspace, which is all
that a call allocates of any size. Torch: the largest sum of the allocations of a call.
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


def workspace_numbers(module: Any, inputs: Any, targets: Any, choices: dict[str, Any]) -> float:
    """Numbers in the workspace of a Numba module."""
    kind = 4 if "full" in choices else choices["order"]
    return numbers_in([module.Workspace().take(kind, len(inputs))])


def call_numbers(module: Any, inputs: Any, targets: Any, choices: dict[str, Any]) -> float:
    """Most numbers that a call of a Torch module holds at one time."""
    weights = module.initialize(0)
    data = torch.from_numpy(inputs), torch.from_numpy(targets)
    return peak_numbers(lambda: module.summary(weights, *data, weights, **choices))


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
    for backend, measure in (("numba", workspace_numbers), ("torch", call_numbers)):
        start = time.perf_counter()
        module = sifrc.compile(spec, backend=backend, method="none", operators=("summary",))
        seconds = time.perf_counter() - start
        for name, choices in KINDS.items():
            numbers = measure(module, inputs, targets, choices)
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
