"""What backends share of the public function on summaries."""

from __future__ import annotations

from sifrc.backends.text import docstring, literal
from sifrc.lower.program import Program
from sifrc.operators.record import Case, Operator

__all__ = [
    "RESULTS",
    "cases_by_order",
    "first_group_table",
    "groups_table",
    "summary_doc",
    "summary_operator",
]

RESULTS = {"g": "ḡ", "H": "H̿", "D": "D̄", "T": "T̄"}
"""Fields of a summary -> families; T is all of order 3, D its diagonal."""


def summary_operator(program: Program) -> Operator | None:
    """The operator whose results come back in a record, if the program has one."""
    return next((operator for operator in program.operators if operator.record is not None), None)


def cases_by_order(operator: Operator) -> tuple[Case, ...]:
    """The cases of orders 1, 2 and 3, and of all of order 3."""
    cases = {(dict(case.choices)["order"], dict(case.choices)["full"]): case for case in operator.cases}
    keys = (((1,), (False,)), ((2,), (False,)), ((3,), (False,)), ((3,), (True,)))
    return tuple(cases[key] for key in keys)


def groups_table(program: Program) -> list[str]:
    """``GROUPS``, where there are groups of parameters."""
    if not program.groups:
        return []
    text = "GROUPS = " + literal(dict(program.groups), used=len("GROUPS = "))
    return [f'{text}\n"""Groups of the parameters -> their tensors."""']


def first_group_table(operator: Operator) -> str:
    """First group of every tensor, where each of its entries is a group."""
    head = "_FIRST_GROUP = "
    single = () if operator.vector is None else operator.vector.single
    return head + literal(dict(single), used=len(head)) if single else ""


def summary_doc(params: str, data: tuple[str, str], raises: str, more: tuple[str, ...] = ()) -> str:
    """The docstring.

    Args:
        params: line on ``params``.
        data: shapes of inputs and targets.
        raises: errors of the checks of arguments.
        more: lines on further arguments.
    """
    inputs, targets = data
    lines = [
        "Args:",
        f"    {params}",
        f"    inputs: {inputs}.",
        f"    targets: {targets}.",
        "    direction: by name, shapes as in ``SHAPES``.",
        "    order: 1, 2 or 3.",
        "    full: all of order 3, (S, S, S), in place of its diagonal.",
        "    gradient: whether the gradient is returned too.",
        "    chunk: samples at a time, for large batches; the sums over them are exact.",
        *(f"    {line}" for line in more),
    ]
    return docstring(
        [
            "Summary of the derivatives along a direction, by groups of the parameters.  [GN3(6, 9)]",
            "One forward pass with a tangent for every group, stacked, and one backward pass of the network.",
            "\n".join(lines),
            "Returns:\n    See ``Summary``.",
            raises,
        ],
        indent=4,
    )
