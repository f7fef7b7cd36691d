"""YAML text to plain data with positions; only the part of YAML that is data.

One document, no anchors, aliases or merge keys, no tags but those of the core schema, no key twice.
Plain words are read by the core schema of YAML 1.2: ``1e-3`` is a number; ``yes`` and ``off`` are text.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import yaml

from sifrc.errors import Location, SpecError
from sifrc.spec.positions import Path, Positions
from sifrc.spec.suggest import shortened

__all__ = ["MAX_BYTES", "MAX_ITEMS", "MAX_NESTING", "Document", "read_document"]

MAX_BYTES = 1_000_000
MAX_NESTING = 20
MAX_ITEMS = 200_000
MAX_SHOWN_LINE = 4000

Scalar: TypeAlias = str | int | float | bool | None

_TAG = "tag:yaml.org,2002:"
_LINES = re.compile("\r\n|[\n\r\x85\u2028\u2029]")
_INT = re.compile(r"[-+]?[0-9]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_SPECIAL = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_CORE: dict[str, tuple[type, ...]] = {
    "str": (str,),
    "int": (int,),
    "float": (float, int),
    "bool": (bool,),
    "null": (type(None),),
}


@dataclass(frozen=True)
class Document:
    """A spec as plain dicts, lists and scalars, and where everything stands."""

    data: Any
    positions: Positions


class _Refused(Exception):
    """Something YAML allows and a spec does not, at a mark."""

    def __init__(self, message: str, hint: str, event: yaml.Event) -> None:
        super().__init__(message)
        self.message, self.hint, self.event = message, hint, event


class _Composer(yaml.SafeLoader):
    """PyYAML's safe loader as far as nodes, refusing what is not plain data on the way."""

    # Words are read by the core schema below, not by YAML 1.1's resolvers.
    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012
    nesting = 0
    count = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent):
            raise _Refused("aliases (*name) are not accepted", "write the value itself", event)
        if event.anchor is not None:
            raise _Refused("anchors (&name) are not accepted", "write the value where it is needed", event)
        tag = event.tag
        core = {f"{_TAG}{name}" for name in (*_CORE, "map", "seq")}
        if tag not in (None, "!") and tag not in core:
            raise _Refused(
                f"tag {shortened(tag)!r} is not accepted", "a spec is plain data: remove the tag", event
            )
        if self.nesting >= MAX_NESTING:
            raise _Refused("the document is nested too deeply", f"at most {MAX_NESTING} levels", event)
        self.count += 1
        if self.count > MAX_ITEMS:
            raise _Refused("the document has too many items", f"at most {MAX_ITEMS}", event)
        self.nesting += 1
        node: yaml.Node | None = super().compose_node(parent, index)
        self.nesting -= 1
        if isinstance(node, yaml.ScalarNode) and tag is None:
            # Tells `!!str 12` and "12" (text) from the plain word 12.
            node.tag = "plain" if node.style is None else f"{_TAG}str"
        return node


def read_document(text: str, file: str = "<spec>") -> Document:
    """Read YAML text into plain data with positions.

    Args:
        text: the whole document.
        file: its name, for messages.

    Raises:
        SpecError: not YAML, or YAML that is more than plain data, or too large.

    Example:
        >>> document = read_document("network:\\n  input: {size: 64}")
        >>> document.data["network"]["input"]["size"]
        64
        >>> document.positions.value(("network", "input", "size")).column
        17
    """
    if len(text) > MAX_BYTES or len(text.encode("utf-8", "replace")) > MAX_BYTES:
        raise SpecError("the spec is too large", hint=f"at most {MAX_BYTES} bytes")
    reader = _Reader(file, _LINES.split(text))
    root = _compose(text, reader)
    if root is None:
        raise SpecError(
            "the spec is empty",
            location=Location(file, 1, 1, 2, reader.lines[0]),
            hint="start with 'sifrc: 1'; `sifrc new` writes a spec to start from",
        )
    data = reader.read(root, ())
    return Document(data, Positions(file, reader.values, reader.keys))


def _compose(text: str, reader: _Reader) -> yaml.Node | None:
    """Run PyYAML and turn all its ways to fail into a SpecError with a place."""
    try:
        loader = _Composer(text)
        try:
            node: yaml.Node | None = loader.get_single_node()
        finally:
            loader.dispose()
    except _Refused as error:
        location = reader.span(error.event.start_mark, error.event.end_mark)
        raise SpecError(error.message, location=location, hint=error.hint) from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = reader.span(mark, mark) if mark is not None else None
        problem = error.problem or error.context or "not YAML"
        if problem == "but found another document":
            raise SpecError("a spec is one document", location=place, hint="remove the '---' line") from None
        raise SpecError(
            f"this is not YAML: {shortened(problem, 100)}", location=place, hint=_syntax_hint(problem)
        ) from None
    except yaml.reader.ReaderError as error:
        before = _LINES.split(text[: error.position])
        line, column = len(before), len(before[-1]) + 1
        raise SpecError(
            "this is not YAML: a character that text files do not have",
            location=Location(reader.file, line, column, column + 1, shortened(reader.lines[line - 1], 200)),
            hint="save the file as plain UTF-8 text",
        ) from None
    except (ValueError, OverflowError, RecursionError) as error:
        raise SpecError(f"this is not YAML: {shortened(str(error), 100)}") from None
    return node


def _syntax_hint(problem: str) -> str:
    if "mapping values are not allowed" in problem:
        return "put text that contains ': ' in quotes, and check the indentation"
    if "\\t" in problem:
        return "indent with spaces, not with tabs"
    if "expected ',' or" in problem:
        return "check that brackets, braces and quotes are closed, and text with commas is quoted"
    return "check the indentation, the colons and the quotes"


class _Reader:
    """Walks composed nodes, collecting data and places."""

    def __init__(self, file: str, lines: list[str]) -> None:
        self.file = file
        self.lines = lines
        self.values: dict[Path, Location] = {}
        self.keys: dict[Path, Location] = {}

    def span(self, start: Any, end: Any) -> Location:
        """Place from one mark to another, cut at the end of the first line."""
        text = self.lines[start.line] if start.line < len(self.lines) else ""
        last = end.column if end.line == start.line else len(text.rstrip())
        column = start.column + 1
        # A line beyond reading is not shown.
        shown = text if len(text) <= MAX_SHOWN_LINE else ""
        return Location(self.file, start.line + 1, column, max(column + 1, last + 1), shown)

    def read(self, node: yaml.Node, path: Path) -> Any:
        """Data of a node; its place is remembered under ``path``."""
        location = self.span(node.start_mark, node.end_mark)
        if isinstance(node, yaml.MappingNode):
            self.values[path] = location
            return self.mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            self.values[path] = location
            return [self.read(item, (*path, index)) for index, item in enumerate(node.value)]
        assert isinstance(node, yaml.ScalarNode)
        quoted = node.style in ("'", '"') and node.start_mark.line == node.end_mark.line
        if quoted and location.end_column - location.column > 2:
            location = replace(location, column=location.column + 1, end_column=location.end_column - 1)
        self.values[path] = location
        return self.scalar(node, location)

    def mapping(self, node: yaml.MappingNode, path: Path) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            place = self.span(key_node.start_mark, key_node.end_mark)
            key = self.scalar(key_node, place) if isinstance(key_node, yaml.ScalarNode) else None
            if not isinstance(key, str) or key == "<<":
                raise SpecError(
                    "this is not accepted as a key",
                    location=place,
                    hint="keys are words; put quotes around a key that reads as a number, true or null",
                )
            own = (*path, key)
            if key in result:
                first = self.keys[own]
                raise SpecError(
                    f"duplicate key '{shortened(key)}'",
                    location=place,
                    hint=f"the first one is in line {first.line}, column {first.column}; keep one of them",
                )
            self.keys[own] = place
            result[key] = self.read(value_node, own)
        return result

    def scalar(self, node: yaml.Node, location: Location) -> Scalar:
        text: str = node.value
        if node.tag in (f"{_TAG}str", "!"):
            return text
        value = _plain_value(text, lambda message: SpecError(message, location=location))
        kind = node.tag.removeprefix(_TAG)
        if node.tag != "plain" and not isinstance(value, _CORE.get(kind, ())):
            raise SpecError(f"{shortened(text)!r} is no {kind}", location=location, hint="remove the tag")
        return value


def _plain_value(text: str, fail: Callable[[str], SpecError]) -> Scalar:
    """Read a plain word by the core schema of YAML 1.2."""
    if text in ("", "~", "null", "Null", "NULL"):
        return None
    if text in ("true", "True", "TRUE"):
        return True
    if text in ("false", "False", "FALSE"):
        return False
    if _INT.fullmatch(text):
        if len(text) > 100:
            raise fail("the number has too many digits")
        return int(text)
    if _FLOAT.fullmatch(text):
        return float(text)
    if _SPECIAL.fullmatch(text):
        return float(text.replace(".", "", 1))
    return text
