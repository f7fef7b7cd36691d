"""Value of mathematical notation as a reader would compute it: the oracle for what is printed.

It knows nothing of the expressions behind: vectors are columns, side by side means matrix product, 𝟏 is
a number that broadcasts. What it shares with the code under test is the evaluation of scalar functions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import reduce
from itertools import permutations
from typing import Any

import numpy as np

from sifrc.report import layout as notation
from sifrc.report.layout import Layout, map_indices
from sifrc.scalar import ScalarFunction, evaluate

Values = Mapping[tuple[str, int | None], Any]


@dataclass(frozen=True)
class Reader:
    """Reads notation with values for its symbols."""

    values: Values
    activations: Mapping[int, ScalarFunction]
    size: int = 0
    """Rows of the identity."""
    places: tuple[int, ...] = ()
    """Shape of what is taken apart."""

    def value(self, layout: Layout) -> Any:
        return getattr(self, f"read_{type(layout).__name__.lower()}")(layout)

    def read_symbol(self, node: notation.Symbol) -> Any:
        return as_matrix(self.values[node.family, node.index])

    def read_constant(self, node: notation.Constant) -> Any:
        if node.name == "identity":
            return np.eye(self.size)
        return {"0": 0.0, "1": 1.0, "ones": 1.0}[node.name]

    def read_function(self, node: notation.Function) -> Any:
        body = self.activations[node.index].value_form((node.order,))
        argument = self.value(node.argument)
        return np.broadcast_to(evaluate(body, {"x": argument}, "numpy"), np.shape(argument))

    def read_named(self, node: notation.Named) -> Any:
        (v,) = (self.value(argument) for argument in node.arguments)
        if node.name in ("abs", "positive part"):
            h, q = np.linalg.eigh(v)
            return q @ np.diag(np.abs(h) if node.name == "abs" else np.maximum(h, 0)) @ q.T
        if node.name == "max":
            return np.max(v)
        if node.name == "vec":
            return np.reshape(v, (-1, 1))
        if node.name == "unvec":
            return np.reshape(v, self.places)
        total = np.log(np.sum(np.exp(v)))
        return {"softmax": np.exp(v - total), "log softmax": v - total, "logsumexp": total}[node.name]

    def read_scalar(self, node: notation.Scalar) -> Any:
        arguments = {name: self.value(argument) for name, argument in node.arguments}
        return evaluate(node.expression, arguments, "numpy")

    def read_sum(self, node: notation.Sum) -> Any:
        return sum(float(factor) * self.value(term) for factor, term in node.terms)

    def read_product(self, node: notation.Product) -> Any:
        *factors, last = node.factors
        if factors and last == notation.ONES:  # the rows of a matrix, added up
            matrix = reduce(times, (self.value(factor) for factor in factors))
            return matrix.sum(axis=1, keepdims=True) if np.ndim(matrix) == 2 else matrix
        return reduce(times, (self.value(factor) for factor in node.factors))

    def read_contraction(self, node: notation.Contraction) -> Any:
        letters, array = Entries(self).read(node)
        assert not letters
        return array

    def read_hadamard(self, node: notation.Hadamard) -> Any:
        return reduce(np.multiply, (self.value(factor) for factor in node.factors))

    def read_quotient(self, node: notation.Quotient) -> Any:
        return self.value(node.numerator) / self.value(node.denominator)

    def read_transpose(self, node: notation.Transpose) -> Any:
        return np.transpose(self.value(node.operand))

    def read_inverse(self, node: notation.Inverse) -> Any:
        return np.linalg.pinv(self.value(node.operand), rcond=1e-12)

    def read_diagonal(self, node: notation.Diagonal) -> Any:
        return np.diag(self.value(node.operand)[:, 0])

    def read_inner(self, node: notation.Inner) -> Any:
        return np.sum(self.value(node.left) * self.value(node.right))

    def read_norm(self, node: notation.Norm) -> Any:
        v = self.value(node.operand)
        return {"squared": np.sum(v**2), "2": np.sqrt(np.sum(v**2)), "max": np.max(np.abs(v))}[node.kind]

    def read_total(self, node: notation.Total) -> Any:
        def moved(member: int) -> Layout:
            return map_indices(node.body, lambda index: index + member - node.anchor)

        return sum(self.value(moved(member)) for member in node.members)


def as_matrix(value: Any) -> Any:
    """Scalars as numbers, vectors as columns."""
    array = np.asarray(value, dtype=float)
    return float(array) if array.ndim == 0 else array[:, None] if array.ndim == 1 else array


def times(left: Any, right: Any) -> Any:
    """Factors side by side."""
    return left * right if np.ndim(left) == 0 or np.ndim(right) == 0 else left @ right


Labelled = tuple[str, Any]
"""Letters of the axes of an array, and the array."""


@dataclass(frozen=True)
class Entries:
    """Reads index notation; ``sym`` adds the different arrays that permuting i, j and l gives."""

    reader: Reader
    sizes: Mapping[str, int] = field(default_factory=dict)
    """Of the letters on the left."""

    def array(self, node: Layout, labels: tuple[str, ...]) -> Any:
        """All entries, over the labels in this order."""
        return _over("".join(labels), self.read(node))

    def read(self, node: Layout) -> Labelled:
        match node:
            case notation.Sum(terms):
                parts = [(letters, float(f) * array) for f, (letters, array) in self._read(terms)]
                whole = "".join(sorted({letter for letters, _ in parts for letter in letters}))
                assert all(len(letters) == len(whole) for letters, _ in parts), "terms of different indices"
                return whole, sum(_over(whole, part) for part in parts)
            case notation.Product(factors):
                return _product([self.read(factor) for factor in factors])
            case notation.Function(index, order, argument):
                letters, array = self.read(argument)
                body = self.reader.activations[index].value_form((order,))
                return letters, np.broadcast_to(evaluate(body, {"x": array}, "numpy"), np.shape(array))
            case notation.Indexed(notation.Symbol("δ"), (whole, joined)) if joined.startswith("("):
                sizes = [self.sizes[letter] for letter in joined[1:-1]]
                return whole + joined[1:-1], np.eye(int(np.prod(sizes))).reshape(-1, *sizes)
            case notation.Indexed(operand, labels):
                return "".join(labels), self.values(operand)
            case notation.Contraction(labels, body):
                letters, array = self.read(body)
                kept = "".join(letter for letter in letters if letter not in labels)
                return kept, np.einsum(f"{letters}->{kept}", array)
            case notation.Named("sym", (body,)):
                return "ijl", _symmetric(_over("ijl", self.read(body)))
            case _:
                return "", np.asarray(self.reader.value(node))

    def _read(self, terms: notation.Terms) -> list[tuple[Any, Labelled]]:
        return [(factor, self.read(term)) for factor, term in terms]

    def values(self, node: Layout) -> Any:
        if isinstance(node, notation.Symbol):
            return np.asarray(self.reader.values[node.family, node.index])
        return np.squeeze(self.reader.value(node), axis=-1)


def _over(letters: str, part: Labelled) -> Any:
    return np.einsum(f"{part[0]}->{letters}", part[1])


def _product(parts: list[Labelled]) -> Labelled:
    whole = "".join(sorted({letter for letters, _ in parts for letter in letters}))
    written = ",".join(letters for letters, _ in parts)
    return whole, np.einsum(f"{written}->{whole}", *(array for _, array in parts))


def _symmetric(whole: Any) -> Any:
    different: list[Any] = []
    for order in permutations(range(3)):
        turned = whole.transpose(order)
        if not any(np.allclose(turned, known, rtol=1e-12) for known in different):
            different.append(turned)
    return sum(different)
