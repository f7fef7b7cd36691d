"""Gradient with curvature factors, and whole EA-CG steps, as multiples of torch's gradient and SGD step.

    python benchmarks/curvature_blocks.py [--batch 1000] [--threads 2] [--width 1.0]

The network of the EA-CG paper, 3072-1024-512-256-128-64-32-16-10 sigmoid, cross-entropy, float32. Base
of the first ratio is one gradient of torch autograd in the same round, of the second one step of
torch.optim.SGD with momentum. Where BackPACK is installed, its PCH factors are timed beside ours.
"""

from __future__ import annotations

import argparse
import os

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--batch", type=int, default=1000)
parser.add_argument("--threads", type=int, default=2)
parser.add_argument("--rounds", type=int, default=11)
parser.add_argument("--iterations", type=int, default=20)
arguments = parser.parse_args()
for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = str(arguments.threads)

import torch  # noqa: E402
from networks import EA_CG_PAPER as NETWORK  # noqa: E402
from timing import interleaved, print_table  # noqa: E402

import sifrc  # noqa: E402

OPERATORS = ("gradient", "curvature_factors", "gradient_and_factors")


def main() -> None:
    torch.set_num_threads(arguments.threads)
    spec = NETWORK.spec()
    options = {"curvature": ("pch1", "kfra"), "operators": OPERATORS}
    step = {"cg_iterations": float(arguments.iterations), "cg_tolerance": 0.0}
    numba_module = sifrc.compile(spec, backend="numba", method="ea_cg", **options, **step)
    torch_module = sifrc.compile(spec, backend="torch", method="ea_cg", **options, **step)
    inputs, targets = NETWORK.samples(arguments.batch)
    t_inputs, t_targets = torch.from_numpy(inputs), torch.from_numpy(targets)
    params = numba_module.init(0)
    t_params = {name: torch.from_numpy(value.copy()) for name, value in params.items()}
    model = NETWORK.module()
    own = list(model.parameters())
    sgd_model = NETWORK.module()
    sgd = torch.optim.SGD(sgd_model.parameters(), lr=1e-3, momentum=0.9)
    stepped = torch_module.Network(seed=0)
    optimizer = torch_module.Optimizer(
        stepped, lr=1e-4, cg_iterations=step["cg_iterations"], cg_tolerance=0.0
    )
    numba_params = {name: value.copy() for name, value in params.items()}
    state = numba_module.State(numba_params, lr=1e-4, cg_iterations=step["cg_iterations"], cg_tolerance=0.0)

    def autograd() -> object:
        loss = torch.nn.functional.cross_entropy(model(t_inputs), t_targets)
        return torch.autograd.grad(loss, own)

    def sgd_step() -> object:
        sgd.zero_grad()
        torch.nn.functional.cross_entropy(sgd_model(t_inputs), t_targets).backward()
        return sgd.step()

    def both(module: object, p: object, x: object, t: object, kind: str) -> object:
        return module.gradient_and_factors(p, x, t, kind=kind, moment="mean")  # type: ignore[attr-defined]

    candidates = {
        "torch autograd gradient": autograd,
        "torch SGD step": sgd_step,
        "sifrc torch gradient": lambda: torch_module.gradient(t_params, t_inputs, t_targets),
        "sifrc torch gradient + PCH-1": lambda: both(torch_module, t_params, t_inputs, t_targets, "pch1"),
        "sifrc torch gradient + KFRA": lambda: both(torch_module, t_params, t_inputs, t_targets, "kfra"),
        "sifrc torch EA-CG step": lambda: optimizer.step(t_inputs, t_targets),
        "sifrc numba gradient": lambda: numba_module.gradient(params, inputs, targets),
        "sifrc numba gradient + PCH-1": lambda: both(numba_module, params, inputs, targets, "pch1"),
        "sifrc numba EA-CG step": lambda: numba_module.step(numba_params, state, inputs, targets),
    }
    results = interleaved(candidates, "torch autograd gradient", arguments.rounds, warmup=2)
    sgd_seconds = results["torch SGD step"].seconds
    rows = [
        [name, f"{1e3 * r.seconds:.1f}", f"{r.ratio:.2f}", f"{r.seconds / sgd_seconds:.2f}"]
        for name, r in results.items()
    ]
    print_table(
        f"{NETWORK.name}, batch {arguments.batch}, float32, {arguments.threads} threads",
        ["quantity", "ms", "× torch gradient", "× SGD step"],
        rows,
    )


if __name__ == "__main__":
    main()
