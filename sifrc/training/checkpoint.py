"""Checkpoints: everything a run needs to go on to the same numbers, in one file of plain arrays."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sifrc.errors import TrainingError
from sifrc.training.files import reading_arrays, replacing
from sifrc.training.history import History
from sifrc.training.state import StateTree, decode_state, encode_state

__all__ = [
    "CHECKPOINT_FILE",
    "Checkpoint",
    "Position",
    "check_identity",
    "load_checkpoint",
    "save_checkpoint",
    "saved_parameters",
    "text_digest",
]

CHECKPOINT_FILE = "checkpoint.npz"

_FORMAT = 1


@dataclass(frozen=True)
class Position:
    """How far a run is.

    Args:
        epoch: epochs completed.
        sample: samples of the next epoch already trained on.
        objective: sum over those samples of the objective before their steps.
        seconds: spent in training steps so far.
    """

    epoch: int = 0
    sample: int = 0
    objective: float = 0.0
    seconds: float = 0.0


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A run between two steps.

    Args:
        identity: what a resumed run must agree in, by name: the spec, the data, the seed ...
        parameters: ``"<layer>.weight"`` (out, in), ``"<layer>.bias"`` (out,).
        state: of the method.
        position: in the run.
        random_state: of the generator that drew the current epoch's order, as JSON, and that
            order's digest; a NumPy that draws another order is found by it.
        history: the metrics so far.
        extra: what the run has besides its steps, a tree as ``state``; None in older files.
    """

    identity: Mapping[str, str]
    parameters: Mapping[str, NDArray[Any]]
    state: StateTree
    position: Position
    random_state: str
    history: History
    extra: StateTree = None


def text_digest(value: object) -> str:
    """SHA-256 of a value as canonical JSON; what JSON does not know enters by its repr.

    Example:
        >>> text_digest({"a": 1, "b": 2}) == text_digest({"b": 2, "a": 1})
        True
    """
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=repr).encode()).hexdigest()


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint in place of the one before, which stays whole until the new one is.

    Raises:
        TrainingError: the file cannot be written, or the state has a leaf that is not stored.
    """
    text, arrays = encode_state(checkpoint.state)
    extra, more = encode_state(checkpoint.extra)
    position = checkpoint.position
    meta = {
        "format": _FORMAT,
        "identity": dict(checkpoint.identity),
        "epoch": position.epoch,
        "sample": position.sample,
        "random_state": checkpoint.random_state,
        "label": checkpoint.history.label,
    }
    content: dict[str, NDArray[Any]] = {
        "meta": np.array(json.dumps(meta)),
        "state": np.array(text),
        # Floats travel as bits, not as text.
        "numbers": np.array([position.objective, position.seconds]),
        "history": checkpoint.history.array(),
        **{f"parameter/{key}": value for key, value in checkpoint.parameters.items()},
        **{f"state/{index}": value for index, value in enumerate(arrays)},
        "extra": np.array(extra),
        **{f"extra/{index}": value for index, value in enumerate(more)},
    }
    with replacing(path) as file:
        np.savez(file, allow_pickle=False, **content)


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint.

    Raises:
        TrainingError: there is none, it is damaged, or of another format.
    """
    if not path.is_file():
        raise TrainingError(
            f"there is no checkpoint to go on from: {path.name} is missing", hint="start without it"
        )
    problem = f"the checkpoint {path.name} is damaged"
    with reading_arrays(path, problem, "start without resume") as content:
        meta = json.loads(str(content["meta"][()]))
        if meta["format"] != _FORMAT:
            raise TrainingError(f"{path.name} has format {meta['format']}", hint=f"format {_FORMAT}")
        prefix = "parameter/"
        objective, seconds = content["numbers"].tolist()
        return Checkpoint(
            identity={str(key): str(value) for key, value in meta["identity"].items()},
            parameters={k.removeprefix(prefix): v for k, v in content.items() if k.startswith(prefix)},
            state=_tree(content, "state"),
            position=Position(int(meta["epoch"]), int(meta["sample"]), objective, seconds),
            random_state=str(meta["random_state"]),
            history=History.from_array(str(meta["label"]), content["history"]),
            extra=_tree(content, "extra") if "extra" in content else None,
        )


def saved_parameters(path: Path) -> Mapping[str, NDArray[Any]]:
    """The parameters in a checkpoint.

    Args:
        path: of the file, or of the folder of its run.

    Raises:
        TrainingError: there is none, or it is damaged.
    """
    return load_checkpoint(path / CHECKPOINT_FILE if path.is_dir() else path).parameters


def _tree(content: Mapping[str, NDArray[Any]], name: str) -> StateTree:
    """A tree from its text and arrays."""
    count = sum(key.startswith(f"{name}/") for key in content)
    return decode_state(str(content[name][()]), [content[f"{name}/{index}"] for index in range(count)])


def check_identity(checkpoint: Checkpoint, identity: Mapping[str, str]) -> None:
    """Check that a checkpoint belongs to the run that is to be resumed.

    Raises:
        TrainingError: something differs; the message names it.
    """
    known = checkpoint.identity
    name = next((name for name in {**identity, **known} if identity.get(name) != known.get(name)), None)
    if name is None:
        return
    theirs, ours = (_short(each.get(name, "none")) for each in (known, identity))
    raise TrainingError(
        f"the checkpoint was made with another {name}: {theirs}, not {ours}",
        hint="resume with what it was made with, or start another run from its parameters",
    )


def _short(value: str) -> str:
    """A digest by its first characters."""
    return value if len(value) < 64 else value[:12]
