"""The expression language: immutable, hash-consed nodes over named axes.

Every node checks its axes when built. Equal nodes are one object: a node is identified by ``key``, a
digest of its type, its fields and its children's keys, which depends neither on hash seeds nor on
the order of construction. Build expressions with :mod:`sifrc.ir.build`, which normalises; the
classes here only check.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field, fields
from fractions import Fraction
from hashlib import blake2b
from math import prod
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias
from weakref import WeakValueDictionary

import sympy

from sifrc.ir.axes import Axis
from sifrc.ir.roles import Role

if TYPE_CHECKING:
    from sifrc.scalar.function import ScalarFunction

__all__ = [
    "Add",
    "Affine",
    "AlongAxis",
    "ArgMax",
    "AxisError",
    "Compound",
    "Delta",
    "Einsum",
    "Expr",
    "Input",
    "LogSoftmax",
    "LogSumExp",
    "Map",
    "Operand",
    "Reduce",
    "Role",
    "names",
    "postorder",
]


class AxisError(TypeError):
    """Axes of operands do not fit; an error of the deriving code, never of a spec."""


@functools.cache
def _fieldnames(kind: type[Any]) -> tuple[str, ...]:
    return tuple(field.name for field in fields(kind) if field.name != "key")


@functools.cache
def _function_text(function: ScalarFunction) -> str:
    return f"{function.name}{function.arguments}{sympy.srepr(function.expression)}{function.parameters}"


_PLAIN = frozenset({Fraction, int, str, bool, type(None)})


def _text(value: Any) -> str:
    """A text that tells values of one field apart; children by their key."""
    kind = type(value)
    if kind is tuple:
        return "(" + ",".join([_text(item) for item in value]) + ")"
    if kind in _PLAIN:
        return repr(value)
    if isinstance(value, (Expr, Axis)):
        return value.key
    if isinstance(value, Role):
        return value.value
    return _function_text(value)


class _Interned(type):
    """Metaclass that returns the existing equal node where there is one.

    The tables hold weak references only: they are caches, invisible but for object identity. Nearly every
    node is built many times; one whose fields are known objects is found before it is checked and digested.
    """

    _by_key: ClassVar[WeakValueDictionary[str, Expr]] = WeakValueDictionary()
    _by_fields: ClassVar[WeakValueDictionary[tuple[Any, ...], Expr]] = WeakValueDictionary()

    def __call__(cls, *fields: Any, **named: Any) -> Any:
        given = (cls, *fields, *named.items())
        node = _Interned._by_fields.get(given)
        if node is None:
            made: Expr = super().__call__(*fields, **named)
            node = _Interned._by_fields[given] = _Interned._by_key.setdefault(made.key, made)
        return node


@dataclass(frozen=True, eq=False)
class Expr(metaclass=_Interned):
    """Base of all nodes.

    Attributes:
        axes: the free indices, in order; the value has one array dimension for each.
        key: canonical digest; nodes are ordered by it.
    """

    key: str = field(init=False, repr=False, default="")

    @property
    def axes(self) -> tuple[Axis, ...]:
        raise NotImplementedError

    def children(self) -> tuple[Expr, ...]:
        """The direct operands, in order."""
        return ()

    @functools.cached_property
    def inputs(self) -> tuple[Input, ...]:
        """The symbols below, in order of first use; asked for often, and found once for each node."""
        return tuple(node for node in postorder(self) if isinstance(node, Input))

    def _seal(self) -> None:
        parts = [type(self).__name__]
        parts += [_text(getattr(self, name)) for name in _fieldnames(type(self))]
        self._digest("|".join(parts))

    def _digest(self, text: str) -> None:
        object.__setattr__(self, "key", blake2b(text.encode(), digest_size=16).hexdigest())


def postorder(*roots: Expr) -> list[Expr]:
    """All nodes below the roots, children before parents, each once."""
    order: list[Expr] = []
    seen: set[str] = set()
    # A node in a tuple is one whose children are done.
    stack: list[Expr | tuple[Expr]] = [*reversed(roots)]
    while stack:
        node = stack.pop()
        if isinstance(node, tuple):
            order.append(node[0])
        elif node.key not in seen:
            seen.add(node.key)
            if children := node.children():
                stack.append((node,))
                stack.extend(reversed(children))
            else:
                order.append(node)
    return order


Operand: TypeAlias = tuple[Expr, tuple[Axis, ...]]
"""An expression and the label of each of its slots."""


def _check_slots(where: str, operand: Operand) -> None:
    expr, labels = operand
    if len(expr.axes) != len(labels) or not all(a.fits(b) for a, b in zip(expr.axes, labels, strict=True)):
        raise AxisError(f"{where}: slots {names(expr.axes)} cannot be labelled {names(labels)}")


def names(axes: tuple[Axis, ...]) -> str:
    """Axes with their sizes, for messages."""
    return "[" + ", ".join(f"{a}:{a.size}" for a in axes) + "]"


@dataclass(frozen=True, eq=False)
class Input(Expr):
    """A symbol: ``family`` and ``index`` are its name, e.g. W and 2 for the weight of layer 2."""

    family: str
    index: int | None
    slots: tuple[Axis, ...]
    role: Role

    def __post_init__(self) -> None:
        self._seal()

    @property
    def axes(self) -> tuple[Axis, ...]:
        return self.slots

    @property
    def name(self) -> str:
        """``W[2]``, or the family alone without an index."""
        return self.family if self.index is None else f"{self.family}[{self.index}]"


@dataclass(frozen=True, eq=False)
class Delta(Expr):
    """1 where the two indices agree, else 0. The axes have one size."""

    left: Axis
    right: Axis

    def __post_init__(self) -> None:
        if not self.left.fits(self.right) or self.left == self.right:
            raise AxisError(f"delta between {names((self.left, self.right))}")
        self._seal()

    @property
    def axes(self) -> tuple[Axis, ...]:
        return (self.left, self.right)


@dataclass(frozen=True, eq=False)
class Affine(Expr):
    """1 where Σ coefficients · indices = offset, else 0: a constant.

    As a factor of a product it reads another one at places that are affine in indices: windows with a
    stride, a padding and a dilation, and what they are the transposed of; slices, shifts, flips; axes that
    are joined or taken apart. Products are linear in it: nothing but its value has to be known.
    """

    sizes: tuple[int, ...]
    coefficients: tuple[int, ...]
    offset: int = 0

    def __post_init__(self) -> None:
        if len(self.sizes) < 2 or len(self.sizes) != len(self.coefficients) or 0 in self.coefficients:
            raise AxisError(f"an affine relation of {self.sizes} by {self.coefficients}")
        self._seal()

    @property
    def joins(self) -> bool:
        """Whether the first index is the position of the others, the last of which runs fastest."""
        strides = [-prod(self.sizes[n + 1 :]) for n in range(1, len(self.sizes))]
        whole = self.sizes[0] == prod(self.sizes[1:]) and self.offset == 0
        return whole and self.coefficients == (1, *strides)

    @property
    def axes(self) -> tuple[Axis, ...]:
        return tuple(Axis(f"slot{number}", size) for number, size in enumerate(self.sizes))


@dataclass(frozen=True, eq=False)
class Einsum(Expr):
    """Product of operands, summed over the labels that are not in ``out``.

    A label of ``out`` that no operand carries broadcasts; without operands it is a tensor of ones.
    A label that comes twice in one operand takes its diagonal.
    """

    operands: tuple[Operand, ...]
    out: tuple[Axis, ...]

    def __post_init__(self) -> None:
        for operand in self.operands:
            _check_slots("einsum", operand)
        if len(set(self.out)) != len(self.out):
            raise AxisError(f"einsum with a repeated output axis {names(self.out)}")
        # What _seal would do, for most of all nodes.
        operands = [f"({e.key},({','.join([a.key for a in labels])}))" for e, labels in self.operands]
        self._digest(f"Einsum|({','.join(operands)})|({','.join([a.key for a in self.out])})")

    @property
    def axes(self) -> tuple[Axis, ...]:
        return self.out

    def children(self) -> tuple[Expr, ...]:
        return tuple([expr for expr, _ in self.operands])


@dataclass(frozen=True, eq=False)
class Add(Expr):
    """Linear combination with rational coefficients; no terms is zero. All terms have ``out`` axes."""

    terms: tuple[tuple[Fraction, Expr], ...]
    out: tuple[Axis, ...]

    def __post_init__(self) -> None:
        for _, term in self.terms:
            if term.axes != self.out:
                raise AxisError(f"sum over {names(self.out)} with a term over {names(term.axes)}")
        self._seal()

    @property
    def axes(self) -> tuple[Axis, ...]:
        return self.out

    def children(self) -> tuple[Expr, ...]:
        return tuple([expr for _, expr in self.terms])


@dataclass(frozen=True, eq=False)
class Map(Expr):
    """Elementwise scalar function, differentiated ``orders[j]`` times in argument j.

    Operand labels are among ``out``; a missing one broadcasts.
    """

    function: ScalarFunction
    orders: tuple[int, ...]
    operands: tuple[Operand, ...]
    out: tuple[Axis, ...]

    def __post_init__(self) -> None:
        if not len(self.orders) == len(self.operands) == len(self.function.arguments):
            raise AxisError(f"{self.function.name} takes {len(self.function.arguments)} arguments")
        for operand in self.operands:
            _check_slots(self.function.name, operand)
            if not set(operand[1]) <= set(self.out) or len(set(operand[1])) != len(operand[1]):
                raise AxisError(f"{self.function.name}: {names(operand[1])} is not within {names(self.out)}")
        self._seal()

    @property
    def axes(self) -> tuple[Axis, ...]:
        return self.out

    def children(self) -> tuple[Expr, ...]:
        return tuple([expr for expr, _ in self.operands])


@dataclass(frozen=True, eq=False)
class Compound(Expr):
    """Base of nodes each of whose operands is a field."""

    def children(self) -> tuple[Expr, ...]:
        return tuple(value for value in vars(self).values() if isinstance(value, Expr))


@dataclass(frozen=True, eq=False)
class AlongAxis(Compound):
    """Base of what is computed along one axis of an operand; what takes the axis away, unless it says so."""

    operand: Expr
    over: Axis

    @property
    def word(self) -> str:
        """What it is called, in equations and in errors."""
        raise NotImplementedError

    def __post_init__(self) -> None:
        if self.over not in self.operand.axes:
            raise AxisError(f"{self.word} over {self.over}, which {names(self.operand.axes)} lacks")
        self._seal()

    @property
    def axes(self) -> tuple[Axis, ...]:
        return tuple(a for a in self.operand.axes if a != self.over)


@dataclass(frozen=True, eq=False)
class LogSumExp(AlongAxis):
    """log Σ exp over one axis: a primitive, so that it never overflows and differentiates to softmax."""

    word = "logsumexp"


@dataclass(frozen=True, eq=False)
class LogSoftmax(AlongAxis):
    """u − log Σ exp u over one axis, exact whatever all entries have in common.

    A primitive of its own: the difference of u and its log-sum-exp would lose the digits that the largest
    entry takes up. Its exponential is softmax.
    """

    word = "log softmax"

    @property
    def axes(self) -> tuple[Axis, ...]:
        return self.operand.axes


@dataclass(frozen=True, eq=False)
class Reduce(AlongAxis):
    """Largest entry over one axis (``max``), or largest magnitude (``magnitude``).

    The first of the largest entries is the one that the derivative follows. A magnitude has none: use it only
    for quantities that are held constant.
    """

    kind: str = "max"

    @property
    def word(self) -> str:
        return self.kind

    def __post_init__(self) -> None:
        if self.kind not in ("max", "magnitude"):
            raise AxisError(f"unknown reduction {self.kind!r}")
        super().__post_init__()


@dataclass(frozen=True, eq=False)
class ArgMax(AlongAxis):
    """1 at the first of the largest entries over one axis, else 0; constant wherever there is one largest."""

    word = "argmax"

    @property
    def axes(self) -> tuple[Axis, ...]:
        return self.operand.axes
