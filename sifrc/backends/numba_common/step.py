"""The optimizer of a generated module: its compiled loops over samples and batches, and its state."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from sifrc.backends.draws import step_seed
from sifrc.backends.layout import lines_of, signature
from sifrc.backends.numba_common.functions import PrivateFunction
from sifrc.backends.numba_common.loop import LoopText, Piece, parameter_name
from sifrc.backends.numba_common.nests import indented
from sifrc.backends.numba_common.operators import data_text, params_text
from sifrc.backends.numba_common.other_batch import OtherBatch, other_batch, periodic_pieces
from sifrc.backends.numba_common.parts import TARGETS, Parts
from sifrc.backends.numba_common.storage import Group, is_scalar
from sifrc.backends.ranges import ranges_text
from sifrc.backends.text import assigned, docstring, literal
from sifrc.errors import BackendError
from sifrc.ir.quantity import Storage
from sifrc.lower.access import flat
from sifrc.lower.arrays import OBJECTIVE
from sifrc.lower.statements import Guard

__all__ = ["Epoch", "epochs", "memory_table", "random_helpers", "step_context"]

_COUNTS: Mapping[str, int] = MappingProxyType({"steps": 0, "age": 0})
"""Numbers of the state that count steps -> least value."""


@dataclass(frozen=True)
class Epoch:
    """The compiled loop of one form.

    Args:
        batched: over batches, or over samples.
        name: of the function.
        text: source text.
        arguments: what it is called with, from the names of ``_run``.
    """

    batched: bool
    name: str
    text: str
    arguments: tuple[str, ...]


def epochs(loop: LoopText) -> dict[bool, Epoch]:
    """The loops that the program has functions for.

    Raises:
        BackendError: a step without any.
    """
    found: dict[bool, Epoch] = {}
    parts, program = loop.parts, loop.parts.program
    for batched, names in ((True, program.step_batched), (False, program.step_single)):
        if names and all((name, batched) in parts.functions for name in names):
            found[batched] = _epoch(loop, [parts.functions[name, batched] for name in names], batched)
    if not found:
        raise BackendError("the program has a step, but neither form of its functions")
    return found


def _epoch(loop: LoopText, functions: list[PrivateFunction], batched: bool) -> Epoch:
    parts = loop.parts
    groups = parts.groups(functions)
    objective = parts.layouts[batched].families.get(OBJECTIVE)
    if objective is None:
        raise BackendError("the step does not compute the objective")
    targets = next((g for g in groups if g.family.name == TARGETS), None)
    states = next(g for g in groups if parts.has_input(g))
    name = "_epoch" if batched else "_epoch_one"
    periodic = bool(parts.program.periodic)
    own = ["labels", *(["age", "period"] if periodic else [])]
    own += ["seed", "steps"] if _random_families(parts) or parts.module.draws else []
    data = ["samples"]
    if parts.holds:
        data = ["samples.first", *(f"samples.others[{k}]" for k, _ in enumerate(parts.further, 1))]
    kept = [group for group in groups if _is_kept(parts, group)]
    other = other_batch(parts) if batched else None
    parameters = [
        *("order", "samples", *parts.further, *own),
        *(parameter_name(parts, group) for group in groups),
        *(f"{g.name}_before" for g in kept),
    ]
    values = ["order", *data, *own, *(_value(parts, group) for group in groups)]
    values += [*(f"state.before.{g.name}" for g in kept)]
    parameters += other.parameters if other is not None else []
    values += other.values if other is not None else []
    parameters += loop.arguments
    values += [f"work.{name}" for name in loop.arguments]
    pieces = [Piece(loop.filled(states, targets, batched)), *_saved(loop, kept)]
    pieces += _calls(loop, functions, objective[0], batched, other)
    outside = (Storage.PARAMETER, Storage.BUFFER)
    given = [g.name for g in groups if g.family.storage in outside or is_scalar(g.family)]
    given += other.parameters[-len(other.groups) :] if other is not None else []
    before, inner = loop.arranged(pieces, given)
    body = loop.begun(other is not None)
    body += _batches(parts, states) if batched else ["for position in range(len(order)):"]
    body = [*body[:-1], *before, body[-1], *indented(inner, 4)]
    text = docstring(
        [
            "Steps over the samples of ``order``, " + ("a batch at a time." if batched else "one at a time."),
            "Returns the sum of the objectives before each step, the code of the check that failed\n"
            "(0: none) and the position in ``order`` that was reached.",
        ],
        indent=4,
    )
    lines = [
        *loop.decorators,
        *lines_of(parameters, f"def {name}(", "):", 0),
        f"    {text}",
        *indented(body, 4),
        f"    return {loop.total}, 0, len(order){parts.returned_age}",
    ]
    return Epoch(batched, name, "\n".join(lines), tuple(values))


def _is_kept(parts: Parts, group: Group) -> bool:
    """Whether the variable is computed now and then, and kept in between."""
    return parts.is_memory(group) and group.family.storage is not Storage.MEMORY


def _saved(loop: LoopText, kept: list[Group]) -> list[Piece]:
    """Copies of what is computed anew, so that a refused step can be undone."""
    if not kept:
        return []
    lines = [line for group in kept for line in loop.saved(group)]
    return [Piece([f"if {loop.fresh}:", *indented(lines, 4)], launched=True)]


def _value(parts: Parts, group: Group) -> str:
    """What ``_run`` passes for a variable."""
    if is_scalar(group.family):
        return f"DTYPE({'1.0 / batch' if group.name == 'mean' else f'state.{group.name}'})"
    if group.family.storage in (Storage.PARAMETER, Storage.BUFFER):
        return group.name
    return f"state.memory.{group.name}" if parts.is_memory(group) else f"work.{group.name}"


def _batches(parts: Parts, states: Group) -> list[str]:
    """The loop over batches; the first states are the rows that samples are copied to."""
    return [
        f"rows = {parameter_name(parts, states)}[0]",
        f"{states.name} = {parameter_name(parts, states)}",
        "batch = len(rows)",
        "for position in range(0, len(order), batch):",
    ]


def _calls(
    loop: LoopText,
    functions: list[PrivateFunction],
    objective: Group,
    batched: bool,
    other: OtherBatch | None,
) -> list[Piece]:
    """One step, inside the loop."""
    parts = loop.parts
    pieces: list[Piece] = []
    elsewhere = [f for f in functions if other is not None and f.function.name in other.periodic]
    for function in functions[:-1]:
        periodic = function.function.name in parts.program.periodic
        called = _call(loop, function, 12 if periodic else 8)
        if other is not None and function in elsewhere:
            pieces += periodic_pieces(loop, other, function, first=function is elsewhere[0])
        elif periodic:
            if draws := _draw_lines(function, 4, "steps + position // batch"):
                pieces.append(Piece([f"if {loop.fresh}:", *draws]))
            pieces.append(Piece([f"if {loop.fresh}:", *indented(called, 4)], function.launched))
        else:
            pieces.append(Piece(called, function.launched))
        if OBJECTIVE in function.function.writes and not _guards_objective(function):
            pieces.append(Piece(loop.checked(objective, batched, objective_code(parts)), launched=True))
    # The objective is of the parameters before the update.
    pieces += [*loop.added(objective, batched), Piece(_call(loop, functions[-1], 8), functions[-1].launched)]
    if parts.program.periodic:
        pieces.append(Piece([f"age = 1 if {loop.fresh} else age + 1"]))
    return pieces


def _random_families(parts: Parts) -> list[str]:
    """Variables of the step that hold random numbers."""
    groups = parts.groups(parts.step_functions)
    return [group.name for group in groups if group.family.storage is Storage.RANDOM]


def random_helpers(parts: Parts) -> list[str]:
    """What compiled functions draw: random numbers of the step, and those of layers."""
    found = _random_families(parts) if parts.has_step else []
    return [*found, *(["uniform"] if parts.module.draws and "uniform" not in found else [])]


def _draw_lines(
    function: PrivateFunction, indent: int, count: str, work: str = "", state: str = ""
) -> list[str]:
    """Fill the random numbers that a function takes."""
    pad = " " * indent
    return [
        f"{pad}_fill_{group.name}({work}{group.name}, {state}seed, {count})"
        for group in function.groups
        if group.family.storage is Storage.RANDOM
    ]


def _refresh(loop: LoopText) -> str:
    """The public function that computes what is periodic on a batch of its own."""
    parts, program = loop.parts, loop.parts.program
    if not program.refreshable:
        return ""
    functions = [parts.functions[name, True] for name in program.step_batched]
    chosen: list[PrivateFunction] = []
    needed: set[str] = set()
    for function in reversed(functions[:-1]):
        written = set(function.function.writes)
        if function.function.name in program.periodic or needed & written:
            chosen.insert(0, function)
            needed |= set(function.function.reads)
    inputs, targets = data_text(parts, True)
    doc = docstring(
        [
            "Curvature of a batch of its own, which the next ``period`` steps use.",
            f"Args:\n    {params_text(parts)}\n    state: of the optimizer.\n    inputs: {inputs}.\n"
            f"    targets: {targets}.",
            "Raises:\n    TypeError: an argument is of another type or dtype.\n"
            "    ValueError: names or shapes are not as described.\n"
            "    FloatingPointError: a quantity is not finite; the state is as before.",
        ],
        indent=4,
    )
    arguments = ["params: Parameters", "state: State", f"inputs: {parts.inputs_type}", "targets: Array"]
    given = ["inputs", "targets"]
    given += [step_seed("state.seed", "2**31 + state.steps")] if parts.module.draws else []
    lines = [
        signature("refresh", arguments, "None"),
        f"    {doc}",
        f"    {parts.taken()}",
        f"    work = _batch({', '.join(given)})",
        "    batch = work.batch",
        "    state.hold()",
        "    try:",
    ]
    for function in chosen:
        lines += _draw_lines(function, 8, "2**31 + state.steps", "work.", "state.")
        values = [_value(parts, group) for group in function.groups]
        lines += parts.call_lines(function, values, 8)
    lines += loop.ended(8)
    tail = ["    except BaseException:", "        state.restore()", "        raise", "    state.age = 0"]
    return "\n".join([*lines, *tail])


def _call(loop: LoopText, function: PrivateFunction, indent: int) -> list[str]:
    """The call from column 0, as long as it may be at its place in the module."""
    lines = loop.call(function, [group.name for group in function.groups], indent)
    return [line[indent:] for line in lines]


def _guards_objective(function: PrivateFunction) -> bool:
    guards = [s for s in flat(function.function.body) if isinstance(s, Guard)]
    return any(guard.operand.ref.family == OBJECTIVE for guard in guards)


def objective_code(parts: Parts) -> int:
    """Code of the check of the objective where the program has none."""
    return len(parts.program.guards) + 2


def changed_code(parts: Parts) -> int:
    """Code of the check of what the steps have changed."""
    return len(parts.program.guards) + 3


def memory_table(parts: Parts) -> dict[str, Any]:
    """Variables of the optimizer's state: initial value and shapes."""
    table: dict[str, Any] = {}
    for group in (group for function in parts.step_functions for group in function.groups):
        if parts.is_memory(group):
            if any(None in shape for _, shape in group.members):
                raise BackendError(f"'{group.name}' is kept from step to step and yet has a sample axis")
            table[group.name] = (group.family.initial, group.table)
    return table


def step_context(loop: LoopText) -> dict[str, Any]:
    """Names for ``optimizer.py.jinja``."""
    parts = loop.parts
    program, module = parts.program, parts.module
    loops = epochs(loop)
    hyper = list(program.hyperparameters)
    arguments = ["self", "params: Parameters"] + (["*"] if hyper else [])
    arguments += [f"{h.name}: {'int' if h.range.whole else 'float'} = {h.start!r}" for h in hyper]
    memory = memory_table(parts)
    groups = (g for function in parts.step_functions for g in function.groups if _is_kept(parts, g))
    kept = tuple(dict.fromkeys(group.name for group in groups))
    identities = tuple(name for name, (initial, _) in memory.items() if initial == "identity")
    table = parts.place_table(program.places)
    point = ["params: Parameters", "state: State", f"inputs: {parts.inputs_type}", "targets: Array"]
    other = bool(program.curvature_batch)
    other_data = ["curvature: Batch | None = None"] if other else []
    ordered = ["order: Array", "batch: int = 1"]
    ordered += ["curvature_order: Array | None = None", "curvature_batch: int = 1000"] if other else []
    families = {g.name: g.family.text for f in parts.functions.values() for g in f.groups}
    return {
        "epochs": [loops[batched].text for batched in sorted(loops, reverse=True)],
        "runs": {
            "batched" if batched else "single": lines_of(
                list(loop.arguments), f"result = {loop.name}(", ")", 8
            )
            for batched, loop in loops.items()
        },
        "identities": literal(identities) if identities else "",
        "memory": assigned("_MEMORY: dict[str, tuple[str, Shapes]] = ", memory),
        "places": assigned("_PLACES: Places = ", table) if table else "",
        "other_batch": other,
        "other_places": assigned("_OTHER_PLACES: Places = ", parts.place_table(program.other_places)),
        "step_arguments": signature("step", [*point, *other_data], "float").removeprefix("def step"),
        "epoch_arguments": signature("train_epoch", [*point, *ordered], "float").removeprefix(
            "def train_epoch"
        ),
        "state_head": signature("__init__", arguments, "None", 4),
        "state_doc": docstring(
            [
                f"State of the optimizer: {module.summary.rstrip('.')}.",
                module.method_text,
                "\n".join(
                    [
                        "Args:",
                        "    params: by name, shapes as in ``SHAPES``; they are checked, not kept.",
                        *(f"    {number.name}: {number.text.rstrip('.')}." for number in hyper),
                    ]
                ),
                "\n".join(
                    [
                        "Attributes:",
                        "    steps: steps so far.",
                        *(["    age: steps since the periodic part ran."] if program.periodic else []),
                        *(f"    memory.{name}: {families[name]}." for name in memory),
                    ]
                ),
                "Numbers may be changed from step to step, and are checked when they are set.",
                "Raises:\n    TypeError: an argument is of another type.\n"
                "    ValueError: a number or a shape is not as described.",
            ],
            indent=4,
        ),
        "ranges": ranges_text(
            hyper,
            "arrays",
            "_LARGEST",
            rounded="DTYPE(found)",
            counts=_COUNTS if program.periodic else {"steps": 0},
        ),
        "method": module.summary.rstrip("."),
        "changed": changed_code(parts),
        "attributes": [
            "memory",
            *(["before"] if kept else []),
            *("_arrays", "_copies", "_work"),
            *(["_other"] if other else []),
        ],
        "hyper": [number.name for number in hyper],
        "refresh": _refresh(loop),
        "random_helpers": random_helpers(parts),
        "counted": bool(_random_families(parts) or module.draws),
        "periodic": bool(program.periodic),
        "kept": assigned("_KEPT = ", kept) if kept else "",
        "with_batches": True in loops,
        "with_samples": False in loops,
    }
