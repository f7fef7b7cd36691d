"""The extension points that docs/architecture.md shows, used from outside the package."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass, replace
from functools import partial
from types import MappingProxyType

import numpy as np
import pytest

import sifrc
from sifrc.backends import find_backend
from sifrc.catalogue.context import Declaration, OperatorSet
from sifrc.catalogue.meaning import Meaning
from sifrc.catalogue.phase import Row
from sifrc.catalogue.record import Case, Mean, Operator
from sifrc.compiler import Request, compile_spec
from sifrc.derive.system import Equation, System
from sifrc.errors import MethodError
from sifrc.ir import Input, Role
from sifrc.ir.build import einsum, hadamard, inner, rename, scale, total
from sifrc.lower.interpret import Machine, run_functions
from sifrc.lower.lowering import lower
from sifrc.methods.base import Method, MethodOption, StepPlan, descend
from sifrc.methods.plan import MemorySpec
from sifrc.methods.planning import make_plan
from sifrc.methods.registry import METHODS, find_method
from sifrc.model import build_model
from sifrc.spec import functionspec
from sifrc.spec.registry import ACTIVATIONS, LOSSES, BuiltIn
from sifrc.verify import verify
from sifrc.verify.comparison import agreed_digits
from sifrc.verify.meaning import SINGLE, agreement

_LEARNING_RATE = 0.05


class GradientDescent(Method):
    """θ ← θ − lr · gradient; the smallest method there is."""

    name = "sgd"
    title = "Gradient descent"
    paper = "Robbins & Monro 1951"
    options = (MethodOption("learning_rate", 0.01, "step size", lower=0.0, hyperparameter=True),)

    def step(self, derived, chosen):
        """Gradients that must be finite, then the descent."""
        first = derived.first
        equations, directions = [], {}
        for layer in derived.model.parameters:
            for family, symbol in zip(("dW", "dβ"), layer.symbols, strict=True):
                slope = Input(family, layer.index, symbol.axes, Role.DIRECTION)
                equations.append(
                    Equation(slope, first.short(first.gradients[symbol]), layer.index, "ESN(10)")
                )
                directions[symbol] = slope
        direction = System("direction", "Gradient", tuple(equations))
        update = System("update", "Step", tuple(descend(derived, directions)))
        return StepPlan(
            systems=((direction, ("forward", "adjoint")), (update, ("forward", "adjoint", "direction"))),
            guarded=("direction",),
        )


class HeavyBall(GradientDescent):
    """The same with a velocity: V ← momentum · V + gradient, θ ← θ − lr · V."""

    name = "heavy_ball"
    title = "Heavy ball"
    paper = "Polyak 1964"
    options = (
        *GradientDescent.options,
        MethodOption("momentum", 0.9, "decay of the velocity", lower=0.0, upper=1.0, hyperparameter=True),
    )

    def step(self, derived, chosen):
        """Memory is updated in the last system, before the parameters that follow it."""
        plain = super().step(derived, chosen)
        (direction, before), _ = plain.systems
        momentum = Input("momentum", None, (), Role.HYPERPARAMETER)
        moves, directions = [], {}
        slopes = iter(direction.symbols)
        for layer in derived.model.parameters:
            for family, symbol in zip(("V", "v_bias"), layer.symbols, strict=True):
                slope, velocity = next(slopes), Input(family, layer.index, symbol.axes, Role.DIRECTION)
                kept = einsum([(momentum, ()), (velocity, symbol.axes)], symbol.axes)
                moves.append(Equation(velocity, total([kept, slope], symbol.axes), layer.index, "definition"))
                directions[symbol] = velocity
        update = System("update", "Step", (*moves, *descend(derived, directions)))
        return StepPlan(
            systems=((direction, before), (update, (*before, "direction"))),
            memory=(
                MemorySpec("V", "velocity of the weights"),
                MemorySpec("v_bias", "velocity of the biases"),
            ),
            guarded=("direction",),
        )


class PseudoCode:
    """Prints a program as statements, one a line: a whole backend."""

    name = "pseudo"
    dtypes = ("float32", "float64")
    options = ()

    def emit(self, module):
        """The module's text."""
        lines = [f"# {module.name}: {module.summary}"]
        for function in module.program.functions:
            shape = "batch" if function.batched else "one sample"
            lines.append(f"def {function.name} ({shape}) reads {', '.join(function.reads) or 'nothing'}")
            lines += [f"    {type(item).__name__}" for item in function.body]
        return "\n".join(lines) + "\n"


BACKEND = PseudoCode()
NOT_A_METHOD = object()


class Unnamed(GradientDescent):
    """A name that cannot stand in a file name."""

    name = "../sgd"


@dataclass(frozen=True)
class SquaredNorm(Meaning):
    """‖∂L/∂θ‖² of every sample."""


@agreement.register
def _(meaning: SquaredNorm, found, oracle, kind):
    each = [g.reshape(len(g), -1) for g in oracle.sample_gradients().values()]
    size = sum((g * g).sum(axis=1) for g in each).sum() / len(each[0])
    return agreed_digits(found, {SINGLE: size}, oracle.limit)


def _squared_gradient(declared, context):
    result = Mean("gradient_size", SquaredNorm())
    before = ("forward", *context.before_loss, "adjoint")
    case = Case(("gradient_size",), (result,), scaled=False)
    return Operator(declared.name, declared.doc, "ESN(10)", (case,), prepare=before)


def _systems(context, wanted, factor=1):
    def derive():
        first = context.derived.first
        parts = [scale(factor, inner(g, g)) for g in map(first.short, first.gradients.values())]
        size = Input("gradient_size", None, (), Role.STATE)
        return System("gradient_size", "Size", (Equation(size, total(parts, ()), None, "definition"),))

    yield Row("gradient_size", derive, ("forward", *context.before_loss, "adjoint"))


_SIZE = (Declaration("squared_gradient", "Mean over the batch of ‖gradient‖².", _squared_gradient),)
SIZES = OperatorSet(_SIZE, _systems)
WRONG_SIZES = OperatorSet(_SIZE, partial(_systems, factor=2))
TAKEN = OperatorSet((replace(_SIZE[0], name="gradient"),), _systems)


def _document(method=None, **more):
    """A network with a skip connection and relu: no Newton direction exists, gradients do."""
    layers = [
        {"name": "fc1", "type": "dense", "units": 3, "activation": "relu"},
        {"name": "fc2", "type": "dense", "units": 3, "activation": "tanh"},
        {"name": "sum1", "type": "add", "inputs": ["fc1", "fc2"]},
        {"name": "fc3", "type": "dense", "units": 2},
    ]
    spec = {
        "sifrc": 1,
        "name": "outside",
        "network": {"input": {"name": "image", "size": 4}, "layers": layers},
        "loss": "squared_error",
        "dtype": "float64",
        **more,
    }
    return spec if method is None else {**spec, "method": method}


def _values(program, rng, batch):
    """Random parameters and data under the keys of the interpreter."""
    values = {
        (name, index): rng.standard_normal(tuple(size or batch for size in shape))
        for name in ("W", "β")
        for index, shape in program.family(name).shapes
    }
    values["x", 0] = rng.standard_normal((batch, 4))
    values["t", None] = rng.standard_normal((batch, 2))
    values["mean", None] = 1 / batch
    values["lr", None] = _LEARNING_RATE
    return values


def _objective(values, join=np.add):
    """Mean of ½‖y − t‖² by hand, straight from the description of the network."""
    x, t = values["x", 0], values["t", None]

    def dense(k, s):
        return s @ values["W", k].T + values["β", k]

    x1 = np.maximum(dense(1, x), 0)
    x2 = np.tanh(dense(2, x1))
    return 0.5 * np.sum((dense(4, join(x1, x2)) - t) ** 2) / len(x)


def _numerical_gradient(values, key, join=np.add, step=1e-6):
    """Central differences of the objective in one parameter."""
    result = np.zeros_like(values[key])
    for position in np.ndindex(result.shape):
        ends = []
        for sign in (1, -1):
            moved = values[key].copy()
            moved[position] += sign * step
            ends.append(_objective({**values, key: moved}, join))
        result[position] = (ends[0] - ends[1]) / (2 * step)
    return result


def _plan(method):
    return make_plan(build_model(sifrc.build_spec(_document(method))))


def test_activation_is_one_row(monkeypatch):
    """A row in the table is all that softsign needs: both oracles agree with what is derived."""
    row = BuiltIn("softsign", "x/(1 + abs(x))", "x over 1 plus its magnitude")
    tables = {"activation": {**ACTIVATIONS, row.name: row}, "loss": LOSSES}
    monkeypatch.setattr(functionspec, "_TABLES", MappingProxyType(tables))
    spec = _document()
    spec["network"]["layers"] = [
        {"name": "fc1", "type": "dense", "units": 2, "activation": "softsign"},
        {"name": "fc2", "type": "dense", "units": 2},
    ]
    quantities = ("gradient", "hessian_vector_product")
    report = sifrc.verify(sifrc.build_spec(spec), levels=(1, 2), cache=False)
    assert all(row.passed for row in report.rows if row.quantity in quantities)
    assert {row.quantity for row in report.rows if row.passed} >= set(quantities)


def test_layer_kind_is_one_expression():
    """A product of two states in place of their sum: everything after the model follows by itself."""
    model = build_model(sifrc.build_spec(_document(target={"operators": ["gradient"]})))
    old = model.constraints[2]
    factors = [rename(model.state(k), old.axes) for k in old.sources]
    product = hadamard(*factors)
    changed = replace(old, pre_activation=product, value=product)
    constraints = tuple(changed if c is old else c for c in model.constraints)
    program = lower(make_plan(replace(model, constraints=constraints)).plan)
    values = _values(program, np.random.default_rng(2), batch=4)
    machine = Machine(program, values)
    names = next(operator.prepare for operator in program.operators if operator.name == "gradient")
    run_functions(machine, [program.function(name, batched=True) for name in names])
    for key, result in ((("W", 1), ("G", 1)), (("β", 2), ("g", 2)), (("W", 4), ("G", 4))):
        expected = _numerical_gradient(values, key, join=np.multiply)
        np.testing.assert_allclose(machine.arrays[result], expected, atol=1e-8)


def test_method_of_another_module_is_found_by_place():
    """An instance, a subclass; a built-in name stays the built-in."""
    assert find_method(f"{__name__}:GradientDescent").name == "sgd"
    assert find_method("mk") is METHODS["mk"]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("msk", "unknown method 'msk'.*did you mean 'mk'"),
        ("no_such_module_here:x", "cannot be loaded"),
        (f"{__name__}:absent", "cannot be loaded"),
        (f"{__name__}:NOT_A_METHOD", "is not a method"),
        (f"{__name__}:Unnamed", "no identifier"),
        ("a:b c", "unknown method"),
    ],
)
def test_unknown_methods_are_explained(name, text):
    """The error says what there is."""
    with pytest.raises(MethodError) as caught:
        find_method(name)
    assert re.search(text, str(caught.value), re.DOTALL)


def test_method_from_outside_descends_by_the_gradient():
    """Planned, lowered and interpreted, a step is θ − lr · ∂objective, by central differences.

    The network has a skip connection and relu: a method that does not use the Newton direction is
    not held to its preconditions.
    """
    planned = _plan({"name": f"{__name__}:GradientDescent", "learning_rate": _LEARNING_RATE})
    assert planned.conditions == () and not planned.accepted
    program = lower(planned.plan)
    assert [number.name for number in program.hyperparameters] == ["lr"]
    values = _values(program, np.random.default_rng(0), batch=5)
    machine = Machine(program, values)
    run_functions(machine, [program.function(name, batched=True) for name in program.step_batched])
    for key in values:
        if key[0] in ("W", "β"):
            expected = values[key] - _LEARNING_RATE * _numerical_gradient(values, key)
            np.testing.assert_allclose(machine.arrays[key], expected, atol=1e-9)


def test_memory_of_a_method_from_outside():
    """V starts at zero, so two steps are lr·g₁ and lr·(momentum·g₁ + g₂)."""
    program = lower(_plan({"name": f"{__name__}:HeavyBall"}).plan)
    values = _values(program, np.random.default_rng(1), batch=3)
    values["momentum", None] = 0.5
    memory = {
        (family.name, index): np.zeros(shape)
        for family in program.families
        if family.storage.value == "memory"
        for index, shape in family.shapes
    }
    assert {name for name, _ in memory} == {"V", "v_bias"}
    parameters = [key for key in values if key[0] in ("W", "β")]
    points, current = [], {**values, **memory}
    for _ in range(2):
        points.append(current)
        machine = Machine(program, current)
        run_functions(machine, [program.function(name, batched=True) for name in program.step_batched])
        current = {key: machine.arrays[key] for key in current}
    for key in parameters:
        first, second = (_numerical_gradient(point, key) for point in points)
        expected = points[1][key] - _LEARNING_RATE * (0.5 * first + second)
        np.testing.assert_allclose(current[key], expected, atol=1e-9)


def test_method_from_outside_compiles_to_torch():
    """The generated optimizer makes the same step as torch's own SGD."""
    torch = pytest.importorskip("torch")
    place = f"{__name__}:GradientDescent"
    module = sifrc.compile(
        _document(), backend="torch", method=place, learning_rate=_LEARNING_RATE, cache=False
    )
    network = module.Network(seed=3)
    other = module.Network(seed=3)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(6, 4, generator=generator, dtype=torch.float64)
    t = torch.randn(6, 2, generator=generator, dtype=torch.float64)
    before = module.Optimizer(network, lr=_LEARNING_RATE).step(x, t)
    rival = torch.optim.SGD(other.parameters(), lr=_LEARNING_RATE)
    objective = ((other(x) - t) ** 2).sum() / (2 * len(x))
    objective.backward()
    rival.step()
    torch.testing.assert_close(before, objective.detach(), rtol=1e-12, atol=0)
    for mine, theirs in zip(network.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-12)


def test_module_of_a_method_from_outside_is_not_stale(tmp_path, monkeypatch):
    """A changed method gives a changed module, though the spec and sifrc itself are the same."""
    pytest.importorskip("torch")
    place = f"{__name__}:GradientDescent"
    one = sifrc.compile(_document(), backend="torch", method=place, cache=tmp_path)
    monkeypatch.setattr(GradientDescent, "title", "Another title")
    two = sifrc.compile(_document(), backend="torch", method=place, cache=tmp_path)
    assert "Gradient descent" in one.__doc__ and "Another title" in two.__doc__


def test_options_of_a_method_from_outside_are_checked():
    """The table of the declaration is all there is to write."""
    with pytest.raises(MethodError, match="has no option 'momentum'"):
        _plan({"name": f"{__name__}:GradientDescent", "momentum": 0.5})
    with pytest.raises(MethodError, match="'momentum' is 2"):
        _plan({"name": f"{__name__}:HeavyBall", "momentum": 2.0})


def test_backend_from_outside_prints_programs():
    """Loaded by its place; the driver hands it the same program as any other."""
    place = f"{__name__}:BACKEND"
    assert find_backend(place) is BACKEND
    request = Request(backend=place, method="none", operators=("gradient",), options=MappingProxyType({}))
    compiled = compile_spec(sifrc.build_spec(_document()), request)
    assert compiled.name == "outside_operators_pseudo"
    assert compiled.text.startswith("# outside: curvature operators\n")
    for name in ("forward", "objective", "backward"):
        assert f"def {name} (batch) reads " in compiled.text
    assert "    Contract\n" in compiled.text and "    Kernel\n" in compiled.text


@pytest.mark.parametrize("backend", ["torch", "numba"])
def test_an_operator_from_outside_is_compiled_and_verified(backend, monkeypatch):
    """Levels 2 and 3 go by its record and its meaning; a wrong factor is seen at both."""
    monkeypatch.setattr("numba.config.DISABLE_JIT", 1)
    monkeypatch.setitem(sys.modules, "howto_operators", sys.modules[__name__])
    loss = {"function": "squared_error", "reduction": "sum"}
    for name, right, more in (
        ("SIZES", True, {}),
        ("SIZES", True, {"loss": loss}),
        ("WRONG_SIZES", False, {}),
    ):
        asked = {"backend": backend, "operators": [f"howto_operators:{name}"]}
        spec = sifrc.build_spec(_document(target=asked, **more))
        module = sifrc.compile(spec, cache=False)
        assert "squared_gradient" in module.__all__
        report = verify(spec, levels=(2, 3), module=module)
        assert report.passed is right, report.text()
        levels = {
            row.level for row in report.rows if row.quantity == "squared_gradient" and row.passed is right
        }
        assert levels == {2, 3}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("howto_operators:NOT_A_METHOD", "no set of operators"),
        ("howto_operators:TAKEN", "cannot call an operator 'gradient'"),
        ("howto_operators:NOWHERE", "cannot be loaded"),
        ("gradien", "did you mean 'gradient'"),
    ],
)
def test_what_is_no_operator_is_said(name, message, monkeypatch):
    monkeypatch.setitem(sys.modules, "howto_operators", sys.modules[__name__])
    spec = sifrc.build_spec(_document(target={"operators": [name]}))
    with pytest.raises(MethodError) as error:
        sifrc.compile(spec, cache=False)
    assert message in str(error.value)
