"""Generated CUDA modules, as the training loop sees them: parameters, state and data are on the device."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sifrc.extras import MissingFramework, optional
from sifrc.simulation import needs_device, prepare
from sifrc.training.inputs import shaped
from sifrc.training.kept import Kept
from sifrc.training.numba_adapter import NumbaTrainable

__all__ = ["CudaTrainable"]

_USER = "training a CUDA module"


class CudaTrainable(NumbaTrainable):
    """A generated CUDA module: functions as those of a Numba module, over arrays on the device.

    Args:
        module: see :class:`~sifrc.training.NumbaTrainable`.
        seed: see :func:`~sifrc.training.make_trainable`.
        initial: see there.
        hyperparameters: see there.

    Raises:
        MissingDevice: there is no device, and Numba's simulator is not asked for.
    """

    _backend = "cuda"

    def __init__(
        self,
        module: Any,
        *,
        seed: int = 0,
        initial: Mapping[str, NDArray[Any]] | None = None,
        hyperparameters: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        """Find the device; make parameters and method state there."""
        if needs_device(_USER):
            prepare(module, _USER)
        self._cuda = optional("numba.cuda", _USER, MissingFramework)
        self._data: Kept[Any] = Kept()
        super().__init__(module, seed=seed, initial=initial, hyperparameters=hyperparameters)

    def _placed(self, array: Any) -> Any:
        return self._cuda.to_device(np.ascontiguousarray(array))

    def _copied(self, array: Any) -> NDArray[Any]:
        return np.asarray(array.copy_to_host())

    def _put(self, array: Any, values: NDArray[Any]) -> None:
        array.copy_to_device(np.ascontiguousarray(values, array.dtype))

    def _samples(self, inputs: NDArray[Any]) -> Any:
        return self._data.of(inputs, lambda array: self._placed(shaped(array, self._shape)))

    def _targets(self, targets: NDArray[Any]) -> Any:
        return self._data.of(targets, self._placed)
