"""Curvature blocks in Numba modules."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sifrc.backends.curvature import (
    block_operators,
    draws,
    extras,
    form_words,
    operator_text,
    shared_context,
)
from sifrc.backends.layout import signature
from sifrc.backends.numba_cpu.operators import RAISES, data_text, params_text, unpack
from sifrc.backends.numba_cpu.parts import PARAMETERS, Parts, call_lines
from sifrc.ir.quantity import Storage
from sifrc.operators.record import Case, KindPlan, Operator, with_extra

__all__ = ["curvature_context"]


@dataclass
class _Glue:
    parts: Parts
    array: str = "Array"
    decorators: tuple[str, ...] = ()
    apart: str = ""

    @property
    def params_text(self) -> str:
        return params_text(self.parts)

    @property
    def raises_text(self) -> str:
        return RAISES.format(classes=", or a class is out of range" if self.parts.classes else "")

    def data_text(self) -> tuple[str, str]:
        return data_text(self.parts, True)

    def opening(self, operator: Operator) -> list[str]:
        lines = [f"    {unpack(self.parts, PARAMETERS, 'params')}"]
        if operator.vector:
            lines.append(f"    {unpack(self.parts, operator.vector.families, operator.vector.name)}")
        return lines

    def blocks(self, operator: Operator, seeded: bool) -> list[str]:
        arguments = [*_parameters(self.parts), "work"]
        if draws(self.parts.program):
            arguments.append("seed" if seeded else "0")
        return ["        work = _batch(inputs, targets)", f"        prepare({', '.join(arguments)})"]

    def calls(self, case: Case, indent: int) -> list[str]:
        return _calls(self.parts, case.functions, indent)

    def member(self, family: str, index: int | None) -> str:
        group = self.parts.layouts[True].group(family, index)
        return f"work.{group.name}[{index}]"


def curvature_context(parts: Parts) -> dict[str, Any]:
    """What the template ``curvature.py.jinja`` needs; without operators on blocks, that there are none."""
    program = parts.program
    operators = block_operators(program)
    if not operators:
        return {"curvature": False, "factors": False}
    glue = _Glue(parts)
    texts = [operator_text(parts.module, operator, glue) for operator in operators]
    functions = [_prepared(parts, kind, extra) for extra in extras(program) for kind in program.kinds]
    return shared_context(parts.module, texts, functions)


def _parameters(parts: Parts) -> list[str]:
    return ["weights", "biases"] if parts.has_biases else ["weights"]


def _calls(parts: Parts, names: tuple[str, ...], indent: int) -> list[str]:
    outside = (Storage.PARAMETER, Storage.DIRECTION)
    local = frozenset(f.code for f in parts.program.families if f.storage in outside)
    return [line for name in names for line in call_lines(parts.function(name, True), "work.", local, indent)]


def _prepared(parts: Parts, kind: KindPlan, extra: tuple[str, ...]) -> str:
    """The function that computes the blocks of one kind, and more."""
    functions = with_extra(kind, extra)
    suffix = "".join(f"_{name}" for name in extra)
    needed = {g.family.name for name in functions for g in parts.function(name, True).groups}
    random = [
        f"    work.{f.code} = _{f.code}(seed, (work.batch, {f.shapes[0][1][-1]}))"
        for f in parts.program.families
        if f.storage is Storage.RANDOM and f.name in needed
    ]
    arguments = [f"{name}: Arrays" for name in _parameters(parts)] + ["work: _Workspace"]
    arguments += ["seed: int"] if draws(parts.program) else []
    text = form_words(kind).capitalize()
    text += "".join(f", {name}" for name in extra)
    return "\n".join(
        [
            signature(f"_prepared_{kind.name}{suffix}", arguments, "None"),
            f'    """{text}, kind {kind.name}."""',
            *random,
            *_calls(parts, functions, 4),
        ]
    )
