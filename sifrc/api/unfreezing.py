"""Parameters that an optimizer trains from some step on: a new derivation in the place of the old one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from sifrc.errors import MethodError
from sifrc.spec.suggest import shortened

if TYPE_CHECKING:
    import torch

    from sifrc.api.recipe import Recipe

__all__ = ["add_group"]


def add_group(optimizer: Any, recipe: Recipe, group: Mapping[str, Any]) -> None:
    """Train more parameters of the model: derive and compile the step of the larger set, and go on with it.

    The optimizer stays the same object, with the same list of groups. The count of steps and the state of
    single parameters go on; what all parameters have in common, and the curvature that is kept for some
    steps, begin anew.

    Args:
        optimizer: that ``sifrc.optimizer`` made.
        recipe: what it was derived from.
        group: a dict as torch has it; ``params`` as for ``groups`` of :func:`sifrc.optimizer`.

    Raises:
        MethodError: something is no parameter of the model, frozen, or in a group already; or the method does
            not apply to the larger network.
        ModuleImportError: a layer would be trained in part.
        RuntimeError: the optimizer is in a block of ``accumulate``.
        ValueError: a number is unknown or out of its range. After any error the optimizer is as it was.

    Example:
        >>> import torch, sifrc
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3))
        >>> x, t = torch.randn(32, 4), torch.arange(32) % 3
        >>> _ = model[0].requires_grad_(False)
        >>> optimizer = sifrc.optimizer(model, "cross_entropy", method="ea_cg", example=(x, t), lr=0.1)
        >>> first = optimizer.step(x, t)
        >>> _ = model[0].requires_grad_(True)
        >>> optimizer.add_param_group({"params": model[0].parameters(), "lr": 0.01})
        >>> [(len(group["params"]), group["lr"]) for group in optimizer.param_groups]
        [(2, 0.1), (2, 0.01)]
    """
    from sifrc.api.groups import grouped
    from sifrc.api.importing import unwrapped

    if not isinstance(group, Mapping):
        raise MethodError(
            f"add_param_group: a group is a dict with params, not {shortened(repr(group))}",
            hint='optimizer.add_param_group({"params": model.base.parameters(), "lr": 0.01})',
        )
    module = unwrapped(recipe.model)
    (given,), more = grouped(module, [group])
    there = {id(value) for own in optimizer.param_groups for value in own["params"]}
    for name, value in more.items():
        if id(value) in there:
            raise MethodError(
                f"add_param_group: '{name}' is in a group of this optimizer already",
                hint='each parameter has one group, whose numbers may change: param_groups[0]["lr"] = 0.01',
            )
    trained = [
        name for name, value in module.named_parameters() if id(value) in there or name in more
    ]  # in the order of the model, as at the start
    decays = any("weight_decay" in each for each in (given, *optimizer.param_groups))
    recipe = replace(recipe, inputs=_like_parameters(recipe.inputs, module))
    recipe.module(trained, decays=decays).Optimizer.take_over(optimizer, given)


def _like_parameters(example: Any, model: torch.nn.Module) -> Any:
    """The example on the device and in the dtype that the model has now; it may have moved."""
    import torch

    like = next(model.parameters(), None)
    if isinstance(example, torch.Tensor) and like is not None:
        return example.to(like.device, like.dtype if example.is_floating_point() else example.dtype)
    if isinstance(example, Mapping):
        return {name: _like_parameters(each, model) for name, each in example.items()}
    if isinstance(example, tuple | list):
        return tuple(_like_parameters(each, model) for each in example)
    return example
