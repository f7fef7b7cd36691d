"""What commands print: tables, notes, and a sign of life during long work."""

from __future__ import annotations

import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TextIO

import typer

__all__ = ["note", "plain_warnings", "plural", "show_table", "table_text", "working"]

_PATIENCE = 2.0  # seconds before a bar shows


def show_table(headers: Sequence[str], rows: Sequence[Sequence[str]], title: str = "") -> None:
    """Print a table on standard output: with lines and wrapped on a terminal, plain elsewhere.

    Args:
        headers: column titles.
        rows: cells, as many as titles.
        title: printed above.
    """
    if not sys.stdout.isatty():
        typer.echo((f"{title}\n" if title else "") + table_text(headers, rows))
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, title=title or None, title_justify="left", title_style="bold")
    for column, header in enumerate(headers):
        table.add_column(header, justify="right" if _is_numeric(rows, column) else "left", overflow="fold")
    for row in rows:
        # Cells are text, not markup: a name may have brackets.
        table.add_row(*(Text(cell) for cell in row))
    Console().print(table)


def table_text(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table as plain text, columns two spaces apart, numbers to the right.

    Example:
        >>> print(table_text(("layer", "size"), (("fc1", "48"), ("fc2", "8"))))
        layer  size
        fc1      48
        fc2       8
    """
    numeric = [_is_numeric(rows, column) for column in range(len(headers))]
    lines = [headers, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(headers))]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(line, widths, numeric, strict=True)
        ).rstrip()
        for line in lines
    )


def _is_numeric(rows: Sequence[Sequence[str]], column: int) -> bool:
    cells = [row[column] for row in rows if row[column]]
    return bool(cells) and all(cell.lstrip("-")[:1].isdigit() for cell in cells)


def note(text: str) -> None:
    """Print a line on the error stream, so that standard output has results only."""
    typer.echo(text, err=True)


def plural(count: int, thing: str) -> str:
    """A number with its noun.

    Example:
        >>> plural(1, "layer"), plural(3610, "parameter")
        ('1 layer', '3,610 parameters')
    """
    return f"{count:,} {thing}{'' if count == 1 else 's'}"


@contextmanager
def plain_warnings() -> Iterator[None]:
    """Print warnings in the block as one line each, without the place in the code that raised them."""

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        note(f"warning: {message}")

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield


@contextmanager
def working(text: str) -> Iterator[Callable[[str, float | None], None]]:
    """Show a bar on the error stream if the work in the block takes long and somebody looks.

    Args:
        text: what is being done.

    Yields:
        A function of what is being done now and the share of the work that is done, None where nobody knows:
        the bar then only moves.
    """
    with plain_warnings():
        if not sys.stderr.isatty():
            yield lambda changed, share: None
            return
        from rich.console import Console
        from rich.markup import escape
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        columns = (TextColumn("{task.description}"), BarColumn(bar_width=24), TimeElapsedColumn())
        bar = Progress(*columns, console=Console(stderr=True), transient=True)
        task = bar.add_task(escape(text), total=None)
        timer = threading.Timer(_PATIENCE, bar.start)
        timer.daemon = True
        timer.start()

        def show(changed: str, share: float | None) -> None:
            total = None if share is None else 1.0
            bar.update(task, description=escape(changed), completed=share or 0.0, total=total)

        try:
            yield show
        finally:
            timer.cancel()
            timer.join()
            bar.stop()
