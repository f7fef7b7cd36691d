"""Losses that are functions of Python: exported like a module, and written as an expression of a spec.

What a function does before it takes means or sums over the samples is translated as any module is, to layers
over the outputs y and the targets t; the layers become the text of an expression.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from types import MappingProxyType
from typing import Any, Literal, TypeAlias

import torch

from sifrc.errors import ModuleImportError, words_of
from sifrc.importing.calls import Refused, number_in, refusal
from sifrc.importing.exported import Exported, export, place_of
from sifrc.importing.losses import KNOWN
from sifrc.importing.rules.losses import LOSSES, loss_rules
from sifrc.importing.translate import translated
from sifrc.spec.expression import Binary, Call, Expression, Name, Negative, Number, with_children
from sifrc.spec.format import format_expression
from sifrc.spec.functions import SCALAR_FUNCTIONS
from sifrc.spec.parser import parse_expression

__all__ = ["Targets", "expressed"]

Targets: TypeAlias = Literal["classes", "vectors"]
_WHOLE = "a loss is a mean or a sum over the samples, of one function of y and t"


class _Loss(torch.nn.Module):
    """A function of outputs and targets as a module."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, y: torch.Tensor, t: torch.Tensor) -> Any:
        """The loss of a batch."""
        return self.function(y, t)


@dataclass(frozen=True)
class _Part:
    """A term of the loss of a batch.

    Args:
        factor: of it.
        node: what is averaged or summed.
        samples: whether the samples are averaged or summed.
        rest: the same of what each sample has.
    """

    factor: float
    node: torch.fx.Node
    samples: str
    rest: str


def expressed(
    function: Callable[..., Any], shape: Sequence[int], dtype: torch.dtype, targets: Targets | None = None
) -> dict[str, Any]:
    """The keys of ``loss`` in a spec, of a function of outputs and targets that is made of torch's operators.

    Args:
        function: of the outputs (samples, …) and the targets, to one number.
        shape: of the outputs, without samples.
        dtype: of the outputs.
        targets: ``classes`` for indices, ``vectors`` for numbers of the outputs' shape; what the function
            takes by default.

    Raises:
        ModuleImportError: it cannot be traced, or no expression says what it does; which operator, at which
            line.

    Example:
        >>> expressed(lambda y, t: ((y - t) ** 2).sum(1).mean(), (3,), torch.float32)["expression"]
        'sum((y - t)**2)'
    """
    y = torch.linspace(-1.0, 1.0, _FEW, dtype=dtype).reshape(_FEW, *[1] * len(shape))
    y = y.expand(_FEW, *shape).clone()
    name, problems = getattr(function, "__name__", type(function).__name__), []
    for kind in (targets,) if targets else ("classes", "vectors"):
        whole = torch.zeros(_FEW, *shape[1:], dtype=torch.long)
        t = whole if kind == "classes" else torch.full_like(y, 0.5)
        try:
            found = function(y, t)
            if isinstance(found, torch.Tensor) and found.dim() == 0:
                return _expressed(function, y, t, kind)
            what = tuple(found.shape) if isinstance(found, torch.Tensor) else type(found).__name__
            problems.append(f"of {kind} it gives {what} in the place of one number")
        except ModuleImportError as error:
            code = getattr(function, "__code__", None)
            place = f", defined at {code.co_filename}:{code.co_firstlineno}" if code is not None else ""
            raise ModuleImportError(f"the loss {name}{place}: {error.message}", hint=error.hint) from None
        except Exception as error:
            problems.append(f"of {kind} it fails: {words_of(error).splitlines()[0]}")
    raise ModuleImportError(
        f"the loss {name} is none of those that are known, and no function of outputs and targets: "
        + "; ".join(problems),
        hint=f"a function of (outputs, targets) that gives one number; {KNOWN}, or their functions; or a "
        "loss of a spec",
    )


_FEW = 11
"""Samples of an example: no dimension beside them should have as many."""


def _expressed(
    function: Callable[..., Any], y: torch.Tensor, t: torch.Tensor, targets: str
) -> dict[str, Any]:
    shape = tuple(y.shape[1:])
    exported = export(_Loss(function), (y, t), {})
    if not exported.depends_on(exported.inputs[0]):
        raise ModuleImportError("the loss does not depend on the outputs", hint=_WHOLE)
    parts, constant = _parts(exported.output, exported, 1.0)
    ways = {(part.samples, part.rest if len(shape) > 1 else "") for part in parts}
    if len(ways) > 1:
        raise ModuleImportError("the loss has means of some terms and sums of others", hint=_WHOLE)
    if constant and parts[0].samples == "sum":
        raise ModuleImportError("the loss adds a number to a sum of samples", hint="a mean, or no number")
    axes: set[int] = set()
    whole = [_tree_of(part, exported, shape, targets, axes) for part in parts]
    if len(axes) > 1:
        raise ModuleImportError("the loss sums or takes softmax along several axes", hint="along one")
    if constant:
        whole.append(_number_tree(constant))
    keys: dict[str, Any] = {"expression": format_expression(_added(whole)), "targets": targets}
    if parts[0].samples == "sum":
        keys["reduction"] = "sum"
    if len(shape) > 1:
        keys["places"] = parts[0].rest
        axis = 1 if targets == "classes" else min(axes, default=len(shape) - 1) + 1
        keys |= {"axis": axis} if axis != len(shape) else {}
    return keys


_REDUCED = frozenset({"mean", "sum"})
_REDUCTIONS: Mapping[int, str] = MappingProxyType({1: "mean", 2: "sum"})


def _parts(node: Any, exported: Exported, factor: float) -> tuple[list[_Part], float]:
    """The loss of a batch as terms and a number."""
    number = _number(node, exported)
    if number is not None:
        return [], factor * number
    name = _name(node)
    if name in ("add", "sub"):
        first, second = node.args[:2]
        own = factor * float(node.kwargs.get("alpha", 1)) * (1.0 if name == "add" else -1.0)
        (one, a), (two, b) = _parts(first, exported, factor), _parts(second, exported, own)
        return one + two, a + b
    if name == "neg":
        return _parts(node.args[0], exported, -factor)
    if name in ("mul", "div"):
        first, second = node.args[:2]
        count = _samples(second, exported.samples)
        if name == "div" and count is not None:
            parts, constant = _parts(first, exported, factor / count)
            if not constant and all(part.samples == "sum" for part in parts):
                return [replace(part, samples="mean") for part in parts], 0.0
        if name == "mul" and _number(first, exported) is not None:
            first, second = second, first
        number = _number(second, exported)
        if number is not None:
            return _parts(first, exported, factor * number if name == "mul" else factor / number)
    if name in ("clone", "alias", "contiguous", "_to_copy"):
        return _parts(node.args[0], exported, factor)
    if name in LOSSES and _argument(node, "reduction") in _REDUCTIONS:
        way = _REDUCTIONS[_argument(node, "reduction")]
        return [_Part(factor, node, way, way)], 0.0
    if name in _REDUCED:
        value, dims = node.args[0], _argument(node, "dim")
        rank = value.meta["val"].dim()
        if not dims or {dim % rank for dim in dims} == set(range(rank)):
            return [_Part(factor, value, name, name)], 0.0
    raise refusal(
        Refused(f"a loss that is no mean or sum over the samples, and does {name} after it", _WHOLE),
        str(node.target),
        "the loss",
        place_of(node),
    )


def _name(node: torch.fx.Node) -> str:
    target: Any = node.target
    return target._schema.name.partition("::")[2] if hasattr(target, "_schema") else str(node.name)


def _argument(node: torch.fx.Node, name: str) -> Any:
    """An argument by the name that the operator's schema has for it."""
    target: Any = node.target
    for n, argument in enumerate(target._schema.arguments):
        if argument.name == name:
            given = node.args[n] if n < len(node.args) else node.kwargs.get(name)
            return argument.default_value if given is None and argument.has_default_value() else given
    return None


def _number(node: Any, exported: Exported) -> float | None:
    """A number, or a tensor of one that the function closes over."""
    if isinstance(node, torch.fx.Node):
        return number_in(exported.constants.get(node.name))
    return number_in(node)


def _samples(node: Any, samples: int) -> int | None:
    """How many times the number of samples a size is; None for any other."""
    value = node.meta.get("val") if isinstance(node, torch.fx.Node) else node
    if isinstance(value, torch.SymInt):
        factor, rest = value.node.expr.as_coeff_Mul()
        return int(factor) if rest.is_Symbol and factor.is_Integer else None
    traced = samples and isinstance(value, int | float) and value and value % samples == 0
    return int(value or 0) // samples if traced else None


@dataclass(frozen=True)
class _State:
    """A layer as an expression.

    Args:
        tree: the expression.
        axes: of the outputs that it still has, from 0.
        closed: how places were taken together; empty where they were not.
    """

    tree: Expression
    axes: tuple[int, ...]
    closed: str = ""


def _tree_of(
    part: _Part, exported: Exported, shape: tuple[int, ...], targets: str, axes: set[int]
) -> Expression:
    """One term as an expression; the axis that its vectors are along is added to ``axes``."""
    inner = replace(exported, output=part.node)
    draft, value = translated(inner, ["y", "t"], rules=loss_rules(shape, targets))
    every = tuple(range(len(shape)))
    states = {name: _State(Name(name), every) for name in ("y", "t")}
    for layer in draft.layers:
        states[layer["name"]] = _layer(layer, states, axes)
    assert isinstance(value.source, str)
    found = states[value.source]
    if len(shape) > 1 and found.closed not in ("", part.rest):
        raise ModuleImportError("the loss has a mean over some places and a sum over others", hint=_WHOLE)
    along = axes if axes else {len(shape) - 1}
    tree = Call(part.rest, (found.tree,)) if along & set(found.axes) else found.tree
    return _times(part.factor, tree)


def _layer(layer: Mapping[str, Any], states: Mapping[str, _State], axes: set[int]) -> _State:
    """What a layer does, as an expression."""
    kind, given = layer["type"], layer.get("inputs", [])
    inputs = [states[name] for name in ([given] if isinstance(given, str) else given)]
    if any(each.closed for each in inputs):
        raise ModuleImportError("the loss goes on after a mean or a sum over the places", hint=_WHOLE)
    first = inputs[0] if inputs else _State(Number(Fraction(0)), ())
    if kind == "activation":
        numbers = {name: _number_tree(value) for name, value in layer.get("parameters", {}).items()}
        if "expression" in layer:
            return replace(first, tree=_filled(layer["expression"], {"x": first.tree, **numbers}))
        own = SCALAR_FUNCTIONS[layer["function"]]
        arguments = (first.tree, *(numbers[name] for name in own.arguments[1:]))
        return replace(first, tree=Call(own.name, arguments))
    if kind == "scale":
        tree = _times(layer["value"], first.tree)
        shift = layer.get("shift")
        return replace(first, tree=_added([tree, _number_tree(shift)]) if shift else tree)
    if kind in ("add", "multiply", "entrywise"):
        wide = max(inputs, key=lambda each: len(each.axes))
        if any(set(each.axes) - set(wide.axes) for each in inputs):
            raise ModuleImportError("the loss combines vectors along several axes", hint="vectors along one")
        trees = [each.tree for each in inputs]
        if kind == "add":
            return replace(wide, tree=_added(trees))
        names = {f"x{n}": tree for n, tree in enumerate(trees, 1)}
        return replace(
            wide, tree=_filled(layer["expression"] if kind == "entrywise" else "*".join(names), names)
        )
    if kind in ("sum", "mean", "softmax", "log_softmax"):
        whole = layer.get("axes") or [layer.get("axis") or len(first.axes)]
        over = [first.axes[n - 1] for n in whole]
        call = Call(kind, (first.tree,))
        if len(over) == 1:
            axes.add(over[0])
            left = first.axes if "softmax" in kind else tuple(a for a in first.axes if a not in over)
            return replace(first, tree=call, axes=left)
        if len(over) == len(first.axes):
            return _State(call, (), kind)
    if kind == "table" and len(set(layer.get("values", [0, 1]))) == 1:
        return _State(_number_tree(layer["values"][0]), ())
    what = "fixed numbers for the entries" if kind == "table" else f"layers of type {kind}"
    raise ModuleImportError(
        f"the loss has {what}, and expressions of a spec have none",
        hint="sums and means of functions of the entries, softmax and log_softmax along one axis",
    )


def _filled(text: str, trees: Mapping[str, Expression]) -> Expression:
    """An expression with other expressions in the place of its names."""

    def change(tree: Expression) -> Expression:
        return trees[tree.identifier] if isinstance(tree, Name) else with_children(tree, change)

    return change(parse_expression(text, variables=tuple(trees)))


def _number_tree(value: float) -> Expression:
    whole = Number(Fraction(repr(abs(float(value)))))
    return Negative(whole) if value < 0 else whole


def _times(factor: float, tree: Expression) -> Expression:
    if factor == 1.0:
        return tree
    whole = tree if abs(factor) == 1.0 else Binary("*", Number(Fraction(repr(abs(float(factor))))), tree)
    if factor > 0:
        return whole
    return whole.operand if isinstance(whole, Negative) else Negative(whole)


def _added(trees: Sequence[Expression]) -> Expression:
    whole = trees[0]
    for tree in trees[1:]:
        minus = isinstance(tree, Negative)
        whole = Binary("-" if minus else "+", whole, tree.operand if isinstance(tree, Negative) else tree)
    return whole
