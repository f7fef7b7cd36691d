"""The public function on summaries."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sifrc.backends.layout import signature
from sifrc.backends.names import owner_name
from sifrc.backends.numba_cpu.operators import RAISES, data_text, params_text
from sifrc.backends.numba_cpu.parts import Parts, call_lines
from sifrc.backends.summary import (
    cases_by_order,
    first_group_table,
    groups_table,
    summary_doc,
    summary_operator,
)
from sifrc.backends.text import literal
from sifrc.ir.quantity import Storage
from sifrc.operators.record import Operator

__all__ = ["owner_tables", "summary_context"]

_ARGUMENTS = (
    "params: Parameters",
    "inputs: Array",
    "targets: Array",
    "direction: Parameters",
    "order: int = 2",
    "full: bool = False",
    "gradient: bool = False",
    "chunk: int | None = None",
    "threads: int = 1",
    "workspace: Workspace | None = None",
)


def summary_context(parts: Parts) -> dict[str, Any]:
    """Names for ``summary.py.jinja``."""
    program = parts.program
    operator = summary_operator(program)
    if operator is None:
        return {"summary": False, "summary_places": []}
    *orders, whole = (case.functions for case in cases_by_order(operator))
    return {
        "summary": True,
        "summary_places": _places(parts, operator),
        "first_group": first_group_table(operator),
        "summary_head": signature("summary", list(_ARGUMENTS), "Summary"),
        "summary_doc": summary_doc(
            params_text(parts),
            data_text(parts, True),
            RAISES.format(classes=", or a class is out of range" if parts.classes else ""),
            (
                "threads: that share the batch; with a BLAS of one thread (``OPENBLAS_NUM_THREADS=1``), else",
                "    they wait for each other.",
                "workspace: memory that is kept from call to call.",
            ),
        ),
        "summary_base": _calls(parts, operator.prepare, 12),
        "summary_gradient": _calls(parts, ("gradient",), 16),
        "summary_whole": _calls(parts, whole, 16),
        "summary_orders": [_calls(parts, functions, 16) for functions in orders],
    }


def owner_tables(parts: Parts) -> list[str]:
    """Position of the group that owns a tensor, by layer: compiled functions look them up."""
    tables: dict[str, dict[int, int]] = {}
    for (family, index), position in parts.program.owners.items():
        tables.setdefault(family, {})[index] = position
    texts = groups_table(parts.program)
    for family, table in tables.items():
        items = tuple(table.get(k, 0) for k in range(max(table) + 1))
        head = f"{owner_name(family)} = "
        what = "weight" if family == "1W" else "bias"
        texts.append(f'{head}{literal(items, used=len(head))}\n"""Group of the {what} of layer k, by k."""')
    return texts


def _calls(parts: Parts, names: Sequence[str], indent: int) -> str:
    outside = (Storage.PARAMETER, Storage.DIRECTION)
    local = frozenset(f.code for f in parts.program.families if f.storage in outside)
    lines = [
        line for name in names for line in call_lines(parts.function(name, True), "work.", local, indent)
    ]
    return "\n".join(lines)


def _places(parts: Parts, operator: Operator) -> list[str]:
    """Tables of the memory of each order."""
    found = parts.program.operator_places.get(operator.name)
    if found is None:
        return []
    by_case = dict(zip(operator.cases, found, strict=True))
    ordered = [by_case[case] for case in cases_by_order(operator)]
    texts = []
    names = ("_PLACES_1", "_PLACES_2", "_PLACES_3", "_PLACES_WHOLE")
    for name, places in zip(names, ordered, strict=True):
        table = parts.place_table(places)
        states = table.get("x")
        if isinstance(states, dict):
            states.pop(0, None)
        if not parts.classes:
            table.pop("targets", None)
        head = f"{name}: Places = "
        texts.append(head + literal(table, used=len(head)))
    numbered = ", ".join(f"{number}: {name}" for number, name in enumerate(names, 1))
    texts.append(
        f'_SUMMARY_PLACES = {{{numbered}}}\n"""Memory of a summary: by its order, 4 is all of order 3."""'
    )
    return texts
