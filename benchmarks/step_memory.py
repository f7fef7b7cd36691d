"""Memory of an EA-CG step beyond parameters, gradient, momentum and direction, in millions of numbers.

    python benchmarks/step_memory.py [--batch 1000]

The network of the EA-CG paper, 3072-1024-512-256-128-64-32-16-10 sigmoid, cross-entropy, float32. Numba:
the workspace and the state of the optimizer, which are all that a step allocates of any size. Torch: the
largest sum of the allocations that its profiler saw during a step, and what the state holds. The bound is
1.5 (activations + Σ n_t²) and one weight block.
"""

from __future__ import annotations

import argparse
from itertools import pairwise
from typing import Any

import torch
from memory import numbers_in, peak_numbers
from networks import EA_CG_PAPER as NETWORK
from timing import print_table

import sifrc


def numba_numbers(inputs: Any, targets: Any) -> float:
    """Numbers in the workspace and the state after a step."""
    module = sifrc.compile(NETWORK.spec(), backend="numba", method="ea_cg", operators=())
    params = module.init(0)
    state = module.State(params)
    module.step(params, state, inputs, targets)
    return numbers_in((state.workspace(len(inputs)), state.memory, state.before))


def torch_numbers(inputs: Any, targets: Any) -> float:
    """Largest number of numbers allocated at one time in a step, and those in the state before it."""
    module = sifrc.compile(NETWORK.spec(), backend="torch", method="ea_cg", operators=())
    optimizer = module.Optimizer(module.Network(seed=0))
    x, t = torch.from_numpy(inputs), torch.from_numpy(targets)
    optimizer.step(x, t)
    held = sum(_size(value) for value in optimizer.state.values())
    return held + peak_numbers(lambda: optimizer.step(x, t))


def _size(value: Any) -> int:
    if isinstance(value, torch.Tensor):
        return value.numel()
    return sum(_size(item) for item in value.values()) if isinstance(value, dict) else 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=1000)
    batch = parser.parse_args().batch
    sizes = NETWORK.sizes
    inputs, targets = NETWORK.samples(batch)
    weights = sum(n * m + n for m, n in pairwise(sizes))
    blocks = sum(n * n for n in sizes[1:])
    weight_block = max(n * m for m, n in pairwise(sizes))
    rows = []
    for name, numbers, copied in (
        # Numba gathers the rows of a batch in an array of its own; Torch is given them.
        ("Numba", numba_numbers(inputs, targets), batch * sizes[0]),
        ("Torch", torch_numbers(inputs, targets), 0),
    ):
        beyond = numbers - 3 * weights
        rows.append([name, f"{numbers / 1e6:.2f}", f"{beyond / 1e6:.2f}", f"{(beyond - copied) / 1e6:.2f}"])
    activations = batch * sum(sizes[1:])
    bound = (1.5 * (activations + blocks) + weight_block) / 1e6
    wider = bound + 1.5 * batch * sizes[0] / 1e6
    print_table(
        f"batch {batch}: bound {bound:.2f} M, with the inputs among the activations {wider:.2f} M",
        ["backend", "M numbers", "beyond gradient, momentum, direction", "and the batch's inputs"],
        rows,
    )


if __name__ == "__main__":
    main()
