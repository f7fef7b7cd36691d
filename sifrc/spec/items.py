"""A layer whose names and sizes are being resolved."""

from __future__ import annotations

from dataclasses import dataclass

from sifrc.spec.positions import Path
from sifrc.spec.schema import LayerShape
from sifrc.spec.types import LayerSettings, WindowSpec

__all__ = ["LAYERS", "Item"]

LAYERS: Path = ("network", "layers")


@dataclass(frozen=True)
class Item:
    """A layer with its inputs and the shape of its output resolved; the rest is as written.

    Args:
        index: position in the file, from 0.
        name: the layer's name, given or made.
        written: the layer as written.
        inputs: names of its inputs, then of states that it begins with, a mask last.
        shape: sizes of the axes of its output.
        settings: of its type.
    """

    index: int
    name: str
    written: LayerShape
    inputs: tuple[str, ...]
    shape: tuple[int, ...] = ()
    settings: LayerSettings | None = None

    @property
    def window(self) -> WindowSpec | None:
        """Of a convolution or of pooling."""
        return self.settings if isinstance(self.settings, WindowSpec) else None

    @property
    def path(self) -> Path:
        """Where the layer stands."""
        return (*LAYERS, self.index)

    @property
    def count(self) -> int:
        """Inputs besides states that it begins with and a mask."""
        return len(self.inputs) - len(self.written.state or ()) - (self.written.mask is not None)

    def input_path(self, position: int) -> Path:
        """Where one of its inputs stands; the layer, if it was not written."""
        if self.written.mask is not None and position == len(self.inputs) - 1:
            return (*self.path, "mask")
        begun = position - self.count
        if begun >= 0:
            return (*self.path, "state", begun)
        return (*self.path, "inputs", position) if self.written.inputs is not None else self.path
