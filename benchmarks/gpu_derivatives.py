"""Derivatives and steps on batches: CUDA modules, Torch modules, and torch's automatic differentiation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any

import numpy as np
from gpu_machine import Candidate, Machine, Record, paired
from gpu_modules import summary_sizes

__all__ = ["conjugate_gradients", "products", "summaries"]

BASE = "torch autograd gradient"
_ACTIVATIONS = {"tanh": "Tanh", "elu": "ELU", "sigmoid": "Sigmoid", "leaky_relu": "LeakyReLU"}


class Problem:
    """Arrays of one network, and its loss in torch as a function of parameters.

    Args:
        machine: where they are.
        name: of the network's modules.
        sizes: of the input and the layers.
        activation: between the layers.
        batch: how many samples.
    """

    def __init__(
        self, machine: Machine, name: str, sizes: tuple[int, ...], activation: str, batch: int
    ) -> None:
        import torch

        self.machine, self.name, self.sizes = machine, name, sizes
        rng = np.random.default_rng(0)
        count = 3 if machine.dry else batch
        self.inputs = rng.standard_normal((count, sizes[0])).astype(np.float32)
        self.targets = rng.integers(0, sizes[-1], count)
        shapes: dict[str, tuple[int, ...]] = {}
        for k, (before, after) in enumerate(pairwise(sizes), 1):
            shapes |= {f"fc{k}.weight": (after, before), f"fc{k}.bias": (after,)}
        self.start, self.vector = (
            {n: (rng.standard_normal(s) / s[-1] ** 0.5).astype(np.float32) for n, s in shapes.items()}
            for _ in range(2)
        )
        self.point = (
            machine.tensors(self.start),
            machine.tensor(self.inputs),
            machine.tensor(self.targets),
        )
        self.own = {n: value.clone().requires_grad_() for n, value in self.point[0].items()}
        given = {"negative_slope": 0.1} if activation == "leaky_relu" else {}
        self.activation = getattr(torch.nn, _ACTIVATIONS[activation])(**given)

    def on_device(self) -> tuple[dict[str, Any], Any, Any]:
        """The point in arrays of Numba."""
        machine = self.machine
        return machine.arrays(self.start), machine.array(self.inputs), machine.array(self.targets)

    def loss(self, params: Mapping[str, Any]) -> Any:
        """Cross-entropy, as a user of torch writes it."""
        import torch

        x, last = self.point[1], len(self.sizes) - 1
        for k in range(1, last + 1):
            x = torch.nn.functional.linear(x, params[f"fc{k}.weight"], params[f"fc{k}.bias"])
            x = self.activation(x) if k < last else x
        return torch.nn.functional.cross_entropy(x, self.point[2])

    def autograd(self) -> Callable[[], object]:
        """The gradient."""
        import torch

        own = list(self.own.values())
        return lambda: torch.autograd.grad(self.loss(self.own), own)

    def gradients(self) -> list[Candidate]:
        """The unit of the others, and our gradients."""
        return [
            Candidate(BASE, self.autograd),
            Candidate("torch autograd gradient, compiled", self.compiled_autograd),
            Candidate("cuda gradient", lambda: self.call("cuda", "gradient")),
            Candidate("ours in Torch, gradient", lambda: self.call("torch", "gradient")),
        ]

    def compiled_autograd(self) -> Callable[[], object]:
        """The gradient of a compiled loss."""
        import torch

        loss, own = self.machine.compiled(self.loss), list(self.own.values())
        return lambda: torch.autograd.grad(loss(self.own), own)

    def call(
        self, backend: str, operator: str, *more: Any, compiled: bool = False, **choices: Any
    ) -> Callable[[], object]:
        """An operator of a generated module."""
        function = getattr(self.machine.module(self.name, backend), operator)
        point = self.on_device() if backend == "cuda" else self.point
        put = self.machine.arrays if backend == "cuda" else self.machine.tensors
        given = [put(value) for value in more]
        function = self.machine.compiled(function) if compiled else function
        return lambda: function(*point, *given, **choices)


def products(machine: Machine) -> list[Record]:
    """Hessian– and Gauss–Newton–vector products at a point that is kept."""
    import torch
    from torch.func import grad, jvp

    sizes = (6, 4, 3) if machine.dry else (784, 256, 32, 10)
    problem = Problem(machine, "products", sizes, "leaky_relu", 1000)
    vector = machine.tensors(problem.vector)

    def kept(backend: str, kind: str, compiled: bool = False) -> Callable[[], object]:
        module = machine.module("products", backend)
        point = problem.on_device() if backend == "cuda" else problem.point
        product = module.linearize(*point, kind=kind)
        own = machine.arrays(problem.vector) if backend == "cuda" else vector
        product = machine.compiled(product) if compiled else product
        return lambda: product(own)

    def double(keep: bool) -> Callable[[], object]:
        own = list(problem.own.values())

        def dot() -> Any:
            first = torch.autograd.grad(problem.loss(problem.own), own, create_graph=True)
            return sum((g * v).sum() for g, v in zip(first, vector.values(), strict=True))

        once = dot()
        if keep:
            return lambda: torch.autograd.grad(once, own, retain_graph=True)
        return lambda: torch.autograd.grad(dot(), own)

    def forward_over_reverse(compiled: bool) -> Callable[[], object]:
        def product(params: Any, along: Any) -> Any:
            return jvp(grad(problem.loss), (params,), (along,))[1]

        function = machine.compiled(product) if compiled else product
        return lambda: function(problem.point[0], vector)

    candidates = [
        *problem.gradients(),
        Candidate("torch double backward", lambda: double(keep=False)),
        Candidate("torch double backward, graph kept", lambda: double(keep=True)),
        Candidate("torch.func jvp of grad", lambda: forward_over_reverse(compiled=False)),
        Candidate("torch.func jvp of grad, compiled", lambda: forward_over_reverse(compiled=True)),
    ]
    for kind, text in (("hessian", "Hessian·v"), ("gauss_newton", "Gauss–Newton·v")):
        candidates += [
            Candidate(f"cuda {text}", lambda k=kind: kept("cuda", k)),
            Candidate(f"ours in Torch, {text}", lambda k=kind: kept("torch", k)),
            Candidate(f"ours in Torch, {text}, compiled", lambda k=kind: kept("torch", k, compiled=True)),
        ]
    return paired(machine, candidates, BASE)


def summaries(machine: Machine, number: int) -> list[Record]:
    """Summaries of orders 2 and 3 along a direction, every tensor a group."""
    sizes, activation = summary_sizes(machine.dry)[number]
    problem = Problem(machine, f"summary_{number}", sizes, activation, 1000)
    candidates = problem.gradients()
    for order in (2, 3):

        def call(backend: str, order: int = order, compiled: bool = False) -> Callable[[], object]:
            return problem.call(backend, "summary", problem.vector, order=order, compiled=compiled)

        candidates += [
            Candidate(f"cuda order {order}", lambda c=call: c("cuda")),
            Candidate(f"ours in Torch, order {order}", lambda c=call: c("torch")),
            Candidate(f"ours in Torch, order {order}, compiled", lambda c=call: c("torch", compiled=True)),
            Candidate(f"torch autograd order {order}", lambda o=order: _autograd_summary(problem, o)),
        ]
    return paired(machine, candidates, BASE)


def _autograd_summary(problem: Problem, order: int) -> Callable[[], object]:
    """All ⟨u_s, H u_t⟩, and from order 3 on the third derivative along each u_s, by backward passes."""
    import torch

    own = list(problem.own.values())
    along = list(problem.machine.tensors(problem.vector).values())

    def run() -> Any:
        first = torch.autograd.grad(problem.loss(problem.own), own, create_graph=True)
        found = []
        for s, u in enumerate(along):
            slope = (first[s] * u).sum()
            second = torch.autograd.grad(
                slope, own, create_graph=order > 2, retain_graph=True, allow_unused=True
            )
            row = [None if h is None else (h * v).sum() for h, v in zip(second, along, strict=True)]
            third = None
            # Where a network is linear in a tensor alone, nothing is left to differentiate.
            if order > 2 and row[s] is not None and row[s].requires_grad:
                (slopes,) = torch.autograd.grad(row[s], [own[s]], retain_graph=True, allow_unused=True)
                third = None if slopes is None else (slopes * u).sum()
            found.append((row, third))
        return found

    return run


def conjugate_gradients(machine: Machine) -> list[Record]:
    """A step of EA-CG on the network of its paper; parameters stay, so that all steps are alike."""
    sizes = (5, 4, 3, 3) if machine.dry else (3072, 1024, 512, 256, 128, 64, 32, 16, 10)
    problem = Problem(machine, "ea_cg", sizes, "sigmoid", 1000)

    def ours() -> Callable[[], object]:
        module = machine.module("ea_cg", "cuda")
        params, inputs, targets = problem.on_device()
        state = module.State(params, lr=0.0)
        return lambda: module.step(params, state, inputs, targets)

    def torch_step(compiled: bool) -> Callable[[], object]:
        module = machine.module("ea_cg", "torch")
        model = module.Network(device=machine.device)
        model.load_state_dict(problem.point[0])
        optimizer = module.Optimizer(model, lr=0.0)
        optimizer.step(*problem.point[1:])
        step = machine.compiled(optimizer.step) if compiled else optimizer.step
        return lambda: step(*problem.point[1:])

    candidates = [
        *problem.gradients(),
        Candidate("cuda EA-CG step", ours),
        Candidate("ours in Torch, EA-CG step", lambda: torch_step(compiled=False)),
        Candidate("ours in Torch, EA-CG step, compiled", lambda: torch_step(compiled=True)),
    ]
    return paired(machine, candidates, BASE)
