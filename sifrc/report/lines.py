"""Equations of one system, and conditions, as lines of text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from sifrc.derive.system import Condition, System
from sifrc.model import Model
from sifrc.report.book import lines_of, names_of
from sifrc.report.grouping import grouped, is_long, naming_of
from sifrc.report.indices import Naming
from sifrc.report.layout import Equal, Layout, Sum, symbols_of
from sifrc.report.text import text

__all__ = ["condition_lines", "describe_system"]


_KEPT, _KEPT_SYMBOLS = 12, 100


def describe_system(system: System, model: Model) -> tuple[str, ...]:
    """One line for each equation, generic k first, with its range and its source.

    A right side of more terms or symbols than anyone reads is cut, and the line says how much is left out.

    Example:
        >>> from sifrc.derive.derived import Derived
        >>> from sifrc.model import build_model
        >>> from sifrc.spec import parse_spec, starter_spec
        >>> model = build_model(parse_spec(starter_spec("digits")))
        >>> describe_system(Derived(model).first.gradient, model)[1]
        'G_n = −b_n x_{n−1}ᵀ  [ESN(10)]'
    """
    lines: list[str] = []
    names = names_of(model)
    for group in grouped(lines_of(system, system.name), names):
        naming, members = naming_of(group, names)
        source = group.lines[0].source
        where = f",  {members}" if members else ""
        named = f"  [{source}]" if source != "definition" else ""
        lines.append(f"{text(group.left, naming)} = {_cut(group.right, naming)}{where}{named}")
    return tuple(lines)


def _cut(layout: Layout, naming: Naming) -> str:
    """The text of a right side, of a long one the first terms."""
    if isinstance(layout, Equal):
        return " = ".join(_cut(part, naming) for part in layout.parts)
    if not is_long(layout):
        return text(layout, naming)
    terms = layout.terms if isinstance(layout, Sum) else ()
    kept, symbols = 0, 0
    for _, term in terms[:_KEPT]:
        symbols += sum(1 for _ in symbols_of(term))
        if symbols > _KEPT_SYMBOLS:
            break
        kept += 1
    first = f"{text(Sum(terms[:kept]), naming)} + …" if kept else "…"
    left = f"{len(terms) - kept} more terms" if kept else f"{sum(1 for _ in symbols_of(layout))} symbols"
    return f"{first} ({left})"


def condition_lines(conditions: Iterable[Condition], status: bool = True) -> Iterator[str]:
    """One line for each kind of condition and status, with the layers it is about.

    Args:
        conditions: in order.
        status: whether the lines say it.

    Example:
        >>> found = [Condition(f"y[{k}] ≠ 0", k, "run time") for k in (1, 2, 3)]
        >>> list(condition_lines(found))
        ['y[k] ≠ 0, k = 1..3: run time']
    """
    groups: dict[tuple[str, str], list[int]] = {}
    for condition in conditions:
        text = condition.text
        if condition.layer is not None:
            text = text.replace(f"[{condition.layer}]", "[k]")
        layers = groups.setdefault((text, condition.status), [])
        if condition.layer is not None and "[k]" in text:
            layers.append(condition.layer)
    for (text, found), layers in groups.items():
        yield f"{text}{_range(sorted(layers))}" + (f": {found}" if status else "")


def _range(layers: Sequence[int]) -> str:
    if not layers:
        return ""
    if len(layers) > 2 and list(layers) == list(range(layers[0], layers[-1] + 1)):
        return f", k = {layers[0]}..{layers[-1]}"
    return ", k = " + ", ".join(str(layer) for layer in layers)
