"""Curvature blocks by dense algebra: the equations of EA-CG on matrices, over any kind of number.

Nothing here is derived. Layers of the spec are taken out from the last to the first; what is left is the
Hessian C by the values of the layers that remain. A layer v = F(a) with a = Σ J_u u leaves

    H_a   = F'(a) C_vv F'(a) + diag(F''(a) ∘ ∂ξ/∂v)                  EA-CG(4a, 4b)
    C_uw += J_uᵀ H_a J_w + J_uᵀ F'(a) C_vw + (F'(a) C_vu)ᵀ J_w       the last two where u, w meet v elsewhere

and the rewrites of EA-CG(5, 6, 8) are applied to the numbers where the paper applies them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from sifrc.derive.curvature.kinds import Kind
from sifrc.ir.arithmetic import Array
from sifrc.spec.types import LayerSpec, Spec

__all__ = ["Measured", "batch_mean", "is_exact", "is_gauss_newton", "limit_of", "owners", "reference_blocks"]

Arrays = Mapping[str, Array]


@dataclass(frozen=True)
class Measured:
    """What an oracle finds at a batch, layer by layer of the spec; B samples, n entries.

    Args:
        spec: the network.
        params: by name.
        values: layer -> (B, n), the network input among them.
        slopes, seconds: layer -> F'(a) and F''(a), (B, n).
        scales: layer -> λ of its state, (B,), for those that are regularised.
        score: targets (B, n_out) -> ∂ℓ/∂x_n at them, (B, n_out), with λ_n of MK(68) where there is one.
        targets: as vectors, (B, n_out).
        loss_hessian: (B, n_out, n_out), λ_n in it.
        hessian: (layer, whether the regularisation is in it) -> second derivatives by the pre-activation,
            (B, n, n).
        jacobian: layer -> outputs by its pre-activation, (B, n_out, n).
        softmax: of the outputs, (B, n_out).
        eigen: symmetric matrix -> eigenvalues, eigenvectors (columns).
    """

    spec: Spec
    params: Arrays
    values: Arrays
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

    @property
    def samples(self) -> int:
        """B."""
        return len(self.targets)


def owners(spec: Spec) -> tuple[LayerSpec, ...]:
    """Dense layers that own parameters."""
    return tuple(layer for layer in spec.layers if layer.kind == "dense" and layer.share is None)


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
    slope = at.slopes[last]
    blocks = at.loss_hessian * slope[:, :, None] * slope[:, None, :]
    scale = at.scales.get(last)
    convex = affine and (kind.source == "loss" or scale is None)
    convex = convex and all(min(at.eigen(block)[0]) >= 0 for block in blocks)
    if kind.output != "kept" and not convex:
        return None
    if kind.residual == "dropped":
        return "ggn" if kind.source == "loss" else ("hessian" if affine else None)
    return "hessian" if affine or kind.residual == "kept" else None


def reference_blocks(at: Measured, kind: Kind, drawn: Array | None = None) -> dict[str, Array]:
    """Blocks (B, n, n) of a kind by layer of the spec, or (1, n, n) where it has the batch's alone.

    Args:
        at: the numbers of an oracle.
        kind: any kind.
        drawn: the uniform or normal numbers (B, n_out) of a sampled kind.
    """
    names = [layer.name for layer in at.spec.layers]
    if kind.factored:
        scores = _scores(at, kind, drawn)
        return {name: _outer(scores, at.jacobian(name)) for name in names}
    if is_exact(kind):
        return {name: at.hessian(name, kind.source == "objective") for name in names}
    if is_gauss_newton(kind):
        pairs = ((name, at.jacobian(name)) for name in names)
        return {name: np.swapaxes(j, 1, 2) @ at.loss_hessian @ j for name, j in pairs}
    return _Recursion(at, kind).run()


def _outer(scores: Array, jacobian: Array) -> Array:
    """mean_p Σ_c (Jᵀ s_c)(Jᵀ s_c)ᵀ, (1, n, n); scores (B, C, n_out)."""
    pulled = scores @ jacobian
    return batch_mean(np.swapaxes(pulled, 1, 2) @ pulled)[None]


def _scores(at: Measured, kind: Kind, drawn: Array | None) -> Array:
    """Factors (B, C, n_out) of the output's block."""
    if kind.source == "empirical":
        return at.score(at.targets)[:, None]
    count, size = at.targets.shape
    classes = at.spec.loss.targets == "classes"
    units = np.eye(size, dtype=int)
    if kind.source == "sampled":
        assert drawn is not None
        if classes:
            noise = np.frompyfunc(_gumbel, 1, 1)(drawn)
            chosen = np.argmax(np.asarray(at.values[at.spec.layers[-1].name] + noise), axis=1)
            return at.score(at.targets * 0 + units[chosen])[:, None]
        return (_root(at.loss_hessian) * drawn)[:, None]
    if not classes:
        return _root(at.loss_hessian)[:, :, None] * units
    each = [at.score(at.targets * 0 + unit) for unit in units]
    roots = [at.softmax[:, c, None] ** _HALF(at.softmax) for c in range(size)]
    return np.stack([r * s for r, s in zip(roots, each, strict=True)], axis=1).reshape(count, size, size)


def _gumbel(value: Any) -> Any:
    return -np.log(-np.log(value)) if isinstance(value, float) else -_log(-_log(value))


def _log(value: Any) -> Any:
    import mpmath

    return mpmath.log(value)
