"""What operators on curvature blocks must return, from the blocks of the oracle or of dense algebra."""

from __future__ import annotations

import numpy as np

from sifrc.derive.curvature.kinds import Kind
from sifrc.ir.arithmetic import Array
from sifrc.verify.oracles.curvature_reference import Arrays, Measured, batch_mean, owners, reference_blocks

__all__ = ["Expected"]


class Expected:
    """Results of one kind at one batch.

    Args:
        at: the numbers of an oracle.
        kind: any kind.
        drawn: the uniform or normal numbers of a sampled kind.
        factor: what ``reduction: sum`` multiplies the results by.

    Attributes:
        each: layer -> blocks of every sample, whose products with the inputs are averaged; None with the
            expectation approximation, where there are those of the batch alone, and products of means.
        mean: layer -> block of the batch.
    """

    def __init__(self, at: Measured, kind: Kind, drawn: Array | None = None, factor: int = 1) -> None:
        self.layers = owners(at.spec)
        self.factor, self.samples = factor, at.samples
        blocks = reference_blocks(at, kind, drawn)
        self.mean = {name: batch_mean(value) for name, value in blocks.items()}
        self.each = None if kind.expectation else blocks
        self.inputs = {layer.name: at.values[layer.inputs[0]] for layer in self.layers}

    def bias_blocks(self) -> dict[str, Array]:
        """``block_hessian``: blocks by name of the bias."""
        return {f"{k.name}.bias": self.factor * self.mean[k.name] for k in self.layers if k.bias}

    def sample_blocks(self) -> dict[str, Array]:
        """``block_hessian(reduction="none")``, for kinds of single samples."""
        assert self.each is not None
        return {f"{k.name}.bias": self.each[k.name] for k in self.layers if k.bias}

    def weight_blocks(self) -> dict[str, Array]:
        """The further entries of ``block_hessian(dense=True)``."""
        found = {}
        for layer in self.layers:
            x = self.inputs[layer.name]
            if self.each is None:
                product = np.kron(self.mean[layer.name], self.second_moment(layer.name))
            else:
                products = [np.kron(h, np.outer(v, v)) for h, v in zip(self.each[layer.name], x, strict=True)]
                product = batch_mean(np.stack(products))
            found[f"{layer.name}.weight"] = self.factor * product
        return found

    def second_moment(self, layer: str) -> Array:
        """mean x xᵀ."""
        x = self.inputs[layer]
        return np.asarray(x.T @ x / self.samples)

    def moment(self, layer: str, moment: str) -> Array:
        """mean x xᵀ or mean x."""
        return self.second_moment(layer) if moment == "second" else batch_mean(self.inputs[layer])

    def factors(self, moment: str) -> dict[str, Array]:
        """``curvature_factors``: by layer and member; moments do not grow with the batch."""
        found = {}
        for layer in self.layers:
            found[f"{layer.name}.moment"] = self.moment(layer.name, moment)
            found[f"{layer.name}.block"] = self.factor * self.mean[layer.name]
        return found

    def product(self, vector: Arrays, moment: str | None) -> dict[str, Array]:
        """``block_vector_product``; None is exact where there are blocks of samples, else ``second``."""
        found = {}
        for layer in self.layers:
            name = layer.name
            weight = vector[f"{name}.weight"]
            if moment in (None, "exact") and self.each is not None:
                moved = [
                    np.outer(h @ (weight @ x), x)
                    for h, x in zip(self.each[name], self.inputs[name], strict=True)
                ]
                product = batch_mean(np.stack(moved))
            elif moment == "mean":
                x = batch_mean(self.inputs[name])
                product = np.outer(self.mean[name] @ (weight @ x), x)
            else:
                product = self.mean[name] @ weight @ self.second_moment(name)
            found[f"{name}.weight"] = self.factor * product
            if layer.bias:
                found[f"{name}.bias"] = self.factor * (self.mean[name] @ vector[f"{name}.bias"])
        return found

    def diagonal(self) -> dict[str, Array]:
        """``diagonal``: (∂²ξ/∂a_i²) x_j², averaged over the samples, or a product of means."""
        found = {}
        for layer in self.layers:
            name, squares = layer.name, self.inputs[layer.name] ** 2
            if self.each is None:
                entries = np.diagonal(self.mean[name])
                weight = np.outer(entries, batch_mean(squares))
            else:
                each = np.diagonal(self.each[name], axis1=1, axis2=2)
                entries, weight = batch_mean(each), each.T @ squares / self.samples
            found[f"{name}.weight"] = self.factor * weight
            if layer.bias:
                found[f"{name}.bias"] = self.factor * entries
        return found
