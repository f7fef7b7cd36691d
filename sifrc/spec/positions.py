"""Places of the items of a spec: key paths to lines and columns, and errors that point there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TypeAlias

from sifrc.errors import Location, SpecError
from sifrc.spec.names import name_problem
from sifrc.spec.suggest import shortened

__all__ = ["Path", "Positions", "path_text"]

Path: TypeAlias = tuple[str | int, ...]
"""Keys and list indices from the top of a spec to an item."""


def path_text(path: Path) -> str:
    """How a path is written in messages, on one line: keys of Python objects may be any text.

    Example:
        >>> path_text(("network", "layers", 2, "units"))
        'network.layers[2].units'
        >>> path_text(("network", "a\\nb"))
        'network.a·b'
    """
    text = ""
    for item in path:
        if isinstance(item, int):
            text += f"[{item}]"
        else:
            text += ("." if text else "") + shortened(str(item))
    return text


@dataclass(frozen=True)
class Positions:
    """Where keys and values stand; empty for a spec given as Python objects.

    Args:
        file: name of the file.
        values: path of an item to the place of its value (text without its quotes).
        keys: path of an item to the place of its key.

    Example:
        >>> print(Positions("net.yaml").error(("network", "input", "size"), "must be positive"))
        error: network.input.size: must be positive
    """

    file: str
    values: Mapping[Path, Location] = field(default_factory=lambda: MappingProxyType({}))
    keys: Mapping[Path, Location] = field(default_factory=lambda: MappingProxyType({}))

    def value(self, path: Path) -> Location | None:
        """Place of the value at ``path``, or of the nearest item that contains it."""
        for length in range(len(path), -1, -1):
            found = self.values.get(path[:length])
            if found is not None:
                return found
        return None

    def key(self, path: Path) -> Location | None:
        """Place of the key at ``path``; of the value where there is no key."""
        return self.keys.get(path) or self.value(path)

    def expression(self, path: Path, text: str) -> Location:
        """Place of an expression's text; in Python objects the path stands for the file."""
        found = self.value(path)
        return found or Location(path_text(path) or self.file, 1, 1, len(text) + 1, text)

    def error(
        self,
        path: Path,
        message: str,
        *,
        hint: str | None = None,
        label: str | None = None,
        at_key: bool = False,
    ) -> SpecError:
        """Build the error for the item at ``path``; without positions the message names the path."""
        location = self.key(path) if at_key else self.value(path)
        if location is None and path:
            message = f"{path_text(path)}: {message}"
        return SpecError(message, location=location, hint=hint, label=label)

    def check_name(self, path: Path, name: str, *, at_key: bool = False) -> None:
        """Refuse what is no name at ``path``.

        Raises:
            SpecError: saying what would be accepted.
        """
        problem = name_problem(name)
        if problem is not None:
            raise self.error(path, problem[0], hint=problem[1], at_key=at_key)

    def places(self, paths: Mapping[str, Path]) -> Mapping[str, Location]:
        """Places of the values of some names, as far as the spec has a text."""
        found = {name: self.value(path) for name, path in paths.items()}
        return MappingProxyType({name: place for name, place in found.items() if place is not None})

    def mention(self, path: Path) -> str:
        """Words for a second place in a message, e.g. ``line 9, column 15``."""
        location = self.value(path)
        return path_text(path) if location is None else f"line {location.line}, column {location.column}"
