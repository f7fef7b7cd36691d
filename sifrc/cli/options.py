"""Options that several commands have, and how their text is read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from sifrc.errors import Location

__all__ = [
    "Backend",
    "GivenOptions",
    "MethodName",
    "Options",
    "SpecFile",
    "Summaries",
    "read_levels",
    "read_list",
    "read_options",
    "read_value",
]

SpecFile: TypeAlias = Annotated[
    Path, typer.Argument(metavar="SPEC", help="Spec file (YAML).", show_default=False)
]
Backend: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--backend",
        metavar="NAME",
        help="torch, numba, cuda, or package.module:attribute. Default: the spec's.",
    ),
]
MethodName: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--method",
        metavar="NAME",
        help="esn, mk, ea_cg, grouped_newton, or none for operators alone. Default: the spec's.",
    ),
]
Options: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--option",
        metavar="KEY=VALUE",
        help="Option of the method, or of the backend as backend.KEY=VALUE. May be repeated.",
    ),
]

Summaries: TypeAlias = Annotated[
    bool | None,
    typer.Option(
        "--summaries/--no-summaries",
        help="With summaries along a direction. Default: where the method or the operators ask for them.",
    ),
]

_BACKEND_PREFIX = "backend."

Value: TypeAlias = bool | int | float | str


@dataclass(frozen=True)
class GivenOptions:
    """Options of the command line.

    Args:
        method: those of the method.
        backend: those of the backend.
        locations: the place of each for errors, those of the backend under ``backend.<name>``.
    """

    method: Mapping[str, Value]
    backend: Mapping[str, Value]
    locations: Mapping[str, Location] = field(repr=False)


def read_options(given: Sequence[str] | None) -> GivenOptions:
    """Options of the method and of the backend from ``KEY=VALUE`` texts.

    Raises:
        typer.BadParameter: a text of another form, or a key given twice.

    Example:
        >>> read_options(["variant=exact", "learning_rate=1e-2", "backend.check_forward=false"])
        GivenOptions(method={'variant': 'exact', 'learning_rate': 0.01}, backend={'check_forward': False})
    """
    method: dict[str, Value] = {}
    backend: dict[str, Value] = {}
    locations: dict[str, Location] = {}
    for text in given or ():
        key, separator, value = text.partition("=")
        name = key.strip().removeprefix(_BACKEND_PREFIX)
        if not separator or not name.isidentifier():
            raise typer.BadParameter(f"'{text}' is not of the form KEY=VALUE, e.g. learning_rate=0.01")
        chosen = backend if key.strip().startswith(_BACKEND_PREFIX) else method
        if name in chosen:
            raise typer.BadParameter(f"'{key}' is given twice")
        chosen[name] = read_value(value.strip())
        line = f"--option {text}"
        start = len(line) - len(text) + 1
        place = Location("command line", 1, start, start + len(text), line)
        locations[_BACKEND_PREFIX + name if chosen is backend else name] = place
    return GivenOptions(method, backend, locations)


def read_value(text: str) -> Value:
    """A value as YAML would read it: true or false, a whole number, a number, or a word.

    Example:
        >>> read_value("true"), read_value("3"), read_value("1e-3"), read_value("exact")
        (True, 3, 0.001, 'exact')
    """
    if text in ("true", "false"):
        return text == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def read_list(text: str | None) -> tuple[str, ...] | None:
    """Names separated by commas; None stays None, and an empty text gives no names.

    Example:
        >>> read_list("loss, gradient"), read_list(""), read_list(None)
        (('loss', 'gradient'), (), None)
    """
    if text is None:
        return None
    return tuple(name.strip() for name in text.split(",") if name.strip())


def read_levels(text: str) -> tuple[int, ...]:
    """Levels of verification, separated by commas.

    Raises:
        typer.BadParameter: anything but 1, 2 and 3.

    Example:
        >>> read_levels("3,1")
        (1, 3)
    """
    names = read_list(text) or ()
    if not names or any(name not in ("1", "2", "3") for name in names):
        raise typer.BadParameter(f"'{text}' is not a list of levels; accepted: 1, 2, 3, separated by commas")
    return tuple(sorted({int(name) for name in names}))
