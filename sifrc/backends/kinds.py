"""Kinds of curvature as printers see them: what the function of each computes, and a table of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from sifrc.backends.base import ModuleSource
from sifrc.backends.text import literal
from sifrc.catalogue.record import Form, KindPlan, Operator, Pairs
from sifrc.lower.program import Program

__all__ = [
    "block_operators",
    "draws",
    "extras",
    "form_words",
    "handed",
    "handed_families",
    "kinds_context",
    "single_samples",
]

_PART_FLOATS = 2**25
"""Numbers in the blocks of single samples that a part of a batch may have: 128 MiB in float32."""

_HANDED: Mapping[Form, tuple[str, ...]] = MappingProxyType(
    {
        "samples": ("H",),
        "outputs": ("J", "M"),
        "scores": ("T",),
        "class_scores": ("Tᶜ",),
        "batch": ("H̄",),
    }
)
"""Families that the function of a kind hands to public functions: blocks, or factors of them."""
_WORDS: Mapping[Form, str] = MappingProxyType(
    {
        "samples": "blocks of every sample",
        "outputs": "Jacobians of the output, and its blocks",
        "scores": "scores",
        "class_scores": "scores",
        "batch": "blocks of the batch",
    }
)


def single_samples(form: Form) -> bool:
    """Whether there is a block, or a factor of it, for each sample."""
    return form != "batch"


def block_operators(program: Program) -> tuple[Operator, ...]:
    """The operators that go on from the blocks of a kind of curvature."""
    return tuple(operator for operator in program.operators if operator.kinds)


def handed(program: Program, form: Form) -> tuple[str, ...]:
    """Families that the functions of kinds of a form hand to the public functions."""
    known = {family.name for family in program.families}
    return tuple(name for name in _HANDED[form] if name in known)


def form_words(kind: KindPlan) -> str:
    """What the function of a kind computes."""
    return _WORDS[kind.form]


def handed_families(program: Program) -> set[str]:
    """Families that the functions of all kinds hand to the public functions."""
    return {name for kind in program.kinds for name in handed(program, kind.form)}


def _rows(program: Program) -> int:
    """Samples in a part of a batch, for kinds with a block for each."""
    count = 1
    for kind in program.kinds:
        if kind.per_sample:
            written = {name for f in kind.functions for name in program.function(f, True).writes}
            sizes = [
                shape[1] * shape[2]
                for name in sorted(written)
                for _, shape in program.family(name).shapes
                if len(shape) == 3 and shape[1] is not None and shape[2] is not None
            ]
            count = max(count, sum(sizes))
    return max(1, _PART_FLOATS // count)


def draws(program: Program) -> bool:
    """Whether some kind draws random numbers, so that functions take a seed."""
    return any(kind.draws for kind in program.kinds)


def extras(program: Program) -> tuple[tuple[str, ...], ...]:
    """Extra functions that the functions of the kinds come with: none, and those of operators."""
    return tuple(dict.fromkeys(((), *(operator.extra for operator in block_operators(program)))))


def kinds_context(module: ModuleSource, functions: Sequence[str]) -> dict[str, Any]:
    """What templates need of the kinds of curvature."""
    program = module.program
    more = any(operator.extra for operator in block_operators(program))
    cases = [case for operator in block_operators(program) for case in operator.cases]
    pairs = [result for case in cases for result in case.results if isinstance(result, Pairs)]
    layers = tuple(dict.fromkeys(key for found in pairs for key, _ in found.rows))
    return {
        "kind_functions": functions,
        "kind_table": _table(program.kinds, "_KINDS", "") if functions else "",
        "gradient_table": _table(program.kinds, "_GRADIENT_KINDS", "_gradient") if more else "",
        "rows": _rows(program),
        "layer_names": literal(layers, used=len("_LAYERS = ")),
    }


def _table(kinds: Sequence[KindPlan], name: str, suffix: str) -> str:
    lines = [f'    "{kind.name}": (_prepared_{kind.name}{suffix}, "{kind.form}"),' for kind in kinds]
    return "\n".join([f"{name}: dict[str, tuple[Prepared, str]] = {{", *lines, "}"])
