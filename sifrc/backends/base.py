"""What a backend is, and what it is given to print."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from types import MappingProxyType
from typing import Any, Protocol

from sifrc.lower.program import Program
from sifrc.spec.types import OptionValue

__all__ = [
    "Backend",
    "BufferInfo",
    "LayerInfo",
    "ModuleSource",
    "Option",
    "accumulates",
    "has_class_indices",
    "has_parameter_rates",
    "made_again_for",
]


@dataclass(frozen=True)
class LayerInfo:
    """An owner of parameters, a layer or a part of one, as the module's initialiser and checks need it.

    Args:
        index: k of its constraint, which its arrays have for a subscript.
        name: its tensors are ``<name>.weight`` and ``<name>.bias``; in a part of a layer it has a dot.
        weight: shape of the weight, (outputs, inputs, *kernel) of a linear map.
        bias: shape of the bias, or None.
        initialization: kind (he, glorot, uniform, sparse, normal, zeros, ones, constant).
        value: of ``constant``, ``uniform`` (the limit) and ``normal``.
        connections: of ``sparse``.
        groups: of channels of a convolution; 0 for what is none.
    """

    index: int
    name: str
    weight: tuple[int, ...]
    bias: tuple[int, ...] | None
    initialization: str = "he"
    value: float = 0.0
    connections: int = 15
    groups: int = 0

    @property
    def kernel(self) -> tuple[int, ...]:
        """Entries of the window of a convolution; empty for what is none."""
        return self.weight[2:] if self.groups else ()

    @property
    def outputs(self) -> int:
        """Rows of the weight as a matrix."""
        return self.weight[0]

    @property
    def fan_in(self) -> int:
        """Entries that an output is made of: columns of the weight as a matrix."""
        return prod(self.weight[1:])

    @property
    def fan_out(self) -> int:
        """Entries that an input has a part in."""
        return self.weight[0] * prod(self.weight[2:])


@dataclass(frozen=True)
class BufferInfo:
    """What a layer keeps besides parameters, as the module's initialiser and checks need it.

    Args:
        index: subscript that its array has.
        name: of the tensor, e.g. ``bn1.running_mean``.
        family: of its symbol.
        shape: of the tensor.
        start: every entry at the start.
    """

    index: int
    name: str
    family: str
    shape: tuple[int, ...]
    start: float


@dataclass(frozen=True)
class ModuleSource:
    """Everything a backend prints: a program and the facts around it. No paths, no dates.

    Args:
        program: what is computed.
        name: spec name; the module's docstring starts with it.
        summary: one line, e.g. ``Mehouachi–Kasmi direction, one sample at a time``.
        architecture: e.g. ``64 → 48 → 10, leaky_relu(slope=0.1), cross_entropy``.
        version: sifrc version.
        spec_hash: sha256 of the canonical spec.
        spec: the spec as plain data.
        dtype: float32, float64 or bfloat16.
        layers: that own parameters, index 1.. in the weight family.
        buffers: what layers keep besides parameters.
        input_shape: sizes of the axes of x_0.
        input_classes: of which the entries of inputs are; 0 for real numbers.
        inputs: of a network with several inputs: name -> sizes of the axes and classes of each, in order; the
            first is x_0, the others are d_1, d_2, …
        draws: uniform numbers that layers draw for each sample: subscript among the d_k -> sizes of the axes.
        output_size: length of the output along the axis of its vectors.
        output_shape: sizes of the axes of the output.
        places: sizes of its other axes, at each of which it has a vector.
        targets: ``classes`` or ``vectors``.
        names: what tensors are called in the torch module that the network was taken from, where it was.
        ignored: class of targets that do not count; None where all do.
        seed: default seed of the initialiser.
        reduction: ``mean`` or ``sum``: ``sum`` multiplies scalars and tensors by the batch size.
        method: name of the method, or '' for a module of operators only.
        method_text: paragraph on the method for the optimizer's docstring.
        conditions: statements printed in the module docstring (what is proved, what is checked at run time).
        options: backend options, printed in the header.
        cost: lines of the cost report for the header.
    """

    program: Program
    name: str
    summary: str
    architecture: str
    version: str
    spec_hash: str
    spec: Mapping[str, Any]
    dtype: str
    layers: tuple[LayerInfo, ...]
    input_shape: tuple[int, ...]
    output_size: int
    targets: str
    seed: int
    buffers: tuple[BufferInfo, ...] = ()
    input_classes: int = 0
    ignored: int | None = None
    inputs: Mapping[str, tuple[tuple[int, ...], int]] = field(default_factory=lambda: MappingProxyType({}))
    draws: Mapping[int, tuple[int, ...]] = field(default_factory=lambda: MappingProxyType({}))
    output_shape: tuple[int, ...] = ()
    places: tuple[int, ...] = ()
    names: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    reduction: str = "mean"
    method: str = ""
    method_text: str = ""
    conditions: tuple[str, ...] = ()
    options: Mapping[str, bool | int | float | str] = field(default_factory=lambda: MappingProxyType({}))
    cost: tuple[str, ...] = ()


@dataclass(frozen=True)
class Option:
    """A backend option: one table feeds API, spec and command line."""

    name: str
    default: bool | int | float | str
    text: str
    choices: tuple[bool | int | float | str, ...] = ()


class Backend(Protocol):
    """Prints programs. Found by name through :func:`sifrc.backends.find_backend`."""

    @property
    def name(self) -> str:
        """As in the spec's ``target.backend``."""
        ...

    @property
    def options(self) -> tuple[Option, ...]:
        """Options it accepts; others are refused."""
        ...

    @property
    def dtypes(self) -> tuple[str, ...]:
        """Data types it can print."""
        ...

    def emit(self, module: ModuleSource) -> str:
        """The module's text: stand-alone, deterministic, ending in a newline."""
        ...


def has_class_indices(backend: Backend) -> bool:
    """Whether a backend prints programs in which classes are integers.

    It says so by an attribute ``class_indices``; a program for one without it has classes as vectors.
    """
    return bool(getattr(backend, "class_indices", False))


def has_parameter_rates(backend: Backend) -> bool:
    """Whether a backend's optimizers have a step size for each parameter, and not one for all.

    It says so by an attribute ``parameter_rates``.
    """
    return bool(getattr(backend, "parameter_rates", False))


def accumulates(backend: Backend) -> bool:
    """Whether a backend's optimizers take several batches for one step.

    It says so by an attribute ``accumulates``.
    """
    return bool(getattr(backend, "accumulates", False))


def made_again_for(backend: Backend, options: Mapping[str, OptionValue]) -> tuple[str, ...]:
    """Which arrays of a backend's programs are made again where they are read, and not kept for it.

    It says so by an attribute ``makes_again``; options ``recompute`` and ``blocks`` ask for the large ones
    besides.
    """
    usual: tuple[str, ...] = getattr(backend, "makes_again", ())
    return (*usual, "large") if options.get("recompute") or blocks_for(options) > 1 else usual


def blocks_for(options: Mapping[str, OptionValue]) -> int:
    """In how many blocks of rows what is large and made again is computed."""
    blocks = options.get("blocks", 1)
    return blocks if isinstance(blocks, int) else 1
