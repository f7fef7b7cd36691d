"""Pictures of an analysis: spectrum, traces and eigenvalues by module, interactions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from sifrc.linear.analysis import Analysis
from sifrc.training.plots import new_figure, save_figure

__all__ = ["PICTURES", "draw_analysis"]

PICTURES = ("spectrum.png", "modules.png", "interactions.png")
"""Files that :func:`draw_analysis` writes."""
_ROWS = 60
"""Modules that have a label each."""


def draw_analysis(analysis: Analysis, folder: Path) -> None:
    """Write the pictures into a folder.

    Raises:
        TrainingError: matplotlib is not installed, or a file cannot be written.
    """
    for name, draw in zip(PICTURES, (_spectrum, _modules, _interactions), strict=True):
        save_figure(draw(analysis), folder / name)


def _spectrum(analysis: Analysis) -> Any:
    """The density of eigenvalues, and those at the ends."""
    figure = new_figure(width=8, height=4)
    axes: Any = figure.subplots()
    points = analysis.density.points(400)
    density = analysis.density.density(points).clamp(min=1e-12)
    axes.semilogy(points.tolist(), density.tolist(), lw=1.2)
    for values, label in ((analysis.largest, "largest"), (analysis.smallest, "smallest")):
        axes.plot(values, [float(density.max())] * len(values), "|", ms=12, label=label)
    axes.set_xlabel("eigenvalue of the Hessian")
    axes.set_ylabel("density")
    axes.set_ylim(bottom=float(density.max()) * 1e-8)
    axes.grid(alpha=0.3)
    figure.legend(fontsize="small", loc="outside upper right", ncols=2)
    return figure


def _modules(analysis: Analysis) -> Any:
    """Largest eigenvalue and mean eigenvalues of each module's blocks."""
    modules = analysis.modules
    figure = new_figure(width=9, height=1.5 + 0.22 * min(len(modules), _ROWS) * 2)
    left, right = figure.subplots(1, 2, sharey=True)
    rows = list(range(len(modules)))[::-1]
    left.barh(rows, [module.largest for module in modules])
    left.set_xlabel("largest eigenvalue of the Hessian's block")
    for offset, what in ((0.2, "hessian"), (-0.2, "gauss_newton")):
        found = [getattr(module, what) for module in modules]
        count = [module.parameters for module in modules]
        values = [each.value / n for each, n in zip(found, count, strict=True)]
        errors = [each.error / n for each, n in zip(found, count, strict=True)]
        label = what.replace("_", "–").title()
        right.barh([row + offset for row in rows], values, height=0.4, xerr=errors, label=label)
    right.set_xlabel("trace of the block by its size")
    figure.legend(fontsize="small", loc="outside upper right", ncols=2)
    if len(modules) <= _ROWS:
        left.set_yticks(rows, [module.name for module in modules], fontsize="small")
    for axes in (left, right):
        axes.grid(alpha=0.3, axis="x")
    return figure


def _interactions(analysis: Analysis) -> Any:
    """Curvature of the objective along the gradients of pairs of modules."""
    names = [module.name for module in analysis.modules]
    side = 3 + 0.2 * min(len(names), _ROWS)
    figure = new_figure(width=side + 1.5, height=side)
    axes: Any = figure.subplots()
    matrix = analysis.interactions
    shown = torch.sign(matrix) * torch.log1p(matrix.abs() / matrix.abs().median().clamp(min=1e-30))
    bound = float(shown.abs().max().clamp(min=1e-30))
    image = axes.imshow(shown.tolist(), cmap="RdBu_r", vmin=-bound, vmax=bound)
    if len(names) <= _ROWS:
        axes.set_xticks(range(len(names)), names, rotation=90, fontsize="small")
        axes.set_yticks(range(len(names)), names, fontsize="small")
    axes.set_title("⟨u_s, H u_t⟩, u the gradient of a module at length one", fontsize="small")
    figure.colorbar(image, ax=axes, label="sign · log(1 + |value| / median)")
    return figure
