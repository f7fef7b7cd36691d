"""``sifrc import``: a torch module to a spec."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

__all__ = ["import_", "made_by"]

_FACTORY = "What returns a torch module, called without arguments; or (module, example batch, loss)."
_SIZES = "Sizes of an input without the samples, as 3,32,32, or 64:classes for whole numbers; once an input."


def import_(
    source: Annotated[str, typer.Argument(metavar="MODULE:FACTORY", help=_FACTORY, show_default=False)],
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="FILE", help="File to write. Default: standard output."),
    ] = None,
    inputs: Annotated[list[str] | None, typer.Option("--input", metavar="SIZES", help=_SIZES)] = None,
    loss: Annotated[
        str | None, typer.Option("--loss", help="A loss of a spec. Default: the factory's, or cross_entropy.")
    ] = None,
    result: Annotated[
        str | None,
        typer.Option(
            "--result", metavar="NAME|N", help="Of several that it returns, the one that the loss reads."
        ),
    ] = None,
    evaluation: Annotated[
        bool, typer.Option("--evaluation", help="Put the module in evaluation mode first.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
) -> None:
    """Write the spec of a torch module."""
    from sifrc.api.importing import imported
    from sifrc.cli.files import write_file
    from sifrc.errors import ModuleImportError, SifrcError
    from sifrc.importing.text import spec_text

    if output is not None and output.exists() and not force:
        raise SifrcError(f"{output} is there already", hint="another name with -o, or --force to replace it")
    made = made_by(source)
    module, example, own = (*made, None, None)[:3] if isinstance(made, tuple) else (made, None, None)
    if inputs:
        example = tuple(_example(each) for each in inputs)
    if example is None:
        raise ModuleImportError(
            f"{source} returns a module without an example batch",
            hint="--input 3,32,32, or return (module, batch)",
        )
    if evaluation and hasattr(module, "eval"):
        module = module.eval()
    chosen = int(result) if result is not None and result.isdecimal() else result
    data, _ = imported(module, example, loss or own or "cross_entropy", output=chosen)
    text = spec_text(data, f"Imported from {source}.")
    if output is None:
        typer.echo(text, nl=False)
        return
    write_file(output, text)
    typer.echo(f"wrote {output}; next: sifrc check {output}")


def made_by(source: str) -> Any:
    """What the factory returns; only the user's own module is run."""
    import sys
    from importlib import import_module

    from sifrc.errors import ModuleImportError
    from sifrc.extras import optional

    optional("torch", "importing a module")
    name, colon, attribute = source.partition(":")
    if not colon or not name or not attribute:
        raise ModuleImportError(f"'{source}' is no MODULE:FACTORY", hint="e.g. mymodels.resnet:make")
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        found: Any = import_module(name)
        for part in attribute.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        hint = "a module on Python's path, or in this folder"
        raise ModuleImportError(f"cannot load {source}: {error}", hint=hint) from None
    if not callable(found):
        raise ModuleImportError(f"{source} cannot be called", hint="a function or a class without arguments")
    try:
        return found()
    except Exception as error:
        raise ModuleImportError(f"{source}() raised {type(error).__name__}: {error}") from error


def _example(text: str) -> Any:
    """Two samples of an input with some sizes."""
    import torch

    from sifrc.errors import ModuleImportError

    sizes, _, kind = text.partition(":")
    try:
        shape = [int(size) for size in sizes.split(",") if size]
        if kind not in ("", "classes") or any(size < 1 for size in shape):
            raise ValueError
    except ValueError:
        raise ModuleImportError(f"'{text}' is no list of sizes", hint="e.g. 3,32,32, or 64:classes") from None
    if kind:
        return torch.zeros(2, *shape, dtype=torch.int64)
    return torch.randn(2, *shape, generator=torch.Generator().manual_seed(0))
