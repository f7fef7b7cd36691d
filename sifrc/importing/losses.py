"""Losses of torch as losses of a spec."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from torch.nn import functional as F

from sifrc.errors import ModuleImportError

__all__ = ["KNOWN", "TorchLoss", "loss_of"]

_IGNORED = -100
"""PyTorch's default index, which stands for none."""


@dataclass(frozen=True)
class TorchLoss:
    """A loss as a spec has it.

    Args:
        keys: of ``loss``.
        after: type of the layer that the network must end with; empty for any.
    """

    keys: Mapping[str, Any]
    after: str = ""


def loss_of(loss: Any) -> TorchLoss | None:
    """A loss module or function of torch, or what a spec has under ``loss``; None for any other function.

    Args:
        loss: a module as ``torch.nn.CrossEntropyLoss()``, a function as ``torch.nn.functional.mse_loss``,
            also one with arguments by ``functools.partial``, a name or a mapping of a spec.

    Raises:
        ModuleImportError: it is none of these, and no function.

    Example:
        >>> found = loss_of(torch.nn.CrossEntropyLoss(label_smoothing=0.1))
        >>> dict(found.keys)
        {'function': 'cross_entropy', 'label_smoothing': 0.1}
    """
    if isinstance(loss, str):
        return TorchLoss(MappingProxyType({"function": loss}))
    if isinstance(loss, Mapping):
        return TorchLoss(MappingProxyType(dict(loss)))
    whole, given = loss, dict[str, Any]()
    while isinstance(loss, functools.partial):
        if loss.args:
            return None
        loss, given = loss.func, {**loss.keywords, **given}
    kind: Any = None
    if isinstance(loss, torch.nn.Module):
        kind, given = type(loss), vars(loss) | dict(loss.named_buffers()) | given
    else:
        kind = _FUNCTIONS.get(loss)
    rule = next((rule for own, rule in _RULES.items() if kind is own), None)
    if rule is None:
        if callable(whole):
            return None
        raise ModuleImportError(
            f"the loss is a {type(loss).__name__}, which is no loss and no function",
            hint=f"{KNOWN}, their functions, a function of (outputs, targets), or a loss of a spec, also an "
            'expression of your own: {"expression": "sum((y - t)**4)/4"}',
        )
    return rule(given)


def _tensor(given: Mapping[str, Any], name: str) -> list[float] | None:
    """Numbers of an argument, or None."""
    found = given.get(name)
    return None if found is None else torch.as_tensor(found).double().flatten().tolist()


def _made(function: str, given: Mapping[str, Any], **keys: Any) -> TorchLoss:
    """With the reduction of torch."""
    reduction = given.get("reduction", "mean")
    if reduction not in ("mean", "sum"):
        raise ModuleImportError(f"a loss with reduction '{reduction}' is no number", hint="mean or sum")
    keys = {"function": function, "reduction": reduction if reduction != "mean" else None, **keys}
    return TorchLoss(MappingProxyType({key: value for key, value in keys.items() if value is not None}))


def _refuse(given: Mapping[str, Any], name: str, wanted: Any = None) -> None:
    if given.get(name, wanted) not in (wanted, None):
        raise ModuleImportError(f"the loss has {name}, which no loss of a spec has", hint=f"leave {name} out")


def _cross_entropy(given: Mapping[str, Any]) -> TorchLoss:
    ignored = given.get("ignore_index", _IGNORED)
    return _made(
        "cross_entropy",
        given,
        class_weights=_tensor(given, "weight"),
        ignore_index=None if ignored == _IGNORED else int(ignored),
        label_smoothing=float(given.get("label_smoothing", 0.0)) or None,
    )


def _likelihood(given: Mapping[str, Any]) -> TorchLoss:
    found = _cross_entropy(given)
    return TorchLoss(found.keys, "log_softmax")


def _binary(given: Mapping[str, Any]) -> TorchLoss:
    if given.get("weight") is not None:
        raise ModuleImportError("a binary cross-entropy with weights", hint="pos_weight, or a mask in a spec")
    return _made("binary_cross_entropy", given, pos_weight=_tensor(given, "pos_weight"))


def _squares(given: Mapping[str, Any]) -> TorchLoss:
    return _made("mse", given)


def _expression(mean: str) -> Callable[[Mapping[str, Any]], TorchLoss]:
    def rule(given: Mapping[str, Any]) -> TorchLoss:
        whole = "sum" if given.get("reduction", "mean") == "sum" else "mean"
        found = _made("", given, expression=f"{whole}({mean})")
        return TorchLoss(
            MappingProxyType({key: value for key, value in found.keys.items() if key != "function"})
        )

    return rule


def _huber(given: Mapping[str, Any]) -> TorchLoss:
    return _made("huber", given, parameters={"delta": float(given.get("delta", 1.0))})


def _smooth(given: Mapping[str, Any]) -> TorchLoss:
    beta = float(given.get("beta", 1.0))
    if beta <= 0.0:
        return _expression("abs(y - t)")(given)
    whole = "sum" if given.get("reduction", "mean") == "sum" else "mean"
    text = f"{whole}(where(abs(y - t) < b, (y - t)**2/(2*b), abs(y - t) - b/2))"
    keys = {"expression": text, "parameters": {"b": beta}}
    return TorchLoss(MappingProxyType(keys | ({"reduction": "sum"} if whole == "sum" else {})))


_RULES: Mapping[Any, Callable[[Mapping[str, Any]], TorchLoss]] = MappingProxyType(
    {
        torch.nn.CrossEntropyLoss: _cross_entropy,
        torch.nn.NLLLoss: _likelihood,
        torch.nn.BCEWithLogitsLoss: _binary,
        torch.nn.MSELoss: _squares,
        torch.nn.L1Loss: _expression("abs(y - t)"),
        torch.nn.HuberLoss: _huber,
        torch.nn.SmoothL1Loss: _smooth,
        torch.nn.SoftMarginLoss: _expression("softplus(-t*y)"),
    }
)
KNOWN = ", ".join(own.__name__ for own in _RULES)
"""Losses of torch by their names."""
_FUNCTIONS: Mapping[Any, Any] = MappingProxyType(
    {
        F.cross_entropy: torch.nn.CrossEntropyLoss,
        F.nll_loss: torch.nn.NLLLoss,
        F.binary_cross_entropy_with_logits: torch.nn.BCEWithLogitsLoss,
        F.mse_loss: torch.nn.MSELoss,
        F.l1_loss: torch.nn.L1Loss,
        F.huber_loss: torch.nn.HuberLoss,
        F.smooth_l1_loss: torch.nn.SmoothL1Loss,
        F.soft_margin_loss: torch.nn.SoftMarginLoss,
    }
)
"""Functions and the modules that call them."""
