"""Derived systems: ordered assignments with their provenance.

An equation defines one symbol by an expression over symbols defined before it. A system is what a
derivation returns, what the report prints and what the lowering turns into a program.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sifrc.ir import Add, Einsum, Expr, Input
from sifrc.ir.build import constant, einsum, number_of, scale, zero
from sifrc.ir.traverse import inputs_of, postorder, rebuild

__all__ = [
    "Condition",
    "Equation",
    "System",
    "abbreviate",
    "by_layer",
    "definition",
    "name_node",
    "needed",
    "with_uses",
]


@dataclass(frozen=True)
class Equation:
    """``symbol`` := ``value``.

    Args:
        symbol: what is defined.
        value: over inputs and symbols defined before.
        layer: k of the constraint (or of the parameters) it belongs to; None for scalars of the whole.
        source: equation of a paper, e.g. ``ESN(9)``, or ``definition``.
    """

    symbol: Input
    value: Expr
    layer: int | None
    source: str


@dataclass(frozen=True)
class Condition:
    """What a derivation assumes.

    Args:
        text: e.g. ``y_k ≠ 0``.
        layer: k, or None where it holds for the model.
        status: ``proved`` from the spec, or ``run time``: checked by the generated code.
    """

    text: str
    layer: int | None
    status: str


@dataclass(frozen=True)
class System:
    """Equations in the order in which they can be evaluated.

    Args:
        name: e.g. ``adjoint``.
        title: for readers, e.g. ``Back-propagation of the adjoint``.
        equations: in order.
        conditions: under which they hold.
    """

    name: str
    title: str
    equations: tuple[Equation, ...]
    conditions: tuple[Condition, ...] = ()

    def __getitem__(self, symbol: Input) -> Expr:
        """The definition of a symbol."""
        for equation in self.equations:
            if equation.symbol is symbol:
                return equation.value
        raise KeyError(symbol.name)

    @property
    def symbols(self) -> tuple[Input, ...]:
        """What is defined, in order."""
        return tuple(equation.symbol for equation in self.equations)


def name_node(names: dict[Expr, Expr], node: Expr, symbol: Expr) -> None:
    """Let ``symbol`` stand for an inner node; for a multiple of a node, also for that node.

    Zero gets no name: it would be read wherever something else vanishes.
    """
    if node is zero(node.axes):
        return
    names[node] = symbol
    if isinstance(node, Add) and len(node.terms) == 1:
        factor, term = node.terms[0]
        name_node(names, term, scale(1 / factor, symbol))
    elif isinstance(node, Einsum) and len(node.operands) == 2:
        number = next((n for n in map(number_of, node.children()) if n is not None), None)
        others = [operand for operand in node.operands if number_of(operand[0]) is None]
        if number is not None and len(others) == 1 and others[0][1] == node.axes == others[0][0].axes:
            names[others[0][0]] = einsum([(constant(1 / number), ()), (symbol, symbol.axes)], symbol.axes)


def definition(
    symbol: Input, node: Expr, names: Mapping[Expr, Expr], layer: int, source: str = "definition"
) -> Equation:
    """The equation that defines an abbreviation: its node with the other names put in."""
    return Equation(symbol, _abbreviated([node], names, symbol)[0], layer, source)


def abbreviate(roots: Sequence[Expr], names: Mapping[Expr, Expr] | Mapping[Expr, Input]) -> list[Expr]:
    """Replace inner nodes by the expressions that name them (the roots themselves included)."""
    return _abbreviated(roots, names, None)


def _abbreviated(
    roots: Sequence[Expr], names: Mapping[Expr, Expr] | Mapping[Expr, Input], left_out: Input | None
) -> list[Expr]:
    """Abbreviate, except for the nodes that one symbol names."""
    done: dict[str, Expr] = {}
    for node in postorder(*roots):
        name = names.get(node)
        if name is not None and (left_out is None or left_out not in inputs_of(name)):
            done[node.key] = name
        else:
            done[node.key] = rebuild(node, lambda child: done[child.key])
    return [done[root.key] for root in roots]


def by_layer(name: str, title: str, systems: Sequence[System]) -> System:
    """The equations of some systems, those of one layer together; what has no layer comes last."""
    equations = [equation for system in systems for equation in system.equations]
    last = max((e.layer for e in equations if e.layer is not None), default=0) + 1
    ordered = sorted(equations, key=lambda e: last if e.layer is None else e.layer)
    return System(name, title, tuple(ordered))


def with_uses(name: str, title: str, system: System, uses: System) -> System:
    """A system, and among its equations those of another, each as soon as what it reads is there.

    What only the other one reads is then gone early: of a backward sweep and the gradient that is made of it,
    the adjoints of a layer after the layer.
    """
    place = {equation.symbol: position for position, equation in enumerate(system.equations)}
    behind: dict[int, list[Equation]] = {}
    for equation in uses.equations:
        position = max((place[s] for s in inputs_of(equation.value) if s in place), default=-1)
        place[equation.symbol] = position
        behind.setdefault(position, []).append(equation)
    ordered = list(behind.get(-1, ()))
    for position, equation in enumerate(system.equations):
        ordered += [equation, *behind.get(position, ())]
    return System(name, title, tuple(ordered), (*system.conditions, *uses.conditions))


def needed(system: System, after: System) -> System:
    """The equations that ``after`` needs, directly or through others: nothing is pulled below the input."""
    wanted = {(s.family, s.index) for e in after.equations for s in inputs_of(e.value)}
    kept: set[Equation] = set()
    while more := {e for e in system.equations if (e.symbol.family, e.symbol.index) in wanted} - kept:
        kept |= more
        wanted |= {(s.family, s.index) for e in more for s in inputs_of(e.value)}
    equations = tuple(equation for equation in system.equations if equation in kept)
    return System(system.name, system.title, equations, system.conditions)
