"""Errors of pydantic as sentences: what is wrong, where, and what would be accepted."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from sifrc.errors import SpecError
from sifrc.spec.curvature import CURVATURE_KINDS
from sifrc.spec.layers import KEYS_OF_TYPE
from sifrc.spec.positions import Path, Positions
from sifrc.spec.schema import SHAPES, TAGS, SpecShape
from sifrc.spec.suggest import did_you_mean, quoted_list, shortened

__all__ = ["describe", "validate_shape"]

_EXPECTED: Mapping[str, str] = MappingProxyType(
    {
        "string_type": "text",
        "int_type": "a whole number",
        "int_from_float": "a whole number",
        "float_type": "a number",
        "bool_type": "true or false",
        "list_type": "a list, e.g. [a, b]",
        "dict_type": "keys and values, e.g. {slope: 0.1}",
        "model_type": "keys and values, e.g. {key: value}",
    }
)
_ITEMS: Mapping[str | int, str] = MappingProxyType(
    {"layers": "layer", "inputs": "input", "curvature": "kind of curvature"}
)
_SIZES = ("size", "kernel", "stride", "dilation", "factor")
"""Keys with one number or several."""
_EXAMPLES: Mapping[str, str] = MappingProxyType(
    {
        "sifrc": "the format version: sifrc: 1",
        "name": "name: my_network",
        "network": "network: {input: {name: image, size: 64}, layers: [...]}",
        "input": "input: {name: image, size: 64}",
        "layers": "a list of layers such as {name: fc1, type: dense, units: 32}",
        "size": "size: 64, or size: [8, 8]",
        "type": "type: dense, conv, pool, activation, add or flatten",
        "loss": "loss: {function: cross_entropy}, or {expression: ...} over y and t",
        "activation": "activation: tanh, or {function: ...} or {expression: ...}",
        "kind": "kind: he, glorot, sparse, zeros or constant",
        "init": "init: he, or {kind: sparse, connections: 15}",
        "inputs": "inputs: [act1, fc1]",
        "parameters": "parameters: {slope: 0.1}",
        "curvature": "curvature: [hessian, {name: my_kind, kind: pch2, output: positive}]",
        "curvature.name": "name: my_kind",
        "curvature.kind": f"kind: {quoted_list(CURVATURE_KINDS)}",
    }
)


def describe(value: object) -> str:
    """Words for a value that was found, e.g. ``the text 'abc'``.

    Example:
        >>> describe(True), describe("0.1"), describe(None)
        ('true', "the text '0.1'", 'nothing')
    """
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return f"the text {shortened(value)!r}"
    if isinstance(value, (int, float)):
        return f"the number {shortened(repr(value))}" if abs(value) < 1e100 else "a huge number"
    if isinstance(value, dict):
        return "keys and values"
    if isinstance(value, list):
        return "a list"
    return f"a Python {type(value).__name__}"


def validate_shape(data: object, positions: Positions) -> SpecShape:
    """Check keys and types of a whole spec.

    Args:
        data: plain dicts, lists and scalars.
        positions: where they stand.

    Raises:
        SpecError: the first problem in the order of the file.

    Example:
        >>> from sifrc.spec.document import read_document
        >>> document = read_document("sifrc: 2")
        >>> validate_shape(document.data, document.positions)
        Traceback (most recent call last):
        sifrc.errors.SpecError: error: 'sifrc' cannot be the number 2
         --> <spec>:1:8
          |
        1 | sifrc: 2
          |        ^
          = accepted: 1
    """
    if not isinstance(data, dict):
        raise positions.error((), f"a spec has keys and values, not {describe(data)}", hint="start: sifrc: 1")
    try:
        return SpecShape.model_validate(data)
    except ValidationError as error:
        details = error.errors(include_url=False)
    problems = sorted((_order(problem, positions), index, problem) for index, problem in enumerate(details))
    raise _translate(problems[0][2], data, positions)


def _path(problem: ErrorDetails) -> Path:
    """Where it stands in the spec: without the tag of a form, which stands where that value does."""
    path = problem["loc"]
    before = (None, *path)
    return tuple(
        item for item, key in zip(path, before, strict=False) if not (item in TAGS and key in _SIZES)
    )


def _order(problem: ErrorDetails, positions: Positions) -> tuple[bool, int, int]:
    """File order; a missing key stands nowhere, and is often a misspelt one: last."""
    path = _path(problem)
    place = positions.key(path) if problem["type"] == "extra_forbidden" else positions.value(path)
    line, column = (place.line, place.column) if place is not None else (0, 0)
    return problem["type"] == "missing", line, column


def _translate(problem: ErrorDetails, data: object, positions: Positions) -> SpecError:
    """One error of pydantic as a SpecError."""
    path = _path(problem)
    kind = problem["type"]
    key = next((item for item in reversed(path) if isinstance(item, str)), "spec")
    found = problem["input"]
    shown = shortened(key)
    if kind == "extra_forbidden":
        return _unknown_key(path, data, positions)
    if kind == "missing":
        place = path[:-1]
        message = f"key '{shown}' is missing{_where(place)}"
        return positions.error(place, message, hint=_example(path, key) or f"add {shown}: ...")
    if kind in _EXPECTED:
        hint = _example(path, key) if kind.startswith(("model", "dict", "list")) else None
        if kind == "float_type" and isinstance(found, str) and re.fullmatch(r"[-+.\deE]+", found):
            hint = "remove the quotes"
        if kind == "string_type" and isinstance(found, (bool, int, float)):
            hint = "put it in quotes if it is meant as text"
        subject = f"an item of '{shown}'" if isinstance(path[-1], int) else f"'{shown}'"
        return positions.error(path, f"{subject} must be {_EXPECTED[kind]}, not {describe(found)}", hint=hint)
    context = problem.get("ctx", {})
    if kind == "literal_error":
        return _not_among(path, shown, found, str(context.get("expected", "")), positions)
    if kind == "too_short":
        return positions.error(path, f"'{shown}' is empty", hint=_EXAMPLES.get(shown))
    if kind in _SENTENCES:
        facts = {**context, "key": shown, "found": describe(found)}
        message, hint = (pattern.format(**facts) for pattern in _SENTENCES[kind])
        return positions.error(path, message, hint=hint)
    return positions.error(path, f"'{shown}': {shortened(problem['msg'], 200)}")


def _where(path: Path) -> str:
    """`` in 'network'``, `` in a layer``, or nothing at the top."""
    if not path:
        return ""
    last = path[-1]
    return f" in this {_ITEMS[path[-2]]}" if isinstance(last, int) else f" in '{shortened(str(last))}'"


def _example(path: Path, key: str) -> str | None:
    """What may stand at a key; keys of the same name may differ by where they are."""
    return _EXAMPLES.get(f"{path[0]}.{key}") or _EXAMPLES.get(key)


def _unknown_key(path: Path, data: object, positions: Positions) -> SpecError:
    place = tuple("*" if isinstance(item, int) else item for item in path[:-1])
    shape = SHAPES.get(place)
    known = list(shape.model_fields) if shape is not None else []
    if place == ("network", "layers", "*"):
        known = list(KEYS_OF_TYPE.get(_type_of(path[:-1], data), known))
    word = str(path[-1])
    hint = f"accepted keys: {' '.join(known)}"
    if place == ("target",):
        hint += "; options of the backend go under options"
    return positions.error(
        path,
        f"unknown key '{shortened(word)}'{_where(path[:-1])}",
        hint=hint,
        label=did_you_mean(word, known),
        at_key=True,
    )


def _type_of(path: Path, data: object) -> str:
    """The type of a layer, as it is written."""
    for item in path:
        data = data[item] if isinstance(data, dict | list) else {}  # type: ignore[index]
    return str(data.get("type")) if isinstance(data, dict) else ""


def _not_among(path: Path, key: str, found: object, expected: str, positions: Positions) -> SpecError:
    """One of a few words was expected."""
    words = re.findall(r"'([^']*)'", expected) or [expected]
    label = did_you_mean(found, words) if isinstance(found, str) else None
    message = f"'{key}' cannot be {describe(found)}"
    return positions.error(path, message, hint=f"accepted: {quoted_list(words)}", label=label)


_SENTENCES: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "greater_than_equal": ("'{key}' is too small: {found}", "at least {ge}"),
        "less_than_equal": ("'{key}' is too large: {found}", "at most {le}"),
        "less_than": ("'{key}' is too large: {found}", "less than {lt}"),
        "greater_than": ("'{key}' is too small: {found}", "more than {gt}"),
        "finite_number": ("'{key}' must be a finite number", "write a number such as 0.1 or 1e-3"),
        "too_long": ("'{key}' is too long", "at most {max_length} items"),
        "int_parsing_size": ("'{key}' is a huge number", "write a whole number of usual size"),
    }
)
"""Type of an error of pydantic -> what is wrong, and what would be accepted."""
