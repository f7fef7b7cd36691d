"""Kinds of curvature in a spec: their words are those that the derivations know."""

from __future__ import annotations

import pytest

from sifrc.derive.curvature.kinds import KINDS, Kind, kind_of
from sifrc.spec.curvature import CURVATURE_KINDS, FISHER_KINDS
from sifrc.spec.types import CurvatureSpec


def test_the_presets_of_a_spec_are_those_that_are_derived() -> None:
    assert tuple(KINDS) == CURVATURE_KINDS
    assert tuple(name for name, kind in KINDS.items() if kind.factored) == FISHER_KINDS


@pytest.mark.parametrize("name", CURVATURE_KINDS)
def test_a_preset_without_overrides_is_itself(name: str) -> None:
    assert kind_of(CurvatureSpec(name, name)) == KINDS[name]


def test_overrides_replace_what_they_name_and_nothing_else() -> None:
    """``false`` is an override too, and ``kept`` turns a rewrite off."""
    asked = CurvatureSpec("mine", "pch1", residual="kept", expectation=False)
    assert kind_of(asked) == Kind("mine", "objective", False, "kept", "absolute")
    assert kind_of(CurvatureSpec("mine", "ggn", output="positive", expectation=True)) == Kind(
        "mine", "loss", True, "dropped", "positive"
    )
