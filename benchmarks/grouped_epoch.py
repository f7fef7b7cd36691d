"""An epoch of grouped Newton at the settings of GN3, against the authors' NewtonSummary.

    SIFRC_GROUPED_NEWTON=<checkout of p-wol/GroupedNewton> python benchmarks/grouped_epoch.py
        [--samples 6000] [--threads 2] [--rounds 7] [--backends numba,torch]

The MLP of GN3, 1024-200-100-10 tanh, cross-entropy, canonical partition, float32; steps on 100 samples,
summaries every 10 steps on 1000 (GN3 Table 2), λ = 0.1 and λ_int = 10 (Table 3). Random data of the size of
padded MNIST images; an epoch has ``--samples`` of them where MNIST has 60,000, with the same number of
summaries per step. Base is NewtonSummary on batches that are cut from one tensor by the same orders as ours;
the same through a DataLoader, as in the authors' scripts, is timed beside it. All start from the same
parameters; the last column is the loss on all samples after the epoch that warms up.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--samples", type=int, default=6000)
parser.add_argument("--threads", type=int, default=2)
parser.add_argument("--rounds", type=int, default=7)
parser.add_argument("--backends", default="numba,torch")
arguments = parser.parse_args()
for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = str(arguments.threads)

import numpy as np  # noqa: E402
import torch  # noqa: E402
from networks import GN3_MLP as NETWORK  # noqa: E402
from timing import interleaved, print_table  # noqa: E402

import sifrc  # noqa: E402

BATCH, CURVATURE_BATCH, PERIOD = 100, 1000, 10
LEARNING_RATE, INTERNAL_DAMPING, MOMENTUM, RATE_MOMENTUM = 0.1, 10.0, 0.9, 0.5
BASE = "NewtonSummary"


def peer_module(name: str) -> ModuleType:
    """A module of the authors' package, without what the package itself would import."""
    checkout = os.environ.get("SIFRC_GROUPED_NEWTON", "")
    folder = Path(checkout) / "src" / "grnewt"
    if not checkout or not folder.is_dir():
        sys.exit(
            "grouped_epoch: set SIFRC_GROUPED_NEWTON to a checkout of https://github.com/p-wol/GroupedNewton "
            f"to compare with (now: {checkout or 'not set'})"
        )
    if "grnewt" not in sys.modules:
        package = ModuleType("grnewt")
        package.__path__ = [str(folder)]
        sys.modules["grnewt"] = package
    return importlib.import_module(f"grnewt.{name}")


class Cut:
    """Batches of some samples in an order: what a loader gives, without one."""

    def __init__(self, inputs: torch.Tensor, targets: torch.Tensor, order: torch.Tensor, size: int) -> None:
        self.inputs, self.targets, self.order, self.size = inputs, targets, order, size

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        for start in range(0, len(self.order), self.size):
            chosen = self.order[start : start + self.size]
            yield self.inputs[chosen], self.targets[chosen]


class Data:
    """Random samples, and the orders in which steps and summaries take them."""

    def __init__(self) -> None:
        rng = np.random.default_rng(1)
        self.inputs, self.targets = NETWORK.samples(arguments.samples)
        self.order, self.curvature = (rng.permutation(arguments.samples) for _ in range(2))
        self.tensors = torch.from_numpy(self.inputs), torch.from_numpy(self.targets)

    def cut(self, order: np.ndarray, size: int) -> Cut:
        return Cut(*self.tensors, torch.from_numpy(order), size)


def peer_epoch(
    data: Data, start: Mapping[str, torch.Tensor], loader: bool
) -> tuple[Any, Callable[[], float]]:
    """NewtonSummary with the updater of the authors' scripts; an epoch, and the loss on all samples."""
    model = NETWORK.module()
    with torch.no_grad():
        for own, value in zip(model.parameters(), start.values(), strict=True):
            own.copy_(value)
    function = torch.nn.functional.cross_entropy
    steps, summaries = data.cut(data.order, BATCH), data.cut(data.curvature, CURVATURE_BATCH)
    if loader:
        samples = torch.utils.data.TensorDataset(*data.tensors)
        steps = torch.utils.data.DataLoader(samples, BATCH, shuffle=True)
        summaries = torch.utils.data.DataLoader(samples, CURVATURE_BATCH)
    updater = peer_module("optimizers").SGDUpdate(
        model.parameters(), lr=1, momentum=MOMENTUM, dampening=MOMENTUM
    )
    optimizer = peer_module("newton_summary").NewtonSummary(
        [{"params": [own]} for own in model.parameters()],
        lambda x, y: function(model(x), y),
        summaries,
        updater,
        loader_pre_hook=lambda x, y: (x, y),
        damping=LEARNING_RATE,
        period_hg=PERIOD,
        mom_lrs=RATE_MOMENTUM,
        dct_nesterov={"use": True, "damping_int": INTERNAL_DAMPING},
        remove_negative=True,
    )

    def epoch() -> None:
        for x, y in steps:
            optimizer.zero_grad()
            function(model(x), y).backward()
            optimizer.step()

    def loss() -> float:
        with torch.no_grad():
            return float(function(model(data.tensors[0]), data.tensors[1]))

    return epoch, loss


def torch_epoch(
    module: Any, data: Data, start: Mapping[str, torch.Tensor]
) -> tuple[Any, Callable[[], float]]:
    """The generated Torch optimizer in a plain loop."""
    model = module.Network()
    model.load_state_dict(start)
    optimizer = module.Optimizer(model)
    steps = data.cut(data.order, BATCH)

    def forever() -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        while True:
            yield from data.cut(data.curvature, CURVATURE_BATCH)

    summaries = forever()

    def epoch() -> None:
        for x, y in steps:
            optimizer.step(x, y, curvature=lambda: next(summaries))

    return epoch, lambda: float(module.loss(dict(model.named_parameters()), *data.tensors))


def numba_epoch(
    module: Any, data: Data, start: Mapping[str, torch.Tensor]
) -> tuple[Any, Callable[[], float]]:
    """The compiled epoch of the Numba module."""
    params = {name: value.numpy().copy() for name, value in start.items()}
    state = module.State(params)

    def epoch() -> None:
        module.train_epoch(
            params,
            state,
            data.inputs,
            data.targets,
            data.order,
            batch=BATCH,
            curvature_order=data.curvature,
            curvature_batch=CURVATURE_BATCH,
        )

    return epoch, lambda: float(module.loss(params, data.inputs, data.targets))


def main() -> None:
    torch.set_num_threads(arguments.threads)
    data = Data()
    method = {
        "name": "grouped_newton",
        "learning_rate": LEARNING_RATE,
        "momentum": MOMENTUM,
        "rate_momentum": RATE_MOMENTUM,
        "internal_damping": INTERNAL_DAMPING,
        "period": PERIOD,
    }
    spec = NETWORK.spec(partition="canonical", method=method)
    made = {"torch": torch_epoch, "numba": numba_epoch}
    modules = {
        backend: sifrc.compile(spec, backend=backend) for backend in arguments.backends.split(",") if backend
    }
    start = sifrc.compile(spec, backend="torch").initialize(0)
    both = {
        BASE: peer_epoch(data, start, loader=False),
        f"{BASE}, DataLoader": peer_epoch(data, start, loader=True),
    } | {f"sifrc {backend}": made[backend](module, data, start) for backend, module in modules.items()}
    losses = {}
    for name, (epoch, loss) in both.items():
        epoch()
        losses[name] = loss()
    results = interleaved({name: run for name, (run, _) in both.items()}, BASE, arguments.rounds, warmup=1)
    rows = [
        [
            name,
            f"{1e3 * r.seconds:.0f}",
            f"{1 / r.ratio:.2f}",
            f"{1e3 * r.cpu_seconds:.0f}",
            f"{1 / r.cpu_ratio:.2f}",
            f"{losses[name]:.6f}",
        ]
        for name, r in results.items()
    ]
    steps = -(-arguments.samples // BATCH)
    print_table(
        f"{NETWORK.name}: {arguments.samples} samples, {steps} steps, a summary every {PERIOD}, "
        f"float32, {arguments.threads} threads",
        ["epoch of", "ms", "times faster", "ms of CPU", "times less CPU", "loss"],
        rows,
    )


if __name__ == "__main__":
    main()
