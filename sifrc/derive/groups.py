"""Groups of parameters: from one direction to the parts of it that the groups have.

A group's part of a direction is the direction times a vector that is 1 at the position of the group which
owns the tensor.
"""

from __future__ import annotations

from functools import partial

from sifrc.ir import Axis, Expr, Input, Role
from sifrc.ir.along import along
from sifrc.ir.axes import AxisKind
from sifrc.ir.build import einsum
from sifrc.model.partition import Partition

__all__ = ["MARK", "OWNER", "SINGLE", "along_groups", "group_axis", "of_group"]

OWNER = {"N": "1W", "η": "1β"}
"""Family of a direction -> family of the vectors that are 1 at the group which owns the tensor, else 0."""
SINGLE = {"N": "N°", "η": "η°"}
"""The same where every number is a group -> family of the tensors with the entry of one group, else 0."""
MARK = "'"
"""Behind the letter of a tangent or a direction: of the second one; twice, of the third."""
_TANGENTS = ("ẋ", "ȧ", "ḃ", "ẏ", "ẍ", "ä", "ċ", "c̈")
_DIRECTIONS = {
    letter + MARK * number: (letter, number) for letter in (*_TANGENTS, *OWNER) for number in range(3)
}
"""Tangents and directions -> their letter, and whether they are the first, second or third such."""


def along_groups(value: Expr, partition: Partition, order: int) -> Expr:
    """The value for every group (pair, triple of groups); marked tangents belong to the later axes.

    Args:
        value: along one direction, or along one for each mark.
        partition: of the parameters.
        order: how many axes of groups the result has.
    """
    for number in range(order):
        axis = group_axis(partition.size, number)
        value = along(value, axis, partial(_lifted, partition, axis))
    return value


def _lifted(partition: Partition, axis: Axis, symbol: Input) -> Expr:
    """A tangent or a direction along the groups, if it is that of this axis."""
    family, number = _DIRECTIONS.get(symbol.family, ("", None))
    if number != axis.primes:
        return symbol
    plain = Input(family, symbol.index, symbol.slots, symbol.role)
    if family in _TANGENTS:
        return of_group(plain, axis)
    if symbol.role is not Role.DIRECTION:
        return symbol
    if partition.discrete:
        return of_group(Input(SINGLE[family], plain.index, plain.slots, plain.role), axis)
    owner = Input(OWNER[family], symbol.index, (axis,), Role.HYPERPARAMETER)
    return einsum([(owner, (axis,)), (plain, plain.axes)], (axis, *plain.axes))


def group_axis(size: int, number: int = 0) -> Axis:
    """The axis that counts so many groups; of the second or third direction where ``number`` is 1 or 2."""
    return Axis("group of tensors", size, number, AxisKind.GROUP)


def of_group(symbol: Input, axis: Axis) -> Input:
    """The symbol with an axis of groups before its own."""
    return Input(symbol.family, symbol.index, (axis, *symbol.slots), symbol.role)
