"""Plots of runs, drawn without a display."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sifrc.errors import TrainingError
from sifrc.extras import MissingPlotDependency, importing
from sifrc.training.files import replacing
from sifrc.training.history import History

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["comparison_plot", "new_figure", "save_figure", "training_plot"]

_LEGEND_ROWS = 6  # more stand beside the panels
_ABSCISSAE = (("epoch", "epochs"), ("seconds", "seconds of training"))


def training_plot(history: History, path: Path) -> None:
    """Draw loss, and accuracy if there is one, by epochs and by seconds.

    Args:
        history: at least one row.
        path: of a PNG file; it is written as a whole.

    Raises:
        TrainingError: the history is empty, or matplotlib is not installed.
    """
    history.last  # noqa: B018  an empty history is an error
    quantities = ("loss", "accuracy") if history.has_accuracy else ("loss",)
    figure = _figure(len(quantities))
    axes = figure.subplots(len(quantities), 2, squeeze=False)
    for quantity, line in zip(quantities, axes, strict=True):
        for (abscissa, title), ax in zip(_ABSCISSAE, line, strict=True):
            for part in ("train", "test"):
                _draw(ax, history, abscissa, f"{part}_{quantity}", part)
            _finish(ax, title, quantity, history.column(f"test_{quantity}"))
    figure.suptitle(history.label)
    save_figure(figure, path)


def comparison_plot(
    histories: Mapping[str, History],
    path: Path,
    *,
    measurement: str = "test_loss",
    styles: Mapping[str, Mapping[str, Any]] = MappingProxyType({}),
) -> None:
    """Draw one measurement of several runs, against epochs and against seconds.

    Args:
        histories: runs by the label in the legend, in the order of the legend.
        path: of a PNG file.
        measurement: a column of the metrics.
        styles: label -> properties of matplotlib's lines, where the usual ones do not tell runs apart.

    Raises:
        TrainingError: there is no run, or matplotlib is not installed.
    """
    if not histories:
        raise TrainingError("there is no run to compare")
    figure = _figure(1)
    for (abscissa, title), ax in zip(_ABSCISSAE, figure.subplots(1, 2), strict=True):
        for label, history in histories.items():
            _draw(ax, history, abscissa, measurement, label, styles.get(label, {}))
        values = np.concatenate([history.column(measurement) for history in histories.values()])
        crowded = len(histories) > _LEGEND_ROWS
        _finish(ax, title, measurement.replace("_", " "), values, legend=not crowded)
        if abscissa == "seconds":  # methods differ by orders of magnitude; epoch 0 has no place then
            ax.set_xscale("log")
            if crowded:
                figure.legend(*ax.get_legend_handles_labels(), loc="outside right upper", fontsize="small")
    save_figure(figure, path)


def new_figure(*, width: float, height: float) -> Figure:
    """A figure of so many inches.

    Raises:
        TrainingError: matplotlib is not installed.
    """
    with importing("a plot", "matplotlib", MissingPlotDependency):
        from matplotlib.figure import Figure
    return Figure(figsize=(width, height), layout="constrained")


def _figure(rows: int) -> Figure:
    return new_figure(width=10, height=0.5 + 3.5 * rows)


def _draw(
    ax: Axes,
    history: History,
    abscissa: str,
    measurement: str,
    label: str,
    style: Mapping[str, Any] = MappingProxyType({}),
) -> None:
    usual = {"marker": "." if len(history) <= 50 else "", "lw": 1.2}
    ax.plot(history.column(abscissa), history.column(measurement), label=label, **{**usual, **style})


def _finish(ax: Axes, title: str, quantity: str, values: NDArray[np.float64], *, legend: bool = True) -> None:
    """Names, grid, legend; a loss that is positive throughout gets a logarithmic axis."""
    ax.set_xlabel(title)
    ax.set_ylabel(quantity)
    ax.grid(alpha=0.3)
    if legend:
        ax.legend(fontsize="small")
    known = values[np.isfinite(values)]
    if quantity.endswith(("loss", "objective")) and known.size and known.min() > 0:
        ax.set_yscale("log")


def save_figure(figure: Figure, path: Path) -> None:
    """Write a PNG file, as a whole.

    Raises:
        TrainingError: it cannot be written.
    """
    with replacing(path) as file:
        # Without the version of matplotlib, which would change the bytes.
        figure.savefig(file, format="png", dpi=120, metadata={"Software": None})
