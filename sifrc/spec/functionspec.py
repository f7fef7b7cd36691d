"""Activations and losses of a spec: built in by name, or the user's expression with parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from types import MappingProxyType

from sifrc.spec.checks import check_constants, check_dependence, check_loss_rank, used_names
from sifrc.spec.expression import Expression
from sifrc.spec.functions import LOSS_FUNCTIONS, SCALAR_FUNCTIONS
from sifrc.spec.names import name_problem
from sifrc.spec.parser import parse_expression
from sifrc.spec.positions import Path, Positions
from sifrc.spec.registry import ACTIVATIONS, LOSSES, BuiltIn
from sifrc.spec.suggest import did_you_mean, shortened
from sifrc.spec.types import FunctionSpec

__all__ = ["activation_spec", "built_in_expression", "entrywise_spec", "loss_function_spec", "loss_parts"]

_TABLES = MappingProxyType({"activation": ACTIVATIONS, "loss": LOSSES})
_VARIABLES = MappingProxyType({"activation": ("x",), "loss": ("y", "t")})


def activation_spec(
    positions: Positions,
    path: Path,
    function: str | None,
    expression: str | None,
    parameters: Mapping[str, float] | None,
    parameters_path: Path,
) -> FunctionSpec:
    """Build an activation from ``function`` or ``expression`` at ``path``.

    Args:
        positions: places, for errors.
        path: item that holds the keys ``function`` and ``expression``.
        function: name of a built-in activation, or None.
        expression: text over ``x`` and parameters, or None.
        parameters: values given in the spec.
        parameters_path: where they stand.

    Raises:
        SpecError: neither or both given, an unknown name, or anything wrong with the expression.

    Example:
        >>> activation_spec(Positions("f"), (), "leaky_relu", None, {"slope": 0.1}, ()).parameters
        (('slope', 0.1),)
    """
    return _function_spec(positions, path, function, expression, parameters, parameters_path, "activation")


def loss_function_spec(
    positions: Positions,
    path: Path,
    function: str | None,
    expression: str | None,
    parameters: Mapping[str, float] | None,
    reduction: str = "mean",
) -> FunctionSpec:
    """Build the function of a loss over ``y`` and ``t``; as :func:`activation_spec`.

    Args:
        reduction: ``mean`` or ``sum``: which expression of a built-in loss is meant.

    Example:
        >>> loss_function_spec(Positions("f"), (), "huber", None, None).parameters
        (('delta', 1.0),)
        >>> loss_function_spec(Positions("f"), (), "mse", None, None, "sum").expression.function
        'sum'
    """
    own = (*path, "parameters")
    found = _function_spec(positions, path, function, expression, parameters, own, "loss")
    if function is None:
        return found
    return replace(found, expression=built_in_expression("loss", function, reduction))


def entrywise_spec(
    positions: Positions,
    path: Path,
    expression: str,
    parameters: Mapping[str, float] | None,
    count: int,
    *,
    fixed: bool = False,
) -> FunctionSpec:
    """Build a function of several arguments ``x1``, ``x2``, …; as :func:`activation_spec`.

    Args:
        positions: places, for errors.
        path: item that holds the keys ``expression`` and ``parameters``.
        expression: text over the arguments and parameters.
        parameters: values given in the spec.
        count: of the arguments.
        fixed: whether it is a rule of fixed numbers, of which nothing has a derivative: it may have jumps
            alone, and leave out arguments.

    Raises:
        SpecError: anything wrong with the expression, or an argument that is not in it.

    Example:
        >>> entrywise_spec(Positions("f"), (), "x1*sigmoid(b*x2)", {"b": 2.0}, 2).parameters
        (('b', 2.0),)
    """
    given, own = dict(parameters or {}), (*path, "parameters")
    variables = tuple(f"x{number}" for number in range(1, count + 1))
    role = "table" if fixed else "entrywise"
    tree = _custom(positions, (*path, "expression"), expression, given, own, role, variables)
    return FunctionSpec("custom", tree, tuple(given.items()), positions.value(path))


@cache
def built_in_expression(role: str, name: str, reduction: str = "mean") -> Expression:
    """Syntax tree of a built-in ``activation`` or ``loss``.

    Args:
        role: which of the two.
        name: of the function.
        reduction: of a loss, over the batch.

    Example:
        >>> built_in_expression("activation", "identity")
        Name(identifier='x')
    """
    entry = _TABLES[role][name]
    names = [parameter for parameter, _ in entry.parameters]
    text = entry.summed if reduction == "sum" and entry.summed else entry.expression
    return parse_expression(text, variables=_VARIABLES[role], parameters=names)


@cache
def loss_parts(name: str, reduction: str) -> tuple[Expression, ...]:
    """A built-in loss as two, of targets of zero and of targets of one; () where it is no such.

    Args:
        name: of the loss.
        reduction: over the entries.

    Example:
        >>> len(loss_parts("binary_cross_entropy", "mean")), loss_parts("mse", "mean")
        (2, ())
    """
    return tuple(
        parse_expression(f"{reduction}({text})", variables=_VARIABLES["loss"]) for text in LOSSES[name].parts
    )


def _function_spec(
    positions: Positions,
    path: Path,
    function: str | None,
    expression: str | None,
    parameters: Mapping[str, float] | None,
    parameters_path: Path,
    role: str,
) -> FunctionSpec:
    table, given = _TABLES[role], dict(parameters or {})
    if (function is None) == (expression is None):
        problem = "both 'function' and 'expression'" if function is not None else "no function"
        raise positions.error(
            path,
            f"this {role} has {problem}",
            hint=f'give one: function: {next(iter(table))}, or expression: "..."',
        )
    if function is not None:
        entry = table.get(function)
        if entry is None:
            raise positions.error(
                (*path, "function"),
                f"unknown {role} '{shortened(function)}'",
                hint=f'built in: {" ".join(sorted(table))}; or give an expression: {{expression: "..."}}',
                label=did_you_mean(function, table),
            )
        values = _built_in_parameters(positions, parameters_path, entry, given)
        tree = built_in_expression(role, function)
        return FunctionSpec(function, tree, values, positions.value(path))
    assert expression is not None
    values = tuple(given.items())
    variables = _VARIABLES[role]
    tree = _custom(positions, (*path, "expression"), expression, given, parameters_path, role, variables)
    return FunctionSpec("custom", tree, values, positions.value(path))


def _built_in_parameters(
    positions: Positions, path: Path, entry: BuiltIn, given: Mapping[str, float]
) -> tuple[tuple[str, float], ...]:
    """Defaults overridden by the given values, in order of declaration."""
    known = [name for name, _ in entry.parameters]
    for name, value in given.items():
        if name not in known:
            accepted = f"it has {', '.join(known)}" if known else "it has no parameters"
            raise positions.error(
                (*path, name),
                f"'{entry.name}' has no parameter '{shortened(name)}'",
                hint=accepted,
                label=did_you_mean(name, known),
                at_key=True,
            )
        if name in entry.positive and value <= 0:
            raise positions.error(
                (*path, name), f"'{name}' of '{entry.name}' must be positive", hint="greater than 0"
            )
    return tuple((name, float(given.get(name, default))) for name, default in entry.parameters)


def _custom(
    positions: Positions,
    path: Path,
    text: str,
    parameters: Mapping[str, float],
    parameters_path: Path,
    role: str,
    variables: tuple[str, ...],
) -> Expression:
    """Parse and check the user's own expression."""
    functions = LOSS_FUNCTIONS if role == "loss" else SCALAR_FUNCTIONS
    for name in parameters:
        problem = name_problem(name)
        if problem is None and (name in LOSS_FUNCTIONS or name in variables):
            problem = f"'{name}' has a meaning of its own in expressions", "choose another name"
        if problem is not None:
            raise positions.error((*parameters_path, name), problem[0], hint=problem[1], at_key=True)
    article = f"{'a' if role in ('loss', 'table') else 'an'} {role} expression"
    tree = parse_expression(
        text,
        variables=variables,
        parameters=tuple(parameters),
        functions=functions,
        location=positions.expression(path, text),
        role=article,
    )
    unused = [name for name in parameters if name not in used_names(tree)]
    if unused:
        raise positions.error(
            (*parameters_path, unused[0]),
            f"parameter '{unused[0]}' is not used in the expression",
            hint="remove it, or use it",
            at_key=True,
        )
    check_constants(tree, parameters)
    if role == "entrywise":
        _check_arguments(tree, variables, article)
    elif role != "table" or not used_names(tree) & set(variables):
        check_dependence(tree, variables[0], article)
    if role == "loss":
        check_loss_rank(tree)
    return tree


def _check_arguments(tree: Expression, variables: Sequence[str], article: str) -> None:
    """Every argument occurs, and one of them outside of conditions."""
    used, smooth = used_names(tree), used_names(tree, conditions=False)
    absent = next((name for name in variables if name not in used), None)
    first = next((name for name in variables if name in smooth), variables[0])
    check_dependence(tree, absent or first, article)
