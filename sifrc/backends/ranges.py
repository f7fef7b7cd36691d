"""The check of an optimizer's numbers in a generated module: tables of ranges, and a function."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import TypeAlias

from sifrc.backends.text import assigned
from sifrc.methods.plan import Hyperparameter
from sifrc.methods.ranges import Range

__all__ = ["Counts", "ranges_text"]

Counts: TypeAlias = Mapping[str, int]
"""Whole numbers of the state that count something -> their least value."""

_NONE: Counts = MappingProxyType({})

_FUNCTION = '''
def _number(name: str, value: Any{argument}) -> Any:
    """The value as a number of Python, if it is one and in its range; NumPy's count, and 0-d {arrays}."""
    try:
        found = value.item() if getattr(value, "shape", None) == () else value
    except RuntimeError as error:  # it has no value, as on the device "meta"
        raise TypeError(f"{{name}}: expected a number, got {{value}}") from error
    if isinstance(found, bool) or not isinstance(found, Real):
        raise TypeError(f"{{name}}: expected a number, got {{type(value).__name__}}")
    low, high, text = _RANGES[name]
    limit = {limit}
    inside = (-limit if low is None else low) <= found <= (limit if high is None else high)
    if not inside{conditions}:
        raise ValueError(f"{{name}}: expected {{text}}, got {{found}}")
    return {result}'''


def ranges_text(
    given: Iterable[Hyperparameter],
    arrays: str,
    limit: str,
    *,
    argument: str = "",
    rounded: str = "found",
    counts: Counts = _NONE,
) -> str:
    """Source text: tables of the ranges of hyperparameters, and the function ``_number`` that checks one.

    Args:
        given: the hyperparameters.
        arrays: how the framework calls its arrays.
        limit: source text of the largest finite number.
        argument: a further argument of the function, which ``limit`` may use.
        rounded: source text of the number as the steps will have it.
        counts: further numbers of the state.
    """
    numbers = {number.name: number.range for number in given}
    numbers |= {name: Range(least, 2**62, whole=True) for name, least in counts.items()}
    whole = tuple(name for name, found in numbers.items() if found.whole)
    excluded = {name: found.excluded for name, found in numbers.items() if found.excluded}
    table = {name: (*found.ends, str(found)) for name, found in numbers.items()}
    lines = [
        assigned("_RANGES: dict[str, tuple[float | None, float | None, str]] = ", table),
        '"""Numbers of the optimizer: least and largest value (None: any finite one), and in words."""',
    ]
    conditions, result = "", "float(found)"
    if excluded:
        conditions += f" or {rounded} in _EXCLUDED.get(name, ())"
        lines.append(assigned("_EXCLUDED = ", excluded))
        lines.append('"""Ends of ranges that do not belong to them."""')
    if whole:
        conditions += " or (name in _WHOLE and found != int(found))"
        result = "int(found) if name in _WHOLE else float(found)"
        lines += [assigned("_WHOLE = ", whole), '"""Those that are whole numbers."""']
    argument = argument and f", {argument}"
    function = _FUNCTION.format(
        argument=argument, arrays=arrays, limit=limit, conditions=conditions, result=result
    )
    return "\n".join([*lines, "", function])
