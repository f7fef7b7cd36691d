"""``sifrc.optimizer``: a second-order optimizer for a torch module in one line."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from types import MethodType
from typing import TYPE_CHECKING, Any

from sifrc.errors import TrainingError

if TYPE_CHECKING:
    import torch

    from sifrc.api.recipe import Recipe
    from sifrc.spec.types import OptionValue, PartitionChoice

__all__ = ["optimizer"]

_WORDS = frozenset({"maximize", "foreach", "fused", "capturable", "differentiable"})
"""Arguments of torch's optimizers, which generated ones say something about."""


def optimizer(
    model: torch.nn.Module,
    loss: Any = "cross_entropy",
    method: str = "grouped_newton",
    *,
    example: Any,
    check: bool = True,
    output: int | str | None = None,
    cache: bool | str | os.PathLike[str] = True,
    partition: PartitionChoice | None = None,
    groups: Iterable[Any] | None = None,
    l2: float | Mapping[str, float] = 0.0,
    **options: Any,
) -> torch.optim.Optimizer:
    """A second-order optimizer of a torch module: imported, compiled, cached and bound to its parameters.

    ``step(inputs, targets)`` is one update. The shape of a usual training loop works too: ``step(closure)``,
    and ``step()`` after a forward pass, take the batch that ``model`` and ``loss`` were called with last;
    ``loss`` is then the module that the loop calls. Gradients of ``backward`` are not read: the step has its
    own.

    Args:
        model: as for :func:`sifrc.from_torch`.
        loss: the same.
        method: name of the method.
        example: a batch, (inputs, targets) or inputs alone; several inputs are a tuple or a dict in the first
            place.
        check: whether the network that comes out is compared with the model on the example.
        output: of several that the model returns, the place or the name of the one that the loss reads.
        cache: of traced networks and generated modules, as for :func:`sifrc.compile`.
        partition: groups of the parameters that a method has numbers for, as for :func:`sifrc.compile`.
        groups: of parameters, with ``lr`` and ``weight_decay`` of their own; ``params`` are tensors, names,
            or patterns of names. What is in no group is a constant of the derivation, as what is frozen is,
            until ``add_param_group`` of the optimizer adds it.
        l2: λ of an ℓ₂ term ½ λ ‖θ‖² of the objective, or λ by names or patterns of names; gradients and
            curvature have it. ``weight_decay`` is apart from the objective.
        options: of the method, its hyperparameters among them; ``lr`` is the learning rate, and
            ``weight_decay`` the decoupled one.

    Returns:
        The generated module's ``Optimizer``.

    Raises:
        ModuleImportError: the model or the loss cannot be imported.
        MethodError: the method does not exist, does not apply to this network, or has no such option.

    Example:
        >>> import torch, sifrc
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3))
        >>> x, t = torch.randn(32, 4), torch.arange(32) % 3
        >>> criterion = torch.nn.CrossEntropyLoss()
        >>> optimizer = sifrc.optimizer(model, criterion, example=(x, t))
        >>> first = optimizer.step(x, t)
        >>> loss = criterion(model(x), t)
        >>> loss.backward()
        >>> second = optimizer.step()
        >>> bool(second < first)
        True
    """
    from sifrc.api.groups import grouped
    from sifrc.api.importing import unwrapped
    from sifrc.api.recipe import Recipe

    pair = isinstance(example, tuple | list) and len(example) == 2
    inputs, targets = example if pair else (example, None)
    settings, numbers = _settings(options)
    given: list[dict[str, Any]] | None = None
    trained = None
    if groups is not None:
        given, trained = grouped(unwrapped(model), groups)
    recipe = Recipe(
        model, loss, method, settings, inputs, targets, check, output, cache, partition=partition, l2=l2
    )
    decays = any("weight_decay" in group for group in given or ())
    generated = recipe.module(trained, decays=decays)
    made: torch.optim.Optimizer = generated.Optimizer(model, groups=given, **numbers)
    _follow(made, recipe)
    return made


def _settings(options: Mapping[str, Any]) -> tuple[dict[str, OptionValue], dict[str, Any]]:
    """Options that the spec has, and what the optimizer is given when it is made."""
    import torch

    found, numbers = dict(options), {}
    if "lr" in found:
        found["learning_rate"] = found.pop("lr")
    for name, value in list(found.items()):
        if name in _WORDS:
            numbers[name] = found.pop(name)
        elif isinstance(value, torch.Tensor):
            # It stays the tensor that it is: schedulers write into it.
            numbers["lr" if name == "learning_rate" else name] = value
            found[name] = value.item()
    return found, numbers


def _follow(made: Any, recipe: Recipe) -> None:
    """Let a step without a batch take the last one that the model and the loss were called with.

    And let groups be added, which takes what the optimizer was made from. Both are of this object alone, not
    of its copies: these have another model, which nobody calls in the loop.
    """
    model, loss = recipe.model, recipe.loss
    last: dict[str, Any] = {}
    model.register_forward_pre_hook(_Hook("inputs", last), with_kwargs=True)
    if hasattr(loss, "register_forward_pre_hook"):
        loss.register_forward_pre_hook(_Hook("targets", last), with_kwargs=True)

    def step(self: Any, *batch: Any, closure: Any = None, **more: Any) -> Any:
        """One update: of a batch, of what a closure gives, or of the batch that was seen last."""
        usual = type(self).step  # that of another derivation after a group was added
        batch = batch if closure is None else (closure, *batch)  # libraries give it by its name
        found = _watched(batch[0], loss, last) if len(batch) == 1 and callable(batch[0]) else batch
        with _own_calls(last) as seen:
            if isinstance(found, tuple | list) and len(found) == 2 and not isinstance(found[1], tuple | list):
                return usual(self, _alone(found[0]), found[1], **more)  # loaders give lists
            if not batch or found is None or getattr(found, "ndim", 1) == 0:
                inputs, targets = _seen(seen)
                return usual(self, _alone(inputs), targets, **more)
            return usual(self, *batch, **more)

    def add_param_group(self: Any, param_group: dict[str, Any]) -> None:
        """Train more parameters of the model from the next step on."""
        from sifrc.api.unfreezing import add_group

        with _own_calls(last):
            add_group(self, recipe, param_group)

    made.step = MethodType(step, made)
    made.add_param_group = MethodType(add_param_group, made)


@contextmanager
def _own_calls(last: dict[str, Any]) -> Iterator[Mapping[str, Any]]:
    """What was seen before; what the model is called with in the block is none of the loop's."""
    seen = dict(last)
    try:
        yield seen
    finally:
        last.clear()
        last.update(seen)


def _alone(inputs: Any) -> Any:
    """The only tensor of a tuple or a mapping: a network with one input takes it as it is."""
    if isinstance(inputs, Mapping | tuple | list) and len(inputs) == 1:
        return next(iter(inputs.values())) if isinstance(inputs, Mapping) else inputs[0]
    return inputs


def _watched(closure: Any, loss: Any, last: dict[str, Any]) -> Any:
    """What a closure returns; if it calls a loss that is a function of torch, that sees its targets too."""
    from torch.overrides import TorchFunctionMode

    function = getattr(loss, "func", loss)  # of functools.partial

    class Watch(TorchFunctionMode):
        def __torch_function__(self, called: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if called is function:
                _Hook("targets", last)(None, args, kwargs or {})
            return called(*args, **(kwargs or {}))

    with Watch():
        return closure()


class _Hook:
    """Keeps what a module was called with last; copies and pickles of it keep nothing."""

    def __init__(self, name: str, last: dict[str, Any]) -> None:
        self.name, self.last = name, last

    def __call__(self, module: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        if self.name == "targets":
            self.last["targets"] = kwargs.get("target", args[1] if len(args) > 1 else None)
        else:
            self.last["inputs"] = dict(kwargs) if kwargs else args[0] if len(args) == 1 else args

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.name, {})


def _seen(last: Mapping[str, Any]) -> tuple[Any, Any]:
    """The batch that was seen last.

    Raises:
        TrainingError: there is none.
    """
    if "inputs" not in last:
        raise TrainingError(
            "step has no batch: the model was not called since the optimizer was made",
            hint="optimizer.step(inputs, targets), or a forward pass and the loss before it",
        )
    if last.get("targets") is None:
        raise TrainingError(
            "step has no targets: the loss was not called as the module that the optimizer was given",
            hint="optimizer.step(inputs, targets), or a loss module that the loop calls",
        )
    return last["inputs"], last["targets"]
