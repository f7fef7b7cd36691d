"""``sifrc equations``: what is derived, to read."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sifrc.cli.options import SpecFile, Summaries

__all__ = ["equations"]

_WIDTH = 110


def equations(
    spec: SpecFile,
    latex: Annotated[bool, typer.Option("--latex", help="As LaTeX instead of text.")] = False,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="FILE", help="File to write instead of the terminal."),
    ] = None,
    newton: Annotated[
        bool | None,
        typer.Option("--newton/--no-newton", help="With the Newton direction. Default: where it exists."),
    ] = None,
    summaries: Summaries = None,
) -> None:
    """Print the derived equations, with the papers' equation numbers."""
    import shutil
    import sys

    from sifrc import api
    from sifrc.cli.files import write_file
    from sifrc.cli.output import working

    with working("deriving"):
        sheet = api.equations(spec, newton=newton, summaries=summaries)
        width = _WIDTH
        if output is None and sys.stdout.isatty():
            width = max(60, min(_WIDTH, shutil.get_terminal_size().columns))
        text = sheet.latex() if latex else sheet.text(width)
    if output is None:
        typer.echo(text.rstrip("\n"))
    else:
        write_file(output, text.rstrip("\n") + "\n")
        typer.echo(f"wrote {output}")
