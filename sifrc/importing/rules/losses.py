"""Losses of torch before the samples are taken together: operators of a loss that is a function of Python."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from sifrc.importing.atoms import SAMPLES, Value, fresh, permuted
from sifrc.importing.calls import Call, Refused
from sifrc.importing.rules import RULES
from sifrc.importing.rules.entrywise import applied, combined
from sifrc.importing.rules.reductions import reduced, softmax

__all__ = ["LOSSES", "loss_rules"]

_HUBER = "where(abs(x1 - x2) <= {delta}, (x1 - x2)**2/2, {delta}*(abs(x1 - x2) - {delta}/2))"
_SMOOTH = "where(abs(x1 - x2) < {beta}, (x1 - x2)**2/(2*{beta}), abs(x1 - x2) - {beta}/2)"
_LEFT_OUT = MappingProxyType({"weight": None, "pos_weight": None, "full": False, "ignore_index": -100})
"""Arguments that no such loss has, and what stands for that."""


def loss_rules(shape: tuple[int, ...], targets: str) -> Mapping[str, Callable[[Call], Any]]:
    """Rules for a function of outputs y and targets t.

    Args:
        shape: of the outputs, without samples.
        targets: ``classes`` or ``vectors``; classes are vectors of zeros and a one in an expression.
    """

    def hot() -> Value:
        layout = fresh(shape)
        return Value("t", layout, ((SAMPLES,), *layout))

    def target(call: Call) -> Value:
        for name, default in _LEFT_OUT.items():
            if call.get(name, default) not in (default, None):
                raise Refused(f"{call.name} with {name} inside of a function", "the loss of torch itself")
        return hot() if targets == "classes" else call.value("target")

    def likelihood(call: Call, scores: Value) -> Value:
        found = reduced(call, "sum", combined(call, "multiply", [target(call), scores]), [1])
        smoothing = float(call.get("label_smoothing", 0.0))
        if not smoothing:
            return applied(call, found, "-x")
        text = f"-({1.0 - smoothing!r}*x1 + {smoothing!r}*x2)"
        return combined(call, text, [found, reduced(call, "mean", scores, [1])])

    def cross_entropy(call: Call) -> Value:
        return likelihood(call, softmax(call, "log_softmax", call.value("self"), 1))

    def log_sum_exp(call: Call) -> Value:
        # Expressions recognise it: no overflow.
        found = reduced(
            call, "sum", applied(call, call.value("self"), "exp(x)"), call.dims(), bool(call["keepdim"])
        )
        return applied(call, found, "log(x)")

    def one_hot(call: Call) -> Value:
        return permuted(hot(), [0, *range(2, len(shape) + 1), 1])

    def gather(call: Call) -> Value:
        """The score of the class of each sample."""
        if call["index"].source != "t" or targets != "classes" or call.dim() != 1:
            raise Refused(
                "entries by computed indices", "those of the classes, along the dimension after the samples"
            )
        return reduced(call, "sum", combined(call, "multiply", [hot(), call.value("self")]), [1], True)

    def of_entries(text: str, *numbers: str) -> Callable[[Call], Value]:
        def rule(call: Call) -> Value:
            filled = text
            for name in numbers:
                filled = filled.replace(f"{{{name}}}", repr(float(call[name])))
            return combined(
                call, filled, [call.value("self" if "self" in call.arguments else "input"), target(call)]
            )

        return rule

    def poisson(call: Call) -> Value:
        return of_entries("exp(x1) - x2*x1" if call["log_input"] else "x1 - x2*log(x1 + {eps})", "eps")(call)

    def divergence(call: Call) -> Value:
        plain = "where(x2 > 0, x2*(log(x2) - x1), 0)"
        return of_entries("exp(x2)*(x2 - x1)" if call["log_target"] else plain)(call)

    return MappingProxyType(
        {
            **RULES,
            "cross_entropy_loss": cross_entropy,
            "nll_loss": lambda call: likelihood(call, call.value("self")),
            "nll_loss_nd": lambda call: likelihood(call, call.value("self")),
            "one_hot": one_hot,
            "gather": gather,
            "logsumexp": log_sum_exp,
            "mse_loss": of_entries("(x1 - x2)**2"),
            "l1_loss": of_entries("abs(x1 - x2)"),
            "huber_loss": of_entries(_HUBER, "delta"),
            "smooth_l1_loss": of_entries(_SMOOTH, "beta"),
            "soft_margin_loss": of_entries("softplus(-x1*x2)"),
            "binary_cross_entropy_with_logits": of_entries("softplus(x1) - x1*x2"),
            "binary_cross_entropy": of_entries("-(x2*log(x1) + (1 - x2)*log(1 - x1))"),
            "poisson_nll_loss": poisson,
            "kl_div": divergence,
        }
    )


LOSSES = frozenset(
    {"cross_entropy_loss", "nll_loss", "nll_loss_nd", "mse_loss", "l1_loss", "huber_loss", "smooth_l1_loss"}
    | {
        "soft_margin_loss",
        "binary_cross_entropy_with_logits",
        "binary_cross_entropy",
        "poisson_nll_loss",
        "kl_div",
    }
)
"""Operators that take means or sums over the samples themselves, by their argument ``reduction``."""
