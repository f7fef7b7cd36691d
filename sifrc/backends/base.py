"""What a backend is, and what it is given to print."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from types import MappingProxyType
from typing import Any, Protocol

from sifrc.lower.program import Program

__all__ = ["Backend", "LayerInfo", "ModuleSource", "Option"]


@dataclass(frozen=True)
class LayerInfo:
    """A layer that owns parameters, as the module's initialiser and checks need it.

    Args:
        index: k of its constraint, which its arrays have for a subscript.
        name: layer name; parameters are ``<name>.weight`` (outputs, inputs) and ``<name>.bias``.
        outputs: rows of the weight.
        inputs: columns of the weight.
        bias: whether it has a bias.
        initialization: kind (he, glorot, sparse, zeros, constant).
        value: of ``constant``.
        connections: of ``sparse``.
        kernel: entries of the window of a convolution; its weight is (outputs, inputs, *kernel).
        groups: of channels of a convolution, each of which has so many inputs.
    """

    index: int
    name: str
    outputs: int
    inputs: int
    bias: bool
    initialization: str = "he"
    value: float = 0.0
    connections: int = 15
    kernel: tuple[int, ...] = ()
    groups: int = 1

    @property
    def weight(self) -> tuple[int, ...]:
        """Shape of the weight."""
        return (self.outputs, self.inputs, *self.kernel)

    @property
    def fan_in(self) -> int:
        """Entries that an output is made of: columns of the weight as a matrix."""
        return self.inputs * prod(self.kernel)

    @property
    def fan_out(self) -> int:
        """Entries that an input has a part in."""
        return self.outputs * prod(self.kernel)


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
        input_shape: sizes of the axes of x_0.
        output_size: length of the output.
        targets: ``classes`` or ``vectors``.
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
