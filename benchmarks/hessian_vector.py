"""Hessian– and Gauss–Newton–vector products after ``linearize``, as multiples of one gradient.

    python benchmarks/hessian_vector.py [--batch 1000] [--threads 2]

784-256-32-10 leaky ReLU, cross-entropy, float32, both backends, and torch.func and double backward on the
same network. The base of the ratios is one gradient of torch autograd in the same round; the ratio
to the backend's own gradient is printed beside it.
"""

from __future__ import annotations

import argparse
import os

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--batch", type=int, default=1000)
parser.add_argument("--threads", type=int, default=2)
parser.add_argument("--rounds", type=int, default=21)
arguments = parser.parse_args()
for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = str(arguments.threads)

import numpy as np  # noqa: E402
import torch  # noqa: E402
from timing import interleaved, print_table  # noqa: E402
from torch.func import functional_call, grad, jvp  # noqa: E402

import sifrc  # noqa: E402

OPERATORS = ("gradient", "hessian_vector_product", "gauss_newton_vector_product")
SPEC = {
    "sifrc": 1,
    "name": "mnist",
    "network": {
        "input": {"name": "image", "size": 784},
        "layers": [
            {
                "name": "fc1",
                "type": "dense",
                "units": 256,
                "activation": {"function": "leaky_relu", "parameters": {"slope": 0.1}},
            },
            {
                "name": "fc2",
                "type": "dense",
                "units": 32,
                "activation": {"function": "leaky_relu", "parameters": {"slope": 0.1}},
            },
            {"name": "fc3", "type": "dense", "units": 10},
        ],
    },
    "loss": {"function": "cross_entropy"},
    "dtype": "float32",
}


def main() -> None:
    torch.set_num_threads(arguments.threads)
    spec = sifrc.build_spec(SPEC)
    numba_module = sifrc.compile(spec, backend="numba", method="none", operators=OPERATORS)
    torch_module = sifrc.compile(spec, backend="torch", method="none", operators=OPERATORS)
    rng = np.random.default_rng(0)
    params = numba_module.init(0)
    vector = {name: rng.normal(size=p.shape).astype(np.float32) for name, p in params.items()}
    inputs = rng.normal(size=(arguments.batch, 784)).astype(np.float32)
    targets = rng.integers(0, 10, arguments.batch)

    t_params = {name: torch.from_numpy(p.copy()) for name, p in params.items()}
    t_vector = {name: torch.from_numpy(v) for name, v in vector.items()}
    t_inputs, t_targets = torch.from_numpy(inputs), torch.from_numpy(targets)
    model = torch.nn.Sequential(
        torch.nn.Linear(784, 256),
        torch.nn.LeakyReLU(0.1),
        torch.nn.Linear(256, 32),
        torch.nn.LeakyReLU(0.1),
        torch.nn.Linear(32, 10),
    )
    names = dict(zip([n for n, _ in model.named_parameters()], t_params, strict=True))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(t_params[names[name]])
    own = dict(model.named_parameters())
    own_vector = {name: t_vector[names[name]] for name in own}
    plain = {name: p.detach() for name, p in own.items()}

    def autograd() -> object:
        loss = torch.nn.functional.cross_entropy(model(t_inputs), t_targets)
        return torch.autograd.grad(loss, list(own.values()))

    def double_backward() -> object:
        loss = torch.nn.functional.cross_entropy(model(t_inputs), t_targets)
        first = torch.autograd.grad(loss, list(own.values()), create_graph=True)
        dot = sum((g * own_vector[name]).sum() for g, name in zip(first, own, strict=True))
        return torch.autograd.grad(dot, list(own.values()))

    def objective(p: dict[str, torch.Tensor]) -> torch.Tensor:
        return torch.nn.functional.cross_entropy(functional_call(model, p, (t_inputs,)), t_targets)

    numba_h = numba_module.linearize(params, inputs, targets)
    numba_g = numba_module.linearize(params, inputs, targets, kind="gauss_newton")
    torch_h = torch_module.linearize(t_params, t_inputs, t_targets)
    torch_g = torch_module.linearize(t_params, t_inputs, t_targets, kind="gauss_newton")
    candidates = {
        "torch autograd gradient": autograd,
        "torch double backward": double_backward,
        "torch.func jvp of grad": lambda: jvp(grad(objective), (plain,), (own_vector,)),
        "sifrc torch gradient": lambda: torch_module.gradient(t_params, t_inputs, t_targets),
        "sifrc torch Hessian·v": lambda: torch_h(t_vector),
        "sifrc torch Gauss–Newton·v": lambda: torch_g(t_vector),
        "sifrc numba gradient": lambda: numba_module.gradient(params, inputs, targets),
        "sifrc numba Hessian·v": lambda: numba_h(vector),
        "sifrc numba Gauss–Newton·v": lambda: numba_g(vector),
    }
    results = interleaved(candidates, "torch autograd gradient", arguments.rounds)
    rows = []
    for name, result in results.items():
        backend = next((b for b in ("sifrc torch", "sifrc numba") if name.startswith(b)), "")
        relative = f"{result.seconds / results[backend + ' gradient'].seconds:.2f}" if backend else ""
        rows.append([name, f"{1e3 * result.seconds:.2f}", f"{result.ratio:.2f}", relative])
    print_table(
        f"784-256-32-10, batch {arguments.batch}, float32, {arguments.threads} threads",
        ["quantity", "ms", "× torch gradient", "× own gradient"],
        rows,
    )


if __name__ == "__main__":
    main()
