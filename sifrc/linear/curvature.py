"""The curvature operators of one model, loss and data."""

from __future__ import annotations

import html
from collections.abc import Mapping
from functools import cached_property
from inspect import signature
from types import MappingProxyType
from typing import Any, Literal

from torch import Tensor

from sifrc.errors import OperatorError
from sifrc.linear.algebra import Identity
from sifrc.linear.kronecker import Factors, Kronecker
from sifrc.linear.operator import LinearOperator
from sifrc.linear.products import Applied, Jacobian, Point, Product
from sifrc.linear.samples import Moment, sample_gradients
from sifrc.linear.space import Form, Space, Vector
from sifrc.markup import html_table
from sifrc.spec.partition import groups_of
from sifrc.spec.settings import WindowSpec
from sifrc.spec.suggest import did_you_mean

__all__ = ["CurvatureOperators"]


class CurvatureOperators:
    """Curvature operators at the parameters that a model has when this is made.

    Args:
        point: parameters and data.

    Attributes:
        space: of the parameters, by the model's own names.
    """

    def __init__(self, point: Point) -> None:
        self._point = point
        self.space: Space = point.space

    def __repr__(self) -> str:
        batches = self._point.batches
        return (
            f"<operators of {self._point.binding.spec.name}: {self.space.size} parameters, {batches.samples} "
            f"samples in {len(batches.each)} batches>"
        )

    def _repr_html_(self) -> str:
        """For notebooks: the parameters that the operators act on."""
        sizes = zip(self.space.shapes.items(), self.space.sizes, strict=True)
        rows = [(name, " × ".join(map(str, shape)), str(size)) for (name, shape), size in sizes]
        return f"<p>{html.escape(repr(self)[1:-1])}</p>{html_table(('parameter', 'shape', 'entries'), rows)}"

    @property
    def name(self) -> str:
        """Of the network."""
        return self._point.binding.spec.name

    @property
    def samples(self) -> int:
        """Of all batches."""
        return self._point.batches.samples

    # -- operators

    @cached_property
    def H(self) -> LinearOperator:
        """The Hessian of the objective."""
        return Product("H", self._point, "hessian_vector_product", "hessian", "hessian")

    @cached_property
    def G(self) -> LinearOperator:
        """The Gauss–Newton matrix of the loss."""
        return Product("G", self._point, "gauss_newton_vector_product", "gauss_newton", "ggn")

    @cached_property
    def J(self) -> LinearOperator:
        """The Jacobian of the outputs of all samples; ``J.T`` is its transpose."""
        return Jacobian(self._point)

    def F(
        self, kind: Literal["exact", "sampled", "empirical"] = "exact", *, samples: int = 1, seed: int = 0
    ) -> LinearOperator:
        """A Fisher matrix: the mean over the samples of E[s sᵀ], s the gradient of the loss of a sample.

        Args:
            kind: ``exact``, the expectation over the targets that the model expects: classes by their
                probabilities, or the Gaussian of the loss; ``sampled``, at classes that are drawn from the
                model; ``empirical``, at the given targets.
            samples: that are drawn for each of the data's, for ``sampled``.
            seed: of the draws.

        Raises:
            SifrcError: no distribution of targets is known for the loss, or there is nothing to draw.
        """
        if kind == "exact":
            return Product("F", self._point, "fisher_vector_product", "fisher", "fisher")
        if kind == "empirical":
            name = "empirical_fisher"
            return Product("empirical F", self._point, f"{name}_vector_product", name, name)
        if kind == "sampled":
            from sifrc.linear.sampling import sampled_fisher

            return sampled_fisher(self._point, samples, seed)
        raise OperatorError(f"a Fisher matrix {kind!r}", hint="exact, sampled or empirical")

    @cached_property
    def identity(self) -> LinearOperator:
        """The identity, for damping: ``ops.G + 0.1 * ops.identity``."""
        return Identity(self.space, self._point.watch)

    def blocks(self, kind: str = "hessian") -> LinearOperator:
        """The blocks of the parameters, exactly, and zero beside them, without ever forming one.

        Args:
            kind: of curvature, a preset or one of the spec's own.

        Raises:
            SifrcError: the kind is unknown, or does not exist for the network.
        """
        kind = self._kind(kind)
        function = self._point.binding.module("block_vector_product", (kind,)).block_vector_product
        return Applied(f"blocks of {kind}", self._point, function, {"kind": kind})

    def kronecker(
        self, kind: str = "ggn", *, sharing: Literal["expand", "reduce"] | None = None
    ) -> Kronecker:
        """Kronecker products of means in the place of the blocks: E[block] ⊗ E[x xᵀ] for weights.

        Args:
            kind: of curvature: ``fisher``, ``sampled_fisher`` and ``empirical_fisher`` give K-FAC's, ``kfra``
                KFRA's, ``ggn`` KFLR's.
            sharing: of weights that act at several places, ``expand`` or ``reduce``; expand by default.

        Raises:
            SifrcError: the kind is unknown, or a parameter has no factors that are two matrices: scales of
                norms, embeddings, channels in groups.
        """
        kind, point = self._kind(kind), self._point
        function = point.binding.module("curvature_factors", (kind,)).curvature_factors
        if sharing not in (None, "expand", "reduce"):
            raise OperatorError(f"Kronecker factors with sharing {sharing!r}", hint="expand or reduce")
        # Where every weight acts at one place, both are the same and functions have no word for it.
        shares = "sharing" in signature(function).parameters
        more = {} if sharing is None or not shares else {"sharing": sharing}
        rows: dict[str, Tensor] = {}
        columns: dict[str, Tensor] = {}
        batches = point.batches
        with point.watch.steps(f"factors of {kind}", len(batches.each)) as done:
            for batch, weight, share in zip(batches.each, batches.weights, batches.shares, strict=True):
                for layer, found in point.call(function, batch, kind=kind, **more).items():
                    _add(rows, layer, found.block, weight)
                    _add(columns, layer, found.moment, share)
                done()
        factors = {}
        layers = {layer.name: layer for layer in point.binding.spec.layers}
        for own, name in point.binding.names.items():
            layer, _, slot = name.rpartition(".")
            if layer not in rows or rows[layer].ndim != 2 or columns[layer].ndim != 2:
                raise OperatorError(
                    f"Kronecker factors of all parameters, and '{own}' has no two matrices",
                    hint="blocks has it; curvature_factors of a module has the factors of the others",
                )
            if slot != "weight":
                factors[own] = Factors(rows[layer])
                continue
            # Outputs are the first axis of a weight, but of a transposed convolution's the second.
            shape = self.space.shapes[own]
            settings = layers[layer].settings if layer in layers else None
            turned = isinstance(settings, WindowSpec) and settings.transposed
            factors[own] = Factors(rows[layer], columns[layer], shape[0] if turned else 1)
        return Kronecker(f"Kronecker factors of {kind}", self.space, factors, watch=point.watch)

    # -- numbers and groups

    def objective(self) -> float:
        """The objective of all data."""
        return float(self._values["objective"])

    def gradient(self, form: Form = "flat") -> Vector:
        """Its gradient, as a flat tensor, a ``dict`` or a ``list``."""
        return self.space.restored(self._values["gradient"].clone(), form)

    def sample_gradients(self, moment: Moment = "none") -> dict[str, Tensor]:
        """Gradients of the objectives of single samples, or moments of these, by the model's own names.

        The objective of a sample is that of a batch with this sample alone, whatever the reduction of the
        loss is.

        Args:
            moment: ``none``, the gradients themselves, (N, …); ``norm``, their squared norms, (N,);
                ``second``, the mean over all samples of their squares; ``variance``, the mean of their
                squared distances from their mean.

        Raises:
            SifrcError: samples have no gradients of their own, as with the statistics of a batch.
        """
        return sample_gradients(self._point, moment)

    @cached_property
    def _values(self) -> Mapping[str, Tensor]:
        point = self._point
        function = point.binding.module("objective_and_gradient").objective_and_gradient

        def each(batch: Any) -> dict[str, Tensor]:
            objective, gradient = point.call(function, batch)
            return {"objective": objective, "gradient": point.flat(gradient)}

        return MappingProxyType(point.added("gradient", each))

    @cached_property
    def groups(self) -> Mapping[str, tuple[str, ...]]:
        """The spec's partition of the parameters, by the model's own names: ``ops.H.per(ops.groups)``."""
        binding = self._point.binding
        own = {name: caller for caller, name in binding.names.items()}
        found = groups_of(binding.spec.partition, binding.spec.layers)
        return MappingProxyType({name: tuple(own[one] for one in members) for name, members in found})

    def _kind(self, name: str) -> str:
        """A kind, checked: some are made of means over a batch, which are not those of its parts."""
        from sifrc.derive.curvature.kinds import KINDS, kind_of

        known = {**KINDS, **{own.name: kind_of(own) for own in self._point.binding.spec.curvature}}
        if name not in known:
            raise OperatorError(
                f"an unknown kind of curvature {name!r}",
                label=did_you_mean(str(name), known),
                hint=f"kinds: {', '.join(known)}",
            )
        kind = known[name]
        averaged = kind.expectation or kind.residual in ("absolute", "clipped")
        if averaged and len(self._point.batches.each) > 1:
            raise OperatorError(
                f"the kind '{name}' of several batches, which is made of means over all samples",
                hint="one batch with all samples, or one of hessian, ggn, fisher, empirical_fisher",
            )
        return name


def _add(total: dict[str, Tensor], name: str, value: Tensor, weight: float) -> None:
    value = value * weight
    total[name] = total[name] + value if name in total else value
