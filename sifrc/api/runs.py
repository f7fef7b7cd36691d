"""Data and training of a spec."""

from __future__ import annotations

import os
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from sifrc.api.compiling import compile
from sifrc.api.source import Source, choose, read_spec
from sifrc.errors import TrainingError

if TYPE_CHECKING:
    from sifrc.data import Dataset
    from sifrc.spec.types import OptionValue, Spec
    from sifrc.training import History, Plateau

__all__ = ["load_data", "train", "train_module"]


def load_data(
    spec: Source, data: str | os.PathLike[str] | None = None, *, fallback: bool = False
) -> tuple[Spec, Dataset]:
    """The data set to train a spec on, and the spec, which fits it.

    Args:
        spec: a spec, a path or a mapping.
        data: name of a data set, path of an ``.npz`` archive, or the folder with the files of the
            spec's own data set; the spec's by default.
        fallback: where MNIST or Fashion-MNIST is missing take digits, and give the network's input
            their size, if it has one axis.

    Raises:
        DataError: no such data, or it does not fit the network.
        SpecError: the network cannot take images of another size.
    """
    from sifrc.data import check_fits, load_dataset
    from sifrc.spec import build_spec, spec_to_dict

    spec = read_spec(spec)
    _check_one_input(spec)
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
    alone = len(spec.input.shape) == 1
    if fallback and alone and dataset.name != name and dataset.input_size != spec.input.size:
        content = spec_to_dict(spec)
        content["network"]["input"]["size"] = dataset.input_size
        spec = build_spec(content)
    check_fits(dataset, spec.input.shape, spec.layers[-1].size, spec.loss.targets)
    return spec, dataset


def _check_one_input(spec: Spec) -> None:
    """Data sets have one input a sample.

    Raises:
        TrainingError: the network has several.
    """
    if spec.others:
        raise TrainingError(
            f"data sets have one input, and the network has {len(spec.inputs)}",
            location=spec.others[0].location,
            hint="such a network trains through Optimizer.step or train_epoch of its module",
        )


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
        backend: ``torch``, ``numba`` or ``cuda``; the spec's by default.
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
    _check_one_input(chosen)
    if isinstance(data, Dataset):
        dataset = data
        check_fits(dataset, chosen.input.shape, chosen.layers[-1].size, chosen.loss.targets)
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
