"""``sifrc compile``: a spec to a file."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from sifrc.cli.options import Backend, MethodName, Options, SpecFile, read_list, read_options

__all__ = ["compile"]


def compile(
    spec: SpecFile,
    output: Annotated[
        Path,
        typer.Option(
            "-o", "--output", metavar="DIR", help="Folder to write the module to.", show_default=False
        ),
    ],
    backend: Backend = None,
    method: MethodName = None,
    operators: Annotated[
        str | None,
        typer.Option(
            "--operators", metavar="A,B", help="Operators, separated by commas. Default: the spec's."
        ),
    ] = None,
    curvature: Annotated[
        str | None,
        typer.Option(
            "--curvature",
            metavar="A,B",
            help="Kinds of curvature, presets or the spec's own, separated by commas. Default: the spec's.",
        ),
    ] = None,
    partition: Annotated[
        str | None,
        typer.Option(
            "--partition",
            metavar="WORD",
            help="Groups of the parameters, e.g. canonical, weights-biases or blocks-2. Default: the spec's.",
        ),
    ] = None,
    mode: Annotated[
        str | None,
        typer.Option(
            "--mode",
            metavar="WORD",
            help="training or evaluation, for layers that differ in it. Default: the spec's.",
        ),
    ] = None,
    option: Options = None,
) -> None:
    """Write DIR/<name>_<method>_<backend>.py, and nothing else."""
    from sifrc import api
    from sifrc.cli.files import write_file
    from sifrc.cli.output import plural, working

    given = read_options(option)
    begin = time.perf_counter()
    with working("compiling") as say:
        compiled = api.compile_whole(
            spec,
            backend,
            method,
            read_list(operators),
            method_options=given.method,
            backend_options=given.backend,
            curvature=read_list(curvature),
            partition=partition,
            mode=mode,
            option_locations=given.locations,
            progress=lambda stage, share: say(f"compiling: {stage}", share),
        )
        path = output / f"{compiled.name}.py"
        write_file(path, compiled.text)
    seconds = time.perf_counter() - begin
    typer.echo(f"wrote {path}: {plural(compiled.text.count(chr(10)), 'line')}, {seconds:.2f} s")
