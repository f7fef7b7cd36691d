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

import numpy as np
import torch
from networks import EA_CG_PAPER as NETWORK
from timing import print_table
from torch.profiler import ProfilerActivity, profile

import sifrc


def numba_numbers(inputs: Any, targets: Any) -> float:
    """Numbers in the workspace and the state after a step."""
    module = sifrc.compile(NETWORK.spec(), backend="numba", method="ea_cg", operators=())
    params = module.init(0)
    state = module.State(params)
    module.step(params, state, inputs, targets)
    held: dict[int, int] = {}
    for owner in (state.workspace(len(inputs)), state.memory, state.before):
        for value in vars(owner).values():
            for array in value if isinstance(value, tuple) else (value,):
                if isinstance(array, np.ndarray):
                    root = array if array.base is None else array.base
                    held[id(root)] = root.size
    return sum(held.values())


def torch_numbers(inputs: Any, targets: Any) -> float:
    """Largest number of numbers allocated at one time in a step, and those in the state before it."""
    module = sifrc.compile(NETWORK.spec(), backend="torch", method="ea_cg", operators=())
    optimizer = module.Optimizer(module.Network(seed=0))
    x, t = torch.from_numpy(inputs), torch.from_numpy(targets)
    optimizer.step(x, t)
    held = sum(_size(value) for value in optimizer.state.values())
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as found:
        optimizer.step(x, t)
    events = [e for e in found.profiler.kineto_results.events() if e.name() == "[memory]"]
    sums = np.cumsum([e.nbytes() for e in sorted(events, key=lambda e: e.start_ns())])
    return held + max(sums) / 4


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
