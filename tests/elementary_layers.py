"""Networks of any type of layer from the dict of a spec, a batch at once: by hand, and by PyTorch itself.

``Elementary`` writes every layer out in sums, products and functions of entries, whose higher derivatives
are right; ``Fused`` calls what PyTorch has. Neither reads anything of the package.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from elementary_recurrence import written_out
from torch import Tensor
from torch.func import grad, jvp, vjp

__all__ = ["Elementary", "derivatives_of", "drawn_inputs", "loss_of_outputs"]

Layer = Mapping[str, Any]
Parameters = Mapping[str, Tensor]

FUNCTIONS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "identity": lambda x: x,
    "tanh": torch.tanh,
    "sigmoid": lambda x: 1 / (1 + torch.exp(-x)),
    "softplus": lambda x: torch.logaddexp(x, torch.zeros_like(x)),
    "sin": torch.sin,
    "relu": lambda x: torch.where(x > 0, x, torch.zeros_like(x)),
    "elu": lambda x: torch.where(x > 0, x, torch.expm1(torch.where(x > 0, torch.zeros_like(x), x))),
    "gelu": lambda x: x * (1 + torch.erf(x / math.sqrt(2))) / 2,
    "silu": lambda x: x / (1 + torch.exp(-x)),
}


def pairs(value: Any, axes: int) -> list[tuple[int, int]]:
    """Padding before and after each axis."""
    items = value if isinstance(value, list) else [value] * axes
    return [(item[0], item[1]) if isinstance(item, list) else (item, item) for item in items]


def every(value: Any, axes: int) -> list[int]:
    """A number for each axis."""
    return list(value) if isinstance(value, list) else [value] * axes


def cut(x: Tensor, dim: int, places: Sequence[int]) -> Tensor:
    """Entries of an axis by their numbers."""
    return x.index_select(dim, torch.tensor(list(places), dtype=torch.long))


def largest(values: Sequence[Tensor]) -> Tensor:
    """The first of the largest, entry by entry."""
    best = values[0]
    for other in values[1:]:
        best = torch.where(other > best, other, best)
    return best


def along(x: Tensor, dim: int) -> Tensor:
    """Softmax."""
    e = torch.exp(x - x.detach().amax(dim, keepdim=True))
    return e / e.sum(dim, keepdim=True)


def filled(x: Tensor, dim: int, before: int, after: int, value: float) -> Tensor:
    """A number before and after an axis."""
    sides = []
    for count in (before, after):
        shape = list(x.shape)
        shape[dim] = count
        sides.append(torch.full(shape, value, dtype=x.dtype))
    return torch.cat([sides[0], x, sides[1]], dim)


def turned(x: Tensor, width: int, layer: Layer) -> Tensor:
    """Rotary positions by products of complex numbers; of heads side by side."""
    base, places = layer.get("base", 10000.0), x.shape[1]
    angles = torch.arange(places).double()[:, None] / base ** (torch.arange(0, width, 2).double() / width)
    turns = torch.complex(torch.cos(angles), torch.sin(angles))[:, None]
    heads = x.unflatten(-1, (-1, width))
    if layer["rotary"] == "interleaved":
        pairs = heads.unflatten(-1, (-1, 2))
    else:
        pairs = heads.unflatten(-1, (2, -1)).transpose(-1, -2)
    real, imaginary = pairs[..., 0], pairs[..., 1]
    parts = [real * turns.real - imaginary * turns.imag, real * turns.imag + imaginary * turns.real]
    found = torch.stack(parts, -1)
    found = found if layer["rotary"] == "interleaved" else found.transpose(-1, -2)
    return found.flatten(-2).flatten(-2)


class Owned:
    """The parameters of a layer."""

    def __init__(self, params: Parameters, layer: Layer) -> None:
        self.params, self.layer = params, layer

    def __call__(self, slot: str, part: str = "") -> Tensor:
        owner = self.layer.get("share", self.layer["name"])
        return self.params[".".join(filter(None, (owner, part, slot)))]

    def has(self, slot: str, part: str = "") -> bool:
        """Whether there is such a tensor."""
        owner = self.layer.get("share", self.layer["name"])
        return ".".join(filter(None, (owner, part, slot))) in self.params

    def get(self, slot: str, part: str) -> Tensor | None:
        """A tensor, or None where there is none."""
        return self(slot, part) if self.has(slot, part) else None

    def linear(self, x: Tensor, part: str = "") -> Tensor:
        """W x + β, with β unless the layer says that there is none."""
        value = (x[..., None, :] * self("weight", part)).sum(-1)
        return value + self("bias", part) if self.has("bias", part) else value

    def affine(self, x: Tensor, shape: Sequence[int], affine: bool) -> Tensor:
        """γ x + β."""
        if not affine:
            return x
        value = x * self("weight").reshape(list(shape))
        return value + self("bias").reshape(list(shape)) if self.has("bias") else value


def drawn_inputs(data: Mapping[str, Any], batch: int, generator: torch.Generator) -> Any:
    """A tensor for the input of a network, a tuple for several; classes are whole numbers, masks 0 and 1."""
    network, found = data["network"], []
    masks = {layer.get("mask") for layer in network["layers"]}
    for source in network.get("inputs") or [network["input"]]:
        size = source["size"] if isinstance(source["size"], list) else [source["size"]]
        if "classes" in source:
            found.append(torch.randint(source["classes"], (batch, *size), generator=generator))
        elif source["name"] in masks:
            found.append((torch.rand(batch, *size, generator=generator) < 0.6).double())
        else:
            found.append(torch.randn(batch, *size, generator=generator, dtype=torch.float64))
    return tuple(found) if "inputs" in network else found[0]


class Elementary:
    """The output of a network as a function of its parameters and a batch.

    Args:
        data: a spec as a dict, each layer with a name.
        training: whether batches are normalised by their own statistics; by default as the spec says.
    """

    def __init__(self, data: Mapping[str, Any], training: bool | None = None) -> None:
        network = data["network"]
        self.training = network.get("mode", "training") == "training" if training is None else training
        self.sources = [source["name"] for source in network.get("inputs") or [network["input"]]]
        self.layers: list[Layer] = data["network"]["layers"]

    def __call__(self, params: Parameters, x: Any) -> Tensor:
        return list(self.values(params, x).values())[-1]

    def values(self, params: Parameters, x: Any) -> dict[str, Tensor]:
        """Of all layers; those of the network's inputs under their own names."""
        given = x if isinstance(x, tuple) else (x,)
        self.batch = len(given[0])
        found, last = dict(zip(self.sources, given, strict=True)), self.sources[0]
        for layer in self.layers:
            inputs = layer.get("inputs", [] if layer["type"] in ("parameter", "table") else [last])
            inputs = [inputs] if isinstance(inputs, str) else inputs
            inputs = [*inputs, layer["mask"]] if "mask" in layer else inputs
            rule = getattr(self, layer["type"])
            value = rule(layer, Owned(params, layer), *(found[name] for name in inputs))
            last = layer["name"]
            found[last] = FUNCTIONS[layer.get("activation", "identity")](value)
        return found

    # Of every entry, and products with parameters

    def dense(self, layer: Layer, owned: Owned, x: Tensor) -> Tensor:
        return owned.linear(x)

    def parameter(self, layer: Layer, owned: Owned) -> Tensor:
        found = owned("weight" if layer.get("trained", True) else "value")
        return found.expand(self.batch, *found.shape)

    def table(self, layer: Layer, owned: Owned) -> Tensor:
        if "values" in layer:
            found = torch.tensor(layer["values"], dtype=torch.float64).reshape(layer["sizes"])
        else:
            places = torch.meshgrid(*(torch.arange(n).double() for n in layer["sizes"]), indexing="ij")
            found = self.entrywise(layer, owned, *places)
        return found.expand(self.batch, *found.shape)

    def activation(self, layer: Layer, owned: Owned, x: Tensor) -> Tensor:
        return FUNCTIONS[layer["function"]](x)

    def entrywise(self, layer: Layer, owned: Owned, *xs: Tensor) -> Tensor:
        """The text of the layer as Python reads it, over tensors."""
        names = {f"x{n}": x for n, x in enumerate(xs, 1)} | layer.get("parameters", {})
        known = {"tanh": torch.tanh, "sigmoid": FUNCTIONS["sigmoid"], "where": torch.where, "exp": torch.exp}
        value: Tensor = eval(layer["expression"], {"__builtins__": {}}, names | known)
        return value

    def embedding(self, layer: Layer, owned: Owned, x: Tensor) -> Tensor:
        return owned("weight")[x]

    def add(self, layer: Layer, owned: Owned, *xs: Tensor) -> Tensor:
        return sum(xs[1:], xs[0])

    def multiply(self, layer: Layer, owned: Owned, *xs: Tensor) -> Tensor:
        return math.prod(xs[1:], start=xs[0])

    def scale(self, layer: Layer, owned: Owned, x: Tensor) -> Tensor:
        return layer.get("value", 1.0) * x + layer.get("shift", 0.0)

    def rnn(self, layer: Layer, owned: Owned, x: Tensor) -> Tensor:
        return written_out(layer, owned.get, x)

    lstm = gru = rnn

    def positions(self, layer: Layer, owned: Owned, x: Tensor) -> Tensor:
        if layer.get("kind") != "sinusoids":
            return x + owned("weight")
        places, features = x.shape[1:]
        even = torch.arange(0, features, 2).double()
        angles = torch.arange(places).double()[:, None] / layer.get("base", 10000.0) ** (even / features)
        table = torch.zeros(places, features).double()
        table[:, 0::2], table[:, 1::2] = torch.sin(angles), torch.cos(angles)[:, : features // 2]
        return x + table

    def matmul(self, layer: Layer, owned: Owned, a: Tensor, b: Tensor) -> Tensor:
        transposed = layer.get("transpose", [])
        a = a.transpose(-1, -2) if "first" in transposed else a
        b = b.transpose(-1, -2) if "second" in transposed else b
        return (a[..., :, :, None] * b[..., None, :, :]).sum(-2)

    # Shapes

    def flatten(self, layer: Layer, owned: Owned, x: Tensor) -> Tensor:
        return x.reshape(len(x), -1)

    def strided(self, layer: Layer, owned: Owned, x: Tensor) -> Tensor:
        dim = layer.get("axis", x.dim() - 1)
        places = [
            layer.get("start", 0) + sum(n * step for n, step in zip(at, layer["steps"], strict=True))
            for at in itertools.product(*map(range, layer["sizes"]))
        ]
        return cut(x, dim, places).unflatten(dim, layer["sizes"])

    def reshape(self, layer: Layer, owned: Owned, x: Tensor) -> Tensor:
        return x.reshape(len(x), *layer["sizes"])

    def permute(self, layer: Layer, owned: Owned, x: Tensor) -> Tensor:
        return x.permute(0, *(axis if axis > 0 else axis + x.dim() for axis in layer["order"]))

    def slice(self, layer: Layer, owned: Owned, x: Tensor) -> Tensor:
        dim = layer.get("axis", -1)
        places = range(x.shape[dim])[layer.get("start") : layer.get("stop") : layer.get("step")]
        return cut(x, dim, places)

    def concatenate(self, layer: Layer, owned: Owned, *xs: Tensor) -> Tensor:
        return torch.cat(xs, layer.get("axis", 1))

    def pad(self, layer: Layer, owned: Owned, x: Tensor) -> Tensor:
        mode = layer.get("mode", "zeros")
        for dim, (before, after) in enumerate(pairs(layer["padding"], x.dim() - 1), start=1):
            size = x.shape[dim]
            numbers = range(-before, size + after)
            if mode == "zeros":
                x = filled(x, dim, before, after, 0.0)
            elif mode == "circular":
                x = cut(x, dim, [n % size for n in numbers])
            elif mode == "replicate":
                x = cut(x, dim, [min(max(n, 0), size - 1) for n in numbers])
            else:
                x = cut(x, dim, [size - 1 - abs(size - 1 - abs(n)) for n in numbers])
        return x

    def upsample(self, layer: Layer, owned: Owned, x: Tensor) -> Tensor:
        for dim, times in enumerate(every(layer.get("factor", 2), x.dim() - 2), start=2):
            size = x.shape[dim]
            if layer.get("mode", "nearest") == "nearest":
                x = cut(x, dim, [n // times for n in range(size * times)])
                continue
            places = [max((n + 0.5) / times - 0.5, 0.0) for n in range(size * times)]
            low = [int(place) for place in places]
            rest = torch.tensor([p - n for p, n in zip(places, low, strict=True)], dtype=x.dtype)
            rest = rest.reshape(-1, *[1] * (x.dim() - dim - 1))
            high = [min(n + 1, size - 1) for n in low]
            x = cut(x, dim, low) * (1 - rest) + cut(x, dim, high) * rest
        return x

    # What is made of axes

    def _axes(self, layer: Layer, x: Tensor) -> list[int]:
        axes = layer.get("axes") or range(1, x.dim())
        axes = [axes] if isinstance(axes, int) else axes
        return [axis % x.dim() for axis in axes]

    def sum(self, layer: Layer, owned: Owned, x: Tensor) -> Tensor:
        found = x.sum(self._axes(layer, x), keepdim=layer.get("keep", False))
        return found if found.dim() > 1 else found[:, None]

    def mean(self, layer: Layer, owned: Owned, x: Tensor) -> Tensor:
        count = math.prod(x.shape[dim] for dim in self._axes(layer, x))
        return self.sum(layer, owned, x) / count

    def max(self, layer: Layer, owned: Owned, x: Tensor) -> Tensor:
        axes = self._axes(layer, x)
        ranges = [range(x.shape[dim]) if dim in axes else [slice(None)] for dim in range(x.dim())]
        kept = [x.shape[dim] for dim in range(x.dim()) if dim not in axes]
        best = largest([x[at] for at in itertools.product(*ranges)]).reshape(kept)
        if layer.get("keep", False):
            return best.reshape([1 if dim in axes else n for dim, n in enumerate(x.shape)])
        return best if best.dim() > 1 else best[:, None]

    def log_softmax(self, layer: Layer, owned: Owned, x: Tensor) -> Tensor:
        return torch.log(self.softmax(layer, owned, x))

    def softmax(self, layer: Layer, owned: Owned, x: Tensor) -> Tensor:
        return along(x, layer.get("axis", -1))

    # Norms

    def _normal(self, x: Tensor, dims: Sequence[int], epsilon: float, centred: bool = True) -> Tensor:
        count = math.prod(x.shape[dim] for dim in dims)
        if centred:
            x = x - x.sum(dims, keepdim=True) / count
        return x / torch.sqrt((x * x).sum(dims, keepdim=True) / count + epsilon)

    def layer_norm(self, layer: Layer, owned: Owned, x: Tensor, centred: bool = True) -> Tensor:
        axes = layer.get("axes", [-1])
        dims = sorted(axis % x.dim() for axis in ([axes] if isinstance(axes, int) else axes))
        epsilon = layer.get("epsilon", 1e-5 if centred else 1e-6)
        shape = [n if dim in dims else 1 for dim, n in enumerate(x.shape)]
        return owned.affine(self._normal(x, dims, epsilon, centred), shape, layer.get("affine", True))

    def batch_norm(self, layer: Layer, owned: Owned, x: Tensor) -> Tensor:
        dims = [dim for dim in range(x.dim()) if dim != 1]
        shape = [1, x.shape[1], *[1] * (x.dim() - 2)]
        epsilon = layer.get("epsilon", 1e-5)
        if self.training:
            value = self._normal(x, dims, epsilon)
        else:
            mean, variance = (owned(f"running_{name}").reshape(shape) for name in ("mean", "var"))
            value = (x - mean) / torch.sqrt(variance + epsilon)
        return owned.affine(value, shape, layer.get("affine", True))

    def dropout(self, layer: Layer, owned: Owned, x: Tensor) -> Tensor:
        assert not self.training, "draws are those of a module: tests/backends/test_dropout.py"
        return x

    def rms_norm(self, layer: Layer, owned: Owned, x: Tensor) -> Tensor:
        return self.layer_norm(layer, owned, x, centred=False)

    def group_norm(self, layer: Layer, owned: Owned, x: Tensor) -> Tensor:
        return self._grouped(layer, owned, x, layer["groups"], True)

    def instance_norm(self, layer: Layer, owned: Owned, x: Tensor) -> Tensor:
        return self._grouped(layer, owned, x, x.shape[1], False)

    def _grouped(self, layer: Layer, owned: Owned, x: Tensor, groups: int, affine: bool) -> Tensor:
        rows = self._normal(x.reshape(len(x), groups, -1), [2], layer.get("epsilon", 1e-5))
        shape = [1, x.shape[1], *[1] * (x.dim() - 2)]
        return owned.affine(rows.reshape(x.shape), shape, layer.get("affine", affine))

    # Attention

    def attention(self, layer: Layer, owned: Owned, *xs: Tensor) -> Tensor:
        allowed = None
        if "mask" in layer:
            *xs, mask = xs
            allowed = (mask if mask.dim() == 3 else mask[:, None].expand(-1, xs[0].shape[1], -1)) > 0.5
        q, k, v = xs[0], xs[min(1, len(xs) - 1)], xs[-1]
        if layer.get("causal", False):
            before = torch.ones(q.shape[1], q.shape[1], dtype=torch.bool).tril()
            allowed = before if allowed is None else allowed & before
        projected = layer.get("projected", True)
        if projected:
            q, k, v = (owned.linear(x, part) for x, part in ((q, "query"), (k, "key"), (v, "value")))
        heads = layer["heads"]
        groups = layer.get("groups", heads)
        if layer.get("rotary"):
            width = q.shape[-1] // heads
            q, k = turned(q, width, layer), turned(k, width, layer)
        out = self._attend(q, k, v, layer, heads, groups, allowed)
        return owned.linear(out, "output") if projected else out

    def _attend(
        self, q: Tensor, k: Tensor, v: Tensor, layer: Layer, heads: int, groups: int, allowed: Tensor | None
    ) -> Tensor:
        width, found = q.shape[-1] // heads, []
        for head in range(heads):
            own = slice(head * width, (head + 1) * width)
            group = head // (heads // groups)
            read = slice(group * width, (group + 1) * width)
            scores = (q[:, :, None, own] * k[:, None, :, read]).sum(-1)
            scores = scores * layer.get("value", 1 / math.sqrt(width))
            if allowed is not None:
                scores = torch.where(allowed, scores, torch.full_like(scores, -1e300))
            weights = along(scores, 2)
            if allowed is not None:
                weights = weights * allowed
            found.append((weights[..., None] * v[:, None, :, read]).sum(2))
        return torch.cat(found, -1)

    # Windows

    def conv(self, layer: Layer, owned: Owned, x: Tensor) -> Tensor:
        weight, groups = owned("weight"), layer.get("groups", 1)
        found: list[Tensor] = []
        own, rows = x.shape[1] // groups, weight.shape[0] // groups
        padded = self._padded(layer, x, 0.0)
        for group in range(groups):
            part = padded[:, group * own : (group + 1) * own]
            kernel = weight[group * rows : (group + 1) * rows]
            terms = [
                torch.einsum("bc...,oc->bo...", value, kernel[(slice(None), slice(None), *at)])
                for at, value in self._windows(layer, part)
            ]
            found.append(sum(terms[1:], terms[0]))
        value = torch.cat(found, 1)
        if layer.get("bias", True):
            value = value + owned("bias").reshape(-1, *[1] * (x.dim() - 2))
        return value

    def pool(self, layer: Layer, owned: Owned, x: Tensor) -> Tensor:
        most = layer["function"] == "max"
        read = [value for _, value in self._windows(layer, self._padded(layer, x, -1e300 if most else 0.0))]
        return largest(read) if most else sum(read[1:], read[0]) / len(read)

    def _padded(self, layer: Layer, x: Tensor, value: float) -> Tensor:
        for dim, (before, after) in enumerate(pairs(layer.get("padding", 0), x.dim() - 2), start=2):
            x = filled(x, dim, before, after, value)
        return x

    def _windows(self, layer: Layer, x: Tensor) -> list[tuple[tuple[int, ...], Tensor]]:
        """For each entry of a window, what all windows read there."""
        axes = x.dim() - 2
        kernel = every(layer["kernel"], axes)
        stride = every(layer.get("stride", layer["kernel"] if layer["type"] == "pool" else 1), axes)
        dilation = every(layer.get("dilation", 1), axes)
        found = []
        for at in itertools.product(*map(range, kernel)):
            value = x
            for n, (k, d, s, entry) in enumerate(zip(kernel, dilation, stride, at, strict=True), start=2):
                count = (x.shape[n] - d * (k - 1) - 1) // s + 1
                value = cut(value, n, [entry * d + s * place for place in range(count)])
            found.append((at, value))
        return found


def loss_of_outputs(loss: str, y: Tensor, t: Tensor) -> Tensor:
    """Mean over a batch."""
    if loss == "squared_error":
        return ((y - t) ** 2).sum() / 2 / len(y)
    assert loss == "cross_entropy"
    top = y.detach().amax(1, keepdim=True)
    log = torch.log(torch.exp(y - top).sum(1)) + top[:, 0]
    return (log - y.gather(1, t[:, None])[:, 0]).mean()


def derivatives_of(
    run: Callable[[Parameters, Any], Tensor],
    loss: str,
    point: tuple[dict[str, Tensor], Any, Tensor],
    vector: dict[str, Tensor],
) -> dict[str, dict[str, Tensor]]:
    """Gradient, and the vector times the Hessian and times Jᵀ H J, by name of the operator."""
    params, x, t = point

    def outputs(values: dict[str, Tensor]) -> Tensor:
        return run(values, x)

    def of_outputs(y: Tensor) -> Tensor:
        return loss_of_outputs(loss, y, t)

    slope, product = jvp(grad(lambda values: of_outputs(outputs(values))), (params,), (vector,))
    y, moved = jvp(outputs, (params,), (vector,))
    curved = jvp(grad(of_outputs), (y,), (moved,))[1]
    pulled = vjp(outputs, params)[1](curved)[0]
    return {
        "gradient": slope,
        "hessian_vector_product": product,
        "gauss_newton_vector_product": pulled,
    }
