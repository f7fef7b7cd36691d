"""The same networks by PyTorch's own functions: what a layer of PyTorch with this name computes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from elementary_layers import Elementary, Owned, every, pairs
from elementary_recurrence import fused
from torch import Tensor
from torch.nn import functional as F

__all__ = ["Fused"]

Layer = Mapping[str, Any]


class Fused(Elementary):
    """The output of a network, by the functions of PyTorch that compute a layer at once."""

    def dense(self, layer: Layer, owned: Owned, x: Tensor) -> Tensor:
        return F.linear(x, owned("weight"), _bias(owned))

    def activation(self, layer: Layer, owned: Owned, x: Tensor) -> Tensor:
        own = getattr(F, layer["function"], None)
        return own(x) if own else getattr(torch, layer["function"])(x)

    def rnn(self, layer: Layer, owned: Owned, x: Tensor) -> Tensor:
        return fused(layer, owned.get, x)

    lstm = gru = rnn

    def embedding(self, layer: Layer, owned: Owned, x: Tensor) -> Tensor:
        return F.embedding(x, owned("weight"))

    def multiply(self, layer: Layer, owned: Owned, *xs: Tensor) -> Tensor:
        return torch.stack(torch.broadcast_tensors(*xs)).prod(0)

    def matmul(self, layer: Layer, owned: Owned, a: Tensor, b: Tensor) -> Tensor:
        words = layer.get("transpose", [])
        return torch.matmul(a.mT if "first" in words else a, b.mT if "second" in words else b)

    def slice(self, layer: Layer, owned: Owned, x: Tensor) -> Tensor:
        if layer.get("step", 1) < 0:
            return super().slice(layer, owned, x)  # PyTorch has none
        at = slice(layer.get("start"), layer.get("stop"), layer.get("step"))
        return x.movedim(layer.get("axis", -1), 0)[at].movedim(0, layer.get("axis", -1))

    def pad(self, layer: Layer, owned: Owned, x: Tensor) -> Tensor:
        both = pairs(layer["padding"], x.dim() - 1)
        mode = layer.get("mode", "zeros")
        if mode == "zeros":
            return F.pad(x, [n for pair in reversed(both) for n in pair])
        return F.pad(x[:, None], [n for pair in reversed(both) for n in pair], mode=mode)[:, 0]

    def upsample(self, layer: Layer, owned: Owned, x: Tensor) -> Tensor:
        axes = x.dim() - 2
        factor = [float(n) for n in every(layer.get("factor", 2), axes)]
        if layer.get("mode", "nearest") == "nearest":
            return F.interpolate(x, scale_factor=factor, mode="nearest")
        mode = ("linear", "bilinear", "trilinear")[axes - 1]
        return F.interpolate(x, scale_factor=factor, mode=mode, align_corners=False)

    def mean(self, layer: Layer, owned: Owned, x: Tensor) -> Tensor:
        found = x.mean(self._axes(layer, x), keepdim=layer.get("keep", False))
        return found if found.dim() > 1 else found[:, None]

    def max(self, layer: Layer, owned: Owned, x: Tensor) -> Tensor:
        found = x.amax(self._axes(layer, x), keepdim=layer.get("keep", False))
        return found if found.dim() > 1 else found[:, None]

    def log_softmax(self, layer: Layer, owned: Owned, x: Tensor) -> Tensor:
        return F.log_softmax(x, layer.get("axis", -1))

    def softmax(self, layer: Layer, owned: Owned, x: Tensor) -> Tensor:
        return F.softmax(x, layer.get("axis", -1))

    def layer_norm(self, layer: Layer, owned: Owned, x: Tensor, centred: bool = True) -> Tensor:
        axes = layer.get("axes", [-1])
        dims = sorted(axis % x.dim() for axis in ([axes] if isinstance(axes, int) else axes))
        rest = [dim for dim in range(x.dim()) if dim not in dims]
        order = [*rest, *dims]
        sizes = [x.shape[dim] for dim in dims]
        weight = owned("weight") if owned.has("weight") else None
        epsilon = layer.get("epsilon", 1e-5 if centred else 1e-6)
        moved = x.permute(order)
        if centred:
            moved = F.layer_norm(moved, sizes, weight, _bias(owned), epsilon)
        else:
            moved = F.rms_norm(moved, sizes, weight, epsilon)
        return moved.permute([order.index(dim) for dim in range(x.dim())])

    def batch_norm(self, layer: Layer, owned: Owned, x: Tensor) -> Tensor:
        weight = owned("weight") if owned.has("weight") else None
        running = (None, None) if self.training else (owned("running_mean"), owned("running_var"))
        epsilon = layer.get("epsilon", 1e-5)
        return F.batch_norm(x, *running, weight, _bias(owned), self.training, 0.1, epsilon)

    def dropout(self, layer: Layer, owned: Owned, x: Tensor) -> Tensor:
        return F.dropout(x, layer.get("probability", 0.5), self.training)

    def group_norm(self, layer: Layer, owned: Owned, x: Tensor) -> Tensor:
        weight = owned("weight") if owned.has("weight") else None
        return F.group_norm(x, layer["groups"], weight, _bias(owned), layer.get("epsilon", 1e-5))

    def instance_norm(self, layer: Layer, owned: Owned, x: Tensor) -> Tensor:
        weight = owned("weight") if owned.has("weight") else None
        return F.instance_norm(x, weight=weight, bias=_bias(owned), eps=layer.get("epsilon", 1e-5))

    def _attend(
        self, q: Tensor, k: Tensor, v: Tensor, layer: Layer, heads: int, groups: int, allowed: Tensor | None
    ) -> Tensor:
        width = q.shape[-1] // heads

        def split(x: Tensor, count: int) -> Tensor:
            return x.reshape(*x.shape[:2], count, width).transpose(1, 2)

        out = F.scaled_dot_product_attention(
            split(q, heads),
            split(k, groups),
            split(v, groups),
            attn_mask=allowed[:, None] if allowed is not None and allowed.dim() == 3 else None,
            is_causal=layer.get("causal", False) and "mask" not in layer,
            scale=layer.get("value"),
            enable_gqa=groups != heads,
        )
        return out.transpose(1, 2).reshape(q.shape)

    def conv(self, layer: Layer, owned: Owned, x: Tensor) -> Tensor:
        axes = x.dim() - 2
        x = F.pad(x, [n for pair in reversed(pairs(layer.get("padding", 0), axes)) for n in pair])
        more = {key: layer.get(key, 1) for key in ("stride", "dilation", "groups")}
        return getattr(F, f"conv{axes}d")(x, owned("weight"), _bias(owned), **more)


def _bias(owned: Owned) -> Tensor | None:
    return owned("bias") if owned.has("bias") else None
