"""The rates that grouped Newton found, for the optimizers of torch. Importing this file imports torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from sifrc.errors import TrainingError
from sifrc.extras import importing
from sifrc.training.summaries import Summary, SummaryLog, Values, summary_of

with importing("sifrc.training.export", "torch"):
    import torch

__all__ = ["param_groups"]


def param_groups(
    model: torch.nn.Module,
    source: Any,
    *,
    names: Mapping[str, str] | None = None,
    scale: float | None = None,
    floor: float | None = None,
) -> list[dict[str, Any]]:
    """A learning rate for each group of parameters, as ``torch.optim`` takes them.

    Args:
        model: with the parameters of the spec, and no others. Without their names, its linear layers are
            taken in order, where the order in the spec is known: not from a log of mixed groups.
        source: an ``Optimizer`` or a ``State`` of a generated module, a log, or one of its summaries; of
            a log the last record counts.
        names: name of a tensor or a layer in the spec -> name in the model, where they differ; as for the
            generated ``Optimizer``.
        scale: what the averaged rates are multiplied by; the learning rate λ of the source by default,
            which gives the steps of grouped Newton. 1 gives the rates themselves.
        floor: rates below it are raised to it; without it a negative rate is refused.

    Returns:
        ``{"params": [...], "lr": ..., "name": ...}`` for each group, in the order of the groups.

    Raises:
        TrainingError: a rate is negative or not finite, all are zero, there are none yet, or the model
            has other parameters.

    Example:
        >>> from sifrc.training import Summary
        >>> model, one = torch.nn.Sequential(torch.nn.Linear(2, 1)), np.ones(2)
        >>> groups = {"fc1.weight": ("fc1.weight",), "fc1.bias": ("fc1.bias",)}
        >>> found = Summary(groups, one, np.eye(2), None, one, np.array([0.5, 2.0]), 0.1)
        >>> sgd = torch.optim.SGD(param_groups(model, found, names={"fc1": "0"}))
        >>> [(group["name"], round(group["lr"], 3)) for group in sgd.param_groups]
        [('fc1.weight', 0.05), ('fc1.bias', 0.2)]
    """
    if isinstance(source, Summary):
        summary = source
    elif isinstance(source, SummaryLog):
        if not len(source):
            raise TrainingError("the log has no rates: it is empty", hint="a log with a record")
        summary = source[-1]
    else:
        summary = summary_of(source)
    factor = summary.learning_rate if scale is None else float(scale)
    rates = _checked(summary.rates, tuple(summary.groups), floor) * factor
    if not (math.isfinite(factor) and rates.max() > 0):
        raise TrainingError(f"the rates times {factor} are no rates to train with", hint="a positive scale")
    tensors = [tensor for group in summary.groups.values() for tensor in group]
    bound = _bound(model, source, tensors, names, ordered=len(tensors) == len(summary.groups))
    return [
        {"params": [bound[tensor] for tensor in group], "lr": float(rate), "name": name}
        for (name, group), rate in zip(summary.groups.items(), rates, strict=True)
    ]


def _checked(rates: Values, groups: tuple[str, ...], floor: float | None) -> Values:
    """The rates, raised to the floor."""
    for name, rate in zip(groups, rates.tolist(), strict=True):
        if not math.isfinite(rate):
            raise TrainingError(f"the rate of group '{name}' is {rate}")
        if floor is None and rate < 0:
            raise TrainingError(
                f"the rate of group '{name}' is negative: {rate:.4g}",
                hint="a floor, e.g. floor=0.0, which leaves such a group as it is",
            )
    raised = rates if floor is None else np.maximum(rates, floor)
    if not (raised > 0).any():
        raise TrainingError(
            "no group has a positive rate: nothing would be trained",
            hint="another record, or a positive floor, e.g. floor=1e-3",
        )
    return raised


def _bound(
    model: torch.nn.Module,
    source: Any,
    tensors: list[str],
    names: Mapping[str, str] | None,
    *,
    ordered: bool,
) -> dict[str, torch.nn.Parameter]:
    """The parameters of the model by the names of the spec; ``ordered`` if these are in its order."""
    if names is None and getattr(source, "_model", None) is model:
        return dict(source._parameters)  # as the optimizer found them
    found = dict(model.named_parameters())
    layers = list(dict.fromkeys(tensor.rpartition(".")[0] for tensor in tensors))
    if names is None:
        own: Mapping[str, str] = {}
        if not found.keys() & set(tensors):
            shapes = getattr(type(source).__init__, "__globals__", {}).get("SHAPES")
            if shapes is not None:
                layers = list(dict.fromkeys(tensor.rpartition(".")[0] for tensor in shapes))
            elif not ordered:
                raise TrainingError(
                    "the model has other names than the groups, whose log does not tell the order of layers",
                    hint="names={...} maps layers of the spec to those of the model",
                )
            linear = [name for name, part in model.named_modules() if isinstance(part, torch.nn.Linear)]
            own = dict(zip(layers, linear, strict=False))
    else:
        own = names
        unknown = sorted(set(names) - set(tensors) - set(layers))
        if unknown:
            raise TrainingError(
                f"names: '{unknown[0]}' is not in the spec", hint=f"known: {', '.join((*layers, *tensors))}"
            )
    where = {}
    for tensor in tensors:
        layer, _, kind = tensor.rpartition(".")
        where[tensor] = own.get(tensor, f"{own.get(layer, layer)}.{kind}".removeprefix("."))
    missing = [f"{tensor} (as {name})" for tensor, name in where.items() if name not in found]
    extra = [name for name in found if name not in where.values()]
    if missing or extra:
        lacks = f"it lacks {', '.join(missing)}" if missing else f"the spec lacks {', '.join(extra)}"
        raise TrainingError(
            f"the model's parameters are not those of the groups: {lacks}",
            hint=f"names={{...}} maps names of the spec to those of the model: {', '.join(found)}",
        )
    return {tensor: found[name] for tensor, name in where.items()}
