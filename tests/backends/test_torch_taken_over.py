"""Formulas are computed in arrays that nobody needs afterwards, after what else reads those; values stay."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from types import ModuleType

import pytest
import sympy
import torch
from cases import CASES
from layer_cases import LAYER_CASES
from summary_oracle import spec_with

from sifrc.backends.torch_eager import functions
from sifrc.backends.torch_eager.access import accesses
from sifrc.backends.torch_eager.expressions import Entry, Formula
from sifrc.backends.torch_eager.handed_on import entrywise, handed_on, operands_of
from sifrc.backends.torch_eager.sinking import sunk
from sifrc.cache import module_from_cache
from sifrc.compiler import Request, compile_spec
from sifrc.ir.quantity import Storage
from sifrc.lower.access import absolute, flat, unrolled
from sifrc.lower.lowering import lower
from sifrc.lower.program import Function, Program
from sifrc.lower.statements import Contract
from sifrc.methods.planning import make_plan
from sifrc.model import build_model
from sifrc.spec import build_spec
from sifrc.spec.types import TargetSpec
from sifrc.verify.points import random_point

X, Y, Q, V, H = sympy.symbols("x y q v h", real=True)
ENTRIES = {
    "x": Entry("x", ("p", "i")),
    "y": Entry("y", ("p", "i")),
    "q": Entry("q", ("p", "i"), taken=True),
    "v": Entry("v", ("i",)),
    "h": Entry("h", is_float=True),
}
TEXTS = {
    "a product": (X * Q, "q.mul_(x)"),
    "with a vector": (V * Q, "q.mul_(v)"),
    "a number": (-Q, "q.neg_()"),
    "less a mean": (Q - V, "q.sub_(v)"),
    "a sum": (X + Q, "q.add_(x)"),
    "more than one product": (X * Y + H * V * Q, "q.mul_(v).mul_(h).addcmul_(x, y)"),
    "where it is no factor": (sympy.exp(Q) * X, "torch.exp(q).mul_(x)"),
}


@pytest.mark.parametrize("name", TEXTS)
def test_text(name: str) -> None:
    """What begins with the array itself takes no new one."""
    value, text = TEXTS[name]
    assert Formula(value, ("p", "i"), ENTRIES, {"p": None, "i": 4}, in_place=True).text() == text


ATTENTION = build_spec(
    {
        "sifrc": 1, "name": "attention", "loss": "cross_entropy", "dtype": "float64",
        "partition": "canonical",
        "network": {"input": {"name": "image", "size": [3, 4]}, "layers": [
            {"name": "attn", "type": "attention", "heads": 2, "causal": True},
            {"name": "up", "type": "dense", "units": 5, "activation": "tanh"},
            {"name": "flat", "type": "flatten"},
            {"name": "out", "type": "dense", "units": 3}]},
        "target": {"operators": ["gradient", "hessian_vector_product", "summary"]},
    }
)  # fmt: skip
SPECS = {"attention": ATTENTION} | {name: spec_with(CASES[name]) for name in ("skip", "tanh_cross_entropy_3")}
# Arrays of equal names live at the same time where branches stand beside each other.
SPECS["branches"] = build_spec(LAYER_CASES["branches side by side"] | {"partition": "canonical"})


def own(program: Program, function: Function) -> set[str]:
    """Families that nothing but the function has, as the backend finds them."""
    read = {family for other in program.functions for family in other.reads}
    work = {name for name in function.writes if program.family(name).storage is Storage.WORK}
    return work - read


@cache
def program_of(name: str) -> Program:
    target = TargetSpec(operators=("gradient", "hessian_vector_product", "summary"))
    return lower(make_plan(build_model(replace(SPECS[name], method=None, target=target))).plan)


@pytest.mark.parametrize("name", SPECS)
def test_nobody_needs_what_is_taken_over(name: str) -> None:
    """No statement reads an array, or its array of another name, after it was taken over."""
    program = program_of(name)
    pairs = 0
    for function in program.functions:
        function = sunk(function, own(program, function))
        taken = handed_on(function, own(program, function))
        gone: dict[object, int] = {}
        for time, (statement, k) in enumerate(unrolled(function.body)):
            for target, source in entrywise(statement):
                if (target.ref, source.ref) in taken:
                    gone[absolute(source.ref, k)] = time
        pairs += len(gone)
        for time, (statement, k) in enumerate(unrolled(function.body)):
            for load, _ in accesses(statement):
                assert time <= gone.get(absolute(load.ref, k), time)
    assert pairs


def test_a_product_that_is_computed_later_still_reads_its_operands() -> None:
    """One that stands within a formula after its place is read there."""
    program = program_of("skip")
    for function in program.functions:
        products = frozenset(s.target.ref for s in flat(function.body) if isinstance(s, Contract))
        late = operands_of(flat(function.body), products)
        taken = handed_on(function, own(program, function), products)
        for time, (statement, k) in enumerate(unrolled(function.body)):
            for target, source in entrywise(statement):
                if (target.ref, source.ref) not in taken:
                    continue
                for later, other in list(unrolled(function.body))[time + 1 :]:
                    refs = {ref for load, _ in accesses(later) for ref in late.get(load.ref, ())}
                    assert absolute(source.ref, k) not in {absolute(ref, other) for ref in refs}


def module_of(name: str, operators: tuple[str, ...], folder: Path) -> ModuleType:
    request = Request(backend="torch", method="none", operators=operators)
    return module_from_cache(f"{name}_{folder.name}", lambda: compile_spec(SPECS[name], request).text, folder)


@pytest.mark.parametrize("name", SPECS)
def test_values(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a module without it; nothing that a caller has is overwritten."""
    operators = ("gradient", "hessian_vector_product", "summary")
    found = module_of(name, operators, tmp_path / "found")
    with monkeypatch.context() as patch:
        patch.setattr(functions, "sunk", lambda function, *_: function)
        patch.setattr(functions, "handed_on", lambda *_: frozenset())
        plain = module_of(name, operators, tmp_path / "plain")
    assert Path(str(found.__file__)).read_text() != Path(str(plain.__file__)).read_text()
    point = random_point(SPECS[name], 3, 2)
    params, direction = ({n: torch.from_numpy(v) for n, v in t.items()} for t in (point.params, point.vector))
    batch = torch.from_numpy(point.inputs), torch.from_numpy(point.targets)
    given = [t.clone() for t in (*params.values(), *direction.values(), *batch)]
    results = []
    for module in (found, plain, found):
        parts = [*module.hessian_vector_product(params, *batch, direction).values()]
        for order in (2, 3):
            summary = module.summary(params, *batch, direction, order=order, gradient=True)
            parts += [t for t in summary if isinstance(t, torch.Tensor)] + [*summary.gradient.values()]
        results.append(parts)
    for one, other, again in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-13)
        assert torch.equal(one, again)
    assert all(map(torch.equal, given, (*params.values(), *direction.values(), *batch)))
