"""Training curves of SGD, EA-CG and KFI with each kind of curvature, as in Figs. 1 to 8 of the EA-CG paper.

    SIFRC_DATA=FOLDER python examples/train_curvature.py [--loss bounded] [--network wide] [-o FOLDER]

Equal for all methods: network, data, initial weights, order of samples, batch, momentum, and the search.
The search gives every method ``--trials`` runs of ``--search-epochs`` epochs and takes the one with the least
training loss; then one full run. EA-CG and KFI have a damping besides the learning rate, so they spend their
runs on a grid of both; SGD spends as many runs on learning rates alone. The best of three or more values of
a hyperparameter is marked with * where it is at an end of them.

Both solvers are those of the generated Torch module and SGD is PyTorch's. Seconds are those of training steps
alone; with one thread, as by default, they are the processor's, so that other work on the machine does not
count, with more ``--threads`` those of a clock on the wall.

The initial weights are Glorot's times ``--gain``: without it eight sigmoid layers pass on next to nothing,
and SGD stays where all classes are equally likely (see layer_errors.py). KFI factors the second moment of
the inputs, 3072 x 3072 of them for whole images, in every step; so the narrow network takes images of
16 x 16 pixels, means of 2 x 2 (``--pool 1`` for whole ones), and then has 768 inputs.
"""

from __future__ import annotations

import argparse
import csv
import io
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from compare import baseline, final, generated, is_divergence
from layer_errors import LOSSES, NETWORKS, network_spec

import sifrc
from sifrc.cli.files import write_file
from sifrc.data import Dataset, load_dataset
from sifrc.training import fit
from sifrc.training.baselines import sgd
from sifrc.training.history import History
from sifrc.training.plots import comparison_plot

KINDS = ("pch1", "pch2", "kfra", "fisher", "empirical_fisher")
SOLVERS: Mapping[str, str] = MappingProxyType({"EA-CG": "ea_cg", "KFI": "kfi"})
POOLS: Mapping[str, int] = MappingProxyType({"narrow": 2, "wide": 1})

# Middle of the learning rates and factor between them. The paper has 0.05, 0.1 and 0.2; with momentum a
# Newton step wants less.
SGD_RATES = (0.1, 2.0)
NEWTON_RATES = (0.05 / 10**0.5, 10**0.5)
ALPHAS = (0.1, 10**-0.5)  # the largest damping and the factor to the next; the paper has 0.01 to 0.1

COLUMNS = ("test_loss", "train_accuracy", "test_accuracy")


@dataclass(frozen=True)
class Contestant:
    """A method in the comparison.

    Args:
        name: in tables and pictures.
        kind: of curvature; empty for SGD.
        solver: option of the method; empty for SGD.
    """

    name: str
    kind: str = ""
    solver: str = ""

    @property
    def style(self) -> dict[str, Any]:
        """A colour for each kind, a line for each solver."""
        if not self.kind:
            return {"color": "black"}
        return {"color": f"C{KINDS.index(self.kind)}", "ls": "--" if self.solver == "kfi" else "-"}


@dataclass(frozen=True)
class Outcome:
    """The full run of a method with what the search found.

    Args:
        chosen: its hyperparameters.
        edges: those of them at an end of their grid.
        history: of the run.
    """

    chosen: Mapping[str, float]
    edges: tuple[str, ...]
    history: History


def contestants(kinds: Sequence[str], solvers: Sequence[str], loss: str) -> Iterator[Contestant]:
    """SGD, and each solver with each kind that the loss permits."""
    yield Contestant("SGD")
    for title in solvers:
        for kind in kinds:
            # KFRA keeps the output's block as it is, which is indefinite where the loss is not convex.
            if kind != "kfra" or loss != "bounded":
                yield Contestant(f"{title} {kind}", kind, SOLVERS[title])


def grids(trials: int, curved: bool) -> dict[str, list[float]]:
    """Values of each hyperparameter; the same number of combinations with a damping and without.

    Example:
        >>> {name: len(values) for name, values in grids(6, True).items()}, len(grids(6, False)["lr"])
        ({'lr': 3, 'alpha': 2}, 6)
    """
    alphas = math.isqrt(trials)
    rates = trials // alphas
    if not curved:
        rates, alphas = rates * alphas, 0
    middle, factor = NEWTON_RATES if curved else SGD_RATES
    found = {"lr": [middle * factor ** (k - (rates - 1) // 2) for k in range(rates)]}
    if curved:
        found["alpha"] = [ALPHAS[0] * ALPHAS[1] ** k for k in range(alphas)]
    return found


def pooled(dataset: Dataset, factor: int) -> Dataset:
    """Images of a data set with means of ``factor`` x ``factor`` pixels for pixels."""
    if factor == 1:
        return dataset
    if dataset.image_shape is None or any(side % factor for side in dataset.image_shape):
        raise SystemExit(f"--pool {factor} does not divide the images of {dataset.name}")
    height, width = dataset.image_shape

    def smaller(images: np.ndarray) -> np.ndarray:
        shape = (len(images), -1, height // factor, factor, width // factor, factor)
        return np.ascontiguousarray(images.reshape(shape).mean((3, 5)).reshape(len(images), -1))

    return replace(
        dataset,
        source=f"{dataset.source}, means of {factor} x {factor} pixels",
        train_inputs=smaller(dataset.train_inputs),
        test_inputs=smaller(dataset.test_inputs),
        image_shape=(height // factor, width // factor),
    )


def search(
    name: str,
    grid: Mapping[str, Sequence[float]],
    short: Callable[[Mapping[str, float]], History],
    full: Callable[[Mapping[str, float]], History],
) -> Outcome:
    """Run every combination shortly, and the best one in full; the next one where a full run diverges.

    There is nothing to search among one combination.
    """
    combinations = [*product(*grid.values())]
    losses = dict.fromkeys(combinations, 0.0)
    for values in combinations if len(combinations) > 1 else ():
        chosen = dict(zip(grid, values, strict=True))
        losses[values] = final(lambda chosen=chosen: short(chosen), "train_loss")  # type: ignore[misc]
        print(f"  {name:22s} {text_of(chosen):24s} train loss {losses[values]:.4f}", flush=True)
    for values in sorted(losses, key=lambda values: losses[values]):
        chosen = dict(zip(grid, values, strict=True))
        try:
            history = full(chosen)
        except sifrc.TrainingError as error:
            if not is_divergence(error):
                raise
            print(f"  {name:22s} {text_of(chosen):24s} {error.message}", flush=True)
            continue
        edges = (
            key for key, tried in grid.items() if len(tried) > 2 and chosen[key] in (tried[0], tried[-1])
        )
        return Outcome(chosen, tuple(edges), history)
    raise SystemExit(f"{name} diverged with every one of its {len(losses)} settings")


def text_of(chosen: Mapping[str, float], edges: Sequence[str] = ()) -> str:
    return ", ".join(f"{key} {value:.3g}{'*' * (key in edges)}" for key, value in chosen.items())


def table_of(outcomes: Mapping[str, Outcome], steps: int) -> str:
    """For people: settings, last measurements, and seconds, of the run and of one of its ``steps``."""
    settings = {name: text_of(outcome.chosen, outcome.edges) for name, outcome in outcomes.items()}
    wide = max(24, *map(len, settings.values()))
    lines = [
        f"{'method':22s} {'settings':{wide}s} {'train loss':>10} {'test loss':>10} {'test acc.':>9} "
        f"{'seconds':>8} {'ms/step':>8}"
    ]
    for name, outcome in outcomes.items():
        last = outcome.history.last
        lines.append(
            f"{name:22s} {settings[name]:{wide}s} {last.train_loss:10.4f} "
            f"{last.test_loss:10.4f} {100 * last.test_accuracy:7.1f} % {last.seconds:8.2f} "
            f"{1e3 * last.seconds / steps:8.2f}"
        )
    return "\n".join(lines)


def write_curves(outcomes: Mapping[str, Outcome], file: Path, keys: Sequence[str] = ("lr", "alpha")) -> None:
    """Every epoch of every full run, with its hyperparameters ``keys``."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(("method", *keys, "epoch", "seconds", "train_loss", *COLUMNS))
    for name, outcome in outcomes.items():
        chosen = outcome.chosen
        settings = [f"{chosen[key]:.6g}" if key in chosen else "" for key in keys]
        for row in outcome.history:
            measured = [f"{getattr(row, column):.6g}" for column in ("train_loss", *COLUMNS)]
            writer.writerow((name, *settings, row.epoch, f"{row.seconds:.4f}", *measured))
    write_file(file, stream.getvalue())


def compare(
    spec: sifrc.Spec, dataset: Dataset, methods: Sequence[Contestant], arguments: argparse.Namespace
) -> dict[str, Outcome]:
    """Search and full run of every method, all from the same weights."""
    start = sifrc.compile(spec, backend="torch", method="none", operators=()).initialize(arguments.seed)
    # Biases start at zero, so that the factor is one of the weights.
    initial = {name: arguments.gain * value.numpy() for name, value in start.items()}
    outcomes = {}
    for method in methods:
        if method.kind:
            options = {"kind": method.kind, "solver": method.solver, "momentum": arguments.momentum}
            build = generated(spec, "ea_cg", "torch", **options)
        else:
            build = baseline(spec, sgd, momentum=arguments.momentum)

        def run(chosen: Mapping[str, float], epochs: int, build: Callable[..., Any] = build) -> History:
            trainable = build(initial, arguments.seed, **chosen)
            clock = time.process_time if arguments.threads == 1 else time.perf_counter
            settings = {"batch": arguments.batch, "seed": arguments.seed, "progress": False, "clock": clock}
            return fit(trainable, dataset, epochs=epochs, **settings)

        outcomes[method.name] = search(
            method.name,
            grids(arguments.trials, bool(method.kind)),
            lambda chosen, run=run: run(chosen, arguments.search_epochs),  # type: ignore[misc]
            lambda chosen, run=run: run(chosen, arguments.epochs),  # type: ignore[misc]
        )
    return outcomes


def main(given: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="cifar10", help="cifar10, mnist or another set with 10 classes")
    parser.add_argument("--data-path", type=Path, default=None, help="folder of its files; else SIFRC_DATA")
    parser.add_argument("--network", choices=tuple(NETWORKS), default="narrow")
    parser.add_argument("--loss", choices=(*LOSSES, "both"), default="cross_entropy")
    parser.add_argument("--kinds", default=",".join(KINDS), help="of curvature, by commas; none: SGD")
    parser.add_argument("--solvers", default=",".join(SOLVERS), help="EA-CG, KFI or both")
    parser.add_argument("--pool", type=int, default=None, help="2 for the narrow network, 1 for the wide one")
    parser.add_argument("--batch", type=int, default=100, help="100, 500 or 1000 in the paper")
    parser.add_argument("--epochs", type=int, default=10, help="200 in the paper")
    parser.add_argument("--search-epochs", type=int, default=2)
    parser.add_argument("--trials", type=int, default=6, help="runs of the search, for each method")
    parser.add_argument("--momentum", type=float, default=0.9, help="of every method")
    parser.add_argument("--gain", type=float, default=4.0, help="factor of the initial weights")
    parser.add_argument("--train-count", type=int, default=None, help="use the first so many samples")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("-o", "--output", type=Path, default=Path("runs/train_curvature"))
    arguments = parser.parse_args(given)
    if arguments.trials < 1:
        parser.error("--trials is at least 1")
    kinds = [] if arguments.kinds == "none" else arguments.kinds.split(",")
    chosen = {"--kinds": kinds, "--solvers": arguments.solvers.split(",")}
    for option, known in (("--kinds", KINDS), ("--solvers", tuple(SOLVERS))):
        if unknown := [name for name in chosen[option] if name not in known]:
            parser.error(f"{option} {','.join(unknown)}: known are {', '.join(known)}")
    torch.set_num_threads(arguments.threads)

    dataset = load_dataset(arguments.data, path=arguments.data_path, train_count=arguments.train_count)
    usual = POOLS[arguments.network] if arguments.data == "cifar10" else 1
    dataset = pooled(dataset, arguments.pool or usual)
    print(dataset.describe())
    arguments.output.mkdir(parents=True, exist_ok=True)
    steps = arguments.epochs * math.ceil(len(dataset.train_inputs) / arguments.batch)
    for loss in LOSSES if arguments.loss == "both" else (arguments.loss,):
        spec = network_spec(arguments.network, dataset, loss)
        methods = tuple(contestants(chosen["--kinds"], chosen["--solvers"], loss))
        sizes = "-".join(str(size) for size in (spec.input.size, *(layer.size for layer in spec.layers)))
        print(f"\n{loss}, {sizes} sigmoid, {arguments.gain:g} x Glorot, batch {arguments.batch}")
        outcomes = compare(spec, dataset, methods, arguments)
        print(
            f"\n{loss}: {arguments.epochs} epochs, {steps} steps; momentum {arguments.momentum:g}; best of "
            f"{arguments.trials} settings after {arguments.search_epochs} epochs; * at an end of the grid"
        )
        print(table_of(outcomes, steps), flush=True)
        stem = arguments.output / f"training_{arguments.data}_{arguments.network}_{loss}"
        write_curves(outcomes, stem.with_suffix(".csv"))
        styles = {method.name: method.style for method in methods}
        # Without epoch 0, where all are at the same place, mostly far above the rest.
        histories = {
            name: replace(outcome.history, rows=outcome.history.rows[1:])
            for name, outcome in outcomes.items()
        }
        comparison_plot(histories, stem.with_suffix(".png"), measurement="train_loss", styles=styles)
        print(f"wrote {stem}.csv and {stem.name}.png", flush=True)


if __name__ == "__main__":
    main()
