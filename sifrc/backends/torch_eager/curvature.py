"""Curvature blocks in Torch modules."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sifrc.backends.curvature import (
    BLOCKS,
    block_operators,
    draws,
    extras,
    form_words,
    operator_text,
    score_families,
    shared_context,
)
from sifrc.backends.layout import returned, signature, statement
from sifrc.backends.torch_eager.calls import Calls, Parts
from sifrc.backends.torch_eager.operators import PARAMS_TEXT, RAISES_TEXT, data_text, unpack
from sifrc.ir.quantity import Storage
from sifrc.operators.record import Case, KindPlan, Operator, members_of, with_extra

__all__ = ["curvature_context"]


@dataclass
class _Glue:
    parts: Parts
    array: str = "Tensor"
    decorators: tuple[str, ...] = ("@_as_written",)
    apart: str = "_apart"
    params_text: str = PARAMS_TEXT
    raises_text: str = RAISES_TEXT

    def data_text(self) -> tuple[str, str]:
        return data_text(self.parts, True)

    def opening(self, operator: Operator) -> list[str]:
        like = f"next(iter({self.parts.weights.code}.values()))"
        lines = [unpack(self.parts, "params", 4)]
        lines.append(f"    inputs, targets = _batch(inputs, targets, {like})")
        if operator.vector:
            codes = _codes(self.parts, operator.vector.families)
            function = "_weights" if self.parts.biases is None else "_weights_and_biases"
            lines.append(f'    {", ".join(codes)} = {function}(vector, "vector", {like})')
        return lines

    def blocks(self, operator: Operator, seeded: bool) -> list[str]:
        codes = [self.parts.program.family(self.parts.states).code, "blocks"]
        codes += ["scores"] if score_families(self.parts.program) else []
        codes += [
            self.parts.program.family(name).code for name in _extra_families(self.parts, operator.extra)
        ]
        arguments = [*_parameters(self.parts), "inputs", "targets", *(["seed"] if seeded else [])]
        if not seeded and draws(self.parts.program):
            arguments.append("0")
        return [f"        {', '.join(codes)} = prepare({', '.join(arguments)})"]

    def calls(self, case: Case, indent: int) -> list[str]:
        keys = [(name, True) for name in case.functions]
        family = BLOCKS[case.forms == ("samples",)]
        scores = _scores(self.parts, case)
        chain = Calls(self.parts, indent, {self.parts.states, family, *scores})
        wanted = {name for name, _ in members_of(case.results)}
        lines = chain.run(keys, wanted)
        needed = chain.needed(keys) | wanted
        pad = " " * indent
        for name in scores:
            if name in needed:
                lines.insert(0, f"{pad}{self.parts.program.family(name).code} = scores")
        if family in needed:
            lines.insert(0, f"{pad}{self.parts.program.family(family).code} = blocks")
        if "mean" in needed:
            lines.insert(0, f"{pad}mean = 1.0 / len(inputs)")
        return lines

    def member(self, family: str, index: int | None) -> str:
        return f"{self.parts.program.family(family).code}[{index}]"


def curvature_context(parts: Parts) -> dict[str, Any]:
    """What the template ``curvature.py.jinja`` needs; empty without operators on blocks."""
    program = parts.program
    operators = block_operators(program)
    if not operators:
        return {"curvature": False, "factors": False}
    glue = _Glue(parts)
    texts = [operator_text(parts.module, operator, glue) for operator in operators]
    functions = [_prepared(parts, kind, extra) for extra in extras(program) for kind in program.kinds]
    return shared_context(parts.module, texts, functions)


def _scores(parts: Parts, case: Case) -> tuple[str, ...]:
    """The family of scores that a case may read; it is one of the kinds of one form."""
    kinds = [kind for kind in parts.program.kinds if kind.form in case.forms]
    return score_families(parts.program, kinds[0]) if len(case.forms) == 1 and kinds else ()


def _parameters(parts: Parts) -> list[str]:
    return [parts.weights.code] + ([] if parts.biases is None else [parts.biases.code])


def _codes(parts: Parts, names: tuple[str, ...]) -> list[str]:
    found = {family.name: family.code for family in parts.program.families}
    return [found[name] for name in (names[:1] if parts.biases is None else names)]


def _extra_families(parts: Parts, extra: tuple[str, ...]) -> list[str]:
    """Families that extra functions write."""
    return [name for function in extra for name in parts.functions[function, True].results]


def _prepared(parts: Parts, kind: KindPlan, extra: tuple[str, ...]) -> str:
    """The function that computes the blocks of one kind, and more."""
    keys = [(name, True) for name in with_extra(kind, extra)]
    more = _extra_families(parts, extra)
    chain = Calls(parts, 4)
    family, scores = BLOCKS[kind.per_sample], score_families(parts.program, kind)
    calls = chain.run(keys, {parts.states, family, *scores, *more})
    lines = []
    needed = chain.needed(keys)
    if "mean" in needed:
        lines.append("    mean = 1.0 / len(inputs)")
    for random in (f for f in parts.program.families if f.storage is Storage.RANDOM and f.name in needed):
        size = random.shapes[0][1][-1]
        lines += statement(f"{random.code} = _{random.code}(seed, (len(inputs), {size}), inputs)", 4)
    if chain.guarded:
        lines.append("    checks: Checks = []")
        calls.append("    _refuse(checks)")
    arguments = [f"{code}: Tensors" for code in _parameters(parts)] + ["inputs: Tensor", "targets: Tensor"]
    arguments += ["seed: int"] if draws(parts.program) else []
    text = form_words(kind)
    codes = [parts.program.family(name).code for name in (parts.states, family)]
    if score_families(parts.program):
        codes.append(parts.program.family(scores[0]).code if scores else "{}")
    codes += [parts.program.family(name).code for name in more]
    suffix = "".join(f"_{name}" for name in extra)
    text += "".join(f", {name}" for name in extra)
    return "\n".join(
        [
            signature(
                f"_prepared_{kind.name}{suffix}", arguments, f"tuple[{', '.join(['Tensors'] * len(codes))}]"
            ),
            f'    """States, and {text}, kind {kind.name}."""',
            *lines,
            *calls,
            *returned(codes, 4),
        ]
    )
