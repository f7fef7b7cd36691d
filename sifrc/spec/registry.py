"""Built-in activations and losses: named entries of the user's own expression language."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from sifrc.spec.functions import SCALAR_FUNCTIONS

__all__ = ["ACTIVATIONS", "LOSSES", "BuiltIn", "TargetKindDefault"]

TargetKindDefault = Literal["classes", "vectors"]


@dataclass(frozen=True)
class BuiltIn:
    """A built-in activation (over ``x``) or loss (over ``y`` and ``t``).

    Args:
        name: what a spec writes after ``function:``.
        expression: text of the expression.
        summary: one line of documentation.
        parameters: name and default of every parameter, in order.
        positive: parameters that must be greater than zero.
        targets: of a loss, what its targets are unless the spec says so.
        convex: of a loss, whether it is convex in the output for every target.
        summed: of a loss that is a mean over the entries, the expression under ``reduction: sum``: their sum.
            Empty where that reduction changes nothing in a sample.
        parts: of a loss that is the mean of what it is of an entry at targets of zero and of one, weighted by
            the target: both by their weights.
        places: of a loss, what is made of its values at several places with ``reduction: mean``.

    Example:
        >>> LOSSES["huber"].parameters
        (('delta', 1.0),)
    """

    name: str
    expression: str
    summary: str
    parameters: tuple[tuple[str, float], ...] = ()
    positive: tuple[str, ...] = ()
    targets: TargetKindDefault = "vectors"
    convex: bool = True
    summed: str = ""
    parts: tuple[str, str] | tuple[()] = ()
    places: Literal["mean", "sum"] = "mean"


def _table(*entries: BuiltIn) -> Mapping[str, BuiltIn]:
    return MappingProxyType({entry.name: entry for entry in entries})


def _activation(name: str, **parameters: float) -> BuiltIn:
    """The activation that is the function of the same name; its other arguments are parameters."""
    function = SCALAR_FUNCTIONS[name]
    return BuiltIn(name, function.definition or f"{name}(x)", function.summary, tuple(parameters.items()))


ACTIVATIONS: Mapping[str, BuiltIn] = _table(
    BuiltIn("identity", "x", "no change"),
    _activation("relu"),
    _activation("leaky_relu", slope=0.01),
    _activation("elu", alpha=1.0),
    _activation("selu"),
    _activation("gelu"),
    _activation("silu"),
    _activation("softplus"),
    _activation("tanh"),
    _activation("sigmoid"),
    _activation("mish"),
    _activation("sin"),
)
"""Built-in activations by name."""

LOSSES: Mapping[str, BuiltIn] = _table(
    BuiltIn("squared_error", "sum((y - t)**2)/2", "half the squared distance", places="sum"),
    BuiltIn(
        "mse", "mean((y - t)**2)", "mean over the entries, as PyTorch's MSELoss", summed="sum((y - t)**2)"
    ),
    BuiltIn(
        "cross_entropy",
        "-dot(t, log_softmax(y))",
        "cross-entropy of softmax(y); y are logits",
        targets="classes",
    ),
    BuiltIn(
        "binary_cross_entropy",
        "mean(softplus(y) - t*y)",
        "mean over the entries of the cross-entropy of sigmoid(y); y are logits; PyTorch's BCEWithLogitsLoss",
        summed="sum(softplus(y) - t*y)",
        parts=("(1 - t)*softplus(y)", "t*softplus(-y)"),
    ),
    BuiltIn(
        "huber",
        "mean(where(abs(y - t) <= delta, (y - t)**2/2, delta*(abs(y - t) - delta/2)))",
        "quadratic to delta, then linear; mean over the entries, as PyTorch's HuberLoss",
        (("delta", 1.0),),
        positive=("delta",),
        summed="sum(where(abs(y - t) <= delta, (y - t)**2/2, delta*(abs(y - t) - delta/2)))",
    ),
    BuiltIn(
        "bounded",
        "1/(1 + exp(delta*(dot(t, softmax(y)) - epsilon)))",
        "bounded criterion of the probability of the target class, EA-CG(14)",
        (("delta", 5.0), ("epsilon", 0.2)),
        targets="classes",
        convex=False,
    ),
)
"""Built-in losses by name."""
