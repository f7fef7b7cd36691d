"""What operators on curvature blocks must return, from the blocks of the oracle or of dense algebra.

A layer uses its parameters at every place s of its output; row i of its weight reads x[s i k] there. The
block of the weight is Σ_st H[s i, t j] x[s i k] x[t j l] over (i, k) and (j, l); a bias has 1 for x.
"""

from __future__ import annotations

from copy import copy
from math import prod

import numpy as np

from sifrc.derive.curvature.kinds import Kind
from sifrc.errors import VerificationError
from sifrc.ir.arithmetic import Array
from sifrc.spec.partition import owners
from sifrc.verify.oracles.curvature_reference import Arrays, Measured, batch_mean, reference_blocks
from sifrc.verify.oracles.network import parameter_shapes
from sifrc.verify.oracles.windows import patches

__all__ = ["Expected"]


class Expected:
    """Results of one kind at one batch.

    With the expectation approximation there are blocks of the batch alone, and products of means.

    Args:
        at: the numbers of an oracle.
        kind: any kind.
        drawn: the uniform or normal numbers of a sampled kind.
        factor: what ``reduction: sum`` multiplies the results by.

    Attributes:
        blocks: layer -> of every sample, or one for all, (B, places, n, places, n).
        inputs: layer -> (B, places, n, m), what each row of the weight reads.
        mean: layer -> block (n, n) of its bias, of the batch.
    """

    def __init__(self, at: Measured, kind: Kind, drawn: Array | None = None, factor: int = 1) -> None:
        self.layers, self.shapes = owners(at.spec.layers), parameter_shapes(at.spec)
        self.factor, self.samples, self.expectation = factor, at.samples, kind.expectation
        blocks = reference_blocks(at, kind, drawn)
        self.blocks, self.inputs, self.mean = dict[str, Array](), dict[str, Array](), dict[str, Array]()
        for layer in self.layers:
            name, x = layer.name, at.values[layer.inputs[0]]
            if layer.window is None:
                n = layer.shape[-1]
                x = x.reshape(self.samples, -1, 1, x.shape[-1])
                self.inputs[name] = np.broadcast_to(x, (*x.shape[:2], n, x.shape[3]))
                self.blocks[name] = blocks[name].reshape(-1, x.shape[1], n, x.shape[1], n)
            else:
                n, places = layer.shape[0], prod(layer.shape[1:])
                self.inputs[name] = np.stack([patches(layer, sample) for sample in x])
                block = blocks[name].reshape(-1, n, places, n, places)
                self.blocks[name] = block.transpose(0, 2, 1, 4, 3)
            self.mean[name] = batch_mean(self._of_bias(name))

    def bias_blocks(self) -> dict[str, Array]:
        """``block_hessian``: blocks by name of the bias."""
        return {f"{k.name}.bias": self.factor * self.mean[k.name] for k in self.layers if k.bias}

    def sample_blocks(self) -> dict[str, Array]:
        """``block_hessian(reduction="none")``, for kinds of single samples."""
        assert not self.expectation
        return {f"{k.name}.bias": self._of_bias(k.name) for k in self.layers if k.bias}

    def _of_bias(self, layer: str) -> Array:
        """(B, n, n), or (1, n, n)."""
        return np.asarray(self.blocks[layer].sum(axis=(1, 3)))

    def weight_blocks(self) -> dict[str, Array]:
        """The further entries of ``block_hessian(dense=True)``."""
        found = {}
        for layer in self.layers:
            name, x = layer.name, self.inputs[layer.name]
            product = self._averaged("bsitj,bsik,btjl->ikjl", self._of_samples(name), x, x)
            found[f"{name}.weight"] = self.factor * product.reshape(2 * (x.shape[2] * x.shape[3],))
        return found

    def _of_samples(self, layer: str) -> Array:
        """The block of every sample, the same for all where there is one of the batch alone."""
        block = self.blocks[layer]
        return np.broadcast_to(block, (self.samples, *block.shape[1:]))

    def _averaged(self, subscripts: str, *operands: Array) -> Array:
        """A sum of products, of which one index is that of the samples."""
        return np.asarray(np.einsum(subscripts, *operands, optimize=True) / self.samples)

    def _columns(self, layer: str, sharing: str | None) -> list[Array]:
        """What every row of a weight reads, (B, m), place by place, or their mean over the places.

        Raises:
            VerificationError: rows read different entries, or nothing says what is made of several places.
        """
        x = self.inputs[layer]
        if any((x[:, :, row] != x[:, :, 0]).any() for row in range(x.shape[2])):
            raise VerificationError(f"the rows of the weight of layer '{layer}' do not read the same")
        places = [x[:, place, 0] for place in range(x.shape[1])]
        if sharing is None and len(places) > 1:
            raise VerificationError(
                f"layer '{layer}' has several places: blocks and inputs are not averaged apart"
            )
        return [np.asarray(sum(places) / len(places))] if sharing == "reduce" else places

    def moment(self, layer: str, moment: str, sharing: str | None) -> Array:
        """Mean x xᵀ or mean x, over samples and places."""
        columns = self._columns(layer, sharing)
        means = [x.T @ x / self.samples if moment == "second" else batch_mean(x) for x in columns]
        return np.asarray(sum(means) / len(means))

    def beside(self, layer: str, sharing: str | None) -> Array:
        """The block (n, n) beside the moment: of all places together, or those of single ones added up."""
        if sharing != "expand":
            return self.mean[layer]
        block = self.blocks[layer]
        return np.asarray(sum(batch_mean(block[:, place, :, place]) for place in range(block.shape[1])))

    def factors(self, moment: str, sharing: str | None = None) -> dict[str, Array]:
        """``curvature_factors``: by layer and member; moments do not grow with the batch."""
        found = {}
        for layer in self.layers:
            found[f"{layer.name}.moment"] = self.moment(layer.name, moment, sharing)
            found[f"{layer.name}.block"] = self.factor * self.beside(layer.name, sharing)
        return found

    def product(self, vector: Arrays, moment: str | None, sharing: str | None = None) -> dict[str, Array]:
        """``block_vector_product``.

        Args:
            vector: by name.
            moment: None is exact where there are blocks of samples, else ``second``; ``places`` is the
                product of means over the samples for every pair of places.
            sharing: what stands for pairs of places with a moment.
        """
        found = {}
        for layer in self.layers:
            name, block = layer.name, self.mean[layer.name]
            weight = vector[f"{name}.weight"].reshape(self.inputs[name].shape[2:])
            whole = moment in ("exact", "places") or (moment is None and not self.expectation)
            if whole:
                x = self.inputs[name]
                product = self._averaged("bsitj,btjl,jl,bsik->ik", self._of_samples(name), x, weight, x)
            else:
                block = self.beside(name, sharing)
                columns = self.moment(name, moment or "second", sharing)
                columns = np.outer(columns, columns) if moment == "mean" else columns
                product = block @ weight @ columns
            found[f"{name}.weight"] = (self.factor * product).reshape(vector[f"{name}.weight"].shape)
            if layer.bias:
                found[f"{name}.bias"] = self.factor * (block @ vector[f"{name}.bias"])
        return found

    def magnitudes(self) -> Expected:
        """The same without the signs of what is summed.

        Sums over places cancel, and so do products after them: rounding is relative to these numbers.
        """
        sizes = copy(self)
        sizes.blocks = {name: np.abs(value) for name, value in self.blocks.items()}
        sizes.inputs = {name: np.abs(value) for name, value in self.inputs.items()}
        sizes.mean = {name: batch_mean(sizes._of_bias(name)) for name in self.mean}
        return sizes

    def diagonal(self) -> dict[str, Array]:
        """``diagonal``: of the blocks, or with the expectation approximation a product of means."""
        found = {}
        for layer in self.layers:
            name, x = layer.name, self.inputs[layer.name]
            weight = self._averaged("bsiti,bsik,btik->ik", self._of_samples(name), x, x)
            found[f"{name}.weight"] = (self.factor * weight).reshape(self.shapes[f"{name}.weight"])
            if layer.bias:
                found[f"{name}.bias"] = self.factor * np.diagonal(self.mean[name])
        return found
