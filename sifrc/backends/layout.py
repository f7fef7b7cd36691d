"""Generated Python statements in the layout that ruff format gives them.

Printers concatenate expressions with parentheses wherever they might be needed; here a statement is
read as a syntax tree (nothing is executed), written with the spaces and parentheses of the formatter,
and a line that would be too long is split by naming its largest parts.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from functools import lru_cache

from sifrc.backends.text import LINE_LENGTH
from sifrc.errors import BackendError

__all__ = ["call", "lines_of", "returned", "signature", "statement"]

_BINARY: tuple[tuple[type[ast.operator], str, int], ...] = (
    (ast.BitOr, "|", 4),
    (ast.BitAnd, "&", 6),
    (ast.Add, "+", 8),
    (ast.Sub, "-", 8),
    (ast.Mult, "*", 9),
    (ast.MatMult, "@", 9),
    (ast.Div, "/", 9),
    (ast.FloorDiv, "//", 9),
    (ast.Pow, "**", 11),
)
_UNARY: tuple[tuple[type[ast.unaryop], str, int], ...] = (
    (ast.Not, "not ", 2),
    (ast.USub, "-", 10),
    (ast.Invert, "~", 10),
)
_COMPARE: tuple[tuple[type[ast.cmpop], str], ...] = (
    (ast.Lt, "<"),
    (ast.LtE, "<="),
    (ast.Gt, ">"),
    (ast.GtE, ">="),
    (ast.Eq, "=="),
    (ast.NotEq, "!="),
)
_ATOM = 12
_PIECE = 48
"""Terms of a long sum that are written together."""
_DEEP = 300
"""Characters that a statement has before it may be too deep for a recursion."""
_KEPT = 4096
"""Statements that are not laid out again: functions of a module repeat each other."""
_RENDERED = "rendered"
"""Attribute of a node that keeps its text and how tightly it binds."""


def statement(text: str, indent: int, prefix: str = "term") -> list[str]:
    """Lines of one simple statement, in the formatter's layout.

    Args:
        text: an assignment (``=``, or one with an operator such as ``+=``), an expression or a return
            statement, with any spaces and parentheses.
        indent: spaces before it.
        prefix: parts of a line that is too long are named prefix0, prefix1, …

    Raises:
        BackendError: syntax that printers do not use.

    Example:
        >>> statement("x[k]=(a+(b*c))**2", 4)
        ['    x[k] = (a + b * c) ** 2']
    """
    return list(_laid_out(text, indent, prefix))


@lru_cache(_KEPT)
def _laid_out(text: str, indent: int, prefix: str) -> tuple[str, ...]:
    node = ast.parse(text).body[0]
    lines: list[str] = []
    pad = " " * indent
    if len(text) <= _DEEP and len(line := pad + _statement(node)) <= LINE_LENGTH:
        return (line,)
    value = getattr(node, "value", None)
    # A sum of a thousand terms is taken in pieces: it is as deep as it is long.
    while isinstance(value, ast.expr) and (inner := _first_terms(value)) is not None:
        piece, above = inner
        part = ast.Assign([ast.Name("_", ast.Store())], piece)
        _named_parts(part, indent, prefix, lines)
        above.left = ast.Name(f"{prefix}{len(lines)}", ast.Load())
        lines.append(f"{pad}{above.left.id} = {_render(part.value)}")
    line = _named_parts(node, indent, prefix, lines)
    return (*lines, *(_split_call(node, line, indent) if len(line) > LINE_LENGTH else [line]))


def _first_terms(value: ast.expr) -> tuple[ast.BinOp, ast.BinOp] | None:
    """The first terms of a long sum or product, and the operation that has them on its left."""
    spine: list[ast.BinOp] = []
    node = value
    while isinstance(node, ast.BinOp) and not isinstance(node.op, ast.Pow):
        spine.append(node)
        node = node.left
    return None if len(spine) <= _PIECE else (spine[-_PIECE], spine[-_PIECE - 1])


def _named_parts(node: ast.stmt, indent: int, prefix: str, lines: list[str]) -> str:
    """The statement as a line, after lines that name its largest parts until it is short enough."""
    pad = " " * indent
    while True:
        # From the inside: what is deep is then not a recursion.
        for part in reversed([*_unread(node)]):
            _render(part)
        line = pad + _statement(node)
        if len(line) <= LINE_LENGTH:
            return line
        largest = _largest_part(node, LINE_LENGTH - indent - len(prefix) - 6)
        if largest is None:
            return line
        name = f"{prefix}{len(lines)}"
        lines.append(f"{pad}{name} = {_render(largest)}")
        _replace(node, largest, name)


def _unread(root: ast.stmt) -> Iterator[ast.expr]:
    """Expressions without a text, each before what is inside; what has one has texts inside too."""
    stack: list[ast.AST] = [root]
    while stack:
        node = stack.pop()
        if isinstance(node, ast.expr):
            if hasattr(node, _RENDERED):
                continue
            yield node
        stack += ast.iter_child_nodes(node)


def _split_call(node: ast.stmt, line: str, indent: int) -> list[str]:
    """A line that is too long and has no part to name: the arguments of its call on lines of their own."""
    value = getattr(node, "value", None)
    if not isinstance(value, ast.Call) or not isinstance(node, ast.Assign | ast.AugAssign | ast.Expr):
        return [line]
    function = f"{_render(value.func, _ATOM)}("
    opening = line.strip().removesuffix(_render(value)) + function
    return lines_of(_arguments(value), opening, ")", indent)


def lines_of(items: Sequence[str], opening: str, closing: str, indent: int) -> list[str]:
    """``opening items closing`` on one line, or with the items on one indented line, or one item a line.

    Example:
        >>> lines_of(["a", "b"], "f(", ")", 0)
        ['f(a, b)']
    """
    pad = " " * indent
    flat = pad + opening + ", ".join(items) + closing
    if len(flat) <= LINE_LENGTH or not items:
        return [flat]
    middle = " " * (indent + 4) + ", ".join(items)
    body = [middle] if len(middle) <= LINE_LENGTH else [" " * (indent + 4) + item + "," for item in items]
    return [pad + opening, *body, pad + closing]


def signature(name: str, parameters: Sequence[str], returns: str, indent: int = 0) -> str:
    """The head of a function definition, without its indentation on the first line.

    Example:
        >>> signature("_forward", ["x: Tensor"], "Tensor")
        'def _forward(x: Tensor) -> Tensor:'
    """
    return "\n".join(lines_of(parameters, f"def {name}(", f") -> {returns}:", indent)).lstrip()


def call(targets: Sequence[str], function: str, arguments: Sequence[str], indent: int) -> list[str]:
    """``targets = function(arguments)``.

    Example:
        >>> call(["x", "a"], "_forward", ["weights", "inputs"], 4)
        ['    x, a = _forward(weights, inputs)']
    """
    left = f"{', '.join(targets)} = " if targets else ""
    if len(targets) > 1 and indent + len(left) + len(function) + 1 > LINE_LENGTH:
        pad = " " * indent
        names = [f"{pad}    {target}," for target in targets]
        return [f"{pad}(", *names, *lines_of(arguments, f") = {function}(", ")", indent)]
    return lines_of(arguments, f"{left}{function}(", ")", indent)


def returned(values: Sequence[str], indent: int) -> list[str]:
    """``return`` of several values.

    Example:
        >>> returned(["x", "a"], 4)
        ['    return x, a']
    """
    flat = " " * indent + "return " + ", ".join(values)
    return [flat] if len(flat) <= LINE_LENGTH else lines_of(values, "return (", ")", indent)


def _replace(root: ast.stmt, part: ast.expr, name: str) -> None:
    """Put a name in place of all that reads so; what is around it has no text until it is read again.

    Where something is overwritten (by a method as ``add_``), the name is for the part alone.
    """
    text = _render(part)
    above: dict[ast.AST, tuple[ast.AST, str, int | None]] = {}
    found: list[ast.AST] = []
    inside: list[ast.AST] = [root]
    while inside:
        node = inside.pop()
        for field, value in ast.iter_fields(node):
            for position, child in enumerate(value) if isinstance(value, list) else ((None, value),):
                if isinstance(child, ast.AST):
                    above[child] = node, field, position
                    shown: str | None = getattr(child, _RENDERED, (None,))[0]
                    if shown == text:
                        found.append(child)
                    elif shown is None or text in shown:  # the text of a node has those of all that is inside
                        inside.append(child)
    if any(_is_overwritten(above[node][0]) for node in found):
        found = [part]
    for node in found:
        parent, field, position = above[node]
        if position is None:
            setattr(parent, field, ast.Name(name, ast.Load()))
        else:
            getattr(parent, field)[position] = ast.Name(name, ast.Load())
        around: ast.AST | None = parent
        # A named argument has no text of its own; what is around it has.
        while around is not None and (isinstance(around, ast.keyword) or hasattr(around, _RENDERED)):
            if not isinstance(around, ast.keyword):
                delattr(around, _RENDERED)
            around = above[around][0] if around in above else None


def _is_overwritten(parent: ast.AST) -> bool:
    """Whether what is above a part is a method that changes it in place."""
    return isinstance(parent, ast.Attribute) and parent.attr.endswith("_") and not parent.attr.startswith("_")


def _largest_part(node: ast.stmt, width: int) -> ast.expr | None:
    """The widest proper part that fits on a line of its own; a call or an operation, not a target."""
    value = getattr(node, "value", None)
    if not isinstance(value, ast.expr):
        return None
    found, least = None, 12
    # An operation before its operands; no functions that are called.
    stack: list[tuple[ast.expr, bool]] = [(value, False)]
    while stack:
        part, proper = stack.pop()
        size = len(_render(part))
        if size <= least:  # and all that is inside
            continue
        if proper and size <= width and isinstance(part, (ast.Call, ast.BinOp, ast.Compare)):
            found, least = part, size
            continue
        children = (c.value if isinstance(c, ast.keyword) else c for c in ast.iter_child_nodes(part))
        called = part.func if isinstance(part, ast.Call) else None
        stack += reversed([(c, c is not called) for c in children if isinstance(c, ast.expr)])
    return found


def _statement(node: ast.stmt) -> str:
    if isinstance(node, ast.Assign):
        target = node.targets[0]
        names = target.elts if isinstance(target, ast.Tuple) else [target]
        return f"{', '.join(map(_render, names))} = {_render(node.value)}"
    if isinstance(node, ast.AugAssign):
        return f"{_render(node.target)} {_binary(node.op)[0]}= {_render(node.value)}"
    if isinstance(node, ast.Expr):
        return _render(node.value)
    if isinstance(node, ast.Return) and node.value is not None:
        return f"return {_render(node.value)}"
    raise BackendError(f"no layout for the statement {type(node).__name__}")


def _render(node: ast.AST, least: int = 0) -> str:
    """Text of an expression, in parentheses where it binds less tightly than ``least``."""
    found: tuple[str, int] | None = getattr(node, _RENDERED, None)
    if found is None:
        found = _text(node)
        # Kept with the node: a long line is written once for each of its parts that gets a name.
        setattr(node, _RENDERED, found)
    text, binding = found
    return f"({text})" if binding < least else text


def _text(node: ast.AST) -> tuple[str, int]:
    """Text of an expression and how tightly it binds."""
    match node:
        case ast.Name():
            return node.id, _ATOM
        case ast.Constant(value=str(value)):
            return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"', _ATOM
        case ast.Constant():
            return repr(node.value), _ATOM
        case ast.Attribute():
            return f"{_render(node.value, _ATOM)}.{node.attr}", _ATOM
        case ast.Subscript(slice=inner):
            # The entry of an array without dimensions is at ().
            items = inner.elts if isinstance(inner, ast.Tuple) and inner.elts else [inner]
            return f"{_render(node.value, _ATOM)}[{', '.join(map(_render, items))}]", _ATOM
        case ast.Slice(lower=lower, upper=upper):
            bounds = ["" if bound is None else _render(bound) for bound in (lower, upper)]
            if all(bound is None or _simple(bound) for bound in (lower, upper)):
                return ":".join(bounds), _ATOM
            # The formatter sets the colon apart from anything longer than a name.
            return " : ".join(bounds).strip(), _ATOM
        case ast.Starred():
            return f"*{_render(node.value, _ATOM)}", _ATOM
        case ast.Call():
            return f"{_render(node.func, _ATOM)}({', '.join(_arguments(node))})", _ATOM
        case ast.Tuple():
            items_text = ", ".join(map(_render, node.elts))
            return f"({items_text},)" if len(node.elts) == 1 else f"({items_text})", _ATOM
        case ast.List():
            return f"[{', '.join(map(_render, node.elts))}]", _ATOM
        case ast.Dict():
            pairs = zip(node.keys, node.values, strict=True)
            shown = ", ".join(f"{_render(k)}: {_render(v)}" for k, v in pairs if k is not None)
            return f"{{{shown}}}", _ATOM
        case ast.IfExp():
            return f"{_render(node.body, 1)} if {_render(node.test, 1)} else {_render(node.orelse)}", 0
        case ast.UnaryOp() | ast.BoolOp() | ast.Compare() | ast.BinOp():
            return _operation(node)
    raise BackendError(f"no layout for the syntax {type(node).__name__}")


def _arguments(node: ast.Call) -> list[str]:
    named = [f"{keyword.arg}={_render(keyword.value)}" for keyword in node.keywords]
    return [*map(_render, node.args), *named]


def _operation(node: ast.UnaryOp | ast.BoolOp | ast.Compare | ast.BinOp) -> tuple[str, int]:
    """Text of an operation and how tightly it binds."""
    match node:
        case ast.UnaryOp(operand=operand):
            sign, binding = next((sign, binds) for kind, sign, binds in _UNARY if isinstance(node.op, kind))
            # The formatter puts a power under a sign in parentheses.
            power = isinstance(operand, ast.BinOp) and isinstance(operand.op, ast.Pow)
            return sign + _render(operand, _ATOM if power else binding), binding
        case ast.BoolOp():
            word, binding = ("and", 2) if isinstance(node.op, ast.And) else ("or", 1)
            return f" {word} ".join(_render(value, binding + 1) for value in node.values), binding
        case ast.Compare():
            sign = next(sign for kind, sign in _COMPARE if isinstance(node.ops[0], kind))
            return f"{_render(node.left, 4)} {sign} {_render(node.comparators[0], 4)}", 3
    sign, binding = _binary(node.op)
    if isinstance(node.op, ast.Pow):
        left, right = _render(node.left, _ATOM), _render(node.right, 10)
        space = "" if _simple(node.left) and _simple(node.right) else " "
        return f"{left}{space}**{space}{right}", binding
    # The formatter writes the first factor of a quotient or product chain without parentheses.
    return f"{_render(node.left, binding)} {sign} {_render(node.right, binding + 1)}", binding


def _binary(operator: ast.operator) -> tuple[str, int]:
    """Sign of an operation on two operands, and how tightly it binds."""
    return next((sign, binds) for kind, sign, binds in _BINARY if isinstance(operator, kind))


def _simple(node: ast.expr) -> bool:
    """Operands around which the formatter writes ``**`` without spaces."""
    if isinstance(node, ast.UnaryOp):
        return isinstance(node.operand, (ast.Name, ast.Constant, ast.Attribute)) and _simple(node.operand)
    if isinstance(node, ast.Attribute):
        return isinstance(node.value, (ast.Name, ast.Attribute)) and _simple(node.value)
    return isinstance(node, (ast.Name, ast.Constant))
