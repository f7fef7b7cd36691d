"""Matrix products in Numba modules: what BLAS has, for arrays as they lie in memory."""

from __future__ import annotations

from dataclasses import dataclass

from sympy import Mul, Symbol

from sifrc.backends.numba_cpu.access import Block, extent_of
from sifrc.backends.numba_cpu.nests import Names
from sifrc.ir.quantity import Storage
from sifrc.lower.arrays import SAMPLE_LABEL, Load
from sifrc.lower.statements import Assign, Contract, Kernel, Statement, Sum

__all__ = ["Products", "as_sum"]

_JOINS = {"_rows": ("", "."), "_columns": (".", ""), "_entries": ("", "")}
"""Helper that joins two dimensions -> dimensions before and after them."""


@dataclass(frozen=True)
class _Operand:
    """Text of an array, and its labels."""

    text: str
    labels: tuple[str, ...]


@dataclass(frozen=True)
class Products:
    """Prints the products of one block.

    Args:
        block: how its arrays are called.
        names: of the function.
    """

    block: Block
    names: Names

    def lines(self, statement: Contract) -> list[str] | None:
        """Source lines without the scale; None where BLAS has no such product."""
        if any(len(load.labels) == 3 for load in (statement.left, statement.right)):
            return self._flattened(statement) or self._sample_products(statement)
        return self._one_product(statement)

    def _one_product(self, statement: Contract) -> list[str] | None:
        """A BLAS product, or None if it is none."""
        if self._has_identity(statement):
            return None
        left, right = (_Operand(self.block.array(o), o.labels) for o in (statement.left, statement.right))
        form = _blas_form(left, right, statement.target.labels)
        if form is None:
            return None
        return [f"np.dot({form[0]}, {form[1]}, {self.block.array(statement.target)})"]

    def _flattened(self, statement: Contract) -> list[str] | None:
        """One BLAS product over two labels as one, neighbours in every array that has them."""
        loads = (statement.left, statement.right, statement.target)
        if self._has_identity(statement) or any(len(load.window) > 1 for load in loads):
            return None
        pairs = {load.labels[n : n + 2] for load in loads if len(load.labels) == 3 for n in (0, 1)}
        for pair in sorted(pairs):
            operands = [self._joined(load, pair) for load in loads]
            if any(operand is None or len(operand.labels) > 2 for operand in operands):
                continue
            left, right, target = (operand for operand in operands if operand is not None)
            form = _blas_form(left, right, target.labels)
            if form is not None:
                text = f"np.dot({form[0]}, {form[1]}, {target.text})"
                self.names.helpers |= {helper for helper in _JOINS if f"{helper}(" in text}
                return [text]
        return None

    def _joined(self, load: Load, pair: tuple[str, ...]) -> _Operand | None:
        """The array with a pair of labels as one; None if it has them apart from each other."""
        text, labels = self.block.array(load), load.labels
        if not set(pair) & set(labels):
            return _Operand(text, labels)
        for helper, (before, after) in _JOINS.items():
            if (
                labels[len(before) : len(labels) - len(after)] == pair
                and len(labels) == len(before + after) + 2
            ):
                inner = (*labels[: len(before)], "".join(pair), *labels[len(labels) - len(after) :])
                return _Operand(f"{helper}({text})", inner)
        return None

    def _sample_products(self, statement: Contract) -> list[str] | None:
        """One BLAS product for each sample, stored or added up."""
        if self._has_identity(statement):
            return None
        operands = [self._of_sample(load) for load in (statement.left, statement.right)]
        target = self._of_sample(statement.target)
        if operands[0] is None or operands[1] is None or target is None:
            return None
        form = _blas_form(operands[0], operands[1], target.labels)
        if form is None:
            return None
        extent = extent_of(self.block, SAMPLE_LABEL, [statement.left, statement.right])
        loop = f"for {SAMPLE_LABEL} in range({extent}):"
        if SAMPLE_LABEL in statement.target.labels:
            return [loop, f"    np.dot({form[0]}, {form[1]}, {target.text})"]
        return [
            f"{target.text}[:] = {self.names.real}(0.0)",
            loop,
            f"    {target.text} += np.dot({form[0]}, {form[1]})",
        ]

    def _has_identity(self, statement: Contract) -> bool:
        operands = (statement.left, statement.right)
        return any(self.block.group(load).family.storage is Storage.IDENTITY for load in operands)

    def _of_sample(self, load: Load) -> _Operand | None:
        """The part of an array that belongs to one sample; None if it is not contiguous."""
        if SAMPLE_LABEL in load.labels[1:]:
            return None
        labels = tuple(label for label in load.labels if label != SAMPLE_LABEL)
        return _Operand(self.block.slice(load, (SAMPLE_LABEL,)), labels)


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
