"""Single statements of a hand-made program as Torch code, run against NumPy's einsum."""

from __future__ import annotations

import re

import numpy as np
import pytest
import sympy
import torch
from torch_cases import imported

from sifrc.backends.layout import statement
from sifrc.backends.torch_eager.access import Names
from sifrc.backends.torch_eager.statements import Writer
from sifrc.ir.quantity import Storage
from sifrc.lower.arrays import Family, Load, Ref, Subscript
from sifrc.lower.program import Program
from sifrc.lower.statements import Assign, Contract, Kernel, LogSumExpOver, MaximumOver, Sum

B, N, M = 3, 4, 5
SHAPES = {
    "s": (),
    "u": (N,),
    "v": (M,),
    "q": (None,),
    "X": (None, N),
    "Z": (None, M),
    "A": (N, M),
    "C": (M, N),
}
SHAPES |= {"S": (N, N), "T": (None, N, N), "W": (N, M)}
SHAPES |= {
    "D": (2, None, M, N),
    "E": (2, M, None, N),
    "F": (None, N, N),
    "G": (2, None, M, N),
    "K": (2, None, N, M),
}


def symbols(text):
    return sympy.symbols(text, real=True)


def family(name, shape):
    storage = {"W": Storage.MEMORY, "h": Storage.HYPERPARAMETER}.get(name, Storage.WORK)
    return Family(name, name, storage, ((None, shape),), name)


PROGRAM = Program((*(family(name, shape) for name, shape in SHAPES.items()), family("h", ())), (), ())


def load(text):
    """``X:pi`` is X at the labels p, i."""
    name, _, labels = text.partition(":")
    return Load(Ref(name), tuple(labels))


def lines(*statements, inlined=()):
    return Writer(Names(PROGRAM, True), frozenset(inlined)).block(statements)


def values():
    generator = np.random.default_rng(0)
    found = {n: generator.standard_normal([B if k is None else k for k in s]) for n, s in SHAPES.items()}
    return found | {"h": 0.25}


def run(written, target, folder):
    """Execute printed lines on random tensors; the new value of the target."""
    names = ", ".join(values())
    text = ["import torch", f"def run({names}):", f"    like, batch = {target}, {B}"]
    text += [line for one in written for line in statement(one, 4)] + [f"    return {target}"]
    path = folder / "printed_statements.py"
    path.write_text("\n".join(text) + _HELPER)
    given = {n: torch.tensor(v) if n != "h" else v for n, v in values().items()}
    return imported(path).run(**given).numpy()


_HELPER = """

def _scaled_product(left, right, scale):
    return torch.addmm(left.new_zeros(()), left, right, beta=0, alpha=scale)


def _sum_of_few(x, dim):
    return sum(x.unbind(dim))


def _sum_of_few_products(x, y, dim):
    return sum(a * b for a, b in zip(x.unbind(dim), y.unbind(dim), strict=True))
"""

PRODUCTS = [
    "X:pi=Z:pj,A:ij",
    "X:pi=A:ij,Z:pj",
    "X:pi=Z:pj,C:ji",
    "A:ij=X:pi,Z:pj",
    "A:ij=Z:pj,X:pi",
    "u:i=A:ij,v:j",
]
PRODUCTS += ["v:j=A:ij,u:i", "A:ij=u:i,v:j", "A:ij=v:j,u:i", "s:=u:i,u:i", "q:p=X:pi,X:pi", "S:ij=A:im,A:jm"]
PRODUCTS += ["T:pij=X:pi,X:pj", "X:pi=T:pij,X:pj"]
PRODUCTS += (
    GROUPED := ["G:gpmn=D:gpmi,F:pni", "K:gpmn=F:pmi,D:gpni", "E:gmpn=D:gpmi,F:pni", "K:gpmn=F:pmi,E:gnpi"]
)


@pytest.mark.parametrize("scale", ["1", "h", "-2*h", "s"])
@pytest.mark.parametrize("case", PRODUCTS)
def test_contractions(case, scale, tmp_path):
    """Every form of product, with numbers and scalar tensors as factors, alone and added to a tensor."""
    target, operands = case.split("=")
    left, right = operands.split(",")
    factor = {"1": sympy.S.One, "h": symbols("h"), "-2*h": -2 * symbols("h"), "s": symbols("s")}[scale]
    loads = tuple((name, load(name)) for name in ("h", "s") if name in scale)
    product = Contract(load(target), load(left), load(right), factor, loads)
    v = values()
    number = {"1": 1.0, "h": v["h"], "-2*h": -2 * v["h"], "s": v["s"]}[scale]
    spec = f"{left.split(':')[1]},{right.split(':')[1]}->{target.split(':')[1]}"
    expected = number * np.einsum(spec, v[left.split(":")[0]], v[right.split(":")[0]])
    name = target.split(":")[0]
    np.testing.assert_allclose(run(lines(product), name, tmp_path), expected, rtol=1e-12, atol=1e-12)
    temporary = load(target)
    other = "W" if name == "A" else name
    value = symbols("old") * 3 - symbols("new") / 2
    kernel = Kernel(
        temporary.labels,
        (Assign(load(target), value),),
        (("new", temporary), ("old", load(target.replace(name, other, 1)))),
    )
    if name == "A":
        written = lines(product, kernel)
        assert len(written) == 1
        np.testing.assert_allclose(
            run(written, name, tmp_path), 3 * v[other] - expected / 2, rtol=1e-12, atol=1e-12
        )


@pytest.mark.parametrize("case", GROUPED)
def test_products_of_groups_lie_as_they_are_read(case, tmp_path):
    """Groups are not behind samples, where ``torch.einsum`` has them; the scale is at the small operand."""
    target, operands = case.split("=")
    left, right = map(load, operands.split(","))
    (line,) = lines(Contract(load(target), left, right, symbols("h"), (("h", load("h")),)))
    assert "einsum" not in line and re.search(r"h \* F", line)
    text = ["import torch", f"def run({', '.join(values())}):", f"    {line}", f"    return {target[0]}"]
    path = tmp_path / "lies.py"
    path.write_text("\n".join(text) + "\n")
    given = {n: torch.tensor(v) if n != "h" else v for n, v in values().items()}
    found = imported(path).run(**given)
    assert found.is_contiguous() or target.startswith("E")


KERNELS = {
    "broadcast": ("X:pi", "x*y + w", {"x": "X:pi", "y": "u:i", "w": "q:p"},
                  lambda v: v["X"] * v["u"] + v["q"][:, None]),
    "transpose": ("A:ij", "x - y", {"x": "A:ij", "y": "C:ji"}, lambda v: v["A"] - v["C"].T),
    "outer": ("T:pij", "x*y + w", {"x": "X:pi", "y": "X:pj", "w": "S:ij"},
              lambda v: np.einsum("pi,pj->pij", v["X"], v["X"]) + v["S"]),
    "expand": ("X:pi", "x", {"x": "u:i"}, lambda v: np.tile(v["u"], (B, 1))),
    "constant": ("X:pi", "2", {}, lambda v: np.full((B, N), 2.0)),
    "diagonal": ("u:i", "x", {"x": "S:ii"}, lambda v: np.diag(v["S"])),
    "in place": ("W:ij", "h*w + (1 - h)*a", {"w": "W:ij", "a": "A:ij", "h": "h"},
                 lambda v: v["h"] * v["W"] + (1 - v["h"]) * v["A"]),
    "step": ("W:ij", "w - h*a", {"w": "W:ij", "a": "A:ij", "h": "h"}, lambda v: v["W"] - v["h"] * v["A"]),
    "step by a tensor": ("W:ij", "w - h*s*a", {"w": "W:ij", "a": "A:ij", "h": "h", "s": "s"},
                         lambda v: v["W"] - v["h"] * v["s"] * v["A"]),
    "average": ("X:pi", "x + h*s*y - h*s*x", {"x": "X:pi", "y": "u:i", "h": "h", "s": "s"},
                lambda v: v["X"] + v["h"] * v["s"] * (v["u"] - v["X"])),
    "inner sum": ("X:pi", "s*x*(s*y + 2*y) - x", {"x": "X:pi", "y": "u:i", "s": "s"},
                  lambda v: v["s"] * v["X"] * (v["s"] + 2) * v["u"] - v["X"]),
    "nonlinear": ("W:ij", "w**2", {"w": "W:ij"}, lambda v: v["W"] ** 2),
}  # fmt: skip


def expression(text):
    """A tiny reader for the tables above: sums of products of names and numbers."""
    table = {
        "x*y + w": lambda x, y, w, **_: x * y + w,
        "x - y": lambda x, y, **_: x - y,
        "x": lambda x, **_: x,
        "2": lambda **_: sympy.Integer(2),
        "h*w + (1 - h)*a": lambda h, w, a, **_: h * w + (1 - h) * a,
        "w - h*a": lambda h, w, a, **_: w - h * a,
        "w**2": lambda w, **_: w**2,
        "w - h*s*a": lambda w, h, s, a, **_: w - h * s * a,
        "x + h*s*y - h*s*x": lambda x, y, h, s, **_: x + h * s * y - h * s * x,
        "s*x*(s*y + 2*y) - x": lambda x, y, s, **_: s * x * (s * y + 2 * y) - x,
    }
    return table[text](**{name: symbols(name) for name in "xywahs"})


def _kernel(target, text, loads):
    bound = tuple((name, load(where)) for name, where in sorted(loads.items()))
    return Kernel(load(target).labels, (Assign(load(target), expression(text)),), bound)


@pytest.mark.parametrize("case", KERNELS)
def test_kernels(case, tmp_path):
    """Broadcasting by labels, and writing into memory in place."""
    target, text, loads, expected = KERNELS[case]
    kernel = _kernel(target, text, loads)
    found = run(lines(kernel), target.split(":")[0], tmp_path)
    np.testing.assert_allclose(found, expected(values()), rtol=1e-14)


def test_assignments_of_a_kernel_run_in_order(tmp_path):
    """a := a + product, x := a², where the second sees the new a; the product has no array of its own."""
    a, z = symbols("a z")
    product = Contract(load("X:pi"), load("Z:pj"), load("A:ij"), sympy.S.One)
    kernel = Kernel(
        ("p", "i"),
        (Assign(load("X:pi"), a + z), Assign(load("X:pi"), a**2)),
        (("a", load("X:pi")), ("z", load("u:i"))),
    )
    written = lines(product, kernel)
    assert written == ["X = torch.addmm(u, Z, A.T)", "X = X**2"]
    v = values()
    np.testing.assert_allclose(run(written, "X", tmp_path), (v["Z"] @ v["A"].T + v["u"]) ** 2, rtol=1e-12)


@pytest.mark.parametrize("target", ["A", "C"])
def test_assignments_of_a_kernel_have_axes_of_their_own(target, tmp_path):
    """One array over (i, j) and one over (j, i), of the same entries."""
    a = symbols("a")
    assigns = (Assign(load("A:ij"), a + 1), Assign(load("C:ji"), 2 * a))
    found = run(lines(Kernel(("i", "j"), assigns, (("a", load("W:ij")),))), target, tmp_path)
    weight = values()["W"]
    np.testing.assert_allclose(found, weight + 1 if target == "A" else 2 * weight.T)


def test_kronecker_delta_is_an_identity_matrix(tmp_path):
    """T_pij = x_pi δ_ij − x_pi x_pj."""
    x, y = symbols("x y")
    i, j = sympy.symbols("i j", integer=True)
    delta = sympy.Piecewise((sympy.S.One, sympy.Eq(i, j)), (sympy.S.Zero, True))
    kernel = Kernel(
        ("p", "i", "j"),
        (Assign(load("T:pij"), x * delta - x * y),),
        (("x", load("X:pi")), ("y", load("X:pj"))),
    )
    v = values()["X"]
    expected = np.stack([np.diag(row) - np.outer(row, row) for row in v])
    np.testing.assert_allclose(run(lines(kernel), "T", tmp_path), expected, rtol=1e-14)


@pytest.mark.parametrize(
    ("window", "text"),
    [((None, 1), "T[:, 1]"), ((None, None, 1), "T[:, :, 1]"), ((1, None, None), "T[1]"), ((None, None), "T")],
)
def test_windows(window, text):
    """What is whole at the end is left out, and nothing else."""
    assert Names(PROGRAM, True).array(Load(Ref("T"), ("i",), window)) == text


def test_numbers_are_multiplied_first():
    """One pass for every tensor; tensors without dimensions count as numbers."""
    texts = {name: lines(_kernel(*KERNELS[name][:3])) for name in ("step by a tensor", "average")}
    assert texts["step by a tensor"] == ["W.addcmul_(A, s, value=-h)"]
    assert texts["average"] == ["X = (h*s)*u + (-h*s + 1.0)*X"]


def test_a_sum_over_all_but_the_first_label_is_a_product_with_a_vector(tmp_path):
    """Σ_ij t_pij² s_ij, with a factor before it; a factor of another shape has to be spread."""
    t, s, x, h = symbols("t s x h")
    loads = (("h", load("h")), ("s", load("S:ij")), ("t", load("T:pij")), ("x", load("X:pi")))
    v = values()
    cases = {
        -h * s * t**2: -v["h"] * np.einsum("pij,ij->p", v["T"] ** 2, v["S"]),
        h * s * t * x: v["h"] * np.einsum("pij,ij,pi->p", v["T"], v["S"], v["X"]),
        s**2 * t: np.einsum("pij,ij->p", v["T"], v["S"] ** 2),
        t * (s + x): np.einsum("pij,pij->p", v["T"], v["S"] + v["X"][:, :, None]),
        t * x: np.einsum("pij,pi->p", v["T"], v["X"]),
    }
    for position, (value, expected) in enumerate(cases.items()):
        statement = Sum(
            load("q:p"), ("i", "j"), value, tuple(e for e in loads if symbols(e[0]) in value.free_symbols)
        )
        written = lines(statement)
        assert any("@" in line for line in written) == (position < 3)
        np.testing.assert_allclose(run(written, "q", tmp_path), expected, rtol=1e-12)


def test_sums_and_reductions(tmp_path):
    """Sums over any labels, with factors that do not depend on them; log-sum-exp and maximum."""
    x, y, h = symbols("x y h")
    v = values()
    loads = (("h", load("h")), ("x", load("X:pi")), ("y", load("q:p")))
    cases = [
        (Sum(load("q:p"), ("i",), h * x**2, loads), "q", v["h"] * (v["X"] ** 2).sum(1)),
        (Sum(load("u:i"), ("p",), -h * x * y, loads), "u", -v["h"] * (v["X"] * v["q"][:, None]).sum(0)),
        (Sum(load("s"), ("i", "p"), x + y, loads), "s", (v["X"] + v["q"][:, None]).sum()),
        (LogSumExpOver(load("q:p"), load("X:pi"), "i"), "q", np.log(np.exp(v["X"]).sum(1))),
        (MaximumOver(load("u:i"), load("X:pi"), "p"), "u", v["X"].max(0)),
    ]
    for case, target, expected in cases:
        np.testing.assert_allclose(run(lines(case), target, tmp_path), expected, rtol=1e-12)


def test_subscripts_are_those_of_the_equations():
    """Members by their own subscript, in loops relative to k."""
    indexed = Family("x", "x", Storage.WORK, ((0, (None, N)), (1, (None, N))), "x")
    names = Names(Program((indexed,), (), ()), True)
    texts = [
        names.ref(Ref("x", Subscript(offset, relative)))
        for offset, relative in ((0, True), (-1, True), (1, False))
    ]
    assert texts == ["x[k]", "x[k - 1]", "x[1]"]


def test_sums_along_several_short_axes(tmp_path):
    """Of a tensor, and of products of two and three, the outer axis after the inner one."""
    t, s, x, u = symbols("t s x u")
    loads = (("s", load("S:ij")), ("t", load("T:pij")), ("x", load("X:pi")), ("u", load("u:i")))
    v = values()
    cases = {
        ("q:p", ("i", "j"), t * (s + x)): np.einsum("pij,pij->p", v["T"], v["S"] + v["X"][:, :, None]),
        ("X:pi", ("j",), t**2): np.einsum("pij,pij->pi", v["T"], v["T"]),
        ("X:pi", ("j",), t * s * x): np.einsum("pij,ij,pi->pi", v["T"], v["S"], v["X"]),
        ("q:p", ("i",), x * u): v["X"] @ v["u"],
        ("q:p", ("i",), x): v["X"].sum(1),
    }
    for (target, over, value), expected in cases.items():
        written = lines(
            Sum(load(target), over, value, tuple(e for e in loads if symbols(e[0]) in value.free_symbols))
        )
        assert any("_sum_of_few" in line for line in written)
        np.testing.assert_allclose(run(written, target[0], tmp_path), expected, rtol=1e-12)
