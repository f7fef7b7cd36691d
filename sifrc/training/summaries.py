"""Summaries of a run by grouped Newton: H̄, the rates of the groups and what they come from, GN3(6, 9, 10)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sifrc.errors import TrainingError
from sifrc.training.files import reading_arrays, replacing

__all__ = ["Summary", "SummaryLog", "groups_of", "summary_of"]

_FORMAT = 1
_NUMBERS = ("step", "epoch", "learning_rate")
_ARRAYS = ("summary_g", "summary_h", "summary_d", "rates_found", "rates")

Values = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Summary:
    """What one summary gave, for S groups. All arrays are float64.

    Args:
        groups: name of a group -> its tensors, in the order of the arrays.
        summary_g: ḡ_s = ⟨u_s, ∂L⟩, (S,).
        summary_h: H̄_st = d²L[u_s, u_t], (S, S).
        summary_d: D_s = d³L[u_s, u_s, u_s], (S,); None without a cubic term.
        rates_found: η that minimises the model, before its positive part and averaging, (S,).
        rates: η of the steps, averaged, (S,).
        learning_rate: λ at that time.
    """

    groups: Mapping[str, tuple[str, ...]]
    summary_g: Values
    summary_h: Values
    summary_d: Values | None
    rates_found: Values
    rates: Values
    learning_rate: float


def summary_of(source: Any) -> Summary:
    """The newest summary that a generated module has computed.

    Args:
        source: a ``State`` of a Numba or CUDA module, or an ``Optimizer`` of a Torch one, by grouped Newton.

    Returns:
        Copies, by name.

    Raises:
        TrainingError: it keeps no summaries, or there was no step yet.
    """
    groups = groups_of(source)
    if hasattr(source, "memory"):
        known = source.steps > 0
        kept = {name: getattr(source.memory, name, None) for name in _ARRAYS}
        rate = source.lr
    else:
        shared = source.state.get(source.param_groups[0]["params"][0], {})
        known = int(shared.get("steps", 0)) > 0
        kept = {name: shared.get(name) for name in _ARRAYS}
        rate = source.param_groups[0]["lr"]
    if not known:
        raise TrainingError("there is no summary yet", hint="after the first step there is")
    arrays = {name: None if value is None else _values(value) for name, value in kept.items()}
    if any(arrays[name] is None for name in _ARRAYS if name != "summary_d"):
        raise _none(source)
    return Summary(groups=groups, learning_rate=float(rate), **arrays)  # type: ignore[arg-type]


def groups_of(source: Any) -> Mapping[str, tuple[str, ...]]:
    """The groups of a ``State`` or an ``Optimizer`` of a generated module: name -> tensors.

    Raises:
        TrainingError: its module has none.
    """
    # Generated modules need not be in sys.modules, and every function knows the names around it.
    names = getattr(type(source).__init__, "__globals__", {})
    if "GROUPS" not in names or not (hasattr(source, "memory") or hasattr(source, "param_groups")):
        raise _none(source)
    return MappingProxyType({name: tuple(tensors) for name, tensors in names["GROUPS"].items()})


def _none(source: Any) -> TrainingError:
    return TrainingError(
        f"an object of type {type(source).__name__} keeps no summaries",
        hint="the State (Numba, CUDA) or the Optimizer (Torch) of a module with the method grouped_newton",
    )


def _values(value: Any) -> Values:
    """A copy on the host."""
    if hasattr(value, "copy_to_host"):
        value = value.copy_to_host()
    elif not isinstance(value, np.ndarray):
        value = value.detach().double().cpu().numpy()
    return np.array(value, np.float64)


class SummaryLog:
    """The summaries of a run, in the order of its steps.

    ``save`` writes one compressed ``.npz`` archive with R records for S groups in T tensors: ``format``
    1; ``groups`` (S,) names; ``tensors`` (T,) names and ``group_of_tensor`` (T,) positions in ``groups``;
    ``step``, ``epoch`` and ``learning_rate`` (R,); ``summary_g``, ``rates_found`` and ``rates`` (R, S),
    ``summary_h`` (R, S, S) and, with a cubic term, ``summary_d`` (R, S).

    Args:
        groups: name of a group -> its tensors.

    Example:
        >>> groups = {"w": ("fc1.weight",), "b": ("fc1.bias",)}
        >>> log, one = SummaryLog(groups), np.ones(2)
        >>> log.append(Summary(groups, one, np.eye(2), None, -one, 0 * one, 0.1), step=0, epoch=0.0)
        >>> len(log), log.summary_h.shape, log.summary_d, log.rates_found.tolist()
        (1, (1, 2, 2), None, [[-1.0, -1.0]])
    """

    def __init__(self, groups: Mapping[str, Sequence[str]]) -> None:
        """An empty log."""
        self.groups: Mapping[str, tuple[str, ...]] = MappingProxyType(
            {name: tuple(tensors) for name, tensors in groups.items()}
        )
        self._steps: list[int] = []
        self._epochs: list[float] = []
        self._summaries: list[Summary] = []

    def __len__(self) -> int:
        """Number of records."""
        return len(self._summaries)

    def __getitem__(self, index: int) -> Summary:
        """One record."""
        return self._summaries[index]

    def __iter__(self) -> Iterator[Summary]:
        """The records."""
        return iter(self._summaries)

    def append(self, summary: Summary, *, step: int, epoch: float) -> None:
        """Add a record.

        Args:
            summary: of the same groups.
            step: steps of the run before it.
            epoch: epochs before it, with their fraction.

        Raises:
            TrainingError: it is of other groups or another order than those before.
        """
        if list(summary.groups.items()) != list(self.groups.items()):
            raise TrainingError(
                f"a summary of the groups {', '.join(summary.groups)}",
                hint=f"the log is of {', '.join(self.groups)}",
            )
        if len(self) and (summary.summary_d is None) != (self[0].summary_d is None):
            raise TrainingError("a summary of another order than those in the log", hint="begin another log")
        self._steps.append(int(step))
        self._epochs.append(float(epoch))
        self._summaries.append(summary)

    @property
    def steps(self) -> NDArray[np.int64]:
        """Steps before each summary, (R,)."""
        return np.array(self._steps, np.int64)

    @property
    def epochs(self) -> Values:
        """Epochs before each summary, with their fraction, (R,)."""
        return np.array(self._epochs, np.float64)

    @property
    def learning_rates(self) -> Values:
        """λ at each summary, (R,)."""
        return np.array([summary.learning_rate for summary in self], np.float64)

    @property
    def summary_g(self) -> Values:
        """ḡ, (R, S)."""
        return self._stacked("summary_g", 1)

    @property
    def summary_h(self) -> Values:
        """H̄, (R, S, S)."""
        return self._stacked("summary_h", 2)

    @property
    def summary_d(self) -> Values | None:
        """D, (R, S); None without a cubic term."""
        if len(self) and self[0].summary_d is None:
            return None
        return self._stacked("summary_d", 1)

    @property
    def rates_found(self) -> Values:
        """Minimisers η before their positive part and averaging, (R, S)."""
        return self._stacked("rates_found", 1)

    @property
    def rates(self) -> Values:
        """Rates of the steps, averaged, (R, S)."""
        return self._stacked("rates", 1)

    def _stacked(self, name: str, dimensions: int) -> Values:
        shape = (len(self), *(len(self.groups),) * dimensions)
        return np.array([getattr(summary, name) for summary in self], np.float64).reshape(shape)

    def truncated(self, count: int) -> SummaryLog:
        """A log with the first ``count`` records."""
        log = SummaryLog(self.groups)
        for step, epoch, summary in list(zip(self._steps, self._epochs, self, strict=True))[:count]:
            log.append(summary, step=step, epoch=epoch)
        return log

    def arrays(self) -> dict[str, NDArray[Any]]:
        """What :meth:`save` writes, by key."""
        members = [(name, k) for k, tensors in enumerate(self.groups.values()) for name in tensors]
        third = self.summary_d
        return {
            "format": np.array(_FORMAT),
            "groups": np.array(list(self.groups), np.str_),
            "tensors": np.array([name for name, _ in members], np.str_),
            "group_of_tensor": np.array([k for _, k in members], np.int64),
            "step": self.steps,
            "epoch": self.epochs,
            "learning_rate": self.learning_rates,
            "summary_g": self.summary_g,
            "summary_h": self.summary_h,
            **({} if third is None else {"summary_d": third}),
            "rates_found": self.rates_found,
            "rates": self.rates,
        }

    def digest(self) -> str:
        """SHA-256 of the content."""
        found = hashlib.sha256()
        for name, value in self.arrays().items():
            found.update(f"{name} {value.dtype.str} {value.shape} ".encode() + value.tobytes())
        return found.hexdigest()

    def save(self, path: Path | str) -> None:
        """Write the archive, in place of the one before, which stays whole until the new one is.

        Raises:
            TrainingError: the file cannot be written.
        """
        with replacing(Path(path)) as file:
            np.savez_compressed(file, allow_pickle=False, **self.arrays())

    @classmethod
    def load(cls, path: Path | str) -> SummaryLog:
        """Read an archive that :meth:`save` wrote.

        Raises:
            TrainingError: there is none, or it is none of these.
        """
        name = Path(path).name
        if not Path(path).exists():
            raise TrainingError(f"there is no log of summaries {name}")
        with reading_arrays(path, f"{name} is no log of summaries, or damaged") as content:
            return cls._from_arrays(content)

    @classmethod
    def _from_arrays(cls, content: Mapping[str, NDArray[Any]]) -> SummaryLog:
        if int(content["format"]) != _FORMAT:
            raise ValueError(f"format {int(content['format'])}, where {_FORMAT} is known")
        names, owners = content["groups"].tolist(), content["group_of_tensor"].tolist()
        groups: dict[str, list[str]] = {name: [] for name in names}
        for tensor, owner in zip(content["tensors"].tolist(), owners, strict=True):
            groups[names[owner]].append(tensor)
        log = cls(groups)
        keys = [key for key in (*_NUMBERS, *_ARRAYS) if key != "summary_d" or key in content]
        for values in zip(*(content[key] for key in keys), strict=True):
            row = dict(zip(keys, values, strict=True))
            kept = {key: _record(row, key, len(names)) for key in _ARRAYS}
            summary = Summary(groups=log.groups, learning_rate=float(row["learning_rate"]), **kept)  # type: ignore[arg-type]
            log.append(summary, step=int(row["step"]), epoch=float(row["epoch"]))
        return log


def _record(row: Mapping[str, NDArray[Any]], key: str, groups: int) -> Values | None:
    """One array of a record, of the shape that it must have."""
    if key not in row:
        return None
    dimensions = 2 if key == "summary_h" else 1
    return np.array(row[key], np.float64).reshape((groups,) * dimensions)
