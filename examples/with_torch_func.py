"""Generated functions under ``torch.func``: ensembles, many vectors, third derivatives, one call of a module.

    pip install "sifrc[torch]"
    python examples/with_torch_func.py

A generated function is a function of its arguments: ``vmap``, ``jvp``, ``vjp`` and ``grad`` apply to it, one
inside of the other, and ``functional_call`` to the generated network.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, jvp, stack_module_state, vjp, vmap

import sifrc

Parameters = dict[str, Tensor]
OPERATORS = ("gradient", "hessian_vector_product", "gauss_newton_vector_product", "per_sample_gradients")


def compiled() -> Any:
    """The module of a small network for three classes."""
    network = nn.Sequential(nn.Linear(6, 12), nn.Tanh(), nn.Linear(12, 3)).double()
    spec = sifrc.from_torch(network, torch.zeros(2, 6).double(), nn.CrossEntropyLoss(), name="small")
    return sifrc.compile(spec, operators=OPERATORS)


def batch(size: int = 50) -> tuple[Tensor, Tensor]:
    """Points and the classes of three centres."""
    draw = torch.Generator().manual_seed(0)
    classes = torch.randint(3, (size,), generator=draw)
    centres = torch.randn(3, 6, generator=draw, dtype=torch.float64)
    return centres[classes] + 0.5 * torch.randn(size, 6, generator=draw, dtype=torch.float64), classes


def train_ensemble(module: Any, members: int, steps: int = 30) -> tuple[Parameters, list[float]]:
    """Networks that are trained at once, each along its own damped Gauss–Newton direction.

    Returns:
        Parameters with a leading dimension of the networks, and their losses.
    """
    x, t = batch()
    networks = [module.Network(seed=seed) for seed in range(members)]
    params, _ = stack_module_state(networks)
    params = {name: value.detach() for name, value in params.items()}

    def direction(own: Parameters) -> Parameters:
        """(G + 1)⁻¹ g by a few steps of conjugate gradients; all of it inside of ``vmap``."""
        product = module.linearize(own, x, t, kind="gauss_newton")
        rest = module.gradient(own, x, t)
        step, found = dict(rest), {name: torch.zeros_like(value) for name, value in rest.items()}
        norm = _dot(rest, rest)
        for _ in range(10):
            along = {name: value + step[name] for name, value in product(step).items()}
            length = norm / _dot(step, along)
            found = {name: value + length * step[name] for name, value in found.items()}
            rest = {name: value - length * along[name] for name, value in rest.items()}
            before, norm = norm, _dot(rest, rest)
            step = {name: value + norm / before * step[name] for name, value in rest.items()}
        return found

    for _ in range(steps):
        moves = vmap(direction)(params)
        params = {name: value - moves[name] for name, value in params.items()}
    return params, vmap(lambda own: module.loss(own, x, t))(params).tolist()


def _dot(left: Parameters, right: Parameters) -> Tensor:
    return sum(((left[name] * right[name]).sum() for name in left), torch.zeros((), dtype=torch.float64))


def third_derivative(module: Any, params: Parameters, v: Parameters) -> tuple[Parameters, Parameters]:
    """∇³f[v, v] forward, as the change of H v along v, and backward, as the gradient of vᵀ H v."""
    x, t = batch()
    forward = jvp(lambda own: module.hessian_vector_product(own, x, t, v), (params,), (v,))[1]
    backward = grad(lambda own: _dot(v, module.hessian_vector_product(own, x, t, v)))(params)
    return forward, backward


def main() -> None:
    module, (x, t) = compiled(), batch()
    params = module.initialize(seed=0)
    _, losses = train_ensemble(module, members=4)
    print("four networks trained at once:", ", ".join(f"{loss:.4f}" for loss in losses))

    draw = torch.Generator().manual_seed(1)
    v = {name: torch.randn(value.shape, generator=draw, dtype=value.dtype) for name, value in params.items()}
    several = {name: torch.stack([value, 2 * value, -value]) for name, value in v.items()}
    products = vmap(module.linearize(params, x, t))(several)
    print("H v, 2 H v and −H v: vᵀ of each", ", ".join(f"{_dot(v, row):.4f}" for row in _rows(products, 3)))

    pulled = vjp(lambda own: module.gradient(own, x, t), params)[1](v)[0]
    product = module.hessian_vector_product(params, x, t, v)
    print("the gradient pulled back along v is H v:", _agree(pulled, product))

    forward, backward = third_derivative(module, params, v)
    print(f"third derivative along v: {_dot(v, forward):.4f}, both ways the same:", _agree(forward, backward))

    mapped = vmap(lambda a, b: module.gradient(params, a[None], b[None]))(x, t)
    own = module.per_sample_gradients(params, x, t)
    print("gradients of the samples by vmap, the generated ones:", _agree(mapped, own))

    loss = nn.CrossEntropyLoss()
    called = grad(lambda own: loss(functional_call(module.Network(), own, (x,)), t))(params)
    print(
        "gradient through functional_call, the generated one:", _agree(called, module.gradient(params, x, t))
    )


def _rows(stacked: Parameters, count: int) -> list[Parameters]:
    return [{name: value[k] for name, value in stacked.items()} for k in range(count)]


def _agree(left: Parameters, right: Parameters) -> bool:
    """To 12 digits of the largest entry."""
    size = max(float(value.abs().max()) for value in right.values())
    return all(float((left[name] - value).abs().max()) <= 1e-12 * size for name, value in right.items())


if __name__ == "__main__":
    main()
