"""The validator: it takes what the passes make, and refuses what they must not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import sympy
from cases import CASES

from sifrc.catalogue.meaning import Value
from sifrc.catalogue.record import Mean, Operator
from sifrc.compiler import Request, compile_spec
from sifrc.ir.quantity import Storage
from sifrc.lower.arrays import Family, Load, Ref, Slot, Subscript, Upto
from sifrc.lower.lowering import Passes, lower
from sifrc.lower.program import Place, Program
from sifrc.lower.statements import (
    Assign,
    ConjugateGradients,
    Contract,
    Fresh,
    Guard,
    Kernel,
    LogSoftmaxOver,
    LogSumExpOver,
    Loop,
    MatrixFunction,
    MaximumOver,
    SolveCubic,
    SolveKronecker,
    SolveSylvester,
    SolveSystem,
    Statement,
    Sum,
)
from sifrc.lower.validate import ProgramError, validate
from sifrc.spec import build_spec

OPERATORS = (
    "gradient",
    "hessian_vector_product",
    "gauss_newton_vector_product",
    "newton_direction",
    "block_hessian",
    "curvature_factors",
    "block_vector_product",
    "hessian_diagonal",
    "summary",
)
GRAPH_OPERATORS = ("gradient", "hessian_vector_product", "gauss_newton_vector_product", "summary")
REQUESTS: dict[str, tuple[str, dict[str, Any]]] = {
    "operators": ("tanh_cross_entropy_3", {"method": "none", "operators": OPERATORS}),
    "graph": ("shared_skip", {"method": "none", "operators": GRAPH_OPERATORS}),
    "mk": ("tanh_cross_entropy_3", {"method": "mk"}),
    "sylvester": (
        "tanh_cross_entropy_3",
        {"method": "esn", "options": {"variant": "randomised", "precision": "direct", "form": "sylvester"}},
    ),
    "recursive": (
        "tanh_cross_entropy_3",
        {"method": "esn", "options": {"variant": "randomised", "precision": "recursive"}},
    ),
    "exact": ("tanh_cross_entropy_3", {"method": "esn", "options": {"variant": "exact"}}),
    "ea_cg": ("tanh_cross_entropy_3", {"method": "ea_cg", "options": {"kind": "pch1"}}),
    "kronecker": (
        "tanh_cross_entropy_3",
        {"method": "ea_cg", "options": {"kind": "kfra", "solver": "exact"}},
    ),
    "grouped": ("tanh_cross_entropy_3", {"method": "grouped_newton"}),
    "cubic": ("shared_skip", {"method": "grouped_newton", "options": {"internal_damping": 1.0}}),
    "nested": ("mixed_loss", {"method": "none", "operators": ("gradient",)}),
    "positive": ("indefinite", {"method": "none", "operators": ("block_hessian",), "curvature": ("pch1",)}),
}
SPECS = {**CASES, "indefinite": {**CASES["tanh_squared_error_2"], "loss": "bounded"}}
PASSES = {
    "all": Passes(),
    "share alone": Passes(structure=False, fuse=False, roll=False, lifetimes=False),
    "structure alone": Passes(share=False, fuse=False, roll=False, lifetimes=False),
    "fuse alone": Passes(share=False, structure=False, roll=False, lifetimes=False),
    "roll alone": Passes(share=False, structure=False, fuse=False, lifetimes=False),
    "lifetimes alone": Passes(share=False, structure=False, fuse=False, roll=False),
    "none": Passes(False, False, False, False, False),
}


@cache
def compiled(name: str) -> Any:
    case, choices = REQUESTS[name]
    return compile_spec(build_spec(dict(SPECS[case])), Request(backend="numba", **choices))


def program(name: str) -> Program:
    found: Program = compiled(name).source.program
    return found


@pytest.mark.parametrize("passes", PASSES)
@pytest.mark.parametrize("name", REQUESTS)
def test_programs_are_valid_after_every_pass(name: str, passes: str) -> None:
    validate(lower(compiled(name).planned.plan, PASSES[passes]))


# ── corruptions ───────────────────────────────────────────────────────────────────────────────────────


Change = Callable[[Any], Any]


def everywhere(kind: type, change: Change, chosen: Callable[[Any], bool] = lambda _: True) -> Change:
    """Change the first statement of a kind."""

    def corrupt(whole: Program) -> Program:
        done = False

        def visit(item: Statement | Loop) -> Statement | Loop:
            nonlocal done
            if isinstance(item, Loop):
                return replace(item, body=tuple(visit(part) for part in item.body))  # type: ignore[arg-type, misc]
            if not done and isinstance(item, kind) and chosen(item):
                done = True
                changed: Statement = change(item)
                return changed
            return item

        functions = tuple(replace(f, body=tuple(visit(item) for item in f.body)) for f in whole.functions)
        assert done, f"no {kind.__name__} to corrupt"
        return replace(whole, functions=functions)

    return corrupt


def family(chosen: Callable[[Family], bool], **changes: Any) -> Change:
    def corrupt(whole: Program) -> Program:
        first = next(f for f in whole.families if chosen(f))
        return replace(
            whole, families=tuple(replace(f, **changes) if f is first else f for f in whole.families)
        )

    return corrupt


def function(name: str, **changes: Any) -> Change:
    def corrupt(whole: Program) -> Program:
        functions = tuple(
            replace(f, **{k: v(f) for k, v in changes.items()}) if f.name == name else f
            for f in whole.functions
        )
        return replace(whole, functions=functions)

    return corrupt


def stored(storage: Storage) -> Callable[[Family], bool]:
    return lambda found: found.storage is storage


def target(name: str) -> Change:
    """The statement writes another family."""
    return lambda s: replace(s, target=replace(s.target, ref=replace(s.target.ref, family=name)))


def without_last(load: Load) -> Load:
    return replace(load, labels=load.labels[:-1])


def longer(load: Load) -> Load:
    return replace(load, labels=(*load.labels, "q"))


def returning_nothing(operator: Operator) -> Operator:
    (case,) = operator.cases
    return replace(operator, cases=(replace(case, results=(Mean("nothing", Value("loss")),)),))


UNBOUND = sympy.Symbol("unbound", real=True)
FAULTS: dict[str, tuple[str, Change, str]] = {
    # families
    "two families of one name": (
        "mk",
        lambda p: replace(p, families=(*p.families, p.families[0])),
        "two families",
    ),
    "two families of one code": ("mk", family(lambda f: f.name == "b", code="x"), "are both 'x'"),
    "a code that is no name": ("mk", family(lambda f: f.name == "b", code="1b"), "is no name"),
    "a keyword": ("mk", family(lambda f: f.name == "b", code="lambda"), "is no name"),
    "no member": ("mk", family(lambda f: f.name == "b", shapes=()), "has no member"),
    "subscripts out of order": (
        "mk",
        lambda p: family(
            lambda f: f.name == "x",
            shapes=tuple(reversed(next(f for f in p.families if f.name == "x").shapes)),
        )(p),
        "subscripts of x",
    ),
    "two axes of samples": (
        "mk",
        family(lambda f: f.name == "b", shapes=((1, (None, None)),)),
        "two axes of samples",
    ),
    "an empty array": ("mk", family(lambda f: f.name == "b", shapes=((1, (None, 0)),)), "has the shape"),
    "samples in a parameter": (
        "mk",
        family(stored(Storage.PARAMETER), shapes=((1, (None, 4)),)),
        "parameter W has samples",
    ),
    "a hyperparameter with a shape": (
        "mk",
        family(stored(Storage.HYPERPARAMETER), shapes=((None, (2,)),)),
        "is no number",
    ),
    "constants without values": ("graph", family(stored(Storage.CONSTANT), values=()), "has 0 values"),
    "a memory of another beginning": (
        "sylvester",
        family(stored(Storage.MEMORY), initial="ones"),
        "begins as",
    ),
    # functions
    "two functions of one name": (
        "mk",
        lambda p: replace(p, functions=(*p.functions, p.functions[0])),
        "two functions",
    ),
    "an interface that says less": ("mk", function("adjoint", reads=lambda f: f.reads[1:]), "reads"),
    "writes that are not made": ("mk", function("adjoint", writes=lambda f: (*f.writes, "x")), "writes"),
    "parameters updated outside of a step": (
        "mk",
        lambda p: replace(p, step_batched=(), step_single=()),
        "outside of a step",
    ),
    "an empty loop": (
        "mk",
        function("adjoint", body=lambda f: (*f.body, Loop(3, 3, 1, ()))),
        "an empty loop",
    ),
    # what is written
    "a write to an input": ("mk", everywhere(Kernel, lambda s: _other_target(s, "t")), "cannot be written"),
    "a write to a constant": (
        "graph",
        everywhere(Kernel, lambda s: _other_target(s, "λ")),
        "cannot be written",
    ),
    "a family that nobody knows": ("mk", everywhere(Contract, target("nothing")), "no family nothing"),
    "a member that is not there": (
        "mk",
        everywhere(
            Contract, lambda s: replace(s, left=replace(s.left, ref=Ref(s.left.ref.family, Subscript(77))))
        ),
        "no member",
    ),
    "relative to no loop": (
        "mk",
        everywhere(
            Contract,
            lambda s: replace(
                s, left=replace(s.left, ref=Ref(s.left.ref.family, Subscript(0, relative=True)))
            ),
            lambda s: not s.left.ref.subscript.relative,
        ),
        "relative to no loop",
    ),
    # statements
    "a label too few": (
        "mk",
        everywhere(Contract, lambda s: replace(s, left=without_last(s.left))),
        "labels",
    ),
    "a label too many": ("mk", everywhere(Contract, lambda s: replace(s, target=longer(s.target))), "labels"),
    "labels exchanged": (
        "mk",
        everywhere(
            Contract,
            lambda s: replace(s, left=replace(s.left, labels=s.left.labels[::-1])),
            lambda s: len(s.left.labels) == 2 and s.left.ref.family == "W",
        ),
        "label",
    ),
    "a scale that nothing binds": (
        "mk",
        everywhere(Contract, lambda s: replace(s, scale=UNBOUND)),
        "nothing is bound to unbound",
    ),
    "a value that nothing binds": (
        "mk",
        everywhere(
            Kernel, lambda s: replace(s, assigns=(Assign(s.assigns[0].target, UNBOUND), *s.assigns[1:]))
        ),
        "nothing is bound to unbound",
    ),
    "a nest without an assignment": (
        "mk",
        everywhere(Kernel, lambda s: replace(s, assigns=())),
        "no assignment",
    ),
    "a nest with a label twice": (
        "mk",
        everywhere(Kernel, lambda s: replace(s, labels=s.labels * 2), lambda s: bool(s.labels)),
        "label twice",
    ),
    "a nest that leaves entries out": (
        "mk",
        everywhere(Kernel, lambda s: replace(s, labels=(*s.labels, "q"))),
        "not written at every entry",
    ),
    "a sum over nothing": (
        "mk",
        everywhere(Sum, lambda s: replace(s, over=())),
        "sum over nothing|of no loop",
    ),
    "a sum over what stays": (
        "mk",
        everywhere(
            Sum, lambda s: replace(s, over=(*s.over, s.target.labels[0])), lambda s: bool(s.target.labels)
        ),
        "label twice",
    ),
    "a logarithm of a sum over no label": (
        "nested",
        everywhere(LogSumExpOver, lambda s: replace(s, over="q")),
        "is no label",
    ),
    "a softmax over no label": (
        "operators",
        everywhere(LogSoftmaxOver, lambda s: replace(s, over="q")),
        "is no label",
    ),
    "a largest entry with a label too many": (
        "grouped",
        everywhere(MaximumOver, lambda s: replace(s, over="q")),
        "is no label",
    ),
    "a matrix that is not square": (
        "exact",
        everywhere(SolveSystem, lambda s: replace(s, matrix=s.rhs)),
        "is not square|dimensions",
    ),
    "a system without its code": (
        "exact",
        everywhere(SolveSystem, lambda s: replace(s, guard=None)),
        "without a code",
    ),
    "a system with another code": (
        "exact",
        everywhere(SolveSystem, lambda s: replace(s, guard=999)),
        "code 999",
    ),
    "Sylvester sides exchanged": (
        "sylvester",
        everywhere(
            SolveSylvester, lambda s: replace(s, left=s.right, right=s.left), lambda s: s.left != s.right
        ),
        "the right side is not",
    ),
    "a shift that is no number": (
        "kronecker",
        everywhere(SolveKronecker, lambda s: replace(s, shift=s.left)),
        "is no number",
    ),
    "a third derivative of another shape": (
        "cubic",
        everywhere(SolveCubic, lambda s: replace(s, third=s.matrix)),
        "has the shape",
    ),
    "no such bound": (
        "cubic",
        everywhere(SolveCubic, lambda s: replace(s, unbounded="never")),
        "unbounded is",
    ),
    "no such part of a matrix": (
        "positive",
        everywhere(MatrixFunction, lambda s: replace(s, kind="negative")),
        "kind is",
    ),
    "a search without unknowns": (
        "ea_cg",
        everywhere(ConjugateGradients, lambda s: replace(s, unknowns=())),
        "no unknown",
    ),
    "a search without products": (
        "ea_cg",
        everywhere(ConjugateGradients, lambda s: replace(s, body=())),
        "nothing computes",
    ),
    "a guard with another code": (
        "mk",
        everywhere(Guard, lambda s: replace(s, code=Subscript(999))),
        "code 999",
    ),
    "rows of no code": (
        "grouped",
        everywhere(Guard, lambda s: replace(s, code=Subscript(10**6)), lambda s: s.rows),
        "code 1000000",
    ),
    "a window beyond the groups": (
        "cubic",
        everywhere(Kernel, lambda s: _window(s, 99), lambda s: _has_window(s)),
        "is not below",
    ),
    "a window of no owner": (
        "cubic",
        everywhere(Kernel, lambda s: _window(s, Slot("x", Subscript(0))), lambda s: _has_window(s)),
        "has no owner",
    ),
    "first positions of no array": (
        "cubic",
        everywhere(Kernel, lambda s: _window(s, Upto(Ref("nothing"))), lambda s: _has_window(s)),
        "no family nothing",
    ),
    "a window that is new": (
        "operators",
        everywhere(Fresh, lambda s: replace(s, target=replace(s.target, window=(0,)))),
        "not an array of its own",
    ),
    # chains, places
    "read before it is written": (
        "mk",
        lambda p: replace(p, step_batched=p.step_batched[1:], step_single=p.step_single[1:]),
        "read before it is written",
    ),
    "an operator without its functions": (
        "operators",
        lambda p: replace(p, operators=tuple(replace(o, prepare=()) for o in p.operators)),
        "read before it is written|which nothing computes",
    ),
    "an operator that runs nothing that exists": (
        "operators",
        lambda p: replace(p, operators=(replace(p.operators[0], prepare=("nothing",)), *p.operators[1:])),
        "is no function",
    ),
    "an operator that returns nothing that exists": (
        "operators",
        lambda p: replace(p, operators=(returning_nothing(p.operators[0]), *p.operators[1:])),
        "which nothing computes",
    ),
    "a vector that nobody gives": (
        "operators",
        lambda p: replace(p, operators=tuple(replace(o, vector=None) for o in p.operators)),
        "read before it is written",
    ),
    "two places for one array": ("mk", lambda p: replace(p, places=p.places * 2), "two places"),
    "arrays of two shapes in one place": (
        "mk",
        lambda p: replace(p, places=(Place((("x", 0), ("x", 1)), 0, 1),)),
        "in one place",
    ),
    "a place for nothing": (
        "mk",
        lambda p: replace(p, places=(Place((("nothing", 1),), 0, 1),)),
        "no place for",
    ),
    "a place that ends first": (
        "mk",
        lambda p: replace(p, places=(Place((("x", 1),), 2, 1),)),
        "before it begins",
    ),
    "an owner beyond the groups": (
        "cubic",
        lambda p: replace(p, owners=dict.fromkeys(p.owners, 99)),
        "belongs to group 99|is not below",
    ),
}


def _other_target(kernel: Kernel, name: str) -> Kernel:
    first = kernel.assigns[0]
    moved = replace(first.target, ref=Ref(name))
    return replace(kernel, assigns=(replace(first, target=moved), *kernel.assigns[1:]))


def _has_window(kernel: Kernel) -> bool:
    return bool(kernel.assigns[0].target.window)


def _window(kernel: Kernel, part: Any) -> Kernel:
    first = kernel.assigns[0]
    moved = replace(first.target, window=(part, *first.target.window[1:]))
    return replace(kernel, assigns=(replace(first, target=moved), *kernel.assigns[1:]))


@pytest.mark.parametrize("name", FAULTS)
def test_fault_is_refused(name: str) -> None:
    """With a sentence that says where and what."""
    request, corrupt, text = FAULTS[name]
    broken = corrupt(program(request))
    with pytest.raises(ProgramError, match=text):
        validate(broken)


def test_the_compiler_validates_on_request() -> None:
    """The program is the same; one that is not valid ends in an error."""
    plan = compiled("mk").planned.plan
    assert lower(plan, Passes(validate=True)) == lower(plan)
    broken = replace(plan, step=plan.step[1:])
    lower(broken)
    with pytest.raises(ProgramError):
        lower(broken, Passes(validate=True))
