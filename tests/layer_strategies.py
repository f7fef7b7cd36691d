"""A Hypothesis strategy: random small graphs of all types of layers, as plain dicts."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

__all__ = ["layer_specs"]

ACTIVATIONS = ("tanh", "sigmoid", "softplus", "sin", "relu", "elu", "gelu", "silu")
EXPRESSIONS = ("x1*sigmoid(x2)", "tanh(x1 - x2)*x2 + x1", "where(x1 > x2, x1*x2, x2*x2*tanh(x1))")
MOST = 36
"""Entries of a state."""

Shape = tuple[int, ...]
Draw = Callable[[st.SearchStrategy[Any]], Any]


class Graph:
    """A graph that grows layer by layer.

    Args:
        draw: of Hypothesis.
        shape: of the network input.
    """

    def __init__(self, draw: Draw, shape: Shape) -> None:
        self.draw = draw
        self.layers: list[dict[str, Any]] = []
        self.inputs: list[dict[str, Any]] = [{"name": "x0", "size": list(shape)}]
        self.shapes: dict[str, Shape] = {"x0": shape}
        self.current = "x0"
        self.trained: set[str] = set()

    @property
    def shape(self) -> Shape:
        return self.shapes[self.current]

    def pick(self, *values: Any) -> Any:
        return self.draw(st.sampled_from(values))

    def put(self, kind: str, shape: Shape, /, inputs: list[str] | None = None, **keys: Any) -> str:
        """Append a layer, where what it gives is small enough."""
        if math.prod(shape) > MOST:
            return self.current
        name = f"l{len(self.layers) + 1}"
        inputs = inputs or [self.current]
        if kind in ("dense", "conv", "add", "multiply") or kind.endswith("norm"):
            keys |= {"activation": self.pick(*ACTIVATIONS)} if self.draw(st.booleans()) else {}
        self.layers.append({"name": name, "type": kind, "inputs": inputs, **keys})
        self.shapes[name] = shape
        if kind in ("dense", "conv") or (kind == "positions" and not keys) or self.trained & set(inputs):
            self.trained.add(name)
        self.current = name
        return name

    def axis(self, position: int) -> int:
        """An axis as it is written, from either end."""
        return self.pick(position + 1, position - len(self.shape))

    def some_axes(self) -> list[int]:
        count = len(self.shape)
        return self.draw(st.lists(st.integers(0, count - 1), min_size=1, max_size=count, unique=True))

    # Each kind adds a layer where it fits

    def dense(self) -> None:
        units = self.draw(st.integers(1, 4))
        self.put("dense", (*self.shape[:-1], units), units=units, bias=self.pick(True, True, False))

    def activation(self) -> None:
        self.put("activation", self.shape, function=self.pick(*ACTIVATIONS))

    def scale(self) -> None:
        self.put("scale", self.shape, value=self.pick(-0.5, 0.3, 2), shift=self.pick(0, 0.25, -1.5))

    def reshape(self) -> None:
        left, sizes = math.prod(self.shape), []
        for _ in range(self.draw(st.integers(0, 3))):
            sizes.append(self.pick(*(n for n in range(1, left + 1) if left % n == 0)))
            left //= sizes[-1]
        shape = (*sizes, left)
        written = list(shape)
        if self.draw(st.booleans()):
            written[self.draw(st.integers(0, len(sizes)))] = -1
        self.put("reshape", shape, sizes=written)

    def permute(self) -> None:
        order = self.draw(st.permutations(range(len(self.shape))))
        written = [self.axis(n) for n in order]
        self.put("permute", tuple(self.shape[n] for n in order), order=written)

    def slice(self) -> None:
        axis = self.draw(st.integers(0, len(self.shape) - 1))
        ends = st.one_of(st.none(), st.integers(-5, 5))
        start, stop, step = self.draw(ends), self.draw(ends), self.pick(None, 1, 2, -1, -2)
        count = len(range(self.shape[axis])[start:stop:step])
        if count:
            shape = (*self.shape[:axis], count, *self.shape[axis + 1 :])
            self.put("slice", shape, axis=self.axis(axis), start=start, stop=stop, step=step)

    def pad(self) -> None:
        if len(self.shape) > 3:
            return
        mode = self.pick("zeros", "circular", "reflect", "replicate")
        padding = []
        for size in self.shape:
            most = {"zeros": 2, "replicate": 3, "circular": min(size, 2), "reflect": min(size - 1, 2)}[mode]
            padding.append([self.draw(st.integers(0, most)), self.draw(st.integers(0, most))])
        shape = tuple(n + sum(pair) for n, pair in zip(self.shape, padding, strict=True))
        self.put("pad", shape, padding=padding, mode=mode)

    def upsample(self) -> None:
        if 2 <= len(self.shape) <= 4:
            factor = [self.pick(1, 2, 3) for _ in self.shape[1:]]
            shape = (self.shape[0], *(n * m for n, m in zip(self.shape[1:], factor, strict=True)))
            self.put("upsample", shape, factor=factor, mode=self.pick("nearest", "linear"))

    def reduction(self) -> None:
        axes, keep = self.some_axes(), self.draw(st.booleans())
        shape = tuple(1 if n in axes else size for n, size in enumerate(self.shape) if keep or n not in axes)
        kind = self.pick("sum", "mean", "max")
        self.put(kind, shape or (1,), axes=[self.axis(n) for n in axes], keep=keep)

    def softmax(self) -> None:
        axis = self.draw(st.integers(0, len(self.shape) - 1))
        if self.shape[axis] == 1 and self.current not in self.trained:
            return  # the same for every input
        self.put("softmax", self.shape, axis=self.axis(axis))

    def norm(self) -> None:
        keys = {"epsilon": self.pick(0.01, 0.3, 2), "affine": self.draw(st.booleans())}
        kind = self.pick("layer_norm", "rms_norm", "group_norm", "instance_norm", "batch_norm", "batch_norm")
        if kind in ("layer_norm", "rms_norm"):
            keys["axes"] = [self.axis(n) for n in self.some_axes()]
        elif len(self.shape) < 2 and kind != "batch_norm":
            return
        elif kind == "group_norm":
            keys["groups"] = self.pick(*(n for n in range(1, self.shape[0] + 1) if self.shape[0] % n == 0))
        if keys["affine"] and kind != "rms_norm":
            keys["bias"] = self.draw(st.booleans())
        self.put(kind, self.shape, **keys)

    def positions(self) -> None:
        if len(self.shape) == 2 and self.draw(st.booleans()):
            self.put("positions", self.shape, kind="sinusoids")
        elif len(self.shape) > 1:
            self.put("positions", self.shape)

    def attention(self) -> None:
        if len(self.shape) != 2:
            return
        query, features = self.current, self.shape[1]
        others = [name for name, shape in self.shapes.items() if len(shape) == 2 and name != query]
        read = [self.pick(*others)] if others and self.draw(st.booleans()) else []
        places = self.shapes[read[0]][0] if read else self.shape[0]
        heads = self.pick(*(n for n in range(1, features + 1) if features % n == 0))
        groups = self.pick(*(n for n in range(1, heads + 1) if heads % n == 0))
        keys: dict[str, Any] = {"heads": heads, "groups": groups, "bias": self.draw(st.booleans())}
        if places == self.shape[0]:
            keys["causal"] = self.draw(st.booleans())
        if self.draw(st.booleans()):
            keys["value"] = self.pick(0.4, -1.2)
        if self.draw(st.booleans()):
            keys["mask"] = self._mask(self.shape[0], places)
        if features // heads % 2 == 0 and self.draw(st.booleans()):
            keys["rotary"] = self.pick(True, "interleaved")
            keys |= self.pick({}, {"base": 20})
        own = self.shapes[(read or [query])[0]][1] == groups * (features // heads)
        if own and self.draw(st.booleans()):
            keys["projected"] = False
            del keys["bias"]
        self.put("attention", self.shape, [query, *read], **keys)

    def recurrence(self) -> None:
        if len(self.shape) != 2:
            return
        kind, units = self.pick("rnn", "lstm", "gru"), self.draw(st.integers(1, 2))
        keys = {
            "units": units,
            "layers": self.pick(1, 1, 2),
            "bidirectional": self.draw(st.booleans()),
            "bias": self.draw(st.booleans()),
        }
        if kind == "rnn":
            keys["function"] = self.pick("tanh", "sin")
        if kind == "lstm":
            keys["cells"] = self.draw(st.booleans())
        given = (1 + keys["bidirectional"]) * (1 + keys.get("cells", False))
        self.put(kind, (self.shape[0], units * given), **keys)

    def _mask(self, places: int, read: int) -> str:
        """An input that says which places are read."""
        name, shape = f"x{len(self.inputs)}", self.pick((read,), (places, read))
        self.inputs.append({"name": name, "size": list(shape)})
        self.shapes[name] = shape
        return name

    def conv(self) -> None:
        if not 2 <= len(self.shape) <= 4:
            return
        kernel, stride, padding, dilation, places = [], [], [], [], []
        for size in self.shape[1:]:
            k, s = self.draw(st.integers(1, min(3, size))), self.draw(st.integers(1, 2))
            p, d = [self.draw(st.integers(0, 1)) for _ in range(2)], self.pick(1, 1, 2)
            d = d if d * (k - 1) < size + sum(p) else 1
            places.append((size + sum(p) - d * (k - 1) - 1) // s + 1)
            for values, value in ((kernel, k), (stride, s), (padding, p), (dilation, d)):
                values.append(value)
        groups = self.pick(*(n for n in (1, 2) if self.shape[0] % n == 0))
        channels = groups * self.draw(st.integers(1, 2))
        more = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
        bias = self.draw(st.booleans())
        self.put("conv", (channels, *places), channels=channels, kernel=kernel, bias=bias, **more)

    def pool(self) -> None:
        if not 2 <= len(self.shape) <= 4:
            return
        kernel = [self.draw(st.integers(1, min(2, size))) for size in self.shape[1:]]
        places = [(size - k) // k + 1 for size, k in zip(self.shape[1:], kernel, strict=True)]
        self.put("pool", (self.shape[0], *places), kernel=kernel, function=self.pick("max", "average"))

    # With a state from before

    def _branch(self) -> str | None:
        """An earlier state of this shape, or a dense layer of this state or another one."""
        start = self.current
        same = [name for name, shape in self.shapes.items() if shape == self.shape and name != start]
        if same and self.draw(st.booleans()):
            return self.pick(*same)
        near = [name for name, shape in self.shapes.items() if shape[:-1] == self.shape[:-1]]
        name = self.put("dense", self.shape, [self.pick(*near)], units=self.shape[-1])
        self.current = start
        return name if name != start else None

    def residual(self) -> None:
        start, other = self.current, self._branch()
        if other is None:
            return
        kind = self.pick("add", "multiply", "concatenate", "entrywise")
        inputs = self.draw(st.permutations([start, other]))
        if kind == "entrywise":
            self.put(kind, self.shape, inputs, expression=self.pick(*EXPRESSIONS))
            return
        if kind != "concatenate":
            self.put(kind, self.shape, inputs)
            return
        axis = self.draw(st.integers(0, len(self.shape) - 1))
        shape = (*self.shape[:axis], 2 * self.shape[axis], *self.shape[axis + 1 :])
        if math.prod(shape) <= MOST:
            self.put(kind, shape, inputs, axis=self.axis(axis))
        else:
            self.put("add", self.shape, inputs)

    def data(self) -> None:
        """Another input of the network, of this shape or with one entry along some axes."""
        name, start = f"x{len(self.inputs)}", self.current
        shape = tuple(self.pick(n, n, n, 1) for n in self.shape)
        self.inputs.append({"name": name, "size": list(shape)})
        self.shapes[name] = shape
        self.put(self.pick("add", "multiply"), self.shape, self.draw(st.permutations([start, name])))

    def matmul(self) -> None:
        if len(self.shape) < 2:
            return
        start, other = self.current, self._branch()
        if other is None:
            return
        *before, rows, columns = self.shape
        kind = self.pick("second", "first", *(("both", None) if rows == columns else ()))
        size = rows if kind == "second" else columns
        words = {"second": "second", "first": ["first"], "both": ["first", "second"], None: []}[kind]
        if math.prod((*before, size, size)) <= MOST:
            self.put("matmul", (*before, size, size), [start, other], transpose=words)
        else:
            self.put("add", self.shape, [start, other])

    def used(self) -> list[dict[str, Any]]:
        """The layers that lead to the last one."""
        reached = {self.layers[-1]["name"]}
        for layer in reversed(self.layers):
            if layer["name"] in reached:
                reached |= set(layer["inputs"])
        return [layer for layer in self.layers if layer["name"] in reached]


KINDS = (
    *("dense", "activation", "scale", "reshape", "permute", "slice", "pad", "upsample", "reduction"),
    *("softmax", "norm", "norm", "positions", "attention", "attention", "conv", "pool", "residual"),
    *("residual", "matmul", "recurrence", "recurrence", "data"),
)


@st.composite
def layer_specs(draw: st.DrawFn) -> dict[str, Any]:
    """Two to five layers of random types that fit, then a dense one of all entries."""
    sizes = st.lists(st.integers(1, 4), min_size=1, max_size=4)
    shape = tuple(draw(sizes.filter(lambda found: math.prod(found) <= 24)))
    graph = Graph(draw, shape)
    for kind in draw(st.lists(st.sampled_from(KINDS), min_size=2, max_size=5)):
        getattr(graph, kind)()
    loss = draw(st.sampled_from(["squared_error", "cross_entropy"]))
    graph.put("flatten", (math.prod(graph.shape),))
    graph.put("dense", (3,), units=3)
    network: dict[str, Any] = {"inputs": graph.inputs, "layers": graph.used()}
    if len(graph.inputs) == 1:
        network = {"input": graph.inputs[0], "layers": graph.used()}
    if draw(st.booleans()):
        network["mode"] = "evaluation"
    return {"sifrc": 1, "name": "random", "network": network, "loss": loss, "dtype": "float64"}
