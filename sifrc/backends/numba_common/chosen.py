"""Public functions of Numba modules that do different things for different arguments."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from sifrc.backends.cases import case_table, record_text, records
from sifrc.backends.draws import drawn_shape, shape_type
from sifrc.backends.kinds import draws, extras, form_words, kinds_context
from sifrc.backends.layout import signature
from sifrc.backends.names import first_group_table
from sifrc.backends.numba_common.operators import RAISES, data_text, params_text, unpack
from sifrc.backends.numba_common.parts import Parts
from sifrc.backends.operators import OperatorPrinter, choosing
from sifrc.backends.text import assigned
from sifrc.catalogue.record import Case, KindPlan, Operator, Result, Table, with_extra
from sifrc.ir.quantity import Storage

__all__ = ["ChosenPrinter", "chosen_context"]


class ChosenPrinter(OperatorPrinter):
    """Prints them for arrays of Numba."""

    array: ClassVar[str] = "Array"
    number: ClassVar[str] = "float"
    mapping: ClassVar[str] = "Parameters"
    part = "work: _Workspace"
    chunks: ClassVar[tuple[tuple[str, str], ...]] = (
        *OperatorPrinter.chunks,
        (
            "threads: int = 1",
            "threads: that share the batch; with a BLAS of one thread (``OPENBLAS_NUM_THREADS=1``), else "
            "they wait for each other.",
        ),
        ("workspace: Workspace | None = None", "workspace: memory that is kept from call to call."),
    )

    def __init__(self, parts: Parts, operator: Operator) -> None:
        super().__init__(parts.module, operator)
        self.parts = parts

    @property
    def params_text(self) -> str:
        return params_text(self.parts)

    @property
    def raises_text(self) -> str:
        return RAISES.format(classes=", or a class is out of range" if self.parts.classes else "")

    def data_text(self) -> tuple[str, str]:
        return data_text(self.parts, True)

    def opening(self) -> list[str]:
        lines = [
            f"    {self.parts.taken()}",
            "    inputs, targets = _data(inputs, targets)",
            *(["    inputs = _drawn(inputs, seed)"] if self.module.draws else []),
        ]
        vector = self.operator.vector
        if vector is None:
            return lines
        lines.append(f"    {unpack(self.parts, vector.families, vector.name)}")
        if vector.single:
            codes = self.parts.like_parameters(vector.families)
            singles = self.parts.variables([f"{family}°" for family in vector.families])
            for code, single, own in zip(codes, singles, self.parts.parameter_variables, strict=True):
                lines.append(f"    {single} = _single_entries({code}, {own.constant})")
        return lines

    def blocks(self) -> list[str]:
        arguments = [*self.parts.given_names, "work"]
        if draws(self.parts.program):
            arguments.append("seed" if self.seeded else "0")
        return [f"        prepare({', '.join(arguments)})"]

    def calls_after_blocks(self, case: Case, indent: int) -> list[str]:
        return self.parts.calls(case.functions, True, indent)

    def prepared(self) -> list[str]:
        return self.parts.calls(self.operator.prepare, True, 8)

    def calls(self, functions: Sequence[str], results: Sequence[Result], indent: int) -> list[str]:
        return self.parts.calls(functions, True, indent)

    def ending(self) -> list[str]:
        return []

    def member(self, family: str, index: int | None) -> str:
        name = f"work.{self.parts.layouts[True].group(family, index).name}"
        return name if index is None else f"{name}[{index}]"

    def mean(self, family: str) -> str:
        return f"np.mean({self.member(family, None)}, dtype=np.float64)"

    def named(self, table: Table) -> str:
        codes = [f"work.{name}" for name in self.parts.variables(table.families)]
        codes += [] if self.parts.has_biases else ["()"]
        return f"_named({', '.join(codes)}{', 1' if self.module.reduction == 'sum' else ''})"

    def averaged(self) -> list[str]:
        if not self.operator.chunks:
            return ["_averaged(part, inputs, targets, len(inputs))"]
        names = ", ".join(argument.name for argument in self.operator.arguments)
        table = f"_{self.operator.name.upper()}_CASES"
        return [
            '    threads = _count("threads", threads)',
            '    rows = _count("chunk", chunk) if chunk is not None else -(-len(inputs) // threads)',
            "    memory = Workspace() if workspace is None else workspace",
            f"_shared(part, inputs, targets, rows, threads, memory, {table}[{names}])",
        ]

    def whole(self) -> str:
        return "_filled(_Workspace(_WORK, len(inputs)), inputs, targets)"


def chosen_context(parts: Parts, printer: type[ChosenPrinter] = ChosenPrinter) -> dict[str, Any]:
    """What the template ``chosen.py.jinja`` needs; that there is nothing, without such operators."""
    program = parts.program
    operators = choosing(program)
    if not operators:
        return {"chosen": (), "records": (), "chunks": False, "operator_places": ()}
    texts = [printer(parts, operator).text() for operator in operators]
    functions = [_prepared(parts, kind, extra) for extra in extras(program) for kind in program.kinds]
    return {
        "chosen": texts,
        "records": [record_text(record, "Array", "float") for record in records(program)],
        "case_tables": _case_tables(parts, operators),
        **kinds_context(parts.module, functions),
        "matrices": any("_matrix(" in text for text in texts),
        "shape_type": shape_type(program),
        "uniform": any("_uniform(" in text for text in functions),
        "normal": any("_normal(" in text for text in functions),
        "first_group": first_group_table(program),
        "chunks": any(operator.chunks for operator in operators),
        "averaged": any("_averaged(" in text for text in texts),
        "operator_places": _places(parts, operators),
    }


def _case_tables(parts: Parts, operators: Sequence[Operator]) -> list[str]:
    """Tables of cases, which are numbered through."""
    texts, first = [], 0
    for operator in operators:
        if operator.arguments and not operator.kinds:
            texts.append(case_table(operator, first))
        first += len(operator.cases) if operator.chunks else 0
    return texts


def _places(parts: Parts, operators: Sequence[Operator]) -> list[str]:
    """Memory of the cases of all operators that take a batch in parts, in the order of their numbers."""
    found = [places for o in operators for places in parts.program.operator_places.get(o.name, ())]
    texts = []
    for number, places in enumerate(found):
        table = parts.place_table(places)
        states = table.get("x")
        if isinstance(states, dict):
            states.pop(0, None)
        if not parts.classes:
            table.pop("targets", None)
        texts.append(assigned(f"_PLACES_{number}: Places = ", table))
    if texts:
        names = ", ".join(f"_PLACES_{number}" for number in range(len(texts)))
        texts.append(f'_CASE_PLACES = ({names},)\n"""Memory by the number of the case."""')
    return texts


def _prepared(parts: Parts, kind: KindPlan, extra: tuple[str, ...]) -> str:
    """The function that computes the blocks of one kind, and more."""
    functions = with_extra(kind, extra)
    suffix = "".join(f"_{name}" for name in extra)
    needed = {g.family.name for name in functions for g in parts.function(name, True).groups}
    random = [
        f"    work.{f.code} = _{f.code}(seed, {drawn_shape(f, 'work.batch')})"
        for f in parts.program.families
        if f.storage is Storage.RANDOM and f.name in needed
    ]
    arguments = [f"{name}: Arrays" for name in parts.given_names] + ["work: _Workspace"]
    arguments += ["seed: int"] if draws(parts.program) else []
    text = form_words(kind).capitalize()
    text += "".join(f", {name}" for name in extra)
    return "\n".join(
        [
            signature(f"_prepared_{kind.name}{suffix}", arguments, "None"),
            f'    """{text}, kind {kind.name}."""',
            *random,
            *parts.calls(functions, True, 4),
        ]
    )
