"""From a traced module to layers: one operator after the other, those that depend on nothing as numbers."""

from __future__ import annotations

import operator
from collections.abc import Callable, Collection, Iterable, Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch.fx.node import map_arg

from sifrc.errors import ModuleImportError
from sifrc.importing.atoms import SAMPLES, Held, Value, fresh
from sifrc.importing.calls import Call, Refused, axes_for, refusal
from sifrc.importing.draft import Draft, Tied
from sifrc.importing.exported import Exported, place_of, sizes_of
from sifrc.importing.rules import RULES

__all__ = ["translate", "translated"]

_OF_SIZES = frozenset({operator.mul, operator.add, operator.sub, operator.floordiv, operator.neg})


def translate(
    exported: Exported, names: Iterable[str], trained: Collection[str] | None = None
) -> tuple[Draft, str]:
    """Layers of a traced module.

    Args:
        exported: the module as a graph of operators.
        names: of its inputs.
        trained: parameters that are no constants; by default those that want a gradient.

    Returns:
        The layers, and the name of the one that is the output.

    Raises:
        ModuleImportError: some operator has no layer; the message says which, and where.
    """
    draft, output = translated(exported, names, trained)
    return draft, _output(output, draft)


def translated(
    exported: Exported,
    names: Iterable[str],
    trained: Collection[str] | None = None,
    rules: Mapping[str, Callable[[Call], Any]] | None = None,
) -> tuple[Draft, Value]:
    """Layers of a traced module, and the tensor that comes out of them.

    Args and errors are those of :func:`translate`; ``rules`` are by the name of the operator, in the place of
    those of networks.
    """
    plain: frozenset[str] = frozenset()
    while True:
        try:
            return _translated(exported, names, trained, RULES if rules is None else rules, plain)
        except Tied as error:
            # Once more, with these tensors as states that products read.
            if error.names <= plain:
                raise
            plain |= error.names


def _translated(
    exported: Exported,
    names: Iterable[str],
    trained: Collection[str] | None,
    rules: Mapping[str, Callable[[Call], Any]],
    plain: Collection[str],
) -> tuple[Draft, Value]:
    kept = {**dict(exported.module.named_parameters()), **dict(exported.module.named_buffers())}
    shapes = {name: tuple(tensor.shape) for name, tensor in kept.items()}
    draft = Draft(shapes, exported.samples, dict(exported.module.named_parameters()), plain)
    if trained is None:
        trained = {name for name, value in exported.module.named_parameters() if value.requires_grad}
    needed = exported.needed()
    found = _given(exported, draft, kept, dict(zip(exported.inputs, names, strict=True)), trained, needed)
    for node in exported.nodes:
        if node.op == "call_function" and node in needed:
            found[node] = _called(node, found, draft, exported, kept, rules, needed)
    output = found[exported.output]
    if not isinstance(output, Value):
        raise ModuleImportError("what the module returns does not depend on its inputs and parameters")
    return draft, output


def _output(output: Value, draft: Draft) -> str:
    """The state that the network returns: samples first, then its axes in order."""
    draft.path = ""
    if not output.dims or output.dims[0] != (SAMPLES,):
        raise ModuleImportError(
            "the first dimension of what the module returns is not that of the samples",
            hint="outputs are samples x features, or samples x places x features",
        )
    source = draft.arranged(output, axes_for(output.dims) or ((),))
    if draft.layers and draft.layers[-1]["name"] == source:
        return source
    if any(each["name"] == source for each in draft.inputs) or not draft.layers:
        raise ModuleImportError("the module returns its input")
    return source


def _given(
    exported: Exported,
    draft: Draft,
    kept: Mapping[str, torch.Tensor],
    names: Mapping[str, str],
    trained: Collection[str],
    read: Collection[torch.fx.Node],
) -> dict[torch.fx.Node, Any]:
    """What the graph begins with: inputs, tensors of the module, numbers that tracing found."""
    found: dict[torch.fx.Node, Any] = {}
    for node in exported.nodes:
        if node.op != "placeholder" or node not in read:
            continue
        if node.name in exported.constants:
            found[node] = exported.constants[node.name].detach()
        elif node.name in exported.tensors:
            name = exported.tensors[node.name]
            tensor = kept[name]
            if not tensor.is_floating_point():
                draft.fixed.add(name)
                found[node] = tensor.detach()
            else:
                layout = fresh(tensor.shape)
                found[node] = Value(Held(name, name in trained), layout or ((),), layout)
        elif node.name in names:
            sizes = sizes_of(node.meta["val"], draft.samples)
            if not sizes or not sizes[0][1] or any(samples for _, samples in sizes[1:]):
                raise ModuleImportError(
                    f"the first dimension of the input '{names[node.name]}' is not that of the samples",
                    hint="every input has one entry for each sample along its first dimension",
                )
            whole = not node.meta["val"].is_floating_point()
            found[node] = draft.input(names[node.name], [size for size, _ in sizes[1:]], whole)
    return found


def _called(
    node: torch.fx.Node,
    found: Mapping[torch.fx.Node, Any],
    draft: Draft,
    exported: Exported,
    kept: Mapping[str, torch.Tensor],
    rules: Mapping[str, Callable[[Call], Any]],
    needed: Collection[torch.fx.Node],
) -> Any:
    """What one operator gives."""
    module = exported.module
    target: Any = node.target
    if target is operator.getitem:
        return found[node.args[0]][node.args[1]]  # type: ignore[index]
    if isinstance(node.meta.get("val"), torch.SymInt | int) or target in _OF_SIZES:
        return node.meta["val"]
    path, alone = _path_of(node, module)
    name = target._schema.name.partition("::")[2] if hasattr(target, "_schema") else str(target)
    draft.path = path.rpartition(".")[0] if alone else path
    try:
        arguments = _arguments(node, target, found)
        fixed = _numbers(node, target, name, arguments, draft.samples)
        if fixed is None and name in _COMPARISONS:
            fixed = _of_buffers(node, exported, kept, draft)
        if fixed is not None:
            return fixed
        if name not in rules:
            raise Refused(f"no layer does what {name} does", "the operators in docs/import.md")
        overload = getattr(target, "_overloadname", "")
        return rules[name](Call(node, draft, arguments, name, overload, (path, alone), needed))
    except Refused as error:
        raise refusal(error, str(target), path, place_of(node)) from None
    except Tied as error:
        shown = refusal(Refused(error.message, error.hint or ""), str(target), path, place_of(node))
        raise Tied(shown.message, error.names, shown.hint or "") from None
    except ModuleImportError as error:
        if "(operator " in error.message:
            raise
        raise refusal(Refused(error.message, error.hint or ""), str(target), path, place_of(node)) from None


def _arguments(node: torch.fx.Node, target: Any, found: Mapping[torch.fx.Node, Any]) -> dict[str, Any]:
    """Arguments by the names of the operator's schema, defaults filled in."""
    if not hasattr(target, "_schema"):
        raise Refused(f"no layer does what {target} does")

    args: Any = map_arg(node.args, found.__getitem__)
    kwargs: Any = map_arg(node.kwargs, found.__getitem__)
    arguments = {}
    for n, argument in enumerate(target._schema.arguments):
        if n < len(args) and not argument.kwarg_only:
            arguments[argument.name] = args[n]
        elif argument.name in kwargs:
            arguments[argument.name] = kwargs[argument.name]
        else:
            arguments[argument.name] = argument.default_value if argument.has_default_value() else None
    return arguments


_COMPARISONS = frozenset({"eq", "ne", "lt", "le", "gt", "ge", "logical_not", "bitwise_not", "tril", "triu"})
"""Of what the module keeps, these are fixed when it is imported."""


_FILLED: Mapping[str, float] = MappingProxyType(
    {
        f"{kind}{name}": number
        for name, number in (("zeros", 0.0), ("ones", 1.0), ("full", 0.0), ("empty", 0.0))
        for kind in ("", "new_")
    }
    | {"zeros_like": 0.0, "ones_like": 1.0, "full_like": 0.0, "empty_like": 0.0, "zero": 0.0}
)
"""Operators that fill a tensor with one number, whatever they read."""


def _numbers(
    node: torch.fx.Node,
    target: Any,
    name: str,
    arguments: Mapping[str, Any],
    samples: int,
) -> Any:
    """The numbers that an operator gives where nothing of samples and parameters is in it; None elsewhere."""
    if name in _FILLED and not isinstance(arguments.get("fill_value"), Value):
        # A dimension of samples has one entry: it is the same for all of them.
        shape = [size for size, _ in sizes_of(node.meta["val"], samples)]
        return torch.full(
            shape, float(arguments.get("fill_value", _FILLED[name])), dtype=node.meta["val"].dtype
        )
    if any(isinstance(each, Value) for each in _tensors(arguments.values())):
        return None

    def number(item: Any) -> Any:
        if isinstance(item, list | tuple):
            return type(item)(number(each) for each in item)
        if isinstance(item, torch.SymInt):
            return int(item.node.expr.as_coeff_Mul()[0])
        return item

    schema = target._schema.arguments
    args = [number(arguments[a.name]) for a in schema if not a.kwarg_only]
    kwargs = {a.name: number(arguments[a.name]) for a in schema if a.kwarg_only}
    value = node.meta["val"]
    if isinstance(value, torch.Tensor) and any(own for _, own in sizes_of(value, samples)):
        if name != "expand":
            raise Refused("numbers of the samples", "what does not depend on the place in a batch")
        # A dimension of samples has one entry: it is the same for all of them.
        args = [args[0], [-1 if own else size for size, own in sizes_of(value, samples)]]
    found = target(*args, **kwargs)
    return found.detach() if isinstance(found, torch.Tensor) else found


def _of_buffers(
    node: torch.fx.Node, exported: Exported, kept: Mapping[str, torch.Tensor], draft: Draft
) -> Any:
    """The numbers of a node that depends on nothing but buffers; None where it depends on more."""
    found: dict[torch.fx.Node, Any] = {}
    buffers: set[str] = set()
    read = exported.needed(node)
    for each in exported.nodes:
        if each not in read:
            continue
        if each.op == "placeholder":
            name = exported.tensors.get(each.name, "")
            tensor = exported.constants.get(each.name, kept.get(name))
            if tensor is None or isinstance(tensor, torch.nn.Parameter):
                return None
            found[each] = tensor.detach()
            buffers |= {name} if name in kept else set()
        elif isinstance(each.meta.get("val"), torch.SymInt):
            return None
        else:
            target: Any = each.target
            args: Any = map_arg(each.args, found.__getitem__)
            found[each] = target(*args, **map_arg(each.kwargs, found.__getitem__))
    draft.fixed |= buffers
    return found[node]


def _tensors(items: Iterable[Any]) -> list[Any]:
    """Values and numbers among arguments, and in lists of such."""
    found = []
    for item in items:
        if isinstance(item, list | tuple):
            found += _tensors(item)
        elif isinstance(item, Value | torch.Tensor):
            found.append(item)
    return found


def _path_of(node: torch.fx.Node, module: torch.nn.Module) -> tuple[str, bool]:
    """The path of the module that calls an operator, and whether it is one of torch with no other within."""
    stack = node.meta.get("nn_module_stack") or {}
    path = ""
    for found, _ in stack.values():
        path = found if isinstance(found, str) else path
    path = ".".join(part for part in path.split("@")[0].split(".")[1:] if part)
    try:
        owner = module.get_submodule(path)
    except AttributeError:
        return "", False
    of_torch = type(owner).__module__.startswith("torch.nn.modules")
    return path, bool(path) and of_torch and not any(True for _ in owner.children())
