"""Generated Numba modules, as the training loop sees them: functions over arrays that lie somewhere."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from contextlib import suppress
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sifrc.errors import TrainingError
from sifrc.training.adapters import PeriodicModule, check_parameters, module_identity
from sifrc.training.inputs import input_shape, shaped
from sifrc.training.periodic import Periodic
from sifrc.training.state import StateTree

__all__ = ["NumbaTrainable"]

_NO_OPTIONS: Mapping[str, Any] = MappingProxyType({})
_RATE_NAMES = ("learning_rate", "lr")


class NumbaTrainable(PeriodicModule):
    """A generated Numba module: whole chunks of an epoch run compiled.

    Args:
        module: with ``init``, ``State``, ``train_epoch``, ``predict``, ``loss`` and ``SPEC``.
        seed: see :func:`~sifrc.training.make_trainable`.
        initial: see there.
        hyperparameters: see there.
    """

    _backend = "numba"

    def __init__(
        self,
        module: Any,
        *,
        seed: int = 0,
        initial: Mapping[str, NDArray[Any]] | None = None,
        hyperparameters: Mapping[str, Any] = _NO_OPTIONS,
    ) -> None:
        """Make parameters and method state."""
        self._module = module
        self._shape = input_shape(module)
        self._hyperparameters = dict(hyperparameters)
        self._parameters = self._all_placed(module.init(seed))
        if initial is not None:
            self.load_parameters(initial)
        self._state = self._new_state(self._parameters)

    # -- where arrays are: here, in the memory of the process

    def _placed(self, array: Any) -> Any:
        """An array of the process's memory, where the module computes."""
        return array

    def _copied(self, array: Any) -> NDArray[Any]:
        """A copy in the process's memory."""
        return np.array(array)

    def _put(self, array: Any, values: NDArray[Any]) -> None:
        """Fill an array where the module computes."""
        array[...] = values

    def _samples(self, inputs: NDArray[Any]) -> Any:
        """Inputs where the module computes, with the axes that it takes."""
        return shaped(inputs, self._shape)

    def _targets(self, targets: NDArray[Any]) -> Any:
        """Targets there."""
        return targets

    def _all_placed(self, arrays: Mapping[str, Any]) -> dict[str, Any]:
        return {key: self._placed(value) for key, value in arrays.items()}

    # -- what the loop asks for

    def _new_state(self, parameters: Mapping[str, Any]) -> Any:
        try:
            return self._module.State(parameters, **self._hyperparameters)
        except (TypeError, ValueError) as error:
            raise TrainingError(f"the method refuses its hyperparameters: {error}") from error

    @property
    def identity(self) -> Mapping[str, str]:
        """Spec, backend and hyperparameters."""
        return module_identity(self._module, self._backend, self._hyperparameters)

    @property
    def learning_rate(self) -> float:
        """The current learning rate, read from the method's state."""
        state = self._state.state_dict()
        return float(state[_rate_name(state)])

    def set_learning_rate(self, value: float) -> None:
        """Set it in the method's state."""
        state = dict(self._state.state_dict())
        state[_rate_name(state)] = value
        self._state.load_state_dict(state)

    def warm_up(self, inputs: NDArray[Any], targets: NDArray[Any], batch: int) -> None:
        """One step on copies of parameters and state; its numbers are thrown away."""
        parameters = self._all_placed(self.parameters())
        state = self._new_state(parameters)
        state.load_state_dict(copy.deepcopy(self._state.state_dict()))
        samples, labels = self._samples(inputs), self._targets(targets)
        order = np.arange(min(batch, len(inputs)))
        # A step that is refused here is refused again in training, where it is reported.
        with suppress(FloatingPointError):
            self._module.train_epoch(parameters, state, samples, labels, order, batch=batch)

    def train_chunk(
        self, inputs: NDArray[Any], targets: NDArray[Any], order: NDArray[np.int64], batch: int
    ) -> float:
        """Train on the samples ``order``; see :class:`Trainable`."""
        samples, labels = self._samples(inputs), self._targets(targets)
        objective = self._module.train_epoch(
            self._parameters, self._state, samples, labels, order, batch=batch
        )
        return float(objective)

    @property
    def _kept(self) -> Any:
        return self._state

    @property
    def period(self) -> int:
        """Steps from one run of the periodic part to the next."""
        return int(self._state.period)

    def train_periodic(
        self,
        inputs: NDArray[Any],
        targets: NDArray[Any],
        order: NDArray[np.int64],
        batch: int,
        periodic: Periodic,
    ) -> float:
        """As ``train_chunk``; each call into compiled code ends before the summary after a recorded one."""
        state, total, position = self._state, 0.0, 0
        samples, labels = self._samples(inputs), self._targets(targets)
        whole = len(order) - len(order) % batch
        while position < len(order):
            before = max(0, state.period - state.age)  # steps until the next summary
            wanted = periodic.until_record()
            steps = min((whole - position) // batch or 1, before + wanted * state.period)
            count = max(0, math.ceil((steps - before) / state.period))
            chosen = periodic.positions(count)
            options = {} if chosen is None else {"curvature_order": chosen, "curvature_batch": periodic.size}
            part = order[position : position + steps * batch]
            objective = self._module.train_epoch(
                self._parameters, state, samples, labels, part, batch=batch, **options
            )
            total += float(objective) * len(part)
            if count == wanted:
                periodic.found(position // batch + before + (count - 1) * state.period, state)
            position += len(part)
        return total / len(order)

    def predict(self, inputs: NDArray[Any]) -> NDArray[Any]:
        """Outputs of the network, (B, n_out)."""
        return self._copied(self._module.predict(self._parameters, self._samples(inputs)))

    def loss(self, inputs: NDArray[Any], targets: NDArray[Any]) -> float:
        """Mean loss."""
        loss = getattr(self._module, "evaluation_loss", self._module.loss)
        return float(loss(self._parameters, self._samples(inputs), self._targets(targets)))

    def parameters(self) -> dict[str, NDArray[Any]]:
        """A copy of the parameters."""
        return {key: self._copied(value) for key, value in self._parameters.items()}

    def load_parameters(self, values: Mapping[str, NDArray[Any]]) -> None:
        """Set the parameters in place, since the method's state may refer to the arrays."""
        check_parameters(values, {key: value.shape for key, value in self._parameters.items()})
        for key, value in values.items():
            self._put(self._parameters[key], value)

    def state(self) -> StateTree:
        """The method's state."""
        return self._state.state_dict()

    def load_state(self, state: StateTree) -> None:
        """Set the method's state."""
        ours = self._state.state_dict()
        if not isinstance(state, Mapping) or state.keys() != ours.keys():
            raise TrainingError(
                "the state in the checkpoint is that of another method",
                hint=f"a state with {', '.join(map(str, ours))}",
            )
        self._state.load_state_dict(state)


def _rate_name(state: Mapping[str, Any]) -> str:
    """The key of the learning rate in a method's state."""
    found = [name for name in _RATE_NAMES if name in state]
    if not found:
        raise TrainingError("the method has no learning rate, so a schedule does not apply to it")
    return found[0]
