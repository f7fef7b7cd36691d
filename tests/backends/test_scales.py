"""Results do not depend on the scale of directions, gradients and objectives within the range of the dtype.

A scale that is a power of two changes no digit: what is expected is the result at another scale, to the bit.
"""

from __future__ import annotations

from typing import Any

import mpmath
import numpy as np
import pytest
from newton_blocks import BACKENDS, Run, module, point_of
from summary_modules import SummaryCalls

from sifrc.ir.arithmetic import NUMPY
from sifrc.lower.interpret import Machine, run_functions
from sifrc.lower.lowering import lower
from sifrc.methods.planning import make_plan
from sifrc.model import build_model
from sifrc.spec import build_spec
from sifrc.verify.points import Point
from sifrc.verify.subjects.program import RunningProgram, program_of
from sifrc.verify.summary_parts import parts_of

RANGE = {"float32": (-149, 120), "float64": (-1074, 1000)}
"""Exponents of the smallest number, and of large ones."""
GROUPS = ("fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias")


def network(dtype: str = "float32", loss: Any = "cross_entropy", **more: Any) -> dict[str, Any]:
    return {
        "sifrc": 1,
        "name": "scales",
        "network": {
            "input": {"name": "image", "size": 4},
            "layers": [
                {"name": "fc1", "type": "dense", "units": 3, "activation": "tanh"},
                {"name": "fc2", "type": "dense", "units": 2},
            ],
        },
        "loss": loss,
        "dtype": dtype,
        **more,
    }


def summaries_of(data: dict[str, Any], point: Point, where: str, direction: dict[str, Any]) -> list[Any]:
    """ḡ, H̄, D and all of order 3, by a module or by the interpreter."""
    if where == "interpreter":
        spec = build_spec(data)
        targets = np.eye(2)[point.targets]
        program = RunningProgram(*program_of(spec, ("summary",)), point.params, point.inputs, targets, NUMPY)
        discrete = spec.partition.kind == "discrete"
        program.give_direction(direction, parts_of(spec, direction) if discrete else None)
        operator = program.operator("summary")
        third, whole = (
            [arrays["value"] for _, arrays in program.run(operator, case)] for case in operator.cases[2:]
        )
        return [*third[1:], whole[-1]]
    calls = SummaryCalls(
        module(data, where), Point(point.params, point.inputs, point.targets, direction), data["dtype"]
    )
    found, whole = calls.summary(order=3), calls.summary(order=3, full=True)
    return [found.g, found.H, found.D3, whole.D3]


@pytest.mark.parametrize(
    ("where", "dtype"),
    [("interpreter", "float64"), *((b, d) for b in BACKENDS for d in ("float32", "float64"))],
)
@pytest.mark.parametrize("partition", ["canonical", "discrete"])
def test_summaries_scale_with_each_groups_direction(partition: str, dtype: str, where: str) -> None:
    """Short and long directions side by side, over the whole range: every number that has one is right."""
    data = network(dtype, partition=partition, target={"operators": ["summary"]})
    _, point = point_of(data, batch=3)
    rng = np.random.default_rng(0)
    base = {name: rng.normal(size=value.shape).astype(dtype) for name, value in point.params.items()}
    plain = summaries_of(data, point, where, base)
    low, high = RANGE[dtype]
    least = float(np.finfo(dtype).smallest_subnormal)
    spans = [[low // 3] * 4, [high // 3] * 4, [low // 2, high // 2, 0, low // 4], [low + 60, high - 4, 5, -7]]
    for exponents in spans:
        own = dict(zip(GROUPS, exponents, strict=True))
        moved = {name: np.ldexp(value, own[name]) for name, value in base.items()}
        sizes = [
            own[name] for name in GROUPS for _ in range(base[name].size if partition == "discrete" else 1)
        ]
        with np.errstate(over="ignore", under="ignore"):
            found = summaries_of(data, point, where, moved)
            for value, expected, order in zip(found, plain, (1, 2, 3, 3), strict=True):
                for place in np.ndindex(value.shape):
                    total = sum(sizes[s] for s in place) * (3 if len(place) == 1 and order == 3 else 1)
                    exact = np.dtype(dtype).type(mpmath.ldexp(float(expected[place]), total))
                    same = value[place] == exact or abs(float(value[place]) - float(exact)) <= least
                    assert same, (exponents, order, place, value[place], exact)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("full", [False, True])
def test_summaries_of_a_softmax_that_is_sure_keep_their_digits(full: bool, backend: str) -> None:
    """Probabilities of 1 − 1e-7: covariances are not what is left of second moments in float32."""
    found = []
    for dtype in ("float32", "float64"):
        data = network(dtype, partition="canonical", target={"operators": ["summary"]})
        data["network"]["layers"] = [{"name": "fc1", "type": "dense", "units": 3}]
        _, point = point_of(data, batch=4)
        rng = np.random.default_rng(5)
        params = {name: rng.normal(size=value.shape) for name, value in point.params.items()}
        logits = point.inputs @ params["fc1.weight"].T
        params["fc1.weight"] *= 16.0 / np.min(np.sort(logits)[:, 2] - np.sort(logits)[:, 1])
        params = {name: value.astype("float32").astype(float) for name, value in params.items()}
        inputs = point.inputs.astype("float32").astype(float)
        direction = {name: np.sign(rng.normal(size=value.shape)) for name, value in params.items()}
        calls = SummaryCalls(module(data, backend), Point(params, inputs, point.targets, direction), dtype)
        result = calls.summary(order=3, full=full)
        found.append((result.H, result.D3))
    for rough, exact in zip(*found, strict=True):
        assert 0 < np.abs(exact).max() < 1e-4
        np.testing.assert_allclose(rough, exact, rtol=1e-3, atol=1e-3 * np.abs(exact).max())


def test_a_direction_of_zero_has_summaries_of_zero() -> None:
    """In one group, and in all."""
    for backend in BACKENDS:
        data = network(partition="canonical", target={"operators": ["summary"]})
        _, point = point_of(data, batch=3)
        rng = np.random.default_rng(3)
        direction = {name: rng.normal(size=value.shape) for name, value in point.params.items()}
        direction["fc1.bias"] = 0 * direction["fc1.bias"]
        g, h, d, t = summaries_of(data, point, backend, direction)
        assert g[1] == d[1] == 0 and not h[1].any() and not h[:, 1].any() and not t[1].any()
        assert np.isfinite(t).all() and np.count_nonzero(g) == 3
        none = {name: 0 * value for name, value in direction.items()}
        assert not any(np.any(value != 0) for value in summaries_of(data, point, backend, none))


def scaled_loss(exponent: int, term: str = "(y - t)**2 + 0.1*(y - t)**3") -> dict[str, Any]:
    """An objective that is 2^exponent times as large, so that its gradients are too."""
    number = f"{2**exponent}" if exponent >= 0 else f"1/{2**-exponent}"
    return {"expression": f"{number}*sum({term})"}


GROUPED = {"name": "grouped_newton", "period": 1, "internal_damping": 3.0, "unbounded": "absolute"}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("regularization", ["cubic", "none"])
def test_steps_of_grouped_newton_do_not_depend_on_the_scale_of_the_objective(
    regularization: str, backend: str
) -> None:
    """η u is the same to the bit for gradients of 1e-25 to 1e12 in float32; D is 1e-100 of them or less."""
    moved = []
    for exponent in (0, -80, -30, 40):
        method = {**GROUPED, "regularization": regularization}
        data = network(loss=scaled_loss(exponent), partition="canonical", method=method)
        _, point = point_of(data, batch=4)
        run = Run(module(data, backend), point.params)
        for _ in range(3):
            run.step(point.inputs, point.targets)
        moved.append(run.params)
    for other in moved[1:]:
        np.testing.assert_equal(other, moved[0])
    assert any(np.any(moved[0][name] != point.params[name].astype("float32")) for name in point.params)


def test_the_program_of_grouped_newton_does_not_depend_on_the_scale_of_the_objective() -> None:
    """The same in the interpreter, in float64."""
    found = []
    for exponent in (0, -279, 201):
        data = network("float64", loss=scaled_loss(0), partition="canonical", method=GROUPED)
        spec, point = point_of(data, batch=4)
        model = build_model(spec)
        program = lower(make_plan(model).plan)
        values: dict[Any, Any] = {
            ("x", 0): point.inputs,
            ("t", None): point.targets,
            ("mean", None): np.ldexp(0.25, exponent),
        }
        for owned in model.parameters:
            for parameter in owned.members:
                values[parameter.symbol.family, owned.index] = point.params[parameter.name].copy()
        values |= {(number.name, None): np.array(number.default) for number in program.hyperparameters}
        for family in program.families:
            if family.storage.name == "MEMORY":
                values |= {(family.name, k): np.zeros([n or 1 for n in shape]) for k, shape in family.shapes}
        machine = Machine(program, values, NUMPY)
        run_functions(machine, [program.function(name, True) for name in program.step_batched])
        found.append({key: machine.arrays[key] for key in values if key[0] in ("W", "β")})
    for other in found[1:]:
        assert other.keys() == found[0].keys()
        for key, value in found[0].items():
            # Cube roots of some C libraries differ in the last bit with the exponent.
            np.testing.assert_allclose(other[key], value, rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("regularization", ["cubic", "none", "ridge"])
def test_directions_of_zero_have_rates_and_move_nothing(regularization: str, backend: str) -> None:
    """Inputs of zero leave the first weight where it is; targets that are met leave all."""
    method = {**GROUPED, "regularization": regularization}
    data = network(loss="squared_error", partition="canonical", method=method)
    _, point = point_of(data, batch=4)
    run = Run(module(data, backend), point.params)
    for _ in range(2):
        run.step(0 * point.inputs, point.targets)
    np.testing.assert_equal(run.params["fc1.weight"], point.params["fc1.weight"].astype("float32"))
    assert all(np.isfinite(value).all() for value in run.params.values())
    met = Run(module(data, backend), {name: 0 * value for name, value in point.params.items()})
    met.step(point.inputs, 0 * point.targets)
    assert not any(value.any() for value in met.params.values())


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("solver", ["ea_cg", "cg"])
def test_conjugate_gradients_do_not_depend_on_the_scale_of_the_objective(solver: str, backend: str) -> None:
    """Gradients and blocks of 1e-28: squares of them are zero in float32. α = 0, so that both scale."""
    moved = []
    for exponent in (0, -93):
        method = {"name": "ea_cg", "solver": solver, "kind": "ggn"}
        data = network(loss=scaled_loss(exponent, "(y - t)**2"), method=method)
        _, point = point_of(data, batch=8)
        numbers = {"lr": 1.0, "momentum": 0.0, "alpha": 0.0, "cg_iterations": 2.0, "cg_tolerance": 0.0}
        run = Run(module(data, backend), point.params, **numbers)
        run.step(point.inputs, point.targets)
        moved.append(run.params)
    np.testing.assert_equal(moved[1], moved[0])


@pytest.mark.parametrize("where", ["interpreter", *BACKENDS])
def test_what_is_below_the_normal_numbers_pulls_no_group_without_end(where: str) -> None:
    """Derivatives of 1e-44 in float32 have no digits: rates of zero, no refusal because of their signs."""
    dtype = np.dtype("float64" if where == "interpreter" else "float32")
    unit = np.finfo(dtype).smallest_subnormal
    matrix = np.array([[26, -28, -1], [-28, 38, 0], [-1, 0, 0]], dtype) * unit
    pull, third = np.array([-1, 1, 3], dtype) * unit, np.array([300, -700, 0], dtype) * unit
    if where == "interpreter":
        found = NUMPY.cubic_newton(matrix, pull, third, np.array(3.0), "refuse")
    else:
        made = module(network(partition="canonical", method=GROUPED), where)
        if where == "torch":
            found = made._solve_cubic(*(made.torch.from_numpy(a) for a in (matrix, pull, third)), 3.0, False)
        else:
            found = np.empty(3, dtype)
            made._solve_cubic(matrix, pull, third, dtype.type(3.0), False, found)
    np.testing.assert_array_equal(np.asarray(found), np.zeros(3))
