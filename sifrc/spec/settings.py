"""What layers have besides their shape: the base, and the settings of those that read windows."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["AdaptiveSpec", "LayerSettings", "WindowSpec"]


@dataclass(frozen=True)
class LayerSettings:
    """Base of what a layer has besides its shape; :mod:`sifrc.spec.layers` says which type has which."""


@dataclass(frozen=True)
class WindowSpec(LayerSettings):
    """The windows that a layer reads at each place of its output, by axes of places.

    Args:
        kernel: entries of a window.
        stride: from window to window.
        dilation: from entry to entry.
        padding: entries before and after an axis, which are zero.
        groups: of channels, each of which is read by itself.
        pooling: ``average`` or ``max``; empty for a convolution.
        mode: what is around the axes in the place of zeros: ``circular``, ``reflect`` or ``replicate``.
        inside: whether means of windows are over entries of the input alone, without padding.
        transposed: whether windows are of the output: each entry of the input is spread over one.
        output_padding: entries at the end of each axis of a transposed convolution that are kept more.
        beyond: how many of the entries after an axis are no padding, but what a last window needs more: they
            count in no mean. Empty where there are none.
    """

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    groups: int = 1
    pooling: str = ""
    mode: str = "zeros"
    inside: bool = False
    transposed: bool = False
    output_padding: tuple[int, ...] = ()
    beyond: tuple[int, ...] = ()


@dataclass(frozen=True)
class AdaptiveSpec(LayerSettings):
    """Pooling to a number of places by windows that are as equal as they can be.

    Place i of o reads the entries from ⌊i · n/o⌋ to before ⌈(i + 1) · n/o⌉ of an axis of n.

    Args:
        pooling: ``average`` or ``max``.
        output: places along each axis.
    """

    pooling: str
    output: tuple[int, ...]
