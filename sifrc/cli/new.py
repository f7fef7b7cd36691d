"""``sifrc new``: a spec to start from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Annotated

import typer

__all__ = ["new", "starter_for"]


@dataclass(frozen=True)
class _Shape:
    """What a data set asks of a network."""

    inputs: int
    outputs: int
    classes: bool
    remark: str


_KNOWN: Mapping[str, _Shape] = MappingProxyType(
    {
        "digits": _Shape(64, 10, True, "8 x 8 pixels"),
        "mnist": _Shape(784, 10, True, "28 x 28 pixels"),
        "fashion_mnist": _Shape(784, 10, True, "28 x 28 pixels"),
        "cifar10": _Shape(3072, 10, True, "32 x 32 pixels, red, green, blue"),
        "curves": _Shape(784, 784, False, "28 x 28 pixels; the targets are the inputs"),
    }
)


def new(
    name: Annotated[str, typer.Argument(help="Name of the spec, an identifier.", show_default=False)],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="FILE", help="File to write. Default: NAME.yaml")
    ] = None,
    data: Annotated[
        str,
        typer.Option(
            "--data", help="digits, mnist, fashion_mnist, cifar10, curves, or the path of an .npz archive."
        ),
    ] = "digits",
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
) -> None:
    """Write a commented spec to start from."""
    from sifrc.cli.files import write_file
    from sifrc.errors import SifrcError

    text = starter_for(name, data)
    path = output or Path(f"{name}.yaml")
    if path.exists() and not force:
        raise SifrcError(f"{path} is there already", hint="another name with -o, or --force to replace it")
    write_file(path, text)
    typer.echo(f"wrote {path}; next: sifrc check {path}")


def starter_for(name: str, data: str) -> str:
    """The starter spec with the sizes and the loss that a data set asks for.

    Args:
        name: of the spec.
        data: name of a data set, or the path of an archive.

    Raises:
        SpecError: the name cannot be used.
        DataError: no such data.

    Example:
        >>> starter_for("mine", "mnist").splitlines()[5]
        '  input: {name: image, size: 784}      # 28 x 28 pixels'
    """
    from sifrc.spec import starter_spec

    text = starter_spec(name)
    shape = _KNOWN[data] if data in _KNOWN else _shape_of_file(data)
    changes = [
        ("size: 64}      # 8 x 8 pixels", f"size: {shape.inputs}}}      # {shape.remark}"),
        ("units: 10}", f"units: {shape.outputs}}}"),
        ("data: digits,", f"data: {_scalar(data)},"),
    ]
    if not shape.classes:
        changes.append(("loss: {function: cross_entropy}", "loss: {function: squared_error}"))
    for old, replacement in changes:
        if text.count(old) != 1:
            raise AssertionError(f"the starter spec has no single '{old}'")
        text = text.replace(old, replacement)
    return text


def _scalar(text: str) -> str:
    """Text as YAML in a flow mapping; a plain word stays one."""
    if text in _KNOWN:
        return text
    import json

    return json.dumps(text, ensure_ascii=False)


def _shape_of_file(data: str) -> _Shape:
    from sifrc.data import load_dataset

    dataset = load_dataset(data)
    remark = "entries of a sample"
    return _Shape(dataset.input_size, dataset.target_size, dataset.target_kind == "classes", remark)
