"""Loops over steps in Torch: lists of slices, and results that are put together after the loop."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from sifrc.backends.torch_eager.access import Names
from sifrc.backends.torch_eager.expressions import LIKE, extents_text
from sifrc.lower.access import loads_of
from sifrc.lower.arrays import AtStep, Ref
from sifrc.lower.statements import Contract, Convolve, Steps

__all__ = ["steps_text", "used_once"]


def steps_text(statement: Steps, names: Names, body: Sequence[str]) -> list[str]:
    """Lines of a loop over steps.

    Args:
        statement: the loop.
        names: how the function refers to arrays.
        body: lines of one step.
    """
    stored = [(names.array(now), whole, f"{names.flat(whole.ref)}_all") for now, whole in statement.stored]
    lines = [f"{name} = {text}" for name, text in _slices(statement, names).items()]
    for _, before in statement.carried:
        shape = extents_text(before.labels, names.sizes(before))
        lines.append(f"{names.array(before)} = {LIKE}.new_zeros({shape})")
    lines += [f"{name} = []" for _, _, name in stored]
    steps = f"range({statement.count})"
    lines.append(f"for step in {f'reversed({steps})' if statement.backwards else steps}:")
    lines += [f"    {line}" for line in body]
    lines += [f"    {name}.append({now})" for now, _, name in stored]
    lines += [f"    {names.array(before)} = {names.array(now)}" for now, before in statement.carried]
    for _, whole, name in stored:
        if statement.backwards:
            lines.append(f"{name}.reverse()")
        dim = whole.labels.index(statement.over)
        lines.append(f"{names.array(whole)} = torch.stack({name}, {dim})")
    return lines


def _slices(statement: Steps, names: Names) -> dict[str, str]:
    """Names of the lists of the arrays that are read at a step, and what makes them, in order."""
    loads = [load for part in statement.body for load in loads_of(part)]
    at_step = [load for load in loads if any(isinstance(part, AtStep) for part in load.window)]
    return dict(names.slices(load) for load in at_step)


def used_once(statement: Steps) -> frozenset[Ref]:
    """Products of one step that one statement of it reads, and nothing after it."""
    kept = {now.ref for now, _ in (*statement.stored, *statement.carried)}
    reads = Counter(load.ref for part in statement.body for load in loads_of(part))
    products = [part.target.ref for part in statement.body if isinstance(part, Contract | Convolve)]
    return frozenset(ref for ref in products if reads[ref] == 1 and ref not in kept)
