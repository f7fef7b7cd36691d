"""Specs: YAML text or Python objects to a validated, immutable :class:`Spec`.

Nothing in a spec is ever executed. Every problem is a :class:`~sifrc.errors.SpecError` that says
where it is and what would be accepted.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sifrc.errors import SpecError
from sifrc.spec.build import build_from_shape
from sifrc.spec.canonical import spec_hash, spec_to_dict
from sifrc.spec.diagnostics import validate_shape
from sifrc.spec.document import MAX_BYTES, read_document
from sifrc.spec.format import format_expression
from sifrc.spec.positions import Positions
from sifrc.spec.starter import starter_spec
from sifrc.spec.states import state_names
from sifrc.spec.types import Spec

__all__ = [
    "Spec",
    "build_spec",
    "format_expression",
    "load_spec",
    "parse_spec",
    "spec_hash",
    "spec_to_dict",
    "starter_spec",
    "state_names",
]


def load_spec(path: str | os.PathLike[str]) -> Spec:
    """Read and validate a spec file.

    Args:
        path: a YAML file.

    Raises:
        SpecError: the file cannot be read, or what it says is wrong.

    Example:
        >>> load_spec("no/such.yaml")
        Traceback (most recent call last):
        sifrc.errors.SpecError: error: cannot read spec 'no/such.yaml': No such file or directory
    """
    if not isinstance(path, str | os.PathLike):
        raise SpecError(
            f"a spec is read from a file, not from an object of type {type(path).__name__}",
            hint="build_spec takes a mapping, parse_spec text",
        )
    file = os.fspath(path)
    try:
        with Path(file).open("rb") as stream:
            content = stream.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else None
        raise SpecError(f"cannot read spec {file!r}: {reason or error}") from None
    if len(content) > MAX_BYTES:
        raise SpecError(f"spec {file!r} is too large", hint=f"at most {MAX_BYTES} bytes")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise SpecError(f"spec {file!r} is not UTF-8 text, line {line}", hint="save it as UTF-8") from None
    return parse_spec(text, file)


def parse_spec(text: str, file: str = "<spec>") -> Spec:
    """Validate a spec given as YAML text.

    Args:
        text: the document.
        file: its name, for messages.

    Raises:
        SpecError: anything wrong with it, with line and column.

    Example:
        >>> spec = parse_spec(starter_spec("digits"))
        >>> [layer.size for layer in spec.layers]
        [48, 48, 24, 10]
    """
    if not isinstance(text, str):
        raise SpecError(
            f"a spec is text, not an object of type {type(text).__name__}",
            hint="build_spec takes a mapping, load_spec the path of a file",
        )
    document = read_document(text, file)
    shape = validate_shape(document.data, document.positions)
    return build_from_shape(shape, document.positions)


def build_spec(data: Mapping[str, Any]) -> Spec:
    """Validate a spec given as Python objects with the keys of the YAML form.

    Args:
        data: nested dicts and lists with text, numbers and booleans.

    Raises:
        SpecError: anything wrong with it; the message names the path of keys.

    Example:
        >>> build_spec({"sifrc": 1, "name": "lambda"})
        Traceback (most recent call last):
        sifrc.errors.SpecError: error: key 'network' is missing
          = network: {input: {name: image, size: 64}, layers: [...]}
    """
    positions = Positions("<spec>")
    shape = validate_shape(dict(data) if isinstance(data, Mapping) else data, positions)
    return build_from_shape(shape, positions)
