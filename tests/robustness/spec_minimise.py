"""Makes an item small as long as it shows the same: pieces are left out, or simpler ones put there."""

from __future__ import annotations

import ast
import copy
from collections.abc import Callable, Iterator
from typing import Any

__all__ = ["minimised"]


def minimised(item: Any, shows: Callable[[Any], bool], tries: int = 300) -> Any:
    """A small item of which ``shows`` still holds.

    Args:
        item: text, or data.
        shows: whether an item shows the fault.
        tries: how often ``shows`` is called at most.
    """
    left = tries
    found = True
    while found and left > 0:
        found = False
        for smaller in _texts(item) if isinstance(item, str) else _datas(item):
            if left <= 0:
                break
            left -= 1
            if shows(smaller):
                item, found = smaller, True
                break
    return item


def _texts(text: str) -> Iterator[str]:
    """Text without some lines, then without some characters; large pieces first."""
    for parts, join in ((text.split("\n"), "\n"), (list(text), "")):
        size = len(parts) // 2
        while size:
            for start in range(0, len(parts), size):
                yield join.join(parts[:start] + parts[start + size :])
            size //= 2


def _datas(data: Any) -> Iterator[Any]:
    """Data without one of its items, or with a simpler value for one."""
    for path in sorted(_paths(data), key=len):
        without = copy.deepcopy(data)
        holder = _at(without, path[:-1])
        value = holder[path[-1]]
        del holder[path[-1]]
        yield without
        for simpler in _simpler(path[-1], value):
            replaced = copy.deepcopy(data)
            _at(replaced, path[:-1])[path[-1]] = simpler
            yield replaced


def _paths(data: Any, depth: int = 8) -> Iterator[tuple[Any, ...]]:
    items = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for key, value in list(items) if depth else ():
        yield (key,)
        yield from ((key, *rest) for rest in _paths(value, depth - 1))


def _at(data: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        data = data[key]
    return data


def _simpler(key: Any, value: Any) -> Iterator[Any]:
    if key == "expression" and isinstance(value, str):
        yield from _expressions(value)
    elif key == "loss" and value != "mse":
        yield "mse"
    elif key == "activation" and isinstance(value, dict) and value != "tanh":
        yield "tanh"
    elif isinstance(value, int) and not isinstance(value, bool) and value > 1:
        yield 1


def _expressions(text: str) -> Iterator[str]:
    """The expression with one of its parts in place of what it is a part of, or with a number there."""
    try:
        tree = ast.parse(text, mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        yield from _texts(text)
        return
    found = set()
    for place, node in enumerate(ast.walk(tree)):
        parts = [part for part in ast.iter_child_nodes(node) if isinstance(part, ast.expr)]
        if not isinstance(node, ast.expr) or not parts:
            continue
        for part in [*parts, ast.Constant(1)]:
            again = ast.parse(text, mode="eval")
            target = list(ast.walk(again))[place]
            shorter = ast.unparse(_Replaced(target, part).visit(again))
            if len(shorter) < len(text):
                found.add(shorter)
    yield from sorted(found, key=lambda shorter: (len(shorter), shorter))


class _Replaced(ast.NodeTransformer):
    def __init__(self, target: ast.AST, part: ast.expr) -> None:
        self.target, self.part = target, part

    def visit(self, node: ast.AST) -> Any:
        """The part in place of the target, everything else as it is."""
        return self.part if node is self.target else self.generic_visit(node)
