"""Conjugate gradients in Numba modules."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sifrc.backends.numba_common.access import Block
from sifrc.backends.numba_common.nests import Names
from sifrc.lower.statements import ConjugateGradients, Statement, Unknown

__all__ = ["search_lines"]


def search_lines(
    statement: ConjugateGradients, block: Block, names: Names, write: Callable[[Statement], list[str]]
) -> list[str]:
    """The loop, with inner products over all unknowns.

    Args:
        statement: the search.
        block: how its arrays are called.
        names: of the function.
        write: source lines of a statement of its body.
    """
    size, start, following, rate = (names.local(n) for n in ("size", "start", "following", "rate"))
    count, bound, curvature = (names.local(n) for n in ("count", "bound", "curvature"))
    length, reach, steepest = (names.local(n) for n in ("length", "reach", "steepest"))
    rounding, error, scale, least = (names.local(n) for n in ("rounding", "error", "scale", "least"))
    # Names of arrays go before the loop, those that only the body uses too.
    parts = [_parts(block, unknown) for unknown in statement.unknowns]
    body = [line for part in statement.body for line in write(part)]
    limit, tolerance = block.entry(statement.limit), block.entry(statement.tolerance)
    left = block.entry(statement.remaining)
    largest = ", ".join(p.largest() for p in parts)
    largest = f"max({largest})" if len(parts) > 1 else largest
    lines = [
        "# Squares of small numbers vanish: the search is at a size of about one.",
        f"{scale} = _power_below({largest})",
    ]
    lines += [
        line
        for p in parts
        for line in (
            p.set(p.solution, f"{names.real}(0.0)"),
            p.set(p.residual, f"{p.rhs} / {scale}"),
            p.set(p.direction, p.residual),
        )
    ]
    squares = " + ".join(p.inner(p.residual, p.residual) for p in parts)
    pairs = " + ".join(p.inner(p.direction, p.product) for p in parts)
    lengths = " + ".join(p.inner(p.direction, p.direction) for p in parts)
    reaches = " + ".join(p.inner(p.product, p.product) for p in parts)
    terms = " + ".join(p.terms(len(u.rhs.labels)) for p, u in zip(parts, statement.unknowns, strict=True))
    names.helpers.add("_power_below")
    arrays = {"_inner", "_add", "_turn", "_magnitude", "_entries", "_scale"}
    names.helpers |= arrays if any(p.is_array for p in parts) else set()
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
        *(f"    {p.move(p.solution, rate, p.direction)}" for p in parts),
        *(f"    {p.move(p.residual, f'-{rate}', p.product)}" for p in parts),
        f"    {following} = {squares}",
        *(f"    {p.turn(f'{following} / {size}')}" for p in parts),
        f"    {size} = {following}",
        f"    {count} += 1",
        *(p.scaled(scale) for p in parts),
        f"{block.entry(statement.iterations)} = {count}",
        f"{left} = np.sqrt({size} / {start}) if {start} > 0.0 else {size}",
    ]
    return lines


def _parts(block: Block, unknown: Unknown) -> _Parts:
    loads = (unknown.solution, unknown.rhs, unknown.residual, unknown.direction, unknown.product)
    names = [block.local(load) if load.labels else block.entry(load) for load in loads]
    solution, rhs, residual, direction, product = names
    return _Parts(solution, rhs, residual, direction, product, bool(unknown.rhs.labels))


@dataclass(frozen=True)
class _Parts:
    """Texts of the arrays, or of the numbers, of one unknown."""

    solution: str
    rhs: str
    residual: str
    direction: str
    product: str
    is_array: bool

    def set(self, target: str, value: str) -> str:
        return f"{target}[:] = {value}" if self.is_array else f"{target} = {value}"

    def inner(self, left: str, right: str) -> str:
        """In float64: squares of small numbers are smaller."""
        return f"_inner({left}, {right})" if self.is_array else f"np.float64({left}) * np.float64({right})"

    def largest(self) -> str:
        """Largest magnitude of the right side."""
        return f"_magnitude(_entries({self.rhs}))" if self.is_array else f"abs({self.rhs})"

    def scaled(self, factor: str) -> str:
        """The solution times a number, in place."""
        return f"_scale({self.solution}, {factor})" if self.is_array else f"{self.solution} *= {factor}"

    def terms(self, dimensions: int) -> str:
        """Sum of the sizes of the axes."""
        return " + ".join(f"{self.rhs}.shape[{n}]" for n in range(dimensions)) or "1"

    def move(self, target: str, rate: str, along: str) -> str:
        """target += rate · along."""
        return f"_add({target}, {rate}, {along})" if self.is_array else f"{target} += {rate} * {along}"

    def turn(self, rate: str) -> str:
        """direction = residual + rate · direction."""
        if self.is_array:
            return f"_turn({self.direction}, {rate}, {self.residual})"
        return f"{self.direction} = {self.residual} + {rate} * {self.direction}"
