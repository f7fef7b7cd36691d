"""The record of an operator: arguments, what runs for which of their values, and the tree of its results."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from sifrc.catalogue.meaning import Meaning
from sifrc.derive.curvature.kinds import Form

__all__ = [
    "Argument",
    "Case",
    "Entry",
    "Field",
    "Form",
    "KindPlan",
    "Mean",
    "Member",
    "Operator",
    "Pairs",
    "Record",
    "Result",
    "Single",
    "Switch",
    "Table",
    "Vector",
    "members_of",
    "with_extra",
]

Member: TypeAlias = tuple[str, int | None]
"""An array: family and subscript."""


@dataclass(frozen=True)
class KindPlan:
    """One kind of curvature.

    Args:
        name: as callers write it.
        functions: that compute its blocks, in order.
        form: what they compute before anything is averaged.
        draws: whether it draws random numbers.
    """

    name: str
    functions: tuple[str, ...]
    form: Form
    draws: bool = False

    @property
    def per_sample(self) -> bool:
        """Whether there are matrices for each sample, so that a batch goes in parts."""
        return self.form in ("samples", "outputs")


@dataclass(frozen=True)
class _One:
    """One number or array.

    Args:
        family: of the array, or of the value of each sample.
        meaning: what it is.
        key: field of a record that it is.
    """

    family: str
    meaning: Meaning
    key: str = ""


class Mean(_One):
    """A number: the mean over the batch of a value of each sample."""


class Single(_One):
    """One array."""


@dataclass(frozen=True)
class Entry:
    """One array of a dict.

    Args:
        key: in the dict.
        member: the array.
        matrix: fold four dimensions to two.
    """

    key: str
    member: Member
    matrix: bool = False


@dataclass(frozen=True)
class Table:
    """A dict of arrays.

    Args:
        entries: in order.
        meaning: what they are.
        like_params: whether it has the names and shapes of the parameters.
    """

    entries: tuple[Entry, ...]
    meaning: Meaning
    like_params: bool = False

    @property
    def families(self) -> tuple[str, ...]:
        """Families of the entries, each once."""
        return tuple(dict.fromkeys(entry.member[0] for entry in self.entries))


@dataclass(frozen=True)
class Field:
    """One entry of a record that is returned.

    Args:
        name: of the entry.
        text: what it is.
        kind: an array, a number, a dict like the parameters, or the names of the groups of parameters.
        always: whether it is there in every case; otherwise it can be None.
        scaled: whether it grows with the batch where a loss is a sum over it.
    """

    name: str
    text: str
    kind: Literal["array", "number", "params", "groups"] = "array"
    always: bool = True
    scaled: bool = True


@dataclass(frozen=True)
class Record:
    """A named tuple in which results come back, each under its key, a switch's under its own name.

    Args:
        name: of the class.
        text: its docstring.
        fields: in order.
    """

    name: str
    text: str
    fields: tuple[Field, ...]


@dataclass(frozen=True)
class Pairs:
    """A dict of named pairs of arrays.

    Args:
        record: the class of the pairs.
        rows: (key, the two arrays).
        meaning: what they are.
    """

    record: Record
    rows: tuple[tuple[str, tuple[Member, Member]], ...]
    meaning: Meaning


Result: TypeAlias = Mean | Single | Table | Pairs


@dataclass(frozen=True)
class Argument:
    """An argument besides parameters, data and a vector.

    Args:
        name: of the argument.
        default: its default; its type is that of the argument, None for a word or nothing.
        text: for docstrings.
    """

    name: str
    default: object
    text: str


@dataclass(frozen=True)
class Switch:
    """An argument, off by default, that adds a result.

    Args:
        name: of the argument.
        text: for docstrings.
        functions: that compute it, after the prepared ones.
        result: what is added.
    """

    name: str
    text: str
    functions: tuple[str, ...]
    result: Result


@dataclass(frozen=True)
class Vector:
    """An argument with the names and shapes of the parameters.

    Args:
        families: of its tensors, those of the weights first.
        name: of the argument.
        single: first group of every tensor, where each of its entries is a group by itself.
    """

    families: tuple[str, ...]
    name: str = "vector"
    single: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True)
class Case:
    """What an operator does for some values of its arguments.

    Args:
        functions: run after the prepared ones, or those of the kind.
        results: what is returned.
        choices: (argument, values that it has in this case).
        forms: of the kinds; () for an operator without kinds.
        batch_axis: whether the results have a sample axis.
        whole: whether the results are products of means over the batch, and no means of such products.
        scaled: whether they grow with the batch where a loss is a sum over it.
    """

    functions: tuple[str, ...]
    results: tuple[Result, ...]
    choices: tuple[tuple[str, tuple[object, ...]], ...] = ()
    forms: tuple[Form, ...] = ()
    batch_axis: bool = False
    whole: bool = False
    scaled: bool = True


@dataclass(frozen=True)
class Operator:
    """A public function of a generated module.

    Args:
        name: as in the contract.
        doc: one line.
        source: equations, e.g. ``ESN(10)``.
        cases: the first one that fits is what happens.
        prepare: functions that run in any case, and depend on parameters and data only.
        vector: the vector argument.
        arguments: further arguments.
        switches: that add results.
        kinds: of curvature that it can be of; without them there is no argument ``kind``.
        kind: the only one, where it is fixed, or '' where it is an argument.
        extra: functions that run with those of a kind, e.g. the gradient.
        also: what is returned of them, before the results of the case.
        returns: what comes back, one line; '' where the results say it.
        batched: takes a batch, or one sample.
        linearized: of a product, what ``linearize`` calls its matrix.
        chunks: whether a batch may be given in parts, and to several threads.
        record: in which the results come back, if they do.
        partitioned: whether it goes by the groups of the parameters.
    """

    name: str
    doc: str
    source: str
    cases: tuple[Case, ...]
    prepare: tuple[str, ...] = ()
    vector: Vector | None = None
    arguments: tuple[Argument, ...] = ()
    switches: tuple[Switch, ...] = ()
    kinds: tuple[KindPlan, ...] = ()
    kind: str = ""
    extra: tuple[str, ...] = ()
    also: tuple[Result, ...] = ()
    returns: str = ""
    batched: bool = True
    linearized: str = ""
    chunks: bool = False
    record: Record | None = None
    partitioned: bool = False

    @property
    def plain(self) -> bool:
        """Whether there is one case, whatever the arguments are, of numbers and what is like params."""
        if self.arguments or self.switches or self.kinds:
            return False
        results = [result for case in self.cases for result in case.results]
        return all(isinstance(one, Mean) or (isinstance(one, Table) and one.like_params) for one in results)

    def starts(self) -> tuple[tuple[KindPlan | None, tuple[str, ...]], ...]:
        """Functions that run before those of a case: of each kind, or the prepared ones."""
        if not self.kinds:
            return ((None, self.prepare),)
        return tuple((kind, with_extra(kind, self.extra)) for kind in self.kinds)

    def fitting(self, kind: KindPlan | None) -> tuple[Case, ...]:
        """The cases of a kind; all where there are none."""
        return self.cases if kind is None else tuple(c for c in self.cases if kind.form in c.forms)

    def functions(self) -> tuple[str, ...]:
        """Everything that it may run."""
        found: dict[str, None] = {}
        for kind, start in self.starts():
            found |= dict.fromkeys(start)
            for switch in self.switches:
                found |= dict.fromkeys(switch.functions)
            for case in self.fitting(kind):
                found |= dict.fromkeys(case.functions)
        return tuple(found)

    def families(self) -> tuple[str, ...]:
        """Families of everything that it may return."""
        switched = (switch.result for switch in self.switches)
        results = (*self.also, *switched, *(result for case in self.cases for result in case.results))
        return tuple(dict.fromkeys(family for family, _ in members_of(results)))


def with_extra(kind: KindPlan, extra: tuple[str, ...]) -> tuple[str, ...]:
    """Functions of a kind and extra ones, which need the back-propagation."""
    if not extra:
        return kind.functions
    *before, blocks = kind.functions
    adjoint = () if "adjoint" in before else ("adjoint",)
    return (*before, *adjoint, *extra, blocks)


def members_of(results: Sequence[Result]) -> Iterator[Member]:
    """The arrays of results."""
    for result in results:
        if isinstance(result, Mean | Single):
            yield result.family, None
        elif isinstance(result, Table):
            yield from (entry.member for entry in result.entries)
        else:
            yield from (member for _, pair in result.rows for member in pair)
