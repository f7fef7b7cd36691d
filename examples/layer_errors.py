"""Errors of approximate curvature blocks, layer by layer: Tables 2 and 4 of the EA-CG paper.

    SIFRC_DATA=FOLDER python examples/layer_errors.py [--data mnist] [--network wide] [-o FOLDER]

For layer t the error of an approximation is ‖E[approximate block] − |E[∇²_b ξ]|‖ in the Frobenius norm:
E is the mean over a batch, ∇²_b ξ the Hessian of a sample's loss in the pre-activation of the layer,
and | | takes absolute values of eigenvalues. Every number is the mean over the parameters θ⁰ … θ^{s−1}
of s training steps (every so many of them), each measured on the batch of its step. "Total" is the root of
the sum of the squares of the rows above it; the paper does not say so, but all 14 totals of its Tables 2–5
are that, to all digits.

What the paper leaves open is an option here: the batch, the number of steps, and how θ moves (SGD with
momentum 0.9, the paper's baseline, and a learning rate of its grid). So is a factor of the initial weights:
Glorot's limit √(6/(inputs + outputs)) is meant for tanh, and four times that is usual for sigmoid. With the
factor 1 eight sigmoid layers pass on next to nothing, SGD does not leave the plateau where all classes are
equally likely within thousands of steps, and the blocks of the first layers are zero to four digits.

The paper does not say either which Fisher matrix it takes, so there are three: the expectation over the
classes of the model, one target drawn from the model for each sample, and the given target ("empirical").
It is not the first: that one is exact at the output under cross-entropy, and Table 2 has 0.0251 there.
Its GN is KFRA, left out for the bounded criterion as in the paper: where the criterion is not convex, the
matrix is indefinite.
"""

from __future__ import annotations

import argparse
import csv
import io
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch

import sifrc
from sifrc.cli.files import write_file
from sifrc.data import Dataset, check_fits, load_dataset
from sifrc.spec import build_spec

FOLDER = Path(__file__).resolve().parent
NETWORKS = {"wide": FOLDER / "cifar_sigmoid.yaml", "narrow": FOLDER / "cifar_narrow.yaml"}
LOSSES: Mapping[str, Any] = {
    "cross_entropy": {"function": "cross_entropy"},
    "bounded": {"function": "bounded", "parameters": {"delta": 5.0, "epsilon": 0.2}},
}

# column of the paper -> our kinds, each with its heading
COLUMNS: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        "Fisher": {"fisher": "exact", "sampled_fisher": "sampled", "empirical_fisher": "empiric"},
        "GN": {"kfra": "kfra"},
        "PCH-1": {"pch1": "pch1"},
        "PCH-2": {"pch2": "pch2"},
    }
)


@dataclass(frozen=True)
class Table:
    """A table of the paper: a column for each approximation, layers 1 to 8 and the total."""

    name: str
    columns: Mapping[str, Sequence[float]]


# CIFAR-10, network 3072-1024-512-256-128-64-32-16-10
PAPER = {
    "cross_entropy": Table(
        "Table 2",
        {
            "Fisher": (0.0071, 0.0470, 0.1140, 0.0726, 0.0397, 0.0219, 0.0185, 0.0251, 0.1535),
            "GN": (0.0057, 0.0212, 0.0220, 0.0207, 0.0130, 0.0107, 0.0176, 0.0000, 0.0446),
            "PCH-1": (0.0036, 0.0237, 0.0238, 0.0119, 0.0086, 0.0093, 0.0132, 0.0000, 0.0402),
            "PCH-2": (0.0043, 0.0228, 0.0165, 0.0085, 0.0066, 0.0071, 0.0106, 0.0000, 0.0330),
        },
    ),
    "bounded": Table(
        "Table 4",
        {
            "Fisher": (0.0044, 0.0192, 0.0528, 0.0449, 0.0330, 0.0294, 0.0331, 0.0781, 0.1198),
            "PCH-1": (0.0035, 0.0179, 0.0185, 0.0129, 0.0092, 0.0097, 0.0140, 0.0000, 0.0349),
            "PCH-2": (0.0049, 0.0456, 0.0502, 0.0344, 0.0261, 0.0198, 0.0198, 0.0000, 0.0853),
        },
    ),
}


@dataclass(frozen=True)
class Errors:
    """Mean errors.

    Args:
        layers: names, the first one first.
        exact: mean of ‖E[∇²_b ξ]‖ of each layer.
        kinds: kind -> mean error of each layer.
        losses: on the batches of the steps, before each.
    """

    layers: tuple[str, ...]
    exact: tuple[float, ...]
    kinds: Mapping[str, tuple[float, ...]]
    losses: tuple[float, ...]


def absolute(block: torch.Tensor) -> torch.Tensor:
    """The symmetric matrix (n, n) with absolute values of the eigenvalues, in float64."""
    block = block.double()
    values, vectors = torch.linalg.eigh((block + block.T) / 2)
    return (vectors * values.abs()) @ vectors.T


def total(errors: Sequence[float]) -> float:
    """Of the rows of a column."""
    return math.sqrt(sum(error**2 for error in errors))


def batches(dataset: Dataset, size: int, seed: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Batches of shuffled epochs, without end; what does not fill a batch is left out."""
    if not 1 <= size <= len(dataset.train_inputs):
        raise SystemExit(f"--batch {size}: there are {len(dataset.train_inputs)} training samples")
    rng = np.random.default_rng(seed)
    while True:
        order = rng.permutation(len(dataset.train_inputs))
        for start in range(0, len(order) - size + 1, size):
            rows = order[start : start + size]
            yield torch.from_numpy(dataset.train_inputs[rows]), torch.from_numpy(dataset.train_targets[rows])


def measure(
    module: Any, params: Any, inputs: torch.Tensor, targets: torch.Tensor, kinds: Sequence[str], seed: int
) -> tuple[list[str], list[float], dict[str, list[float]]]:
    """Layers, norms of the exact blocks and errors of each kind, at one place and for one batch."""
    exact = module.block_hessian(params, inputs, targets, kind="hessian")
    target = {name: absolute(block) for name, block in exact.items()}
    errors: dict[str, list[float]] = {}
    for kind in kinds:
        drawn = {"seed": seed} if kind == "sampled_fisher" else {}
        blocks = module.block_hessian(params, inputs, targets, kind=kind, **drawn)
        errors[kind] = [float((blocks[name].double() - target[name]).norm()) for name in target]
    layers = [name.removesuffix(".bias") for name in target]
    return layers, [float(block.norm()) for block in target.values()], errors


def run(
    module: Any,
    dataset: Dataset,
    kinds: Sequence[str],
    *,
    batch: int,
    steps: int,
    every: int = 1,
    rate: float = 0.1,
    momentum: float = 0.9,
    gain: float = 1.0,
    seed: int = 0,
    device: str = "cpu",
) -> Errors:
    """Train for so many steps and measure at every so many of the places visited."""
    # Biases start at zero, so that the factor is one of the weights.
    params = {name: gain * value.to(device) for name, value in module.initialize(seed).items()}
    optimizer = torch.optim.SGD(params.values(), lr=rate, momentum=momentum)
    layers: list[str] = []
    norms: list[list[float]] = []
    measured: dict[str, list[list[float]]] = {kind: [] for kind in kinds}
    losses = []
    stream = batches(dataset, batch, seed)
    for step in range(steps):
        inputs, targets = (part.to(device) for part in next(stream))
        losses.append(float(module.loss(params, inputs, targets)))
        if step % every == 0:
            layers, norm, errors = measure(module, params, inputs, targets, kinds, seed + step)
            norms.append(norm)
            for kind in kinds:
                measured[kind].append(errors[kind])
        gradient = module.gradient(params, inputs, targets)
        for name, value in params.items():
            value.grad = gradient[name]
        optimizer.step()
    return Errors(
        tuple(layers),
        tuple(np.mean(norms, axis=0).tolist()),
        {kind: tuple(np.mean(rows, axis=0).tolist()) for kind, rows in measured.items()},
        tuple(losses),
    )


def rows_of(errors: Errors, paper: Table | None) -> list[tuple[str, str, str, float | None, float | None]]:
    """(layer, column of the paper, kind, our error, the paper's error); the total comes last."""
    rows: list[tuple[str, str, str, float | None, float | None]] = []
    names = (*errors.layers, "total")
    for index, layer in enumerate(names):
        for column, kinds in COLUMNS.items():
            printed = paper.columns.get(column) if paper is not None else None
            theirs = printed[index] if printed is not None and len(printed) == len(names) else None
            for kind in kinds:
                ours = errors.kinds.get(kind)
                value = None if ours is None else (*ours, total(ours))[index]
                rows.append((layer, column, kind, value, theirs))
    return rows


def text_of(errors: Errors, paper: Table | None) -> str:
    """The table for people: ours, and the paper's beside it where there is one."""

    def cell(value: float | str | None) -> str:
        if not isinstance(value, float):
            return f"{value or '-':>8}"
        # What four digits would hide keeps its order of magnitude; rounding alone counts as zero.
        return f"{value:8.0e}" if 5e-7 < value < 5e-5 else f"{value:8.4f}"

    above, headings = f"{'':9}", f"{'layer':9}"
    for column, kinds in COLUMNS.items():
        width = 8 * (len(kinds) + (paper is not None))
        above += f" | {column:^{width}}"
        headings += " | " + "".join(cell(name) for name in (*kinds.values(), *(["paper"] if paper else [])))
    lines = [above, headings + " | ‖exact‖", "-" * (len(headings) + 10)]
    rows = rows_of(errors, paper)
    for index, layer in enumerate((*errors.layers, "total")):
        line = f"{layer:9}"
        for column in COLUMNS:
            entries = [row for row in rows if row[:2] == (layer, column)]
            line += " | " + "".join(cell(row[3]) for row in entries)
            line += cell(entries[0][4]) if paper else ""
        lines.append(f"{line} |{cell((*errors.exact, total(errors.exact))[index])}")
    return "\n".join(lines)


def network_spec(network: str, dataset: Dataset, loss: str) -> sifrc.Spec:
    """The spec of a network with the inputs of the data set and the loss asked for."""
    spec = sifrc.load_spec(NETWORKS[network])
    other = build_spec(
        {
            "sifrc": 1,
            "name": "other",
            "network": {"input": {"size": 1}, "layers": [{"type": "dense", "units": 1}]},
            "loss": LOSSES[loss],
        }
    )
    spec = replace(spec, input=replace(spec.input, shape=(dataset.input_size,)), loss=other.loss)
    check_fits(dataset, spec.input.shape, spec.layers[-1].size, spec.loss.targets)
    return spec


def compiled(network: str, dataset: Dataset, loss: str, kinds: Sequence[str]) -> Any:
    """The module that measures."""
    return sifrc.compile(
        network_spec(network, dataset, loss),
        backend="torch",
        method="none",
        operators=("gradient", "block_hessian"),
        curvature=("hessian", *kinds),
    )


def main(given: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="cifar10", help="cifar10, mnist or another set with 10 classes")
    parser.add_argument("--data-path", type=Path, default=None, help="folder of its files; else SIFRC_DATA")
    parser.add_argument("--network", choices=tuple(NETWORKS), default="narrow")
    parser.add_argument("--loss", choices=(*LOSSES, "both"), default="both")
    parser.add_argument("--batch", type=int, default=100, help="100, 500 or 1000 in the paper")
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument(
        "--every", type=int, default=None, help="measure before every so many steps: 20 times"
    )
    parser.add_argument("--gain", type=float, default=4.0, help="factor of the initial weights")
    parser.add_argument("--lr", type=float, default=0.1, help="0.05, 0.1 or 0.2 in the paper")
    parser.add_argument("--momentum", type=float, default=0.9)
    parser.add_argument("--train-count", type=int, default=None, help="use the first so many samples")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("-o", "--output", type=Path, default=Path("runs/layer_errors"))
    arguments = parser.parse_args(given)
    if arguments.steps < 1 or (arguments.every is not None and arguments.every < 1):
        parser.error("--steps and --every are at least 1")
    every = arguments.every or max(1, arguments.steps // 20)

    dataset = load_dataset(
        arguments.data, path=arguments.data_path, train_count=arguments.train_count, test_count=1
    )
    print(dataset.describe())
    records = []
    for loss in LOSSES if arguments.loss == "both" else (arguments.loss,):
        kinds = [kind for of in COLUMNS.values() for kind in of if loss == "cross_entropy" or kind != "kfra"]
        module = compiled(arguments.network, dataset, loss, kinds)
        start = time.perf_counter()
        errors = run(
            module,
            dataset,
            kinds,
            batch=arguments.batch,
            steps=arguments.steps,
            every=every,
            rate=arguments.lr,
            momentum=arguments.momentum,
            gain=arguments.gain,
            seed=arguments.seed,
            device=arguments.device,
        )
        paper = PAPER[loss] if arguments.data == "cifar10" else None
        sizes = "-".join(str(n) for n in (dataset.input_size, *(v[0] for v in bias_shapes(module))))
        print(
            f"\n{loss}, {sizes} sigmoid, {arguments.gain:g} x Glorot, batch {arguments.batch}\n"
            f"{arguments.steps} steps of SGD with lr {arguments.lr:g} and momentum {arguments.momentum:g}, "
            f"measured before every {every}; loss {errors.losses[0]:.4f} to {errors.losses[-1]:.4f}; "
            f"{time.perf_counter() - start:.1f} s"
        )
        if paper is not None:
            print(f"paper: EA-CG {paper.name}, CIFAR-10, 3072-1024-512-256-128-64-32-16-10 sigmoid")
        print(text_of(errors, paper), flush=True)
        settings = (arguments.data, arguments.network, loss, arguments.gain, arguments.batch, arguments.steps)
        names = (*errors.layers, "total")
        norms = dict(zip(names, (*errors.exact, total(errors.exact)), strict=True))
        for layer, column, kind, ours, theirs in rows_of(errors, paper):
            if ours is None:
                continue
            printed = ("", "", "") if theirs is None else (PAPER[loss].name, column, f"{theirs:.4f}")
            records.append((*settings, layer, kind, f"{ours:.6g}", f"{norms[layer]:.6g}", *printed))
    arguments.output.mkdir(parents=True, exist_ok=True)
    file = arguments.output / f"layer_errors_{arguments.data}_{arguments.network}.csv"
    heads = (
        "data,network,loss,gain,batch,steps,layer,kind,error,exact_norm,paper_table,paper_column,paper_error"
    )
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(heads.split(","))
    writer.writerows(records)
    write_file(file, stream.getvalue())
    print(f"\nwrote {file}")


def bias_shapes(module: Any) -> list[tuple[int, ...]]:
    """Of the layers in order."""
    return [tuple(shape) for name, shape in module.SHAPES.items() if name.endswith(".bias")]


if __name__ == "__main__":
    main()
