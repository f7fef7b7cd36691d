"""The verification ladder: everything derived for a spec, checked level by level.

    1  symbolic   identities reduced to zero by the normal form; agreement with SymPy on small networks
    2  precise    derived systems at 50 digits against nested dual numbers through the forward pass
    3  generated  a generated module, in its own dtype, against torch.func in float64

Operators on curvature blocks are checked where they are asked for or the module has them: the recursion
against tangents of the back-propagation and SymPy, all kinds for batches of one and two at many digits,
and every kind of the module against torch.func and dense algebra. Summaries along a direction are checked
where they are asked for or the method is grouped Newton: identities, and equations, program and module
against nested derivatives; so is the step of that method.

It fails closed: an exception is a failed check, and what was asked for and not checked is not passed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from types import MappingProxyType
from typing import Any

from sifrc.catalogue.fisher import FISHER_OPERATORS
from sifrc.catalogue.jacobians import JACOBIAN_OPERATORS
from sifrc.catalogue.registry import BLOCK_OPERATORS, OPERATORS, existing_operators, names_of_operators
from sifrc.catalogue.summaries import SUMMARY
from sifrc.extras import optional
from sifrc.spec.types import Spec
from sifrc.verify.asked import read_digits, read_levels
from sifrc.verify.comparison import Agreement
from sifrc.verify.device import made_ready
from sifrc.verify.generated import generated_rows
from sifrc.verify.precise.rows import precise_rows
from sifrc.verify.precise.steps import step_rows
from sifrc.verify.records import Looked, looked_at, reason
from sifrc.verify.rows import Check
from sifrc.verify.symbolic.rows import SYMBOLIC, symbolic_rows
from sifrc.verify.table import Report, Row

__all__ = ["ORACLE", "operators_of", "verify"]

ORACLE = "level 3 of the verification, whose oracle is torch.func,"
"""What needs torch, in words for an error."""

_QUANTITIES: Mapping[int, tuple[str, ...]] = MappingProxyType(
    {1: SYMBOLIC, 2: tuple(OPERATORS), 3: (*OPERATORS, "linearize")}
)
"""Level -> what it checks."""
_GROUPED = "grouped_newton"


def verify(
    spec: Spec,
    *,
    levels: Sequence[int] = (1, 2, 3),
    module: Any = None,
    digits: int = 50,
    seed: int = 0,
    quantities: Sequence[str] | None = None,
    framework: Any = None,
    summaries: bool | None = None,
    progress: Callable[[Row], None] | None = None,
) -> Report:
    """Check what is derived for a spec, and a module generated for it.

    Args:
        spec: the network.
        levels: which levels of the ladder.
        module: any object with the functions of the contract; needed at level 3.
        digits: precision of level 2; ten fewer must agree.
        seed: of the random points.
        quantities: what must be checked; by default the operators the spec asks for, and without any
            all that the model has. Others are checked where possible and do not decide.
        framework: ``torch``, ``numpy`` or ``cuda``, the arrays of the module; by default what it imports.
        summaries: whether summaries along a direction must be checked; by default where they are an operator
            of the spec or the module, or the method is grouped Newton.
        progress: called with every row as it is found.

    Returns:
        A report; ``passed`` only if nothing failed and everything required was checked.

    Raises:
        VerificationError: there is no such level, or too few digits.
        MissingDependency: level 3 without torch, which is its oracle.
        SifrcError: a CUDA module without a device, where Numba's simulator does not do.

    Example:
        >>> from sifrc.spec import build_spec
        >>> spec = build_spec({"sifrc": 1, "name": "tiny", "loss": "mse", "network": {
        ...     "input": {"size": 2}, "layers": [{"name": "fc", "type": "dense", "units": 1}]}})
        >>> verify(spec, levels=(1, 2)).passed
        True
    """
    levels, digits = read_levels(levels), read_digits(digits)
    if 3 in levels and module is not None:
        optional("torch", ORACLE)
        made_ready(spec, module)
    asked = tuple(quantities if quantities is not None else names_of_operators(spec.target.operators))
    looked = _looked(spec, asked, module, summaries)
    required = asked or _default(
        spec, looked.refused, module, _with_summaries(spec, asked, module, summaries)
    )
    if summaries:
        required = tuple(dict.fromkeys((*required, SUMMARY)))
    rows: list[Row] = []

    def put(row: Row) -> None:
        rows.append(row)
        if progress is not None:
            progress(row)

    for level in levels:
        checks = _checks(level, spec, looked, module, digits, seed, framework)
        steps = _guarded(lambda: step_rows(spec, digits, seed), 2, ("step",)) if level == 2 else ()
        for quantity, oracle, check in chain(checks, steps):
            put(_run(level, quantity, oracle, check))
        absent = {**looked.refused, **looked.failed} if level < 3 or module is not None else {}
        for quantity, why in absent.items():
            if quantity in _QUANTITIES[level]:
                passed = False if quantity in required or quantity in looked.failed else None
                put(Row(quantity, level, "", None, None, passed, why))
    wanted = [(q, level) for level in levels for q in required if _belongs(q, level, levels)]
    for quantity, level in wanted:
        if not any(row.quantity == quantity and row.level == level for row in rows):
            why = "no module was given" if level == 3 and module is None else "there is no such check"
            put(Row(quantity, level, "", None, None, None, why))
    return Report(spec.name, tuple(rows), tuple(wanted))


def operators_of(spec: Spec, summaries: bool | None = None) -> tuple[str, ...]:
    """Operators of a module on which everything can be checked that a report on the spec requires.

    Args:
        spec: the network.
        summaries: see :func:`verify`.
    """
    asked = spec.target.operators
    more = (SUMMARY,) if _with_summaries(spec, asked, None, summaries) else ()
    plain = _plain(spec, _looked(spec, asked, None, summaries).refused)
    return tuple(dict.fromkeys((*(asked or plain), *more)))


def _offered(spec: Spec) -> tuple[str, ...]:
    """Operators that are looked at without being asked for."""
    asked_for = {*BLOCK_OPERATORS, *FISHER_OPERATORS, *JACOBIAN_OPERATORS, SUMMARY}
    return tuple(name for name in existing_operators(spec) if name not in asked_for)


def _plain(spec: Spec, refused: Mapping[str, str]) -> tuple[str, ...]:
    """What a model has without being asked for; one of them is two others."""
    return tuple(name for name in _offered(spec) if name not in refused and name != "objective_and_gradient")


def _looked(spec: Spec, asked: Sequence[str], module: Any, summaries: bool | None) -> Looked:
    """What is looked at; where that breaks, every operator has failed."""
    names = [*_offered(spec), *_blocks(spec, asked, module), *asked]
    names += [SUMMARY] if _with_summaries(spec, asked, module, summaries) else []
    try:
        return looked_at(spec, names, module)
    except Exception as error:
        return Looked((), {}, {}, dict.fromkeys(names, reason(error)))


def _blocks(spec: Spec, asked: Sequence[str], module: Any) -> tuple[str, ...]:
    """Operators on blocks that are asked for or that the module has.

    A spec that lists kinds and no operators, without a module, means all of them.
    """
    if spec.curvature and not asked and module is None:
        exact = any(entry.name == "hessian" for entry in spec.curvature)
        return tuple(name for name in BLOCK_OPERATORS if exact or name != "hessian_diagonal")
    return tuple(name for name in BLOCK_OPERATORS if name in asked or hasattr(module, name))


def _with_summaries(spec: Spec, asked: Sequence[str], module: Any, wanted: bool | None) -> bool:
    """Whether summaries are looked at: as the caller says, or where they are asked for or used."""
    if wanted is not None:
        return wanted
    grouped = spec.method is not None and spec.method.name == _GROUPED
    return SUMMARY in asked or grouped or hasattr(module, SUMMARY)


def _default(spec: Spec, refused: Mapping[str, str], module: Any, summaries: bool) -> tuple[str, ...]:
    """What is required of a spec that asks for nothing: what it has at many digits."""
    every = _blocks(spec, (), module) if module is None else ()
    # Some do not exist for a network; where none does, the kinds of curvature that it lists do not.
    blocks = tuple(name for name in every if name not in refused) or every
    more = (SUMMARY,) if summaries and (module is None or hasattr(module, SUMMARY)) else ()
    return (*_plain(spec, refused), *blocks, *more)


def _belongs(quantity: str, level: int, levels: Sequence[int]) -> bool:
    """Whether a level is where a quantity is checked; an unknown quantity belongs to the last level."""
    known = any(quantity in names for names in _QUANTITIES.values())
    return quantity in _QUANTITIES[level] if known else level == max(levels)


def _checks(
    level: int, spec: Spec, looked: Looked, module: Any, digits: int, seed: int, framework: Any
) -> Iterator[Check]:
    """The checks of a level."""

    def make() -> Iterable[Check]:
        if level == 1:
            return symbolic_rows(spec, looked, digits, seed)
        if level == 2:
            return precise_rows(spec, looked, digits, seed)
        return () if module is None else generated_rows(spec, looked, module, framework, seed)

    expected = [one for one in _QUANTITIES[level] if one in _offered(spec) and one not in looked.failed]
    return _guarded(make, level, expected)


def _guarded(maker: Callable[[], Iterable[Check]], level: int, quantities: Sequence[str]) -> Iterator[Check]:
    """The checks; where preparing them fails, every quantity of the level has failed."""
    try:
        yield from maker()
    except Exception as error:
        broken = reason(error)
        for quantity in quantities:
            yield quantity, "", lambda q=quantity: Row(q, level, "", None, None, False, broken)  # type: ignore[misc]


def _run(level: int, quantity: str, oracle: str, check: Callable[[], Row | None]) -> Row:
    """One check; an exception is a failure with its reason."""
    try:
        row = check()
    except Exception as error:
        return Row(quantity, level, oracle, None, None, False, reason(error))
    if row is None:
        absent = "too large or deep for an expansion to scalars"
        absent = absent if level < 3 else "the module does not have it"
        return Row(quantity, level, oracle, None, None, None, absent)
    if row.passed is False and isinstance(row.digits, Agreement):
        # The numbers, so that the reader knows what disagrees, and by how much.
        return replace(row, note="; ".join(text for text in (row.digits.difference, row.note) if text))
    return row
