"""Operators whose products are functions of a generated module, added up over the batches."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from sifrc.errors import DerivationError, OperatorError
from sifrc.linear.batches import Batch, Batches
from sifrc.linear.binding import Binding
from sifrc.linear.operator import LinearOperator
from sifrc.linear.progress import Watch
from sifrc.linear.space import Space

__all__ = ["Applied", "Jacobian", "Point", "Product"]

Apply = Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]]
"""A product by the names of generated modules."""


@dataclass(frozen=True)
class Point:
    """Parameters and data: what the operators of one call have in common.

    Args:
        binding: of the model.
        batches: the data.
        seed: of what layers and sampled kinds draw.
        watch: shows how far long work is.
    """

    binding: Binding
    batches: Batches
    seed: int
    watch: Watch

    def call(self, function: Callable[..., Any], batch: Batch, *more: Any, **named: Any) -> Any:
        """A function of a generated module at a batch; numbers are drawn anew for each batch.

        Raises:
            OperatorError: the batch is none for the network.
        """
        seed = self.binding.seed(function, self.seed + batch.number)
        try:
            return function(self.binding.values, batch.inputs, batch.targets, *more, **named, **seed)
        except (TypeError, ValueError) as error:
            raise OperatorError(f"{batch.where}: {error}", hint="data as the network takes it") from error

    def added(self, what: str, each: Callable[[Batch], Mapping[str, Tensor]]) -> dict[str, Tensor]:
        """Σ of what there is for each batch, by what it counts in the objective."""
        total: dict[str, Tensor] = {}
        batches, weights = self.batches.each, self.batches.weights
        with self.watch.steps(what, len(batches)) as done:
            for batch, weight in zip(batches, weights, strict=True):
                for name, value in each(batch).items():
                    found = value if weight == 1.0 else value * weight
                    total[name] = total[name] + found if name in total else found
                done()
        return total

    def flat(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """Tensors by the names of generated modules, in the caller's order."""
        return torch.cat([tensors[name].reshape(-1) for name in self.binding.names.values()])

    def named(self, vector: Tensor) -> dict[str, Tensor]:
        """The tensors of a flat vector by the names of generated modules, as views."""
        return self.binding.generated(self.space.split(vector))

    @cached_property
    def space(self) -> Space:
        """Of the parameters."""
        return self.binding.space


class Product(LinearOperator):
    """A symmetric matrix of parameters by parameters; the point of a single batch is kept.

    Args:
        name: for errors.
        point: where.
        operator: of the catalogue, whose module has ``linearize``.
        matrix: as ``linearize`` calls it.
        kind: of curvature that has the same diagonal.
    """

    def __init__(self, name: str, point: Point, operator: str, matrix: str, kind: str) -> None:
        super().__init__(name, point.space, point.space, symmetric=True, watch=point.watch)
        self.point, self._operator, self._matrix, self._kind = point, operator, matrix, kind

    @cached_property
    def _linearize(self) -> Callable[..., Apply]:
        found: Callable[..., Apply] = self.point.binding.module(self._operator).linearize
        return found

    def _at(self, batch: Batch) -> Apply:
        found: Apply = self.point.call(self._linearize, batch, kind=self._matrix)
        return found

    @cached_property
    def _kept(self) -> Apply:
        """The product at the only batch."""
        (batch,) = self.point.batches.each
        return self._at(batch)

    def apply(self, vector: Tensor) -> Tensor:
        point = self.point
        given = point.named(vector)
        if len(point.batches.each) == 1:
            return point.flat(self._kept(given))
        return point.flat(point.added(f"{self.name} @ v", lambda batch: self._at(batch)(given)))

    def apply_many(self, vectors: Tensor) -> Tensor:
        batches, weights = self.point.batches.each, self.point.batches.weights
        if len(batches) == 1:
            return super().apply_many(vectors)
        # One linearization of each batch serves all vectors.
        found = torch.zeros_like(vectors)
        count = len(batches) * vectors.shape[1]
        with self.watch.steps(f"{self.name} @ matrix", count) as done:
            for batch, weight in zip(batches, weights, strict=True):
                product = self._at(batch)
                for k, vector in enumerate(vectors.T):
                    given = self.point.named(vector.contiguous())
                    found[:, k].add_(self.point.flat(product(given)), alpha=weight)
                    done()
        return found

    def exact_diagonal(self) -> Tensor | None:
        return None if self._exact_diagonal is None else self._exact_diagonal.clone()

    @cached_property
    def _exact_diagonal(self) -> Tensor | None:
        try:
            function = self.point.binding.module("diagonal", (self._kind,)).diagonal
        except DerivationError:  # no blocks for this network, or too large ones
            return None
        found = self.point.added(
            f"diagonal of {self.name}", lambda batch: self.point.call(function, batch, kind=self._kind)
        )
        return self.point.flat(found)

    def exact_trace(self) -> float | None:
        return self._exact_trace

    @cached_property
    def _exact_trace(self) -> float | None:
        try:
            function = self.point.binding.module("trace", (self._kind,)).trace
        except DerivationError:
            return None
        found = self.point.added(
            f"trace of {self.name}", lambda batch: self.point.call(function, batch, kind=self._kind)
        )
        return float(found["whole"])


class Applied(LinearOperator):
    """A symmetric matrix whose products are a generated function of vectors, such as one of its blocks.

    Args:
        name: for errors.
        point: where.
        function: of parameters, inputs, targets and a vector.
        named: its further arguments.
    """

    def __init__(
        self, name: str, point: Point, function: Callable[..., Any], named: Mapping[str, Any]
    ) -> None:
        super().__init__(name, point.space, point.space, symmetric=True, watch=point.watch)
        self.point, self._function, self._named = point, function, dict(named)

    def apply(self, vector: Tensor) -> Tensor:
        point, given = self.point, self.point.named(vector)
        found = point.added(
            f"{self.name} @ v", lambda batch: point.call(self._function, batch, given, **self._named)
        )
        return point.flat(found)


OUTPUTS = "outputs"
"""Name of the only tensor in the space of the outputs."""


class Jacobian(LinearOperator):
    """Derivatives of the outputs of all samples, one after the other, by the parameters.

    Args:
        point: where.
    """

    def __init__(self, point: Point) -> None:
        spec, own = point.binding.spec, point.space
        shape = (point.batches.samples, *spec.layers[-1].shape)
        super().__init__(
            "J", Space({OUTPUTS: shape}, own.dtype, own.device), own, symmetric=False, watch=point.watch
        )
        self.point = point

    def apply(self, vector: Tensor) -> Tensor:
        point, given = self.point, self.point.named(vector)
        function = point.binding.module("jacobian_vector_product").jacobian_vector_product
        found = []
        with self.watch.steps("J @ v", len(point.batches.each)) as done:
            for batch in point.batches.each:
                found.append(point.call(function, batch, given)[OUTPUTS].reshape(-1))
                done()
        return torch.cat(found)

    def apply_transposed(self, vector: Tensor) -> Tensor:
        """The gradient of ⟨y, t⟩, added up over the samples, with the cotangents for targets t."""
        point = self.point
        gradient = point.binding.module("gradient", loss=_INNER).gradient
        cotangents = iter(
            torch.split(
                self.rows.split(vector)[OUTPUTS], [len(batch.targets) for batch in point.batches.each]
            )
        )

        def pulled(batch: Batch) -> Mapping[str, Tensor]:
            found: Mapping[str, Tensor] = point.call(gradient, replace(batch, targets=next(cotangents)))
            return found

        return point.flat(
            replace(point, batches=replace(point.batches, summed=True)).added("J.T @ v", pulled)
        )


_INNER: Mapping[str, Any] = MappingProxyType(
    {"expression": "dot(y, t)", "targets": "vectors", "reduction": "sum", "places": "sum"}
)
"""A loss whose gradient is the transposed Jacobian times the targets."""
