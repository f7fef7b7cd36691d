"""Matrix products in Numba modules: what BLAS has, for arrays as they lie in memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

from sympy import Mul, Symbol

from sifrc.backends.numba_common.access import Block, extent_of
from sifrc.backends.numba_common.nests import Names
from sifrc.ir.quantity import Storage
from sifrc.lower.arrays import SAMPLE_LABEL, Load
from sifrc.lower.statements import Assign, Contract, Kernel, Statement, Sum

__all__ = ["Products", "as_sum"]


@dataclass(frozen=True)
class _Operand:
    """An array, or its part at some values of its first labels.

    Args:
        text: source text.
        labels: of its dimensions, or names of groups of them that are read as one.
        contiguous: whether it lies in memory in one piece.
    """

    text: str
    labels: tuple[str, ...]
    contiguous: bool = True


@dataclass(frozen=True)
class Products:
    """Prints the products of one block.

    Args:
        block: how its arrays are called.
        names: of the function.
        indent: of the block in the module, for the length of lines.
    """

    block: Block
    names: Names
    indent: int

    def lines(self, statement: Contract) -> list[str] | None:
        """Source lines without the scale; None where BLAS has no such product.

        It is one BLAS product, or one for each value of the first labels of the arrays, the other labels in
        groups: rows, columns, and those that are summed.
        """
        operands = (statement.left, statement.right)
        if any(self.block.group(load).family.storage is Storage.IDENTITY for load in operands):
            return None
        found = (self._product(statement, fixed) for fixed in _outer_loops(statement))
        return next((lines for lines in found if lines is not None), None)

    def _product(self, statement: Contract, fixed: tuple[str, ...]) -> list[str] | None:
        """A product for each value of some labels, stored, or added up where the target lacks them."""
        loads = (statement.left, statement.right, statement.target)
        parts = [part for load in loads if (part := self._part(load, fixed)) is not None]
        groups = _groups(*(part.labels for part in parts)) if len(parts) == len(loads) else ()
        joined = [whole for part in parts if (whole := _joined(part, groups)) is not None]
        if not groups or len(joined) < len(loads):
            return None
        left, right, target = joined
        form = _blas_form(left, right, target.labels)
        added_up = not set(fixed) <= set(statement.target.labels)
        if form is None or (added_up and target.text != parts[2].text):
            return None
        product = f"np.dot({form[0]}, {form[1]}"
        text = f"{target.text} += {product})" if added_up else f"{product}, {target.text})"
        self.names.helpers |= {helper for helper in ("_as_matrix", "_entries") if f"{helper}(" in text}
        lines = self.names.laid_out(text, 1 + self.indent + 4 * len(fixed))
        for label in reversed(fixed):
            extent = extent_of(self.block, label, loads)
            lines = [f"for {label} in range({extent}):", *(f"    {line}" for line in lines)]
        return [f"{target.text}[:] = {self.names.real}(0.0)", *lines] if added_up else lines

    def _part(self, load: Load, fixed: tuple[str, ...]) -> _Operand | None:
        """The part of an array at values of labels, which must be its first ones."""
        own = tuple(label for label in fixed if label in load.labels)
        if load.labels[: len(own)] != own:
            return None
        text = self.block.slice(load, own) if fixed else self.block.array(load)
        return _Operand(text, load.labels[len(own) :], len(load.window) < 2)


def _outer_loops(statement: Contract) -> Iterator[tuple[str, ...]]:
    """Labels for whose values there may be products: none, the sample, the first ones of the target."""
    yield ()
    labels = statement.left.labels, statement.right.labels
    if max(map(len, labels)) > 2:
        if any(SAMPLE_LABEL in own for own in labels):
            yield (SAMPLE_LABEL,)
        for count in range(1, len(statement.target.labels)):
            yield statement.target.labels[:count]


_Groups: TypeAlias = tuple[tuple[str, ...], ...]


def _groups(left: tuple[str, ...], right: tuple[str, ...], out: tuple[str, ...]) -> _Groups:
    """Rows, columns, and labels that are summed; () where one is in all of them."""
    shared = tuple(label for label in left if label in right)
    if set(shared) & set(out):
        return ()
    rows, columns = (tuple(label for label in own if label not in shared) for own in (left, right))
    return rows, columns, shared


def _joined(operand: _Operand, groups: _Groups) -> _Operand | None:
    """The operand with each group of labels as one; None where they do not lie next to each other."""
    found: list[int] = []
    labels = operand.labels
    while labels:
        number = next((n for n, group in enumerate(groups) if group and labels[: len(group)] == group), None)
        if number is None:
            return None
        found.append(number)
        labels = labels[len(groups[number]) :]
    text = operand.text
    if len(found) < len(operand.labels):
        if len(found) > 2 or not operand.contiguous:
            return None
        text = f"_entries({text})" if len(found) == 1 else f"_as_matrix({text}, {len(groups[found[0]])})"
    return _Operand(text, tuple(map(str, found)))


def _blas_form(left: _Operand, right: _Operand, out: tuple[str, ...]) -> tuple[str, str] | None:
    """Texts of the operands of a matrix–matrix or matrix–vector product, or None if it is none."""
    summed = [label for label in left.labels if label in right.labels]
    if len(summed) != 1 or summed[0] in out or not out:
        return None
    if out[0] in right.labels:
        left, right = right, left
    if len(left.labels) != 2 or len(right.labels) not in (1, 2) or len(right.labels) != len(out):
        return None
    first, second = left.text, right.text
    if left.labels == (summed[0], out[0]):
        first += ".T"
    elif left.labels != (out[0], summed[0]):
        return None
    if len(right.labels) == 2:
        if right.labels == (out[1], summed[0]):
            second += ".T"
        elif right.labels != (summed[0], out[1]):
            return None
    return first, second


def as_sum(statement: Contract) -> Statement:
    """A product that BLAS does not have, as loops."""
    loads = dict(statement.loads)
    operands = []
    for name, load in (("left_operand", statement.left), ("right_operand", statement.right)):
        loads[name] = load
        operands.append(Symbol(name, real=True))
    value = Mul(statement.scale, *operands)
    labels = dict.fromkeys((*statement.left.labels, *statement.right.labels))
    over = tuple(label for label in labels if label not in statement.target.labels)
    bound = tuple((name, loads[name]) for name in sorted(loads))
    if not over:
        return Kernel(statement.target.labels, (Assign(statement.target, value),), bound)
    return Sum(statement.target, over, value, bound)
