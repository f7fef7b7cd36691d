"""What ``op @ v`` of ``sifrc.operators`` takes over the generated product that it calls.

    OMP_NUM_THREADS=1 python benchmarks/linear_operators.py [--batch 100] [--rounds 41]

LeNet of ``examples/cifar_lenet.yaml``, one batch. Operators keep the point of a single batch, as
``linearize`` does; what is left is taking a vector apart, its check, and putting the product together.
"""

from __future__ import annotations

import argparse
from functools import partial
from operator import matmul
from pathlib import Path

import torch
from timing import interleaved

import sifrc

SPEC = Path(__file__).resolve().parents[1] / "examples/cifar_lenet.yaml"


def main() -> None:
    """Print a row for each operator and form of the vector."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--batch", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=41)
    given = parser.parse_args()
    torch.manual_seed(0)
    inputs, targets = torch.randn(given.batch, 3, 32, 32), torch.randint(10, (given.batch,))
    ops = sifrc.operators(SPEC, None, (inputs, targets))
    kinds = {"hessian": ops.H, "gauss_newton": ops.G, "fisher": ops.F()}
    print(f"LeNet, {ops.space.size} parameters, batch {given.batch}, {torch.get_num_threads()} thread(s)")
    for kind, op in kinds.items():
        module = sifrc.compile(SPEC, "torch", "none", (f"{kind}_vector_product",))
        product = module.linearize(module.initialize(0), inputs, targets, kind=kind)
        flat = torch.randn(ops.space.size)
        named = {key: value.clone() for key, value in ops.space.split(flat).items()}
        forms = {"flat": flat, "dict": named, "list": list(named.values())}
        found = interleaved(
            {"generated": partial(product, named)}
            | {form: partial(matmul, op, vector) for form, vector in forms.items()},
            "generated",
            given.rounds,
        )
        for form in forms:
            more = 100 * (found[form].cpu_ratio - 1)
            print(f"{op.name} @ {form}: {1e3 * found[form].cpu_seconds:6.2f} ms of CPU, {more:+.1f} %")


if __name__ == "__main__":
    main()
