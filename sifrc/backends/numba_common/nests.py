"""Scalar formulas in loop nests: what an inner loop does not change is computed outside of it.

Compilers do not reorder a product of floating-point numbers, so the invariant factors of a product are
multiplied here, one local for each loop that they depend on.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from sympy import Add, Expr, Mul, Piecewise, Symbol

from sifrc.backends.layout import statement
from sifrc.backends.text import LINE_LENGTH
from sifrc.scalar import print_code
from sifrc.scalar.printing import Dialect

__all__ = ["Names", "Nest", "indented"]


@lru_cache(4096)
def _symbols(value: Expr) -> frozenset[Symbol]:
    """What a value depends on: SymPy looks through the whole expression each time."""
    return frozenset(value.free_symbols)


def indented(lines: Sequence[str], indent: int) -> list[str]:
    """Lines further to the right."""
    return [" " * indent + line for line in lines]


@dataclass
class Names:
    """What the printed expressions of one function use.

    Args:
        real: cast of literals, e.g. ``np.float32``.
        taken: names that locals may not have.
        dialect: of expressions.
        helpers: names of helper functions, filled in.
        count: locals so far, by prefix.
        loaded: source text of an entry -> local name.
    """

    real: str
    taken: set[str]
    dialect: Dialect = "numba"
    helpers: set[str] = field(default_factory=set)
    count: dict[str, int] = field(default_factory=dict)
    loaded: dict[str, str] = field(default_factory=dict)

    def local(self, prefix: str) -> str:
        """A new name: prefix0, prefix1, …"""
        while True:
            number = self.count.get(prefix, -1) + 1
            self.count[prefix] = number
            name = f"{prefix}{number}"
            if name not in self.taken:
                self.taken.add(name)
                return name

    def prefix(self, word: str) -> str:
        """A prefix that no other local has: word0_, word1_, …"""
        return f"{self.local(word)}_"

    def laid_out(self, text: str, indent: int) -> list[str]:
        """A statement that will stand so far to the right, from column 0; parts of a long one have names."""
        if len(text) + indent <= LINE_LENGTH:
            return [text]
        return [line[indent:] for line in statement(text, indent, self.prefix("term"))]

    def of_entry(self, text: str) -> str:
        """The local name of a loaded entry: ``y_k[p, i]`` is y_k_p_i."""
        if text not in self.loaded:
            name = re.sub(r"\W+", "_", text).strip("_").lower()
            self.loaded[text] = self.local(name) if name in self.taken else name
            self.taken.add(name)
        return self.loaded[text]


@dataclass
class Nest:
    """Loops over labels, outermost first, with lines at each depth.

    Args:
        labels: of the loops.
        ranges: label -> source text of its extent.
        names: of the function.
        entries: symbol -> (source text, depth: number of loops around the entry).
        fixed: symbols that are written in the nest: their loads stay where they are.
        indent: of the nest in the module, for the length of lines.
    """

    labels: tuple[str, ...]
    ranges: Mapping[str, str]
    names: Names
    entries: dict[Symbol, tuple[str, int]]
    fixed: frozenset[Symbol] = frozenset()
    indent: int = 4
    before: dict[int, list[str]] = field(default_factory=dict)
    after: dict[int, list[str]] = field(default_factory=dict)
    _placed: dict[Expr, Expr] = field(default_factory=dict)

    @property
    def depth(self) -> int:
        """Number of loops."""
        return len(self.labels)

    def add(self, target: str, value: Expr, *, depth: int | None = None, operator: str = "=") -> None:
        """``target operator value`` inside ``depth`` loops, by default all of them."""
        level = self.depth if depth is None else depth
        lines = self._assignment(target, self._place(value, level), level, operator)
        self.before.setdefault(level, []).extend(lines)

    def part(self, symbol: Symbol, value: Expr, fixed: bool) -> None:
        """A common subexpression under a new local name."""
        name = self.names.local("part")
        level = self.depth if fixed else self.level(value)
        lines = self._assignment(name, self._place(value, level), level)
        self.before.setdefault(level, []).extend(lines)
        self.entries[symbol] = (name, level)

    def finish(self, target: str, value: Expr, depth: int) -> None:
        """``target = value`` after the loop that begins at this depth."""
        lines = self._assignment(target, self._place(value, depth), depth)
        self.after.setdefault(depth, []).extend(lines)

    def level(self, value: Expr) -> int:
        """Number of loops that an expression depends on."""
        depths = [
            self.depth if symbol in self.fixed else self.entries[symbol][1] for symbol in _symbols(value)
        ]
        return max(depths, default=0)

    def lines(self, outer: int = 0) -> list[str]:
        """The nest, from column 0, without its outer loops, of which so many stand elsewhere."""
        inner: list[str] = []
        for depth in range(self.depth, -1, -1):
            if outer <= depth < self.depth:
                label = self.labels[depth]
                inner = [f"for {label} in range({self.ranges[label]}):", *indented(inner, 4)]
            inner = [*self.before.get(depth, []), *inner, *self.after.get(depth, [])]
        return inner

    def _assignment(self, target: str, value: Expr, level: int, operator: str = "=") -> list[str]:
        code = print_code(value, self.names.dialect, names=self._texts(value), real=self.names.real)
        self.names.helpers |= set(code.helpers)
        indent = self.indent + 4 * level
        lines = statement(f"{target} {operator} {code.text}", indent, self.names.prefix("term"))
        return [line[indent:] for line in lines]

    def _texts(self, value: Expr) -> dict[str, str]:
        return {symbol.name: self.entries[symbol][0] for symbol in _symbols(value)}

    def _place(self, value: Expr, level: int) -> Expr:
        """The expression inside ``level`` loops, with everything that needs fewer in locals."""
        own = self.level(value)
        if not _symbols(value):
            return value
        if own < level:
            return self._hoisted(value, own)
        if value.is_Symbol:
            return value
        if isinstance(value, Piecewise):
            # Branches are computed only where they are taken; only loads move out of them.
            moved = {s: self._place(s, level) for s in value.free_symbols}
            return value.xreplace(moved)
        if isinstance(value, Add | Mul):
            low = [part for part in value.args if self.level(part) < level]
            high = [self._place(part, level) for part in value.args if self.level(part) == level]
            rest = value.func(*low)
            return value.func(self._place(rest, level) if rest.free_symbols else rest, *high)
        return value.func(*(self._place(part, level) for part in value.args))

    def _hoisted(self, value: Expr, level: int) -> Expr:
        if value in self._placed:
            return self._placed[value]
        if value.is_Symbol and self._is_name(value):
            return value
        if isinstance(value, Mul) and value.args[0].is_number and len(value.args) == 2:
            # A sign or a number in front costs nothing inside.
            inner = value.args[1]
            if inner.is_Symbol:
                return value.args[0] * self._hoisted(inner, level)
        loaded = self.entries[value][0] if value.is_Symbol else ""
        name = self.names.of_entry(loaded) if loaded else self.names.local("factor")
        result = Symbol(f"local_{name}", real=True)
        placed = value if loaded else self._place(value, level)
        self.before.setdefault(level, []).extend(self._assignment(name, placed, level))
        self.entries[result] = (name, level)
        self._placed[value] = result
        return result

    def _is_name(self, symbol: Symbol) -> bool:
        return self.entries[symbol][0].isidentifier()
