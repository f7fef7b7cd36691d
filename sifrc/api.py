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

from sifrc.errors import Location, MethodError, SpecError, TrainingError

if TYPE_CHECKING:
    from sifrc.compiler import Compiled
    from sifrc.data import Dataset
    from sifrc.report.document import EquationSheet
    from sifrc.spec.types import OptionValue, PartitionChoice, Spec
    from sifrc.training import History, Plateau
    from sifrc.verify import Report, Row

__all__ = [
    "Source",
    "choose",
    "compile",
    "compile_source",
    "compile_whole",
    "equations",
    "load_data",
    "read_spec",
    "train",
    "train_module",
    "verify",
]

Source: TypeAlias = "Spec | str | os.PathLike[str] | Mapping[str, Any]"
"""A spec, the path of one, or one as nested dicts and lists."""

_NO_OPTIONS: Mapping[str, Any] = MappingProxyType({})
_NOWHERE: Mapping[str, Location] = MappingProxyType({})


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
    curvature: Sequence[str] | None = None,
    partition: PartitionChoice | None = None,
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
        curvature: kinds of curvature that operators know, presets or the spec's own by name; the spec's
            by default, all presets if empty.
        partition: groups of the parameters: a word such as ``blocks-2``, names of groups with patterns, or
            lists of patterns; the spec's by default.
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
    from sifrc.methods.registry import METHODS
    from sifrc.spec import spec_to_dict
    from sifrc.spec.partitionspec import choose_partition

    spec = read_spec(spec)
    if partition is not None:
        spec = replace(spec, partition=choose_partition(partition, spec.layers))
    content: dict[str, Any] = {
        "spec": spec_to_dict(spec),
        "backend": backend,
        "method": method,
        "operators": None if operators is None else _names(operators),
        "curvature": None if curvature is None else _names(curvature),
        "backend_options": dict(backend_options),
        "method_options": method_options,
    }

    def make() -> str:
        return compile_whole(
            spec, backend, method, operators, method_options, backend_options, curvature
        ).text

    if cache is True:
        folder = cache_folder()
    else:
        folder = None if cache is False else Path(cache).absolute()
    chosen = method or ("none" if spec.method is None else spec.method.name)
    framework = backend or spec.target.backend
    library = framework if framework in BUILT_IN else None
    if library is None or chosen not in ("none", *METHODS):
        # What a backend or a method from elsewhere says may change without a trace in our own sources.
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
    backend_options: Mapping[str, OptionValue] = _NO_OPTIONS,
    **method_options: OptionValue,
) -> str:
    """The text of the module that :func:`compile` imports.

    Raises:
        SifrcError: the spec is wrong, or asks for what does not exist or cannot be derived.
    """
    return compile_whole(
        spec, backend, method, operators, method_options, backend_options, curvature, partition
    ).text


def compile_whole(
    spec: Source,
    backend: str | None = None,
    method: str | None = None,
    operators: Sequence[str] | None = None,
    method_options: Mapping[str, OptionValue] = _NO_OPTIONS,
    backend_options: Mapping[str, OptionValue] = _NO_OPTIONS,
    curvature: Sequence[str] | None = None,
    partition: PartitionChoice | None = None,
    option_locations: Mapping[str, Location] = _NOWHERE,
    progress: Callable[[str, float], None] | None = None,
) -> Compiled:
    """The text of a module, its file name, and what it was made from; see :func:`choose`.

    ``progress`` is called with the name of each stage and the share of the work before it.

    Raises:
        SifrcError: the spec is wrong, or asks for what does not exist or cannot be derived.
    """
    from sifrc.compiler import compile_spec

    return compile_spec(
        choose(
            spec,
            backend,
            method,
            method_options,
            backend_options,
            operators,
            curvature,
            partition,
            option_locations,
        ),
        progress=progress,
    )


def choose(
    spec: Source,
    backend: str | None = None,
    method: str | None = None,
    method_options: Mapping[str, OptionValue] = _NO_OPTIONS,
    backend_options: Mapping[str, OptionValue] = _NO_OPTIONS,
    operators: Sequence[str] | None = None,
    curvature: Sequence[str] | None = None,
    partition: PartitionChoice | None = None,
    option_locations: Mapping[str, Location] = _NOWHERE,
) -> Spec:
    """A spec with other choices over its own; None keeps the spec's.

    Options of a method or a backend are checked when it is compiled; ``option_locations`` are their places
    for the errors, those of a backend under ``backend.<name>``.

    Raises:
        MethodError: options of a method and no method, or an unknown kind of curvature.
        SpecError: the spec is wrong, or the partition is none of its parameters.
    """
    from sifrc.compiler import Request, apply_request

    spec = read_spec(spec)
    if method_options and (method == "none" or (method is None and spec.method is None)):
        names = ", ".join(sorted(method_options))
        raise MethodError(f"options without a method: {names}", hint="name a method, e.g. esn or mk")
    request = Request(
        backend=backend,
        method=method,
        operators=None if operators is None else _names(operators),
        curvature=None if curvature is None else _names(curvature),
        partition=partition,
        options=MappingProxyType(dict(method_options)),
        backend_options=MappingProxyType(dict(backend_options)),
        option_locations=MappingProxyType(dict(option_locations)),
    )
    return apply_request(spec, request)


def _names(given: Sequence[str]) -> tuple[str, ...]:
    # A word is a sequence of letters; nobody means that.
    return (given,) if isinstance(given, str) else tuple(given)


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
    spec: Source,
    *,
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
        levels: 1 symbolic, 2 many digits, 3 generated code.
        digits: precision of level 2.
        seed: of the random points.
        backend: of the module of level 3; the spec's by default. The module has the spec's operators, or all
            that are checked where the spec asks for none.
        module: to check at level 3 in place of one compiled here.
        summaries: with summaries along a direction; by default where the spec's method or operators ask for
            them.
        cache: see :func:`compile`.
        progress: called with every row as it is found.

    Returns:
        A report; ``passed`` only if nothing failed and everything asked for was checked.

    Raises:
        SifrcError: the spec is wrong, its module cannot be compiled, or level 3 has no torch.
    """
    from sifrc.extras import optional
    from sifrc.verify.ladder import ORACLE, operators_of
    from sifrc.verify.ladder import verify as climb

    spec = read_spec(spec)
    if 3 in levels and module is None:
        optional("torch", ORACLE)
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


def load_data(
    spec: Source, data: str | os.PathLike[str] | None = None, *, fallback: bool = False
) -> tuple[Spec, Dataset]:
    """The data set to train a spec on, and the spec, which fits it.

    Args:
        spec: a spec, a path or a mapping.
        data: name of a data set, path of an ``.npz`` archive, or the folder with the files of the
            spec's own data set; the spec's by default.
        fallback: where MNIST or Fashion-MNIST is missing take digits, and give the network's input
            their size.

    Raises:
        DataError: no such data, or it does not fit the network.
        SpecError: the network cannot take images of another size.
    """
    from sifrc.data import check_fits, load_dataset
    from sifrc.spec import build_spec, spec_to_dict

    spec = read_spec(spec)
    name, folder = spec.training.data, None
    if data is not None:
        given = os.fspath(data)
        if Path(given).is_dir():
            folder = Path(given)
        else:
            name = given
    dataset = load_dataset(
        name,
        path=folder,
        dtype=spec.dtype,
        one_hot=spec.training.one_hot,
        pad=spec.training.pad,
        fallback=fallback,
    )
    if fallback and dataset.name != name and dataset.input_size != spec.input.size:
        content = spec_to_dict(spec)
        content["network"]["input"]["size"] = dataset.input_size
        spec = build_spec(content)
    check_fits(dataset, spec.input.size, spec.layers[-1].size, spec.loss.targets)
    return spec, dataset


def train(
    spec: Source,
    data: str | os.PathLike[str] | Dataset | None = None,
    *,
    directory: str | os.PathLike[str] | None = None,
    epochs: int | None = None,
    batch: int | None = None,
    seed: int | None = None,
    backend: str | None = None,
    method: str | None = None,
    resume: bool = False,
    fallback: bool = False,
    curvature_batch: int | None = None,
    plateau: Plateau | None = None,
    summaries: int | None = None,
    checkpoint_every: float = 30.0,
    start: str | os.PathLike[str] | None = None,
    progress: bool = True,
    cache: bool | str | os.PathLike[str] = True,
    **method_options: OptionValue,
) -> History:
    """Compile a spec and train it on data.

    Args:
        spec: a spec, a path or a mapping.
        data: a data set, or what :func:`load_data` takes; the spec's by default.
        directory: for the checkpoint, the metrics, the log and the plots; None writes nothing.
        epochs: the run is complete after these; the spec's by default, as ``batch`` and ``seed``.
        batch: samples in a step.
        seed: of the initial parameters and the order of the samples.
        backend: ``torch`` or ``numba``; the spec's by default.
        method: the spec's by default.
        resume: go on from the checkpoint in ``directory``.
        fallback: see :func:`load_data`.
        curvature_batch: samples of a batch of its own for the periodic part of the method; the
            spec's by default, as the next two; 0 for the batch of the step.
        plateau: when the learning rate falls.
        summaries: of the method, recorded in an epoch at most.
        checkpoint_every: seconds between checkpoints, 0 for one after each chunk of an epoch, infinity for
            none but at the start and where the run ends, however it ends.
        start: a checkpoint, or the folder with one, whose parameters to start from; a run of its own begins.
        progress: show a bar on the error stream.
        cache: see :func:`compile`.
        **method_options: options of the method, over those of the spec.

    Returns:
        The metrics of all epochs.

    Raises:
        SifrcError: the spec, the data or a setting is wrong, a step was refused, or anything else stopped
            the run. A checkpoint of the last good moment is saved.
        TrainingInterrupted: Ctrl-C, SIGTERM or SIGHUP; a checkpoint is saved.
    """
    from sifrc.data import Dataset, check_fits

    chosen = choose(spec, backend, method, method_options)
    if isinstance(data, Dataset):
        dataset = data
        check_fits(dataset, chosen.input.size, chosen.layers[-1].size, chosen.loss.targets)
    else:
        chosen, dataset = load_data(chosen, data, fallback=fallback)
    return train_module(
        compile(chosen, operators=(), cache=cache),
        chosen,
        dataset,
        directory=directory,
        epochs=epochs,
        batch=batch,
        seed=seed,
        resume=resume,
        curvature_batch=curvature_batch,
        plateau=plateau,
        summaries=summaries,
        checkpoint_every=checkpoint_every,
        start=start,
        progress=progress,
    )


def train_module(
    module: ModuleType,
    spec: Spec,
    dataset: Dataset,
    *,
    directory: str | os.PathLike[str] | None = None,
    epochs: int | None = None,
    batch: int | None = None,
    seed: int | None = None,
    resume: bool = False,
    curvature_batch: int | None = None,
    plateau: Plateau | None = None,
    summaries: int | None = None,
    checkpoint_every: float = 30.0,
    start: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> History:
    """Train a module that was compiled for a spec; what is None is the spec's. See :func:`train`.

    Raises:
        TrainingError: a setting is wrong, the module has no method, a step was refused, or anything else
            stopped the run. A checkpoint of the last good moment is saved.
        TrainingInterrupted: Ctrl-C, SIGTERM or SIGHUP; a checkpoint is saved.
    """
    from sifrc.training import Plateau
    from sifrc.training import train as run
    from sifrc.training.adapters import has_curvature_batch
    from sifrc.training.checkpoint import saved_parameters
    from sifrc.training.companion import no_curvature_batch

    if spec.method is None:
        raise TrainingError(
            "training needs a method", hint="add 'method: {name: esn}' to the spec, or name one"
        )
    own, backend = spec.training, spec.target.backend
    if curvature_batch is None and own.curvature_batch and not has_curvature_batch(module, backend):
        raise no_curvature_batch(own.location)
    if plateau is None and own.plateau is not None:
        plateau = Plateau(own.plateau.patience, own.plateau.factor)
    return run(
        module,
        backend,
        dataset,
        epochs=spec.training.epochs if epochs is None else epochs,
        batch=spec.training.batch if batch is None else batch,
        seed=spec.seed if seed is None else seed,
        directory=None if directory is None else Path(directory),
        resume=resume,
        curvature_batch=own.curvature_batch if curvature_batch is None else curvature_batch,
        plateau=plateau,
        summaries=own.summaries if summaries is None else summaries,
        checkpoint_every=checkpoint_every,
        initial=None if start is None else saved_parameters(Path(start)),
        progress=progress,
        label=spec.name,
    )
