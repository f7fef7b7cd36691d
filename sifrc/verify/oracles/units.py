"""Tensors that act at one pre-activation: what oracles of curvature take apart."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from sifrc.ir.arithmetic import Array
from sifrc.spec.layers import owned_by
from sifrc.spec.layers.batch_norm import BatchNormSpec
from sifrc.spec.layers.norms import NormSpec
from sifrc.spec.layers.tensors import TensorSpec
from sifrc.spec.types import LayerSpec, Sizes, Spec
from sifrc.verify.oracles.entries import Activate, At
from sifrc.verify.oracles.layers import layer_value
from sifrc.verify.oracles.network import parameter_shapes

__all__ = ["Unit", "jacobians", "units"]


@dataclass(frozen=True)
class Unit:
    """A layer with parameters of its own, or a part of one.

    Args:
        layer: of the spec.
        part: what comes after its name, as ``query``; empty for the layer itself.
        shapes: of its tensors, by slot.
    """

    layer: LayerSpec
    part: str
    shapes: Mapping[str, Sizes]

    @property
    def weight(self) -> Sizes:
        """Shape of the weight."""
        return self.shapes["weight"]

    @property
    def bias(self) -> bool:
        """Whether there is one."""
        return "bias" in self.shapes

    @property
    def name(self) -> str:
        """Its tensors are ``<name>.weight`` and ``<name>.bias``."""
        return f"{self.layer.name}.{self.part}" if self.part else self.layer.name

    @property
    def _turned(self) -> bool:
        """Whether the rows of the weight are its second axis: of classes, and of windows of the output."""
        window = self.layer.window
        return self.layer.kind == "embedding" or (window is not None and window.transposed)

    @property
    def factored(self) -> bool:
        """Whether every row of the weight multiplies what the rows of its group read, at every place."""
        window = self.layer.window
        alike = window is None or not window.transposed or window.groups == 1
        return alike and (bool(self.part) or self.layer.kind in ("dense", "conv", "embedding"))

    @property
    def groups(self) -> int:
        """Groups of rows that read the same."""
        return 1 if self.layer.window is None else self.layer.window.groups

    @property
    def of_classes(self) -> bool:
        """Whether the weight reads vectors with one entry 1, so that E[x xᵀ] is diagonal."""
        return self.layer.kind == "embedding"

    @property
    def added(self) -> tuple[str, ...]:
        """Slots of vectors that are added along the axis which rows of weights are."""
        settings, rank = self.layer.settings, len(self.layer.shape)
        if isinstance(settings, TensorSpec):
            return ("weight",) if rank == 1 else ()
        along = rank == 1 or not isinstance(settings, NormSpec | BatchNormSpec)
        if isinstance(settings, NormSpec) and not settings.groups:
            along = settings.axes == (rank - 1,)
        return ("bias",) if self.bias and along else ()

    def matrix(self, weight: Array) -> Array:
        """The weight over rows and what they read, after axes before."""
        before = weight.ndim - len(self.weight)
        turned = np.swapaxes(weight, before, before + 1) if self._turned else weight
        return turned.reshape(*turned.shape[: before + 1], -1)

    def tensor(self, matrix: Array) -> Array:
        """A matrix in the shape of the weight."""
        if not self._turned:
            return matrix.reshape(self.weight)
        first, second, *rest = self.weight
        return np.swapaxes(matrix.reshape(second, first, *rest), 0, 1)

    @property
    def order(self) -> Array:
        """Positions in the weight of the entries of the matrix, both in row-major order."""
        count = int(np.prod(self.weight))
        return self.matrix(np.arange(count).reshape(self.weight)).ravel()


def units(spec: Spec) -> tuple[Unit, ...]:
    """The units of a network, in the order of its parameters."""
    shapes = parameter_shapes(spec)
    return tuple(
        Unit(layer, owner.part, {name.rpartition(".")[2]: shapes[name] for name in owner.names(layer.name)})
        for layer in spec.layers
        for owner in owned_by(layer)
    )


def jacobians(
    unit: Unit, slot: str, read: tuple[Array, ...], params: Mapping[str, Array], activate: Activate
) -> Array:
    """The pre-activation of a layer, which is linear in its tensors together, by one of them, entry by entry.

    Args:
        unit: a whole layer.
        slot: ``weight`` or ``bias``.
        read: what the layer reads, of one sample.
        params: by name.
        activate: applies a function to an array.

    Returns:
        (entries of the layer, entries of the tensor).
    """
    name = f"{unit.name}.{slot}"
    zero = 0 * params[name]
    nothing = {f"{unit.name}.{own}": 0 * params[f"{unit.name}.{own}"] for own in unit.shapes}

    def value(tensor: Array) -> Array:
        at = At(unit.layer, read, {**params, **nothing, name: tensor}, activate)
        return np.asarray(layer_value(at)).ravel()

    start, columns = value(zero), []
    for place in np.ndindex(zero.shape):
        one = zero.copy()
        one[place] = one[place] + 1
        columns.append(value(one) - start)
    return np.stack(columns, axis=1)
