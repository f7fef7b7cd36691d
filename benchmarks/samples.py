"""Norms and moments of the samples' gradients, diagonals and traces, as multiples of one gradient.

    python benchmarks/samples.py [--batch 1000] [--threads 2] [--rounds 11]

784-512-256-32-10 sigmoid, cross-entropy, float32. The base is one gradient of torch autograd in the same
round. Where BackPACK is installed, its BatchL2Grad, Variance and DiagGGNExact are timed beside ours (each
with the gradient that it comes with), and their values compared.
"""

from __future__ import annotations

import argparse
import os

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--batch", type=int, default=1000)
parser.add_argument("--threads", type=int, default=2)
parser.add_argument("--rounds", type=int, default=11)
arguments = parser.parse_args()
for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ[variable] = str(arguments.threads)

from collections.abc import Callable  # noqa: E402
from typing import Any  # noqa: E402

import numpy as np  # noqa: E402
import torch  # noqa: E402
from networks import Chain  # noqa: E402
from timing import interleaved, print_table  # noqa: E402

import sifrc  # noqa: E402

NETWORK = Chain((784, 512, 256, 32, 10), "sigmoid")
OPERATORS = ("gradient", "per_sample_gradients", "diagonal", "trace")
MOMENTS = {"norms of the samples": "norm", "variance": "variance"}


def main() -> None:
    torch.set_num_threads(arguments.threads)
    spec = NETWORK.spec()
    inputs, targets = NETWORK.samples(arguments.batch)
    given = torch.from_numpy(inputs), torch.from_numpy(targets)
    modules = {
        backend: sifrc.compile(spec, backend=backend, operators=OPERATORS, curvature=("ggn",))
        for backend in ("torch", "numba")
    }
    params = modules["numba"].init(0)
    tensors = {name: torch.from_numpy(value.copy()) for name, value in params.items()}
    model = NETWORK.module()
    own = list(model.parameters())
    with torch.no_grad():
        for parameter, value in zip(own, tensors.values(), strict=True):
            parameter.copy_(value)

    def autograd() -> object:
        return torch.autograd.grad(torch.nn.functional.cross_entropy(model(given[0]), given[1]), own)

    candidates: dict[str, Callable[[], Any]] = {"torch autograd gradient": autograd}
    for backend, module in modules.items():
        point = (tensors, *given) if backend == "torch" else (params, inputs, targets)
        for name, moment in MOMENTS.items():
            candidates[f"sifrc {backend} {name}"] = lambda m=module, p=point, k=moment: (
                m.per_sample_gradients(*p, moment=k)
            )
        candidates[f"sifrc {backend} diagonal of the GGN"] = lambda m=module, p=point: m.diagonal(
            *p, kind="ggn"
        )
        candidates[f"sifrc {backend} trace of the GGN"] = lambda m=module, p=point: m.trace(*p, kind="ggn")
    peers = backpack(model, given)
    results = interleaved(candidates | peers, "torch autograd gradient", arguments.rounds, warmup=2)
    rows = [[name, f"{1e3 * r.seconds:.1f}", f"{r.ratio:.2f}"] for name, r in results.items()]
    title = f"{NETWORK.name}, batch {arguments.batch}, float32, {arguments.threads} threads"
    print_table(title, ["quantity", "ms", "× torch gradient"], rows)
    for name in peers:
        what = name.removeprefix("BackPACK ")
        theirs = peers[name]()
        for backend in modules:
            ours = candidates[f"sifrc {backend} {what}"]().values()
            worst = max(_apart(np.asarray(a), b.numpy()) for a, b in zip(ours, theirs, strict=True))
            print(f"{what}, {backend}: largest relative difference from BackPACK {worst:.1e}")


def _apart(ours: np.ndarray, theirs: np.ndarray) -> float:
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())


def backpack(
    model: torch.nn.Module, given: tuple[torch.Tensor, torch.Tensor]
) -> dict[str, Callable[[], Any]]:
    """Its extensions, with the scale of ours: theirs are those of the mean's summands."""
    try:
        from backpack import backpack as extended
        from backpack import extend
        from backpack.extensions import BatchL2Grad, DiagGGNExact, Variance
    except ImportError:
        return {}
    extend(model)
    loss = extend(torch.nn.CrossEntropyLoss())
    batch = len(given[0])

    def run(extension: Any, attribute: str, factor: float) -> Callable[[], Any]:
        def call() -> Any:
            model.zero_grad()
            with extended(extension()):
                loss(model(given[0]), given[1]).backward()
            return [factor * getattr(parameter, attribute) for parameter in model.parameters()]

        return call

    return {
        "BackPACK norms of the samples": run(BatchL2Grad, "batch_l2", batch**2),
        "BackPACK variance": run(Variance, "variance", batch**2),
        "BackPACK diagonal of the GGN": run(DiagGGNExact, "diag_ggn_exact", 1.0),
    }


if __name__ == "__main__":
    main()
