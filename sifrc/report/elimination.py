"""The recorded elimination and its conditions as sentences, for generic k."""

from __future__ import annotations

import re
from collections.abc import Iterable

from sifrc.derive.newton import Newton, Step
from sifrc.report.grouping import Names
from sifrc.report.indices import NUMBERS, Naming, range_text
from sifrc.report.prose import phrase_text

__all__ = ["STATUS", "condition_notes", "step_notes"]

_NUMBER = re.compile(r"\[(-?\d+)\]")
STATUS = {"proved": "proved from the spec", "run time": "checked at run time"}
"""Status of a condition, for readers."""
_GRANULAR = re.compile(r"\bv\b")
_VERBS = frozenset({"choose", "substitute"})


def step_notes(newton: Newton, names: Names) -> tuple[str, ...]:
    """The steps in the order of the elimination, equal ones of several layers together."""
    merged = _merged(((step.layer, _sentence(step)) for step in newton.steps), names)
    return tuple(f"Step {number}{where}: {words}." for number, (words, where) in enumerate(merged, start=1))


def condition_notes(newton: Newton, names: Names) -> tuple[str, ...]:
    """What the direction assumes, and whether the spec proves it or the code checks it."""
    written = (
        (c.layer if c.layer is not None else names.depth, f"{c.text}: {STATUS.get(c.status, c.status)}")
        for c in newton.conditions
    )
    return tuple(f"Condition: {words}{where}." for words, where in _merged(written, names))


def _sentence(step: Step) -> str:
    result = _GRANULAR.sub(f"v[{step.layer}]", step.result)
    assumed = f", where {step.condition}" if step.condition else ""
    if step.action in _VERBS:
        used = f", from {step.equations}" if step.equations else ""
        return f"{step.action} {result}{used}{assumed}"
    return f"{step.action} {step.equations}: {result}{assumed}"


def _merged(written: Iterable[tuple[int, str]], names: Names) -> list[tuple[str, str]]:
    """Sentences that are equal up to a shift, with the range of layers they hold for."""
    groups: dict[str, list[tuple[int, str]]] = {}
    for layer, words in written:
        relative = _NUMBER.sub(lambda match, at=layer: f"[{int(match[1]) - at:+d}]", words)  # type: ignore[misc]
        groups.setdefault(relative, []).append((layer, words))
    out: list[tuple[str, str]] = []
    for members in groups.values():
        layers = [layer for layer, _ in members]
        layer, words = members[0]
        if len(members) > 1:
            out.append((phrase_text(words, Naming("k", layer)), f", {range_text(layers, names.last)}"))
        else:
            naming = Naming("n", names.depth, 2) if layer == names.depth else NUMBERS
            out.append((phrase_text(words, naming), ""))
    return out
