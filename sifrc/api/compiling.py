"""Modules, their text, equations and reports of a spec."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import ModuleType
from typing import TYPE_CHECKING, Any

from sifrc.api.source import NO_OPTIONS, NOWHERE, Source, choose, names_of, read_spec
from sifrc.errors import Location, SpecError

if TYPE_CHECKING:
    import torch

    from sifrc.compiler import Compiled
    from sifrc.report.document import EquationSheet
    from sifrc.spec.types import OptionValue, PartitionChoice
    from sifrc.verify import Report, Row

__all__ = ["compile", "compile_source", "compile_whole", "equations", "verify"]


def compile(
    spec: Source,
    backend: str | None = None,
    method: str | None = None,
    operators: Sequence[str] | None = None,
    *,
    curvature: Sequence[str] | None = None,
    partition: PartitionChoice | None = None,
    mode: str | None = None,
    cache: bool | str | os.PathLike[str] = True,
    backend_options: Mapping[str, OptionValue] = NO_OPTIONS,
    **method_options: OptionValue,
) -> ModuleType:
    """Generate a module for a spec and import it.

    Args:
        spec: a spec, a path or a mapping.
        backend: ``torch``, ``numba``, ``cuda`` or another; the spec's by default.
        method: ``esn``, ``mk`` or another; ``none`` for operators alone; the spec's by default.
        operators: what the module computes besides the method; the spec's by default.
        curvature: kinds of curvature that operators know, presets or the spec's own by name; the spec's
            by default, all presets if empty.
        partition: groups of the parameters: a word such as ``blocks-2``, names of groups with patterns, or
            lists of patterns; the spec's by default.
        mode: ``training`` or ``evaluation``, for layers that do something else then; the spec's by default.
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
    from sifrc.backends import LIBRARIES
    from sifrc.cache import entry_name, folder_of, module_from_cache
    from sifrc.catalogue.registry import is_built_in
    from sifrc.methods.registry import METHODS
    from sifrc.spec import spec_to_dict
    from sifrc.spec.partitionspec import choose_partition

    spec = read_spec(spec)
    if partition is not None:
        spec = replace(spec, partition=choose_partition(partition, spec.layers))
    if mode is not None:
        spec = choose(spec, mode=mode)
    content: dict[str, Any] = {
        "spec": spec_to_dict(spec),
        "backend": backend,
        "method": method,
        "operators": None if operators is None else names_of(operators),
        "curvature": None if curvature is None else names_of(curvature),
        "backend_options": dict(backend_options),
        "method_options": method_options,
    }

    def make() -> str:
        return compile_whole(
            spec, backend, method, operators, method_options, backend_options, curvature
        ).text

    folder = folder_of(cache)
    chosen = method or ("none" if spec.method is None else spec.method.name)
    framework = backend or spec.target.backend
    library = LIBRARIES.get(framework)
    wanted = spec.target.operators if operators is None else names_of(operators)
    if library is None or chosen not in ("none", *METHODS) or not all(map(is_built_in, wanted)):
        # What comes from elsewhere may change without a trace in our own sources.
        content["text"] = text = make()
        return module_from_cache(entry_name(spec.name, content), lambda: text, folder, library=library)
    reuse = cache is not False
    return module_from_cache(entry_name(spec.name, content), make, folder, reuse=reuse, library=library)


def compile_source(
    spec: Source,
    backend: str | None = None,
    method: str | None = None,
    operators: Sequence[str] | None = None,
    *,
    curvature: Sequence[str] | None = None,
    partition: PartitionChoice | None = None,
    mode: str | None = None,
    backend_options: Mapping[str, OptionValue] = NO_OPTIONS,
    **method_options: OptionValue,
) -> str:
    """The text of the module that :func:`compile` imports.

    Raises:
        SifrcError: the spec is wrong, or asks for what does not exist or cannot be derived.
    """
    return compile_whole(
        spec, backend, method, operators, method_options, backend_options, curvature, partition, mode
    ).text


def compile_whole(
    spec: Source,
    backend: str | None = None,
    method: str | None = None,
    operators: Sequence[str] | None = None,
    method_options: Mapping[str, OptionValue] = NO_OPTIONS,
    backend_options: Mapping[str, OptionValue] = NO_OPTIONS,
    curvature: Sequence[str] | None = None,
    partition: PartitionChoice | None = None,
    mode: str | None = None,
    option_locations: Mapping[str, Location] = NOWHERE,
    progress: Callable[[str, float], None] | None = None,
) -> Compiled:
    """The text of a module, its file name, and what it was made from; see :func:`choose`.

    ``progress`` is called with the name of each stage and the share of the work before it.

    Raises:
        SifrcError: the spec is wrong, or asks for what does not exist or cannot be derived.
    """
    from sifrc.compiler import compile_spec

    options = method_options, backend_options
    chosen = choose(spec, backend, method, *options, operators, curvature, partition, mode, option_locations)
    return compile_spec(chosen, progress=progress)


def equations(spec: Source, *, newton: bool | None = None, summaries: bool | None = None) -> EquationSheet:
    """The derived equations of a spec, for the terminal, LaTeX and notebooks.

    Args:
        spec: a spec, a path or a mapping.
        newton: with those of the Newton direction; by default where it exists.
        summaries: with those of the summaries along a direction; by default where the spec's method or
            operators ask for them.

    Raises:
        DerivationError: the Newton direction is asked for and its preconditions fail.
    """
    from sifrc.report.document import equations as derive_sheet

    return derive_sheet(read_spec(spec), newton=newton, summaries=summaries)


def verify(
    spec: Source | None = None,
    *,
    model: torch.nn.Module | None = None,
    example: Any = None,
    loss: Any = "cross_entropy",
    output: int | str | None = None,
    levels: Sequence[int] = (1, 2, 3),
    digits: int = 50,
    seed: int = 0,
    backend: str | None = None,
    module: Any = None,
    summaries: bool | None = None,
    cache: bool | str | os.PathLike[str] = True,
    progress: Callable[[Row], None] | None = None,
) -> Report:
    """Check everything derived for a spec, and the module generated for it.

    Args:
        spec: a spec, a path or a mapping.
        model: a torch module in the place of a spec, which is imported and compared with it first.
        example: a batch of inputs as its ``forward`` takes it.
        loss: of the module, as :func:`sifrc.from_torch` takes it.
        output: of several that the module returns, the place or the name of the one that the loss reads.
        levels: 1 symbolic, 2 many digits, 3 generated code.
        digits: precision of level 2.
        seed: of the random points.
        backend: of the module of level 3; the spec's by default. The module has the spec's operators, or all
            that are checked where the spec asks for none. Where there is no device, one for CUDA runs in
            Numba's simulator, if ``numba.cuda`` is not imported yet and the network is small.
        module: to check at level 3 in place of one compiled here.
        summaries: with summaries along a direction; by default where the spec's method or operators ask for
            them.
        cache: see :func:`compile`.
        progress: called with every row as it is found.

    Returns:
        A report; ``passed`` only if nothing failed and everything asked for was checked.

    Raises:
        SifrcError: there is no such level, the spec is wrong, its module cannot be compiled, or level 3 has
            no torch, or no device.
    """
    from sifrc.extras import optional
    from sifrc.verify.asked import read_digits, read_levels
    from sifrc.verify.device import find_device
    from sifrc.verify.ladder import ORACLE, operators_of
    from sifrc.verify.ladder import verify as climb

    levels, digits = read_levels(levels), read_digits(digits)
    if (spec is None) == (model is None):
        raise SpecError(
            "what is verified is a spec, or a torch module", hint="verify(model=…, example=inputs)"
        )
    if model is not None:
        from sifrc.api.importing import from_torch

        spec = from_torch(model, example, loss, output=output, cache=cache)
    assert spec is not None
    spec = read_spec(spec)
    if 3 in levels and module is None:
        optional("torch", ORACLE)
        if (backend or spec.target.backend) == "cuda":
            find_device(spec)
        module = compile(spec, backend, operators=operators_of(spec, summaries), cache=cache)
    return climb(
        spec,
        levels=levels,
        module=module,
        digits=digits,
        seed=seed,
        summaries=summaries,
        progress=progress,
    )
