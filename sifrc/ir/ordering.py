"""An order of the factors of a product that does not depend on how the product was given.

Factors are sorted by what they are, those that are alike by where their labels occur in the product, and what
is still alike by the names that its labels get. Labels are numbers here, so that products of any kind of
factors can be ordered: those of expressions, and those of forms up to a shift of all layers.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import TypeVar

__all__ = ["Product", "canonical_order", "contracted_names", "numbered"]

T = TypeVar("T")

_ROUNDS = 3
_MAX_TIES = 4


@dataclass(frozen=True)
class Product:
    """The factors of a product.

    Args:
        keys: of each factor a text that says what it is.
        labels: of each factor the labels of its slots.
        fixed: label -> name of the labels that are not summed, in their order.
        kinds: label -> text of what can stand for it, of all others.
    """

    keys: Sequence[str]
    labels: Sequence[tuple[int, ...]]
    fixed: Mapping[int, str]
    kinds: Mapping[int, str]


def numbered(out: Sequence[T], labels: Iterable[Sequence[T]]) -> tuple[dict[T, int], list[tuple[int, ...]]]:
    """A number of every label, those of ``out`` first, and the labels of the factors by them."""
    factors = list(labels)
    numbers = {label: n for n, label in enumerate(dict.fromkeys(itertools.chain(out, *factors)))}
    return numbers, [tuple([numbers[label] for label in own]) for own in factors]


def canonical_order(product: Product) -> list[int]:
    """The positions of the factors in the order.

    Of more than four factors that are alike, an order among them follows how they were given.

    Example:
        >>> names = {0: "i"}
        >>> one = Product(["W", "x", "W"], [(0, 1), (2,), (1, 2)], names, {1: "3", 2: "3"})
        >>> two = Product(["W", "W", "x"], [(7, 8), (0, 7), (8,)], names, {7: "3", 8: "3"})
        >>> canonical_order(one), canonical_order(two)
        ([2, 0, 1], [0, 1, 2])
    """
    keys = product.keys
    positions = range(len(keys))
    if len(set(keys)) == len(keys):
        return sorted(positions, key=keys.__getitem__)
    colours = _colours(product)
    order = [(keys[p], [colours[label] for label in product.labels[p]], p) for p in positions]
    order.sort(key=lambda entry: entry[:2])
    ties = [
        [position for _, _, position in group]
        for _, group in itertools.groupby(order, key=lambda entry: entry[:2])
    ]
    if len(ties) == len(keys):
        return [position for _, _, position in order]
    return _Search(product).least(ties)


def contracted_names(fixed: Mapping[int, str]) -> itertools.filterfalse[str]:
    """The names of labels that are summed, ``#0``, ``#1``, …, without those that labels have already.

    A part of a larger product may have contracted labels of the whole among its own.
    """
    number = itertools.count()
    return itertools.filterfalse(set(fixed.values()).__contains__, map("#{}".format, number))


def _colours(product: Product) -> dict[int, str]:
    """Of each label a text by where it occurs, the same however the product was given."""
    colour = {label: f"o{position}" for position, label in enumerate(product.fixed)}
    free = [label for label in dict.fromkeys(itertools.chain(*product.labels)) if label not in colour]
    colour.update((label, f"c{product.kinds[label]}") for label in free)
    for _ in range(_ROUNDS):
        seen: dict[int, list[str]] = {label: [] for label in colour}
        for key, labels in zip(product.keys, product.labels, strict=True):
            around = ",".join([colour[label] for label in labels])
            for slot, label in enumerate(labels):
                seen[label].append(f"{key}/{slot}/{around}")
        colour.update((label, f"c{product.kinds[label]}<{_short(sorted(seen[label]))}>") for label in free)
    return colour


def _short(parts: list[str]) -> str:
    return blake2b("|".join(parts).encode(), digest_size=8).hexdigest()


@dataclass(frozen=True)
class _Partial:
    """The first factors of an order, and names of their labels; ``left`` of their group are to come."""

    order: tuple[int, ...]
    names: Mapping[int, str]
    left: tuple[int, ...]


class _Search:
    """The order, within groups of factors that are alike, whose names come first."""

    def __init__(self, product: Product) -> None:
        self.product = product
        generator = contracted_names(product.fixed)
        count = len(set(itertools.chain(*product.labels)))
        self.contracted = list(itertools.islice(generator, count))

    def least(self, groups: list[list[int]]) -> list[int]:
        """Place by place only the orders with the least names are kept.

        Of those that differ by a symmetry of the product one is kept: there are factorially many where the
        same factors occur several times.
        """
        states = [_Partial((), self.product.fixed, ())]
        for number, group in enumerate(groups):
            later = list(itertools.chain(*groups[number + 1 :]))
            states = [_Partial(state.order, state.names, tuple(group)) for state in states]
            for _ in group:
                found: dict[tuple[str, ...], list[_Partial]] = {}
                for state in states:
                    # Many alike stay in the order they have.
                    choices = state.left if len(group) <= _MAX_TIES else state.left[:1]
                    taken: dict[tuple[str, ...], list[_Partial]] = {}
                    for choice in choices:
                        names, text = self.named(choice, state.names)
                        left = tuple(position for position in state.left if position != choice)
                        taken.setdefault(text, []).append(_Partial((*state.order, choice), names, left))
                    least = min(taken)
                    found.setdefault(least, []).extend(self.unlike(taken[least], state.names, later))
                states = found[min(found)]
        return list(states[0].order)

    def named(self, position: int, names: Mapping[int, str]) -> tuple[Mapping[int, str], tuple[str, ...]]:
        """Names with those of the next labels, and the labels of a factor by them."""
        labels = self.product.labels[position]
        new = [label for label in dict.fromkeys(labels) if label not in names]
        if new:
            start = len(names) - len(self.product.fixed)
            names = {**names, **dict(zip(new, self.contracted[start:], strict=False))}
        return names, tuple([names[label] for label in labels])

    def unlike(self, partials: list[_Partial], before: Mapping[int, str], later: list[int]) -> list[_Partial]:
        """Of partial orders that differ in their last factor, those that no symmetry takes into each other.

        One takes the last factors and what hangs together with them, by labels without a name so far, into
        each other where these parts come out equal.
        """
        if len(partials) == 1:
            return partials
        labels = self.product.labels
        kept: dict[tuple[tuple[str, tuple[str, ...]], ...], _Partial] = {}
        for partial in partials:
            part: list[int] = []
            rest = [*partial.left, *later]
            joined = set(partial.names.keys() - before.keys())
            while joined and (linked := [p for p in rest if not joined.isdisjoint(labels[p])]):
                part += linked
                rest = [p for p in rest if joined.isdisjoint(labels[p])]
                joined.update(label for p in linked for label in labels[p] if label not in before)
            kept.setdefault(self.form(part, partial.names), partial)
        return list(kept.values())

    def form(self, part: list[int], names: Mapping[int, str]) -> tuple[tuple[str, tuple[str, ...]], ...]:
        """Some factors as a product of its own, in its order and with its names."""
        if not part:
            return ()
        keys = [self.product.keys[position] for position in part]
        product = Product(keys, [self.product.labels[p] for p in part], names, self.product.kinds)
        search = _Search(product)
        entries = []
        for position in canonical_order(product):
            names, text = search.named(position, names)
            entries.append((keys[position], text))
        return tuple(entries)
