"""Kinds of curvature: presets of named rewrites of the block recursion.

A kind says where the recursion starts and which approximations are made on the way. Each rewrite
states when it changes nothing; the tests hold it to that.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Literal, TypeAlias

from sifrc.spec.curvature import CurvatureOutput as Output
from sifrc.spec.curvature import CurvatureResidual as Residual
from sifrc.spec.types import CurvatureSpec

__all__ = ["EXACT_WHEN", "KINDS", "Form", "Kind", "Output", "Residual", "Source", "kind_of"]

Source: TypeAlias = Literal["objective", "loss", "fisher", "sampled", "empirical"]
Form: TypeAlias = Literal["samples", "outputs", "scores", "class_scores", "batch"]
"""What there is of a curvature before anything is averaged: H_k of each sample; factors of it for each,
H_k = J_kᵀ M J_k with J_k = ∂a_n/∂a_k, or H_k = T_k T_kᵀ with one column or with one for each class; or only
H̄_k, approximated for the whole batch."""


@dataclass(frozen=True)
class Kind:
    """One curvature: a starting block and rewrites of the recursion.

    Args:
        name: as users write it.
        source: what is differentiated twice: the ``objective``; the ``loss`` alone (without state
            regularisation); or scores whose outer products are averaged: over the classes or the
            Gaussian of the model (``fisher``), at a target drawn from the model (``sampled``), at the
            given target (``empirical``).
        expectation: E[A ∘ C] → E[A] ∘ E[C] at every layer, EA-CG(5, 6).
        residual: diag(F''(a_k) ∘ …) of EA-CG(4b) ``kept``, ``dropped``, or the ``absolute`` value or
            the positive part (``clipped``) of its batch mean in its place, EA-CG(8b).
        output: the block of the output ``kept``, or its ``absolute`` value or ``positive`` part by
            eigenvalues, EA-CG(8a).
    """

    name: str
    source: Source
    expectation: bool = False
    residual: Residual = "kept"
    output: Output = "kept"

    @property
    def factored(self) -> bool:
        """Whether the blocks are averages of outer products that propagate as vectors."""
        return self.source in ("fisher", "sampled", "empirical")

    @property
    def form(self) -> Form:
        """How its blocks come; what is averaged last, a block of a weight say, is exact but for ``batch``."""
        if self.factored:
            return "class_scores" if self.source == "fisher" else "scores"
        if self.expectation:
            return "batch"
        return "outputs" if self.source == "loss" and self.residual == "dropped" else "samples"

    @property
    def definite(self) -> bool:
        """Whether every block is positive semi-definite whatever the loss is."""
        return self.factored or (self.output != "kept" and self.residual != "kept")


_PRESETS = (
    Kind("hessian", "objective"),
    Kind("pch1", "objective", True, "absolute", "absolute"),
    # The text of the paper leaves open what (8a) does to negative eigenvalues here; its Table 4 fits
    # their absolute values.
    Kind("pch2", "objective", True, "clipped", "absolute"),
    Kind("ggn", "loss", False, "dropped"),
    Kind("fisher", "fisher", False, "dropped"),
    Kind("sampled_fisher", "sampled", False, "dropped"),
    Kind("empirical_fisher", "empirical", False, "dropped"),
    Kind("kfra", "loss", True, "dropped"),
)

KINDS: Mapping[str, Kind] = MappingProxyType({kind.name: kind for kind in _PRESETS})
"""Presets by name."""

EXACT_WHEN: Mapping[str, str] = MappingProxyType(
    {
        "expectation": "one sample in the batch, one layer, or slopes that are the same for all samples",
        "moment": "one sample in the batch, or inputs or blocks that are the same for all samples",
        "dropped": "piecewise affine activations",
        "residual": "piecewise affine activations, or residuals that are not negative",
        "output": "a loss that is convex in the output",
        "fisher": "a loss that is a negative log-likelihood, as the Gauss–Newton matrix",
    }
)
"""Rewrite -> when it changes nothing."""


def kind_of(spec: CurvatureSpec) -> Kind:
    """The kind that a spec asks for: its preset, with what it replaces.

    Args:
        spec: validated: its preset exists, and has what is replaced.

    Example:
        >>> kind_of(CurvatureSpec("definite", "pch2", output="positive"))
        Kind(name='definite', source='objective', expectation=True, residual='clipped', output='positive')
    """
    preset = KINDS[spec.kind]
    return replace(
        preset,
        name=spec.name,
        expectation=preset.expectation if spec.expectation is None else spec.expectation,
        residual=spec.residual or preset.residual,
        output=spec.output or preset.output,
    )
