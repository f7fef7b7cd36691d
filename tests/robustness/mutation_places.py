"""Where a fault can be put into the sources, and what it is: places found anew in every version.

A place is a file, the function around it, an operator, and which of the operator's places in that function it
is. It does not name lines, so that a list of places outlives changes elsewhere in the file.
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Mutant", "Place", "mutants_of"]

Edit = Callable[[ast.AST], Iterator[tuple[str, ast.AST, str]]]


@dataclass(frozen=True, order=True)
class Place:
    """Where a fault goes.

    Args:
        file: from the root of the repository.
        function: qualified name of the function around it; empty at module level.
        operator: what is changed.
        number: which of the operator's places in the function.
    """

    file: str
    function: str
    operator: str
    number: int

    def __str__(self) -> str:
        return f"{self.file} {self.function or '-'} {self.operator} {self.number}"

    @classmethod
    def parse(cls, line: str) -> Place:
        """The place that a line of a list names."""
        file, function, operator, number = line.split()
        return cls(file, "" if function == "-" else function, operator, int(number))


@dataclass(frozen=True)
class Mutant:
    """A fault.

    Args:
        place: where.
        line: number of the line it begins on, for people.
        before: what stood there.
        after: what stands there instead.
        source: the whole file with the fault.
    """

    place: Place
    line: int
    before: str
    after: str
    source: str


def mutants_of(file: str, root: Path) -> dict[Place, Mutant]:
    """All faults that can be put into a file, by place."""
    text = (root / file).read_text(encoding="utf-8")
    found = _of_template(text) if file.endswith(".jinja") else _of_python(text)
    counts: Counter[tuple[str, str]] = Counter()
    result = {}
    for function, operator, start, end, after in sorted(found, key=lambda f: (f[2], f[3], f[1], f[4])):
        place = Place(file, function, operator, counts[function, operator])
        counts[function, operator] += 1
        line = text.count("\n", 0, start) + 1
        result[place] = Mutant(place, line, text[start:end], after, text[:start] + after + text[end:])
    return result


Found = tuple[str, str, int, int, str]
"""Function, operator, first and last character, new text."""

# ── Python ────────────────────────────────────────────────────────────────────────────────────────────

_SWAPPED: dict[type[ast.AST], type[ast.AST]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.And: ast.Or,
    ast.Or: ast.And,
}
_QUIET = {"einsum", "total", "add", "inner", "subtract", "Fraction", "scale", "expand", "hadamard", "mapped"}
"""Functions whose sequences are terms, factors or axes: one of them can be left out or exchanged."""


def _of_python(text: str) -> Iterator[Found]:
    tree = ast.parse(text)
    starts = [0]
    for line in text.split("\n"):
        starts.append(starts[-1] + len(line) + 1)
    lines = text.split("\n")

    def position(line: int, column: int) -> int:
        """Characters before a place that the parser counts in bytes."""
        return starts[line - 1] + len(lines[line - 1].encode()[:column].decode())

    for function, node, inside in _walk(tree, "", ""):
        for operator, part, after in _edits(node, inside):
            if part.end_lineno is None or part.end_col_offset is None:  # type: ignore[attr-defined]
                continue
            start = position(part.lineno, part.col_offset)  # type: ignore[attr-defined]
            end = position(part.end_lineno, part.end_col_offset)  # type: ignore[attr-defined]
            yield function, operator, start, end, after


def _walk(node: ast.AST, function: str, inside: str) -> Iterator[tuple[str, ast.AST, str]]:
    """Nodes with the function and the call around them; without what only talks: errors, types, texts."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.Raise, ast.Assert, ast.Import, ast.ImportFrom, ast.arg)):
            continue
        name = function
        if isinstance(child, (ast.FunctionDef, ast.ClassDef)):
            name = f"{function}.{_named(child)}" if function else _named(child)
        around = inside
        if isinstance(child, ast.Call):
            called = child.func
            around = called.id if isinstance(called, ast.Name) else getattr(called, "attr", "")
        if isinstance(child, ast.Expr) and isinstance(child.value, ast.Constant):
            continue
        yield name, child, inside
        if isinstance(child, ast.AnnAssign):
            if child.value is not None:
                yield name, child.value, ""
                yield from _walk(child.value, name, "")
            continue
        if isinstance(child, ast.FunctionDef):
            for statement in [*child.args.defaults, *child.args.kw_defaults, *child.body]:
                if statement is None or _talks(statement):
                    continue
                yield name, statement, ""
                yield from _walk(statement, name, "")
            continue
        yield from _walk(child, name, around)


def _named(node: ast.FunctionDef | ast.ClassDef) -> str:
    """Its name; of a rule of a dispatched function, which has none, the type that it is for."""
    if isinstance(node, ast.ClassDef) or node.name != "_":
        return node.name
    types = [a.annotation for a in node.args.args if a.annotation is not None]
    types += [d.args[0] for d in node.decorator_list if isinstance(d, ast.Call) and d.args]
    return f"_[{'' if not types else ast.unparse(types[0]).replace(' ', '')}]"


def _talks(statement: ast.AST) -> bool:
    if isinstance(statement, (ast.Raise, ast.Assert, ast.Import, ast.ImportFrom)):
        return True
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)


def _with(node: ast.AST, **changes: object) -> str:
    fields = {name: getattr(node, name) for name in node._fields}
    made = type(node)(**{**fields, **changes})
    return ast.unparse(ast.copy_location(made, node))


def _edits(node: ast.AST, inside: str) -> Iterator[tuple[str, ast.AST, str]]:
    """Operator, the node that is replaced, and its new text."""
    match node:
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _SWAPPED:
            if isinstance(right, ast.Constant) and right.value == 1 and isinstance(op, (ast.Add, ast.Sub)):
                yield "index", node, f"({ast.unparse(left)})"
            elif not _text(left) and not _text(right):
                kind = "sign" if isinstance(op, (ast.Add, ast.Sub)) else "factor"
                yield kind, node, f"({_with(node, op=_SWAPPED[type(op)]())})"
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant()):
            pass
        case ast.UnaryOp(op=ast.USub() | ast.Not(), operand=operand):
            yield ("sign" if isinstance(node.op, ast.USub) else "not"), node, f"({ast.unparse(operand)})"
        case ast.Compare(ops=[ast.In() | ast.NotIn() | ast.Is() | ast.IsNot() as op]):
            yield "member", node, f"({_with(node, ops=[_SWAPPED[type(op)]()])})"
        case ast.Compare(ops=[op]) if type(op) in _SWAPPED:
            yield "compare", node, f"({_with(node, ops=[_SWAPPED[type(op)]()])})"
        case ast.BoolOp(op=op):
            yield "and", node, f"({_with(node, op=_SWAPPED[type(op)]())})"
        case ast.If(test=test) | ast.IfExp(test=test):
            yield "branch", test, f"(not ({ast.unparse(test)}))"
        case ast.Call(func=ast.Name(id="range"), args=args):
            last = ast.unparse(args[0] if len(args) == 1 else args[1])
            bounds = [*map(ast.unparse, args)]
            bounds[0 if len(args) == 1 else 1] = f"({last}) - 1"
            yield "bound", node, f"range({', '.join(bounds)})"
        case ast.Call(func=ast.Name(id="negative"), args=[operand]):
            yield "sign", node, f"({ast.unparse(operand)})"
        case ast.Call(func=ast.Name(id="Fraction"), args=[top, *rest]):
            parts = ", ".join([f"2 * ({ast.unparse(top)})", *map(ast.unparse, rest)])
            yield "factor", node, f"Fraction({parts})"
        case ast.Call(func=ast.Name(id="scale"), args=[factor, operand]):
            yield "factor", node, f"scale(2 * ({ast.unparse(factor)}), {ast.unparse(operand)})"
        case ast.Call(func=ast.Name(id="subtract"), args=[left, right], keywords=[]):
            yield "swap", node, f"subtract({ast.unparse(right)}, {ast.unparse(left)})"
        case ast.Slice(lower=ast.Constant(value=int() as value), upper=None):
            yield "bound", node, f"{value + 1}:"
        case ast.Slice(lower=None, upper=ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=1))):
            yield "bound", node, ":"
        case ast.Subscript(slice=ast.Constant(value=int() as value)) if isinstance(node.ctx, ast.Load):
            yield "index", node.slice, str({0: 1, 1: 0}.get(value, value - 1))
        case ast.Subscript(slice=ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=1))):
            yield "index", node.slice, "0"
        case ast.keyword(value=ast.Constant(value=bool() as value)):
            yield "flag", node.value, str(not value)
        case ast.Expr(value=ast.Call(func=ast.Attribute(attr="append" | "extend" | "update" | "add"))):
            yield "drop", node, "pass"
        case ast.Expr(value=ast.Call(func=ast.Name(id="send"))):
            yield "drop", node, "pass"
        case ast.AugAssign(op=op) if type(op) in _SWAPPED and not _text(node.value):
            target, value = ast.unparse(node.target), ast.unparse(node.value)
            yield "sign", node, f"{target} {_sign(_SWAPPED[type(op)])}= {value}"
        case ast.List(elts=elts) | ast.Tuple(elts=elts) if len(elts) > 1 and inside in _QUIET:
            brackets = "[]" if isinstance(node, ast.List) else "()"
            if isinstance(node.ctx, ast.Load):
                kept, moved = [*map(ast.unparse, elts[:-1])], [*map(ast.unparse, elts[::-1])]
                if isinstance(node, ast.List):
                    yield "drop", node, f"{brackets[0]}{', '.join(kept)}{brackets[1]}"
                if all(isinstance(e, (ast.Name, ast.Attribute)) for e in elts) and not any(map(_axes, elts)):
                    yield "transpose", node, f"{brackets[0]}{', '.join(moved)}{brackets[1]}"
        case ast.Constant(value=str() as value) if inside not in ("replace", "BackendError"):
            changed = _emitted(value)
            if changed is not None:
                yield "emitted", node, repr(changed)
        case _:
            return


def _axes(node: ast.AST) -> bool:
    """Whether a name means several axes: an operand and its axes are a pair, not two axes."""
    name = node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")
    return name in ("axes", "out", "labels", "slots", "before", "after", "left", "right")


def _sign(operator: type[ast.AST]) -> str:
    return {ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/"}[operator]  # type: ignore[index]


def _text(node: ast.AST) -> bool:
    """Whether an operand is text or a sequence, so that there is nothing to subtract."""
    return isinstance(node, (ast.JoinedStr, ast.List, ast.Tuple, ast.ListComp, ast.Dict)) or (
        isinstance(node, ast.Constant) and isinstance(node.value, (str, bytes))
    )


_CODE = ((" + ", " - "), (" - ", " + "), (" += ", " -= "), (" -= ", " += "), (" * ", " / "), (".T", ""))


def _emitted(text: str) -> str | None:
    """Code that a printer writes, with its first sign changed; prose has none."""
    for old, new in _CODE:
        if old in text and len(text) < 60:
            return text.replace(old, new, 1)
    return None


# ── templates ─────────────────────────────────────────────────────────────────────────────────────────

_IN_TEMPLATES: tuple[tuple[str, str, str], ...] = (
    ("sign", r"(?<=[\w\])]) \+ (?=[\w(])", " - "),
    ("sign", r"(?<=[\w\])]) - (?=[\w(])", " + "),
    ("sign", r" \+= ", " -= "),
    ("sign", r" -= ", " += "),
    ("sign", r"(?<=[=(,] )-(?=[a-z(])", ""),
    ("factor", r"(?<=[\w\])]) \* (?=[\w(])", " / "),
    ("factor", r"(?<=[\w\])]) / (?=[\w(])", " * "),
    ("factor", r"(?<![\w.])0\.5(?!\d)", "1.0"),
    ("compare", r"(?<=[\w\])]) < (?=[\w(])", " >= "),
    ("compare", r"(?<=[\w\])]) > (?=[\w(-])", " <= "),
    ("compare", r"(?<=[\w\])]) <= (?=[\w(-])", " > "),
    ("compare", r"(?<=[\w\])]) >= (?=[\w(-])", " < "),
    ("compare", r"(?<=[\w\])]) == (?=[\w(\"-])", " != "),
    ("not", r"\bnot (?!None\b)(?=[a-z])", ""),
    ("and", r"(?<=[\w\])]) and (?=[\w(])", " or "),
    ("bound", r"range\((?=[^,()]+\))", "range(1, "),
    ("index", r"(?<=\[)0(?=\])", "-1"),
    ("index", r"(?<=\[)-1(?=\])", "0"),
    ("transpose", r"\.T\b", ""),
    ("swap", r"\bmax\(", "min("),
    ("swap", r"\bmin\(", "max("),
)
_HEAD = re.compile(r"^\s*(?:def|class) (\w+)", re.MULTILINE)
_PROSE = re.compile(
    r'"""[\s\S]*?"""|#(?! \{).*$|\{#[\s\S]*?#\}|\{%[\s\S]*?%\}'
    r'|raise [\s\S]*?\n(?=\s*\n|\s*\w)|f?"[^"\n]*"',
    re.MULTILINE,
)


def _of_template(text: str) -> Iterator[Found]:
    prose = [match.span() for match in _PROSE.finditer(text)]
    heads = [(match.start(), match.group(1)) for match in _HEAD.finditer(text)]
    for operator, pattern, after in _IN_TEMPLATES:
        for match in re.finditer(pattern, text):
            start, end = match.span()
            if any(low <= start < high for low, high in prose):
                continue
            function = next((name for place, name in reversed(heads) if place <= start), "")
            yield function, operator, start, end, after
