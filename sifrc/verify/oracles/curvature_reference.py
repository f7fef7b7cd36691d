"""Curvature blocks by dense algebra: the equations of EA-CG on matrices, over any kind of number.

Nothing here is derived. Layers of the spec are taken out from the last to the first; what is left is the
Hessian C by the values of the layers that remain. A layer v = F(a) with a = Σ J_u u leaves

    H_a   = F'(a) C_vv F'(a) + diag(F''(a) ∘ ∂ξ/∂v)                  EA-CG(4a, 4b)
    C_uw += J_uᵀ H_a J_w + J_uᵀ F'(a) C_vw + (F'(a) C_vu)ᵀ J_w       the last two where u, w meet v elsewhere

and the rewrites of EA-CG(5, 6, 8) are applied to the numbers where the paper applies them. States of
several axes are vectors here, the last axis running fastest; the results have the axes again.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from math import prod
from typing import TypeAlias

import mpmath
import numpy as np

from sifrc.derive.curvature.kinds import Kind
from sifrc.errors import VerificationError
from sifrc.ir.arithmetic import Array
from sifrc.spec.types import LayerSpec, Sizes, Spec
from sifrc.verify.oracles.entries import Activate, At
from sifrc.verify.oracles.layers import layer_value
from sifrc.verify.oracles.network import layer_draws
from sifrc.verify.oracles.units import units
from sifrc.verify.oracles.windows import chosen_matrix, window_matrix

__all__ = [
    "Measured",
    "batch_mean",
    "is_exact",
    "is_gauss_newton",
    "limit_of",
    "output_scores",
    "pre_activation_shapes",
    "reference_blocks",
]

_ROUNDING = 1e-12
_SAME = ("activation", "add", "flatten")
"""Types of layers whose argument is the sum of what they read, where all have one size."""
Arrays: TypeAlias = Mapping[str, Array]


@dataclass(frozen=True)
class Measured:
    """What an oracle finds at a batch, layer by layer of the spec; B samples, n are the axes of the layer.

    Args:
        spec: the network.
        params: by name.
        shapes: layer, or part of one -> n.
        values: layer -> (B, n), the network input among them.
        reads: part of a layer -> what its weight reads, (B, places, entries).
        slopes, seconds: layer -> F'(a) and F''(a), (B, n).
        scales: layer -> λ of its state, (B,), for those that are regularised.
        score: targets (B, n_out) -> ∂ℓ/∂x_n at them, (B, n_out), with λ_n of MK(68) where there is one.
        targets: as vectors, (B, n_out), with a mask after them where the loss has one.
        loss_hessian: (B, n_out, n_out), λ_n in it.
        hessian: (layer, whether the regularisation is in it) -> second derivatives by the pre-activation,
            (B, n, n), the axes twice.
        jacobian: layer -> outputs by its pre-activation, (B, n_out, n).
        softmax: of the outputs, (B, n_out).
        eigen: symmetric matrix -> eigenvalues, eigenvectors (columns).
        activate: a function of entries, and an array for each argument -> its values.
    """

    spec: Spec
    params: Arrays
    shapes: Mapping[str, Sizes]
    values: Arrays
    reads: Arrays
    slopes: Arrays
    seconds: Arrays
    scales: Arrays
    score: Callable[[Array], Array]
    targets: Array
    loss_hessian: Array
    hessian: Callable[[str, bool], Array]
    jacobian: Callable[[str], Array]
    softmax: Array
    eigen: Callable[[Array], tuple[Array, Array]]
    activate: Activate

    @property
    def samples(self) -> int:
        """B."""
        return len(self.targets)


def pre_activation_shapes(spec: Spec, reads: Mapping[str, Sizes]) -> dict[str, Sizes]:
    """Shapes of what layers compute before their activations, and parts with their weights.

    Args:
        spec: the network.
        reads: part of a layer -> shape of what its weight reads.
    """
    own = {layer.name: layer.shape for layer in spec.layers}
    weights = {unit.name: unit.weight for unit in units(spec) if unit.name in reads}
    return own | {name: (*reads[name][:-1], weight[0]) for name, weight in weights.items()}


def is_exact(kind: Kind) -> bool:
    """Whether the blocks are second derivatives, with nothing rewritten."""
    return not (kind.factored or kind.expectation) and (kind.residual, kind.output) == ("kept", "kept")


def is_gauss_newton(kind: Kind) -> bool:
    """Whether the blocks are Jᵀ ∂²ℓ J."""
    plain = not (kind.factored or kind.expectation) and kind.source == "loss"
    return plain and (kind.residual, kind.output) == ("dropped", "kept")


def batch_mean(blocks: Array) -> Array:
    """Over the first axis."""
    return np.asarray(blocks.sum(axis=0) / len(blocks))


def limit_of(kind: Kind, at: Measured) -> str | None:
    """What a kind is exactly at this batch, ``hessian`` or ``ggn``, by the conditions of its rewrites.

    One sample makes the expectation approximation exact; F'' = 0 everywhere the residual's rewrites; an
    output block without negative eigenvalues that of (8a).
    """
    if kind.factored or (kind.expectation and at.samples > 1):
        return None
    last = at.spec.layers[-1].name
    affine = all(value == 0 for second in at.seconds.values() for value in second.ravel())
    slope = _vectors(at.slopes[last])
    blocks = at.loss_hessian * slope[:, :, None] * slope[:, None, :]
    scale = at.scales.get(last)
    convex = affine and (kind.source == "loss" or scale is None)
    convex = convex and all(_semidefinite(at.eigen(block)[0]) for block in blocks)
    if kind.output != "kept" and not convex:
        return None
    if kind.residual == "dropped":
        return "ggn" if kind.source == "loss" else ("hessian" if affine else None)
    return "hessian" if affine or kind.residual == "kept" else None


def _semidefinite(eigenvalues: Array) -> bool:
    """No negative eigenvalue, but for what rounding makes of zero."""
    return bool(min(eigenvalues) >= -_ROUNDING * max(abs(eigenvalues)))


def reference_blocks(
    at: Measured, kind: Kind, drawn: Array | None = None, only: Collection[str] | None = None
) -> dict[str, Array]:
    """Blocks (B, n, n) of a kind by layer and part of one, or (1, n, n) with the expectation approximation.

    n are the axes of the layer. Of kinds with rewrites there are those of layers alone.

    Args:
        at: the numbers of an oracle.
        kind: any kind.
        drawn: the uniform or normal numbers (B, n_out) of a sampled kind.
        only: layers and parts that are wanted; all by default.
    """
    blocks = _flat_blocks(at, kind, drawn, [*at.shapes] if only is None else only)
    return {name: block.reshape(len(block), *2 * at.shapes[name]) for name, block in blocks.items()}


def _flat_blocks(at: Measured, kind: Kind, drawn: Array | None, names: Collection[str]) -> Arrays:
    """The blocks, where they are matrices for states of several axes too."""
    if kind.factored:
        scores = output_scores(at, kind, drawn)
        return {name: _outer(scores, _jacobian(at, name)) for name in names}
    if is_exact(kind):
        return {name: at.hessian(name, kind.source == "objective") for name in names}
    if is_gauss_newton(kind):
        pairs = ((name, _jacobian(at, name)) for name in names)
        return {name: np.swapaxes(j, 1, 2) @ at.loss_hessian @ j for name, j in pairs}
    return _Recursion(at, kind).run()


def _jacobian(at: Measured, layer: str) -> Array:
    """Outputs by the pre-activation as a vector, (B, n_out, entries)."""
    return _vectors(at.jacobian(layer), 2)


def _vectors(values: Array, before: int = 1) -> Array:
    """All axes after the first ones as one."""
    return values.reshape(*values.shape[:before], -1)


def _outer(scores: Array, jacobian: Array) -> Array:
    """Σ_c (Jᵀ s_c)(Jᵀ s_c)ᵀ of every sample, (B, n, n); scores (B, C, n_out)."""
    pulled = scores @ jacobian
    return np.asarray(np.swapaxes(pulled, 1, 2) @ pulled)


def output_scores(at: Measured, kind: Kind, drawn: Array | None) -> Array:
    """Factors (B, C, n_out) of the output's block."""
    if kind.source == "empirical":
        return at.score(at.targets)[:, None]
    size = at.loss_hessian.shape[1]
    if kind.source == "sampled" and drawn is None:
        raise VerificationError("a sampled kind needs the numbers that were drawn")
    if at.spec.loss.targets != "classes":
        root = _sqrt(np.diagonal(at.loss_hessian, axis1=1, axis2=2))
        units = np.eye(size, dtype=int)
        return (root * drawn)[:, None] if kind.source == "sampled" else root[:, :, None] * units
    places = _entries_of_places(at.spec)
    # Of a mean over R places, the loss of each has the factor 1/R: its outer product has it once.
    whole = at.targets[:, :1] * 0 + (len(places) if at.spec.loss.places == "mean" else 1)
    factor = _sqrt(whole)
    if kind.source == "sampled":
        # The largest of x_c + g_c, g Gumbel, is a draw from softmax(x), at each place.
        perturbed = _vectors(at.values[at.spec.layers[-1].name]) - _log(-_log(np.asarray(drawn)))
        target = _classes(at, np.zeros(size, dtype=int))
        for entries in places:
            chosen = np.argmax(perturbed[:, entries], axis=1)
            target[np.arange(len(target)), entries[chosen]] += 1
        return np.asarray((factor * at.score(target) * _counted(at, places))[:, None])
    found = []
    for entries in places:
        for entry, own in zip(entries, range(len(entries)), strict=True):
            target = _classes(at, np.zeros(size, dtype=int))
            target[:, [one[own] for one in places]] += 1
            alone = at.score(target) * 0
            alone[:, entries] = (at.score(target) * _counted(at, places))[:, entries]
            found.append(factor * _sqrt(at.softmax[:, entry])[:, None] * alone)
    return np.stack(found, axis=1)


def _entries_of_places(spec: Spec) -> list[Array]:
    """For each place of the output, the entries of its vector, all axes of the output as one."""
    shape = spec.layers[-1].shape
    numbers = np.arange(prod(shape)).reshape(shape)
    return [*np.moveaxis(numbers, spec.loss.axis, -1).reshape(-1, shape[spec.loss.axis])]


def _counted(at: Measured, places: list[Array]) -> Array:
    """1 for the entries of places whose target counts, 0 for others, (B, n_out)."""
    found = at.targets[:, : at.loss_hessian.shape[1]] * 0 + 1
    if at.spec.loss.ignored is not None:
        for entries in places:
            found[:, entries] = at.targets[:, entries].sum(axis=1)[:, None]
    return np.asarray(found)


def _classes(at: Measured, vectors: Array) -> Array:
    """Other targets of all samples, with what the loss has of each besides."""
    size = at.loss_hessian.shape[1]
    return np.concatenate([at.targets[:, :size] * 0 + vectors, at.targets[:, size:]], axis=1)


def _each(name: str, value: Array) -> Array:
    """A function of entries that NumPy and mpmath have by one name."""
    precise = np.frompyfunc(getattr(mpmath, name), 1, 1)
    return np.asarray(precise(value) if value.dtype == object else getattr(np, name)(value))


_sqrt, _log = partial(_each, "sqrt"), partial(_each, "log")


class _Recursion:
    """The elimination of the layers with the rewrites of a kind that is not factored.

    Args:
        at: the numbers.
        kind: its source, and what is rewritten.
    """

    def __init__(self, at: Measured, kind: Kind) -> None:
        self.at, self.kind = at, kind
        self.last = at.spec.layers[-1].name
        whole = kind.source == "objective"
        self.slopes, self.seconds = (
            {name: _vectors(value) for name, value in found.items()} for found in (at.slopes, at.seconds)
        )
        self.curvature: dict[tuple[str, str], Array] = {}
        self.gradient: dict[str, Array] = {}
        for layer in at.spec.layers:
            scale = at.scales.get(layer.name) if whole else None
            values = _vectors(at.values[layer.name])
            scale = 0 * values[:, 0] if scale is None else scale
            self.curvature[layer.name, layer.name] = scale[:, None, None] * np.eye(layer.size, dtype=int)
            self.gradient[layer.name] = scale[:, None] * values
        self.curvature[self.last, self.last] = self.curvature[self.last, self.last] + at.loss_hessian
        self.gradient[self.last] = self.gradient[self.last] + at.score(at.targets)

    def run(self) -> dict[str, Array]:
        """The blocks by layer."""
        return {layer.name: self._eliminate(layer) for layer in reversed(self.at.spec.layers)}

    def _eliminate(self, layer: LayerSpec) -> Array:
        name, slope = layer.name, self.slopes[layer.name]
        own = self.curvature.pop((name, name))
        curved = self._mean(slope[:, :, None] * own * slope[:, None, :])
        block = self._rewritten(name, curved, self._mean(self.seconds[name] * self.gradient[name]))
        mixed: dict[str, Array] = {}
        for first, second in [key for key in self.curvature if name in key]:
            value = self.curvature.pop((first, second))
            if first == name:
                mixed[second] = self._mean(slope[:, :, None] * value)
        steps = self._steps(layer)
        for left, step in steps.items():
            back = np.swapaxes(step, -1, -2)
            self.gradient[left] = (
                self.gradient[left] + ((slope * self.gradient[name])[:, None, :] @ step)[:, 0]
            )
            for right, other in steps.items():
                self._leave(left, right, back @ block @ other)
            for right, value in mixed.items():
                part = back @ value
                self._leave(left, right, part)
                self._leave(right, left, np.swapaxes(part, 1, 2))
        return block

    def _steps(self, layer: LayerSpec) -> dict[str, Array]:
        """Source -> its matrix in the argument of the layer, for each sample where they differ.

        The network's inputs are no states.
        """
        given = {source.name for source in self.at.spec.inputs}
        if layer.kind == "pool" and getattr(layer.settings, "pooling", "") == "max":
            read = self.at.values[layer.inputs[0]]
            matrix = np.stack([chosen_matrix(layer, value) for value in read])
            return {source: matrix for source in layer.inputs if source not in given}
        if layer.window is not None:
            shape = self.at.spec.shapes[layer.inputs[0]]
            matrix = window_matrix(layer, self.at.params, shape)
            return {source: matrix for source in layer.inputs if source not in given}
        if layer.kind == "dense":
            step = self.at.params[f"{layer.share or layer.name}.weight"]
            matrix = np.kron(np.eye(layer.size // layer.shape[-1], dtype=int), step)
            return {source: matrix for source in layer.inputs if source not in given}
        shapes = {self.at.spec.shapes[source] for source in layer.inputs}
        if layer.kind in _SAME and {prod(shape) for shape in shapes} == {layer.size}:
            return {source: np.eye(layer.size, dtype=int) for source in layer.inputs if source not in given}
        return {source: self._matrices(layer, source) for source in layer.inputs if source not in given}

    def _matrices(self, layer: LayerSpec, source: str) -> Array:
        """The matrix of a layer that is linear in a source, for each sample, column by column."""
        found = []
        for sample in range(self.at.samples):
            read = {name: self.at.values[name][sample] for name in layer.inputs}

            numbers = layer_draws(self.at.spec, layer, self.at.values)
            own = None if numbers is None else numbers[sample]

            def value(entries: Array, read: Arrays = read, own: Array | None = own) -> Array:
                sources = tuple(entries if name == source else read[name] for name in layer.inputs)
                at = At(layer, sources, self.at.params, self.at.activate, drawn=own)
                return np.asarray(layer_value(at)).ravel()

            zero = 0 * read[source]
            columns = []
            for place in np.ndindex(zero.shape):
                unit = zero.copy()
                unit[place] = unit[place] + 1
                columns.append(value(unit) - value(zero))
            found.append(np.stack(columns, axis=1))
        return np.stack(found)

    def _mean(self, value: Array) -> Array:
        """EA-CG(5, 6): the batch mean in the place of every sample's value."""
        return batch_mean(value)[None] if self.kind.expectation else value

    def _rewritten(self, name: str, curved: Array, residual: Array) -> Array:
        """F' C F' + diag(residual), EA-CG(4b), or what EA-CG(8a, 8b) put in its place."""
        if self.kind.residual == "dropped":
            residual = 0 * residual
        if name == self.last and self.kind.output != "kept":
            return np.stack([self._definite(block) for block in curved + _diagonal(residual)])
        if self.kind.residual == "absolute":
            residual = np.abs(residual)
        if self.kind.residual == "clipped":
            residual = (residual + np.abs(residual)) / 2
        return curved + _diagonal(residual)

    def _definite(self, block: Array) -> Array:
        eigenvalues, vectors = self.at.eigen(block)
        size = np.abs(eigenvalues)
        size = size if self.kind.output == "absolute" else (size + eigenvalues) / 2
        return np.asarray((vectors * size) @ vectors.T)

    def _leave(self, left: str, right: str, part: Array) -> None:
        known = self.curvature.get((left, right))
        self.curvature[left, right] = part if known is None else known + part


def _diagonal(entries: Array) -> Array:
    return np.asarray(entries[:, :, None] * np.eye(entries.shape[1], dtype=int))
