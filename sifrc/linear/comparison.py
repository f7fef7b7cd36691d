"""A model of the caller beside the network of a spec: they give the same numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from sifrc.errors import OperatorError
from sifrc.linear.batches import Inputs
from sifrc.restored import restored
from sifrc.spec import Spec
from sifrc.spec.layers import evaluates_apart

__all__ = ["compare"]


def compare(
    model: torch.nn.Module,
    spec: Spec,
    module: Any,
    values: Mapping[str, Tensor],
    inputs: Inputs,
    output: int | str | None = None,
) -> None:
    """Compare outputs, in the mode that a model is in; if it is another after training, as it is then.

    Args:
        model: of the caller.
        spec: that it should be.
        module: generated from that.
        values: parameters and buffers.
        inputs: of a batch.
        output: of several that the model returns, as for :func:`sifrc.from_torch`.

    Raises:
        ModuleImportError: the model returns no such output.
        OperatorError: their outputs differ by more than rounding, on the batch, or on inputs of other sizes:
            where functions that are alike near zero are not, and at values that reach other branches.
    """
    given = model, spec, module, values, output
    _compare(*given, inputs)
    for size in (1.0, 8.0, 64.0):
        _compare(*given, _each_number(inputs, partial(_of_size, size=size)), strict=False)


def _compare(
    model: torch.nn.Module,
    spec: Spec,
    module: Any,
    values: Mapping[str, Tensor],
    output: int | str | None,
    inputs: Inputs,
    *,
    strict: bool = True,
) -> None:
    """Compare outputs; where inputs are far from what they are, as far as rounding allows there."""
    from sifrc.importing.exported import output_of

    expected = module.predict(values, inputs)
    try:
        with restored(model), torch.no_grad():
            if evaluates_apart(replace(spec, mode="training")):
                model.eval()
            found = _outputs(model, inputs)
    except Exception:
        if strict:
            raise
        return  # a model may refuse inputs of other sizes
    found = output_of(found, output)
    if not isinstance(found, Tensor):
        raise OperatorError(
            f"the model returns a {type(found).__name__}, and '{spec.name}' has one output",
            hint="output=0 for the first of several, or its name",
        )
    if found.shape != expected.shape:
        raise OperatorError(
            f"the model gives outputs of shape {tuple(found.shape)}, and '{spec.name}' of shape "
            f"{tuple(expected.shape)}",
            hint="the spec of this model",
        )
    difference = float((found - expected).abs().max())
    bound = module.TOLERANCES[expected.dtype] * (1.0 + float(expected.abs().max()))
    if difference > bound and not strict:
        nudged = module.predict(values, _each_number(inputs, _nudged))
        bound += 8.0 * float((nudged - expected).abs().max())
    if difference > bound or (strict and not difference <= bound):
        raise OperatorError(
            f"the outputs of the model differ from those of '{spec.name}' by up to {difference:.3g}",
            hint="activations, their parameters or connections are not those of the spec",
        )


def _each_number(inputs: Inputs, change: Callable[[Tensor], Tensor]) -> Inputs:
    """The inputs with those that are numbers changed; classes and truth values stay."""
    if isinstance(inputs, Mapping):
        return {name: change(value) if value.is_floating_point() else value for name, value in inputs.items()}
    if isinstance(inputs, tuple):
        return tuple(change(value) if value.is_floating_point() else value for value in inputs)
    return change(inputs) if inputs.is_floating_point() else inputs


def _of_size(value: Tensor, size: float) -> Tensor:
    """The tensor with entries of this size, in the mean of their squares; as it is where they have none."""
    found = float(value.float().square().mean().sqrt())
    return value * (size / found) if 0.0 < found < math.inf else value


def _nudged(value: Tensor) -> Tensor:
    """The tensor with entries that are some roundings larger and smaller, by turns."""
    by_turns = 1.0 - 2.0 * (torch.arange(value.numel(), device=value.device) % 2).view(value.shape)
    return value * (1.0 + 4.0 * torch.finfo(value.dtype).eps * by_turns.to(value.dtype))


def _outputs(model: torch.nn.Module, inputs: Inputs) -> Any:
    if isinstance(inputs, Mapping):
        return model(**inputs)
    return model(*inputs) if isinstance(inputs, tuple) else model(inputs)
