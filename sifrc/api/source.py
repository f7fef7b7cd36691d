"""Specs from whatever describes one, with a caller's choices over their own."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeAlias

from sifrc.errors import Location, MethodError, SpecError

if TYPE_CHECKING:
    from sifrc.spec.types import OptionValue, PartitionChoice, Spec

__all__ = ["NOWHERE", "NO_OPTIONS", "Source", "choose", "names_of", "read_spec"]

Source: TypeAlias = "Spec | str | os.PathLike[str] | Mapping[str, Any]"
"""A spec, the path of one, or one as nested dicts and lists."""
NO_OPTIONS: Mapping[str, Any] = MappingProxyType({})
NOWHERE: Mapping[str, Location] = MappingProxyType({})


def read_spec(source: Source) -> Spec:
    """A spec from whatever describes one.

    Args:
        source: a spec, which is returned as it is; the path of a YAML file; or a mapping.

    Raises:
        SpecError: what it says is wrong, or it is nothing of these.

    Example:
        >>> spec = read_spec({"sifrc": 1, "name": "tiny", "loss": "mse", "network": {
        ...     "input": {"size": 4}, "layers": [{"type": "dense", "units": 2}]}})
        >>> spec.name, read_spec(spec) is spec
        ('tiny', True)
    """
    from sifrc.spec import Spec, build_spec, load_spec

    if isinstance(source, Spec):
        return source
    if isinstance(source, Mapping):
        return build_spec(source)
    if isinstance(source, str | os.PathLike):
        return load_spec(source)
    raise SpecError(
        f"a spec cannot be read from an object of type {type(source).__name__}",
        hint="give a Spec, the path of a YAML file, or a mapping; parse_spec reads text",
    )


def choose(
    spec: Source,
    backend: str | None = None,
    method: str | None = None,
    method_options: Mapping[str, OptionValue] = NO_OPTIONS,
    backend_options: Mapping[str, OptionValue] = NO_OPTIONS,
    operators: Sequence[str] | None = None,
    curvature: Sequence[str] | None = None,
    partition: PartitionChoice | None = None,
    mode: str | None = None,
    option_locations: Mapping[str, Location] = NOWHERE,
) -> Spec:
    """A spec with other choices over its own; None keeps the spec's.

    Options of a method or a backend are checked when it is compiled; ``option_locations`` are their places
    for the errors, those of a backend under ``backend.<name>``.

    Raises:
        MethodError: options of a method and no method, or an unknown kind of curvature.
        SpecError: the spec is wrong, the partition is none of its parameters, or the mode is unknown.
    """
    from sifrc.compiler import Request, apply_request

    spec = read_spec(spec)
    if method_options and (method == "none" or (method is None and spec.method is None)):
        names = ", ".join(sorted(method_options))
        raise MethodError(f"options without a method: {names}", hint="name a method, e.g. esn or mk")
    request = Request(
        backend=backend,
        method=method,
        operators=None if operators is None else names_of(operators),
        curvature=None if curvature is None else names_of(curvature),
        partition=partition,
        mode=mode,
        options=MappingProxyType(dict(method_options)),
        backend_options=MappingProxyType(dict(backend_options)),
        option_locations=MappingProxyType(dict(option_locations)),
    )
    return apply_request(spec, request)


def names_of(given: Sequence[str]) -> tuple[str, ...]:
    """Names that a caller lists, or the only one."""
    # A word is a sequence of letters; nobody means that.
    return (given,) if isinstance(given, str) else tuple(given)
