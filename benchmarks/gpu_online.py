"""One sample at a time on 784-256-32-10: MK and ESN on the GPU against torch's SGD and Adam there."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
from gpu_machine import Candidate, Machine, Record, paired

__all__ = ["online"]

RATE = 1e-3
_STEPS = 64
"""Steps in the longer graph."""


def online(machine: Machine) -> list[Record]:
    """Samples per second; ratios of times to SGD's in a graph."""
    samples = 4 if machine.dry else 2000
    sizes = (6, 4, 3) if machine.dry else (784, 256, 32, 10)
    rng = np.random.default_rng(0)
    inputs = rng.standard_normal((samples, sizes[0])).astype(np.float32)
    targets = rng.integers(0, sizes[-1], samples)
    candidates = []
    for kind in ("SGD", "Adam"):
        # Eager steps are slow: fewer of them.
        few = min(samples, 200)
        candidates.append(
            Candidate(
                f"torch {kind}, eager",
                lambda k=kind, n=few: _eager(machine, k, sizes, inputs, targets, n),
                few,
            )
        )
        for steps in (1, _STEPS):
            count = samples if machine.dry else samples // steps * steps
            candidates.append(
                Candidate(
                    f"torch {kind}, graph of {steps}",
                    lambda k=kind, s=steps, n=count: _graph(machine, k, sizes, inputs, targets, s, n),
                    count,
                )
            )
    for method in ("mk", "esn"):
        candidates.append(
            Candidate(f"cuda {method}", lambda m=method: _epoch(machine, m, inputs, targets), samples)
        )
        few = min(samples, 100)
        candidates.append(
            Candidate(
                f"ours in Torch, {method}", lambda m=method, n=few: _ours(machine, m, inputs, targets, n), few
            )
        )
    records = paired(machine, candidates, "torch SGD, graph of 1")
    by_name = {record["what"]: record for record in records if "seconds" in record}
    for record in by_name.values():
        record["rate"] = 1.0 / record["seconds"]
        if record["what"].startswith("cuda"):
            record["note"] = "; ".join(
                f"{other['seconds'] / record['seconds']:.2f} × {name.removeprefix('torch ')}"
                for name, other in by_name.items()
                if name.startswith("torch")
            )
    return records


def _epoch(machine: Machine, method: str, inputs: np.ndarray, targets: np.ndarray) -> Callable[[], object]:
    module = machine.module(f"online_{method}", "cuda")
    params = machine.arrays(module.init(0))
    state = module.State(params, lr=RATE)
    order = np.arange(len(inputs))
    given = machine.array(inputs), machine.array(targets)
    return lambda: module.train_epoch(params, state, *given, order)


def _ours(
    machine: Machine, method: str, inputs: np.ndarray, targets: np.ndarray, count: int
) -> Callable[[], object]:
    module = machine.module(f"online_{method}", "torch")
    model = module.Network(device=machine.device)
    optimizer = module.Optimizer(model, lr=RATE)
    x, t = machine.tensor(inputs), machine.tensor(targets)

    def run() -> None:
        for index in range(count):
            optimizer.step(x[index : index + 1], t[index : index + 1])

    return run


def _network(machine: Machine, kind: str, sizes: tuple[int, ...], graph: bool) -> tuple[Any, Any]:
    import torch

    torch.manual_seed(0)
    layers: list[Any] = []
    for before, after in pairwise(sizes):
        layers += [torch.nn.Linear(before, after), torch.nn.LeakyReLU(0.1)]
    model = torch.nn.Sequential(*layers[:-1]).to(machine.device)
    if kind == "SGD":
        return model, torch.optim.SGD(model.parameters(), lr=RATE, fused=not machine.dry)
    # A graph needs the count of steps on the device.
    more = {"capturable": True} if graph and not machine.dry else {}
    return model, torch.optim.Adam(model.parameters(), lr=RATE / 10, fused=not machine.dry, **more)


def _eager(
    machine: Machine,
    kind: str,
    sizes: tuple[int, ...],
    inputs: np.ndarray,
    targets: np.ndarray,
    count: int,
) -> Callable[[], object]:
    model, optimizer = _network(machine, kind, sizes, graph=False)
    x, t = machine.tensor(inputs), machine.tensor(np.eye(sizes[-1], dtype=np.float32)[targets])

    def run() -> None:
        for index in range(count):
            optimizer.zero_grad(set_to_none=True)
            (0.5 * ((model(x[index : index + 1]) - t[index : index + 1]) ** 2).sum()).backward()
            optimizer.step()

    return run


def _graph(
    machine: Machine,
    kind: str,
    sizes: tuple[int, ...],
    inputs: np.ndarray,
    targets: np.ndarray,
    steps: int,
    count: int,
) -> Callable[[], object]:
    """Steps that are recorded once; which sample is next is counted on the device."""
    import torch

    model, optimizer = _network(machine, kind, sizes, graph=True)
    x, t = machine.tensor(inputs), machine.tensor(np.eye(sizes[-1], dtype=np.float32)[targets])
    place = torch.zeros(1, dtype=torch.int64, device=machine.device)

    def one() -> None:
        optimizer.zero_grad(set_to_none=True)
        output = model(x.index_select(0, place))
        (0.5 * ((output - t.index_select(0, place)) ** 2).sum()).backward()
        optimizer.step()
        place.add_(1).remainder_(len(x))

    if machine.dry:
        return lambda: [one() for _ in range(count)]
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            one()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(steps):
            one()

    def run() -> None:
        for _ in range(count // steps):
            graph.replay()

    return run
