"""Private functions of a generated module: one for each function of the program."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from sifrc.backends.layout import returned, signature, statement
from sifrc.backends.text import LINE_LENGTH, docstring
from sifrc.backends.torch_eager.access import LIKE, Member, Names, function_members
from sifrc.backends.torch_eager.consumed import carried_on, consumed, prepared_functions
from sifrc.backends.torch_eager.expressions import BATCH
from sifrc.backends.torch_eager.handed_on import handed_on
from sifrc.backends.torch_eager.local_arrays import local_families, single_use, stepped_families
from sifrc.backends.torch_eager.releases import parts_of_body, releases
from sifrc.backends.torch_eager.sinking import sunk
from sifrc.backends.torch_eager.statements import Writer
from sifrc.backends.torch_eager.weighted import weighted_refs
from sifrc.errors import BackendError
from sifrc.ir.quantity import Storage
from sifrc.lower.access import absolute, flat
from sifrc.lower.arrays import Family, Ref
from sifrc.lower.program import Function, Program
from sifrc.lower.statements import Guard, Loop, SolveSystem, Statement

__all__ = ["PrivateFunction", "annotation_of", "plan_functions"]

_IN_PLACE = frozenset({Storage.PARAMETER, Storage.BUFFER, Storage.MEMORY})
_NO_DTYPE = frozenset({Storage.CONSTANT, Storage.HYPERPARAMETER, Storage.IDENTITY, Storage.TABLE})
_MADE = frozenset({Storage.IDENTITY, Storage.TABLE})
"""What a function makes or takes from the module, where it reads such."""


@dataclass(frozen=True)
class PrivateFunction:
    """A printed function and how to call it.

    Args:
        name: with its underscore.
        text: source.
        arguments: families, in order.
        results: families it returns.
        inputs_only: it takes the tensor x[0] in place of the family of states.
        mutates: it writes parameters or memory in place.
        guarded: it takes a list ``checks`` last, to which it adds what must hold.
    """

    name: str
    text: str
    arguments: tuple[str, ...]
    results: tuple[str, ...]
    inputs_only: bool
    guarded: bool
    mutates: bool


def plan_functions(
    program: Program,
    chains: Iterable[Sequence[tuple[str, bool]]],
    wanted: frozenset[str],
    states: str,
    *,
    output: Member,
    single: bool,
    differentiated: frozenset[str],
) -> dict[tuple[str, bool], PrivateFunction]:
    """The functions that some chain of calls uses, in the program's order.

    Args:
        program: with all functions.
        chains: sequences of (function, batched) that run one after the other.
        wanted: families that callers return or keep.
        states: family whose member 0 is the network input.
        output: the state that callers return as a prediction.
        single: whether the module computes in single precision or less.
        differentiated: names of the functions that Torch may differentiate.
    """
    chains = [tuple(chain) for chain in chains]
    used = {key for chain in chains for key in chain}
    functions = {(f.name, f.batched): f for f in program.functions if (f.name, f.batched) in used}
    missing = used - set(functions)
    if missing:
        raise BackendError(f"the program has no function '{min(missing)[0]}'")
    members = {key: function_members(function) for key, function in functions.items()}
    # The output of a network is returned, and its input is not the function's own.
    later: dict[tuple[str, bool], set[Member]] = {key: {output, (states, 0)} for key in functions}
    for chain in chains:
        needed: set[Member] = set()
        for key in reversed(chain):
            later[key] |= needed
            needed |= set(members[key][0])
    prepared = prepared_functions(program)
    carried = carried_on(chains, members, {key: wanted.union(f for f, _ in later[key]) for key in functions})
    both = {f.name for f in functions.values() if f.batched} & {
        f.name for f in functions.values() if not f.batched
    }
    # What a function reads before it writes it comes from another one, or from an earlier call.
    passed = {family for function in program.functions for family, _ in function_members(function)[0]}
    return {
        key: _function(
            program,
            function,
            members[key],
            carried[key],
            wanted,
            (frozenset(later[key]), consumed(program, key, chains, members, prepared) - {(states, 0)}),
            passed,
            states,
            twin=function.name in both,
            kinds=(single, function.name not in differentiated),
        )
        for key, function in functions.items()
    }


def _function(
    program: Program,
    function: Function,
    members: tuple[tuple[Member, ...], tuple[Member, ...]],
    carried: set[str],
    wanted: frozenset[str],
    after: tuple[frozenset[Member], frozenset[Member]],
    passed: set[str],
    states: str,
    *,
    twin: bool,
    kinds: tuple[bool, bool],
) -> PrivateFunction:
    (needed, written), (later, consumable) = members, after
    reads = dict.fromkeys(family for family, _ in needed)
    writes = dict.fromkeys(family for family, _ in written)
    storage = {name: program.family(name).storage for name in (*reads, *writes)}
    updated = [name for name in writes if storage[name] in _IN_PLACE]
    read_later = wanted.union(family for family, _ in later)
    results = [name for name in writes if name in read_later and storage[name] not in _IN_PLACE]
    # Constants take their dtype, device and batch size from an operand.
    typed = _gives_dtype(program, states, 0)
    if not _has_batch(program, needed, writes) or (typed and not _has_dtype(program, needed)):
        needed = (*needed, (states, 0))
    if not _has_dtype(program, needed):
        needed = (*needed, _parameter_of(program))
    for name, _ in needed:
        reads[name], storage[name] = None, program.family(name).storage
    arguments = list(dict.fromkeys([*reads, *updated, *(name for name in writes if name in carried)]))
    made = [name for name in reads if storage[name] in _MADE]
    arguments = [name for name in arguments if storage[name] not in _MADE | {Storage.CONSTANT}]
    arguments.sort(key=lambda name: _RANK[storage[name]])
    inputs_only = (
        states in arguments and {i for f, i in needed if f == states} == {0} and states not in carried
    )
    stepped = frozenset(stepped_families(function))
    inlined = single_use(function, passed.union(results))
    in_place = kinds[1]
    weighted = weighted_refs(function, passed.union(results)) if in_place else frozenset[Ref]()
    later_printed = inlined | weighted
    temporary = {n for n in writes if storage[n] is Storage.WORK} - {*results, *arguments, states}
    function = sunk(function, temporary, later_printed) if in_place else function
    # Of the statements in their last order: a local variable has one array at a time.
    plain = frozenset(local_families(function, {*results, *arguments}))
    names = Names(program, function.batched, plain, stepped, *kinds)
    made_here = {name for name in writes if storage[name] is Storage.WORK} - stepped
    own = made_here - plain - {ref.family for ref in later_printed}
    writer = Writer(
        names, inlined, frozenset(results), handed_on(function, temporary, later_printed), weighted
    )
    # Of a family that others read, what none of them does is let go of too, and so are local variables.
    others = {name for name in arguments if not (inputs_only and name == states)}
    shared = made_here.intersection({*results, *plain}).difference(others, wanted)
    shared -= {ref.family for ref in later_printed if ref.subscript is not None and ref.subscript.relative}
    kept = later.union(absolute(ref, None) for ref in later_printed)
    given = {family for family, _ in consumable} - {*wanted, *writes}
    kept |= {member for member in needed if member[0] in given and member not in consumable}
    freed = releases(program, function, own - {*results, *arguments, states}, shared | given, kept)
    body = _body(function, writer, freed)
    head = _head(program, writes, results, plain | stepped, arguments, states if inputs_only else "", storage)
    codes = [program.family(name).code for name in results]
    guarded = any(_records(item) for item in flat(function.body))
    eyes = [line for name in made for line in _identities(program.family(name))]
    for word, find in ((BATCH, _batch), (LIKE, _like)):
        if any(word in line and re.search(rf"\b{word}\b", line) for line in [*eyes, *body]):
            head.append(f"    {word} = {find(names, needed)}")
    head += eyes
    name = f"_{function.name}" + ("_one" if twin and not function.batched else "")
    parameters = [
        "inputs: Tensor" if inputs_only and argument == states else _parameter(program, argument)
        for argument in arguments
    ]
    parameters += ["checks: Checks"] if guarded else []
    annotation = [annotation_of(program, result) for result in results]
    returns = (
        annotation[0] if len(annotation) == 1 else f"tuple[{', '.join(annotation)}]" if annotation else "None"
    )
    doc = docstring([_sentence(function.title), *_equations(function)], indent=4)
    lines = [signature(name, parameters, returns), f"    {doc}", *head, *body]
    if len(codes) == 1 and lines[-1].startswith(f"    {codes[0]} = "):
        lines += statement("return " + lines.pop().partition(" = ")[2], 4)
    elif codes:
        lines += statement(f"return {codes[0]}", 4) if len(codes) == 1 else returned(codes, 4)
    return PrivateFunction(
        name, "\n".join(lines), tuple(arguments), tuple(results), inputs_only, guarded, bool(updated)
    )


_RANK: Mapping[Storage, int] = MappingProxyType(
    {
        Storage.PARAMETER: 0,
        Storage.BUFFER: 1,
        Storage.WORK: 2,
        Storage.DATA: 3,
        Storage.RANDOM: 3,
        Storage.DIRECTION: 4,
        Storage.RESULT: 5,
        Storage.MEMORY: 6,
        Storage.HYPERPARAMETER: 7,
        Storage.CONSTANT: 8,
    }
)
"""Order of the arguments of a private function."""


def _has_dtype(program: Program, members: Iterable[Member]) -> bool:
    return any(_gives_dtype(program, *member) for member in members)


def _gives_dtype(program: Program, name: str, index: int | None) -> bool:
    """Whether an array is a tensor of the numbers of the module: no Python number, and no classes."""
    family = program.family(name)
    return family.storage not in _NO_DTYPE and index not in family.classes


def _parameter_of(program: Program) -> Member:
    """Some parameter."""
    family = next(family for family in program.families if family.storage is Storage.PARAMETER)
    return family.name, family.shapes[0][0]


def _has_batch(program: Program, needed: Iterable[Member], writes: Iterable[str]) -> bool:
    """Whether an operand has a sample axis, if a result has one."""

    def batched(family: str, index: int | None) -> bool:
        return None in dict(program.family(family).shapes).get(index, (0,))

    results = any(None in shape for name in writes for _, shape in program.family(name).shapes)
    return not results or any(batched(*member) for member in needed)


def _sentence(text: str) -> str:
    return text if text.endswith(".") else text + "."


def _equations(function: Function) -> list[str]:
    return ["\n".join(["    " + line for line in function.equations] + [""])] if function.equations else []


def annotation_of(program: Program, name: str) -> str:
    """Type of what a function takes or returns of a family."""
    family = program.family(name)
    if family.storage is Storage.HYPERPARAMETER:
        return "Mapping[int, float]" if family.indexed else "float"
    return "Tensors" if family.indexed else "Tensor"


def _parameter(program: Program, name: str) -> str:
    return f"{program.family(name).code}: {annotation_of(program, name)}"


def _records(item: Statement) -> bool:
    return isinstance(item, Guard | SolveSystem)


def _head(
    program: Program,
    writes: Iterable[str],
    results: Sequence[str],
    plain: frozenset[str],
    arguments: Sequence[str],
    states: str,
    storage: Mapping[str, Storage],
) -> list[str]:
    """The dicts that the function fills; given ones are copied, so that callers keep theirs."""
    lines = []
    for name in writes:
        family = program.family(name)
        if not family.indexed or name in plain or storage[name] in _IN_PLACE:
            continue
        if name == states:
            lines.append(f"    {family.code}: Tensors = {{0: inputs}}")
        elif name in arguments:
            lines.append(f"    {family.code} = dict({family.code})")
        else:
            lines.append(f"    {family.code}: Tensors = {{}}")
    if states and states not in writes:
        lines.append(f"    {program.family(states).code}: Tensors = {{0: inputs}}")
    return lines


def _body(function: Function, writer: Writer, freed: Sequence[Mapping[int, Sequence[Ref]]]) -> list[str]:
    lines: list[str] = []
    for part, done in zip(parts_of_body(function), freed, strict=True):
        indent = 4
        if isinstance(part, Loop):
            step = "" if part.step == 1 else f", {part.step}"
            lines.append(f"    for k in range({part.start}, {part.stop}{step}):")
            indent = 8
        block = part.body if isinstance(part, Loop) else part
        scratch: dict[str, None] = {}
        for text in writer.block(block, done):
            if text.startswith("del ") and scratch:
                text, scratch = f"{text}, {', '.join(scratch)}", {}
            laid_out = _laid_out(text, indent)
            scratch |= {found[1]: None for line in laid_out if (found := _SCRATCH.match(line))}
            lines += laid_out
    return lines


_SCRATCH = re.compile(r" *(term\d+) = ")
"""A part of a statement that was too long for one line."""


def _laid_out(text: str, indent: int) -> list[str]:
    """Lines of a statement that may be the head of a loop, or be within one."""
    inner = text.lstrip()
    indent += len(text) - len(inner)
    if inner.startswith("del "):
        names = inner.removeprefix("del ").replace(" ", "\0").replace(",\0", ", ")
        lines = textwrap.wrap(names, LINE_LENGTH - indent - 4)
        return [f"{' ' * indent}del {line.rstrip(',')}".replace("\0", " ") for line in lines]
    return [" " * indent + inner] if inner.startswith(("while ", "for ")) else statement(inner, indent)


def _identities(family: Family) -> list[str]:
    """Identity matrices, or fixed tables, that the function reads."""
    if family.storage is Storage.TABLE:
        return [f"    {family.code} = _tables({LIKE}.dtype, {LIKE}.device)"]
    text = f"torch.eye({{}}, dtype={LIKE}.dtype, device={LIKE}.device)"
    if not family.indexed:
        return [f"    {family.code} = {text.format(family.shapes[0][1][-1])}"]
    members = ", ".join(f"{k}: {text.format(shape[-1])}" for k, shape in family.shapes)
    return statement(f"{family.code} = {{{members}}}", 4)


def _like(names: Names, needed: Sequence[Member]) -> str:
    for family, index in needed:
        found = names.program.family(family)
        if _gives_dtype(names.program, family, index):
            return found.code if index is None else f"{found.code}[{index}]"
    raise BackendError("a function without operands has no dtype")


def _batch(names: Names, needed: Sequence[Member]) -> str:
    for family, index in needed:
        found = names.program.family(family)
        shape = dict(found.shapes).get(index, (0,))
        if None in shape:
            array, position = found.code if index is None else f"{found.code}[{index}]", shape.index(None)
            return f"{array}.shape[{position}]" if position else f"len({array})"
    return "1"
