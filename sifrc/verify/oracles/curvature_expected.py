"""What operators on curvature blocks must return, from the blocks of the oracle or of dense algebra.

A layer uses its parameters at every place s of its output; row i of its weight reads x[s i k] there. The
block of the weight is Σ_st H[s i, t j] x[s i k] x[t j l] over (i, k) and (j, l); a bias has 1 for x. For
a tensor that is no such weight P, the derivative of the pre-activation by it, is measured: the block is
Pᵀ H P.
"""

from __future__ import annotations

from copy import copy
from math import prod

import numpy as np

from sifrc.derive.curvature.kinds import Kind
from sifrc.errors import VerificationError
from sifrc.ir.arithmetic import Array
from sifrc.verify.oracles.curvature_reference import Arrays, Measured, batch_mean, reference_blocks
from sifrc.verify.oracles.units import Unit, jacobians, units
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
        blocks: unit with factors -> of every sample, or one for all, (B, places, n, places, n).
        inputs: the same -> (B, places, n, m), what each row of the weight reads.
        mean: the same -> block (n, n) of its bias, of the batch.
        whole: unit without factors -> (B, entries, entries).
        slopes: its tensors -> the pre-activation by them, (B, entries, entries of the tensor).
    """

    def __init__(self, at: Measured, kind: Kind, drawn: Array | None = None, factor: int = 1) -> None:
        every = units(at.spec)
        self.units = [unit for unit in every if unit.factored]
        self.others = [unit for unit in every if not unit.factored]
        self.factor, self.samples, self.expectation = factor, at.samples, kind.expectation
        blocks = reference_blocks(at, kind, drawn, [unit.name for unit in every])
        self.blocks, self.inputs, self.mean = dict[str, Array](), dict[str, Array](), dict[str, Array]()
        self.whole, self.slopes = dict[str, Array](), dict[str, Array]()
        for unit in self.units:
            self._place(unit, at, blocks[unit.name])
            self.mean[unit.name] = batch_mean(self._of_bias(unit.name))
        for unit in self.others:
            count = prod(at.shapes[unit.name])
            self.whole[unit.name] = blocks[unit.name].reshape(-1, count, count)
            for slot in unit.shapes:
                self.slopes[f"{unit.name}.{slot}"] = _slopes(unit, slot, at)

    def _place(self, unit: Unit, at: Measured, block: Array) -> None:
        """What the rows of a weight read, and the block by places and rows."""
        name, shape, window = unit.name, at.shapes[unit.name], unit.layer.window
        if window is None:
            n = shape[-1]
            x = at.reads[name] if unit.part else at.values[unit.layer.inputs[0]]
            x = x.reshape(self.samples, -1, 1, x.shape[-1])
            self.inputs[name] = np.broadcast_to(x, (*x.shape[:2], n, x.shape[3]))
            self.blocks[name] = block.reshape(-1, x.shape[1], n, x.shape[1], n)
            return
        n, places = shape[0], prod(shape[1:])
        if window.transposed or window.mode != "zeros":
            by_rows = unit.matrix(_slopes(unit, "weight", at).reshape(self.samples, n, places, *unit.weight))
            # The row of an entry of the output is that of the weight: what it reads.
            self.inputs[name] = np.einsum("bisik->bsik", by_rows)
        else:
            self.inputs[name] = np.stack([patches(unit.layer, x) for x in at.values[unit.layer.inputs[0]]])
        self.blocks[name] = block.reshape(-1, n, places, n, places).transpose(0, 2, 1, 4, 3)

    def bias_blocks(self) -> dict[str, Array]:
        """``block_hessian``: blocks by name of the bias, where it is along the rows."""
        found = {f"{k.name}.bias": self.factor * self.mean[k.name] for k in self.units if k.bias}
        return found | {
            name: self.factor * batch_mean(self._times(name, name)) for name in self._other_biases()
        }

    def _other_biases(self) -> list[str]:
        """What is added along the rows in units without factors."""
        return [f"{unit.name}.{slot}" for unit in self.others for slot in unit.added]

    def _times(self, left: str, right: str) -> Array:
        """Pᵀ H P of two tensors of a unit without factors, (B, …, …)."""
        block = self.whole[left.rpartition(".")[0]]
        return np.asarray(np.swapaxes(self.slopes[left], 1, 2) @ block @ self.slopes[right])

    def sample_blocks(self) -> dict[str, Array]:
        """``block_hessian(reduction="none")``, for kinds of single samples."""
        assert not self.expectation
        found = {f"{k.name}.bias": self._of_bias(k.name) for k in self.units if k.bias}
        return found | {name: self._times(name, name) for name in self._other_biases()}

    def _of_bias(self, unit: str) -> Array:
        """(B, n, n), or (1, n, n)."""
        return np.asarray(self.blocks[unit].sum(axis=(1, 3)))

    def weight_blocks(self) -> dict[str, Array]:
        """The further entries of ``block_hessian(dense=True)``."""
        found = {}
        for unit in self.units:
            name, x, order = unit.name, self.inputs[unit.name], np.argsort(unit.order)
            product = self._averaged("bsitj,bsik,btjl->ikjl", self._of_samples(name), x, x)
            matrix = self.factor * product.reshape(2 * (x.shape[2] * x.shape[3],))
            found[f"{name}.weight"] = matrix[np.ix_(order, order)]
        rest = (name for name in self.slopes if name not in self._other_biases())
        return found | {name: self.factor * batch_mean(self._times(name, name)) for name in rest}

    def _of_samples(self, unit: str) -> Array:
        """The block of every sample, the same for all where there is one of the batch alone."""
        block = self.blocks[unit]
        return np.broadcast_to(block, (self.samples, *block.shape[1:]))

    def _averaged(self, subscripts: str, *operands: Array) -> Array:
        """A sum of products, of which one index is that of the samples."""
        return np.asarray(np.einsum(subscripts, *operands, optimize=True) / self.samples)

    def _columns(self, unit: Unit, sharing: str | None) -> list[Array]:
        """What the rows of every group read, (B, groups, m), place by place, or their mean over the places.

        Raises:
            VerificationError: rows of a group read different entries, or nothing says what is made of several
                places.
        """
        x = self.inputs[unit.name]
        x = x.reshape(*x.shape[:2], unit.groups, -1, x.shape[3])
        if any((x[:, :, :, row] != x[:, :, :, 0]).any() for row in range(x.shape[3])):
            raise VerificationError(f"the rows of the weight of layer '{unit.name}' do not read the same")
        places = [x[:, place, :, 0] for place in range(x.shape[1])]
        if sharing is None and len(places) > 1:
            raise VerificationError(
                f"layer '{unit.name}' has several places: blocks and inputs are not averaged apart"
            )
        return [np.asarray(sum(places) / len(places))] if _shared(unit, sharing) == "reduce" else places

    def moment(self, unit: Unit, moment: str, sharing: str | None) -> Array:
        """Mean x xᵀ or mean x of every group, over samples and places."""
        columns = self._columns(unit, sharing)
        if moment == "second":
            means = [np.einsum("bgj,bgk->gjk", x, x) / self.samples for x in columns]
        else:
            means = [batch_mean(x) for x in columns]
        return np.asarray(sum(means) / len(means))

    def beside(self, unit: Unit, sharing: str | None) -> Array:
        """The blocks (groups, n, n) beside the moments: of all places together, or single ones added up."""
        found, block = self.mean[unit.name], self.blocks[unit.name]
        if _shared(unit, sharing) == "expand":
            places = range(block.shape[1])
            found = np.asarray(sum(batch_mean(block[:, place, :, place]) for place in places))
        n = len(found) // unit.groups
        return np.stack([found[g * n : (g + 1) * n, g * n : (g + 1) * n] for g in range(unit.groups)])

    def factors(self, moment: str, sharing: str | None = None) -> dict[str, Array]:
        """``curvature_factors``: by layer and member; moments do not grow with the batch.

        Of groups there is one for each; of classes the moment is a vector, and nothing is left out.
        """
        found = {}
        for unit in self.units:
            columns, rows = self.moment(unit, moment, sharing), self.factor * self.beside(unit, sharing)
            if unit.groups == 1:
                (columns,), (rows,) = columns, rows
            if moment == "second" and unit.of_classes:
                if (columns != np.diag(np.diagonal(columns))).any():
                    raise VerificationError(f"what layer '{unit.name}' reads is no class")
                columns = np.diagonal(columns)
            found[f"{unit.name}.moment"], found[f"{unit.name}.block"] = columns, rows
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
        whole = moment in ("exact", "places") or (moment is None and not self.expectation)
        for unit in self.units:
            name, bias = unit.name, f"{unit.name}.bias"
            weight, x = unit.matrix(vector[f"{name}.weight"]), self.inputs[name]
            blocks: Array = self.mean[name][None]
            if whole:
                product = self._averaged("bsitj,btjl,jl,bsik->ik", self._of_samples(name), x, weight, x)
            else:
                blocks = self.beside(unit, sharing)
                columns = self.moment(unit, moment or "second", sharing)
                if moment == "mean":
                    columns = columns[:, :, None] * columns[:, None]
                parts = weight.reshape(len(blocks), -1, weight.shape[1])
                product = np.concatenate([b @ w @ c for b, w, c in zip(blocks, parts, columns, strict=True)])
            found[f"{name}.weight"] = self.factor * unit.tensor(product)
            if unit.bias:
                rows = vector[bias].reshape(len(blocks), -1)
                moves = [b @ v for b, v in zip(blocks, rows, strict=True)]
                found[bias] = self.factor * np.concatenate(moves)
        diagonal = {} if whole else self.diagonal()
        for name in self.slopes:
            flat = vector[name].ravel()
            block = self.factor * batch_mean(self._times(name, name))
            moved = diagonal[name].ravel() * flat if diagonal else block @ flat
            found[name] = moved.reshape(vector[name].shape)
        return found

    def magnitudes(self) -> Expected:
        """The same without the signs of what is summed.

        Sums over places cancel, and so do products after them: rounding is relative to these numbers.
        """
        sizes = copy(self)
        for name in ("blocks", "inputs", "whole", "slopes"):
            setattr(sizes, name, {key: np.abs(value) for key, value in getattr(self, name).items()})
        sizes.mean = {name: batch_mean(sizes._of_bias(name)) for name in self.mean}
        return sizes

    def diagonal(self) -> dict[str, Array]:
        """``diagonal``: of the blocks, or with the expectation approximation a product of means."""
        found = {}
        for unit in self.units:
            name, x = unit.name, self.inputs[unit.name]
            weight = self._averaged("bsiti,bsik,btik->ik", self._of_samples(name), x, x)
            found[f"{name}.weight"] = self.factor * unit.tensor(weight)
            if unit.bias:
                found[f"{name}.bias"] = self.factor * np.diagonal(self.mean[name])
        for unit in self.others:
            for slot, shape in unit.shapes.items():
                name = f"{unit.name}.{slot}"
                square = self._times(name, name)
                diagonal = batch_mean(np.diagonal(square, axis1=1, axis2=2))
                found[name] = self.factor * diagonal.reshape(shape)
        return found


def _shared(unit: Unit, sharing: str | None) -> str | None:
    """How places are shared: those of classes are always expanded."""
    return "expand" if sharing is not None and unit.of_classes else sharing


def _slopes(unit: Unit, slot: str, at: Measured) -> Array:
    """The pre-activation by a tensor of a unit, of every sample."""
    read = (tuple(at.values[name][sample] for name in unit.layer.inputs) for sample in range(at.samples))
    return np.stack([jacobians(unit, slot, each, at.params, at.activate) for each in read])
