"""torch.optim's SGD and Adam, to compare generated methods with. Importing this file imports torch.

The rivals get the same network, the same initial parameters and the same order of samples, and run
in the same loop, so that a comparison differs in the method alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from numpy.typing import NDArray

from sifrc.extras import importing

with importing("sifrc.training.baselines", "torch"):
    import torch

    from sifrc.training.torch_adapter import TorchModel, to_array

__all__ = ["TorchBaseline", "adam", "sgd"]


class TorchBaseline(TorchModel):
    """Any optimizer of gradients on any module.

    Args:
        model_factory: makes the network; it runs with torch's random numbers seeded by ``seed``.
        loss: of (outputs (B, n_out), targets), the mean over the batch.
        optimizer_factory: makes the optimizer of the parameters it is given.
        initial: parameters by the module's names to start from.
        seed: of the network's own initialisation.
        regularization: of (model, inputs), added to the loss in training only; None adds nothing.
        shape: of a sample as the network takes it, e.g. (8, 8) for rows of 64 numbers; nothing to give
            it the rows as they are.
        identity: more that a resumed run must agree in; the optimizer's class, its settings, the shapes of
            the parameters and that of a sample are in already.

    Example:
        >>> import numpy as np
        >>> rival = sgd(lambda: torch.nn.Linear(2, 1), torch.nn.functional.mse_loss, lr=0.1)
        >>> x, t = np.ones((4, 2), np.float32), np.ones((4, 1), np.float32)
        >>> before = rival.loss(x, t)
        >>> _ = rival.train_chunk(x, t, np.arange(4), batch=2)
        >>> rival.loss(x, t) < before
        True
    """

    def __init__(
        self,
        model_factory: Callable[[], torch.nn.Module],
        loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
        optimizer_factory: Callable[[list[torch.nn.Parameter]], torch.optim.Optimizer],
        *,
        initial: Mapping[str, NDArray[Any]] | None = None,
        seed: int = 0,
        regularization: Callable[[torch.nn.Module, torch.Tensor], torch.Tensor] | None = None,
        shape: tuple[int, ...] = (),
        identity: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """Make network and optimizer."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = model_factory()
        optimizer = optimizer_factory(list(model.parameters()))
        self._loss = loss
        self._regularization = regularization
        shapes = [f"{name} {tuple(value.shape)}" for name, value in model.named_parameters()]
        own = {
            "network": ", ".join(shapes),
            "optimizer": f"{type(optimizer).__name__} {optimizer.defaults}",
        }
        if len(shape) > 1:
            own["shape of a sample"] = str(shape)
        super().__init__(model, optimizer, {**own, **identity}, initial, shape)

    def _step(self, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        self._optimizer.zero_grad(set_to_none=True)
        objective = self._loss(self._model(inputs), targets)
        if self._regularization is not None:
            objective = objective + self._regularization(self._model, inputs)
        objective.backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()
        return objective.detach()

    def predict(self, inputs: NDArray[Any]) -> NDArray[Any]:
        """Outputs of the network, (B, n_out)."""
        return to_array(self._evaluated(inputs))

    def loss(self, inputs: NDArray[Any], targets: NDArray[Any]) -> float:
        """Mean loss."""
        return float(self._loss(self._evaluated(inputs), self._tensor(targets)))

    def _evaluated(self, inputs: NDArray[Any]) -> torch.Tensor:
        """Outputs by running statistics and without dropout, neither of which it changes."""
        self._model.eval()
        try:
            with torch.no_grad():
                output: torch.Tensor = self._model(self._samples(inputs))
        finally:
            self._model.train()
        return output

    def _named(self) -> dict[str, torch.Tensor]:
        # Running statistics belong to what a network begins with, as its parameters do.
        statistics = {name: value for name, value in self._model.named_buffers() if value.is_floating_point()}
        return {**super()._named(), **statistics}


def sgd(
    model_factory: Callable[[], torch.nn.Module],
    loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    *,
    lr: float,
    momentum: float = 0.0,
    nesterov: bool = False,
    weight_decay: float = 0.0,
    **options: Any,
) -> TorchBaseline:
    """``torch.optim.SGD``; ``options`` are those of :class:`TorchBaseline`."""

    def make(parameters: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.SGD(
            parameters, lr=lr, momentum=momentum, nesterov=nesterov, weight_decay=weight_decay
        )

    return TorchBaseline(model_factory, loss, make, **options)


def adam(
    model_factory: Callable[[], torch.nn.Module],
    loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    *,
    lr: float,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    **options: Any,
) -> TorchBaseline:
    """``torch.optim.Adam``; ``options`` are those of :class:`TorchBaseline`."""

    def make(parameters: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.Adam(parameters, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay)

    return TorchBaseline(model_factory, loss, make, **options)
