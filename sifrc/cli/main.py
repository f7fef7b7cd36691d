"""The command ``sifrc``: its list of commands, and what becomes of errors."""

from __future__ import annotations

import gc
import signal
import sys
import traceback
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from sifrc.cli import analysis, checking, compiling, equations, importing, new, training, verification
from sifrc.errors import SifrcError
from sifrc.version import __version__

__all__ = ["app", "main"]

_SIGNALLED = 128  # and the number of the signal, as shells have it


class _Commands(TyperGroup):
    """Turns errors that a user can cause into their diagnostics and exit code 1."""

    def invoke(self, ctx: Any) -> Any:
        """Run a command."""
        try:
            return super().invoke(ctx)
        except SifrcError as error:
            typer.echo(str(error), err=True)
            raise typer.Exit(1) from None
        except KeyboardInterrupt as error:
            # Training says in its own words how far it is.
            typer.echo(str(error) or "interrupted", err=True)
            raise typer.Exit(_SIGNALLED + getattr(error, "number", signal.SIGINT)) from None


app = typer.Typer(
    name="sifrc",
    cls=_Commands,
    help="Compile a network spec into a module of curvature operators and optimizer updates.",
    epilog="Example: sifrc new digits && sifrc check digits.yaml && sifrc train digits.yaml",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"sifrc {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


app.command("new", epilog="Example: sifrc new digits --data digits -o nets/digits.yaml")(new.new)
app.command("import", epilog="Example: sifrc import mymodels:make -o net.yaml --input 3,32,32")(
    importing.import_
)
app.command("check", epilog="Example: sifrc check nets/digits.yaml")(checking.check)
app.command("equations", epilog="Example: sifrc equations nets/digits.yaml --latex -o digits.tex")(
    equations.equations
)
app.command(
    "compile",
    epilog="Example: sifrc compile nets/digits.yaml -o out --backend torch --operators gradient,linearize",
)(compiling.compile)
app.command("verify", epilog="Example: sifrc verify nets/digits.yaml --levels 1,2 --digits 50")(
    verification.verify
)
app.command("analyze", epilog="Example: sifrc analyze digits.yaml --checkpoint runs/digits -o curvature")(
    analysis.analyze
)
app.command("train", epilog="Example: sifrc train nets/digits.yaml --epochs 5 --option learning_rate=0.02")(
    training.train
)


def main() -> None:
    """Run the command line of this process and exit."""
    # Imports and derivations make many objects that stay: collecting cycles all the time costs a fifth.
    gc.set_threshold(1_000_000, 50, 50)
    try:
        app(prog_name="sifrc")
    except KeyboardInterrupt:
        typer.echo("interrupted", err=True)
        sys.exit(_SIGNALLED + signal.SIGINT)
    except Exception:
        traceback.print_exc()
        typer.echo(
            f"\nThis is a bug in sifrc {__version__}, not a mistake of yours. "
            "Please report it with the lines above and your spec.",
            err=True,
        )
        sys.exit(70)
    finally:
        gc.freeze()  # nothing is left to collect at exit but what the system takes back anyway
