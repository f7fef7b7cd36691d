"""The Python interface: specs in, modules, equations, reports and trained parameters out.

Everywhere a spec is taken, it may be a :class:`~sifrc.spec.Spec`, the path of a file, or a mapping with
the keys of the YAML form. Stages are imported inside the functions, so that a command that needs one
of them does not wait for the others.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import TYPE_CHECKING, Any, TypeAlias

from sifrc.errors import SpecError

if TYPE_CHECKING:
    from sifrc.compiler import Request
    from sifrc.data import Dataset
    from sifrc.report.document import EquationSheet
    from sifrc.spec.types import OptionValue, Spec
    from sifrc.training import History
    from sifrc.verify import Report, Row

__all__ = [
    "Source",
    "compile",
    "compile_source",
    "equations",
    "load_data",
    "read_spec",
    "train",
    "verify",
]

Source: TypeAlias = "Spec | str | os.PathLike[str] | Mapping[str, Any]"
"""A spec, the path of one, or one as nested dicts and lists."""

_NO_OPTIONS: Mapping[str, Any] = MappingProxyType({})


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


def compile(
    spec: Source,
    backend: str | None = None,
    method: str | None = None,
    operators: Sequence[str] | None = None,
    *,
    cache: bool | str | os.PathLike[str] = True,
    backend_options: Mapping[str, OptionValue] = _NO_OPTIONS,
    **method_options: OptionValue,
) -> ModuleType:
    """Generate a module for a spec and import it.

    Args:
        spec: a spec, a path or a mapping.
        backend: ``torch``, ``numba`` or another; the spec's by default.
        method: ``esn``, ``mk`` or another; ``none`` for operators alone; the spec's by default.
        operators: what the module computes besides the method; the spec's by default.
        cache: True for the user's cache folder (or that of SIFRC_CACHE), a folder, or False to
            generate anew and keep nothing.
        backend_options: options of the backend.
        **method_options: options of the method, over those of the spec.

    Returns:
        The module, with the functions of the operators and the method's optimizer.

    Raises:
        SifrcError: the spec is wrong, or asks for what does not exist or cannot be derived.

    Example:
        >>> module = compile({"sifrc": 1, "name": "tiny", "loss": "mse", "network": {
        ...     "input": {"size": 4}, "layers": [{"type": "dense", "units": 2}]}},
        ...     backend="torch", operators=["gradient"], cache=False)
        >>> callable(module.gradient)
        True
    """
    from sifrc.backends import BUILT_IN
    from sifrc.cache import cache_folder, entry_name, module_from_cache
    from sifrc.spec import spec_to_dict

    spec = read_spec(spec)
    content: dict[str, Any] = {
        "spec": spec_to_dict(spec),
        "backend": backend,
        "method": method,
        "operators": None if operators is None else _names(operators),
        "backend_options": dict(backend_options),
        "method_options": method_options,
    }

    def make() -> str:
        return compile_source(spec, backend, method, operators, backend_options=backend_options, **method_options)

    if cache is True:
        folder: Path | None = cache_folder()
    else:
        folder = None if cache is False else Path(cache).absolute()
    if (backend or spec.target.backend) not in BUILT_IN:
        # What a backend from elsewhere prints may change without a trace in our own sources.
        content["text"] = text = make()
        return module_from_cache(entry_name(spec.name, content), lambda: text, folder)
    return module_from_cache(entry_name(spec.name, content), make, folder, reuse=cache is not False)


def compile_source(
    spec: Source,
    backend: str | None = None,
    method: str | None = None,
    operators: Sequence[str] | None = None,
    *,
    backend_options: Mapping[str, OptionValue] = _NO_OPTIONS,
    **method_options: OptionValue,
) -> str:
    """The text of the module that :func:`compile` imports.

    Raises:
        SifrcError: the spec is wrong, or asks for what does not exist or cannot be derived.
    """
    from sifrc.compiler import compile_spec

    return compile_spec(
        read_spec(spec), make_request(backend, method, operators, method_options, backend_options)
    ).text


def make_request(
    backend: str | None = None,
    method: str | None = None,
    operators: Sequence[str] | None = None,
    method_options: Mapping[str, OptionValue] = _NO_OPTIONS,
    backend_options: Mapping[str, OptionValue] = _NO_OPTIONS,
) -> Request:
    """What to compile over what the spec says itself.

    Raises:
        MethodError: options of a method without a method are left to the compiler; never here.
    """
    from sifrc.compiler import Request

    return Request(
        backend=backend,
        method=method,
        operators=None if operators is None else _names(operators),
        options=MappingProxyType(dict(method_options)),
        backend_options=MappingProxyType(dict(backend_options)),
    )


def _names(operators: Sequence[str]) -> tuple[str, ...]:
    # A word is a sequence of letters; nobody means that.
    return (operators,) if isinstance(operators, str) else tuple(operators)
