"""``sifrc verify``: everything derived for a spec against independent oracles."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from sifrc.cli.options import Backend, SpecFile, Summaries, read_levels

if TYPE_CHECKING:
    from sifrc.verify import Row

__all__ = ["verify"]


def verify(
    spec: SpecFile,
    levels: Annotated[
        str,
        typer.Option("--levels", metavar="1,2,3", help="1 symbolic, 2 many digits, 3 generated code."),
    ] = "1,2,3",
    digits: Annotated[int, typer.Option("--digits", min=20, max=1000, help="Precision of level 2.")] = 50,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of the random points.")] = 0,
    backend: Backend = None,
    summaries: Summaries = None,
) -> None:
    """Check everything derived for a spec; exit code 1 if anything failed or was not checked."""
    wanted = read_levels(levels)

    from sifrc import api
    from sifrc.cli.output import note, show_table, working

    with working("verifying") as say:

        def found(row: Row) -> None:
            say(f"verifying: level {row.level}, {row.quantity} {row.result}", None)

        report = api.verify(
            spec,
            levels=wanted,
            digits=digits,
            seed=seed,
            backend=backend,
            summaries=summaries,
            progress=found,
        )
    show_table(report.headers, report.table())
    missing = [f"{quantity} at level {level}" for quantity, level in report.missing]
    if report.passed:
        typer.echo(f"{report.name}: passed")
        return
    note(f"{report.name}: NOT passed: {', '.join(missing or [row.quantity for row in report.failures])}")
    raise typer.Exit(1)
