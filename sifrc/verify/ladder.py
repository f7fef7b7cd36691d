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
from types import MappingProxyType
from typing import Any

from sifrc.errors import SifrcError
from sifrc.extras import optional
from sifrc.spec.types import Spec
from sifrc.verify.comparison import Agreement
from sifrc.verify.curvature_kinds import CURVATURE_QUANTITIES, curvature_obstacle, looked_at
from sifrc.verify.precise.curvature import curvature_precise_rows
from sifrc.verify.precise.rows import precise_rows
from sifrc.verify.precise.steps import step_rows
from sifrc.verify.precise.summaries import summary_precise_rows
from sifrc.verify.summary_parts import SUMMARY, SUMMARY_QUANTITIES
from sifrc.verify.summary_parts import looked_at as summaries_looked_at
from sifrc.verify.symbolic.rows import (
    curvature_symbolic_rows,
    newton_obstacle,
    summary_symbolic_rows,
    symbolic_rows,
)
from sifrc.verify.table import Report, Row

__all__ = ["ORACLE", "operators_of", "verify"]

ORACLE = "level 3 of the verification, whose oracle is torch.func,"
"""What needs torch, in words for an error."""

_QUANTITIES: Mapping[int, tuple[str, ...]] = MappingProxyType(
    {
        1: ("gradient", "hessian_vector_product", "gauss_newton_vector_product", "newton_direction"),
        2: (
            "loss",
            "objective",
            "gradient",
            "hessian_vector_product",
            "gauss_newton_vector_product",
            "newton_direction",
        ),
        3: (
            "loss",
            "objective",
            "gradient",
            "objective_and_gradient",
            "hessian_vector_product",
            "linearize",
            "gauss_newton_vector_product",
            "newton_direction",
        ),
    }
)
_LONGEST_NOTE = 300

Check = tuple[str, str, Callable[[], Row | None]]


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
        framework: ``torch`` or ``numpy``, the arrays of the module; by default what it imports.
        summaries: whether summaries along a direction must be checked; by default where they are an operator
            of the spec or the module, or the method is grouped Newton.
        progress: called with every row as it is found.

    Returns:
        A report; ``passed`` only if nothing failed and everything required was checked.

    Raises:
        MissingDependency: level 3 without torch, which is its oracle.

    Example:
        >>> from sifrc.spec import build_spec
        >>> spec = build_spec({"sifrc": 1, "name": "tiny", "loss": "mse", "network": {
        ...     "input": {"size": 2}, "layers": [{"name": "fc", "type": "dense", "units": 1}]}})
        >>> verify(spec, levels=(1, 2)).passed
        True
    """
    unknown = [level for level in levels if level not in _QUANTITIES]
    if unknown or not levels or digits < 20:
        raise ValueError(
            f"levels must be among 1, 2, 3 and digits at least 20, got {list(levels)} and {digits}"
        )
    if 3 in levels and module is not None:
        optional("torch", ORACLE)
    obstacle = _obstacle(spec)
    asked = tuple(quantities if quantities is not None else spec.target.operators)
    default = _default(obstacle)
    blocks = looked_at(spec, asked, module)
    with_summaries = summaries_looked_at(spec, asked, module, summaries)
    required = asked or (*default, *(blocks if module is None else ()))
    if summaries or (not asked and with_summaries and (module is None or hasattr(module, SUMMARY))):
        required = tuple(dict.fromkeys((*required, SUMMARY)))
    blocks_obstacle = _blocks_obstacle(spec) if blocks else None
    rows: list[Row] = []

    def put(row: Row) -> None:
        rows.append(row)
        if progress is not None:
            progress(row)

    for level in sorted(set(levels)):
        for quantity, oracle, check in _checks(level, spec, module, digits, seed, framework):
            if quantity == "newton_direction" and obstacle is not None:
                refused = quantity in required
                put(Row(quantity, level, oracle, None, None, False if refused else None, obstacle))
            else:
                put(_run(level, quantity, oracle, check))
        if level == 2:
            for quantity, oracle, check in _guarded(lambda: step_rows(spec, digits, seed), 2, ("step",)):
                put(_run(level, quantity, oracle, check))
        for quantity, oracle, check in (
            _summary_checks(level, spec, module, digits, seed, framework) if with_summaries else ()
        ):
            put(_run(level, quantity, oracle, check))
        if blocks_obstacle is None:
            for quantity, oracle, check in _block_checks(
                level, spec, blocks, module, digits, seed, framework
            ):
                put(_run(level, quantity, oracle, check))
        elif level < 3 or module is not None:
            for quantity in blocks:
                if quantity in CURVATURE_QUANTITIES[level]:
                    passed = False if quantity in required else None
                    put(Row(quantity, level, "", None, None, passed, blocks_obstacle))
    wanted = [(q, level) for level in sorted(set(levels)) for q in required if _belongs(q, level, levels)]
    for quantity, level in wanted:
        if not any(row.quantity == quantity and row.level == level for row in rows):
            reason = "no module was given" if level == 3 and module is None else "there is no such check"
            put(Row(quantity, level, "", None, None, None, reason))
    return Report(spec.name, tuple(rows), tuple(wanted))


def operators_of(spec: Spec, summaries: bool | None = None) -> tuple[str, ...]:
    """Operators of a module on which everything can be checked that a report on the spec requires.

    Args:
        spec: the network.
        summaries: see :func:`verify`.
    """
    asked = spec.target.operators
    more = (SUMMARY,) if summaries_looked_at(spec, asked, None, summaries) else ()
    return tuple(dict.fromkeys((*(asked or _default(_obstacle(spec))), *more)))


def _default(obstacle: str | None) -> tuple[str, ...]:
    """What is required of a spec that asks for nothing."""
    return tuple(q for q in _QUANTITIES[2] if q != "newton_direction" or obstacle is None)


def _belongs(quantity: str, level: int, levels: Sequence[int]) -> bool:
    """Whether a level is where a quantity is checked; an unknown quantity belongs to the last level."""
    tables = (_QUANTITIES, CURVATURE_QUANTITIES, SUMMARY_QUANTITIES)
    known = any(quantity in names for table in tables for names in table.values())
    return any(quantity in table[level] for table in tables) if known else level == max(levels)


def _obstacle(spec: Spec) -> str | None:
    """Why there is no Newton direction; a derivation that breaks otherwise is left to the checks."""
    try:
        return newton_obstacle(spec)
    except Exception:
        return None


def _blocks_obstacle(spec: Spec) -> str | None:
    """Why there are no operators on curvature blocks, likewise."""
    try:
        return curvature_obstacle(spec)
    except Exception:
        return None


def _checks(level: int, spec: Spec, module: Any, digits: int, seed: int, framework: Any) -> Iterator[Check]:
    makers: dict[int, Callable[[], Iterable[Check]]] = {
        1: lambda: symbolic_rows(spec, digits, seed),
        2: lambda: precise_rows(spec, digits, seed),
        3: lambda: _generated(spec, module, framework, seed),
    }
    return _guarded(makers[level], level, _QUANTITIES[level])


def _block_checks(
    level: int, spec: Spec, names: Sequence[str], module: Any, digits: int, seed: int, framework: Any
) -> Iterator[Check]:
    """The checks of operators on curvature blocks."""
    makers: dict[int, Callable[[], Iterable[Check]]] = {
        1: lambda: curvature_symbolic_rows(spec, names, digits, seed),
        2: lambda: curvature_precise_rows(spec, names, digits, seed),
        3: lambda: _generated_blocks(spec, names, module, framework, seed),
    }
    quantities = [name for name in CURVATURE_QUANTITIES[level] if name in names]
    return _guarded(makers[level] if quantities else lambda: (), level, quantities)


def _summary_checks(
    level: int, spec: Spec, module: Any, digits: int, seed: int, framework: Any
) -> Iterator[Check]:
    """The checks of summaries along a direction."""
    makers: dict[int, Callable[[], Iterable[Check]]] = {
        1: lambda: summary_symbolic_rows(spec, digits, seed),
        2: lambda: summary_precise_rows(spec, digits, seed),
        3: lambda: _generated_summaries(spec, module, framework, seed),
    }
    return _guarded(makers[level], level, SUMMARY_QUANTITIES[level])


def _guarded(maker: Callable[[], Iterable[Check]], level: int, quantities: Sequence[str]) -> Iterator[Check]:
    """The checks; where preparing them fails, every quantity of the level has failed."""
    try:
        yield from maker()
    except Exception as error:
        reason = _reason(error)
        for quantity in quantities:
            yield quantity, "", lambda q=quantity: Row(q, level, "", None, None, False, reason)  # type: ignore[misc]


def _generated_blocks(
    spec: Spec, names: Sequence[str], module: Any, framework: Any, seed: int
) -> Iterable[Check]:
    if module is None:
        return ()
    from sifrc.verify.generated.curvature import curvature_generated_rows  # imports torch

    return curvature_generated_rows(spec, names, module, framework, seed)


def _generated_summaries(spec: Spec, module: Any, framework: Any, seed: int) -> Iterable[Check]:
    if module is None:
        return ()
    from sifrc.verify.generated.summaries import summary_generated_rows  # imports torch

    return summary_generated_rows(spec, module, framework, seed)


def _generated(spec: Spec, module: Any, framework: Any, seed: int) -> Iterable[Check]:
    if module is None:
        return ()
    from sifrc.verify.generated.rows import generated_rows  # imports torch, which levels 1 and 2 do not need

    return generated_rows(spec, module, framework, seed)


def _run(level: int, quantity: str, oracle: str, check: Callable[[], Row | None]) -> Row:
    """One check; an exception is a failure with its reason."""
    try:
        row = check()
    except Exception as error:
        return Row(quantity, level, oracle, None, None, False, _reason(error))
    if row is not None and row.passed is False and isinstance(row.digits, Agreement):
        # The numbers, so that the reader knows what disagrees, and by how much.
        notes = (row.digits.difference, row.note)
        row = replace(row, note="; ".join(text for text in notes if text))
    if row is None:
        absent = (
            "too large or deep for an expansion to scalars" if level < 3 else "the module does not have it"
        )
        return Row(quantity, level, oracle, None, None, None, absent)
    return row


def _reason(error: Exception) -> str:
    message = error.message if isinstance(error, SifrcError) else f"{type(error).__name__}: {error}"
    return " ".join(message.split())[:_LONGEST_NOTE]
