"""Modules for tests: a spec is derived and lowered once, however many backends and tests ask for it."""

from __future__ import annotations

from dataclasses import replace

from sifrc.backends import check_options, find_backend
from sifrc.backends.base import blocks_for, has_class_indices, made_again_for
from sifrc.compiler import Compiled, Request, apply_request, compile_spec
from sifrc.spec import Spec, spec_hash, spec_to_dict

__all__ = ["compile_once"]

_FOUND: dict[str, dict[str, Compiled]] = {}
"""What is asked for, but for the backend -> what was compiled, by backend."""
_MOST = 100
"""Specs that are kept: tests of one spec come one after the other, and random ones do not come again."""


def compile_once(spec: Spec, request: Request) -> Compiled:
    """What ``compile_spec`` gives; not for tests that change the compiler."""
    asked = apply_request(spec, request)
    data = spec_to_dict(asked)
    target = asked.target
    backend = find_backend(target.backend)
    indices = has_class_indices(backend), made_again_for(backend, target.options), blocks_for(target.options)
    key = repr((data | {"target": (target.operators, dict(target.options))}, request.passes, indices))
    if key not in _FOUND:
        if len(_FOUND) == _MOST:
            del _FOUND[next(iter(_FOUND))]
        _FOUND[key] = {target.backend: compile_spec(spec, request)}
    found = _FOUND[key]
    if target.backend not in found:
        found[target.backend] = _printed(next(iter(found.values())), asked, request)
    return found[target.backend]


def _printed(first: Compiled, asked: Spec, request: Request) -> Compiled:
    """The program of one backend by another; the module records what was asked for."""
    backend = find_backend(asked.target.backend)
    options = {**check_options(backend, asked.target.options), "passes": str(request.passes)}
    source = replace(first.source, spec=spec_to_dict(asked), spec_hash=spec_hash(asked), options=options)
    name = first.name.removesuffix(first.backend) + backend.name
    return replace(first, name=name, backend=backend.name, text=backend.emit(source), source=source)
