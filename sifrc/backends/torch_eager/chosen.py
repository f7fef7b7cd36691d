"""Public functions of Torch modules that do different things for different arguments."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from sifrc.backends.cases import case_table, record_text, records
from sifrc.backends.draws import drawn_shape
from sifrc.backends.kinds import draws, extras, form_words, handed, kinds_context
from sifrc.backends.layout import returned, signature, statement
from sifrc.backends.names import first_group_table
from sifrc.backends.operators import OperatorPrinter, choosing
from sifrc.backends.text import data_texts
from sifrc.backends.torch_eager.calls import Calls, Parts
from sifrc.backends.torch_eager.operators import RAISES_TEXT, params_text, unpack
from sifrc.catalogue.record import Case, KindPlan, Operator, Result, Table, members_of, with_extra
from sifrc.derive.quantities import QUANTITIES
from sifrc.ir.quantity import Storage

__all__ = ["chosen_context"]


class _Printer(OperatorPrinter):
    array: ClassVar[str] = "Tensor"
    number: ClassVar[str] = "Tensor"
    mapping: ClassVar[str] = "Mapping[str, Tensor]"
    decorators: ClassVar[tuple[str, ...]] = ("@_as_written",)
    apart: ClassVar[str] = "_apart"
    raises_text = RAISES_TEXT

    def __init__(self, parts: Parts, operator: Operator) -> None:
        super().__init__(parts.module, operator)
        self.parts = parts
        self.chain = Calls(parts, 8)
        self.part = f"inputs: {parts.checked_type}, targets: Tensor"

    @property
    def params_text(self) -> str:
        return params_text(self.parts)

    def data_text(self) -> tuple[str, str]:
        return data_texts(self.module, True, "")

    def opening(self) -> list[str]:
        like = self.parts.like
        lines = [unpack(self.parts, 4), f"    inputs, targets = _batch(inputs, targets, {like})"]
        lines += ["    inputs = _drawn(inputs, seed)"] if self.module.draws else []
        vector = self.operator.vector
        if vector is None:
            return lines
        codes = _codes(self.parts, vector.families)
        unpacked = f'{self.parts.unpacker}({vector.name}, "{vector.name}", {like})'
        lines.append(f"    {', '.join(codes)} = {unpacked}")
        if vector.single:
            singles = _codes(self.parts, [f"{family}°" for family in vector.families])
            for single, code, names in zip(singles, codes, ("WEIGHT_NAMES", "BIAS_NAMES"), strict=False):
                lines.append(f"    {single} = _single_entries({code}, {names})")
        return lines

    def blocks(self) -> list[str]:
        codes = [self._code(self.parts.states)]
        codes += [self._code(name) for name in _extra_families(self.parts, self.operator.extra)]
        codes.append("*blocks")
        arguments = [*self.parts.given, "inputs", "targets", *(["seed"] if self.seeded else [])]
        if not self.seeded and draws(self.parts.program):
            arguments.append("0")
        return [f"        {', '.join(codes)} = prepare({', '.join(arguments)})"]

    def calls_after_blocks(self, case: Case, indent: int) -> list[str]:
        keys = [(name, True) for name in case.functions]
        (form,) = case.forms
        families = handed(self.parts.program, form)
        chain = Calls(self.parts, indent, {self.parts.states, *families})
        wanted = {name for name, _ in members_of(case.results)}
        lines = chain.run(keys, wanted)
        needed = chain.needed(keys) | wanted
        pad = " " * indent
        opening = [f"{pad}mean = 1.0 / len(inputs)"] if "mean" in needed else []
        if chain.guarded:
            opening.append(f"{pad}checks: Checks = []")
            lines.append(f"{pad}_refuse(checks)")
        codes = [self._code(name) if name in needed else "_" for name in families]
        opening.append(f"{pad}{', '.join(codes)} = blocks" if codes[1:] else f"{pad}({codes[0]},) = blocks")
        return [*opening, *lines]

    def prepared(self) -> list[str]:
        every = [(name, True) for name in self.operator.functions()]
        first = [(name, True) for name in self.operator.prepare]
        also = {family for family, _ in members_of(self.operator.also)}
        later = self.chain.needed(key for key in every if key not in first)
        lines = self.chain.run(first, later | also)
        opening = ["        mean = 1.0 / len(inputs)"] if "mean" in self.chain.needed(every) else []
        self.chain.guarded = any(self.parts.functions[key].guarded for key in every)
        return [*opening, *(["        checks: Checks = []"] if self.chain.guarded else []), *lines]

    def calls(self, functions: Sequence[str], results: Sequence[Result], indent: int) -> list[str]:
        chain = Calls(self.parts, indent, set(self.chain.known))
        return chain.run([(name, True) for name in functions], {family for family, _ in members_of(results)})

    def ending(self) -> list[str]:
        return ["        _refuse(checks)"] if self.chain.guarded else []

    def member(self, family: str, index: int | None) -> str:
        return self._code(family) if index is None else f"{self._code(family)}[{index}]"

    def mean(self, family: str) -> str:
        return f"{self._code(family)}.mean()"

    def named(self, table: Table) -> str:
        codes = ", ".join(_codes(self.parts, table.families))
        return f"_named({codes}{', 1' if self.module.reduction == 'sum' else ''})"

    def averaged(self) -> list[str]:
        rows = "_rows_at_a_time(chunk, len(inputs))" if self.operator.chunks else "len(inputs)"
        return [f"_averaged(part, inputs, targets, {rows})"]

    def _code(self, family: str) -> str:
        return self.parts.program.family(family).code


def chosen_context(parts: Parts) -> dict[str, Any]:
    """What the template ``chosen.py.jinja`` needs; that there is nothing, without such operators."""
    program = parts.program
    operators = choosing(program)
    if not operators:
        return {"chosen": (), "records": ()}
    texts = [_Printer(parts, operator).text() for operator in operators]
    functions = [_prepared(parts, kind, extra) for extra in extras(program) for kind in program.kinds]
    return {
        "chosen": texts,
        "records": [record_text(record, "Tensor", "Tensor") for record in records(program)],
        "case_tables": [case_table(o) for o in operators if o.arguments and not o.kinds],
        **kinds_context(parts.module, functions),
        "matrices": any("_matrix(" in text for text in texts),
        "apart": any("_apart(" in text for text in texts),
        "first_group": first_group_table(program),
        "chunks": any(operator.chunks for operator in operators),
    }


def _codes(parts: Parts, names: Sequence[str]) -> list[str]:
    return [QUANTITIES[name].code for name in (names[:1] if parts.biases is None else names)]


def _extra_families(parts: Parts, extra: tuple[str, ...]) -> list[str]:
    """Families that extra functions write."""
    return [name for function in extra for name in parts.functions[function, True].results]


def _prepared(parts: Parts, kind: KindPlan, extra: tuple[str, ...]) -> str:
    """The function that computes the blocks of one kind, and more."""
    keys = [(name, True) for name in with_extra(kind, extra)]
    more = _extra_families(parts, extra)
    chain = Calls(parts, 4)
    families = handed(parts.program, kind.form)
    calls = chain.run(keys, {parts.states, *families, *more})
    lines = []
    needed = chain.needed(keys)
    if "mean" in needed:
        lines.append("    mean = 1.0 / len(inputs)")
    for random in (f for f in parts.program.families if f.storage is Storage.RANDOM and f.name in needed):
        shape = drawn_shape(random, "len(inputs)")
        made = f"_{random.code}(seed, {shape}, {parts.draws_like})"
        lines += statement(f"{random.code} = {made}", 4)
    arguments = [f"{code}: Tensors" for code in parts.given]
    arguments += [f"inputs: {parts.checked_type}", "targets: Tensor"]
    arguments += ["seed: int"] if draws(parts.program) else []
    text = form_words(kind)
    codes = [parts.program.family(name).code for name in (parts.states, *more, *families)]
    suffix = "".join(f"_{name}" for name in extra)
    text += "".join(f", {name}" for name in extra)
    return "\n".join(
        [
            signature(
                f"_prepared_{kind.name}{suffix}", arguments, f"tuple[{', '.join(['Tensors'] * len(codes))}]"
            ),
            f'    """States, and {text}, kind {kind.name}."""',
            *lines,
            *chain.checked(calls),
            *returned(codes, 4),
        ]
    )
