"""Functions of entries, of one tensor or of several beside each other."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import torch

from sifrc.importing.atoms import SAMPLES, Atoms, Value, around, broadcast, renewed, size_of
from sifrc.importing.calls import Call, Refused, axes_for, number_in
from sifrc.importing.draft import LEFT_OUT

__all__ = ["RULES", "aligned", "applied", "combined"]


def _function(name: str) -> Callable[[Call], Value]:
    """An activation of the spec by its name."""

    def rule(call: Call) -> Value:
        value, source = call.directly(call.value("self"))
        return call.same(value, call.layer("activation", source, function=name))

    return rule


def _expression(text: str, **parameters: str) -> Callable[[Call], Value]:
    """A function of x, with arguments of the operator as its parameters."""

    def rule(call: Call) -> Value:
        given = {own: number_in(call[argument]) for own, argument in parameters.items()}
        missing = [parameters[own] for own, value in given.items() if value is None]
        if missing:
            raise Refused(f"{call.name} with a tensor for {missing[0]}", "a number")
        return applied(
            call, call.value("self"), text, {name: n for name, n in given.items() if n is not None}
        )

    return rule


def applied(call: Call, value: Value, text: str, parameters: Mapping[str, float] | None = None) -> Value:
    """A function of each entry, written over x and parameters."""
    stated, source = call.directly(value)
    keys: dict[str, Any] = {"parameters": dict(parameters)} if parameters else {}
    return call.same(stated, call.layer("activation", source, expression=text, **keys))


def _gelu(call: Call) -> Value:
    if call["approximate"] == "none":
        return _function("gelu")(call)
    root = 0.7978845608028654  # √(2/π), as ATen has it
    return applied(call, call.value("self"), "0.5*x*(1 + tanh(a*(x + 0.044715*x**3)))", {"a": root})


def _softplus(call: Call) -> Value:
    if float(call["beta"]) == 1.0:
        return _function("softplus")(call)
    return applied(call, call.value("self"), "softplus(b*x)/b", {"b": float(call["beta"])})


def _leaky(call: Call) -> Value:
    value, source = call.directly(call.value("self"))
    slope = {"slope": float(call["negative_slope"])}
    return call.same(value, call.layer("activation", source, function="leaky_relu", parameters=slope))


def _elu(call: Call) -> Value:
    scale, inner = float(call["scale"]), float(call["input_scale"])
    value, source = call.directly(call.value("self"))
    if (scale, inner) == (1.0, 1.0):
        keys: dict[str, Any] = {"function": "elu", "parameters": {"alpha": float(call["alpha"])}}
    else:
        numbers = {"c": scale, "b": inner, "a": float(call["alpha"])}
        keys = {"expression": "c*where(x > 0, x, a*expm1(b*x))", "parameters": numbers}
    return call.same(value, call.layer("activation", source, **keys))


def _clamp(call: Call) -> Value:
    low, high = (number_in(call.get(name)) for name in ("min", "max"))
    text = "x"
    numbers: dict[str, float] = {}
    if low is not None:
        text, numbers["a"] = f"max({text}, a)", low
    if high is not None:
        text, numbers["b"] = f"min({text}, b)", high
    return applied(call, call.value("self"), text, numbers)


def _power(call: Call) -> Value:
    exponent, base = number_in(call["exponent"]), call["self"]
    if exponent is not None:
        whole = float(exponent).is_integer()
        text = f"x**{int(exponent)}" if whole and abs(exponent) <= 64 else "x**p"
        return applied(call, call.value("self"), text, None if text != "x**p" else {"p": exponent})
    number = number_in(base)
    if number is not None:
        return applied(call, call.value("exponent"), "b**x", {"b": number})
    return combined(call, "x1**x2", [call.value("self"), call.value("exponent")])


def _scaled(call: Call, value: Value, factor: float, shift: float) -> Value:
    """factor · x + shift."""
    if (factor, shift) == (1.0, 0.0):
        return value
    stated, source = call.directly(value)
    keys: dict[str, Any] = {"value": factor, "shift": shift or None}
    return call.same(stated, call.layer("scale", source, **keys))


def _sum(sign: int, turned: bool = False) -> Callable[[Call], Any]:
    """self + sign · alpha · other, or the same with the two changed."""

    def rule(call: Call) -> Any:
        first, second = (call["other"], call["self"]) if turned else (call["self"], call["other"])
        alpha = sign * float(call.get("alpha", 1))
        one, two = number_in(first), number_in(second)
        if one is not None and two is not None:
            return torch.tensor(one + alpha * two)
        if two is not None:
            return _scaled(call, call.as_value(first), 1.0, alpha * two)
        if one is not None:
            return _scaled(call, call.as_value(second), alpha, one)
        values = [call.as_value(first), _scaled(call, call.as_value(second), alpha, 0.0)]
        if values[0].source == values[1].source and values[0].dims == values[1].dims:
            return _scaled(call, values[0], 2.0, 0.0)
        return combined(call, "add", values)

    return rule


def _product(call: Call) -> Any:
    one, two = number_in(call["self"]), number_in(call["other"])
    if one is not None and two is not None:
        return torch.tensor(one * two)
    if two is not None:
        return _scaled(call, call.value("self"), two, 0.0)
    if one is not None:
        return _scaled(call, call.value("other"), one, 0.0)
    values = [call.value("self"), call.value("other")]
    if values[0].source == values[1].source and values[0].dims == values[1].dims:
        return applied(call, values[0], "x**2")
    return combined(call, "multiply", values)


def _quotient(call: Call) -> Any:
    one, two = number_in(call["self"]), number_in(call["other"])
    if call.get("rounding_mode") is not None:
        raise Refused("division with rounding", "one without")
    if two is not None:
        return _scaled(call, call.value("self"), 1.0 / two, 0.0)
    if one is not None:
        return applied(call, call.value("other"), "a/x", {"a": one})
    return combined(call, "x1/x2", [call.value("self"), call.value("other")])


def _extreme(name: str) -> Callable[[Call], Value]:
    def rule(call: Call) -> Value:
        number = number_in(call["other"])
        if number is not None:
            return applied(call, call.value("self"), f"{name}(x, a)", {"a": number})
        return combined(call, f"{name}(x1, x2)", [call.value("self"), call.value("other")])

    return rule


def _masked(call: Call) -> Any:
    """masked_fill by fixed numbers: what is left, plus the number."""
    mask, number = call["mask"], number_in(call["value"])
    if not isinstance(mask, torch.Tensor) or number is None:
        raise Refused(
            "a mask that is computed from inputs", "a mask that the module keeps, or attention's own"
        )
    number = max(min(number, LEFT_OUT), -LEFT_OUT)
    value = call.value("self")
    filled = mask.double() * number
    if abs(number) < LEFT_OUT:
        value = combined(call, "multiply", [value, call.as_value(1.0 - mask.double())])
    return combined(call, "add", [value, call.as_value(filled)])


def combined(call: Call, what: str, values: Sequence[Value]) -> Value:
    """A layer of several tensors beside each other, dimensions of one entry repeated.

    Args:
        call: whose layer it is.
        what: ``add`` or ``multiply``; or an expression over ``x1``, ``x2``, ….
        values: two or more.
    """
    # What repeats numbers along a dimension does so in the result, unless another tensor has entries there.
    given, values = values, [once(value) for value in values]
    found = _combined(call, what, values)
    repeated = _common(given) if any(one is not two for one, two in zip(given, values, strict=True)) else ()
    dims = tuple(own or atoms for own, atoms in zip(found.dims, repeated or found.dims, strict=True))
    return replace(found, dims=dims)


def once(value: Value) -> Value:
    """With one entry along dimensions that repeat numbers."""
    held = value.held | {SAMPLES}
    dims = tuple(() if atoms and not set(atoms) & held else atoms for atoms in value.dims)
    return value if dims == value.dims else replace(value, dims=dims)


def _combined(call: Call, what: str, values: Sequence[Value]) -> Value:
    keys = {} if what in ("add", "multiply") else {"expression": what}
    kind = what if not keys else "entrywise"
    alike = _alike(call, values)
    if alike is not None:
        stated, sources = alike
        if len(set(sources)) == len(sources):
            return call.same(stated, call.layer(kind, *sources, **keys))
    dims = _common(values)
    axes = [axes_for(aligned(each, dims)) for each in broadcast(values)]
    sources = [call.draft.arranged(value, own) for value, own in zip(values, axes, strict=True)]
    if len(set(sources)) < len(sources):
        return _of_one(call, what, sources, dims)
    found = renewed(dims)
    return Value(call.layer(kind, *sources, **keys), axes_for(found), found)


def _of_one(call: Call, what: str, sources: Sequence[str], dims: Sequence[Atoms]) -> Value:
    """A function of a state with itself."""
    text = {"add": "2*x", "multiply": "x**2"}.get(what, what).replace("x1", "x").replace("x2", "x")
    found = renewed(dims)
    return Value(call.layer("activation", sources[0], expression=text), axes_for(found), found)


def _alike(call: Call, values: Sequence[Value]) -> tuple[Value, list[str]] | None:
    """States whose axes are in one order already, though it is another than that of the dimensions."""
    first = values[0]
    for other in values[1:]:
        if len(other.dims) != len(first.dims):
            return None
        pairs = list(zip(first.dims, other.dims, strict=True))
        if any([a.size for a in one] != [a.size for a in two] for one, two in pairs):
            return None
        match = {a: b for one, two in pairs for a, b in zip(one, two, strict=True)}
        if any(atom not in match for axis in first.layout for atom in axis):
            return None
        if tuple(tuple(match[a] for a in axis) for axis in first.layout) != other.layout:
            return None
    stated = [call.directly(value) for value in values]
    return stated[0][0], [source for _, source in stated]


def _common(values: Sequence[Value]) -> tuple[Atoms, ...]:
    """Dimensions of what comes out: for each the first that has several entries."""
    found: list[Atoms] = []
    for column in zip(*broadcast(values), strict=True):
        wide = [atoms for atoms in column if atoms]
        best = next((atoms for atoms in wide if SAMPLES in atoms), wide[0] if wide else ())
        for atoms in wide:
            if size_of(atoms) != size_of(best):
                raise Refused(f"dimensions of {size_of(atoms)} and {size_of(best)} entries beside each other")
        found.append(best)
    return tuple(found)


def aligned(own: Sequence[Atoms], dims: Sequence[Atoms]) -> list[Atoms]:
    """Dimensions of one tensor with as many axes as those that come out have."""
    found = []
    for mine, theirs in zip(own, dims, strict=True):
        if SAMPLES not in theirs or mine:
            if SAMPLES in theirs and SAMPLES not in mine and mine:
                raise Refused("samples beside entries of a tensor without samples")
            if SAMPLES in theirs and around(mine) != around(theirs):
                raise Refused("dimensions with samples in different places of them")
            found.append(mine)
        else:
            # Nothing for the samples, one entry for what is joined with them.
            found += [()] * len(axes_for([theirs]))
    return found


def _same(call: Call) -> Value:
    value: Value = call.value("self")
    return value


def _negative(call: Call) -> Value:
    return _scaled(call, call.value("self"), -1.0, 0.0)


_SIX = "min(max(x, 0), 6)"
RULES: Mapping[str, Callable[[Call], Any]] = MappingProxyType(
    {name: _function(name) for name in ("relu", "selu", "silu", "tanh", "sigmoid", "mish", "sin")}
    | {
        name: _expression(f"{name}(x)")
        for name in ("exp", "expm1", "log", "log1p", "sqrt", "abs", "erf", "cos")
    }
    | {name: _expression(f"{name}(x)") for name in ("atan", "sinh", "cosh", "asinh", "tan", "square")}
    | {
        "relu6": _expression(_SIX),
        "hardtanh": _expression("min(max(x, a), b)", a="min_val", b="max_val"),
        "hardswish": _expression("x*min(max(x + 3, 0), 6)/6"),
        "hardsigmoid": _expression("min(max(x + 3, 0), 6)/6"),
        "rsqrt": _expression("1/sqrt(x)"),
        "reciprocal": _expression("1/x"),
        "log_sigmoid": _expression("-softplus(-x)"),
        "gelu": _gelu,
        "softplus": _softplus,
        "leaky_relu": _leaky,
        "elu": _elu,
        "clamp": _clamp,
        "clamp_min": _clamp,
        "clamp_max": _clamp,
        "pow": _power,
        "neg": _negative,
        "add": _sum(1),
        "sub": _sum(-1),
        "rsub": _sum(-1, turned=True),
        "mul": _product,
        "div": _quotient,
        "true_divide": _quotient,
        "maximum": _extreme("max"),
        "minimum": _extreme("min"),
        "masked_fill": _masked,
    }
    | dict.fromkeys(("clone", "alias", "detach", "contiguous", "lift_fresh_copy", "_to_copy", "to"), _same)
)
"""Operator -> what it becomes."""
