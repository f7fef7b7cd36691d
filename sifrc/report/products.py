"""Matrix notation for a product of tensors, found from how its labels hang together.

Labels are nodes; a vector sits at a node, a matrix is an edge. Where the edges form trees, the product is
written with matrix products: one free label gives a vector, two in one tree a chain of matrices with
diagonal ones between them, two in different trees an outer product, none a scalar.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from sifrc.ir import Axis
from sifrc.report.layout import (
    ONE,
    ONES,
    Constant,
    Diagonal,
    Hadamard,
    Inner,
    Layout,
    Norm,
    Product,
    Quotient,
    Symbol,
    Transpose,
)
from sifrc.report.order import ordered_factors, ordered_inner, ordered_scalars
from sifrc.report.text import text

__all__ = ["Factor", "NoMatrixForm", "matrix_product"]

IDENTITY = Constant("identity")
_SYMMETRIC = frozenset({"A", "Ã", "Ã+", "H", "H°", "H̄", "H°̄", "H̃", "H̃+"})
"""Families of symmetric matrices: moments and blocks of curvature."""


class NoMatrixForm(ValueError):
    """A product that matrix notation does not cover; index notation does."""


@dataclass(frozen=True)
class Factor:
    """One operand: its notation, its labels, and whether it divides."""

    layout: Layout
    labels: tuple[Axis, ...]
    divides: bool = False


@dataclass(frozen=True)
class _Edge:
    rows: Axis
    columns: Axis
    parts: tuple[Layout, ...]

    def other(self, node: Axis) -> Axis:
        return self.columns if node == self.rows else self.rows

    def matrix(self, rows: Axis, layer: int) -> Layout:
        """The matrix with the given node counting its rows."""
        own = _entrywise(self.parts, layer)
        symmetric = isinstance(own, Symbol) and own.family in _SYMMETRIC
        if own == IDENTITY or symmetric or rows == self.rows:
            return own
        return _transposed(own)


@dataclass
class _Graph:
    """The operands of one product."""

    layer: int
    vectors: dict[Axis, list[Layout]] = field(default_factory=dict)
    divisors: dict[Axis, list[Layout]] = field(default_factory=dict)
    edges: dict[frozenset[Axis], _Edge] = field(default_factory=dict)

    def add(self, factor: Factor) -> None:
        labels = factor.labels
        if len(labels) == 1:
            own = self.divisors if factor.divides else self.vectors
            own.setdefault(labels[0], []).append(factor.layout)
            self.vectors.setdefault(labels[0], [])
        elif len(labels) == 2 and labels[0] != labels[1] and not factor.divides:
            rows, columns = labels
            edge = self.edges.get(frozenset(labels)) or _Edge(rows, columns, ())
            part = factor.layout if edge.rows == rows else _transposed(factor.layout)
            self.edges[frozenset(labels)] = replace(edge, parts=(*edge.parts, part))
            for label in labels:
                self.vectors.setdefault(label, [])
        else:
            raise NoMatrixForm("a tensor with three axes, or a diagonal")

    def around(self, node: Axis) -> list[_Edge]:
        return [edge for ends, edge in self.edges.items() if node in ends]

    def components(self) -> list[set[Axis]]:
        """Connected sets of labels; each must be a tree."""
        rest = dict.fromkeys(self.vectors)
        found: list[set[Axis]] = []
        while rest:
            stack, seen = [next(iter(rest))], set()
            while stack:
                node = stack.pop()
                if node not in seen:
                    seen.add(node)
                    stack += [edge.other(node) for edge in self.around(node)]
            for node in seen:
                del rest[node]
            if sum(ends <= seen for ends in self.edges) != len(seen) - 1:
                raise NoMatrixForm("labels in a cycle")
            found.append(seen)
        return found

    def factors_at(self, node: Axis, skip: Iterable[_Edge] = ()) -> list[Layout]:
        """The vectors whose entrywise product the tree hanging at ``node`` is."""
        factors = list(self.vectors[node])
        for edge in self.around(node):
            if edge not in skip:
                below = edge.other(node)
                vector = self.vector_at(below, [edge])
                matrix = edge.matrix(node, self.layer)
                factors.append(vector if matrix == IDENTITY else _chain([matrix, vector]))
        return factors

    def vector_at(self, node: Axis, skip: Iterable[_Edge] = ()) -> Layout:
        factors = self.factors_at(node, skip)
        above = _entrywise(factors, self.layer) if factors else ONES
        below = self.divisors.get(node)
        return Quotient(above, _entrywise(below, self.layer), entrywise=True) if below else above

    def scalar(self, component: set[Axis]) -> Layout:
        """A product without a free label, from the node that gives the shortest text."""
        if len(component) == 2 and not any(self.vectors[node] or node in self.divisors for node in component):
            edge = self.edges[frozenset(component)]
            if len(edge.parts) > 1:
                return self.inner(list(edge.parts))
        written = [self._scalar_at(node) for node in component]
        return min(written, key=lambda layout: (len(text(layout)), text(layout)))

    def _scalar_at(self, node: Axis) -> Layout:
        if node in self.divisors:
            return Inner(ONES, self.vector_at(node))
        factors = self.factors_at(node)
        return Inner(ONES, factors[0]) if len(factors) == 1 else self.inner(factors)

    def inner(self, factors: list[Layout]) -> Layout:
        """The inner product of factors, or the squared norm of one."""
        if len(factors) == 2 and factors[0] == factors[1]:
            return Norm(factors[0], "squared")
        *first, last = ordered_inner(factors, self.layer)
        return Inner(_entrywise(first, self.layer), last)

    def matrix(self, rows: Axis, columns: Axis) -> Layout:
        """A product with two free labels in one tree."""
        path = self._path(rows, columns)
        if len(path) == 1 and path[0].parts == (IDENTITY,):
            factors = [*self.factors_at(rows, path), *self.factors_at(columns, path)]
            if rows in self.divisors or columns in self.divisors:
                raise NoMatrixForm("a diagonal matrix with quotients")
            return Diagonal(_entrywise(factors, self.layer)) if factors else IDENTITY
        pieces: list[Layout] = []
        node = rows
        for edge in [*path, None]:
            if self.factors_at(node, path) or node in self.divisors:
                pieces.append(Diagonal(self.vector_at(node, path)))
            if edge is not None:
                pieces.append(edge.matrix(node, self.layer))
                node = edge.other(node)
        return _chain(pieces)

    def _path(self, start: Axis, end: Axis) -> list[_Edge]:
        stack: list[tuple[Axis, list[_Edge]]] = [(start, [])]
        while stack:
            node, path = stack.pop()
            if node == end:
                return path
            stack += [(edge.other(node), [*path, edge]) for edge in self.around(node) if edge not in path]
        raise NoMatrixForm("labels in different trees")


def _entrywise(factors: Sequence[Layout], layer: int) -> Layout:
    """One factor, or the entrywise product of several in their order."""
    return factors[0] if len(factors) == 1 else Hadamard(tuple(ordered_factors(list(factors), layer)))


def _transposed(matrix: Layout) -> Layout:
    return matrix.operand if isinstance(matrix, Transpose) else Transpose(matrix)


def _chain(factors: list[Layout]) -> Layout:
    flat: list[Layout] = []
    for factor in factors:
        flat += factor.factors if isinstance(factor, Product) else (factor,)
    return flat[0] if len(flat) == 1 else Product(tuple(flat))


def matrix_product(factors: list[Factor], out: tuple[Axis, ...], layer: int) -> Layout:
    """The product of the factors, summed over the labels that ``out`` lacks.

    Args:
        factors: operands; one that divides has no axis or one.
        out: free labels, in order.
        layer: that indices are ordered from.

    Raises:
        NoMatrixForm: a label structure without matrix notation.
    """
    if len(out) > 2:
        raise NoMatrixForm("more than two free labels")
    graph = _Graph(layer)
    scalars = [f.layout for f in factors if not f.labels and not f.divides]
    divisors = [f.layout for f in factors if not f.labels and f.divides]
    tensors = [factor for factor in factors if factor.labels]
    alike = len(tensors) == 2 and tensors[0].labels == tensors[1].labels and len(tensors[0].labels) > 2
    if alike and not out and not any(factor.divides for factor in tensors):
        scalars.append(graph.inner([factor.layout for factor in tensors]))
        tensors = []
    for factor in tensors:
        graph.add(factor)
    components = graph.components()
    home = {label: next((c for c in components if label in c), None) for label in out}
    scalars += [graph.scalar(c) for c in components if not c & set(out)]
    if len(out) == 2 and home[out[0]] is not None and home[out[0]] is home[out[1]]:
        tensor = [graph.matrix(*out)]
    else:
        tensor = [ONES if home[label] is None else graph.vector_at(label) for label in out]
        if len(tensor) == 2:
            tensor[1] = Transpose(tensor[1])
    above = _chain([*ordered_scalars(scalars, layer), *tensor]) if scalars or tensor else ONE
    return Quotient(above, _chain(ordered_scalars(divisors, layer))) if divisors else above
