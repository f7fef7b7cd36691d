"""Typed statements of a program.

Scalar formulas inside kernels are SymPy expressions over symbols, each bound to one entry of one buffer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import TypeAlias

import sympy

from sifrc.lower.arrays import Load, Subscript
from sifrc.lower.systems import MatrixFunction, SolveCubic, SolveKronecker, SolveSylvester, SolveSystem

__all__ = [
    "ArgMaxOver",
    "Assign",
    "ConjugateGradients",
    "Contract",
    "Convolve",
    "Fresh",
    "Guard",
    "Kernel",
    "LargestPosition",
    "LogSoftmaxOver",
    "LogSumExpOver",
    "Loop",
    "MatrixFunction",
    "MaximumOver",
    "Put",
    "Reading",
    "SolveCubic",
    "SolveKronecker",
    "SolveSylvester",
    "SolveSystem",
    "Statement",
    "Steps",
    "Sum",
    "Unknown",
]


@dataclass(frozen=True)
class Assign:
    """``target`` := ``value`` in a kernel; the value is over the symbols of the kernel's loads."""

    target: Load
    value: sympy.Expr


@dataclass(frozen=True)
class Kernel:
    """One loop nest over ``labels`` (outermost first); the assignments run in order at each entry.

    ``loads`` binds symbol names to entries. A load of an array that an earlier assignment of the
    same kernel wrote sees the new value. Without labels it is scalar code.
    """

    labels: tuple[str, ...]
    assigns: tuple[Assign, ...]
    loads: tuple[tuple[str, Load], ...]

    @cached_property
    def readers(self) -> Mapping[str, tuple[int, ...]]:
        """Numbers of the assignments that read a symbol, by its name."""
        found: dict[str, list[int]] = {}
        for number, assign in enumerate(self.assigns):
            for symbol in assign.value.free_symbols:
                found.setdefault(symbol.name, []).append(number)
        return MappingProxyType({name: tuple(numbers) for name, numbers in found.items()})


@dataclass(frozen=True)
class Sum:
    """``target`` := Σ over ``over`` of ``value``; the target's labels are the free ones."""

    target: Load
    over: tuple[str, ...]
    value: sympy.Expr
    loads: tuple[tuple[str, Load], ...]


@dataclass(frozen=True)
class Contract:
    """A matrix product: ``target`` := scale · Σ left · right over the labels the target lacks.

    ``scale`` is a SymPy expression over ``loads``, which are scalars (often 1, or ``mean``). The labels of
    the left operand alone are the rows of the product, those of the right one alone its columns, and those of
    both are summed, however many there are of each: a matrix product of the operands with each group as one
    dimension, once, or for every value of the labels that both and the target have, as the sample's.
    """

    target: Load
    left: Load
    right: Load
    scale: sympy.Expr
    loads: tuple[tuple[str, Load], ...] = ()


@dataclass(frozen=True)
class Reading:
    """One axis of places of a convolution: index of the image = stride · place + dilation · entry − padding.

    Args:
        labels: of the image, of the places of the output, and of the entries of the kernel.
        sizes: of these.
        stride, dilation, padding: of the windows.
    """

    labels: tuple[str, str, str]
    sizes: tuple[int, int, int]
    stride: int
    dilation: int
    padding: int


@dataclass(frozen=True)
class Convolve:
    """scale · Σ over windows: each of image, kernel and output may be the sum of products of the other two.

    Which one is ``written`` says what it is: a convolution (``output``), a transposed one (``image``), or the
    gradient of a kernel (``kernel``). Every other label is in two of the three: of the batch in image and
    output, of channels in image and kernel or in kernel and output. ``scale`` is over ``loads``, scalars.
    """

    image: Load
    kernel: Load
    output: Load
    written: str
    axes: tuple[Reading, ...]
    scale: sympy.Expr
    loads: tuple[tuple[str, Load], ...] = ()

    @property
    def target(self) -> Load:
        """What is written."""
        load: Load = getattr(self, self.written)
        return load

    @property
    def operands(self) -> tuple[Load, Load]:
        """The other two, in order."""
        first, second = (
            load
            for name, load in (("image", self.image), ("kernel", self.kernel), ("output", self.output))
            if name != self.written
        )
        return first, second


@dataclass(frozen=True)
class Put:
    """``target`` := scale · Σ ``operand``, each entry of which is added at the class of its place.

    It is the transpose of reading a dimension at classes (:class:`~sifrc.lower.arrays.Take`): the gradient of
    an embedding. Entries of classes that come nowhere are zero, labels that the target lacks are summed, and
    a class of -1 adds zero, since the operand is.

    Args:
        target: with a label that neither operand nor classes have.
        operand: with every label of the classes, all others of the target, and none besides.
        classes: integers.
        at: the target's label of the classes.
        size: how many classes there are, which no operand tells.
        scale: over ``loads``, scalars.
        loads: what the scale reads.
        partial: whether a class may be -1.
    """

    target: Load
    operand: Load
    classes: Load
    at: str
    size: int
    scale: sympy.Expr
    loads: tuple[tuple[str, Load], ...] = ()
    partial: bool = False


@dataclass(frozen=True)
class LogSumExpOver:
    """``target`` := log Σ_label exp(operand), computed without overflow."""

    target: Load
    operand: Load
    over: str


@dataclass(frozen=True)
class LogSoftmaxOver:
    """``target`` := operand − log Σ_label exp(operand), with the largest entry taken off first."""

    target: Load
    operand: Load
    over: str


@dataclass(frozen=True)
class MaximumOver:
    """``target`` := max_label operand, or of its magnitudes."""

    target: Load
    operand: Load
    over: str
    magnitude: bool = False


@dataclass(frozen=True)
class ArgMaxOver:
    """``target`` := 1 at the first of the largest entries of ``operand`` over a label, else 0."""

    target: Load
    operand: Load
    over: str


@dataclass(frozen=True)
class LargestPosition:
    """``target`` := where the window of each place has its largest entry, the first of equal ones.

    Args:
        target: integers: positions in the image with all of its axes of places as one.
        image: with these axes last, and those before of the target.
        axes: places, entries and what they read, for each of them.
    """

    target: Load
    image: Load
    axes: tuple[Reading, ...]


@dataclass(frozen=True)
class Unknown:
    """Arrays of one unknown of a system: all of one shape.

    Args:
        solution: what is computed.
        rhs: right side.
        residual: of the equation.
        direction: of the search; what the operator is applied to.
        product: the operator applied to it.
    """

    solution: Load
    rhs: Load
    residual: Load
    direction: Load
    product: Load


@dataclass(frozen=True)
class ConjugateGradients:
    """Conjugate gradients from zero on a symmetric positive semi-definite system of some unknowns.

    It ends after ``limit`` iterations, when the norm of the residual is at most ``tolerance`` times that
    of the right side, or at a direction whose curvature is not positive beyond rounding. NaN in the operator
    or the right side comes out as NaN.

    Args:
        unknowns: found together; inner products are over all of them.
        body: computes the products from the directions.
        limit, tolerance: numbers.
        iterations, remaining: numbers that are written: how many were made, and the relative residual.
    """

    unknowns: tuple[Unknown, ...]
    body: tuple[Statement, ...]
    limit: Load
    tolerance: Load
    iterations: Load
    remaining: Load


@dataclass(frozen=True)
class Guard:
    """The step is refused where an entry of ``operand`` is not finite.

    ``code`` is the position, from 1, in the program's table of guards (layer, quantity); inside a loop
    it is ``k + offset`` like any subscript. Where ``rows``, every row has a code of its own: those that
    follow (one for each group).
    """

    operand: Load
    code: Subscript
    rows: bool = False


@dataclass(frozen=True)
class Fresh:
    """A new array, which is then written window by window.

    Args:
        target: the array.
        zeros: whether it must begin with zeros: windows are added to, or do not reach every entry.
        like: an array with its dimensions after those of the groups, if there is one.
    """

    target: Load
    zeros: bool
    like: Load | None


@dataclass(frozen=True)
class Steps:
    """``for each step``, from the first to the last or ``backwards``: the body, over arrays of one step.

    The body reads arrays over all steps at the step (:class:`~sifrc.lower.arrays.AtStep`). After it, what is
    ``stored`` goes to its place in an array over all steps, and what is ``carried`` to an array that the next
    round reads; those are zero in the first one.

    Args:
        count: of the steps.
        backwards: whether the last step comes first.
        body: statements of one step.
        stored: pairs of an array of one step and that of all of them, with a label for the step.
        over: that label.
        carried: pairs of an array of one step and what the next round reads, in the order in which they move.
    """

    count: int
    backwards: bool
    body: tuple[Statement, ...]
    stored: tuple[tuple[Load, Load], ...]
    over: str
    carried: tuple[tuple[Load, Load], ...]


Statement: TypeAlias = (
    Fresh
    | Kernel
    | Sum
    | Contract
    | Convolve
    | Put
    | LogSoftmaxOver
    | LogSumExpOver
    | MaximumOver
    | ArgMaxOver
    | LargestPosition
    | SolveSystem
    | SolveSylvester
    | SolveKronecker
    | SolveCubic
    | ConjugateGradients
    | MatrixFunction
    | Guard
    | Steps
)


@dataclass(frozen=True)
class Loop:
    """``for k in range(start, stop, step)`` over the body."""

    start: int
    stop: int
    step: int
    body: tuple[Statement, ...]
