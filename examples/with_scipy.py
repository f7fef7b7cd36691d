"""Train a network with SciPy's ``minimize(method="trust-krylov")`` to a minimum, and look at the Hessian.

    pip install "sifrc[torch,data]"
    python examples/with_scipy.py

The objective, its gradient and products with its Hessian are generated functions in float64; SciPy has flat
arrays. At the end the gradient is zero to rounding and ``eigsh`` finds the ends of the spectrum: a minimum
is one where the smallest eigenvalue is positive.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import OptimizeResult, minimize
from scipy.sparse.linalg import LinearOperator, eigsh
from sklearn.datasets import load_digits
from torch import Tensor, nn

import sifrc

Array = NDArray[np.float64]
DECAY = 1e-3


@dataclass
class Problem:
    """The objective of a network on a batch, as SciPy takes it.

    Args:
        model: in float64; its parameters are the start.
        loss: as for ``sifrc.from_torch``.
        batch: inputs and targets.
        decay: λ of λ/2 ‖θ‖², without which the weights of a separable problem grow for ever.
    """

    model: nn.Module
    loss: nn.Module
    batch: tuple[Tensor, Tensor]
    decay: float = DECAY
    products: int = 0
    _at: tuple[bytes, Callable[..., Any]] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        term = {"parameters": self.decay}
        spec = sifrc.from_torch(self.model, self.batch[0], self.loss, regularization=term)
        operators = ("objective_and_gradient", "hessian_vector_product")
        self._module: Any = sifrc.compile(spec, operators=operators)
        self._names = {name: spec.names.get(name, name) for name in self._module.SHAPES}

    def start(self) -> Array:
        """The model's parameters."""
        own = dict(self.model.named_parameters())
        return self._flat({name: own[given].detach() for name, given in self._names.items()})

    def value(self, flat: Array) -> tuple[float, Array]:
        """Objective and gradient."""
        objective, gradient = self._module.objective_and_gradient(self._named(flat), *self.batch)
        return float(objective), self._flat(gradient)

    def product(self, flat: Array, vector: Array) -> Array:
        """The Hessian times a vector; the forward pass is that of the first vector at each point."""
        key = flat.tobytes()
        if self._at is None or self._at[0] != key:
            self._at = key, self._module.linearize(self._named(flat), *self.batch)
        self.products += 1
        return self._flat(self._at[1](self._named(vector)))

    def hessian(self, flat: Array) -> LinearOperator:
        """The Hessian at a point."""

        def product(vector: Array) -> Array:
            return self.product(flat, vector.reshape(-1))

        return LinearOperator((len(flat), len(flat)), product, dtype=flat.dtype)

    def put(self, flat: Array) -> None:
        """Write parameters into the model."""
        found = self._named(flat)
        self.model.load_state_dict({self._names[name]: value for name, value in found.items()}, strict=False)

    def _named(self, flat: Array) -> dict[str, Tensor]:
        shapes = self._module.SHAPES
        parts = torch.from_numpy(np.array(flat)).split([int(np.prod(shape)) for shape in shapes.values()])
        return {name: part.reshape(shape) for (name, shape), part in zip(shapes.items(), parts, strict=True)}

    def _flat(self, named: dict[str, Tensor]) -> Array:
        return torch.cat([named[name].reshape(-1) for name in self._module.SHAPES]).numpy()


def digits(samples: int = 300) -> Problem:
    """A network for images of digits."""
    images, labels = load_digits(return_X_y=True)
    batch = torch.from_numpy(images[:samples] / 16.0), torch.from_numpy(labels[:samples]).long()
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 10), nn.Tanh(), nn.Linear(10, 10)).double()
    return Problem(model, nn.CrossEntropyLoss(), batch)


def trained(problem: Problem, tolerance: float = 1e-6) -> OptimizeResult:
    """The minimum that SciPy finds, written into the model."""
    found = minimize(
        problem.value,
        problem.start(),
        jac=True,
        hessp=problem.product,
        method="trust-krylov",
        options={"gtol": tolerance, "maxiter": 500},
    )
    problem.put(found.x)
    return found


def main() -> None:
    problem = digits()
    found = trained(problem)
    inputs, targets = problem.batch
    right = int((problem.model(inputs).argmax(1) == targets).sum())
    print(f"{found.message} {len(found.x)} parameters")
    print(f"objective {found.fun:.6f}, gradient below 1e-6: {np.linalg.norm(found.jac) < 1e-6}")
    print(f"{right} of {len(targets)} images are classified right")
    hessian = problem.hessian(found.x)
    largest = eigsh(hessian, k=3, which="LA", return_eigenvectors=False)
    smallest = eigsh(hessian, k=1, which="SA", return_eigenvectors=False, ncv=100)
    print("largest eigenvalues:", ", ".join(f"{value:.4f}" for value in largest[::-1]))
    print(f"smallest eigenvalue: {smallest[0]:.2e}, that of a minimum")


if __name__ == "__main__":
    main()
