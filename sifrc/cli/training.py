"""``sifrc train``: compile, load data, train, and say where the results are."""

from __future__ import annotations

import math
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sifrc.cli.options import Backend, MethodName, Options, SpecFile, read_options

if TYPE_CHECKING:
    from sifrc.training import History

__all__ = ["train"]

_ROWS = 12  # of the table; the file has all epochs
_FILES = ("metrics.csv", "training.png", "summaries.npz", "interactions.png", "rates.png", "checkpoint.npz")


def train(
    spec: SpecFile,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o", "--output", metavar="DIR", help="Folder of the run. Default: runs/<name of the spec>"
        ),
    ] = None,
    epochs: Annotated[int | None, typer.Option("--epochs", min=1, help="Default: the spec's.")] = None,
    batch: Annotated[
        int | None, typer.Option("--batch", min=1, help="Samples in a step. Default: the spec's.")
    ] = None,
    curvature_batch: Annotated[
        int | None,
        typer.Option(
            "--curvature-batch",
            min=0,
            help="Samples of a curvature batch, 0 for the batch of the step. Default: the spec's.",
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            "--data",
            metavar="NAME|PATH",
            help="A data set, an .npz archive, or the folder with the files of the spec's data set.",
        ),
    ] = None,
    backend: Backend = None,
    method: MethodName = None,
    option: Options = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the checkpoint in the folder.")
    ] = False,
    seed: Annotated[
        int | None,
        typer.Option("--seed", min=0, help="Of the start and the order of samples. Default: the spec's."),
    ] = None,
    checkpoint_every: Annotated[
        str,
        typer.Option(
            "--checkpoint-every",
            metavar="SECONDS|never",
            help="Time between checkpoints, 0 for one after each chunk of an epoch. One is always made at "
            "the start, and where the run ends, however it ends.",
        ),
    ] = "30",
    start: Annotated[
        Path | None,
        typer.Option(
            "--start",
            metavar="CHECKPOINT",
            help="Begin with the parameters in a checkpoint, or that of a folder, e.g. that of another run.",
        ),
    ] = None,
    fallback: Annotated[
        bool, typer.Option("--fallback", help="Take digits where MNIST or Fashion-MNIST is missing.")
    ] = False,
) -> None:
    """Train on data: metrics.csv, training.png and checkpoint.npz in the folder of the run.

    With the method grouped_newton also summaries.npz, interactions.png and rates.png.
    """
    given = read_options(option)
    seconds_between = _seconds(checkpoint_every)
    if start is not None and resume:
        raise typer.BadParameter("not together with --resume, which has parameters", param_hint="'--start'")

    from sifrc import api
    from sifrc.cli.output import note, plain_warnings, plural, show_table, working
    from sifrc.errors import TrainingError

    with working("loading data"):
        chosen = api.choose(
            spec, backend, method, given.method, given.backend, option_locations=given.locations
        )
        fitted, dataset = api.load_data(chosen, data, fallback=fallback)
    note(dataset.describe())
    if fitted.input.shape != chosen.input.shape:
        note(f"note: the network input has {fitted.input.size} entries in place of {chosen.input.size}")
    with working("compiling"):
        module = api.compile(fitted, operators=())
    folder = output or Path("runs") / fitted.name
    try:
        with plain_warnings():
            history = api.train_module(
                module,
                fitted,
                dataset,
                directory=folder,
                epochs=epochs,
                batch=batch,
                seed=seed,
                resume=resume,
                curvature_batch=curvature_batch,
                checkpoint_every=seconds_between,
                start=start,
            )
    except TrainingError as error:
        _show_unexpected(error.__cause__)
        raise
    headers, rows = _metrics(history)
    show_table(headers, rows)
    seconds = history.last.seconds
    typer.echo(f"{plural(history.last.epoch, 'epoch')} in {seconds:.2f} s of training steps")
    for name in _FILES:
        if (folder / name).is_file():
            typer.echo(f"wrote {folder / name}")


def _seconds(text: str) -> float:
    """Seconds between checkpoints from an option."""
    if text == "never":
        return math.inf
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < math.inf:
        raise typer.BadParameter(
            f"'{text}' is no time: a number of seconds of at least 0, or never",
            param_hint="'--checkpoint-every'",
        )
    return value


def _show_unexpected(cause: BaseException | None) -> None:
    """The way to what stopped a run, if it is none of the things that happen to runs: somebody's bug."""
    from sifrc.cli.output import note
    from sifrc.errors import SifrcError

    usual = (SifrcError, ArithmeticError, MemoryError, OSError, ValueError)
    if cause is not None and not isinstance(cause, usual):
        note("".join(traceback.format_exception(cause)).rstrip())


def _metrics(history: History) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Titles and rows: all epochs, or some of a long run, the first and the last among them."""
    accuracy = history.has_accuracy
    headers: tuple[str, ...] = ("epoch", "seconds", "objective", "train loss", "test loss")
    if accuracy:
        headers += ("train accuracy", "test accuracy")
    count = len(history)
    spread = {round(i * (count - 1) / (_ROWS - 1)) for i in range(_ROWS)}
    rows: list[tuple[str, ...]] = []
    for row in (history.rows[index] for index in (sorted(spread) if count > _ROWS else range(count))):
        cells: tuple[str, ...] = (str(row.epoch), f"{row.seconds:.2f}")
        cells += tuple(_number(v) for v in (row.train_objective, row.train_loss, row.test_loss))
        if accuracy:
            cells += tuple(f"{100 * v:.2f} %" for v in (row.train_accuracy, row.test_accuracy))
        rows.append(cells)
    return headers, rows


def _number(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.5g}"
