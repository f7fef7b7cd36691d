"""The tensor program: typed statements over families of buffers.

A family is the arrays of one quantity for all layers, e.g. x[0..n]; a statement refers to its members by
a constant subscript, or inside a loop by ``k + offset``. Statements name the entries they touch by
one-letter labels; ``p`` is the sample. Scalar formulas inside kernels are SymPy expressions over
symbols, each bound to one entry of one buffer. Backends print programs; they decide nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property
from types import MappingProxyType
from typing import TypeAlias

import sympy

from sifrc.methods.curvature_plan import CurvatureOperator, KindPlan
from sifrc.methods.plan import Hyperparameter
from sifrc.methods.summary_plan import SummaryOperator

__all__ = [
    "OBJECTIVE",
    "SAMPLE_LABEL",
    "Assign",
    "ConjugateGradients",
    "Contract",
    "Family",
    "Fresh",
    "Function",
    "Guard",
    "Kernel",
    "Load",
    "LogSoftmaxOver",
    "LogSumExpOver",
    "Loop",
    "MatrixFunction",
    "MaximumOver",
    "Operator",
    "Place",
    "Program",
    "Ref",
    "Slot",
    "SolveCubic",
    "SolveKronecker",
    "SolveSylvester",
    "SolveSystem",
    "Statement",
    "Storage",
    "Subscript",
    "Sum",
    "Unknown",
    "Upto",
    "Window",
]

OBJECTIVE = "objective"
"""Family of the objective of a sample."""
SAMPLE_LABEL = "p"


class Storage(Enum):
    """Where the arrays of a family live and who owns them."""

    PARAMETER = "parameter"
    """Weights and biases: given by the user, updated in place by a step."""
    DATA = "data"
    """Inputs x[0] and targets t."""
    DIRECTION = "direction"
    """Given tensors shaped like parameters: the vector of a product."""
    RESULT = "result"
    """Tensors shaped like parameters that a function computes: gradients, products, directions."""
    WORK = "work"
    """Intermediate values, one set for each batch size."""
    MEMORY = "memory"
    """State of an optimizer, kept from step to step, updated in place."""
    CONSTANT = "constant"
    """Numbers of the spec, one for each index (λ_k)."""
    RANDOM = "random"
    """Random numbers, one vector for each sample; ``ω`` uniform, ``ε`` normal."""
    IDENTITY = "identity"
    """An identity matrix; it depends on nothing."""
    HYPERPARAMETER = "hyperparameter"
    """Scalars given at each call (lr, damping); ``mean`` is one over the batch size."""


@dataclass(frozen=True)
class Family:
    """All arrays of one quantity.

    Args:
        name: canonical name, e.g. ``x``, ``ζ``, ``W``.
        code: ASCII identifier for generated code, e.g. ``x``, ``zeta``, ``weights``.
        storage: who owns it.
        shapes: index -> shape; None in a shape is the batch size. A family without index has the
            single index None. Scalars have shape ().
        text: what it is, one line with its symbol, e.g. ``states x_k``.
        values: of a CONSTANT family, in the order of ``shapes``; initial fill value of a MEMORY
            family is ``initial`` (``zeros`` or ``identity``).
    """

    name: str
    code: str
    storage: Storage
    shapes: tuple[tuple[int | None, tuple[int | None, ...]], ...]
    text: str
    values: tuple[float, ...] = ()
    initial: str = "zeros"

    @property
    def indexed(self) -> bool:
        """Whether members have a subscript."""
        return self.shapes[0][0] is not None

    @property
    def first(self) -> int:
        """Lowest index; generated tuples are zero-based, so code subtracts it."""
        return min(index for index, _ in self.shapes if index is not None)


@dataclass(frozen=True)
class Subscript:
    """``offset``, or ``k + offset`` where ``relative`` (inside a loop over k)."""

    offset: int
    relative: bool = False


@dataclass(frozen=True)
class Ref:
    """One array: a member of a family."""

    family: str
    subscript: Subscript | None = None


@dataclass(frozen=True)
class Slot:
    """The position of the group that owns a tensor: an entry of the program's table ``owners``."""

    family: str
    subscript: Subscript


@dataclass(frozen=True)
class Upto:
    """The first positions, as many as the first dimension of another array has."""

    ref: Ref


Window: TypeAlias = Slot | Upto | int | None
"""Part of a leading dimension: one position, the first positions, or (None) all of it."""


@dataclass(frozen=True)
class Load:
    """An entry of an array; one label for each dimension, but none for those of one position.

    ``window`` is the part of each leading dimension that is meant; () is the whole array.
    """

    ref: Ref
    labels: tuple[str, ...] = ()
    window: tuple[Window, ...] = ()


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

    ``scale`` is a SymPy expression over ``loads``, which are scalars (often 1, or ``mean``). Leaving the
    sample aside where an operand has three dimensions, the operands have one or two dimensions each and
    together at most three labels: matrix–matrix, matrix–vector, outer and inner products, once, or for
    every sample, or summed over the samples.
    """

    target: Load
    left: Load
    right: Load
    scale: sympy.Expr
    loads: tuple[tuple[str, Load], ...] = ()


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
class SolveSystem:
    """Least-norm solution of a symmetric system, (i, i') against (i,) or (i, j), maybe for every sample.

    Where ``checked``, refuse through ``guard`` a right side that is not in the range of the matrix;
    otherwise its part outside the range is dropped. A ``definite`` matrix has a Cholesky factor.
    """

    target: Load
    matrix: Load
    rhs: Load
    guard: int | None = None
    checked: bool = True
    definite: bool = False


@dataclass(frozen=True)
class SolveSylvester:
    """Least-norm X of left X + X right = rhs, symmetric positive semi-definite operands, in float64."""

    target: Load
    left: Load
    right: Load
    rhs: Load


@dataclass(frozen=True)
class SolveKronecker:
    """(shift + left ⊗ right) X = rhs for symmetric matrices, in the eigenbases of both, in float64.

    ``shift`` is a number. Where an eigenvalue of the operator is zero, the solution is not a number.
    """

    target: Load
    left: Load
    right: Load
    rhs: Load
    shift: Load


@dataclass(frozen=True)
class SolveCubic:
    """``target`` := η of least −⟨η, rhs⟩ + ½ ⟨η, matrix η⟩ + strength/6 ‖|third|^⅓ ∘ η‖³, in float64.

    ``matrix`` is symmetric, ``strength`` a number. Where there is no least value, ``unbounded`` is ``refuse``
    (entries of the groups without cubic term are not numbers) or ``absolute`` (their block of the matrix is
    replaced by its absolute value). What is not finite in an operand makes all entries not a number.
    """

    target: Load
    matrix: Load
    rhs: Load
    third: Load
    strength: Load
    unbounded: str


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
class MatrixFunction:
    """``target`` := positive part or absolute value of a symmetric matrix, by its eigenvalues.

    ``definite`` is the matrix itself, and not a number where an eigenvalue is negative beyond rounding.
    """

    target: Load
    matrix: Load
    kind: str


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


Statement: TypeAlias = (
    Fresh
    | Kernel
    | Sum
    | Contract
    | LogSoftmaxOver
    | LogSumExpOver
    | MaximumOver
    | SolveSystem
    | SolveSylvester
    | SolveKronecker
    | SolveCubic
    | ConjugateGradients
    | MatrixFunction
    | Guard
)


@dataclass(frozen=True)
class Loop:
    """``for k in range(start, stop, step)`` over the body."""

    start: int
    stop: int
    step: int
    body: tuple[Statement, ...]


@dataclass(frozen=True)
class Function:
    """A private function of the generated module: one derived system, lowered.

    Args:
        name: e.g. ``forward``; printed with a leading underscore.
        title: docstring line.
        equations: text of the equations with their source, generic k first, one a line.
        batched: with a sample axis, or for one sample.
        reads: families it reads (not those it only writes), in a fixed order.
        writes: families it writes.
        body: statements and loops.
    """

    name: str
    title: str
    equations: tuple[str, ...]
    batched: bool
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    body: tuple[Statement | Loop, ...]


@dataclass(frozen=True)
class Operator:
    """A public function of the generated module.

    Args:
        name: as in the contract: ``gradient``, ``hessian_vector_product``, ….
        prepare: functions that depend on parameters and data only.
        apply: functions that also depend on the vector (empty for operators without one).
        scalar: family of a per-sample scalar that is returned as its mean (``loss``, ``objective``), or ''.
        tensors: families of the returned dict, weight family first, or ().
        vector: families of the vector argument, weight family first, or ().
        batched: takes a batch, or one sample.
        doc: one line.
        source: equations, e.g. ``ESN(10)``.
    """

    name: str
    prepare: tuple[str, ...]
    apply: tuple[str, ...]
    scalar: str
    tensors: tuple[str, ...]
    vector: tuple[str, ...]
    batched: bool
    doc: str
    source: str


@dataclass(frozen=True)
class Place:
    """Memory that arrays of a step take one after the other.

    Args:
        members: families and subscripts, all of one shape, each made of the one before entry by entry.
        first: position, among the statements of the step, of the first that touches the memory.
        last: position of the last one.
    """

    members: tuple[tuple[str, int | None], ...]
    first: int
    last: int


@dataclass(frozen=True)
class Program:
    """All functions and operators of one module.

    Args:
        families: by name, in order of first definition; shapes are those of the batched form, a
            one-sample function uses them without the leading None.
        functions: in the order in which they are printed.
        operators: in the order of the request.
        step: names of the functions of an optimizer step: (batched, one sample), each in order; the
            last one updates parameters and memory in place, those before it change WORK only.
        guards: table of (layer, quantity) by code − 1.
        hyperparameters: of the step.
        periodic: names of step functions that run only every ``period`` steps (``period`` is then a
            hyperparameter of the optimizer, an integer ≥ 1); they run at the first step.
        refreshable: whether those may be given a batch of their own, between steps.
        separable: whether each parameter has a direction of its own, so that others move as they would
            without one that is frozen.
        kinds: of curvature that the module knows.
        curvature: operators on them.
        places: memory of the arrays of a step on a batch, where arrays may share it; () where each has
            its own.
        other_places: the same for the periodic part on a batch of its own.
        kept: families of the periodic part that the state keeps for readers.
        curvature_batch: functions that run on a batch of their own, if a step is given one, before the
            periodic ones.
        summary: the operator on summaries.
        summary_places: memory of its arrays for orders 1, 2, 3 and all of order 3.
        groups: of parameters, name and tensors of each.
        owners: (family, subscript) -> position of the group that owns a tensor.
    """

    families: tuple[Family, ...]
    functions: tuple[Function, ...]
    operators: tuple[Operator, ...]
    step_batched: tuple[str, ...] = ()
    step_single: tuple[str, ...] = ()
    guards: tuple[tuple[str, str], ...] = ()
    hyperparameters: tuple[Hyperparameter, ...] = ()
    periodic: tuple[str, ...] = ()
    refreshable: bool = False
    separable: bool = False
    kinds: tuple[KindPlan, ...] = ()
    curvature: tuple[CurvatureOperator, ...] = ()
    places: tuple[Place, ...] = ()
    other_places: tuple[Place, ...] = ()
    summary: SummaryOperator | None = None
    curvature_batch: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    summary_places: tuple[tuple[Place, ...], ...] = ()
    groups: tuple[tuple[str, tuple[str, ...]], ...] = ()
    owners: Mapping[tuple[str, int], int] = field(default_factory=lambda: MappingProxyType({}))

    def family(self, name: str) -> Family:
        """A family by its canonical name."""
        return self._by_name[name]

    @cached_property
    def _by_name(self) -> Mapping[str, Family]:
        return MappingProxyType({family.name: family for family in self.families})

    def function(self, name: str, batched: bool) -> Function:
        """A function by its name and form."""
        return next(f for f in self.functions if f.name == name and f.batched == batched)
