"""Pictures of a log of summaries, as in GN3: interactions of the groups (Fig. 1), their rates (Fig. 2b)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sifrc.errors import TrainingError
from sifrc.training.plots import new_figure, save_figure
from sifrc.training.summaries import SummaryLog

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["interactions_plot", "rates_plot"]

_MOST_LABELS = 24  # of groups at an axis or in a legend


def interactions_plot(log: SummaryLog, path: Path | str, *, records: Sequence[int] = (0, -1)) -> None:
    """Draw H̄ and, below it, H̄⁻¹, in panels of their own for weights and biases of the canonical partition.

    Every panel has its own colours, symmetric about zero. The inverse is that of the whole matrix.

    Args:
        log: at least one record.
        path: of a PNG file; it is written as a whole.
        records: which ones, side by side; the first and the last by default.

    Raises:
        TrainingError: there is no such record, or matplotlib is not installed.
    """
    chosen = _records(log, records)
    parts = _parts(log.groups)
    figure = new_figure(width=1.5 + 3.4 * len(parts) * len(chosen), height=7.0)
    axes = figure.subplots(2, len(parts) * len(chosen), squeeze=False)
    for number, record in enumerate(chosen):
        matrix = log[record].summary_h
        for row, (symbol, values) in enumerate((("H̄", matrix), ("H̄⁻¹", _inverse(matrix)))):
            for column, (title, down, across) in enumerate(parts):
                ax = axes[row, number * len(parts) + column]
                _heat_map(figure, ax, values, down, across)
                ax.set_title(f"{symbol} {title}, epoch {log.epochs[record]:.4g}", fontsize="small")
    save_figure(figure, Path(path))


def rates_plot(log: SummaryLog, path: Path | str, *, averaged: bool = True) -> None:
    """Draw the rates of the groups over the epochs, weights and biases apart.

    Args:
        log: at least one record.
        path: of a PNG file; it is written as a whole.
        averaged: the rates of the steps; False draws the minimisers before positive part and average.

    Raises:
        TrainingError: the log is empty, or matplotlib is not installed.
    """
    _records(log, (-1,))
    values = log.rates if averaged else log.rates_found
    kinds = _kinds(log.groups)
    figure = new_figure(width=1.0 + 5.5 * len(kinds), height=4.0)
    for (kind, groups), ax in zip(
        kinds.items(), figure.subplots(1, len(kinds), squeeze=False)[0], strict=True
    ):
        _curves(ax, log.epochs, values, groups)
        ax.set_title(kind)
        ax.set_xlabel("epochs")
        ax.set_ylabel("η, averaged" if averaged else "η found")
        ax.grid(alpha=0.3)
        if len(groups) <= _MOST_LABELS:
            ax.legend(fontsize="x-small")
    save_figure(figure, Path(path))


def _records(log: SummaryLog, records: Sequence[int]) -> list[int]:
    """Positions in the log, each once."""
    found = []
    for record in records:
        if not -len(log) <= record < len(log):
            hint = f"0 to {len(log) - 1}, or from the end" if len(log) else "the log is empty"
            raise TrainingError(f"the log has no record {record}", hint=hint)
        found.append(record % len(log))
    return list(dict.fromkeys(found))


def _kinds(groups: Mapping[str, tuple[str, ...]]) -> dict[str, dict[str, int]]:
    """Groups of weights and groups of biases, label -> position; all together where a group has both."""
    found: dict[str, dict[str, int]] = {"weights": {}, "biases": {}}
    canonical = _canonical(groups)
    for k, (name, tensors) in enumerate(groups.items()):
        own = {tensor.rpartition(".")[2] for tensor in tensors}
        if len(own) > 1:
            return {"groups": {name: k for k, name in enumerate(groups)}}
        label = tensors[0].rpartition(".")[0] if canonical else name
        found["weights" if own == {"weight"} else "biases"][label] = k
    return {kind: members for kind, members in found.items() if members}


def _canonical(groups: Mapping[str, tuple[str, ...]]) -> bool:
    return all(len(tensors) == 1 for tensors in groups.values())


Panel = tuple[str, Mapping[str, int], Mapping[str, int]]
"""Title; groups down and across, label -> position."""


def _parts(groups: Mapping[str, tuple[str, ...]]) -> list[Panel]:
    """The panels of one matrix."""
    everything = {name: k for k, name in enumerate(groups)}
    kinds = _kinds(groups)
    if not _canonical(groups) or len(kinds) < 2:
        return [("of the groups", everything, everything)]
    weights, biases = kinds["weights"], kinds["biases"]
    return [
        ("weight–weight", weights, weights),
        ("weight–bias", weights, biases),
        ("bias–bias", biases, biases),
    ]


def _inverse(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """NaN where there is none."""
    try:
        return np.asarray(np.linalg.inv(matrix), np.float64)
    except np.linalg.LinAlgError:
        return np.full_like(matrix, np.nan)


def _heat_map(
    figure: Figure, ax: Axes, matrix: NDArray[np.float64], down: Mapping[str, int], across: Mapping[str, int]
) -> None:
    values = matrix[np.ix_(list(down.values()), list(across.values()))]
    top = float(np.abs(values).max())
    if np.isfinite(top):
        bound = top or 1.0
        image = ax.imshow(values, cmap="RdBu_r", vmin=-bound, vmax=bound, interpolation="nearest")
        figure.colorbar(image, ax=ax, shrink=0.8)
    else:
        ax.text(0.5, 0.5, "singular", ha="center", va="center", transform=ax.transAxes)
        ax.set_xlim(-0.5, len(across) - 0.5)
        ax.set_ylim(len(down) - 0.5, -0.5)
    for labels, axis in ((across, ax.xaxis), (down, ax.yaxis)):
        every = -(-len(labels) // _MOST_LABELS)
        axis.set_ticks(range(0, len(labels), every), list(labels)[::every], fontsize="x-small")
    ax.tick_params(axis="x", rotation=90)


def _curves(
    ax: Axes, epochs: NDArray[np.float64], values: NDArray[np.float64], groups: Mapping[str, int]
) -> None:
    from matplotlib import colormaps

    shades: Any = colormaps["viridis"](np.linspace(0.0, 0.9, len(groups)))
    for (label, k), shade in zip(groups.items(), shades, strict=True):
        ax.plot(
            epochs, values[:, k], label=label, color=shade, lw=1.2, marker="." if len(epochs) < 50 else ""
        )
    shown = values[:, list(groups.values())]
    if (shown > 0).any() and not (shown < 0).any():
        ax.set_yscale("log", nonpositive="mask")  # a rate of zero has no place on it
