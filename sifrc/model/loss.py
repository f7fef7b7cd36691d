"""Losses: from the syntax tree of a spec to an expression over the output and the target.

Sums, products and the vector functions become tensor nodes. What is left, a nonlinear elementwise part,
becomes one scalar function of its tensor leaves, so that the scalar stage can put the whole of it in
a stable form.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from fractions import Fraction
from functools import singledispatch
from types import MappingProxyType

from sympy import S

from sifrc.errors import ModelError
from sifrc.ir import Add, Axis, Einsum, Expr, Input, LogSoftmax, LogSumExp, Map, Role
from sifrc.ir.along import spread
from sifrc.ir.build import add, apply, einsum, hadamard, inner, mapped, negative, ones, scale, total, zero
from sifrc.ir.normal import terms_of
from sifrc.ir.traverse import inputs_of, postorder
from sifrc.scalar import EXP, ScalarFunction, scalar_from_tree
from sifrc.scalar.domain import enforced, guarded
from sifrc.spec.expression import (
    Binary,
    Call,
    Compare,
    Expression,
    Name,
    Negative,
    Number,
    children,
    with_children,
)

__all__ = ["build_loss"]


def build_loss(
    tree: Expression,
    output: Input,
    target: Input,
    parameters: tuple[tuple[str, float], ...],
    mask: Expr | None = None,
) -> Expr:
    """The loss ℓ(y, t) of one sample as an expression.

    Args:
        tree: over ``y`` (the output), ``t`` (the target) and the parameters.
        output: symbol of y, over one axis.
        target: symbol of t, over the same axis.
        parameters: values of the declared parameters.
        mask: a weight of each entry in sums and means, over the same axis; None for one.

    Raises:
        ModelError: the expression is not a number, or not differentiable.
    """
    scope = _Scope(output, target, dict(parameters), mask)
    loss = _build(_stable(tree), scope)
    if target.role is Role.CLASS:
        loss = _without_offset(loss, lambda v: inner(target, v))
    if loss.axes:
        raise ModelError(
            "the loss is a vector", location=tree.location, hint="reduce it: sum(...), mean(...) or dot(...)"
        )
    kept = set(postorder(loss))
    return total([loss, *(_zero_on_domain(node) for node in scope.restricted if node not in kept)], ())


def _zero_on_domain(node: Map) -> Expr:
    """0 where a function that cancelled is a number, and not a number elsewhere: 0·log y is 0 for y ≥ 0."""
    function = node.function
    domain = enforced(function.value_form(node.orders))
    guard = ScalarFunction("loss", function.arguments, guarded(S.Zero, domain, function.argument_symbols))
    return einsum([(Map(guard, node.orders, node.operands, node.out), node.out)], ())


class _Scope:
    def __init__(self, output: Input, target: Input, parameters: dict[str, float], mask: Expr | None) -> None:
        self.tensors: dict[str, Expr] = {"y": output, "t": target}
        self.parameters = parameters
        self.mask = mask
        self.axis: Axis = output.axes[0]
        self.restricted: list[Map] = []
        """Functions that are not numbers everywhere."""

    def constant(self, tree: Expression) -> Fraction | None:
        """Exact value of a subtree without tensors, or None; also None where it is not rational.

        Raises:
            ModelError: the value is not a finite real number.
        """
        match tree:
            case Number(value=value):
                return value
            case Name(identifier=name) if name in self.parameters:
                return Fraction(repr(self.parameters[name]))
        names = _names(tree)
        if any(name not in self.parameters for name in names) or _has_vectors(tree):
            return None
        declared = tuple((name, value) for name, value in self.parameters.items() if name in names)
        value = scalar_from_tree(tree, (), declared, "loss").value_form(())
        return Fraction(int(value.p), int(value.q)) if value.is_Rational else None


def _has_vectors(tree: Expression) -> bool:
    """Whether a function of vectors is called somewhere."""
    own = isinstance(tree, Call) and tree.function in _VECTOR_FUNCTIONS
    return own or any(map(_has_vectors, children(tree)))


def _stable(tree: Expression) -> Expression:
    """Recognise log-sum-exp written out: log(sum(exp(v))), exp(v)/sum(exp(v)), log(softmax(v))."""
    match tree:
        case Call(
            function="log", arguments=(Call(function="sum", arguments=(Call(function="exp", arguments=v),)),)
        ):
            return Call("logsumexp", tuple(map(_stable, v)), tree.location)
        case Call(function="log", arguments=(Call(function="softmax", arguments=v),)):
            return Call("log_softmax", tuple(map(_stable, v)), tree.location)
        case Call(function="exp", arguments=(Call(function="log_softmax", arguments=v),)):
            return Call("softmax", tuple(map(_stable, v)), tree.location)
        case Binary(
            operator="/",
            left=Call(function="exp", arguments=(u,)),
            right=Call(function="sum", arguments=(Call(function="exp", arguments=(v,)),)),
        ) if u == v:
            return Call("softmax", (_stable(u),), tree.location)
        case Call():
            rebuilt = with_children(tree, _stable)
            return rebuilt if rebuilt == tree else _stable(rebuilt)
        case Binary() | Negative():
            return with_children(tree, _stable)
    return tree


def _join(left: Expr, right: Expr) -> tuple[Axis, ...]:
    return left.axes or right.axes


@singledispatch
def _build(tree: Expression, scope: _Scope) -> Expr:
    raise TypeError(f"no loss rule for {type(tree).__name__}")


@_build.register
def _(tree: Number, scope: _Scope) -> Expr:
    return scale(tree.value, ones())


@_build.register
def _(tree: Name, scope: _Scope) -> Expr:
    if tree.identifier in scope.tensors:
        return scope.tensors[tree.identifier]
    value = scope.constant(tree)
    if value is None:
        raise ModelError(f"undeclared symbol '{tree.identifier}'", location=tree.location)
    return scale(value, ones())


@_build.register
def _(tree: Negative, scope: _Scope) -> Expr:
    return negative(_build(tree.operand, scope))


@_build.register
def _(tree: Compare, scope: _Scope) -> Expr:
    raise ModelError(
        "a comparison is not a number", location=tree.location, hint="use where(condition, a, b)"
    )


@_build.register
def _(tree: Binary, scope: _Scope) -> Expr:
    constant = scope.constant(tree)
    if constant is not None:
        return scale(constant, ones())
    if tree.operator in ("+", "-"):
        left, right = _build(tree.left, scope), _build(tree.right, scope)
        axes = _join(left, right)
        sign = Fraction(1 if tree.operator == "+" else -1)
        built = add([(Fraction(1), spread(left, axes)), (sign, spread(right, axes))], axes)
        return _without_offset(built, lambda v: v) if axes else built
    exponent = scope.constant(tree.right)
    if tree.operator == "*" and not (_is_restricted(tree.left, scope) and _is_restricted(tree.right, scope)):
        left, right = _build(tree.left, scope), _build(tree.right, scope)
        return einsum([(left, left.axes), (right, right.axes)], _join(left, right))
    if tree.operator == "/" and exponent is not None:
        if exponent == 0:
            raise ModelError("division by zero", location=tree.right.location)
        return scale(1 / exponent, _build(tree.left, scope))
    if tree.operator == "**" and exponent == 2 and _is_affine(tree.left, scope):
        base = _build(tree.left, scope)
        return einsum([(base, base.axes), (base, base.axes)], base.axes)
    return _nonlinear(tree, scope)


@_build.register
def _(tree: Call, scope: _Scope) -> Expr:
    rule = _VECTOR_FUNCTIONS.get(tree.function)
    if rule is None:
        return _nonlinear(tree, scope)
    if tree.function == "dot" and all(_is_restricted(argument, scope) for argument in tree.arguments):
        product = Binary("*", tree.arguments[0], tree.arguments[1], tree.location)
        return _build(Call("sum", (product,), tree.location), scope)
    arguments = [spread(_build(argument, scope), (scope.axis,)) for argument in tree.arguments]
    if scope.mask is not None and tree.function in ("sum", "mean"):
        arguments = [hadamard(scope.mask, *arguments)]
    return rule(scope.axis, *arguments)


def _sum(v: Expr) -> Expr:
    """Σ of the entries; of a product the same contraction as dot."""
    factors = v.operands if isinstance(v, Einsum) else ((v, v.axes),)
    return einsum([*factors, (ones(v.axes), v.axes)], ())


def _is_restricted(tree: Expression, scope: _Scope) -> bool:
    """Whether a power, a root or a logarithm of entries is taken: two such factors belong in one function.

    There it is seen that √y √y is y for y ≥ 0 only. A rational number is none, however it is written.
    """
    match tree:
        case Call(function=function, arguments=arguments) if function not in _VECTOR_FUNCTIONS:
            own = function in ("sqrt", "log", "log1p")
            found = own or any(_is_restricted(argument, scope) for argument in arguments)
            return found and scope.constant(tree) is None
        case Binary(operator=operator, left=left, right=right):
            power = operator == "**" and (scope.constant(right) or Fraction(1, 2)).denominator != 1
            found = power or _is_restricted(left, scope) or _is_restricted(right, scope)
            return found and scope.constant(tree) is None
        case Negative(operand=operand):
            return _is_restricted(operand, scope)
    return False


def _log_sum_exp(axis: Axis, v: Expr) -> Expr:
    # Of one entry it is that entry, and its softmax is one: nothing is left to differentiate.
    return (
        einsum([(v, v.axes)], tuple(a for a in v.axes if a != axis)) if axis.size == 1 else LogSumExp(v, axis)
    )


def _log_softmax(axis: Axis, v: Expr) -> Expr:
    return zero(v.axes) if axis.size == 1 else LogSoftmax(v, axis)


def _without_offset(expr: Expr, part: Callable[[Expr], Expr]) -> Expr:
    """Write log Σ exp v − part(v), wherever it is in a sum, as −part(log softmax v).

    Both terms hold the number that all entries of v have in common, and its digits would be lost in their
    difference.

    Args:
        expr: a sum.
        part: linear, and one for entries that are all one: v itself, or its entry at the class.
    """
    for factor, term in expr.terms if isinstance(expr, Add) else ():
        whole = term.operands[0][0] if isinstance(term, Einsum) and len(term.operands) == 1 else term
        if isinstance(whole, LogSumExp):
            v = whole.operand
            rest = add([(Fraction(1), expr), (-factor, term), (factor, part(v))], expr.axes)
            if len(terms_of(rest)) < len(terms_of(expr)) - 1 or rest is zero(expr.axes):
                return add([(Fraction(1), rest), (-factor, part(LogSoftmax(v, whole.over)))], expr.axes)
    return expr


_VECTOR_FUNCTIONS: Mapping[str, Callable[..., Expr]] = MappingProxyType(
    {
        "sum": lambda axis, v: _sum(v),
        "mean": lambda axis, v: scale(Fraction(1, axis.entries), _sum(v)),
        "dot": lambda axis, u, v: inner(u, v),
        "logsumexp": _log_sum_exp,
        "log_softmax": _log_softmax,
        "softmax": lambda axis, v: apply(EXP, _log_softmax(axis, v)),
    }
)


def _is_affine(tree: Expression, scope: _Scope) -> bool:
    """Whether a subtree is a linear combination of tensor leaves and numbers."""
    if scope.constant(tree) is not None:
        return True
    match tree:
        case Name() | Number():
            return True
        case Negative(operand=operand):
            return _is_affine(operand, scope)
        case Call(function=function):
            return function in _VECTOR_FUNCTIONS
        case Binary(operator="+" | "-", left=left, right=right):
            return _is_affine(left, scope) and _is_affine(right, scope)
        case Binary(operator="*", left=left, right=right):
            constants = scope.constant(left), scope.constant(right)
            return constants != (None, None) and _is_affine(left, scope) and _is_affine(right, scope)
        case Binary(operator="/", left=left, right=right):
            return scope.constant(right) is not None and _is_affine(left, scope)
    return False


def _leaves(tree: Expression, scope: _Scope) -> int:
    """Number of tensor leaves of an affine subtree."""
    match tree:
        case Name(identifier=name):
            return int(name in scope.tensors)
        case Call():
            return 1
        case Negative(operand=operand):
            return _leaves(operand, scope)
        case Binary(left=left, right=right):
            return _leaves(left, scope) + _leaves(right, scope)
    return 0


def _nonlinear(tree: Expression, scope: _Scope) -> Expr:
    """One scalar function of the tensor leaves of an elementwise expression."""
    found: dict[Expression, tuple[str, Expr]] = {}
    body = _with_leaves(tree, scope, found)
    names = [name for name in _names(body) if name not in scope.parameters]
    leaves = dict(found.values()) | scope.tensors
    arguments = tuple(dict.fromkeys(names))
    if len(arguments) == 1 and body == Call("exp", (Name(arguments[0]),)):
        return apply(EXP, leaves[arguments[0]])
    declared = tuple((name, value) for name, value in scope.parameters.items() if name in _names(body))
    function = scalar_from_tree(body, arguments, declared, "loss")
    operands = tuple((leaves[name], leaves[name].axes) for name in arguments)
    axes = next((leaves[name].axes for name in arguments if leaves[name].axes), ())
    result = mapped(function, (0,) * len(arguments), operands, axes)
    if isinstance(result, Map) and enforced(function.value_form((0,) * len(arguments))):
        scope.restricted.append(result)
    return result


def _with_leaves(tree: Expression, scope: _Scope, found: dict[Expression, tuple[str, Expr]]) -> Expression:
    """The tree with vector functions, and affine parts of several leaves, replaced by names.

    A name begins with ``_``, and with ``_t`` where the part is made of targets alone.
    """
    is_vector = isinstance(tree, Call) and tree.function in _VECTOR_FUNCTIONS
    if is_vector or (_leaves(tree, scope) > 1 and _is_affine(tree, scope)):
        if tree not in found:
            leaf = _build(tree, scope)
            given = scope.tensors["y"] not in inputs_of(leaf)
            found[tree] = f"_{'t' if given else ''}{len(found)}", leaf
        return Name(found[tree][0], tree.location)
    return with_children(tree, lambda part: _with_leaves(part, scope, found))


def _names(tree: Expression) -> list[str]:
    if isinstance(tree, Name):
        return [tree.identifier]
    return [name for part in children(tree) for name in _names(part)]
