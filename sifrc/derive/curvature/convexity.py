"""Whether a loss is convex in the output: declared, refuted by an example, or not known.

A built-in loss declares it. For an expression of the user's, a point where the second derivative has a
negative eigenvalue settles that it is not convex; without one the question stays open.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal, TypeAlias

import numpy as np

from sifrc.calculus import jacobian, vjp
from sifrc.ir.evaluate import evaluate
from sifrc.model import Model
from sifrc.model.sample_loss import sample_loss
from sifrc.spec.registry import LOSSES

__all__ = ["Convexity", "convexity"]

Convexity: TypeAlias = Literal["convex", "not convex", "undecided"]

_POINTS = 64
_MARGIN = 1e-6
"""Relative size of a negative eigenvalue that is not rounding."""


def convexity(model: Model) -> Convexity:
    """Whether ℓ(·, t) is convex for every target.

    Args:
        model: whose loss it is.
    """
    known = LOSSES.get(model.spec.loss.function.name)
    if known is not None:
        return "convex" if known.convex else "not convex"
    axis = model.output_axis
    state, target = (replace(symbol, slots=(axis,)) for symbol in (model.output.state, model.target))
    # A loss of vectors at several places is convex if that of one of them is.
    loss = sample_loss(replace(model.spec.loss, axis=0), state, target)
    (slope,) = vjp(loss, [state])
    block = jacobian(slope, state)
    generator = np.random.default_rng(0)
    size = axis.entries
    for point in range(_POINTS):
        output = generator.normal(size=size) * 3.0 ** (point % 4 - 1)
        classes = model.spec.loss.targets == "classes"
        given = np.eye(size)[point % size] if classes else output + generator.normal(size=size)
        with np.errstate(all="ignore"):
            found = evaluate({"block": block}, {state: output, target: given})
        value = np.asarray(found["block"])
        if value.shape != (size, size) or not np.isfinite(value).all():
            continue
        eigenvalues = np.linalg.eigvalsh((value + value.T) / 2)
        if eigenvalues[0] < -_MARGIN * max(abs(eigenvalues[-1]), abs(eigenvalues[0])):
            return "not convex"
    return "undecided"
