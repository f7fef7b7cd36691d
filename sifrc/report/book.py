"""What every section of an equation sheet is written with."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from sifrc.derive.derived import Derived
from sifrc.derive.system import Equation, System
from sifrc.errors import SifrcError
from sifrc.ir import Expr, Input, Role
from sifrc.ir.traverse import inputs_of
from sifrc.model import Model
from sifrc.report.grouping import Line, Names, printed, rows_of, total_over_layers
from sifrc.report.layout import ZERO, Derivative, Layout, Symbol
from sifrc.report.sheet import Row
from sifrc.report.uniform import Uniform

__all__ = ["Book", "derivative_line", "lines_of", "meanings_of", "names_of", "not_derived", "symbol_of"]


def names_of(model: Model) -> Names:
    """What indices and activations are called in a model."""
    activations = {c.index: c.activation for c in model.constraints if c.activation is not None}
    users = Counter(c.parameters.index for c in model.constraints if c.parameters is not None)
    shared = frozenset(index for index, count in users.items() if count > 1)
    return Names(model.depth, model.is_chain, activations, shared)


def symbol_of(symbol: Input) -> Symbol:
    """The notation of an input."""
    return Symbol(symbol.family, symbol.index)


def derivative_line(
    of: str, by: Input, value: Expr, layer: int, source: str, name: str, right: Layout = ZERO
) -> Line:
    """∂of/∂by = value = right."""
    return Line(Derivative(Symbol(of), symbol_of(by)), (value,), layer, source, name, (right,))


def lines_of(system: System, name: str) -> list[Line]:
    """The equations of a derived system, under a short label."""
    return [
        Line(symbol_of(e.symbol), (e.value,), e.layer, e.source, name, averaged=_is_mean(e))
        for e in system.equations
    ]


def _is_mean(equation: Equation) -> bool:
    """Whether a statistic of the batch is the mean of what each sample has."""
    statistic = equation.symbol.role is Role.STATISTIC
    return statistic and any(symbol.role.per_sample for symbol in inputs_of(equation.value))


def meanings_of(
    meanings: Sequence[tuple[tuple[str, ...], str]],
    systems: Iterable[System],
    general: Callable[[str], str] = str,
) -> list[str]:
    """Sentences on the symbols of some systems.

    Args:
        meanings: families, any of which calls for the words behind them.
        systems: whose symbols are explained.
        general: a family -> the one that stands for it in ``meanings``.
    """
    equations = [equation for system in systems for equation in system.equations]
    used = {general(symbol.family) for e in equations for symbol in (e.symbol, *inputs_of(e.value))}
    return [words for families, words in meanings if not used.isdisjoint(families)]


def not_derived(error: SifrcError) -> str:
    """The note in the place of equations that do not exist for a model."""
    hint = f" Instead: {error.hint}." if error.hint else ""
    return f"Not derived: {error.message}.{hint}"


@dataclass(frozen=True)
class Book:
    """One model while its sheet is written.

    Args:
        derived: its derivations.
        names: of its indices.
        uniform: its abbreviations for layers without an activation.
    """

    derived: Derived
    names: Names
    uniform: Uniform

    @property
    def model(self) -> Model:
        """The model."""
        return self.derived.model

    def rows(self, lines: Sequence[Line]) -> tuple[Row, ...]:
        """Lines with the abbreviations, grouped for generic k."""
        return rows_of([self.uniform.line(line) for line in lines], self.names)

    def scalar(self, name: str, left: Symbol, value: Expr, source: str = "", sifrian: bool = False) -> Row:
        """A number of the whole network, its terms summed over k."""
        rewrite = (self.uniform.term,) if sifrian else ()
        return self.row(name, left, total_over_layers(value, self.names, *rewrite), source)

    def row(self, name: str, left: Layout, right: Layout, source: str) -> Row:
        """An equation about the whole network."""
        return printed(name, (left, right), self.names.whole, "", source)
