"""Validator: whether a program is one that backends may print."""

from __future__ import annotations

import keyword
from collections.abc import Iterator, Mapping
from types import MappingProxyType

from sifrc.ir.quantity import Storage
from sifrc.lower.access import absolute, loads_of, targets_of, unrolled
from sifrc.lower.arrays import Family
from sifrc.lower.chains import Chain, chains
from sifrc.lower.program import Function, Place, Program
from sifrc.lower.rules import check_statement
from sifrc.lower.statements import ConjugateGradients, Fresh, Loop, Statement, Steps
from sifrc.lower.where import Position, ProgramError

__all__ = ["ProgramError", "validate"]

Key = tuple[str, int | None]
_GIVEN = frozenset(
    {
        Storage.PARAMETER,
        Storage.BUFFER,
        Storage.DATA,
        Storage.MEMORY,
        Storage.CONSTANT,
        Storage.RANDOM,
        Storage.IDENTITY,
        Storage.TABLE,
        Storage.HYPERPARAMETER,
    }
)
"""What is there before anything runs; a direction is where a caller gives it."""
_KEPT_IN_PLACE = frozenset({Storage.PARAMETER, Storage.MEMORY})
_INPUT: Key = ("x", 0)
_WITHOUT_SAMPLES = frozenset(
    {
        Storage.PARAMETER,
        Storage.BUFFER,
        Storage.DIRECTION,
        Storage.RESULT,
        Storage.MEMORY,
        Storage.CONSTANT,
        Storage.IDENTITY,
        Storage.TABLE,
    }
)


def validate(program: Program) -> None:
    """Check names, shapes, ranks, storage, and that nothing is read before it is written.

    Args:
        program: after any of the passes of :func:`sifrc.lower.lowering.lower`.

    Raises:
        ProgramError: a fault of the compiler, with the function and the statement.
    """
    families = _families(program)
    seen: set[tuple[str, bool]] = set()
    for function in program.functions:
        _require((function.name, function.batched) not in seen, f"two functions {function.name}")
        seen.add((function.name, function.batched))
        _function(program, families, function)
    for chain in chains(program):
        _chain(program, families, chain)
    cases = (places for found in program.operator_places.values() for places in found)
    for places in (program.places, program.other_places, *cases):
        _places(families, places)
    for (family, index), position in program.owners.items():
        held = 0 <= position < max(1, len(program.groups))
        _require(held, f"{family}[{index}] belongs to group {position} of {len(program.groups)}")


def _require(holds: bool, text: str) -> None:
    if not holds:
        raise ProgramError(text)


def _families(program: Program) -> Mapping[str, Family]:
    """Families by name, each well formed."""
    found: dict[str, Family] = {}
    codes: dict[str, str] = {}
    for family in program.families:
        name = family.name
        _require(name not in found, f"two families {name}")
        _require(family.code not in codes, f"{name} and {codes.get(family.code)} are both '{family.code}'")
        identifier = family.code.isidentifier() and family.code.isascii()
        _require(identifier and not keyword.iskeyword(family.code), f"'{family.code}' of {name} is no name")
        found[name], codes[family.code] = family, name
        _shapes(family)
    return MappingProxyType(found)


def _shapes(family: Family) -> None:
    name, storage = family.name, family.storage
    indices = [index for index, _ in family.shapes]
    _require(bool(indices), f"{name} has no member")
    plain = indices == [None]
    numbers = [index for index in indices if index is not None]
    _require(plain or numbers == sorted(set(numbers)) == indices, f"subscripts of {name} are {indices}")
    for index, shape in family.shapes:
        _require(shape.count(None) <= 1, f"{name}[{index}] has two axes of samples")
        _require(all(size is None or size > 0 for size in shape), f"{name}[{index}] has the shape {shape}")
        samples = None in shape
        _require(not (samples and storage in _WITHOUT_SAMPLES), f"{storage.value} {name} has samples")
        if storage is Storage.HYPERPARAMETER:
            _require(not shape, f"hyperparameter {name} is no number")
        if storage is Storage.IDENTITY:
            _require(len(shape) == 2 and shape[0] == shape[1], f"identity {name} is not square")
    if storage is Storage.CONSTANT:
        _require(len(family.values) == len(indices), f"{name} has {len(family.values)} values")
    _require(family.initial in ("zeros", "identity"), f"{name} begins as '{family.initial}'")


def _function(program: Program, families: Mapping[str, Family], function: Function) -> None:
    """Its statements, and what it says that it reads and writes."""
    written: set[Key] = set()
    reads: dict[str, None] = {}
    writes: dict[str, None] = {}
    for item in function.body:
        if isinstance(item, Loop):
            _require(len(range(item.start, item.stop, item.step)) > 0, f"{function.name}: an empty loop")
    for statement, k in unrolled(function.body):
        check_statement(Position(program, families, function, k, statement))
        for load in loads_of(statement):
            key = absolute(load.ref, k)
            if key not in written:
                reads[key[0]] = None
        for target in targets_of(statement):
            key = absolute(target.ref, k)
            written.add(key)
            writes[key[0]] = None
    _require(set(function.writes) == set(writes), f"{function.name} writes {sorted(writes)}")
    _require(set(reads) <= set(function.reads), f"{function.name} reads {sorted(reads)}")
    _in_place(program, families, function)


def _in_place(program: Program, families: Mapping[str, Family], function: Function) -> None:
    """Parameters and memory are written by the last functions of a step alone."""
    kept = [name for name in function.writes if families[name].storage in _KEPT_IN_PLACE]
    if kept:
        step = program.of_steps if function.batched else program.step_single
        _require(function.name in step, f"{function.name} writes {', '.join(kept)} outside of a step")


def _chain(program: Program, families: Mapping[str, Family], chain: Chain) -> None:
    """Every function exists, every value is there when it is read, and results are computed."""
    known = {(f.name, f.batched): f for f in program.functions}
    there: set[Key] = {_INPUT}
    for family in families.values():
        if family.storage in _GIVEN or family.name in chain.given:
            there |= {(family.name, index) for index, _ in family.shapes}
    for key in chain.functions:
        _require(key in known, f"{chain.name} runs {key[0]}, which is no function")
        for statement, k in unrolled(known[key].body):
            for name, index in _needed(statement, k):
                text = f"{name}[{index}]" if index is not None else name
                _require(
                    (name, index) in there, f"{chain.name}, {key[0]}: {text} is read before it is written"
                )
            there |= {absolute(target.ref, k) for target in targets_of(statement)}
    names = {name for name, _ in there}
    for result in chain.results:
        _require(result in names, f"{chain.name} returns {result}, which nothing computes")


def _needed(statement: Statement, k: int | None) -> Iterator[Key]:
    """What must be there; a new array is only like another one."""
    if isinstance(statement, Fresh):
        return
    targets = targets_of(statement)
    # An assignment of a kernel sees what one before it wrote at the same entry.
    before = targets if isinstance(statement, ConjugateGradients | Steps) else targets[:-1]
    own = {absolute(target.ref, k) for target in before}
    yield from (key for load in loads_of(statement) if (key := absolute(load.ref, k)) not in own)


def _places(families: Mapping[str, Family], places: tuple[Place, ...]) -> None:
    """Arrays of one place are of one shape, and an array has one place."""
    seen: set[Key] = set()
    for place in places:
        shapes = set()
        for name, index in place.members:
            _require(
                name in families and index in dict(families[name].shapes), f"no place for {name}[{index}]"
            )
            _require((name, index) not in seen, f"two places for {name}[{index}]")
            seen.add((name, index))
            shapes.add(dict(families[name].shapes)[index])
        _require(len(shapes) == 1, f"shapes {sorted(map(str, shapes))} in one place")
        _require(place.first <= place.last, "a place that ends before it begins")
