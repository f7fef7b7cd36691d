"""Sections of an equation sheet: the network, the Lagrangian, back-propagation, the gradient."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import singledispatch

from sifrc.ir import Input, Role
from sifrc.ir.build import total
from sifrc.ir.fixed import Entries, Listed
from sifrc.model import Constraint
from sifrc.report.book import Book, derivative_line, lines_of
from sifrc.report.grouping import Line
from sifrc.report.indices import range_text
from sifrc.report.layout import Function, Scalar, Symbol
from sifrc.report.sheet import Section
from sifrc.scalar import ScalarFunction, is_zero
from sifrc.spec.suggest import shortened
from sifrc.spec.words import size_text

__all__ = ["first_order_sections"]

_MOST_NAMES = 6
_SHOWN = 10


def first_order_sections(book: Book) -> list[Section]:
    """From the forward model to the gradient."""
    first = book.derived.first
    sections = [
        _forward(book),
        _objective(book),
        Section(
            "Lagrangian",
            (book.scalar("Lagrangian", Symbol("L"), first.short(first.lagrangian), "ESN(5)"),),
        ),
    ]
    if book.derived.spectral is not None:
        system = book.derived.spectral.system
        note = "b°_k and y°_k are the adjoints without regularisation; λ_k is held constant in derivatives."
        lines = [*lines_of(system, "spectral"), *book.uniform.definitions("b°", "spectral")]
        sections.append(Section(system.title, book.rows(lines), (note,)))
    sections.append(_adjoint(book))
    sections.append(Section("Gradient", book.rows(lines_of(first.gradient, "gradient"))))
    return sections


def _forward(book: Book) -> Section:
    """The forward model, its sizes, and what F_k are."""
    model, last = book.model, book.names.last
    rows = book.rows([*lines_of(book.derived.first.forward, "forward"), *_function_lines(book)])
    names = ("x_0", *(f"d_{symbol.index}" for symbol in model.others))
    given = [
        f"{symbol} is the input '{source.name}', {size_text(source.shape)} entries"
        for symbol, source in zip(names, model.spec.inputs, strict=True)
    ]
    notes = [f"n = {model.depth}; {'; '.join(given)}."]
    notes += [f"θ_{table.symbol.index} is {_described(table.entries)}." for table in model.tables]
    if model.draws:
        drawn = [f"d_{draw.symbol.index}" for draw in model.draws]
        some = drawn[0] if len(drawn) == 1 else f"{drawn[0]} to {drawn[-1]}"
        notes.append(f"Numbers {some} are drawn uniformly between 0 and 1, for every sample anew.")
    notes.append(
        "∘ and ⊘ multiply and divide entry by entry, 𝟏 is the vector of ones, F_k acts on each entry."
    )
    if any(len(c.axes) == 2 and c.row is c.axes[-1] for c in model.constraints):
        notes.append("A state with several axes is a matrix, one row for each place, where it has two.")
    if any(layer.window is not None for layer in model.spec.layers):
        notes.append("What an index reads outside of a tensor is zero, as in the padding of a window.")
    if any(len(model.state(k).axes) != len(c.axes) for c in model.constraints for k in c.sources):
        notes.append("vec x is x with all axes as one, the last one running fastest; unvec takes that back.")
    notes += _runs(model.constraints, lambda c: tuple(axis.size for axis in c.axes), last, _describe_states)
    active = [c for c in model.constraints if c.activation is not None]
    notes += _runs(active, lambda c: c.activation, last, _describe_function)
    if not book.names.chain:
        listed = ", ".join(f"{p.index} {p.layer}" for p in model.parameters[: 2 * _MOST_NAMES])
        more = ", …" if len(model.parameters) > 2 * _MOST_NAMES else ""
        notes.append(f"W and β are numbered by the layers that own them: {listed}{more}.")
    return Section("Forward model", rows, tuple(notes))


def _runs(
    constraints: Sequence[Constraint],
    kind: Callable[[Constraint], object],
    last: int | None,
    write: Callable[[list[Constraint], str], str],
) -> list[str]:
    """One sentence for all constraints of a kind."""
    runs: dict[object, list[Constraint]] = {}
    for c in constraints:
        runs.setdefault(kind(c), []).append(c)
    return [write(members, range_text((c.index for c in members), last)) for members in runs.values()]


def _describe_states(members: list[Constraint], where: str) -> str:
    listed = ", ".join(c.name for c in members)
    if len(members) > _MOST_NAMES:
        listed = f"{members[0].name}, …, {members[-1].name}"
    entries = size_text(tuple(axis.entries for axis in members[0].axes))
    return f"x_k has {entries} entries for {where}: {listed}."


def _describe_function(members: list[Constraint], where: str) -> str:
    function = members[0].activation
    assert function is not None
    return f"F_k is {_function_name(function)} for {where}."


@singledispatch
def _described(entries: Entries) -> str:
    """What the entries of a fixed table are."""
    raise TypeError(f"no words for a table of {type(entries).__name__}")


@_described.register
def _(entries: ScalarFunction) -> str:
    return f"a table of {entries.expression}, indices from 0"


@_described.register
def _(entries: Listed) -> str:
    shown = [f"{number:g}" for number in entries.numbers[:_SHOWN]]
    more = ", …" if len(entries.numbers) > _SHOWN else ""
    return f"the table ({', '.join(shown)}{more})"


def _function_name(function: ScalarFunction) -> str:
    values = ", ".join(f"{name} = {value:g}" for name, value in function.parameters)
    name = "an expression of the spec" if function.name == "custom" else function.name
    return f"{name} ({values})" if values else name


def _function_lines(book: Book) -> list[Line]:
    """F_k, F_k' and F_k'' as expressions in x; a second derivative that is zero is left out."""
    lines: list[Line] = []
    for order in (0, 1, 2):
        for index, function in book.names.activations.items():
            body = function.value_form((order,))
            if order < 2 or not is_zero(body):
                left = Function(index, order, Symbol("x"))
                lines.append(Line(left, (), index, "", "function", (Scalar(body),)))
    return lines


def _objective(book: Book) -> Section:
    model = book.model
    loss = Input("loss", None, (), Role.STATE)
    batch = model.spec.loss.reduction
    notes = [
        f"Everything is for one sample; on a batch, ℓ_R and its derivatives are {batch}s over the samples."
    ]
    statistics = [c.index for c in model.constraints if c.of_batch]
    if statistics:
        where = range_text(statistics, book.names.last)
        notes.append(
            f"x_k is a statistic of the batch for {where}, and so are its adjoints and tangents: what is "
            "on the right is meant as its mean over the samples."
        )
    values: dict[float, list[int]] = {}
    for index, value in model.lambda_values:
        values.setdefault(value, []).append(index)
    notes += [f"λ_k = {value:g} for {range_text(ks, book.names.last)}." for value, ks in values.items()]
    penalized: dict[float, list[str]] = {}
    for parameter, _, value in model.penalties:
        penalized.setdefault(value, []).append(parameter.name)
    notes += [
        f"λW_k and λβ_k are {value:g} for {shortened(', '.join(names), 200)}."
        for value, names in penalized.items()
    ]
    objective = total([loss, model.regularizer, model.penalty], ())
    rows = (
        book.scalar("loss", Symbol("loss"), model.loss),
        book.scalar("objective", Symbol("objective"), objective, "ESN(4)"),
    )
    return Section("Loss and objective", rows, tuple(notes))


def _adjoint(book: Book) -> Section:
    """∂L/∂x_k = 0, as it is and solved for b_k."""
    first = book.derived.first
    stationary = [
        derivative_line(
            "L", c.state, first.short(first.stationarity[c.index]), c.index, "ESN(9)", "∂L/∂x = 0"
        )
        for c in book.model.constraints
    ]
    solved = [*lines_of(first.adjoint, "adjoint"), *book.uniform.definitions("b", "adjoint")]
    notes: tuple[str, ...] = ()
    if any(c.activation is None for c in book.model.constraints):
        notes = ("A layer without an activation has the identity for F_k.",)
    return Section("Back-propagation", (*book.rows(stationary), *book.rows(solved)), notes)
