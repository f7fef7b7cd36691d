"""Experiments of the grouped Newton paper (GN3) with its method, Adam and SGD.

    SIFRC_DATA=FOLDER python examples/grouped_newton.py methods     # Section 5.2, Apps. I, J: the MLP
    SIFRC_DATA=FOLDER python examples/grouped_newton.py lenet       # the same with LeNet
    SIFRC_DATA=FOLDER python examples/grouped_newton.py vgg         # the same with VGG-11', narrower
    SIFRC_DATA=FOLDER python examples/grouped_newton.py deep        # the same with BigMLP, narrower
    SIFRC_DATA=FOLDER python examples/grouped_newton.py very-deep   # App. H: VBigMLP, narrower, and its H̄
    SIFRC_DATA=FOLDER python examples/grouped_newton.py partitions  # App. K, Table 5
    SIFRC_DATA=FOLDER python examples/grouped_newton.py diagonal    # App. L, Fig. 6: full and diagonal H̄
    SIFRC_DATA=FOLDER python examples/grouped_newton.py cost        # seconds and memory in full width

Equal for all methods of an experiment: network, data, initial weights, order of samples, batch, and the
number and length of the runs of the search. Grouped Newton spends them on step sizes λ_1 times internal
dampings λ_int, Adam and SGD on as many learning rates. The setting with the least training loss gets the
full run. Everything else is the spec's, as the paper's Table 2; the plateau is part of grouped Newton
(Algorithm 4), the others have none. ``diagonal`` has no search: every setting is run in full, with H̄ and
with its diagonal.

Seconds are the processor's, in training steps alone, with one thread. The output has every epoch of the
full runs, a picture, and a folder with log and pictures for each of them.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from compare import baseline, generated, is_divergence
from grouped_newton_measures import PARTITIONS, cost_of, distant_median, distant_shares
from train_curvature import Outcome, search, table_of, text_of, write_curves

import sifrc
from sifrc.data import Dataset, load_dataset
from sifrc.spec.graph import size_text
from sifrc.training import Plateau, SummaryLog, fit
from sifrc.training.adapters import Trainable
from sifrc.training.baselines import adam, sgd
from sifrc.training.history import History
from sifrc.training.plots import comparison_plot

FOLDER = Path(__file__).parent
NEWTON = "grouped Newton"


@dataclass(frozen=True)
class Experiment:
    """What an experiment takes where the command line does not say otherwise.

    Args:
        spec: file in this folder.
        epochs: of the full runs.
        search_epochs: of each run of the search.
        steps: values of λ_1.
        dampings: values of λ_int.
        width: units of the hidden layers; the spec's where it is None.
        adam: exponent of Adam's middle learning rate; for the MLP 3e-4, as the paper's Table 3.
        sgd: the same of SGD.
    """

    spec: str
    epochs: int
    search_epochs: int
    steps: tuple[float, ...]
    dampings: tuple[float, ...]
    width: int | None = None
    adam: float = -3.5
    sgd: float = -1.5


EXPERIMENTS: Mapping[str, Experiment] = MappingProxyType(
    {
        "methods": Experiment("mnist_grouped.yaml", 10, 2, (0.1, 0.3, 1.0), (1.0, 3.0, 10.0)),
        "lenet": Experiment("cifar_lenet.yaml", 15, 2, (0.1, 0.3, 1.0), (1.0, 3.0, 10.0), None, -3.5, -2.0),
        "vgg": Experiment("cifar_vgg11_narrow.yaml", 6, 1, (0.1, 0.3), (3.0, 10.0), None, -3.5, -2.0),
        "deep": Experiment("cifar_bigmlp.yaml", 10, 1, (0.1, 0.3), (3.0, 10.0), 64, -4.0, -2.0),
        "very-deep": Experiment("cifar_vbigmlp.yaml", 8, 1, (0.1, 0.3), (3.0, 10.0), 64, -4.0, -2.0),
        "partitions": Experiment("cifar_nine_layers.yaml", 20, 2, (0.1, 0.3, 1.0), (1.0, 3.0, 10.0)),
        "diagonal": Experiment("cifar_nine_layers.yaml", 6, 0, (0.1, 0.3, 1.0), (3.0, 10.0)),
        "cost": Experiment("cifar_bigmlp.yaml", 1, 0, (0.1,), (10.0,)),
    }
)


@dataclass(frozen=True)
class Contestant:
    """A method in the comparison.

    Args:
        name: in tables and pictures.
        compile: makes the function from initial weights, seed and hyperparameters to what is trained.
        grid: values of each hyperparameter.
        extras: arguments of :func:`sifrc.training.fit` for this method.
        style: of its line.
    """

    name: str
    compile: Callable[[], Callable[..., Trainable]]
    grid: Mapping[str, Sequence[float]]
    extras: Mapping[str, Any] = field(default_factory=dict)
    style: Mapping[str, Any] = field(default_factory=dict)

    @property
    def logs(self) -> bool:
        """Whether its runs keep summaries."""
        return "curvature_batch" in self.extras


def narrowed(spec: sifrc.Spec, width: int | None) -> sifrc.Spec:
    """The spec with so many units in every hidden dense layer."""
    if width is None:
        return spec
    content = sifrc.spec.spec_to_dict(spec)
    dense = [layer for layer in content["network"]["layers"] if "units" in layer]
    for layer in dense[:-1]:
        layer["units"] = width
    return sifrc.build_spec(content)


def decades(centre: float, count: int) -> list[float]:
    """Learning rates 1, 3, 10, 30, … times a power of ten.

    Args:
        centre: exponent of the middle one; a half stands for the 3.
        count: of rates.

    Example:
        >>> decades(-3.5, 4)
        [0.0001, 0.0003, 0.001, 0.003]
    """
    first = round(2 * centre) - (count - 1) // 2
    return [float(f"{3 if half % 2 else 1}e{half // 2}") for half in range(first, first + count)]


def newton(
    name: str, spec: sifrc.Spec, arguments: argparse.Namespace, style: Mapping[str, Any], **options: Any
) -> Contestant:
    """Grouped Newton with options of its own, on the grid of the experiment."""
    training = spec.training
    plateau = training.plateau
    extras = {
        "curvature_batch": min(training.curvature_batch, arguments.train_count or training.curvature_batch),
        "plateau": None if plateau is None else Plateau(plateau.patience, plateau.factor),
    }
    grid = {"lr": arguments.steps, "internal_damping": arguments.dampings}
    build = partial(generated, spec, "grouped_newton", arguments.backend or spec.target.backend, **options)
    return Contestant(name, build, grid, extras, style)


def contestants(name: str, spec: sifrc.Spec, arguments: argparse.Namespace) -> list[Contestant]:
    """Those of an experiment."""
    if name == "partitions":
        return [
            newton(word, spec, arguments, {"color": f"C{number}"}, partition=word)
            for number, word in enumerate(PARTITIONS)
        ]
    if name == "diagonal":
        return [
            newton(f"{kind} H̄", spec, arguments, {"ls": line}, interactions=kind)
            for kind, line in (("full", "-"), ("diagonal", ":"))
        ]
    trials = len(arguments.steps) * len(arguments.dampings)
    usual = EXPERIMENTS[name]
    adams, sgds = {"lr": decades(usual.adam, trials)}, {"lr": decades(usual.sgd, trials)}
    return [
        newton(NEWTON, spec, arguments, {"color": "black"}),
        Contestant("Adam", partial(baseline, spec, adam), adams),
        Contestant("SGD, momentum 0.9", partial(baseline, spec, sgd, momentum=0.9), sgds),
    ]


class Runner:
    """Runs of one contestant on one data set from one start."""

    def __init__(
        self,
        contestant: Contestant,
        initial: Mapping[str, Any],
        dataset: Dataset,
        arguments: argparse.Namespace,
        batch: int,
    ) -> None:
        """Compile it."""
        self._contestant, self._initial, self._dataset = contestant, initial, dataset
        self._seed, self._batch = arguments.seed, batch
        self._build = contestant.compile()

    def run(
        self, chosen: Mapping[str, float], epochs: int, folder: Path | None = None, log: bool = True
    ) -> History:
        """Train; a run with a folder leaves its curve there, and its log."""
        trainable = self._build(self._initial, self._seed, **chosen)
        settings: dict[str, Any] = dict(self._contestant.extras)
        if self._contestant.logs and (folder is None or not log):
            settings["summaries"] = 0
        return fit(
            trainable,
            self._dataset,
            epochs=epochs,
            batch=self._batch,
            seed=self._seed,
            directory=folder,
            checkpoint_every=math.inf,
            progress=False,
            label=self._contestant.name,
            clock=time.process_time,
            **settings,
        )

    def curve(self, chosen: Mapping[str, float], epochs: int, folder: Path) -> History:
        """The same without a log; where a run breaks off, what it had come to."""
        try:
            return self.run(chosen, epochs, folder, log=False)
        except sifrc.TrainingError as error:
            if not is_divergence(error):
                raise
            print(f"  {self._contestant.name:22s} {text_of(chosen):34s} {error.message}", flush=True)
            return History.read_csv(folder / "metrics.csv", self._contestant.name)


def folder_of(output: Path, name: str) -> Path:
    """Of a run: its name in letters that any file system takes."""
    return output / "".join(letter if letter.isascii() and letter.isalnum() else "_" for letter in name)


def competition(
    methods: Sequence[Contestant],
    runner: Callable[[Contestant], Runner],
    arguments: argparse.Namespace,
    output: Path,
) -> dict[str, Outcome]:
    """Search and full run of every method."""
    outcomes = {}
    for method in methods:
        runs = runner(method)
        outcomes[method.name] = search(
            method.name,
            method.grid,
            partial(runs.run, epochs=arguments.search_epochs),
            partial(runs.run, epochs=arguments.epochs, folder=folder_of(output, method.name)),
        )
    return outcomes


def whole_grid(
    methods: Sequence[Contestant],
    runner: Callable[[Contestant], Runner],
    arguments: argparse.Namespace,
    output: Path,
) -> tuple[dict[str, Outcome], dict[str, Mapping[str, Any]]]:
    """A full run of every setting of every method, and a style for each: a colour for a setting."""
    outcomes, styles = {}, {}
    for method in methods:
        runs = runner(method)
        pairs = [(lr, damping) for lr in arguments.steps for damping in arguments.dampings]
        for number, (lr, damping) in enumerate(pairs):
            name = f"{method.name}, {lr:g}, {damping:g}"
            chosen = {"lr": lr, "internal_damping": damping}
            history = runs.curve(chosen, arguments.epochs, folder_of(output, name))
            outcomes[name] = Outcome(chosen, (), history)
            styles[name] = {**method.style, "color": f"C{number}"}
            last = history.last
            print(f"  {name:26s} epoch {last.epoch}: train loss {last.train_loss:.4f}", flush=True)
    return outcomes, styles


def report_interactions(file: Path) -> None:
    """How much of H̄ and its inverse is between chunks that are no neighbours, along a run (App. H)."""
    log = SummaryLog.load(file)
    print("share of Σ|·| between chunks that are not neighbours: all, weights, weights and biases, biases")
    epochs = log.epochs
    last = math.ceil(epochs[-1])
    rows = [("first summary", epochs == 0.0)]
    for mark in sorted({1, 2, last // 2, last}):
        rows.append((f"epoch {mark}", (epochs >= mark - 1) & (epochs < mark) & (epochs > 0)))
    for title, chosen in rows:
        if not chosen.any():
            continue
        for symbol, inverse in (("H̄", False), ("H̄⁻¹", True)):
            shares = distant_shares(log, chosen, inverse=inverse)
            text = "  ".join(f"{100 * share:6.2f} %" for share in shares)
            print(f"  {title:14s} {symbol:4s} {text}")
        print(f"  {title:14s} median of |H̄_st| / √|H̄_ss H̄_tt| {distant_median(log, chosen):.3f}")


def report_costs(spec: sifrc.Spec, names: Sequence[str], arguments: argparse.Namespace) -> None:
    """Seconds and memory of a few steps, each method in a process of its own."""
    batch = spec.training.curvature_batch
    print(
        f"steps of {spec.training.batch} samples, summaries of {min(batch, arguments.train_count or batch)}"
    )
    for name in names:
        cost = cost_of(spec, name, arguments)
        print(
            f"  {name:16s} {cost.groups:3d} groups, first step {cost.first:9.4f} s, "
            f"the next {cost.later:9.4f} s, {cost.megabytes:6.0f} MB more, "
            f"training loss {cost.before:.4f} to {cost.after:.4f}",
            flush=True,
        )


def numbers(text: str) -> tuple[float, ...]:
    """Numbers with commas between them."""
    return tuple(float(part) for part in text.split(","))


def parsed(given: Sequence[str] | None) -> argparse.Namespace:
    """The command line, with the defaults of its experiment."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("experiment", choices=tuple(EXPERIMENTS))
    parser.add_argument("--spec", type=Path, default=None, help="another network of the same kind")
    parser.add_argument("--data-path", type=Path, default=None, help="folder of the files; else SIFRC_DATA")
    parser.add_argument("--train-count", type=int, default=None, help="use the first so many samples")
    parser.add_argument("--epochs", type=int, default=None)
    parser.add_argument("--search-epochs", type=int, default=None)
    parser.add_argument("--steps", type=numbers, default=None, help="values of λ_1, by commas")
    parser.add_argument("--dampings", type=numbers, default=None, help="values of λ_int, by commas")
    parser.add_argument("--width", type=int, default=None, help="units of hidden layers")
    parser.add_argument("--backend", choices=("numba", "torch"), default=None, help="the spec's by default")
    parser.add_argument("--names", default=f"{NEWTON},Adam", help="for cost: those, and partitions")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--output", type=Path, default=None, help="runs/grouped_<experiment>")
    arguments = parser.parse_args(given)
    usual = EXPERIMENTS[arguments.experiment]
    for name in ("epochs", "search_epochs", "steps", "dampings", "width"):
        if getattr(arguments, name) is None:
            setattr(arguments, name, getattr(usual, name))
    arguments.spec = arguments.spec or FOLDER / usual.spec
    arguments.output = arguments.output or Path("runs") / f"grouped_{arguments.experiment}"
    return arguments


def main(given: Sequence[str] | None = None) -> None:
    """Run one experiment."""
    arguments = parsed(given)
    name = arguments.experiment
    torch.set_num_threads(1)
    spec = narrowed(sifrc.load_spec(arguments.spec), arguments.width)
    sizes = "-".join(size_text(shape).replace(" ", "") for shape in spec.shapes.values())
    print(f"{name}: {sizes if len(sizes) < 80 else f'{len(spec.layers)} layers, {sizes[:24]}…'}")
    if name == "cost":
        report_costs(spec, arguments.names.split(","), arguments)
        return
    training = spec.training
    dataset = load_dataset(
        training.data, path=arguments.data_path, train_count=arguments.train_count, pad=training.pad
    )
    print(dataset.describe())
    start = sifrc.compile(spec, backend="torch", method="none", operators=()).initialize(arguments.seed)
    initial = {key: value.numpy() for key, value in start.items()}

    def runner(method: Contestant) -> Runner:
        return Runner(method, initial, dataset, arguments, training.batch)

    methods = contestants(name, spec, arguments)
    arguments.output.mkdir(parents=True, exist_ok=True)
    if name == "diagonal":
        outcomes, styles = whole_grid(methods, runner, arguments, arguments.output)
    else:
        outcomes = competition(methods, runner, arguments, arguments.output)
        styles = {method.name: method.style for method in methods}
    steps = arguments.epochs * math.ceil(len(dataset.train_inputs) / training.batch)
    print(f"\n{name}: {arguments.epochs} epochs, {steps} steps; * at an end of its grid")
    print(table_of(outcomes, steps), flush=True)
    stem = arguments.output / name
    write_curves(outcomes, stem.with_suffix(".csv"), ("lr", "internal_damping"))
    # Without epoch 0, where all are at the same place.
    histories = {
        label: replace(outcome.history, rows=outcome.history.rows[1:]) for label, outcome in outcomes.items()
    }
    comparison_plot(histories, stem.with_suffix(".png"), measurement="train_loss", styles=styles)
    print(f"wrote {stem}.csv and {stem.name}.png", flush=True)
    if name == "very-deep":
        report_interactions(folder_of(arguments.output, NEWTON) / "summaries.npz")
    if name == "partitions":
        report_costs(spec, PARTITIONS, arguments)


if __name__ == "__main__":
    main()
