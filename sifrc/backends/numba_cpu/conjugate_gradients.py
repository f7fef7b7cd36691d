"""Conjugate gradients in Numba modules for the CPU."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sifrc.backends.numba_common.access import Block
from sifrc.backends.numba_common.nests import Names
from sifrc.backends.numba_cpu.unknowns import CpuUnknown
from sifrc.lower.statements import ConjugateGradients, Statement

__all__ = ["search_lines"]


def search_lines(
    statement: ConjugateGradients,
    block: Block,
    names: Names,
    write: Callable[[Statement], list[str]],
    parts: Sequence[CpuUnknown],
) -> list[str]:
    """The loop, with inner products over all unknowns.

    Args:
        statement: the search.
        block: how its arrays are called.
        names: of the function.
        write: source lines of a statement of its body.
        parts: of its unknowns.
    """
    size, start, following, rate = (names.local(n) for n in ("size", "start", "following", "rate"))
    count, bound, curvature = (names.local(n) for n in ("count", "bound", "curvature"))
    length, reach, steepest = (names.local(n) for n in ("length", "reach", "steepest"))
    rounding, error, scale, least = (names.local(n) for n in ("rounding", "error", "scale", "least"))
    # Names of arrays go before the loop, those that only the body uses too.
    body = [line for part in statement.body for line in write(part)]
    limit, tolerance = block.entry(statement.limit), block.entry(statement.tolerance)
    left = block.entry(statement.remaining)
    largest = ", ".join(p.largest() for p in parts)
    largest = f"max({largest})" if len(parts) > 1 else largest
    lines = [
        "# Squares of small numbers vanish: the search is at a size of about one.",
        f"{scale} = _power_below({largest})",
    ]
    lines += [line for p in parts for line in p.begun(scale)]
    squares = " + ".join(p.inner(p.residual, p.residual) for p in parts)
    pairs = " + ".join(p.inner(p.direction, p.product) for p in parts)
    lengths = " + ".join(p.inner(p.direction, p.direction) for p in parts)
    reaches = " + ".join(p.inner(p.product, p.product) for p in parts)
    terms = " + ".join(p.terms() for p in parts)
    names.helpers.add("_power_below")
    lines += [
        f"{start} = {squares}",
        f"{size}, {bound} = {start}, {start} * {tolerance} * {tolerance}",
        "# Of the products; a curvature that it makes up would give a step without bound.",
        f"{rounding} = 4.0 * (1.0 + np.sqrt({terms})) * np.float64(np.finfo({names.real}).eps)",
        f"{count}, {steepest}, {error} = 0, 0.0, 0.0",
        f"while {count} < {limit} and not {size} <= {bound}:",
        *(f"    {line}" for line in body),
        f"    {curvature} = {pairs}",
        f"    {length} = {lengths}",
        f"    {reach} = {reaches}",
        f"    {length}, {reach} = np.sqrt({length}), np.sqrt({reach})",
        f"    if {length} > 0.0:",
        f"        {steepest} = max({steepest}, {reach} / {length})",
        f"    {least} = {rounding} * {steepest} * {length} * {length}",
        "    # Only where the angle to the product tells of a condition that costs half of the digits.",
        f"    {least} = max({least}, {reach} * min({rounding} ** 0.25 * {length}, {error}))",
        f"    if {curvature} <= {least}:",
        "        break",
        f"    {rate} = {size} / {curvature}",
        f"    {least} = 16.0 * {rounding} * {steepest} * {length}",
        f"    {error} += {least} * {rate} * (1.0 + {reach} * {length} / {curvature})",
        *(f"    {line}" for lines in zip(*(p.moved(rate) for p in parts), strict=True) for line in lines),
        f"    {following} = {squares}",
        *(f"    {p.turned(f'{following} / {size}')}" for p in parts),
        f"    {size} = {following}",
        f"    {count} += 1",
        *(p.scaled(scale) for p in parts),
        f"{block.entry(statement.iterations)} = {count}",
        f"{left} = np.sqrt({size} / {start}) if {start} > 0.0 else {size}",
    ]
    return lines
