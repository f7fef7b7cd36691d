"""Formulas as operations on one new tensor: what is printed, that values stay, and that operands do."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import sympy
import torch

from sifrc.backends.layout import statement
from sifrc.backends.torch_eager.expressions import Entry, Formula, update_text
from sifrc.scalar import helpers

X, Y, Z, V, H, P, T = sympy.symbols("x y z v h p target", real=True)
ENTRIES = {
    **{name: Entry(name, ("p", "i")) for name in ("x", "y", "z")},
    "v": Entry("v", ("i",)),
    "h": Entry("h", is_float=True),
    "p": Entry("(x @ m)", ("p", "i"), ready=True, computed=True),
}
CASES = {
    "product of two": (X * Y, "x*y"),
    "product of three": (X * Y * Z, "(x*y).mul_(z)"),
    "a number": (-X * Y, "(x*y).neg_()"),
    "a scaled one": (H * X * Y, "(x*y).mul_(h)"),
    "a quotient": (X * Y / (Z**2 + 1), "(x*y).div_(z**2 + 1.0)"),
    "sum of products": (X * Y - H * Z * V, "(x*y).addcmul_(v, z, value=-h)"),
    "sum of three": (X + Y - 2 * Z, "(x + y).sub_(z, alpha=2.0)"),
    "two terms": (X + Y, "x + y"),
    "with a number": (1 - X**2, "1.0 - x**2"),
    "a vector alone is no place": (V * sympy.exp(V) + X, "v*torch.exp(v) + x"),
    "what is computed": (P - X * Y, "(x @ m).addcmul_(x, y, value=-1.0)"),
    "a computed factor": (Y * sympy.exp(X), "torch.exp(x).mul_(y)"),
    "a sum as a factor": (Z * (X * Y + Z * V), "(v*z).addcmul_(x, y).mul_(z)"),
    "what a function multiplies": (
        X * Y * Z * (1 - X**2),
        "torch.ops.aten.tanh_backward((x*y).mul_(z), x)",
    ),
    "four factors": (X * Y + V * X * Y * Z, "(x*y).addcmul_((x*y).mul_(v), z)"),
}


def formula(value: sympy.Expr, *, in_place: bool) -> Formula:
    """At the entries of a matrix."""
    return Formula(value, ("p", "i"), ENTRIES, {"p": None, "i": 4}, in_place=in_place)


@pytest.mark.parametrize("name", CASES)
def test_text_and_values(name: str) -> None:
    """As without operations in place, and nothing that others have is overwritten."""
    value, text = CASES[name]
    found = formula(value, in_place=True).text()
    plain = formula(value, in_place=False).text()
    assert found == text and "_(" not in plain
    torch.manual_seed(0)
    scope: dict[str, Any] = {n: torch.randn(3, 4, dtype=torch.float64) for n in ("x", "y", "z")}
    scope |= {"v": torch.randn(4, dtype=torch.float64), "m": torch.randn(4, 4, dtype=torch.float64)}
    before = {n: t.clone() for n, t in scope.items()}
    scope |= {"torch": torch, "Tensor": torch.Tensor, "h": 0.75}
    exec(helpers("torch", ()), scope)
    torch.testing.assert_close(eval(found, scope), eval(plain, scope), rtol=1e-13, atol=1e-13)
    assert all(torch.equal(scope[n], t) for n, t in before.items())


WINDOWS = {
    "a product": (X * Y, "torch.mul(x, y, out=target[:3])"),
    "products": (X * Y - 2 * Z * V, "torch.mul(x, y, out=target[:3]).addcmul_(v, z, value=-2.0)"),
    "a sum": (X + Y, "torch.add(x, y, out=target[:3])"),
    "a slope": (
        2 * Y * (1 - X**2),
        "torch.ops.aten.tanh_backward.grad_input(y, x, grad_input=target[:3]).mul_(2.0)",
    ),
    "a slope and a term": (
        Y * (1 - X**2) - Z,
        "torch.ops.aten.tanh_backward.grad_input(y, x, grad_input=target[:3]).sub_(z)",
    ),
    "a function": (sympy.exp(X), "target[:3].copy_(torch.exp(x))"),
    "added": (T + X * Y, "target[:3].addcmul_(x, y)"),
    "added twice": (T - X * Y + H * Z * V, "target[:3].addcmul_(v, z, value=h).addcmul_(x, y, value=-1.0)"),
    "one that it reads": (T * X, "target[:3].copy_(target*x)"),
}


@pytest.mark.parametrize("name", WINDOWS)
def test_windows(name: str) -> None:
    """What goes to a part of a tensor is computed there, and nowhere first."""
    value, text = WINDOWS[name]
    entries = ENTRIES | {"target": Entry("target", ("p", "i"))}
    whole = Formula(value, ("p", "i"), entries, {"p": None, "i": 4}, in_place=True)
    found = update_text("target[:3]", T if name.startswith("added") else None, whole)
    assert found == text
    torch.manual_seed(0)
    scope: dict[str, Any] = {n: torch.randn(3, 4, dtype=torch.float64) for n in ("x", "y", "z", "target")}
    scope |= {"v": torch.randn(4, dtype=torch.float64), "torch": torch, "h": 0.75}
    expected = eval(replace(whole, in_place=False).text(), scope)
    before = {n: scope[n].clone() for n in ("x", "y", "z", "v")}
    exec(found, scope)
    torch.testing.assert_close(scope["target"], expected, rtol=1e-13, atol=1e-13)
    assert all(torch.equal(scope[n], t) for n, t in before.items())


def test_what_is_around_a_named_part_is_written_anew() -> None:
    """Also where the part is in a named argument."""
    first, second = "tangent_x[k + 15][:, :, :, None]", "tangent_x[k + 14]"
    out = "tangent_x[k + 16][: len(tangent_x[k + 14])]"
    text = (
        f"torch.mul({first}, moves.permute(0, 2, 1), out={out}).addcmul_({second}, weights[k + 16] * scale)"
    )
    lines = statement(text, 8)
    assert all(len(line) <= 110 for line in lines)
    names = {line.split()[0] for line in lines[:-1]}
    assert names and all(sum(name in line for line in lines) == 2 for name in names)


def test_a_part_that_is_overwritten_has_a_name_of_its_own() -> None:
    """A long line is taken apart; what reads the same elsewhere is not what has been changed by then."""
    product = "(first_operand[2].permute(1, 0) * second_operand[2][:, None])"
    chain = f"{product}.addcmul_(second_operand[2][:, None], third_operand[2].permute(1, 0) ** 2)"
    factor = "third_operand[2].permute(1, 0)"
    line = f"found = {chain}.mul_({factor}).addcmul_({product}, {factor}, value=2.0)"
    lines = statement(line, 4)
    assert len(lines) > 1
    torch.manual_seed(1)
    names = ("first_operand", "second_operand", "third_operand")
    shapes = ((4, 4), (4,), (4, 4))
    scope = {name: {2: torch.randn(shape)} for name, shape in zip(names, shapes, strict=True)}
    whole, parts = dict(scope), dict(scope)
    exec(line, whole)
    exec("\n".join(text.strip() for text in lines), parts)
    assert torch.equal(whole["found"], parts["found"])
