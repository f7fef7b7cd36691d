"""Laplace approximation by laplace-torch, with curvature by sifrc.

    pip install "sifrc[examples]"
    python examples/with_laplace.py

``SifrcGGN`` and ``SifrcEF`` are backends as laplace-torch's own: ``Laplace(…, backend=SifrcGGN)``. They give
full matrices, diagonals and Kronecker factors, of all layers, of the last one or of a part of the parameters,
and the Jacobians of predictions. The module is traced once; every batch goes through generated functions.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from laplace import Laplace
from laplace.curvature import CurvatureInterface, CurvlinopsGGN, EFInterface, GGNInterface
from laplace.utils import Kron
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import sifrc
from sifrc.linear import CurvatureOperators, LinearOperator

OUTPUTS = {"expression": "dot(y, t)", "targets": "vectors", "reduction": "sum", "places": "sum"}
"""A loss whose gradient for the target e_k is that of output k."""


class SifrcInterface(CurvatureInterface):
    """What both backends have in common; which matrix it is, they say."""

    factors_of: str
    """Kind of curvature of the Kronecker factors."""

    def matrix(self, operators: CurvatureOperators) -> LinearOperator:
        """Of all parameters, for the sum of the losses."""
        raise NotImplementedError

    def full(self, x: Any, y: Tensor, **_: Any) -> tuple[Tensor, Tensor]:
        operators = self._operators(x, y)
        found = self.factor * self.matrix(operators).to_dense()
        if self.subnetwork_indices is not None:
            found = found[self.subnetwork_indices][:, self.subnetwork_indices]
        return self._loss(operators), found

    def diag(self, x: Any, y: Tensor, **_: Any) -> tuple[Tensor, Tensor]:
        operators = self._operators(x, y)
        found = self.factor * self.matrix(operators).diagonal("exact").value
        if self.subnetwork_indices is not None:
            found = found[self.subnetwork_indices]
        return self._loss(operators), found

    def kron(self, x: Any, y: Tensor, N: int, kfac_approx: Any = None, **_: Any) -> tuple[Tensor, Kron]:
        operators = self._operators(x, y)
        found = operators.kronecker(self.factors_of, sharing=kfac_approx)
        share = len(y) / N  # batches are added up: sums of the left factors, the mean of the right ones
        parts = (found.factors[name] for name in found.rows.shapes)
        factors = Kron([[p.rows] if p.columns is None else [p.rows, share * p.columns] for p in parts])
        return self._loss(operators), self.factor * factors

    def jacobians(self, x: Any, enable_backprop: bool = False) -> tuple[Tensor, Tensor]:
        if enable_backprop:  # the graph back to x is torch's
            return super().jacobians(x, enable_backprop)
        spec, module, params, inputs = self._samples(x, OUTPUTS)
        outputs = module.predict(params, inputs)
        rows = []
        for target in torch.eye(outputs[0].numel(), dtype=outputs.dtype, device=outputs.device):
            targets = target.view(outputs.shape[1:]).expand_as(outputs)
            rows.append(self._joined(spec, module.per_sample_gradients(params, inputs, targets)))
        return torch.stack(rows, 1), outputs.flatten(1)

    def gradients(self, x: Any, y: Tensor) -> tuple[Tensor, Tensor]:
        spec, module, params, inputs = self._samples(x, self.lossfunc)
        found = self._joined(spec, module.per_sample_gradients(params, inputs, y))
        return found, module.loss(params, inputs, y)

    # -- of sifrc

    def _part(self, x: Any) -> tuple[nn.Module, Any]:
        """The module whose parameters count, and what it reads: the last layer reads the features."""
        if isinstance(x, Mapping):
            x = {name: value for name, value in x.items() if name != self.dict_key_y}
        if not self.last_layer:
            return self.model, x
        with torch.no_grad():
            return self.model.last_layer, self.model.forward_with_features(x)[1]

    def _spec(self, inputs: Any, loss: Any) -> sifrc.Spec:
        """Of the module with a loss; traced when it is first asked for."""
        specs = self.__dict__.setdefault("_specs", {})
        key = self.last_layer, str(loss)
        if key not in specs:
            specs[key] = sifrc.from_torch(self._model, inputs, loss)
        found: sifrc.Spec = specs[key]
        return found

    def _operators(self, x: Any, y: Tensor) -> CurvatureOperators:
        model, inputs = self._part(x)
        spec, seed = self._spec(inputs, self.lossfunc), int(torch.randint(2**31, ()))
        return sifrc.operators(model, None, (inputs, y), spec=spec, seed=seed, progress=False)

    def _loss(self, operators: CurvatureOperators) -> Tensor:
        return self.factor * torch.tensor(operators.objective(), dtype=self.params[0].dtype)

    def _samples(self, x: Any, loss: Any) -> tuple[sifrc.Spec, Any, dict[str, Tensor], Any]:
        """A spec, its module, its parameters, and inputs, for functions of each sample."""
        model, inputs = self._part(x)
        spec = self._spec(inputs, loss)
        module: Any = sifrc.compile(spec, "torch", "none", ("per_sample_gradients", "loss"))
        held = dict(model.named_parameters()) | dict(model.named_buffers())
        names = (*module.SHAPES, *getattr(module, "BUFFERS", ()))
        return spec, module, {name: held[spec.names.get(name, name)].detach() for name in names}, inputs

    def _joined(self, spec: sifrc.Spec, found: Mapping[str, Tensor]) -> Tensor:
        """(B, parameters), in the order of the model's."""
        own = {spec.names.get(name, name): value.flatten(1) for name, value in found.items()}
        rows = torch.cat([own[name] for name, _ in self._model.named_parameters() if name in own], 1)
        return rows if self.subnetwork_indices is None else rows[:, self.subnetwork_indices]


class SifrcGGN(SifrcInterface, GGNInterface):
    """The Gauss–Newton matrix, or, ``stochastic``, the Fisher matrix at targets drawn from the model."""

    @property
    def factors_of(self) -> str:  # type: ignore[override]
        return "sampled_fisher" if self.stochastic else "ggn"

    def matrix(self, operators: CurvatureOperators) -> LinearOperator:
        if not self.stochastic:
            return operators.G
        return operators.F("sampled", samples=self.num_samples, seed=int(torch.randint(2**31, ())))


class SifrcEF(SifrcInterface, EFInterface):
    """The empirical Fisher matrix."""

    factors_of = "empirical_fisher"

    def matrix(self, operators: CurvatureOperators) -> LinearOperator:
        return operators.F("empirical")


def spiral() -> tuple[Tensor, Tensor]:
    """Points of three arms in the plane, and the arm."""
    draw = torch.Generator().manual_seed(0)
    arm = torch.arange(150) % 3
    along = torch.rand(150, generator=draw, dtype=torch.float64)
    angle = 4.0 * along + 2.0943951 * arm + 0.2 * torch.randn(150, generator=draw, dtype=torch.float64)
    return torch.stack([along * angle.cos(), along * angle.sin()], 1), arm


def trained() -> nn.Module:
    """A network that tells the arms apart."""
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Linear(2, 20), nn.Tanh(), nn.Linear(20, 20), nn.Tanh(), nn.Linear(20, 3)
    ).double()
    points, arms = spiral()
    optimizer = torch.optim.Adam(network.parameters(), lr=0.02, weight_decay=1e-3)
    for _ in range(300):
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(points), arms).backward()
        optimizer.step()
    return network.eval()


def approximation(network: nn.Module, backend: type[CurvatureInterface], layers: str, structure: str) -> Any:
    """A fitted posterior."""
    posterior = Laplace(
        network, "classification", subset_of_weights=layers, hessian_structure=structure, backend=backend
    )
    posterior.fit(DataLoader(TensorDataset(*spiral()), batch_size=50))
    return posterior


def main() -> None:
    network = trained()
    print("log marginal likelihood of the training data, by the backend of sifrc and by curvlinops:")
    for layers in ("all", "last_layer"):
        for structure in ("full", "kron", "diag"):
            own, other = (approximation(network, one, layers, structure) for one in (SifrcGGN, CurvlinopsGGN))
            values = [float(one.log_marginal_likelihood().detach()) for one in (own, other)]
            print(f"  {layers:10} {structure:4}  {values[0]:9.4f}  {values[1]:9.4f}")
    posterior = approximation(network, SifrcGGN, "all", "kron")
    posterior.optimize_prior_precision(pred_type="glm", method="marglik")
    found = float(posterior.prior_precision[0])
    print(f"prior precision of the first tensor by marginal likelihood: {found:.3f}")
    for name, at in {"on an arm": spiral()[0][:1], "far away": torch.tensor([[4.0, 4.0]]).double()}.items():
        plain = torch.softmax(network(at), 1).max().item()
        print(f"largest probability {name}: network {plain:.3f}, Laplace {posterior(at).max().item():.3f}")


if __name__ == "__main__":
    main()
