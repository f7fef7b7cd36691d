"""The public function on summaries in Torch modules."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sifrc.backends.layout import signature
from sifrc.backends.names import groups_name, owner_name
from sifrc.backends.summary import (
    RESULTS,
    cases_by_order,
    first_group_table,
    groups_table,
    summary_doc,
    summary_operator,
)
from sifrc.backends.text import literal
from sifrc.backends.torch_eager.calls import Calls, Parts
from sifrc.backends.torch_eager.operators import PARAMS_TEXT, RAISES_TEXT, data_text
from sifrc.lower.access import flat
from sifrc.lower.arrays import OBJECTIVE
from sifrc.lower.statements import Fresh

__all__ = ["group_tables", "summary_context"]

_ARGUMENTS = (
    "params: Mapping[str, Tensor]",
    "inputs: Tensor",
    "targets: Tensor",
    "direction: Mapping[str, Tensor]",
    "order: int = 2",
    "full: bool = False",
    "gradient: bool = False",
    "chunk: int | None = None",
)


def summary_context(parts: Parts) -> dict[str, Any]:
    """Names for ``summary.py.jinja``."""
    program = parts.program
    operator = summary_operator(program)
    if operator is None:
        return {"summary": False}
    *orders, whole = (case.functions for case in cases_by_order(operator))
    base = Calls(parts, 8)
    later = ["gradient", *(name for functions in (*orders, whole) for name in functions)]
    needed = base.needed([(name, True) for name in later])
    lines = base.run([(name, True) for name in operator.prepare], needed | {OBJECTIVE})
    gradient = tuple(program.function("gradient", True).writes)
    guarded = base.guarded

    def branch(names: Sequence[str], wanted: Sequence[str]) -> str:
        chain = Calls(parts, 12, set(base.known))
        return "\n".join(chain.run([(name, True) for name in names], wanted))

    known = {family.name: family.code for family in program.families}
    found = {field: known[family] for field, family in RESULTS.items()}
    biases = "" if parts.biases is None else f", {known['g']}"
    function = "_weights" if parts.biases is None else "_weights_and_biases"
    vectors = "vector_weights" if parts.biases is None else "vector_weights, vector_biases"
    return {
        "summary": True,
        "first_group": first_group_table(operator),
        "summary_head": signature("summary", list(_ARGUMENTS), "Summary"),
        "summary_doc": summary_doc(PARAMS_TEXT, data_text(parts, True), RAISES_TEXT),
        "summary_vector": f'    {vectors} = {function}(direction, "direction", like)',
        "summary_base": "\n".join(lines),
        "summary_gradient": branch(["gradient"], gradient),
        "summary_tensors": f"{known['G']}{biases}",
        "summary_whole": branch(whole, tuple(RESULTS.values())),
        "summary_orders": [branch(functions, tuple(RESULTS.values())) for functions in orders],
        "summary_guarded": guarded,
        "objective": known[OBJECTIVE],
        "results": found,
    }


def group_tables(parts: Parts) -> list[str]:
    """Positions of the groups that own tensors, and numbers of groups that arrays hold, by layer."""
    tables: dict[str, dict[int, int]] = {}
    for (family, index), position in parts.program.owners.items():
        tables.setdefault(owner_name(family), {})[index] = position
    fresh = {
        statement.target.ref.family
        for function in parts.program.functions
        for statement in flat(function.body)
        if isinstance(statement, Fresh)
    }
    for stored in parts.program.families:
        if stored.name in fresh and stored.indexed:
            sizes = {index: shape[0] for index, shape in stored.shapes if index is not None}
            tables[groups_name(stored)] = {index: size for index, size in sizes.items() if size is not None}
    texts = [f"{name} = {literal(table, used=len(name) + 3)}" for name, table in tables.items()]
    return [*groups_table(parts.program), *texts]
