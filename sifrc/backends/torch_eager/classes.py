"""Classes in Torch: formulas with the vector of a class in them, and sums by class.

The vector of a class is 1 at one entry. A formula that is linear in it is computed without it, in a new
tensor, to which its factor is added at that entry. Any other formula gets the vector itself, as a tensor at
the place of use (``_one_hot``), which is as large as what is computed from it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from sympy import Expr, S, Symbol

from sifrc.backends.torch_eager.access import Names, aligned
from sifrc.backends.torch_eager.expressions import Entry, Formula
from sifrc.backends.torch_eager.inlining import occurrences
from sifrc.lower.arrays import Load
from sifrc.lower.statements import LargestPosition, Put

__all__ = ["Vectors", "read_once", "text_of_classes", "vectors_of"]


@dataclass(frozen=True)
class Vectors:
    """A formula that is linear in the vector of a class.

    Args:
        rest: the formula without it.
        factor: of the vector, over the labels of the places; over all of the formula's where a part of it is
            broadcast against these already, with one entry along the classes.
        classes: source text of the classes.
        position: of their dimension in the result.
    """

    rest: Formula
    factor: Formula
    classes: str
    position: int

    def text(self) -> str:
        """The formula, with the factor added at the class of each place."""
        text = self.rest.text(expand=False)
        value = self.rest.value
        if isinstance(value, Symbol) and not self.rest.entries[value.name].computed:
            text = f"{text}.clone()"
        factor = self.factor.text(expand=False)
        if len(self.factor.labels) == len(self.rest.labels):
            factor = f"({factor}).squeeze({self.position})"
        return f"_add_at({text}, {self.classes}, {self.position}, {factor})"


def vectors_of(formula: Formula) -> Vectors | None:
    """The formula as one that is linear in the vector of a class; None where it is another one."""
    entries = formula.entries
    symbols = formula.value.free_symbols
    if not formula.in_place or not {symbol.name for symbol in symbols} <= set(entries):
        return None
    found = [symbol for symbol in symbols if entries[symbol.name].classes]
    if len(found) != 1:
        return None
    (symbol,) = found
    entry, labels = entries[symbol.name], formula.labels
    *places, own = entry.labels
    if own not in labels or tuple(label for label in labels if label != own) != tuple(places):
        return None
    factor, rest = formula.value.diff(symbol), formula.value.xreplace({symbol: S.Zero})
    if symbol in factor.free_symbols or own in _labels(factor, entries):
        return None
    if set(_labels(rest, entries)) != set(labels):
        return None
    of_parts = any(entries[symbol.name].ready for symbol in factor.free_symbols)
    return Vectors(
        replace(formula, value=rest),
        replace(formula, value=factor, labels=labels if of_parts else tuple(places)),
        entry.classes,
        labels.index(own),
    )


def _labels(value: Expr, entries: Mapping[str, Entry]) -> set[str]:
    """Labels of the operands of an expression."""
    found = (entries[symbol.name] for symbol in value.free_symbols)
    return {label for entry in found for label in (entry.product or entry).labels}


def read_once(
    values: Sequence[Expr], loads: Mapping[str, Load], entries: dict[str, Entry], prefix: str
) -> list[str]:
    """Statements for what is read at classes, or is their vectors, where formulas have it several times.

    Args:
        values: of the formulas.
        loads: what their symbols are.
        entries: what these stand for; changed to the new names.
        prefix: of these.
    """
    lines: list[str] = []
    for name, load in loads.items():
        symbol = Symbol(name, real=True)
        if load.reads_classes and sum(occurrences(value, symbol) for value in values) > 1:
            own = f"{prefix}_at_class{len(lines) + 1}"
            lines.append(f"{own} = {entries[name].text}")
            entries[name] = replace(entries[name], text=own)
    return lines


def text_of_classes(statement: Put | LargestPosition, names: Names) -> tuple[str, tuple[str, ...]]:
    """Source text of sums by class, or of positions, and the labels of its dimensions."""
    return _put_text(statement, names) if isinstance(statement, Put) else _position_text(statement, names)


def _put_text(statement: Put, names: Names) -> tuple[str, tuple[str, ...]]:
    """Source text of sums by class, and the labels of its dimensions."""
    operand, classes, target = statement.operand, statement.classes, statement.target
    index = names.classes(classes.ref, statement.partial)
    each = tuple(label for label in classes.labels if label in target.labels)
    summed = tuple(label for label in classes.labels if label not in each)
    rest = tuple(label for label in target.labels if label != statement.at and label not in each)
    size, scale = statement.size, _scale_text(statement, names)
    if each and operand.labels == (*rest, *each, *summed):
        # What there is for each place comes before it: every row of a tensor has its own positions.
        index = aligned(index, classes.labels, (*each, *summed))
        text = f"_put_along({names.array(operand)}, {index}, {size}, {len(each)})"
        return f"{text}.mul_({scale})" if scale else text, (*rest, *each, statement.at)
    # Places come first, those that are kept before those that are summed.
    values = aligned(names.array(operand), operand.labels, (*each, *summed, *rest))
    index = aligned(index, classes.labels, (*each, *summed))
    text = (
        f"_put_each({values}, {index}, {size}, {len(each)})" if each else f"_put({values}, {index}, {size})"
    )
    return f"{text}.mul_({scale})" if scale else text, (*each, statement.at, *rest)


def _position_text(statement: LargestPosition, names: Names) -> tuple[str, tuple[str, ...]]:
    """Source text of where windows have their largest entries, and the labels of its dimensions."""
    axes = statement.axes
    settings = [
        tuple(axis.sizes[2] for axis in axes),
        tuple(axis.stride for axis in axes),
        tuple(axis.sizes[1] for axis in axes),
    ]
    if any(axis.dilation != 1 or axis.padding for axis in axes):
        settings += [tuple(axis.dilation for axis in axes), tuple(axis.padding for axis in axes)]
    arguments = ", ".join(map(str, (names.array(statement.image), *settings)))
    return f"_largest_position({arguments})", statement.target.labels


def _scale_text(statement: Put, names: Names) -> str:
    """Source text of the factor in front of the sums; '' for one."""
    if statement.scale == 1:
        return ""
    entries = {
        name: Entry(names.array(load), is_float=names.is_float(load)) for name, load in statement.loads
    }
    return Formula(statement.scale, (), entries, {}, names.single).text(expand=False)
