"""Generated Torch modules, as the training loop sees them. Importing this file imports torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sifrc.errors import TrainingError
from sifrc.training.adapters import PeriodicModule, check_parameters, module_identity
from sifrc.training.inputs import input_shape, shaped
from sifrc.training.kept import Kept
from sifrc.training.periodic import Periodic
from sifrc.training.state import StateTree

__all__ = ["TorchModel", "TorchTrainable", "from_tree", "to_array", "to_tree"]


def _mean_over_steps(
    inputs: torch.Tensor,
    order: NDArray[np.int64],
    batch: int,
    step: Callable[[int, torch.Tensor], torch.Tensor],
) -> float:
    """Mean objective of the samples; ``step`` is given its number and the positions of its samples."""
    indices = torch.from_numpy(np.ascontiguousarray(order)).to(inputs.device)
    # The sum stays on the device: reading it in every step would wait for that step.
    total = torch.zeros((), dtype=torch.float64, device=inputs.device)
    for number, start in enumerate(range(0, len(indices), batch)):
        chosen = indices[start : start + batch]
        total += len(chosen) * step(number, chosen).detach().double()
    return float(total) / len(order)


class TorchModel:
    """What generated modules and the baselines share: a module, an optimizer, and arrays.

    Args:
        model: whose parameters are trained.
        optimizer: on those parameters.
        identity: see :class:`~sifrc.training.adapters.Trainable`.
        initial: parameters by name to start from, or None to keep the model's.
        shape: of a sample as the model takes it; nothing for rows of a data set as they are.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        optimizer: torch.optim.Optimizer,
        identity: Mapping[str, str],
        initial: Mapping[str, NDArray[Any]] | None = None,
        shape: tuple[int, ...] = (),
    ) -> None:
        """Keep model and optimizer, and set the initial parameters."""
        self._model = model
        self._shape = shape
        self._optimizer = optimizer
        self._identity = MappingProxyType(dict(identity))
        self._tensors: Kept[torch.Tensor] = Kept()
        if initial is not None:
            self.load_parameters(initial)

    @property
    def identity(self) -> Mapping[str, str]:
        """What a resumed run must agree in."""
        return self._identity

    @property
    def learning_rate(self) -> float:
        """That of the first parameter group."""
        return float(self._optimizer.param_groups[0]["lr"])

    def set_learning_rate(self, value: float) -> None:
        """Set it in every parameter group."""
        for group in self._optimizer.param_groups:
            group["lr"] = value

    def warm_up(self, inputs: NDArray[Any], targets: NDArray[Any], batch: int) -> None:
        """Move the data to the model's device; there is nothing to compile."""
        self._samples(inputs)
        self._tensor(targets)

    def train_chunk(
        self, inputs: NDArray[Any], targets: NDArray[Any], order: NDArray[np.int64], batch: int
    ) -> float:
        """Train on the samples ``order``; see :class:`~sifrc.training.adapters.Trainable`."""
        x, t = self._samples(inputs), self._tensor(targets)
        return _mean_over_steps(x, order, batch, lambda number, chosen: self._step(x[chosen], t[chosen]))

    def _step(self, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """One update; the objective before it."""
        raise NotImplementedError

    def parameters(self) -> dict[str, NDArray[Any]]:
        """A copy of the parameters, by name; bfloat16 as float32, which holds it exactly."""
        return {name: to_array(value) for name, value in self._named().items()}

    def load_parameters(self, values: Mapping[str, NDArray[Any]]) -> None:
        """Set the parameters."""
        own = self._named()
        check_parameters(values, {name: tuple(value.shape) for name, value in own.items()})
        with torch.no_grad():
            for name, parameter in own.items():
                parameter.copy_(torch.from_numpy(np.array(values[name])))

    def _named(self) -> dict[str, torch.Tensor]:
        """What makes the model what it is."""
        return {name: value.detach() for name, value in self._model.named_parameters()}

    def state(self) -> StateTree:
        """The optimizer's state, and that of torch's random numbers."""
        return {
            "optimizer": to_tree(self._optimizer.state_dict()),
            "buffers": to_tree(dict(self._model.named_buffers())),
            "random": torch.get_rng_state().numpy().copy(),
        }

    def load_state(self, state: StateTree) -> None:
        """Set them."""
        try:
            self._optimizer.load_state_dict(from_tree(state["optimizer"]))
            buffers = from_tree(state["buffers"])
            for name, buffer in self._model.named_buffers():
                buffer.copy_(buffers[name])
            torch.set_rng_state(torch.from_numpy(state["random"].copy()))
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise TrainingError(f"the state in the checkpoint is that of another method: {error}") from error

    def _samples(self, inputs: NDArray[Any]) -> torch.Tensor:
        """Inputs on the model's device, with the axes that it takes."""
        samples: torch.Tensor = shaped(self._tensor(inputs), self._shape)
        return samples

    def _tensor(self, array: NDArray[Any]) -> torch.Tensor:
        """The array on the model's device, in its dtype if it holds floats."""
        return self._tensors.of(array, self._converted)

    def _converted(self, array: NDArray[Any]) -> torch.Tensor:
        parameter = next(self._model.parameters())
        dtype = parameter.dtype if array.dtype.kind == "f" else torch.int64
        return torch.from_numpy(np.ascontiguousarray(array)).to(parameter.device, dtype)


class TorchTrainable(PeriodicModule, TorchModel):
    """A generated Torch module.

    Args:
        module: with ``Network``, ``initialize``, ``Optimizer``, ``predict``, ``loss`` and ``SPEC``.
        seed: see :func:`~sifrc.training.adapters.make_trainable`.
        initial: see there.
        hyperparameters: see there.
        device: where to train.
    """

    _backend = "torch"

    def __init__(
        self,
        module: Any,
        *,
        seed: int = 0,
        initial: Mapping[str, NDArray[Any]] | None = None,
        hyperparameters: Mapping[str, Any] = MappingProxyType({}),
        device: str = "cpu",
    ) -> None:
        """Make network and optimizer."""
        self._module = module
        model = module.Network().to(device)
        model.load_state_dict(module.initialize(seed))
        try:
            optimizer = module.Optimizer(model, **hyperparameters)
        except (TypeError, ValueError) as error:
            raise TrainingError(f"the method refuses its hyperparameters: {error}") from error
        identity = module_identity(module, "torch", hyperparameters)
        super().__init__(model, optimizer, identity, initial, input_shape(module))

    def _step(self, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        optimizer: Any = self._optimizer  # generated ones take data where torch takes a closure
        objective: torch.Tensor = optimizer.step(inputs, targets)
        return objective

    @property
    def _kept(self) -> Any:
        return self._optimizer

    @property
    def period(self) -> int:
        """Steps from one run of the periodic part to the next."""
        return int(self._optimizer.param_groups[0]["period"])

    def train_periodic(
        self,
        inputs: NDArray[Any],
        targets: NDArray[Any],
        order: NDArray[np.int64],
        batch: int,
        periodic: Periodic,
    ) -> float:
        """As ``train_chunk``; the optimizer asks for a curvature batch where it needs one."""
        x, t = self._samples(inputs), self._tensor(targets)
        optimizer: Any = self._optimizer

        def step(number: int, chosen: torch.Tensor) -> torch.Tensor:
            due = False

            def other() -> tuple[torch.Tensor, torch.Tensor]:
                nonlocal due
                due = True
                positions = periodic.positions(1)
                where = chosen if positions is None else torch.from_numpy(positions).to(x.device)
                return x[where], t[where]

            objective: torch.Tensor = optimizer.step(x[chosen], t[chosen], curvature=other)
            if due:
                periodic.found(number, optimizer)
            return objective

        return _mean_over_steps(x, order, batch, step)

    def predict(self, inputs: NDArray[Any]) -> NDArray[Any]:
        """Outputs of the network, (B, n_out)."""
        with torch.no_grad():
            return to_array(self._module.predict(self._named(), self._samples(inputs)))

    def loss(self, inputs: NDArray[Any], targets: NDArray[Any]) -> float:
        """Mean loss."""
        with torch.no_grad():
            loss = getattr(self._module, "evaluation_loss", self._module.loss)
            return float(loss(self._named(), self._samples(inputs), self._tensor(targets)))

    def _named(self) -> dict[str, torch.Tensor]:
        return {name: value.detach() for name, value in self._model.state_dict().items()}


def to_tree(value: Any) -> StateTree:
    """A state dict with arrays in place of tensors: ``("tensor", dtype, array)``.

    Example:
        >>> from_tree(to_tree({"step": torch.tensor(2.0)}))
        {'step': tensor(2.)}
    """
    if isinstance(value, torch.Tensor):
        dtype = str(value.dtype).removeprefix("torch.")
        return ("tensor", dtype, to_array(value))
    if isinstance(value, Mapping):
        return {key: to_tree(item) for key, item in value.items()}
    if isinstance(value, list):
        return [to_tree(item) for item in value]
    if isinstance(value, tuple):
        return ("tuple", *(to_tree(item) for item in value))
    return value


def from_tree(value: StateTree) -> Any:
    """The inverse of :func:`to_tree`."""
    if isinstance(value, Mapping):
        return {key: from_tree(item) for key, item in value.items()}
    if isinstance(value, list):
        return [from_tree(item) for item in value]
    if isinstance(value, tuple):
        kind, *rest = value
        if kind == "tensor":
            dtype, array = rest
            # A copy, since the optimizer writes into it.
            return torch.from_numpy(np.array(array)).to(getattr(torch, dtype))
        return tuple(from_tree(item) for item in rest)
    return value


def to_array(tensor: torch.Tensor) -> NDArray[Any]:
    """A copy on the host; NumPy has no bfloat16, and float32 holds it exactly."""
    tensor = tensor.float() if tensor.dtype == torch.bfloat16 else tensor
    return tensor.detach().cpu().numpy().copy()
