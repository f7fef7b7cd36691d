"""Memory and time of a transformer's derivatives, with attention's scores kept and computed again.

    python benchmarks/attention_memory.py [--places 64,256,1024] [--tokens 512] [--rounds 7] [--blocks 4]

The network of ``examples/transformer.yaml`` in float32 without options, with ``recompute``, and in
``blocks``, for so many places and batches of so many tokens in all (one sample at least); one thread. Numbers
at the peak, beside what was there before (``kept``: what ``linearize`` holds), and CPU seconds, both as
multiples of those of a gradient with PyTorch's own layers and its attention kernel right before, medians.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = "1"

import torch  # noqa: E402
import yaml  # noqa: E402
from layer_networks import Transformer  # noqa: E402
from memory import peak_numbers  # noqa: E402
from timing import print_table  # noqa: E402

import sifrc  # noqa: E402

SPEC = Path(__file__).resolve().parents[1] / "examples" / "transformer.yaml"
OPERATORS = ("gradient", "hessian_vector_product", "gauss_newton_vector_product")


def seconds(run: Callable[[], object]) -> float:
    """CPU seconds of one call."""
    start = time.process_time()
    run()
    return time.process_time() - start


def rows(places: int, batch: int, rounds: int, blocks: int) -> list[tuple[str, ...]]:
    """One row for each setting of the option."""
    network = Transformer(places)
    x, t = torch.randint(65, (2, batch, places))
    own = list(network.parameters())

    def gradient() -> object:
        loss = torch.nn.functional.cross_entropy(network(x).movedim(-1, 1), t)
        return torch.autograd.grad(loss, own)

    gradient()
    base = peak_numbers(gradient)
    data = yaml.safe_load(SPEC.read_text(encoding="utf-8"))
    data["network"]["input"]["size"] = places
    table = []
    settings: dict[str, dict[str, bool | int]] = {
        "kept": {},
        "again": {"recompute": True},
        f"in {blocks} blocks": {"blocks": blocks},
    }
    for name, options in settings.items():
        module = sifrc.compile(
            sifrc.build_spec(data),
            backend="torch",
            method="none",
            operators=OPERATORS,
            backend_options=options,
        )
        params = module.initialize()
        vector = {name: torch.randn(shape) for name, shape in module.SHAPES.items()}
        runs: list[Callable[[], object]] = [lambda module=module, p=params: module.gradient(p, x, t)]
        kept = []
        for kind in ("hessian", "gauss_newton"):
            product = module.linearize(params, x, t, kind)
            runs.append(lambda product=product, v=vector: product(v))
            cells = [c.cell_contents for c in product.__wrapped__.__closure__ or ()]
            found = {
                tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() / 4
                for cell in cells
                for tensor in (cell.values() if isinstance(cell, dict) else [cell])
                if isinstance(tensor, torch.Tensor)
            }
            kept.append(sum(found.values()) / base)
        texts = [f"{places} × {batch}", name]
        for number, run in enumerate(runs):
            first = seconds(gradient)
            ratios = [seconds(run) / first]
            for _ in range(rounds - 1):
                first = seconds(gradient)
                ratios.append(seconds(run) / first)
            texts.append(f"{peak_numbers(run) / base:.2f}")
            texts += [f"{kept[number - 1]:.2f}"] if number else []
            texts.append(f"{median(ratios):.2f}")
        table.append(tuple(texts))
    return table


def main() -> None:
    """All numbers of places."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--places", default="64,256,1024")
    parser.add_argument("--tokens", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--blocks", type=int, default=4)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    table = [
        row
        for places in map(int, arguments.places.split(","))
        for row in rows(places, max(1, arguments.tokens // places), arguments.rounds, arguments.blocks)
    ]
    heads = ("places × batch", "scores", "gradient: peak", "time", "Hv: peak", "kept", "time")
    print_table("Multiples of a torch gradient", (*heads, "GGNv: peak", "kept", "time"), table)


if __name__ == "__main__":
    main()
