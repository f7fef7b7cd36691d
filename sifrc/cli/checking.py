"""``sifrc check``: is a spec right, what is in it, and what can be derived for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from sifrc.cli.options import SpecFile

if TYPE_CHECKING:
    from sifrc.model import Constraint, Model
    from sifrc.spec.types import FunctionSpec

__all__ = ["check"]


def check(spec: SpecFile) -> None:
    """Validate a spec and say what is in it and what can be derived for it."""
    from sifrc import api
    from sifrc.cli.abilities import HEADERS, find_abilities
    from sifrc.cli.output import plural, show_table, working

    with working("checking"):
        checked = api.read_spec(spec)

        from sifrc.compiler import architecture
        from sifrc.model import build_model

        model = build_model(checked)
        states = [_state_row(model, constraint) for constraint in model.constraints]
        abilities = find_abilities(model)
    typer.echo(f"{checked.name}: {architecture(checked)}")
    typer.echo()
    show_table(("state", "layers", "reads", "size", "function", "parameters", "λ"), states)
    parameters = sum(_count(constraint) for constraint in model.constraints if _owns(model, constraint))
    typer.echo()
    typer.echo(
        f"{plural(len(checked.layers), 'layer')}, {plural(model.depth, 'state')}, "
        f"{plural(parameters, 'parameter')}, {checked.dtype}, targets are {checked.loss.targets}"
    )
    typer.echo()
    show_table(HEADERS, abilities.rows)
    typer.echo()
    if abilities.conditions:
        typer.echo("the Newton direction needs, of each sample (checked at run time):")
        for condition in abilities.conditions:
            typer.echo(f"  {condition}")
        typer.echo()
    if abilities.problem is not None:
        raise abilities.problem
    method = checked.method.name if checked.method is not None else "no method"
    typer.echo(f"{checked.name} is right; as requested it compiles for {checked.target.backend}, {method}")


def _state_row(model: Model, constraint: Constraint) -> tuple[str, ...]:
    names = {0: model.spec.input.name} | {c.index: c.name for c in model.constraints}
    layers = {layer.name: layer for layer in model.spec.layers}
    functions = [
        _function_text(f) for name in constraint.layers if (f := layers[name].activation) is not None
    ]
    if not _owns(model, constraint):
        parameters = "" if constraint.parameters is None else f"those of {constraint.parameters.layer}"
    else:
        parameters = str(_count(constraint))
    values = dict(model.lambda_values)
    regularized = {index for index, _ in model.regularized}
    factor = f"{values[constraint.index]:g}" if constraint.index in values else ""
    if constraint.index in regularized and not factor:
        factor = "spectral"
    return (
        f"x{constraint.index}",
        ", ".join(constraint.layers),
        " + ".join(names[source] for source in constraint.sources),
        str(constraint.axis.size),
        ", ".join(functions),
        parameters,
        factor,
    )


def _function_text(function: FunctionSpec) -> str:
    from sifrc.spec import format_expression

    values = ", ".join(f"{name}={value:g}" for name, value in function.parameters)
    text = format_expression(function.expression) if function.name == "custom" else function.name
    return f"{text} ({values})" if values else text


def _owns(model: Model, constraint: Constraint) -> bool:
    """Whether the parameters of a constraint are its own, not those of an earlier one."""
    if constraint.parameters is None:
        return False
    first = next(c for c in model.constraints if c.parameters is constraint.parameters)
    return first is constraint


def _count(constraint: Constraint) -> int:
    if constraint.parameters is None:
        return 0
    total = 0
    for _, symbol in constraint.parameters.members:
        entries = 1
        for axis in symbol.axes:
            entries *= axis.size or 0
        total += entries
    return total
