"""What a model and a loss are to the compiler: a spec, parameters, and how the names of both go together.

:func:`bind` is the one place that knows where a spec comes from. Everything else goes on from a
:class:`Binding`.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from sifrc.api.tracing import Wanted
from sifrc.errors import OperatorError
from sifrc.linear.batches import Batch
from sifrc.linear.comparison import compare
from sifrc.linear.space import Space
from sifrc.spec import Spec, build_spec, spec_to_dict
from sifrc.spec.layers import evaluates_apart, parameter_shapes
from sifrc.spec.suggest import did_you_mean

__all__ = ["Binding", "bind"]


@dataclass(frozen=True)
class Binding:
    """A network, its loss and a point, as the compiler has them.

    Args:
        spec: of the network with its loss.
        names: the caller's own name -> name in generated modules, for every parameter, in the caller's order.
        values: parameters and buffers by the names of generated modules; copies.
        model: of the caller, whose forward pass is still to be compared with the spec's.
        cache: of generated modules, as for :func:`sifrc.compile`.
        output: of several that the model returns, the one of the spec.
    """

    spec: Spec
    names: Mapping[str, str]
    values: Mapping[str, Tensor]
    model: torch.nn.Module | None = None
    cache: Any = True
    output: int | str | None = None
    _modules: dict[object, ModuleType] = field(default_factory=dict, repr=False, compare=False)

    @property
    def space(self) -> Space:
        """Parameters by the caller's names."""
        first = self.values[next(iter(self.names.values()))]
        shapes = {own: tuple(self.values[name].shape) for own, name in self.names.items()}
        return Space(shapes, first.dtype, first.device)

    @property
    def parameters(self) -> dict[str, Tensor]:
        """Parameters alone, by the names of generated modules."""
        return {name: self.values[name] for name in self.names.values()}

    def generated(self, own: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Tensors by the names of generated modules."""
        return {name: own[caller] for caller, name in self.names.items()}

    def module(
        self, operator: str, curvature: Sequence[str] | None = None, loss: Mapping[str, Any] | None = None
    ) -> ModuleType:
        """The generated module with an operator; compiled when it is first asked for.

        Args:
            operator: of the catalogue.
            curvature: kinds that it knows.
            loss: as in a spec, in the place of the spec's own.

        Raises:
            SifrcError: there is none for the network.
        """
        from sifrc.api.compiling import compile

        key = operator, None if curvature is None else tuple(curvature), str(loss)
        if key not in self._modules:
            spec = self.spec if loss is None else with_loss(self.spec, loss, regularized=False)
            self._modules[key] = compile(
                spec, "torch", "none", (operator,), curvature=curvature, cache=self.cache
            )
        return self._modules[key]

    def seed(self, function: Any, seed: int) -> dict[str, int]:
        """The argument for what layers draw, where a generated function has it."""
        return {"seed": seed} if "seed" in inspect.signature(function).parameters else {}

    def check_forward(self, batch: Batch) -> None:
        """Compare the caller's model with the network, as both are after training.

        Raises:
            ModuleImportError: the model returns no output of the place or name that was given.
            OperatorError: their outputs differ by more than rounding.
        """
        if self.model is None:
            return
        compare(self.model, self.spec, self.module("gradient"), self.values, batch.inputs, self.output)


def bind(
    model: Any,
    loss: Any,
    example: Any = None,
    targets: Any = None,
    *,
    output: int | str | None = None,
    spec: Any = None,
    params: Mapping[str, Tensor] | None = None,
    names: Mapping[str, str] | None = None,
    mode: str | None = None,
    cache: Any = True,
) -> Binding:
    """What the compiler needs to know of a model and its loss.

    Args:
        model: a spec, the path of one or a mapping; a module of :func:`sifrc.compile`; or a torch module.
        loss: a word or a mapping as in a spec, or a loss of torch; None for the spec's own.
        example: inputs of a batch, by which a torch module without a spec is traced.
        targets: of the same batch.
        output: of several that a torch module returns, the one that the loss reads.
        spec: of a torch module, in the place of what :func:`sifrc.from_torch` finds.
        params: by name, where the model is no torch module; initial ones of the spec by default.
        names: name in the spec, of a parameter or a layer -> the torch module's own.
        mode: ``training`` or ``evaluation``; that of a torch module, else the spec's, by default.
        cache: as for :func:`sifrc.compile`.

    Raises:
        SifrcError: the spec is wrong, or its parameters are not those of the model.
    """
    from sifrc.api.source import choose, read_spec

    is_module = isinstance(model, torch.nn.Module)
    if isinstance(model, ModuleType):
        if not hasattr(model, "SPEC"):
            raise OperatorError(
                f"the module '{model.__name__}' was not generated by sifrc", hint="what sifrc.compile returns"
            )
        spec = build_spec(model.SPEC)
    elif is_module:
        if params is not None:
            raise OperatorError("params beside a torch module, which has its own", hint="leave out params")
        home = sys.modules.get(type(model).__module__)
        generated = getattr(home, "SPEC", None) if type(model) is getattr(home, "Network", None) else None
        if spec is not None:
            spec = read_spec(spec)
        elif isinstance(generated, Mapping):
            spec = build_spec(generated)
        else:
            wanted = Wanted(targets=targets, output=output)
            return _imported(model, loss, example, wanted, names, mode, cache)
    else:
        if spec is not None:
            raise OperatorError("two specs, as model and as spec", hint="leave out spec")
        spec = read_spec(model)
    if loss is not None:
        spec = with_loss(spec, loss)
    if mode is None and is_module and evaluates_apart(replace(spec, mode="training")):
        mode = "training" if model.training else "evaluation"
    if mode is not None:
        spec = choose(spec, mode=mode)
    if is_module:
        bound = Binding(spec, _own_names(model, spec, names), {}, model, cache, output)
        return replace(bound, values=_of_module(model, bound), _modules=bound._modules)
    if names is not None:
        raise OperatorError("names without a torch module", hint="params has the names of the spec")
    own = {name: name for name in parameter_shapes(spec.layers, spec.shapes)}
    binding = Binding(spec, own, {}, None, cache)
    return replace(binding, values=_given(binding, params), _modules=binding._modules)


def with_loss(spec: Spec, loss: Any, *, regularized: bool = True) -> Spec:
    """A spec with another loss, and without the choices of a method, which may not go with it.

    Raises:
        SifrcError: it is no loss of a spec, or none for this network.
    """
    if not isinstance(loss, str | Mapping):
        from sifrc.importing.losses import TorchLoss, loss_of

        found = loss_of(loss)
        if found is None:
            from sifrc.importing.expressed import expressed

            last = spec.layers[-1].shape
            found = TorchLoss(expressed(loss, last, getattr(torch, spec.dtype)))
        if found.after:
            raise OperatorError(
                f"loss: {type(loss).__name__} takes logarithms of probabilities",
                hint="CrossEntropyLoss of logits",
            )
        loss = dict(found.keys)
    left_out = ("method", "training", "target", *(() if regularized else ("regularization",)))
    document = {key: value for key, value in spec_to_dict(spec).items() if key not in left_out}
    return build_spec({**document, "loss": loss if isinstance(loss, str) else dict(loss)})


def _imported(
    model: torch.nn.Module,
    loss: Any,
    example: Any,
    wanted: Wanted,
    names: Mapping[str, str] | None,
    mode: str | None,
    cache: Any,
) -> Binding:
    """A torch module by tracing it, in the mode that it is in."""
    from sifrc.api.importing import compared

    if loss is None:
        raise OperatorError(
            f"no loss for a torch module of type {type(model).__name__}",
            hint="'cross_entropy', another word or mapping as in a spec, or a loss of torch",
        )
    if names is not None or mode is not None:
        raise OperatorError(
            "names or a mode for a torch module without a spec, which has its own",
            hint="model.eval() or model.train(), or spec=…",
        )
    spec, whole = compared(model, example, loss, cache=cache, wanted=wanted)
    inner = Binding(spec, _own_names(whole, spec, None), {}, None, cache)
    # A wrapper around the module has other names for the same tensors.
    outer = {id(value): name for name, value in model.named_parameters()}
    own = dict(whole.named_parameters())
    names_of = {outer[id(own[name])]: given for name, given in inner.names.items()}
    return replace(inner, names=names_of, values=_of_module(whole, inner), _modules=inner._modules)


def _own_names(model: torch.nn.Module, spec: Spec, names: Mapping[str, str] | None) -> dict[str, str]:
    """Own name -> name in the spec, in the model's order.

    Raises:
        OperatorError: parameters are missing, have another shape, or are unknown to the spec.
    """
    shapes = parameter_shapes(spec.layers, spec.shapes)
    layers = {name.rpartition(".")[0] for name in shapes}
    for name in names or {}:
        if name not in shapes and name not in layers:
            raise OperatorError(
                f"names: '{name}' is neither a parameter nor a layer of '{spec.name}'",
                label=did_you_mean(name, [*shapes, *layers]),
                hint=f"parameters: {', '.join(shapes)}",
            )
    wanted: dict[str, str] = {}
    for name in shapes:
        layer, _, slot = name.rpartition(".")
        given = spec.names if names is None else names
        wanted[given.get(name, f"{given[layer]}.{slot}" if layer in given else name)] = name
    found = dict(model.named_parameters())
    missing = [own for own in wanted if own not in found]
    # What an imported module has besides is nothing that its output depends on.
    besides = bool(spec.names) and names is None
    unknown = [] if besides else [own for own in found if own not in wanted]
    if missing or unknown:
        parts = [f"it has no '{missing[0]}'"] if missing else []
        parts += [f"'{unknown[0]}' is none of '{spec.name}'"] if unknown else []
        raise OperatorError(
            f"the model's parameters are not those of '{spec.name}': {', and '.join(parts)}",
            label=did_you_mean(missing[0], found) if missing else did_you_mean(unknown[0], wanted),
            hint="names={name in the spec: name in the model} says which is which",
        )
    found = {own: value for own, value in found.items() if own in wanted}
    for own, value in found.items():
        if tuple(value.shape) != tuple(shapes[wanted[own]]):
            raise OperatorError(
                f"'{own}' has shape {tuple(value.shape)} in the model, and {tuple(shapes[wanted[own]])} in "
                f"'{spec.name}'",
                hint="the spec of this model, or names={name in the spec: name in the model}",
            )
    return {own: wanted[own] for own in found}


def _of_module(model: torch.nn.Module, binding: Binding) -> dict[str, Tensor]:
    """Copies of parameters, and of buffers that are beside them."""
    found, own = dict(model.named_parameters()), binding.names
    values = {name: found[caller].detach().clone() for caller, name in own.items()}
    _check_values(values)
    modules = {name.rpartition(".")[0]: caller.rpartition(".")[0] for caller, name in own.items()}
    there, like = {**found, **dict(model.named_buffers())}, next(iter(values.values()))
    for name in getattr(binding.module("gradient"), "BUFFERS", ()):
        layer, _, slot = name.rpartition(".")
        caller = binding.spec.names.get(name, f"{modules.get(layer, layer)}.{slot}".lstrip("."))
        if caller not in there:
            raise OperatorError(
                f"the model has no buffer '{caller}'", hint=f"'{binding.spec.name}' has running statistics"
            )
        values[name] = there[caller].detach().clone().to(like.dtype)
    return values


def _given(binding: Binding, params: Mapping[str, Tensor] | None) -> dict[str, Tensor]:
    """Copies of what a caller gave, or initial parameters."""
    module = binding.module("gradient")
    initial: dict[str, Tensor] = module.initialize(binding.spec.seed)
    if params is None:
        return initial
    if not isinstance(params, Mapping):
        raise OperatorError(f"params: an object of type {type(params).__name__}", hint="a dict of tensors")
    unknown = [name for name in params if name not in initial]
    missing = [name for name in module.SHAPES if name not in params]
    if unknown or missing:
        what = f"'{unknown[0]}' is none of them" if unknown else f"'{missing[0]}' is missing"
        raise OperatorError(
            f"params are not those of '{binding.spec.name}': {what}",
            label=did_you_mean(str(unknown[0]), initial) if unknown else None,
            hint=f"names: {', '.join(initial)}",
        )
    for name, value in params.items():
        if not isinstance(value, Tensor) or value.shape != initial[name].shape:
            got = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise OperatorError(f"params['{name}'] is {got}", hint=f"shape {tuple(initial[name].shape)}")
    values = {name: params[name].detach().clone() for name in module.SHAPES}
    _check_values(values)
    like = next(iter(values.values()))
    rest = {name: params.get(name, initial[name]).detach().clone() for name in initial if name not in values}
    return values | {name: value.to(like.device, like.dtype) for name, value in rest.items()}


def _check_values(values: Mapping[str, Tensor]) -> None:
    """One dtype that modules compute in, on one device, of finite numbers."""
    first = next(iter(values.values()))
    for name, value in values.items():
        if value.dtype not in (torch.float32, torch.float64, torch.bfloat16):
            raise OperatorError(
                f"parameter '{name}' is of {value.dtype}", hint="model.float() or model.double()"
            )
        if value.dtype != first.dtype or value.device != first.device:
            raise OperatorError(
                f"parameter '{name}' is {value.dtype} on {value.device}, others are {first.dtype} on "
                f"{first.device}",
                hint="one dtype on one device",
            )
        if not bool(value.isfinite().all()):
            raise OperatorError(
                f"parameter '{name}' has numbers that are not finite", hint="parameters from before"
            )
