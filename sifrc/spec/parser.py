"""Text of a user expression to its syntax tree, by an allow-list; nothing is ever executed.

Python's own parser reads the text; a visitor with one method per allowed node builds the tree of
:mod:`sifrc.spec.expression`, and everything else is refused with its place and what to write.
"""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import NoReturn

from sifrc.errors import Location, SpecError
from sifrc.spec.constants import constant_value
from sifrc.spec.excerpt import Excerpt
from sifrc.spec.expression import (
    MAX_EXPONENT,
    Binary,
    BinaryOperator,
    Call,
    Compare,
    CompareOperator,
    Expression,
    Name,
    Negative,
    Number,
)
from sifrc.spec.functions import LOSS_FUNCTIONS, NOT_DIFFERENTIABLE, SYNONYMS, Function
from sifrc.spec.suggest import did_you_mean, shortened

__all__ = [
    "MAX_DEPTH",
    "MAX_DIGITS",
    "MAX_EXPONENT",
    "MAX_LENGTH",
    "MAX_MAGNITUDE",
    "parse_expression",
]

MAX_LENGTH = 2000
MAX_DEPTH = 60
MAX_DIGITS = 40
MAX_MAGNITUDE = 1e30

_LITERAL = re.compile(r"(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")

_BINARY: Mapping[type[ast.operator], BinaryOperator] = {
    ast.Add: "+",
    ast.Sub: "-",
    ast.Mult: "*",
    ast.Div: "/",
    ast.Pow: "**",
}
_COMPARE: Mapping[type[ast.cmpop], CompareOperator] = {
    ast.Lt: "<",
    ast.LtE: "<=",
    ast.Gt: ">",
    ast.GtE: ">=",
}
_OTHER_OPERATORS: Mapping[type[ast.operator], tuple[str, str]] = {
    ast.FloorDiv: ("floor division '//' is not differentiable", "use / for division"),
    ast.Mod: ("the remainder '%' is not differentiable", "use sin or cos for something periodic"),
    ast.MatMult: ("operator '@' is not accepted", "in a loss, use dot(a, b)"),
    ast.BitXor: ("operator '^' is not accepted", "use ** for powers"),
}
_REFUSED: Mapping[type[ast.AST], tuple[str, str]] = {
    ast.IfExp: ("'if … else' is not accepted", "use where(condition, a, b)"),
    ast.Attribute: ("attribute access with '.' is not accepted", "write plain names: exp, not np.exp"),
    ast.BoolOp: ("'and' and 'or' are not accepted", "nest where(condition, a, b)"),
    ast.Lambda: ("'lambda' is not accepted", "write the formula itself"),
    ast.Subscript: ("indexing is not accepted", "use the whole vector, e.g. sum(y)"),
    ast.JoinedStr: ("text is not accepted in an expression", "write numbers, names and calls"),
    ast.NamedExpr: ("assignment is not accepted", "write the formula itself"),
}


def parse_expression(
    text: str,
    *,
    variables: Sequence[str] = ("x",),
    parameters: Collection[str] = (),
    functions: Mapping[str, Function] = LOSS_FUNCTIONS,
    location: Location | None = None,
    role: str = "an expression",
) -> Expression:
    """Parse an expression by the allow-list; decimal literals stay exact.

    Args:
        text: e.g. ``where(x > 0, x, a*x)``.
        variables: names with a meaning of their own: ``x``, or ``y`` and ``t``.
        parameters: names of the declared parameters.
        functions: table of the functions that may be called.
        location: where the text stands in the spec, its first to its last character.
        role: what the text is, for messages, e.g. ``an activation expression``.

    Raises:
        SpecError: anything outside the language, or over its limits of length, depth, magnitude
            and exponents; its location is the offending part.

    Example:
        >>> parse_expression("-x/2")
        Binary(operator='/', left=Negative(operand=Name(identifier='x')), right=Number(value=Fraction(2, 1)))
    """
    if location is None:
        location = Location("<expression>", 1, 1, len(text) + 1, shortened(text, MAX_LENGTH))
    place = Excerpt(text, location)
    _check_text(text, place)
    # Python takes leading blanks for an indent.
    indent = len(text) - len(text.lstrip())
    if place.exact:
        location = replace(location, column=location.column + indent)
    text = text[indent:]
    place = Excerpt(text, location)
    # Same length, so offsets stay right; an expression may be folded over several lines.
    flat = text.replace("\n", " ").replace("\t", " ")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(flat, mode="eval")
    except SyntaxError as error:
        start = min(max((error.offset or 1) - 1, 0), max(len(flat) - 1, 0))
        raise SpecError(
            f"cannot read {role}: {error.msg.split(';')[0]}",
            location=place.at(start, start + 1),
            hint="an expression has numbers, names, + - * / **, parentheses and calls such as exp(x)",
        ) from None
    except (ValueError, RecursionError, MemoryError, OverflowError):
        raise _too_deep(location) from None
    visitor = _Builder(flat, place, variables, parameters, functions, role)
    return visitor.build(tree.body)


def _too_deep(location: Location) -> SpecError:
    return SpecError(
        "the expression is nested too deeply",
        location=location,
        hint=f"at most {MAX_DEPTH} levels; a sum of many terms counts one level for each",
    )


def _check_text(text: str, place: Excerpt) -> None:
    """Length, characters and nesting, before Python's parser sees the text."""
    if not text.strip():
        raise SpecError("the expression is empty", location=place.base, hint="write a formula, e.g. tanh(x)")
    if len(text) > MAX_LENGTH:
        raise SpecError(
            f"the expression is too long: {len(text)} characters",
            location=place.base,
            hint=f"at most {MAX_LENGTH} characters",
        )
    depth = 0
    for index, character in enumerate(text):
        printable = " " <= character <= "~" or character in "\n\t"
        if not printable or character in "#\\":
            raise SpecError(
                f"character {character!a} is not accepted in an expression",
                location=place.at(index, index + 1),
                hint="write Greek letters as names (alpha), powers as x**2, minus as -",
            )
        depth += (character in "([{") - (character in ")]}")
        if depth > MAX_DEPTH:
            raise _too_deep(place.at(index, index + 1))


class _Builder(ast.NodeVisitor):
    """Builds the tree; a node type without a method here is refused."""

    def __init__(
        self,
        text: str,
        place: Excerpt,
        variables: Sequence[str],
        parameters: Collection[str],
        functions: Mapping[str, Function],
        role: str,
    ) -> None:
        self.text = text
        self.place = place
        self.variables = tuple(variables)
        self.parameters = tuple(parameters)
        self.functions = functions
        self.role = role
        self.depth = 0

    def build(self, node: ast.expr) -> Expression:
        """Visit one node, watching the depth."""
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise _too_deep(self.location(node))
        result: Expression = self.visit(node)
        self.depth -= 1
        return result

    def location(self, node: ast.expr) -> Location:
        return self.place.at(node.col_offset, node.end_col_offset or node.col_offset + 1)

    def segment(self, node: ast.expr) -> str:
        return self.text[node.col_offset : node.end_col_offset]

    def fail(self, node: ast.expr, message: str, hint: str | None, label: str | None = None) -> NoReturn:
        if not self.place.exact:
            message += f" (at character {node.col_offset + 1}: {shortened(self.segment(node))})"
        raise SpecError(message, location=self.location(node), hint=hint, label=label)

    def generic_visit(self, node: ast.AST) -> NoReturn:
        """Refuse every node that has no method of its own."""
        assert isinstance(node, ast.expr)
        message, hint = _REFUSED.get(
            type(node),
            (
                f"{shortened(self.segment(node))!r} is not accepted in {self.role}",
                "an expression has numbers, names, + - * / **, parentheses and calls such as exp(x)",
            ),
        )
        self.fail(node, message, hint)

    def visit_Constant(self, node: ast.Constant) -> Number:
        """A decimal literal, exact."""
        source = self.segment(node)
        if isinstance(node.value, (str, bytes)):
            self.fail(node, *_REFUSED[ast.JoinedStr])
        match = _LITERAL.fullmatch(source)
        if match is None or isinstance(node.value, bool) or not isinstance(node.value, (int, float)):
            self.fail(
                node,
                f"{shortened(source)!r} is not an accepted number",
                "write decimal numbers, e.g. 2, 0.5 or 1e-3",
            )
        digits = match.group(1).replace(".", "").strip("0")
        if len(digits) > MAX_DIGITS:
            self.fail(node, "the number has too many digits", f"at most {MAX_DIGITS} significant digits")
        # Before the exact value is made: the power of ten of 1e-999999999 would not fit in memory.
        if digits and not 1 / MAX_MAGNITUDE <= abs(float(source)) <= MAX_MAGNITUDE:
            self.fail_magnitude(node, f"the number {shortened(source)}")
        return Number(Fraction(source) if digits else Fraction(0), self.location(node))

    def fail_magnitude(self, node: ast.expr, what: str) -> NoReturn:
        limit = f"{MAX_MAGNITUDE:g}".replace("+", "")
        self.fail(
            node, f"{what} is too large or too small", f"0, or between 1/{limit} and {limit} in magnitude"
        )

    def visit_Name(self, node: ast.Name) -> Name:
        """A variable or a declared parameter."""
        name = node.id
        if name in self.variables or name in self.parameters:
            return Name(name, self.location(node))
        if name in self.functions:
            usage = self.functions[name].usage
            self.fail(
                node, f"'{name}' is a function and needs its arguments", f"write {usage}", f"write {usage}"
            )
        known = (*self.variables, *self.parameters)
        example = f"{{{shortened(name)}: 0.1}}"
        hint = f"known here: {', '.join(known)}; declare others under parameters, e.g. {example}"
        self.fail(
            node,
            f"undeclared symbol '{shortened(name)}' in {self.role}",
            hint,
            did_you_mean(name, [*known, *self.functions]),
        )

    def visit_UnaryOp(self, node: ast.UnaryOp) -> Expression:
        """Sign."""
        if isinstance(node.op, ast.USub):
            return Negative(self.build(node.operand), self.location(node))
        if isinstance(node.op, ast.UAdd):
            return self.build(node.operand)
        self.fail(
            node,
            f"{shortened(self.segment(node))!r} is not accepted in {self.role}",
            "turn the comparison around, e.g. x <= 0 for not x > 0",
        )

    def visit_BinOp(self, node: ast.BinOp) -> Binary:
        """Arithmetic; a constant exponent is limited, and so is every constant result."""
        operator = _BINARY.get(type(node.op))
        if operator is None:
            message, hint = _OTHER_OPERATORS.get(
                type(node.op), ("this operator is not accepted", "operators are + - * / **")
            )
            self.fail(node, message, hint)
        left = self.build(node.left)
        right = self.build(node.right)
        result = Binary(operator, left, right, self.location(node))
        exponent = self.constant(node.right, right) if operator == "**" else None
        if exponent is not None and abs(exponent) > MAX_EXPONENT:
            self.fail(node.right, "the exponent is too large", f"between -{MAX_EXPONENT} and {MAX_EXPONENT}")
        value = self.constant(node, result)
        if value is not None and abs(value) > MAX_MAGNITUDE:
            self.fail_magnitude(node, "this constant")
        return result

    def constant(self, node: ast.expr, tree: Expression) -> float | None:
        """The value of a tree of numbers, which must have one; None for other trees."""
        try:
            return constant_value(tree)
        except OverflowError:
            self.fail_magnitude(node, "this constant")
        except ArithmeticError:
            self.fail(node, "this constant has no value", "no division by zero, no root of a negative number")

    def visit_Compare(self, node: ast.Compare) -> NoReturn:
        """A comparison outside ``where``."""
        self.fail(
            node,
            f"non-differentiable expression in {self.role}: a comparison is a step",
            "a comparison may only be the first argument of where(condition, a, b)",
        )

    def visit_Call(self, node: ast.Call) -> Call:
        """A call of a function of the table, with as many arguments as it takes."""
        if not isinstance(node.func, ast.Name):
            attribute = node.func.attr if isinstance(node.func, ast.Attribute) else ""
            label = f"write {attribute}" if attribute in self.functions else None
            self.fail(
                node.func,
                f"only functions by their plain name can be called in {self.role}",
                "write exp(x), not np.exp(x)",
                label,
            )
        name = node.func.id
        function = self.functions.get(name)
        if function is None:
            self.fail_function(node.func, name)
        if node.keywords or any(isinstance(argument, ast.Starred) for argument in node.args):
            self.fail(node, f"'{name}' takes plain arguments only", f"write {function.usage}")
        if len(node.args) != function.arity:
            self.fail_arity(node, function)
        first, *others = node.args
        built = self.condition(first) if function.kind == "condition" else self.build(first)
        return Call(name, (built, *map(self.build, others)), self.location(node))

    def condition(self, node: ast.expr) -> Compare:
        """The first argument of ``where``: one comparison with < <= > >=."""
        hint = "write one comparison with < <= > or >=, e.g. where(x > 0, x, 0)"
        if not isinstance(node, ast.Compare):
            if isinstance(node, ast.BoolOp):
                self.fail(node, *_REFUSED[ast.BoolOp])
            self.fail(node, "the first argument of where must be a comparison", hint)
        if len(node.ops) > 1:
            self.fail(node, "a chain of comparisons is not accepted", "nest where(condition, a, b)")
        operator = _COMPARE.get(type(node.ops[0]))
        if operator is None:
            self.fail(node, "this comparison is not accepted", hint)
        self.depth += 1
        left, right = self.build(node.left), self.build(node.comparators[0])
        self.depth -= 1
        return Compare(operator, left, right, self.location(node))

    def fail_function(self, node: ast.Name, name: str) -> NoReturn:
        """A call of something that is not in the table."""
        if name.lower() in NOT_DIFFERENTIABLE:
            hint = NOT_DIFFERENTIABLE[name.lower()]
            message = f"non-differentiable expression in {self.role}: '{name}' has no useful derivative"
            self.fail(node, message, hint)
        if name in LOSS_FUNCTIONS:
            message = f"'{name}' works on a whole vector and is accepted in losses only"
            self.fail(node, message, "an activation is a function of one number x")
        if name in self.variables or name in self.parameters:
            self.fail(node, f"'{name}' is not a function", f"write {name}*(…) for a product")
        label = did_you_mean(name, self.functions)
        if SYNONYMS.get(name.lower()) in self.functions:
            label = f"did you mean '{SYNONYMS[name.lower()]}'?"
        known = " ".join(sorted(self.functions))
        message = f"unknown function '{shortened(name)}' in {self.role}"
        self.fail(node, message, f"known functions: {known}", label)

    def fail_arity(self, node: ast.Call, function: Function) -> NoReturn:
        """A wrong number of arguments; ``max(y)`` is worth its own words."""
        if function.name in ("max", "min") and len(node.args) == 1 and "logsumexp" in self.functions:
            self.fail(
                node,
                f"non-differentiable expression in {self.role}: '{function.name}' of a vector",
                f"{function.name}(a, b) compares two numbers; logsumexp(v) is the smooth maximum",
            )
        plural = "argument" if function.arity == 1 else "arguments"
        self.fail(
            node,
            f"'{function.name}' takes {function.arity} {plural}, not {len(node.args)}",
            f"write {function.usage}",
        )
