"""Text of the public functions that do different things for different arguments.

A function checks its arguments, computes ``part`` for some samples of the batch at a time, and averages.
Where there are kinds of curvature, a module has one private function for each of them, which computes its
blocks, and a table of them; ``part`` goes on from the blocks. What differs between Python frameworks is left
to subclasses.
"""

from __future__ import annotations

import textwrap
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

from sifrc.backends.base import ModuleSource
from sifrc.backends.cases import (
    accepted,
    annotation,
    condition,
    expected,
    one_of,
    pieces,
    table_name,
    value_text,
)
from sifrc.backends.draws import SEED_ARGUMENT, SEED_TEXT
from sifrc.backends.kinds import draws
from sifrc.backends.layout import lines_of, signature
from sifrc.backends.text import LINE_LENGTH, docstring
from sifrc.catalogue.record import Case, Mean, Operator, Pairs, Record, Result, Single, Table
from sifrc.errors import BackendError
from sifrc.lower.program import Program

__all__ = ["OperatorPrinter", "choosing"]


def choosing(program: Program) -> tuple[Operator, ...]:
    """The operators of a program with several cases, kinds or switches."""
    return tuple(operator for operator in program.operators if not operator.plain)


class OperatorPrinter(ABC):
    """Prints one function.

    Args:
        module: what is printed.
        operator: its record; several cases, kinds or switches.
    """

    array: ClassVar[str]
    """Type of an array in annotations."""
    number: ClassVar[str]
    """Type of a number that is returned."""
    mapping: ClassVar[str]
    """Type of an argument like the parameters."""
    part: str
    """Arguments of ``part``."""
    decorators: ClassVar[tuple[str, ...]] = ()
    """Lines before a definition."""
    apart: ClassVar[str] = ""
    """Function that gives each result memory of its own, if arrays of two layers can be one."""
    chunks: ClassVar[tuple[tuple[str, str], ...]] = (
        (
            "chunk: int | None = None",
            "chunk: samples at a time, for large batches; the sums over them are exact.",
        ),
    )
    """Arguments of operators that take a batch in parts, and their text."""
    summed: ClassVar[str] = "len(inputs) * value"
    """The sum over the batch of a mean ``value``."""

    def __init__(self, module: ModuleSource, operator: Operator) -> None:
        self.module, self.operator = module, operator
        forms = {kind.form for kind, _ in operator.starts() if kind is not None}
        self.cases = tuple(
            replace(case, forms=tuple(form for form in case.forms if form in forms))
            for case in operator.cases
            if not forms or forms & {*case.forms}
        )
        self.seeded = draws(module.program) and bool(operator.kinds) and not operator.kind

    # -- what a backend adds

    @property
    @abstractmethod
    def params_text(self) -> str:
        """Line on ``params`` in docstrings."""

    @property
    @abstractmethod
    def raises_text(self) -> str:
        """Errors of the checks of arguments, for docstrings."""

    @abstractmethod
    def data_text(self) -> tuple[str, str]:
        """Shapes of inputs and targets."""

    @abstractmethod
    def opening(self) -> list[str]:
        """Statements that check and unpack params, inputs, targets and vector; indented by 4."""

    @abstractmethod
    def blocks(self) -> list[str]:
        """Statements of ``part`` that compute the blocks with ``prepare``; indented by 8."""

    @abstractmethod
    def calls_after_blocks(self, case: Case, indent: int) -> list[str]:
        """Calls of a case's functions after them."""

    @abstractmethod
    def prepared(self) -> list[str]:
        """Statements of ``part`` that run the prepared functions; indented by 8."""

    @abstractmethod
    def calls(self, functions: Sequence[str], results: Sequence[Result], indent: int) -> list[str]:
        """Calls of further functions after them."""

    @abstractmethod
    def ending(self) -> list[str]:
        """Statements at the end of ``part``; indented by 8."""

    @abstractmethod
    def member(self, family: str, index: int | None) -> str:
        """An array after the calls."""

    @abstractmethod
    def mean(self, family: str) -> str:
        """The mean of a family over the samples."""

    @abstractmethod
    def named(self, table: Table) -> str:
        """A dict like the parameters."""

    @abstractmethod
    def averaged(self) -> list[str]:
        """The average of ``part`` as an expression, after statements that it needs; those indented by 4."""

    # -- the function

    def text(self) -> str:
        """The source of the function."""
        found = f"dict[str, {self.array}]"
        return "\n".join(
            [
                *self.decorators,
                signature(self.operator.name, self._arguments(), self._returns()),
                f"    {self._doc()}",
                *self.opening(),
                *self._chosen(),
                "",
                f"    def part({self.part}) -> {found}:",
                *(self._part_of_kind() if self.operator.kinds else self._part()),
                "",
                *(self._run_kind() if self.operator.kinds else self._run()),
            ]
        )

    def _arguments(self) -> list[str]:
        operator = self.operator
        found = [
            f"params: {self.mapping}",
            f"inputs: {self.array if not self.module.inputs else 'Inputs'}",
            f"targets: {self.array}",
        ]
        found += [] if operator.vector is None else [f"{operator.vector.name}: {self.mapping}"]
        if operator.kinds and not operator.kind:
            found.append(f'kind: str = "{operator.kinds[0].name}"')
        found += [f"{a.name}: {annotation(a.default)} = {value_text(a.default)}" for a in operator.arguments]
        found += [f"{switch.name}: bool = False" for switch in operator.switches]
        found += [argument for argument, _ in self.chunks] if operator.chunks else []
        return [*found, *([SEED_ARGUMENT] if self.seeded or self.module.draws else [])]

    def _returns(self) -> str:
        operator = self.operator
        if operator.record is not None:
            return operator.record.name
        pair = self._pair()
        found = f"dict[str, {pair.name if pair else self.array}]"
        return f"tuple[dict[str, {self.array}], {found}]" if operator.also else found

    def _pair(self) -> Record | None:
        """The class of the pairs that it returns, if it does."""
        results = (result for case in self.cases for result in case.results)
        return next((result.record for result in results if isinstance(result, Pairs)), None)

    def _chosen(self) -> list[str]:
        """The kind looked up, or the other arguments checked."""
        operator = self.operator
        if operator.kinds:
            kind = f'"{operator.kind}"' if operator.kind else "kind"
            kind += ", _GRADIENT_KINDS" if operator.extra else ""
            return [f"    prepare, form = _kind({kind})"]
        if not operator.arguments:
            return []
        names = [argument.name for argument in operator.arguments]
        given = f"({', '.join(names)}{',' if len(names) == 1 else ''})"
        got = ", ".join(f"{name}={{{name}!r}}" for name in names)
        return [
            f"    if {given} not in {table_name(operator)}:",
            f'        raise ValueError(f"{expected(operator)}, got {got}")',
        ]

    # -- after the blocks of a kind

    def _part_of_kind(self) -> list[str]:
        operator, lines = self.operator, self.blocks()
        if operator.kind:
            (single,) = self.cases
            return [*lines, *self._case(single, 8)]
        *others, last = self.cases
        for case in self.cases if operator.arguments else others:
            lines.append(f"        if {condition(case)}:")
            lines += self._case(case, 12)
        if not operator.arguments:
            return [*lines, *self._case(last, 8)]
        named = ", ".join(f"{a.name}={{{a.name}!r}}" for a in operator.arguments)
        return [
            *lines,
            "        raise ValueError(",
            f'            f"kind {{kind!r}} does not go with {named}; expected "',
            *(f'            "{piece}"' for piece in pieces(accepted(self.cases))),
            "        )",
        ]

    def _case(self, case: Case, indent: int) -> list[str]:
        pad = " " * indent
        results = (*self.operator.also, *case.results)
        pairs = [entry for result in results for entry in self._entries(result)]
        inner = f"{pad}    " if self.apart else pad
        entries = [f'{inner}    "{key}": {text},' for key, text in pairs]
        opening, closing = (f"{self.apart}(\n{inner}{{", f"    }}\n{pad})") if self.apart else ("{", "}")
        return [*self.calls_after_blocks(case, indent), f"{pad}return {opening}", *entries, f"{pad}{closing}"]

    def _run_kind(self) -> list[str]:
        lines, pair, scaled = [], self._pair(), self.module.reduction == "sum"
        apart = [case for case in self.cases if case.batch_axis]
        if apart:
            every = replace(apart[0], forms=tuple(form for case in apart for form in case.forms))
            lines += [f"    if {condition(every)}:", f"        return part({self.whole()})"]
        parts = one_of("form", dict.fromkeys(kind.form for kind in self.operator.kinds if kind.per_sample))
        together = [condition(case) for case in self.cases if case.whole]
        if together:
            lines.append(f"    together = {' or '.join(f'({text})' for text in together)}")
            parts += " and not together" if parts else ""
        lines.append(f"    rows = _ROWS if {parts} else len(inputs)" if parts else "    rows = len(inputs)")
        call = "_averaged(part, inputs, targets, rows)"
        if not scaled and not pair:
            return [*lines, f"    return {call}"]
        lines.append(f"    found = {call}")
        if scaled:
            kept = [field.name for field in pair.fields if not field.scaled] if pair else []
            plain = " or ".join(f'name.endswith(".{name}")' for name in kept)
            value = f"value if {plain} else {self.summed}" if kept else self.summed
            lines.append(f"    found = {{name: {value} for name, value in found.items()}}")
        if pair is None:
            return [*lines, "    return found"]
        members = ", ".join(f'found[f"{{name}}.{field.name}"]' for field in pair.fields)
        pairs = f"{{name: {pair.name}({members}) for name in _LAYERS}}"
        if self.operator.also:
            lines.append("    gradient = {name: found[name] for name in SHAPES}")
            pairs = f"gradient, {pairs}"
        return [*lines, f"    return {pairs}"]

    def whole(self) -> str:
        """Arguments of ``part`` for the whole batch."""
        return "inputs, targets"

    # -- after the prepared functions

    def _part(self) -> list[str]:
        operator = self.operator
        first = ", ".join(f'"{key}": {text}' for r in operator.also for key, text in self._entries(r))
        lines = [*self.prepared(), f"        found: dict[str, {self.array}] = {{{first}}}"]
        for switch in operator.switches:
            if not (isinstance(switch.result, Table) and switch.result.like_params):
                raise BackendError(f"no printer for what '{switch.name}' of '{operator.name}' adds")
            lines.append(f"        if {switch.name}:")
            lines += self.calls(switch.functions, (switch.result,), 12)
            lines.append(f"            found |= {self.named(switch.result)}")
        single = len(self.cases) == 1
        for number, case in enumerate(self.cases):
            head = "else" if case is self.cases[-1] else f"{'elif' if number else 'if'} {condition(case)}"
            lines += [] if single else [f"        {head}:"]
            lines += self._found(case, 8 if single else 12)
        return [*lines, *self.ending(), "        return found"]

    def _found(self, case: Case, indent: int) -> list[str]:
        """Statements that compute the results of a case and put them with what is found."""
        tables = [r for r in case.results if isinstance(r, Table) and r.like_params]
        others = [entry for r in case.results if r not in tables for entry in self._entries(r)]
        lines = self.calls(case.functions, case.results, indent)
        lines += [f"{' ' * indent}found |= {self.named(table)}" for table in tables]
        if others:
            lines += lines_of([f'"{key}": {text}' for key, text in others], "found |= {", "}", indent)
        return lines

    def _run(self) -> list[str]:
        operator, record = self.operator, self.operator.record
        apart = [case for case in self.cases if case.batch_axis]
        lines = []
        if apart == [*self.cases]:
            return [f"    return part({self.whole()})"]
        if apart:
            lines.append(f"    if {' or '.join(map(condition, apart))}:")
            lines.append(f"        return part({self.whole()})")
        *before, averaged = self.averaged()
        scaled = self.module.reduction == "sum" and all(case.scaled for case in self.cases)
        if record is None and not scaled:
            return [*lines, *before, f"    return {averaged}"]
        lines += [*before, f"    found = {averaged}"]
        if scaled:
            lines.append(f"    found = {{name: {self.summed} for name, value in found.items()}}")
        if record is None:
            return [*lines, "    return found"]
        for switch in operator.switches:
            some = f"{{name: found[name] for name in SHAPES}} if {switch.name} else None"
            lines.append(f"    {switch.name}_found = {some}")
        means = {r.key for r in operator.also if isinstance(r, Mean)}
        switches = {switch.name for switch in operator.switches}
        values = []
        for field in record.fields:
            if field.name == "groups":
                values.append("tuple(GROUPS)")
            elif field.name in switches:
                values.append(f"{field.name}_found")
            elif field.name in means and self.number == "float":
                values.append(f'float(found["{field.name}"])')
            else:
                values.append(f'found["{field.name}"]' if field.always else f'found.get("{field.name}")')
        return [*lines, *lines_of(values, f"return {record.name}(", ")", 4)]

    def _entries(self, result: Result) -> list[tuple[str, str]]:
        """Keys and texts of the arrays of a result; members of pairs have both names in the key."""
        if isinstance(result, Table):
            found = [(entry, self.member(*entry.member)) for entry in result.entries]
            return [(entry.key, f"_matrix({text})" if entry.matrix else text) for entry, text in found]
        if isinstance(result, Pairs):
            names = [field.name for field in result.record.fields]
            return [
                (f"{key}.{name}", self.member(*member))
                for key, pair in result.rows
                for name, member in zip(names, pair, strict=True)
            ]
        if isinstance(result, Single):
            return [(result.key, self.member(result.family, None))]
        return [(result.key, self.mean(result.family))]

    def _doc(self) -> str:
        operator = self.operator
        inputs, targets = self.data_text()
        lines = ["Args:", f"    {self.params_text}", f"    inputs: {inputs}.", f"    targets: {targets}."]
        lines += [] if operator.vector is None else [f"    {operator.vector.name}: like params."]
        if operator.kinds and not operator.kind:
            lines.append(f"    kind: {', '.join(kind.name for kind in operator.kinds)}.")
        texts = [f"{a.name}: {a.text}" for a in operator.arguments]
        texts += [f"{switch.name}: {switch.text}" for switch in operator.switches]
        texts += [text for _, text in self.chunks] if operator.chunks else []
        for text in texts:
            lines += textwrap.wrap(text, LINE_LENGTH - 4, initial_indent=" " * 4, subsequent_indent=" " * 8)
        if self.module.draws:
            lines.append(f"    seed: {SEED_TEXT}")
        elif self.seeded:
            lines.append("    seed: of the draws of sampled kinds.")
        raises = self.raises_text
        if operator.kinds and not operator.kind:
            raises += "\n    ValueError: the kind is unknown, or does not go with the other arguments."
        source = f"  [{operator.source}]" if operator.source else ""
        returns = operator.returns or (f"See ``{operator.record.name}``." if operator.record else "")
        wrapped = textwrap.fill(returns, LINE_LENGTH - 4, initial_indent=" " * 4, subsequent_indent=" " * 4)
        return docstring(
            [operator.doc.rstrip(".") + "." + source, "\n".join(lines), "Returns:\n" + wrapped, raises],
            indent=4,
        )
