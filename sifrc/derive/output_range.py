"""Whether the granular part of a Newton direction exists: a system of the size of the output.

M v = −y_n needs y_n in the range of M, the second derivative of the loss by the pre-activation of the output.
That depends on the sample and is checked at run time. Some losses have it at no sample: of ‖x_n − t‖, or any
loss that is linear along its own gradient, M is singular exactly there. Then there is nothing to compile.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from sifrc.calculus import jacobian, vjp
from sifrc.errors import DerivationError
from sifrc.ir import Input, Role
from sifrc.ir.arithmetic import Array
from sifrc.ir.build import apply
from sifrc.ir.evaluate import evaluate
from sifrc.ir.traverse import substitute
from sifrc.model import Model

__all__ = ["check_output_range"]

_DISTANCES = (1.0, 0.1, 10.0, 1e-2, 1e-3, 1e-4)
"""Of the target from the output: a loss may be curved near the target only, or away from it only.

The output is of the same size, so that its difference from the target is not rounding.
"""
_CANCELLING = 100
"""How much larger than that difference the output may be."""
_POINTS = 4
"""Random points at each distance."""
_RARE = 24
"""In so small a part of the points a system may look solvable because of rounding."""
_NEGLIGIBLE = 1e-9
"""Relative size of an eigenvalue that is rounding."""
_OUTSIDE = 1e-6
"""Relative size of the part of y_n outside the range that is no rounding."""


def check_output_range(model: Model) -> None:
    """Refuse a loss for which M v = −y_n has no solution at random points.

    Raises:
        DerivationError: there is none.

    Example:
        >>> from sifrc.model import build_model
        >>> from sifrc.spec import build_spec
        >>> data = {"sifrc": 1, "name": "tiny", "loss": {"expression": "sqrt(sum((y - t)**2))"},
        ...     "network": {"input": {"size": 2}, "layers": [{"name": "fc", "type": "dense", "units": 3}]}}
        >>> check_output_range(build_model(build_spec(data)))
        Traceback (most recent call last):
        ...
        sifrc.errors.DerivationError: error: the loss has no Newton direction: its gradient lies outside ...
        >>> check_output_range(build_model(build_spec({**data, "loss": "mse"})))
    """
    found = [_in_range(*point) for point in _points(model)]
    count = len(found)
    if _RARE * sum(found) <= count and count:
        raise DerivationError(
            "the loss has no Newton direction: its gradient lies outside the range of its second derivative "
            f"at the output, at {count - sum(found)} of {count} random points",
            location=model.spec.loss.location,
            hint="a loss that is linear along its gradient, such as a norm, has none; its square has one: "
            "sum((y - t)**2)",
        )


def _points(model: Model) -> Iterator[tuple[Array, Array, float]]:
    """M, the gradient, and how far the target is, at random points where they are numbers."""
    output = model.output
    a = Input("a", output.index, output.axes, Role.STATE)
    value = a if output.activation is None else apply(output.activation, a)
    loss = substitute(model.loss, {output.state: value})
    (slope,) = vjp(loss, [a])
    roots = {"slope": slope, "matrix": jacobian(slope, a)}
    generator = np.random.default_rng(0)
    size = model.output_axis.entries
    for number in range(_POINTS * len(_DISTANCES)):
        distance = _DISTANCES[number % len(_DISTANCES)]
        at = distance * generator.normal(size=size)
        with np.errstate(all="ignore"):
            state = evaluate({"value": value}, {a: at})["value"]
            # Classes, or vectors that may be meant to be near the output, or to be probabilities.
            targets = [np.eye(size)[number % size]]
            if model.spec.loss.targets != "classes":
                near = state + distance * generator.normal(size=size)
                weights = np.exp(generator.normal(size=size))
                targets = [near] if np.abs(state).max() <= _CANCELLING * distance else []
                targets.append(weights / weights.sum())
            values = [evaluate(roots, {a: at, model.target: target}) for target in targets]
        for found in values:
            matrix, gradient = (np.asarray(found[name], dtype=float) for name in ("matrix", "slope"))
            if np.isfinite(matrix).all() and np.isfinite(gradient).all() and np.abs(gradient).max() > 0:
                yield matrix, gradient, distance


def _in_range(matrix: Array, slope: Array, distance: float) -> bool:
    """Whether the gradient is in the range of the second derivative, to rounding."""
    eigenvalues, vectors = np.linalg.eigh((matrix + matrix.T) / 2)
    # Where terms cancel to rounding, the gradient over the distance says how large they were.
    scale = max(float(np.abs(eigenvalues).max()), float(np.abs(slope).max()) / distance)
    outside = vectors.T[np.abs(eigenvalues) <= _NEGLIGIBLE * scale] @ slope
    return float(np.linalg.norm(outside)) <= _OUTSIDE * float(np.linalg.norm(slope))
