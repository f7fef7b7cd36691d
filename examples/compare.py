"""Compare ESN and MK with SGD and Adam from the same initial weights, against epochs and seconds.

    python examples/compare.py examples/digits.yaml -o runs/compare_digits [--epochs 10] [--trials 5]

Every method gets the same search: the same number of learning rates on a logarithmic grid of the same
width around its usual value, ``--search-epochs`` epochs each, judged by the test loss, a grid that grows
by the same rule while its best rate is at an end; then one full run at the best rate. The network, loss,
data, order of samples and initial weights are those of the spec for all.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

import sifrc
from sifrc.cli.files import write_file
from sifrc.data import check_fits, load_dataset
from sifrc.training import fit, make_trainable
from sifrc.training.adapters import Trainable
from sifrc.training.baselines import adam, sgd
from sifrc.training.history import History
from sifrc.training.plots import comparison_plot

# centre of the search for each method: the papers' and the libraries' usual step sizes
CENTRES = {"ESN rank one": 1e-2, "ESN saddle-free": 1e-2, "MK": 1e-2, "SGD": 1e-2, "Adam": 1e-3}


def generated(
    spec: sifrc.Spec, method: str, backend: str = "numba", **options: Any
) -> Callable[..., Trainable]:
    """A function from initial parameters, seed and hyperparameters to what :func:`fit` trains."""
    module = sifrc.compile(spec, backend=backend, method=method, operators=(), **options)

    def build(initial: Mapping[str, np.ndarray], seed: int, **hyperparameters: float) -> Trainable:
        return make_trainable(module, backend, seed=seed, initial=initial, hyperparameters=hyperparameters)

    return build


def baseline(spec: sifrc.Spec, make: Callable[..., Trainable], **options: Any) -> Callable[..., Trainable]:
    """The same for an optimizer of PyTorch on the same network and loss."""
    module = sifrc.compile(spec, backend="torch", method="none", operators=())
    loss = torch_loss(spec)

    def build(initial: Mapping[str, np.ndarray], seed: int, **hyperparameters: float) -> Trainable:
        chosen = {**options, **hyperparameters}
        return make(module.Network, loss, initial=initial, seed=seed, shape=spec.input.shape, **chosen)

    return build


def torch_loss(spec: sifrc.Spec) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """The spec's loss as PyTorch's users write it, of outputs (B, n) and targets, the mean over the batch."""
    function = spec.loss.function

    def vectors(output: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        if spec.loss.targets == "classes":
            return torch.nn.functional.one_hot(targets, output.shape[1]).to(output.dtype)
        return targets

    def squared_error(output: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return 0.5 * ((output - vectors(output, targets)) ** 2).sum(1).mean()

    def bounded(output: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        values = dict(function.parameters)
        right = (output.softmax(1) * vectors(output, targets)).sum(1)
        return torch.sigmoid(values["delta"] * (values["epsilon"] - right)).mean()

    known = {
        "cross_entropy": torch.nn.functional.cross_entropy,
        "squared_error": squared_error,
        "bounded": bounded,
    }
    if function.name not in known:
        raise SystemExit(f"no loss '{function.name}' for PyTorch's optimizers here: {', '.join(known)}")
    return known[function.name]


def is_divergence(error: sifrc.TrainingError) -> bool:
    """Whether a run stopped since a number was not finite, and not for anything else that ends runs."""
    return isinstance(error.__cause__, FloatingPointError)


def final(run: Callable[[], History], measurement: str) -> float:
    """What a run ends with; infinite if it diverged."""
    try:
        value = float(getattr(run().last, measurement))
    except sifrc.TrainingError as error:
        if not is_divergence(error):
            raise
        return math.inf
    return value if math.isfinite(value) else math.inf


def search(name: str, rates: list[float], step: float, extra: int, judge: Callable[[float], float]) -> float:
    """The learning rate with the least test loss after the short runs.

    While the best rate is the smallest or the largest one tried, the grid grows by one in that direction,
    ``extra`` times at most. A run that diverged counts as infinite.
    """
    results: dict[float, float] = {}
    waiting = list(rates)
    while True:
        for rate in waiting:
            results[rate] = judge(rate)
            print(f"  {name:16s} lr {rate:8.1e}: test loss {results[rate]:.4f}", flush=True)
        best = min(results, key=lambda rate: results[rate])
        if extra and best == max(results):
            waiting = [best * step]
        elif extra and best == min(results):
            waiting = [best / step]
        else:
            return best
        extra -= 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("spec", type=Path)
    parser.add_argument("-o", "--output", type=Path, default=Path("runs/compare"))
    parser.add_argument("--data", default=None, help="data set or path; the spec's by default")
    parser.add_argument("--data-path", type=Path, default=None)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--search-epochs", type=int, default=2)
    parser.add_argument("--trials", type=int, default=5, help="learning rates for each method")
    parser.add_argument("--extra", type=int, default=4, help="how often the grid may grow, for each method")
    parser.add_argument("--step", type=float, default=10**0.5, help="factor between learning rates")
    parser.add_argument("--train-count", type=int, default=None, help="use the first so many samples")
    parser.add_argument("--methods", default=",".join(CENTRES))
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # the better of one and two for single samples

    spec = sifrc.load_spec(arguments.spec)
    dataset = load_dataset(
        arguments.data or spec.training.data,
        path=arguments.data_path,
        train_count=arguments.train_count,
        one_hot=spec.training.one_hot,
    )
    check_fits(dataset, spec.input.shape, spec.layers[-1].size, spec.loss.targets)
    builders = {
        "ESN rank one": lambda: generated(spec, "esn"),
        "ESN saddle-free": lambda: generated(spec, "esn", variant="saddle_free"),
        "MK": lambda: generated(spec, "mk"),
        "SGD": lambda: baseline(spec, sgd),
        "Adam": lambda: baseline(spec, adam),
    }
    initial = sifrc.compile(spec, backend="numba", method="none", operators=()).init(arguments.seed)
    histories: dict[str, History] = {}
    lines = ["method,learning_rate,test_loss,test_accuracy,seconds"]
    for name in arguments.methods.split(","):
        build = builders[name]()

        def run(rate: float, epochs: int, build: Callable[..., Trainable] = build) -> History:
            trainable = build(initial, arguments.seed, lr=rate)
            return fit(trainable, dataset, epochs=epochs, batch=1, seed=arguments.seed, progress=False)

        def judge(rate: float, run: Callable[[float, int], History] = run) -> float:
            return final(lambda: run(rate, arguments.search_epochs), "test_loss")

        half = arguments.trials // 2
        rates = [CENTRES[name] * arguments.step**power for power in range(-half, arguments.trials - half)]
        best = search(name, rates, arguments.step, arguments.extra, judge)
        history = None
        while history is None:  # a rate that is good for a short run may not last
            try:
                history = run(best, arguments.epochs)
            except sifrc.TrainingError as error:
                if not is_divergence(error):
                    raise
                print(f"  {name:16s} lr {best:8.1e}: {error.message}", flush=True)
                best /= arguments.step
        histories[f"{name}, lr {best:.1e}"] = history
        last = history.last
        lines.append(f"{name},{best:.3e},{last.test_loss:.4f},{last.test_accuracy:.4f},{last.seconds:.2f}")
        print(
            f"{name}: lr {best:.1e}, test loss {last.test_loss:.4f}, accuracy {last.test_accuracy:.4f}, "
            f"{last.seconds:.1f} s for {arguments.epochs} epochs",
            flush=True,
        )
    write_file(arguments.output / "comparison.csv", "\n".join(lines) + "\n")
    comparison_plot(histories, arguments.output / "comparison.png")
    print(f"wrote {arguments.output}/comparison.csv and comparison.png")


if __name__ == "__main__":
    main()
