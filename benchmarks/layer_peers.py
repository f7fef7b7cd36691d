"""Products of curvlinops and BackPACK on the networks of ``layers.py``, where they have them.

Each product is made once to see that it exists; a peer that refuses is shown with its own words. What is
computed from one batch and kept for many products, as ``linearize`` does it, neither of them has: a product
is all of their work. Attention is PyTorch's formula for them, since its kernel has none of these derivatives.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from copy import deepcopy
from functools import cache, partial
from typing import Any

from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

__all__ = ["Product", "peer_products"]

Product = Callable[[], object]
_WORDS = 110
"""Letters of a refusal."""


class Tokenwise(nn.Module):
    """A network whose outputs are rows of logits, for losses over several axes."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """Logits with the classes second, as ``torch.nn.CrossEntropyLoss`` takes them."""
        return self.network(x).movedim(-1, 1)


def curvlinops_products(
    network: nn.Module, x: Tensor, t: Tensor, vector: Sequence[Tensor]
) -> dict[str, Product]:
    """Hessian and Gauss–Newton products as linear operators of curvlinops, one batch."""
    from curvlinops import GGNLinearOperator, HessianLinearOperator

    own = list(network.parameters())
    model = Tokenwise(network)

    @cache
    def made(operator: type) -> Any:
        return operator(model, nn.CrossEntropyLoss(), own, [(x, t)], check_deterministic=False)

    return {
        "curvlinops Hv": lambda: made(HessianLinearOperator) @ list(vector),
        "curvlinops GGNv": lambda: made(GGNLinearOperator) @ list(vector),
    }


def backpack_products(
    network: nn.Module, x: Tensor, t: Tensor, vector: Sequence[Tensor]
) -> dict[str, Product]:
    """BackPACK's products, made of automatic differentiation, and its diagonal of the Gauss–Newton matrix."""
    from backpack import backpack, extend
    from backpack.extensions import DiagGGNExact
    from backpack.hessianfree.ggnvp import ggn_vector_product
    from backpack.hessianfree.hvp import hessian_vector_product

    own, criterion = list(network.parameters()), nn.CrossEntropyLoss()

    def loss_and_output() -> tuple[Tensor, Tensor]:
        output = network(x).movedim(-1, 1)
        return criterion(output, t), output

    def hessian() -> object:
        return hessian_vector_product(loss_and_output()[0], own, list(vector))

    def gauss_newton() -> object:
        loss, output = loss_and_output()
        return ggn_vector_product(loss, output, nn.ParameterList(own), list(vector))

    # A network that is extended has hooks that every other use of it would run.
    copy = deepcopy(network)

    def diagonal() -> object:
        model, last = extend(copy), extend(nn.CrossEntropyLoss())
        with backpack(DiagGGNExact()):
            last(model(x).movedim(-1, 1), t).backward()
        return [p.diag_ggn_exact for p in copy.parameters()]

    return {"BackPACK Hv": hessian, "BackPACK GGNv": gauss_newton, "BackPACK diagonal": diagonal}


def _by_formula(product: Product) -> object:
    """With attention by its formula: PyTorch's own kernel has no second derivative and no forward mode."""
    with sdpa_kernel(SDPBackend.MATH):
        return product()


def peer_products(
    network: nn.Module, x: Tensor, t: Tensor, vector: Sequence[Tensor]
) -> tuple[dict[str, Product], dict[str, str]]:
    """What the peers compute on a network, and what they refuse, with their words.

    Args:
        network: with its parameters.
        x: inputs.
        t: classes, (B,) or (B, places).
        vector: like the parameters.

    Returns:
        Functions by name, in the order of the table; refusals by name.
    """
    products: dict[str, Product] = {}
    refused: dict[str, str] = {}
    for library, make in (("curvlinops", curvlinops_products), ("BackPACK", backpack_products)):
        try:
            candidates = make(network, x, t, vector)
        except ImportError as error:
            refused[library] = f"not installed: {error}"
            continue
        for name, candidate in candidates.items():
            product = partial(_by_formula, candidate)
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    product()
            except Exception as error:  # whatever a peer raises is its refusal
                words = " ".join(str(error).split())
                refused[name] = f"{type(error).__name__}: {words[:_WORDS]}"
            else:
                products[name] = product
    return products, refused
