"""What ``ea_cg`` refuses when compiling, with the reason, and what only a step can refuse."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from newton_blocks import BACKENDS, Run, compiled, module, network, point_of

from sifrc.errors import DerivationError, MethodError
from sifrc.verify.points import Point

QUARTIC = {"expression": "sum((y - t)**4)/4"}
"""Convex, and nobody says so: undecided."""
BENT = {"expression": "sum(where(y > 30, -(y - t)**2/2, (y - t)**2/2))"}
"""Not convex for outputs above 30, where no example of the compiler lies: undecided."""
WAVE = {"expression": "sum(cos(y - t))"}
"""Not convex, which an example shows."""

REFUSED: tuple[tuple[str, dict[str, Any], dict[str, Any], str, str], ...] = (
    ("kfi, hessian", {"kind": "hessian", "solver": "kfi"}, {}, "'hessian' is indefinite", "solver: exact"),
    (
        "kfi, own kind",
        {"kind": "mine", "solver": "kfi"},
        {"curvature": [{"name": "mine", "kind": "hessian", "output": "positive"}]},
        "'mine' is indefinite, and the factors of EA-CG",
        "pch1 or pch2",
    ),
    (
        "ggn, bounded",
        {"kind": "ggn"},
        {"loss": "bounded"},
        "'ggn' is indefinite: the loss is not",
        "output: abs",
    ),
    (
        "kfra, bounded",
        {"kind": "kfra", "solver": "exact"},
        {"loss": "bounded"},
        "the loss is not convex",
        "pch1",
    ),
    ("ggn, wave", {"kind": "ggn", "solver": "kfi"}, {"loss": WAVE}, "the loss is not convex", "pch1"),
    ("unknown", {"kind": "pch3"}, {}, "unknown kind of curvature 'pch3'", "hessian, pch1, pch2, ggn"),
    ("alpha above", {"alpha": 1.5}, {}, "option 'alpha' is 1.5", "from 0.0 to 1.0"),
    ("alpha below", {"alpha": -0.1}, {}, "option 'alpha' is -0.1", "from 0.0 to 1.0"),
    ("decay above", {"decay": 1.2}, {}, "option 'decay' is 1.2", "from 0.0, below 1.0"),
    ("decay without news", {"decay": 1}, {}, "option 'decay' is 1.0", "from 0.0, below 1.0"),
    ("momentum", {"momentum": 2.0}, {}, "option 'momentum' is 2.0", "from 0.0 to 1.0"),
    ("iterations", {"cg_iterations": -1}, {}, "option 'cg_iterations' is -1", "a whole number from 0"),
    ("half", {"cg_iterations": 2.5}, {}, "option 'cg_iterations' is 2.5", "a whole number from 0"),
    ("period", {"period": 0}, {}, "option 'period' is 0", "a whole number from 1"),
    ("solver", {"solver": "lu"}, {}, "option 'solver' cannot be 'lu'", "ea_cg, cg, kfi, exact"),
    ("moment", {"moment": "third"}, {}, "option 'moment' cannot be 'third'", "auto, second, mean"),
    ("damping", {"damping": 0.1}, {}, "has no option 'damping'", "alpha"),
)


@pytest.mark.parametrize("case", REFUSED, ids=[case[0] for case in REFUSED])
@pytest.mark.parametrize("backend", BACKENDS)
def test_what_cannot_work_is_refused_with_the_reason(case: Any, backend: str) -> None:
    """One error that says what, and what would be accepted."""
    _, method, more, message, hint = case
    with pytest.raises(MethodError) as caught:
        compiled(network(method, **more), backend)
    assert message in caught.value.message
    assert hint in str(caught.value.hint)


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_average_without_news_is_refused_at_run_time(backend: str) -> None:
    """As when compiling: with a decay of 1 every step would be refused."""
    data = network({"decay": 0.5})
    made, params = module(data, backend), point_of(data)[1].params
    Run(made, params, decay=0.9)
    with pytest.raises(ValueError, match="decay"):
        Run(made, params, decay=1.0)


def test_a_spelling_is_suggested() -> None:
    with pytest.raises(MethodError) as caught:
        compiled(network({"kind": "fischer"}))
    assert "fisher" in str(caught.value.label)


def test_shared_parameters_are_refused() -> None:
    """Their block has cross terms between the uses."""
    layers = [
        {"name": "fc1", "type": "dense", "units": 5, "activation": "tanh"},
        {"name": "fc2", "type": "dense", "share": "fc1", "activation": "tanh"},
        {"name": "fc3", "type": "dense", "units": 2},
    ]
    with pytest.raises(DerivationError, match=r"fc1.*shared"):
        compiled(network(layers=layers))


ACCEPTED: tuple[tuple[dict[str, Any], dict[str, Any]], ...] = (
    ({"kind": "hessian", "solver": "exact"}, {}),
    ({"kind": "pch1", "solver": "kfi"}, {"loss": "bounded"}),
    ({"kind": "fisher", "solver": "kfi"}, {"loss": "bounded"}),
    ({"kind": "ggn", "solver": "kfi"}, {"loss": QUARTIC}),
    ({"kind": "pch2", "solver": "cg"}, {"loss": WAVE}),
    ({"alpha": 0.0}, {}),
    ({"alpha": 1, "momentum": 0}, {}),
)


@pytest.mark.parametrize(("method", "more"), ACCEPTED)
def test_what_can_work_compiles(method: dict[str, Any], more: dict[str, Any]) -> None:
    """Definite kinds with any loss, indefinite ones with solvers that take them, both ends of ranges."""
    compiled(network(method, **more))


@pytest.mark.parametrize(("kind", "checked"), [("ggn", True), ("kfra", True), ("pch1", False)])
def test_only_kinds_that_keep_the_block_of_an_undecided_loss_are_checked(kind: str, checked: bool) -> None:
    """The note says so; a loss whose convexity is known needs no check."""
    note = "Whether the loss is convex is not known"
    found = compiled(network({"kind": kind}, loss=QUARTIC))
    assert any(text.startswith(note) for text in found.planned.notes) is checked
    assert ("_definite(" in found.text) is checked
    assert not any(text.startswith(note) for text in compiled(network({"kind": kind})).planned.notes)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("kind", "solver"), [("ggn", "ea_cg"), ("ggn", "kfi"), ("kfra", "exact"), ("kfra", "cg")]
)
def test_an_undecided_loss_is_checked_at_every_curvature(kind: str, solver: str, backend: str) -> None:
    """Outputs where it is convex make a step; those where it is not are refused, naming the last layer."""
    spec_data = network({"kind": kind, "solver": solver, "alpha": 0.5}, loss=BENT, state=0.0)
    _, point = point_of(spec_data)
    made = module(spec_data, backend)
    good = Run(made, point.params, lr=1e-3)
    good.step(point.inputs, point.targets)
    assert not np.array_equal(good.params["fc2.weight"], point.params["fc2.weight"])
    high = Point(
        {**point.params, "fc2.bias": point.params["fc2.bias"] + 100.0}, point.inputs, point.targets, {}
    )
    run = Run(made, high.params, lr=1e-3)
    for act in (run.step, run.refresh, run.step):
        before, saved = run.params, run.saved()
        with pytest.raises(FloatingPointError, match="fc2"):
            act(high.inputs, high.targets)
        np.testing.assert_equal(run.params, before)
        if run.torch and saved:
            np.testing.assert_equal(run.saved(), saved)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_convex_loss_that_is_nearly_singular_passes_the_check(backend: str) -> None:
    """Eigenvalues that are zero but for rounding are not negative: t = y for most entries."""
    spec_data = network(
        {"kind": "ggn", "solver": "cg"}, loss={"expression": "(sum(y) - sum(t))**4/4"}, state=0.0
    )
    _, point = point_of(spec_data, batch=50)
    assert "_definite(" in compiled(spec_data, backend).text
    run = Run(module(spec_data, backend), point.params, lr=1e-3)
    for _ in range(3):
        run.step(point.inputs, point.targets)


OUT_OF_RANGE = (
    {"alpha": -0.5},
    {"alpha": 1.5},
    {"alpha": float("nan")},
    {"period": 0},
    {"cg_tolerance": -1.0},
)


@pytest.mark.parametrize("numbers", OUT_OF_RANGE, ids=str)
@pytest.mark.parametrize("backend", BACKENDS)
def test_hyperparameters_out_of_range_are_refused_when_they_are_given(
    numbers: dict[str, float], backend: str
) -> None:
    """The module's documentation says: damping α, between 0 and 1."""
    spec_data = network()
    _, point = point_of(spec_data)
    with pytest.raises(ValueError, match=next(iter(numbers))):
        Run(module(spec_data, backend), point.params, **numbers)
