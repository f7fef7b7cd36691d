"""From a plan to a program.

Order of the passes: common subexpressions across phases, batching, statements (contraction order and
inlining), structure of linear systems, fusion of kernels, rolling of loops, lifetimes of a step's arrays.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from sifrc.catalogue.phase import Phase
from sifrc.derive.curvature.systems import BLOCK, MEAN_BLOCK
from sifrc.derive.quantities import QUANTITIES
from sifrc.derive.recurrence import Recursion, recursions
from sifrc.derive.shaped import PARAMETER
from sifrc.derive.system import Equation, System
from sifrc.ir import Axis
from sifrc.ir.quantity import Storage
from sifrc.lower.access import absolute, flat, loads_of, targets_of, unrolled
from sifrc.lower.again import base_of, is_made_again, made_again
from sifrc.lower.arrays import SAMPLE_LABEL, Load, Subscript
from sifrc.lower.blocks import Block, fuse_kernels, roll_loops, shapes_lookup
from sifrc.lower.chosen_rows import of_form
from sifrc.lower.classes import indices_of
from sifrc.lower.equations import Lowering
from sifrc.lower.families import as_batched, described, family_of, with_classes
from sifrc.lower.feedback import feedback
from sifrc.lower.identities import check_codes, check_identities
from sifrc.lower.lifetimes import operator_places, other_places, places
from sifrc.lower.maxima import by_index
from sifrc.lower.of_point import with_point_apart
from sifrc.lower.program import Function, Program
from sifrc.lower.recurrence import split
from sifrc.lower.sharing import share_subexpressions
from sifrc.lower.stages import Part, stages_of, taken_apart
from sifrc.lower.statements import Fresh, Guard, Loop, SolveSystem, Statement
from sifrc.lower.structure import COORDINATES, compressed
from sifrc.lower.unread import without_unread
from sifrc.lower.uses import by_use
from sifrc.lower.validate import validate
from sifrc.lower.windows import Windows, ref_of
from sifrc.methods.plan import Plan

__all__ = ["Passes", "lower"]


_BUFFERS = [name for name, quantity in QUANTITIES.items() if quantity.storage is Storage.BUFFER]


@dataclass(frozen=True)
class Passes:
    """Which passes run; each can be switched off and changes no value.

    Args:
        share: common subexpressions across phases.
        structure: of linear systems.
        fuse: kernels over the same entries.
        roll: equal layers into loops.
        lifetimes: places for the arrays of a step.
        validate: look whether the program is well formed; what is not ends in a ``ProgramError``.
    """

    share: bool = True
    structure: bool = True
    fuse: bool = True
    roll: bool = True
    lifetimes: bool = True
    validate: bool = False

    def __str__(self) -> str:
        names = ("share", "structure", "fuse", "roll", "lifetimes")
        off = [name for name in names if not getattr(self, name)]
        return "default" if not off else "without " + ", ".join(off)


def lower(
    plan: Plan,
    passes: Passes | None = None,
    *,
    indices: bool = True,
    again: Sequence[str] = (),
    blocks: int = 1,
    accumulates: bool = False,
) -> Program:
    """Lower every phase of a plan in the forms it asks for.

    Args:
        plan: of the module.
        passes: which passes run; all by default.
        indices: whether classes are integers in memory; else they are vectors with a one.
        again: which arrays are made again where they are read: ``entrywise``, ``large``.
        blocks: of rows, in which what is large and made again is computed.
        accumulates: whether the step exists for several batches too, as one of all their samples.
    """
    passes = passes or Passes()
    phases = by_index(plan.phases) if indices else list(plan.phases)
    phases = share_subexpressions(phases) if passes.share else phases
    in_place = frozenset({*PARAMETER.families, *_BUFFERS, *(spec.family for spec in plan.memory)})
    check_identities(phases, in_place)
    codes = _codes(plan, phases)
    output = plan.model.output.state.family, plan.model.output.state.index
    results: set[str | tuple[str, int | None]] = {output, *plan.kept}
    results |= {family for operator in plan.operators for family in operator.families()}
    guards: list[tuple[str, str]] = []
    functions: list[Function] = []
    shapes: dict[str, dict[int | None, tuple[int | None, ...]]] = {}
    order: dict[str, None] = {}
    parts: dict[str, str] = {}
    of_stages, coupled = list[Part](), ""
    for form in ("batched", "single"):
        windows = Windows(plan.owners, in_place)
        lowering = Lowering(
            dict(codes), "" if form == "batched" else "'", in_place, windows.views, indices=indices
        )
        own = of_form(phases, form)
        if again:
            own, lowering.again = made_again(own, large="large" in again, blocks=blocks, results=results)
            named = dict.fromkeys(e.symbol.family for phase in own for e in phase.system.equations)
            for family in filter(is_made_again, named):
                words = family.removeprefix(base_of(family)).replace("~", "_")
                codes[family] = lowering.code[family] = f"{codes[base_of(family)]}{words}"
                lowering.parts[family] = base_of(family)
        for phase in own:
            functions.append(_function(phase, plan, form == "batched", (windows, lowering), passes, guards))
        if accumulates and form == "batched":
            of_stages, coupled = taken_apart(own, plan, in_place, functions, lowering.parts)
            more = [part for part in of_stages if part.is_new]
            lowering.code |= {n: f"{lowering.code[b]}_mean{w}" for p in more for n, b, w in p.words()}
            for part in more:
                own_plan = replace(plan, guarded=part.guarded(plan))
                functions.append(_function(part.phase, own_plan, True, (windows, lowering), passes, guards))
        for function in functions:
            order |= dict.fromkeys((*function.reads, *function.writes))
        for family, members in lowering.shapes.items():
            known = shapes.setdefault(family, {})
            for index, shape in members.items():
                if index not in known:
                    known[index] = shape if form == "batched" else as_batched(family, shape, plan)
        codes.update(lowering.code)
        parts.update(lowering.parts)
    source = plan.model.input
    given = (source, *plan.model.others, plan.model.target)
    made = (equation.symbol for phase in phases for equation in phase.system.equations)
    classes = {(s.family, s.index) for s in (*given, *made) if indices and s.role.of_classes}
    if source.family in shapes:
        # Also where nothing reads it: it is given, and has the size of the batch.
        held = indices_of(source) if (source.family, source.index) in classes else source
        sizes = tuple(axis.size for axis in held.axes)
        shapes[source.family].setdefault(source.index, (None, *sizes))
    check_codes({name: codes[name] for name in order})
    families = tuple(family_of(name, codes[name], shapes[name], plan, parts.get(name, "")) for name in order)
    families = tuple(with_classes(family, classes) for family in families)
    batched = {f.name: f for f in functions if f.batched}
    program = Program(
        families=families,
        functions=tuple(functions),
        operators=plan.operators,
        step_batched=plan.step if plan.step and "batched" in plan.phase(plan.step[-1]).forms else (),
        step_single=plan.step if plan.step and "single" in plan.phase(plan.step[-1]).forms else (),
        guards=tuple(guards),
        hyperparameters=plan.hyperparameters,
        periodic=plan.periodic,
        refreshable=plan.refreshable,
        separable=plan.separable,
        curvature_batch=plan.curvature_batch,
        kept=plan.kept,
        groups=plan.groups,
        owners=plan.owners,
        stages=stages_of(of_stages, batched, plan.kept),
        coupled=coupled,
        parts_of_steps={part.phase.name: part.of for part in of_stages if part.is_new},
    )
    program = with_point_apart(without_unread(program, output))
    if passes.validate:
        validate(program)
    if passes.lifetimes:
        program = replace(
            program,
            places=places(program),
            other_places=other_places(program),
            operator_places=operator_places(program),
        )
        if passes.validate:
            validate(program)
    return program


def _codes(plan: Plan, phases: Sequence[Phase]) -> dict[str, str]:
    """Identifiers of all families that equations name."""
    codes = {name: quantity.code for name, quantity in QUANTITIES.items()}
    for hyper in plan.hyperparameters:
        codes[hyper.name] = hyper.name
    for number in range(1, 100):
        codes.setdefault(f"s{number}", f"shared{number}")
    for phase in phases:
        for equation in phase.system.equations:
            codes.setdefault(equation.symbol.family, _identifier(equation.symbol.family))
    return codes


def _identifier(family: str) -> str:
    """An identifier for a family without an entry in the table."""
    return "".join(
        c if c.isascii() and (c.isalnum() or c == "_") else "_" for c in family.replace("+", "_new")
    )


def _function(
    phase: Phase,
    plan: Plan,
    batched: bool,
    stages: tuple[Windows, Lowering],
    passes: Passes,
    guards: list[tuple[str, str]],
) -> Function:
    windows, lowering = stages
    form = "batched" if batched else "single"
    system = phase.system
    if passes.structure:
        made = [compressed(equation) for equation in system.equations]
        system = replace(system, equations=tuple(part for parts in made for part in parts))
        for *coordinates, last in made:
            for name, equation in zip(COORDINATES[: len(coordinates)], coordinates, strict=True):
                code = f"{lowering.code[last.symbol.family]}_{name}"
                lowering.code.setdefault(equation.symbol.family, code)
    shape_of = shapes_lookup(lowering.shapes)
    lowering.enter(phase.name, tuple(name for name in phase.after if form in plan.phase(name).forms))
    blocks: list[Block] = []
    shapes = frozenset(symbol.axes for owned in plan.model.parameters for symbol in owned.symbols)
    by_layer = list(_by_layer(system, shapes))
    ends = {
        equation.symbol: position
        for position, (_, own) in enumerate(by_layer)
        for each in own
        for equation in (each.equations if isinstance(each, Recursion) else (each,))
    }
    for position, (layer, equations) in enumerate(by_layer):
        statements = [s for each in equations for s in _statements(each, (windows, lowering), passes)]
        families = dict(plan.guarded).get(phase.name)
        if families is not None:
            open_ = {
                ref_of(e.symbol) for e in equations if isinstance(e, Equation) and ends[e.symbol] > position
            }
            chosen = [s for s in statements if targets_of(s)[0].ref not in open_]
            chosen = [s for s in chosen if not families or targets_of(s)[0].ref.family in families]
            statements += _guards(chosen, families, layer, plan, (windows, guards, lowering.parts))
        statements = [_named_solve(s, layer, plan, guards, lowering.parts) for s in statements]
        fused = fuse_kernels(statements, shape_of) if passes.fuse else tuple(statements)
        blocks.append(Block(layer, fused))
    if lowering.constants:
        blocks.insert(0, Block(None, tuple(lowering.constants)))
    body = roll_loops(blocks) if passes.roll else tuple(s for block in blocks for s in block.statements)
    reads, writes = _touched(body)
    first = _read_first(body)
    return Function(
        name=phase.name,
        title=phase.system.title,
        equations=phase.lines,
        batched=batched,
        reads=tuple(name for name in reads if name not in writes) + tuple(n for n in writes if n in first),
        writes=writes,
        body=body,
    )


def _statements(
    each: Equation | Recursion, stages: tuple[Windows, Lowering], passes: Passes, least: int = 0
) -> list[Statement]:
    """What gives the symbol of an equation its value, or the symbols of a recursion."""
    windows, lowering = stages
    if isinstance(each, Equation):
        found: list[Statement] = []
        for part in windows.parts(each, least):
            found += [part] if isinstance(part, Fresh) else lowering.lower(part)
        return found
    whole = feedback(each)
    parts = split(whole.recursion, lowering.intermediate)
    groups = windows.held(parts.given, parts.stored.values())
    if groups:
        parts.with_groups(groups)
    given = [s for equation in parts.given for s in _statements(equation, stages, passes, groups)]
    loop = lowering.steps(parts, whole.defined)
    if passes.fuse:
        loop = replace(loop, body=fuse_kernels(loop.body, shapes_lookup(lowering.shapes)))
    after = [s for equation in whole.after for s in _statements(equation, stages, passes, groups)]
    return [*given, loop, *after]


def _by_layer(
    system: System, shapes: frozenset[tuple[Axis, ...]]
) -> Iterator[tuple[int | None, list[Equation] | list[Recursion]]]:
    """Neighbouring equations of one layer together, what further uses add apart; recursions alone."""
    for _, group in groupby(recursions(system.equations), key=lambda each: (type(each), _layer(each))):
        together = list(group)
        for recursion in (each for each in together if isinstance(each, Recursion)):
            yield None, [recursion]
        equations = [each for each in together if isinstance(each, Equation)]
        if equations:
            yield from by_use(equations[0].layer, equations, shapes)


def _layer(each: Equation | Recursion) -> int | None:
    return each.layer if isinstance(each, Equation) else each.equations[0].layer


def _guards(
    statements: Sequence[Statement],
    families: tuple[str, ...],
    layer: int | None,
    plan: Plan,
    tables: tuple[Windows, list[tuple[str, str]], Mapping[str, str]],
) -> list[Statement]:
    """One guard for each number, vector or named array that the equations of a layer write.

    Matrices that are only intermediate are left out: what is made of them is guarded. An array over all
    groups has a code for each of them.
    """
    windows, table, parts = tables
    guards: list[Statement] = []
    seen: set[object] = set()
    for statement in statements:
        for target in targets_of(statement):
            family = target.ref.family
            part, base = family in parts, parts.get(family, family)
            size = sum(label != SAMPLE_LABEL for label in target.labels)
            named = not families or target.ref.family in families
            if named and target.ref not in seen and not (part and (size > 1 or layer is None)):
                quantity = described(base)
                if layer is None and (base, None) in windows.stored:
                    names = {s: f"group {name}" for s, (name, _) in enumerate(plan.groups)}
                    code = _guard_code(quantity, 0, names, table)
                    guards.append(Guard(Load(target.ref, target.labels), Subscript(code), rows=True))
                else:
                    code = _guard_code(quantity, layer, _owners(plan, base), table)
                    guards.append(Guard(target, Subscript(code)))
            seen.add(target.ref)
    return guards


def _owners(plan: Plan, family: str) -> dict[int, str]:
    """Names by subscript: of states for blocks, of layers with parameters for everything else."""
    if family in (BLOCK, MEAN_BLOCK):
        return {c.index: c.name for c in plan.model.constraints}
    return {p.index: p.layer for p in plan.model.parameters}


def _guard_code(
    quantity: str, layer: int | None, names: Mapping[int, str], table: list[tuple[str, str]]
) -> int:
    """Position, from 1, of (layer, quantity) in the table.

    The table has one row of codes for each quantity, by layer, so that a loop over k finds its code by
    adding k.
    """
    last = max(names)
    if (names[last], quantity) not in table:
        table.extend((names.get(k, "network"), quantity) for k in range(last + 1))
    return table.index((names.get(0, "network"), quantity)) + 1 + (layer or 0)


def _named_solve(
    statement: Statement,
    layer: int | None,
    plan: Plan,
    table: list[tuple[str, str]],
    parts: Mapping[str, str],
) -> Statement:
    """A linear system that says, where it has no solution, which quantity of which layer it was for."""
    if not isinstance(statement, SolveSystem) or not statement.checked:
        return statement
    family = statement.target.ref.family
    base = parts.get(family, family)
    quantity = f"{described(base)} (linear system)"
    return replace(statement, guard=_guard_code(quantity, layer, _owners(plan, base), table))


def _touched(body: Sequence[Statement | Loop]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    reads: dict[str, None] = {}
    writes: dict[str, None] = {}
    for statement in flat(body):
        reads |= dict.fromkeys(load.ref.family for load in loads_of(statement))
        writes |= dict.fromkeys(load.ref.family for load in targets_of(statement))
    return tuple(reads), tuple(writes)


def _read_first(body: Sequence[Statement | Loop]) -> set[str]:
    """Written families of which some member is read that this function does not write before."""
    written: set[object] = set()
    first: set[str] = set()
    for statement, k in unrolled(body):
        first |= {load.ref.family for load in loads_of(statement) if absolute(load.ref, k) not in written}
        written |= {absolute(target.ref, k) for target in targets_of(statement)}
    return first
