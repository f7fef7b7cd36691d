"""What the training loop needs of a model with its method, and generated modules that give it."""

from __future__ import annotations

import inspect
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from types import MappingProxyType, ModuleType
from typing import Any, ClassVar, Protocol, TypeGuard

import numpy as np
from numpy.typing import NDArray

from sifrc.errors import TrainingError
from sifrc.extras import importing
from sifrc.training.checkpoint import text_digest
from sifrc.training.periodic import Periodic
from sifrc.training.state import StateTree
from sifrc.training.summaries import groups_of

__all__ = [
    "PeriodicModule",
    "PeriodicTrainable",
    "Trainable",
    "check_parameters",
    "has_curvature_batch",
    "is_periodic",
    "make_trainable",
    "module_identity",
]

_NO_OPTIONS: Mapping[str, Any] = MappingProxyType({})


class Trainable(Protocol):
    """A model and the method that trains it, seen from the loop. Arrays are NumPy's.

    ``inputs`` are (B, n_0), whatever axes the network gives those entries, ``targets`` (B,) class indices
    or (B, n).
    """

    @property
    def identity(self) -> Mapping[str, str]:
        """What a resumed run must agree in, by the name that an error uses for it."""

    @property
    def learning_rate(self) -> float:
        """The current learning rate.

        Raises:
            TrainingError: the method has none.
        """

    def set_learning_rate(self, value: float) -> None:
        """Use another learning rate from the next step on."""

    def warm_up(self, inputs: NDArray[Any], targets: NDArray[Any], batch: int) -> None:
        """Compile what the first chunk would compile. Parameters and state do not change."""

    def train_chunk(
        self, inputs: NDArray[Any], targets: NDArray[Any], order: NDArray[np.int64], batch: int
    ) -> float:
        """Train on the samples ``order``, ``batch`` of them a step.

        Returns:
            Mean over those samples of the objective before their step.

        Raises:
            FloatingPointError: a step was refused; the text names layer and quantity.
        """

    def predict(self, inputs: NDArray[Any]) -> NDArray[Any]:
        """Outputs of the network, (B, n_out)."""

    def loss(self, inputs: NDArray[Any], targets: NDArray[Any]) -> float:
        """Mean loss, without regularisation."""

    def parameters(self) -> dict[str, NDArray[Any]]:
        """A copy of the parameters."""

    def load_parameters(self, values: Mapping[str, NDArray[Any]]) -> None:
        """Set the parameters.

        Raises:
            TrainingError: a name or a shape differs.
        """

    def state(self) -> StateTree:
        """The state of the method, as :mod:`sifrc.training.state` stores it."""

    def load_state(self, state: StateTree) -> None:
        """Set the state of the method.

        Raises:
            TrainingError: it is the state of another method.
        """


class PeriodicTrainable(Trainable, Protocol):
    """A method that may have a part that runs every few steps."""

    @property
    def takes_curvature_batch(self) -> bool:
        """Whether that part can run on a batch of its own."""

    @property
    def groups(self) -> Mapping[str, tuple[str, ...]]:
        """Groups whose summaries the method keeps: name -> tensors; empty without summaries."""

    @property
    def period(self) -> int:
        """Steps from one run of that part to the next."""

    def train_periodic(
        self,
        inputs: NDArray[Any],
        targets: NDArray[Any],
        order: NDArray[np.int64],
        batch: int,
        periodic: Periodic,
    ) -> float:
        """As ``train_chunk``, the periodic part with the batches and the log of ``periodic``."""


def is_periodic(trainable: Trainable) -> TypeGuard[PeriodicTrainable]:
    """Whether it is a :class:`PeriodicTrainable`."""
    return hasattr(type(trainable), "train_periodic")


def has_curvature_batch(module: Any, backend: str) -> bool:
    """Whether the method of a generated module takes a batch of its own for its periodic part."""
    if backend == "torch":
        function, name = getattr(getattr(module, "Optimizer", None), "step", None), "curvature"
    else:
        function, name = getattr(module, "train_epoch", None), "curvature_order"
    return function is not None and name in inspect.signature(function).parameters


def make_trainable(
    module: ModuleType,
    backend: str,
    *,
    seed: int = 0,
    initial: Mapping[str, NDArray[Any]] | None = None,
    hyperparameters: Mapping[str, Any] = _NO_OPTIONS,
) -> Trainable:
    """The adapter for a generated module.

    Args:
        module: generated.
        backend: ``cuda``, ``numba`` or ``torch``.
        seed: of the initial parameters.
        initial: parameters to start from in place of those, so that several methods start alike.
        hyperparameters: of the method, by name; the module's defaults for the others.

    Raises:
        TrainingError: unknown backend, a hyperparameter that the module refuses, or initial
            parameters of another network.
        BackendError: what the module runs on is missing.
    """
    if seed < 0:
        raise TrainingError(f"the seed is {seed}", hint="a whole number of at least 0")
    if backend not in _ADAPTERS:
        raise TrainingError(f"cannot train with the backend '{backend}'", hint=" or ".join(_ADAPTERS))
    return _ADAPTERS[backend]()(module, seed=seed, initial=initial, hyperparameters=hyperparameters)


def _cuda() -> Callable[..., Trainable]:
    from sifrc.training.cuda_adapter import CudaTrainable

    return CudaTrainable


def _numba() -> Callable[..., Trainable]:
    from sifrc.training.numba_adapter import NumbaTrainable

    return NumbaTrainable


def _torch() -> Callable[..., Trainable]:
    with importing("training a Torch module", "torch"):
        from sifrc.training.torch_adapter import TorchTrainable

    return TorchTrainable


_ADAPTERS: Mapping[str, Callable[[], Callable[..., Trainable]]] = MappingProxyType(
    {"cuda": _cuda, "numba": _numba, "torch": _torch}
)
"""Backend -> what imports its adapter, which imports the framework."""


class PeriodicModule(ABC):
    """What adapters of generated modules share: what is known of the periodic part of their method."""

    _backend: ClassVar[str]
    _module: Any

    @property
    @abstractmethod
    def _kept(self) -> Any:
        """The object that keeps what the method remembers: its ``State``, or its ``Optimizer``."""

    @property
    def takes_curvature_batch(self) -> bool:
        """Whether the periodic part can run on a batch of its own."""
        return has_curvature_batch(self._module, self._backend)

    @property
    def groups(self) -> Mapping[str, tuple[str, ...]]:
        """Groups whose summaries the method keeps; none without summaries."""
        return groups_of(self._kept) if self.takes_curvature_batch else {}


def module_identity(module: Any, backend: str, hyperparameters: Mapping[str, Any]) -> Mapping[str, str]:
    """What a run of a generated module is known by."""
    options = ", ".join(f"{key}={_plain(hyperparameters[key])!r}" for key in sorted(hyperparameters))
    return MappingProxyType(
        {
            "spec": text_digest(module.SPEC),
            "backend": backend,
            "choice of hyperparameters": options or "the defaults",
        }
    )


def _plain(value: Any) -> Any:
    """A number as Python's own, so that equal ones read alike."""
    return value.item() if isinstance(value, np.generic) else value


def check_parameters(values: Mapping[str, NDArray[Any]], shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Check names and shapes of parameters, and that they are finite.

    Args:
        values: the parameters.
        shapes: what the network has.

    Raises:
        TrainingError: naming the first difference.

    Example:
        >>> check_parameters({"fc1.bias": np.zeros(2)}, {"fc1.bias": (2,)})
    """
    for key in dict.fromkeys((*shapes, *values)):
        if key not in values or key not in shapes:
            raise TrainingError(
                f"the given parameters lack '{key}'"
                if key in shapes
                else f"the network has no parameter '{key}'",
                hint=f"the network has {', '.join(shapes)}",
            )
        if tuple(values[key].shape) != tuple(shapes[key]):
            raise TrainingError(
                f"parameter '{key}' has shape {tuple(values[key].shape)}",
                hint=f"the network has {tuple(shapes[key])}",
            )
        if not math.isfinite(float(np.sum(np.abs(values[key]), dtype=np.float64))):
            raise TrainingError(f"parameter '{key}' has entries that are not finite")
