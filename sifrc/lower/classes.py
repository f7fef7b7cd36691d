"""Vectors of classes in a product: what is summed along them is read at the class.

A class is an integer c in memory, and as a factor of a product the vector that is 1 at c and 0 elsewhere.
Summed over its entries, Σ_j t_j f_j, it is the entry f_c of every other factor; where they are kept, and the
places that have classes are summed, each product is added at its class. What is left reads an entry of the
vector, which compares two integers. Statements that take whole arrays get the vector as one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from sifrc.ir import Add, Affine, Axis, Delta, Einsum, Expr, Input, Map, Operand, Role
from sifrc.ir.build import add, einsum, mapped
from sifrc.ir.traverse import inputs_of
from sifrc.lower.arrays import Change, Counted, OneHot, Take
from sifrc.lower.positions import with_images_as_one
from sifrc.lower.products import kept_labels, place_count
from sifrc.lower.windows import View, ref_of

__all__ = ["Classes", "Scattered", "as_scattered", "indices_of", "is_of_classes"]


def is_of_classes(expr: Expr) -> bool:
    """Whether it is a symbol for vectors of classes."""
    return isinstance(expr, Input) and expr.role.of_classes


def indices_of(symbol: Input) -> Input:
    """The array of integers of a symbol for vectors of classes."""
    return Input(symbol.family, symbol.index, symbol.axes[:-1], Role.DATA)


@dataclass(frozen=True)
class Classes:
    """What products with vectors of classes need of the lowering.

    Args:
        buffer: an expression in an array of its own.
        changed: an array read in another way.
        note: an array that the program has, with its shape.
        held: the array that an expression is in already, if it is.
        views: what symbols stand for of other arrays.
        indices: whether classes are integers at all; else they are vectors, as any other array.
    """

    buffer: Callable[[Expr], Input]
    changed: Callable[[Input, Change], Input]
    note: Callable[[Input], None]
    held: Callable[[Expr], Input | None]
    views: Mapping[str, View]
    indices: bool = True

    def are_indices(self, expr: Expr) -> bool:
        """Whether a symbol is for vectors of classes that are integers in memory."""
        return self.indices and is_of_classes(expr)

    def are_read(self, symbol: Input) -> bool:
        """Whether an array depends on classes as it is read, and has no memory of its own as such."""
        if self.are_indices(symbol):
            return True
        view = self.views.get(symbol.key)
        return view is not None and any(isinstance(c, Take | OneHot | Counted) for c in view.changes)

    def vectors(self, symbol: Input) -> Input:
        """The vectors as an array that is read entry by entry."""
        partial = symbol.role is Role.COUNTED
        return self.changed(indices_of(symbol), OneHot(symbol.axes[-1].entries, partial))

    def read_at(self, expr: Einsum) -> Einsum:
        """The product with what is summed along a class read there."""
        expr = with_images_as_one(expr, self)
        factors = [factor for operand in expr.operands for factor in self._factors(operand)]
        if not self.indices or not any(map(_has_classes, factors)):
            return expr
        # Vectors of ones and zeros: twice the same is once.
        operands = [op for n, op in enumerate(factors) if not _has_classes(op) or op not in factors[:n]]
        for vector in list(filter(_has_classes, operands)):
            label = vector[1][-1]
            if vector not in operands:  # read at the classes of another one
                continue
            others = [operand for operand in operands if operand != vector and label in operand[1]]
            if label not in expr.out and all(_can_be_read(operand, label) for operand in others):
                operands.remove(vector)
                operands = [self.at(op, vector) if op in others else op for op in operands]
                operands += self.counted(vector)
        return Einsum(tuple(operands), expr.out)

    def summed_first(self, expr: Einsum) -> Einsum:
        """The product with what its places have added up by class, where that leaves less to multiply.

        Of Σ_p t_pc b_pi W_ij with fewer classes c than places p, Σ_p t_pc b_pi has a row for each class.
        """
        for vector in filter(_has_classes, expr.operands):
            *places, label = vector[1]
            there = [op for op in expr.operands if op != vector and set(places) & set(op[1])]
            rest = [op for op in expr.operands if op != vector and op not in there]
            factors = [labels for _, labels in rest if labels]
            needed = {*expr.out, *(axis for labels in factors for axis in labels)}
            more = place_count(places) > label.entries
            if not (factors and there and more and label in needed) or needed & set(places):
                continue
            kept = tuple(dict.fromkeys(axis for _, ls in (vector, *there) for axis in ls if axis in needed))
            inner = Einsum((vector, *there), kept)
            return Einsum((*rest, (inner, kept)), expr.out)
        return expr

    def distributed(self, expr: Einsum) -> Expr | None:
        """A product with a mean of vectors of classes, as smoothed labels are, as the mean of products.

        All parts have one sign, so that none takes the digits of another. None where there is no such mean.
        """
        for number, (factor, labels) in enumerate(expr.operands if self.indices else ()):
            if not isinstance(factor, Add) or self.held(factor) is not None:
                continue
            vectors = [term for _, term in factor.terms if is_of_classes(term)]
            label = dict(zip(factor.out, labels, strict=True)).get(vectors[0].axes[-1]) if vectors else None
            others = [operand for n, operand in enumerate(expr.operands) if n != number]
            alike = len({weight > 0 for weight, _ in factor.terms}) == 1 and all(
                symbol.role.of_classes for symbol in inputs_of(factor)
            )
            if (
                label is None
                or label in expr.out
                or not alike
                or set(vectors) & {*inputs_of(*(e for e, _ in others))}
            ):
                continue
            parts = [(w, einsum([*others, (term, labels)], expr.out)) for w, term in factor.terms]
            return add(parts, expr.out)
        return None

    def _factors(self, operand: Operand) -> list[Operand]:
        """A factor, taken apart where it is a product with the vector of a class."""
        expr, labels = operand
        product = isinstance(expr, Einsum) and _is_entrywise(expr) and self.held(expr) is None
        if not isinstance(expr, Einsum) or not product or not any(map(_has_classes, expr.operands)):
            return [operand]
        table = dict(zip(expr.out, labels, strict=True))
        return [(e, tuple(table[axis] for axis in own)) for e, own in expr.operands]

    def counted(self, vector: Operand) -> list[Operand]:
        """The number that tells whether a vector has a one, where it may have none."""
        symbol, labels = vector
        assert isinstance(symbol, Input)
        partial = symbol.role is Role.COUNTED
        return [(self.changed(indices_of(symbol), Counted()), labels[:-1])] if partial else []

    def at(self, operand: Operand, vector: Operand) -> Operand:
        """A factor read at the classes of another one; what is entrywise is computed there alone."""
        (expr, labels), (*_, label) = operand, vector[1]
        if label not in labels:
            return operand
        if operand == vector:  # there it is one
            places = labels[:-1]
            return einsum(self.counted(vector), places), places
        if not isinstance(expr, Add | Map | Einsum) or not self._opens(operand, vector):
            return self._array_at(operand, vector)
        table = dict(zip(expr.out, labels, strict=True))
        position = labels.index(label)
        new = [place for place in vector[1][:-1] if place not in labels]
        out = (*labels[:position], *new, *labels[position + 1 :])
        if isinstance(expr, Add):
            terms = [(factor, self.at((term, labels), vector)) for factor, term in expr.terms]
            return add([(factor, einsum([term], out)) for factor, term in terms], out), out
        inner = [(e, tuple(table[axis] for axis in own)) for e, own in expr.operands]
        if isinstance(expr, Map):
            return mapped(expr.function, expr.orders, [self.at(op, vector) for op in inner], out), out
        return einsum([self.at(op, vector) for op in inner], out), out

    def _opens(self, operand: Operand, vector: Operand) -> bool:
        """Whether a factor has no array yet, and what it is computed of can be read at classes."""
        (expr, labels), label = operand, vector[1][-1]
        if self.held(expr) is not None or not _is_entrywise(expr):
            return False
        if not isinstance(expr, Map | Einsum):
            return True
        table = dict(zip(expr.out, labels, strict=True))
        inner = [(e, tuple(table[axis] for axis in own)) for e, own in expr.operands]
        return all(op == vector or _can_be_read(op, label) for op in inner if label in op[1])

    def _array_at(self, operand: Operand, vector: Operand) -> Operand:
        """An array read at classes."""
        (expr, labels), (symbol, (*places, label)) = operand, vector
        assert isinstance(symbol, Input)
        position, classes = labels.index(label), indices_of(symbol)
        self.note(classes)
        along = tuple(labels.index(place) if place in labels else None for place in places)
        sizes = tuple(axis.size for axis in classes.axes)
        partial = symbol.role is Role.COUNTED
        take = Take(position, ref_of(classes), sizes, along, partial)
        array = self.vectors(expr) if isinstance(expr, Input) and _has_classes(operand) else self.buffer(expr)
        found = self.changed(array, take)
        return found, (*labels[:position], *take.new(tuple(places)), *labels[position + 1 :])


def _has_classes(operand: Operand) -> bool:
    return is_of_classes(operand[0])


def _is_entrywise(expr: Expr) -> bool:
    """Whether an entry is a formula of entries, without a sum."""
    if isinstance(expr, Einsum):
        return all(set(labels) <= set(expr.out) for _, labels in expr.operands)
    return isinstance(expr, Add | Map)


def _can_be_read(operand: Operand, label: Axis) -> bool:
    """Whether a factor can be read at some value of a label."""
    expr, labels = operand
    return not isinstance(expr, Affine | Delta) and len(set(labels)) == len(labels)


@dataclass(frozen=True)
class Scattered:
    """A product that is added at the classes of one of its factors.

    Args:
        value: of the other factors.
        labels: of these.
        vector: the vectors of classes.
        scalars: factors without labels.
    """

    value: Expr
    labels: tuple[Axis, ...]
    vector: Operand
    scalars: tuple[Expr, ...]


def as_scattered(expr: Einsum, classes: Classes) -> Scattered | None:
    """A product that is added at classes: their label is kept, and a place that has one is summed."""
    for vector in filter(_has_classes, expr.operands if classes.indices else ()):
        *places, label = vector[1]
        if label not in expr.out or set(places) <= set(expr.out):
            continue
        others = [operand for operand in expr.operands if operand != vector]
        there = [operand for operand in others if label in operand[1]]
        if not all(_can_be_read(operand, label) for operand in there):
            continue
        read = [classes.at(op, vector) if op in there else op for op in others] + classes.counted(vector)
        scalars = tuple(operand for operand, labels in read if not labels)
        factors = [(operand, labels) for operand, labels in read if labels]
        kept = kept_labels(factors, {*expr.out, *places})
        if not set(expr.out) <= {*kept, *places, label}:
            continue
        axes = (*(place for place in places if place not in kept), *kept)
        if len(factors) == 1 and sorted(map(str, factors[0][1])) == sorted(map(str, axes)):
            return Scattered(*factors[0], vector, scalars)  # an array as it lies in memory
        return Scattered(einsum(factors, axes), axes, vector, scalars)
    return None
