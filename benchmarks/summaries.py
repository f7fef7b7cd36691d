"""Summaries of orders 2 and 3 along a direction, as multiples of torch's gradient.

    python benchmarks/summaries.py [--batch 1000] [--threads 2] [--rounds 15]

Canonical partition (every tensor a group), float32, the direction is given, no gradient is asked for. Base
is one gradient of torch autograd in the same round. The threads of a Numba module share the batch, and its
BLAS has one thread; torch has the same number of threads.
"""

from __future__ import annotations

import argparse
import os
from typing import Any

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--batch", type=int, default=1000)
parser.add_argument("--threads", type=int, default=2)
parser.add_argument("--rounds", type=int, default=15)
parser.add_argument("--backends", default="numba,torch")
arguments = parser.parse_args()
for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = str(arguments.threads)
os.environ["OPENBLAS_NUM_THREADS"] = "1"

import torch  # noqa: E402
from networks import GN3_MLP, Chain  # noqa: E402
from timing import interleaved, print_table  # noqa: E402

import sifrc  # noqa: E402

NETWORKS = (
    GN3_MLP,
    Chain((784, 512, 256, 32, 10), "tanh"),
    Chain((3072, *(256,) * 10, 10), "elu"),
)


def candidates(network: Chain) -> dict[str, Any]:
    """What is timed."""
    inputs, targets = network.samples(arguments.batch)
    t_inputs, t_targets = torch.from_numpy(inputs), torch.from_numpy(targets)
    model = network.module()
    own = list(model.parameters())

    def autograd() -> object:
        loss = torch.nn.functional.cross_entropy(model(t_inputs), t_targets)
        return torch.autograd.grad(loss, own)

    found: dict[str, Any] = {"torch autograd gradient": autograd}
    for backend in arguments.backends.split(","):
        module = sifrc.compile(
            network.spec(), backend=backend, method="none", operators=("gradient", "summary")
        )
        start = module.init(0) if backend == "numba" else dict(module.Network(seed=0).state_dict())
        if backend == "numba":
            direction = module.gradient(start, inputs, targets)
            more = {"workspace": module.Workspace(), "threads": arguments.threads}
            data: tuple[Any, Any] = inputs, targets
        else:
            direction = module.gradient(start, t_inputs, t_targets)
            more = {}
            data = t_inputs, t_targets
        for order in (2, 3):

            def run(
                m: Any = module,
                p: Any = start,
                d: Any = data,
                u: Any = direction,
                o: int = order,
                w: Any = more,
            ) -> object:
                return m.summary(p, *d, u, order=o, **w)

            found[f"{backend} order {order}"] = run
    return found


def main() -> None:
    torch.set_num_threads(arguments.threads)
    for network in NETWORKS:
        results = interleaved(candidates(network), "torch autograd gradient", arguments.rounds, warmup=2)
        rows = [[n, f"{1e3 * r.seconds:.1f}", f"{r.ratio:.2f}"] for n, r in results.items()]
        title = f"{network.name}, batch {arguments.batch}, float32, {arguments.threads} threads"
        print_table(title, ["quantity", "ms", "× torch gradient"], rows)


if __name__ == "__main__":
    main()
