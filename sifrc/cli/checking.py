"""``sifrc check``: is a spec right, what is in it, and what can be derived for it."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

import typer

from sifrc.cli.options import SpecFile

if TYPE_CHECKING:
    from sifrc.model import Constraint, LayerParameters, Model
    from sifrc.spec.types import FunctionSpec

__all__ = ["check"]

_MOST_ROWS = 40
"""States beyond which those of repeated layers are not listed one by one."""


def check(spec: SpecFile) -> None:
    """Validate a spec and say what is in it and what can be derived for it."""
    from sifrc import api
    from sifrc.cli.abilities import HEADERS, find_abilities
    from sifrc.cli.output import plural, show_table, working

    with working("checking") as say:
        checked = api.read_spec(spec)

        from sifrc.compiler import architecture
        from sifrc.model import build_model

        model = build_model(checked)
        states = _state_rows(model)
        abilities = find_abilities(model, say)
    typer.echo(f"{checked.name}: {architecture(checked)}")
    typer.echo()
    show_table(("state", "layers", "reads", "size", "function", "parameters", "λ"), states)
    parameters = sum(_count(owned) for owned in model.parameters)
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


def _state_rows(model: Model) -> list[tuple[str, ...]]:
    """A row for each state; one for many that look alike in a deep network, with their number."""
    from sifrc.ir.traverse import inputs_of
    from sifrc.spec.condense import condense
    from sifrc.spec.words import size_text

    names = {0: model.spec.input.name} | {c.index: c.name for c in model.constraints}
    others = {symbol: source.name for symbol, source in zip(model.others, model.spec.others, strict=True)}
    layers = {layer.name: layer for layer in model.spec.layers}
    values, regularized = dict(model.lambda_values), {index for index, _ in model.regularized}
    deep = model.depth > _MOST_ROWS
    shown = condense(model.spec).alike if deep else dict.fromkeys(layers, ())
    rows: list[tuple[str, ...]] = []
    hidden = 0

    def more() -> None:
        if hidden:
            rows.append(("…", f"{hidden:,} more like these", *("",) * 5))

    for constraint in model.constraints:
        if constraint.layers[0] not in shown:
            hidden += 1
            continue
        more()
        hidden = 0
        functions = [
            _function_text(f) for name in constraint.layers if (f := layers[name].activation) is not None
        ]
        factor = f"{values[constraint.index]:g}" if constraint.index in values else ""
        if constraint.index in regularized and not factor:
            factor = "spectral"
        rows.append(
            (
                f"x{constraint.index}",
                ", ".join(constraint.layers),
                " + ".join(
                    [*(names[source] for source in constraint.sources)]
                    + [name for symbol, name in others.items() if symbol in inputs_of(constraint.value)]
                ),
                size_text(tuple(axis.entries for axis in constraint.axes)),
                ", ".join(functions),
                _parameters_text(constraint),
                factor,
            )
        )
    return rows


def _parameters_text(constraint: Constraint) -> str:
    """Their number, or whose they are."""
    owned = constraint.parameters
    if owned is None:
        return ""
    return str(_count(owned)) if owned.layer in constraint.layers else f"those of {owned.layer}"


def _function_text(function: FunctionSpec) -> str:
    from sifrc.spec import format_expression

    values = ", ".join(f"{name}={value:g}" for name, value in function.parameters)
    text = format_expression(function.expression) if function.name == "custom" else function.name
    return f"{text} ({values})" if values else text


def _count(owned: LayerParameters) -> int:
    return sum(prod(axis.entries for axis in symbol.axes) for symbol in owned.symbols)
