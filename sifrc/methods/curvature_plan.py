"""Operators on curvature blocks, as data: kinds, and what an operator does for which arguments."""

from __future__ import annotations

from dataclasses import dataclass

from sifrc.derive.curvature.kinds import Form

__all__ = ["Case", "CurvatureOperator", "Form", "KindPlan", "Result"]


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
        """Whether there is one block for each sample, so that a batch goes in parts."""
        return self.form == "samples"


@dataclass(frozen=True)
class Result:
    """One entry of a returned dict.

    Args:
        key: of the entry.
        members: (family, index) of its arrays, one or a named pair.
        matrix: fold four dimensions to two.
    """

    key: str
    members: tuple[tuple[str, int], ...]
    matrix: bool = False


@dataclass(frozen=True)
class Case:
    """What a curvature operator does for some values of its arguments.

    Args:
        choices: (argument, values it has in this case).
        functions: run after those of the kind.
        results: what is returned.
        forms: of the kinds.
        batch_axis: whether the results have a sample axis.
        whole: whether the results are products of means over the batch, and no means of such products.
    """

    choices: tuple[tuple[str, tuple[object, ...]], ...]
    functions: tuple[str, ...]
    results: tuple[Result, ...]
    forms: tuple[Form, ...]
    batch_axis: bool = False
    whole: bool = False


@dataclass(frozen=True)
class CurvatureOperator:
    """A public function on curvature blocks: of a batch, for a kind, with further arguments.

    Args:
        name: as in the contract.
        kind: fixed kind, or '' where it is an argument.
        arguments: (name, default, text), after ``kind``.
        cases: the first one that fits is what happens.
        vector: families of the vector argument, weight family first, or ().
        pair: names of the two members of every result, or ().
        extra: functions that run with those of the kind, e.g. the gradient.
        also: what is returned of them, as a dict of its own before the other.
        doc: one line.
        returns: what comes back, one line.
        source: equations.
    """

    name: str
    kind: str
    arguments: tuple[tuple[str, object, str], ...]
    cases: tuple[Case, ...]
    vector: tuple[str, ...] = ()
    pair: tuple[str, ...] = ()
    extra: tuple[str, ...] = ()
    also: tuple[Result, ...] = ()
    doc: str = ""
    returns: str = ""
    source: str = ""
