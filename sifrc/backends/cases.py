"""Cases of operators as text: conditions, what is accepted, tables of values, and classes of results."""

from __future__ import annotations

import textwrap
from collections.abc import Collection, Sequence
from itertools import product

from sifrc.backends.kinds import single_samples
from sifrc.backends.text import LINE_LENGTH, assigned, docstring
from sifrc.catalogue.record import Case, Operator, Pairs, Record
from sifrc.lower.program import Program

__all__ = [
    "accepted",
    "annotation",
    "case_table",
    "condition",
    "expected",
    "one_of",
    "pieces",
    "record_text",
    "records",
    "table_name",
    "value_text",
]


def expected(operator: Operator) -> str:
    """What the arguments may be, the first that is no switch before the others."""
    main = next(a.name for a in operator.arguments if not isinstance(a.default, bool))
    values: dict[tuple[str, ...], list[str]] = {}
    for case in operator.cases:
        chosen = dict(case.choices)
        flags = tuple(name for name, given in case.choices if given == (True,) and name != main)
        values.setdefault(flags, []).extend(repr(value) for value in chosen[main])
    every = dict.fromkeys(value for found in values.values() for value in found)
    more = [f", and {either(found)} where {' and '.join(flags)}" for flags, found in values.items() if flags]
    return f"{main}: expected {either(list(every))}{''.join(more)}"


def either(words: Sequence[str]) -> str:
    """Words for a sentence."""
    *others, last = words
    return f"{', '.join(others)} or {last}" if others else last


def accepted(cases: Sequence[Case]) -> str:
    """What the arguments may be, for each sort of kinds."""
    texts: dict[bool, list[str]] = {}
    for case in cases:
        choice = " and ".join(
            f"{name} {' or '.join(repr(value) for value in values if value is not None)}"
            for name, values in case.choices
        )
        for single in sorted({single_samples(form) for form in case.forms} or {True}, reverse=True):
            texts.setdefault(single, []).append(choice)
    sorts = {True: "kinds of single samples", False: "other kinds"}
    found = {sort: ", or ".join(dict.fromkeys(texts[sort])) for sort in texts}
    if len(set(found.values())) == 1:
        return next(iter(found.values()))
    return "; ".join(f"{sorts[sort]}: {text}" for sort, text in found.items())


def pieces(text: str) -> list[str]:
    """The text in parts that fit on lines; put together they are the text again."""
    lines = textwrap.wrap(text, LINE_LENGTH - 16)
    return [*(f"{line} " for line in lines[:-1]), lines[-1]]


def condition(case: Case) -> str:
    """The condition of a case on the form of the kind and the arguments."""
    parts = []
    if case.forms:
        parts.append(one_of("form", case.forms))
    for name, values in case.choices:
        if len(values) == 1 and isinstance(values[0], bool):
            parts.append(name if values[0] else f"not {name}")
        elif len(values) == 1:
            parts.append(f"{name} is None" if values[0] is None else f"{name} == {value_text(values[0])}")
        else:
            parts.append(f"{name} in ({', '.join(map(value_text, values))})")
    return " and ".join(parts)


def one_of(name: str, values: Collection[str]) -> str:
    """The condition that a variable is one of some words; empty without any."""
    quoted = [f'"{value}"' for value in values]
    if len(quoted) <= 1:
        return f"{name} == {quoted[0]}" if quoted else ""
    return f"{name} in ({', '.join(quoted)})"


def value_text(value: object) -> str:
    """A value as a literal."""
    return f'"{value}"' if isinstance(value, str) else repr(value)


def annotation(default: object) -> str:
    """The type of an argument by its default."""
    return {bool: "bool", str: "str", int: "int"}.get(type(default), "str | None")


def table_name(operator: Operator) -> str:
    """The name of the table of cases."""
    return f"_{operator.name.upper()}_CASES"


def case_table(operator: Operator, first: int = 0) -> str:
    """The values of the arguments that go together, with the number of the case."""
    names = [argument.name for argument in operator.arguments]
    table: dict[tuple[object, ...], int] = {}
    for number, case in enumerate(operator.cases, first):
        chosen = dict(case.choices)
        table |= dict.fromkeys(product(*(chosen[name] for name in names)), number)
    text = f"Values of ({', '.join(names)}) that go together -> number of the case."
    return f'{assigned(f"{table_name(operator)} = ", table)}\n"""{text}"""'


def records(program: Program) -> tuple[Record, ...]:
    """Classes of results, each once."""
    found: dict[str, Record] = {}
    for operator in program.operators:
        if operator.record is not None:
            found[operator.record.name] = operator.record
        for result in (result for case in operator.cases for result in case.results):
            if isinstance(result, Pairs):
                found[result.record.name] = result.record
    return tuple(found.values())


def record_text(record: Record, array: str, number: str) -> str:
    """The source of a class of results."""
    types = {"array": array, "number": number, "params": f"dict[str, {array}]", "groups": "tuple[str, ...]"}
    lines = [f"class {record.name}(NamedTuple):", f"    {docstring([record.text], indent=4)}", ""]
    for field in record.fields:
        kind = types[field.kind] + ("" if field.always else " | None")
        lines += [f"    {field.name}: {kind}", f'    """{field.text}"""']
    return "\n".join(lines)
