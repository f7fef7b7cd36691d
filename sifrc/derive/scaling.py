"""Summaries of directions of any length: each group's direction is taken at a length of about one.

A summary of order p is of degree p in the direction: with gradients of 1e-11, D_s is 1e-33 of what it is for
a direction of length one, and below the numbers of float32 long before the direction is. So each group's
direction u_s is divided by a power of two ς_s close to its size, the summaries are taken along
u¹_s = u_s / ς_s, and

    ḡ_s = ς_s ḡ¹_s,   H̿_st = ς_s ς_t H̿¹_st,   D̄_s = ς_s³ D̄¹_s,   T̄_stv = ς_s ς_t ς_v T̄¹_stv.

Powers of two change no digit of anything that is within the range of the numbers. The size ν_s is the sum
of the largest magnitudes of the tensors of the group, and ς_s = 1 where it is zero.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from fractions import Fraction

from sifrc.derive.groups import OWNER, SINGLE
from sifrc.derive.shaped import DIRECTION
from sifrc.derive.system import Equation, System
from sifrc.ir import Axis, Expr, Input, Reduce, Role
from sifrc.ir.build import apply, einsum, ones, total
from sifrc.ir.traverse import substitute
from sifrc.model import Model
from sifrc.scalar import POWER_OF_TWO, QUOTIENT, RECIPROCAL, SQRT, power

__all__ = ["Scaling", "at_unit_length"]

_RESULTS = ("ḡ", "H̿", "D̄", "T̄")
_UNIT = "¹"
_PARTS = ("ς⁻₁", "ς⁻₂", "ς⁻₃")


def at_unit_length(family: str) -> str:
    """Family of a summary along the directions of length about one.

    Example:
        >>> at_unit_length("ḡ")
        'ḡ¹'
    """
    return family + _UNIT


class Scaling:
    """The equations before and after those of a summary.

    Args:
        model: the network.
        groups: axis of the groups.
        discrete: whether every number is a group of its own.
    """

    def __init__(self, model: Model, groups: Axis, discrete: bool) -> None:
        self.groups = groups
        self.single: Mapping[str, str] = SINGLE if discrete else {}
        self.scale = Input("ς", None, (groups,), Role.DIRECTION)
        self._directions = [(owned.index, n) for owned in model.parameters for _, n in DIRECTION.pairs(owned)]

    def before(self) -> tuple[Equation, ...]:
        """Sizes of the groups' directions, their powers of two, and the directions divided by them."""
        return (*self._sizes(), *self._units())

    def along(self, system: System) -> System:
        """The system along the directions of length about one, its results under names of their own."""
        symbols = (symbol for _, direction in self._directions for symbol in self._stacked(direction))
        table = {symbol: _renamed(symbol) for symbol in symbols}
        equations = tuple(
            Equation(
                _renamed(e.symbol) if e.symbol.family in _RESULTS else e.symbol,
                substitute(e.value, table),
                e.layer,
                e.source,
            )
            for e in system.equations
        )
        return System(system.name, system.title, equations, system.conditions)

    def after(self, system: System) -> tuple[Equation, ...]:
        """The summaries along the direction itself, from those of a system that :meth:`along` made.

        ς⁻¹ is a product of three powers of two of about a third of its exponent. The first ones of up to
        three groups are multiplied, then the second and the third ones: no product is out of range unless the
        result is, also where one group's direction is as short as another one's is long.
        """
        whole = {at_unit_length(family): family for family in _RESULTS}
        found = [e.symbol for e in system.equations if e.symbol.family in whole]
        equations = list(self._thirds())
        for symbol in found:
            labels = symbol.slots * (3 if symbol.family == at_unit_length("D̄") else 1)
            value: Expr = symbol
            for family in _PARTS:
                part = Input(family, None, (self.groups,), Role.DIRECTION)
                factor = einsum([(part, (label,)) for label in labels], symbol.slots)
                value = apply(QUOTIENT, value, factor)
            result = Input(whole[symbol.family], None, symbol.slots, symbol.role)
            equations.append(Equation(result, value, None, "definition"))
        return tuple(equations)

    def _sizes(self) -> Iterator[Equation]:
        """ν_s, tensor by tensor, and ς_s."""
        known: list[Expr] = []
        layers = dict.fromkeys(layer for layer, _ in self._directions)
        for layer in layers:
            parts: list[Expr] = []
            for direction in (direction for own, direction in self._directions if own == layer):
                family = "νW" if direction.family == "N" else "νβ"
                symbol = self._stacked(direction)[0]
                value: Expr = symbol
                for axis in reversed(direction.axes):
                    value = Reduce(value, axis, "magnitude")
                size = Input(family, layer, value.axes, Role.DIRECTION)
                yield Equation(size, value, layer, "definition")
                if not self.single:
                    owner = Input(OWNER[direction.family], layer, (self.groups,), Role.HYPERPARAMETER)
                    parts.append(einsum([(owner, (self.groups,)), (size, ())], (self.groups,)))
                else:
                    parts.append(size)
            upto = Input("ν∑", layer, (self.groups,), Role.DIRECTION)
            yield Equation(upto, total([*known, *parts], (self.groups,)), layer, "definition")
            known = [upto]
        whole = Input("ν", None, (self.groups,), Role.DIRECTION)
        yield Equation(whole, known[0], None, "definition")
        yield Equation(self.scale, apply(POWER_OF_TWO, whole), None, "definition")

    def _units(self) -> Iterator[Equation]:
        """u¹ = u / ς."""
        for layer, direction in self._directions:
            symbol = self._stacked(direction)[0]
            if self.single:
                yield Equation(_renamed(symbol), apply(QUOTIENT, symbol, self.scale), layer, "definition")
                continue
            owner = Input(OWNER[direction.family], layer, (self.groups,), Role.HYPERPARAMETER)
            own = Input("ςW" if direction.family == "N" else "ςβ", layer, (), Role.DIRECTION)
            picked = einsum([(owner, (self.groups,)), (self.scale, (self.groups,))], ())
            yield Equation(own, picked, layer, "definition")
            yield Equation(_renamed(symbol), apply(QUOTIENT, symbol, own), layer, "definition")

    def _thirds(self) -> Iterator[Equation]:
        """Three powers of two whose product is 1/ς."""
        axes = (self.groups,)
        first, second, third = (Input(family, None, axes, Role.DIRECTION) for family in _PARTS)
        root = apply(power(Fraction(-1, 3)), self.scale)
        yield Equation(first, apply(POWER_OF_TWO, root), None, "definition")
        rest = einsum([(self.scale, axes), (first, axes)], axes)
        yield Equation(second, apply(POWER_OF_TWO, apply(RECIPROCAL, apply(SQRT, rest))), None, "definition")
        product = einsum([(self.scale, axes), (first, axes), (second, axes)], axes)
        # No 1/ς on the way: it is infinite where ς is below the normal numbers.
        yield Equation(third, apply(QUOTIENT, ones(axes), product), None, "definition")

    def _stacked(self, direction: Input) -> tuple[Input, ...]:
        """The symbol of a direction; or those along every axis of the groups, where each number is one."""
        if not self.single:
            return (direction,)
        family = self.single[direction.family]
        return tuple(
            Input(
                family,
                direction.index,
                (replace(self.groups, primes=primes), *direction.slots),
                direction.role,
            )
            for primes in range(3)
        )


def _renamed(symbol: Input) -> Input:
    return Input(at_unit_length(symbol.family), symbol.index, symbol.slots, symbol.role)
