"""Networks of PyTorch's own layers that several benchmarks share."""

from __future__ import annotations

import torch
from torch import nn

__all__ = ["Transformer"]


class Transformer(nn.Module):
    """The network of ``examples/transformer.yaml`` with PyTorch's own layers."""

    def __init__(self, places: int = 64) -> None:
        """Make the layers."""
        super().__init__()
        self.tokens, self.places = nn.Embedding(65, 128), nn.Parameter(torch.randn(places, 128) * 0.02)
        names = ("query", "key", "value", "output")
        self.blocks = nn.ModuleList(
            nn.ModuleDict(
                {name: nn.Linear(128, 128) for name in names}
                | {"first": nn.LayerNorm(128), "second": nn.LayerNorm(128)}
                | {"up": nn.Linear(128, 512), "down": nn.Linear(512, 128)}
            )
            for _ in range(4)
        )
        self.last = nn.LayerNorm(128)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Logits of the tokens."""
        x = self.tokens(tokens) + self.places
        for block in self.blocks:
            read = block["first"](x)
            heads = (block[n](read).unflatten(2, (4, 32)).transpose(1, 2) for n in ("query", "key", "value"))
            mixed = nn.functional.scaled_dot_product_attention(*heads, is_causal=True)
            x = x + block["output"](mixed.transpose(1, 2).flatten(2))
            x = x + block["down"](nn.functional.gelu(block["up"](block["second"](x))))
        return self.last(x) @ self.tokens.weight.T
