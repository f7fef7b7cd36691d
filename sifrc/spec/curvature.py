"""Words for kinds of curvature; what they mean is derived from them later."""

from __future__ import annotations

from typing import Literal, TypeAlias

__all__ = ["CURVATURE_KINDS", "FISHER_KINDS", "CurvatureOutput", "CurvatureResidual"]

CurvatureResidual: TypeAlias = Literal["kept", "dropped", "absolute", "clipped"]
CurvatureOutput: TypeAlias = Literal["kept", "absolute", "positive"]

FISHER_KINDS: tuple[str, ...] = ("fisher", "sampled_fisher", "empirical_fisher")
"""Presets whose blocks are averages of outer products of scores."""

CURVATURE_KINDS: tuple[str, ...] = ("hessian", "pch1", "pch2", "ggn", *FISHER_KINDS, "kfra")
"""Names of the presets."""
