"""The function ``summary``: wrong arguments, text of the modules, and deliberate faults of their memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import numba
import numpy as np
import pytest
from cases import CASES
from compiling import compile_once
from summary_modules import BACKENDS, OPERATORS, SummaryCalls, agree, load, same_bits, texts
from summary_oracle import (
    Derivatives,
    assert_near,
    derivatives,
    groups_of,
    partition_of_case,
    point_of,
    spec_with,
)

import sifrc.lower.lifetimes as lifetimes
import sifrc.lower.lowering as lowering
import sifrc.lower.windows as windows
from sifrc.backends.numba_cpu import BACKEND
from sifrc.compiler import Compiled, Request, compile_spec
from sifrc.lower.program import Place, Program
from sifrc.verify.points import Point

BATCH = 4


pytestmark = pytest.mark.usefixtures("jit_off")


# ── wrong arguments ───────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module", params=BACKENDS)
def calls(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> SummaryCalls:
    """A module on classes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(numba.config, "DISABLE_JIT", 1)
        spec = spec_with(CASES["skip"])
        module = load(texts(spec, (request.param,))[request.param], tmp_path_factory.mktemp("arguments"))
    return SummaryCalls(module, point_of(spec, 5, BATCH))


def single(value: Any) -> Any:
    """In single precision."""
    return value.float() if hasattr(value, "float") else value.astype(np.float32)


Change = Callable[[dict[str, Any]], dict[str, Any]]
DIRECTION: dict[str, tuple[Change, type[Exception], str]] = {
    "missing name": (lambda u: {k: v for k, v in u.items() if k != "fc2.bias"}, ValueError, r"fc2\.bias"),
    "unknown name": (lambda u: {**u, "fc9.bias": u["fc2.bias"]}, ValueError, r"fc9\.bias"),
    "shape": (
        lambda u: {**u, "fc1.weight": u["fc1.weight"].T},
        ValueError,
        r"fc1\.weight.*\(4, 3\).*\(3, 4\)",
    ),
    "dimensions": (
        lambda u: {**u, "fc1.bias": u["fc1.bias"][None]},
        ValueError,
        r"fc1\.bias.*\(4,?\).*\(1, 4\)",
    ),
    "dtype of one": (
        lambda u: {**u, "fc3.bias": single(u["fc3.bias"])},
        TypeError,
        r"fc3\.bias.*float64.*float32",
    ),
    "dtype of all": (lambda u: {k: single(v) for k, v in u.items()}, TypeError, "float64.*float32"),
    "a number": (lambda u: {**u, "fc1.bias": 1.0}, TypeError, r"fc1\.bias.*float"),
    "no dict": (lambda u: list(u.values()), TypeError, "list"),  # type: ignore[dict-item]
}


@pytest.mark.parametrize("what", DIRECTION)
def test_a_wrong_direction_is_named(what: str, calls: SummaryCalls) -> None:
    """The argument, the tensor, what was expected and what came."""
    change, kind, text = DIRECTION[what]
    direction = change(calls.own(calls.point.vector))
    with pytest.raises(kind, match=text) as caught:
        calls.module.summary(*calls.given(), direction)
    assert "direction" in str(caught.value)
    assert "\n" not in str(caught.value)


CHOICES: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "order 4": ({"order": 4}, ValueError, "^order: .*1, 2 or 3.*order=4"),
    "order 0": ({"order": 0}, ValueError, "^order: .*1, 2 or 3.*order=0"),
    "order as text": ({"order": "3"}, ValueError, "^order: .*1, 2 or 3"),
    "full of order 2": ({"order": 2, "full": True}, ValueError, "^order: .*3 where full.*order=2, full=True"),
    "full by default": ({"full": True}, ValueError, "^order: .*3 where full"),
    "chunk 0": ({"chunk": 0}, ValueError, "^chunk: .*at least 1.*0"),
    "chunk -2": ({"chunk": -2}, ValueError, "^chunk: .*at least 1.*-2"),
    "chunk as a float": ({"chunk": 2.0}, TypeError, "^chunk: .*integer.*float"),
    "chunk as a truth value": ({"chunk": True}, TypeError, "^chunk: .*integer.*bool"),
    "chunk as text": ({"chunk": "2"}, TypeError, "^chunk: .*integer.*str"),
}


@pytest.mark.parametrize("what", CHOICES)
def test_wrong_choices_are_named(what: str, calls: SummaryCalls) -> None:
    """The argument comes first in the message."""
    choices, kind, text = CHOICES[what]
    with pytest.raises(kind, match=text):
        calls.summary(**choices)


@pytest.mark.parametrize(
    ("threads", "kind"), [(0, ValueError), (-1, ValueError), (2.0, TypeError), (True, TypeError)]
)
def test_wrong_threads_are_named(threads: Any, kind: type[Exception], calls: SummaryCalls) -> None:
    """Only Numba modules have threads of their own."""
    with pytest.raises(TypeError if calls.torch else kind, match="threads"):
        calls.summary(threads=threads)


def test_no_samples_and_wrong_batches(calls: SummaryCalls) -> None:
    """As in the other operators."""
    params, inputs, targets = calls.given()
    direction = calls.own(calls.point.vector)
    with pytest.raises(ValueError, match=r"inputs.*at least one sample"):
        calls.module.summary(params, inputs[:0], targets[:0], direction)
    with pytest.raises(ValueError, match="targets"):
        calls.module.summary(params, inputs, targets[:2], direction)
    with pytest.raises(ValueError, match="inputs"):
        calls.module.summary(params, inputs[:, :2], targets, direction)
    with pytest.raises(TypeError, match=r"inputs.*float64.*float32"):
        calls.module.summary(params, single(inputs), targets, direction)
    with pytest.raises(ValueError, match="classes 0 to 1"):
        calls.module.summary(params, inputs, targets + 2, direction)
    with pytest.raises(ValueError, match=r"params.*fc1\.bias"):
        calls.module.summary({k: v for k, v in params.items() if k != "fc1.bias"}, inputs, targets, direction)


def test_a_refused_call_changes_nothing(calls: SummaryCalls) -> None:
    """The next one gives what it gave before."""
    before = calls.summary(order=3, gradient=True)
    for choices, kind, _ in CHOICES.values():
        with pytest.raises(kind):
            calls.summary(**choices)
    same_bits(before, calls.summary(order=3, gradient=True))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("word", ["canonical", "discrete"])
def test_together_with_functions_of_one_sample(word: str, backend: str, tmp_path: Path) -> None:
    """The Newton direction and a method whose step is of one sample, in one module with the summary."""
    spec = spec_with(CASES["granular"], word, regularization={"state": 0.1}, method={"name": "mk"})
    request = Request(backend=backend, operators=("summary", "newton_direction"))
    module = load(compile_once(spec, request).text, tmp_path)
    groups = groups_of(spec, word)
    assert groups is not None
    call = SummaryCalls(module, point_of(spec, 5, BATCH))
    agree(call, derivatives(spec, call.point, groups), tuple(groups))
    params, inputs, targets = call.given()
    assert list(module.newton_direction(params, inputs[0], targets[0])) == list(module.SHAPES)


# ── text ──────────────────────────────────────────────────────────────────────────────────────────────

PRINTED = (("spectral_smooth", "canonical"), ("no_bias", "discrete"), ("shared", "random"))


@pytest.mark.parametrize("name, word", PRINTED)
def test_text_is_formatted_and_clean(name: str, word: str, tmp_path: Path) -> None:
    """ruff format changes nothing in a Torch module; the default rules of ruff find nothing in either."""
    found = partition_of_case(CASES[name], word)
    assert found is not None
    ruff = [sys.executable, "-m", "ruff"]
    options = ["--isolated", "--config", "line-length = 110"]
    for backend, text in texts(found[0], equations=False).items():
        path = tmp_path / f"{backend}.py"
        path.write_text(text, encoding="utf-8")
        commands = [["check", "--ignore", "RUF"]]
        commands += [["format", "--diff"]] if backend == "torch" else []
        for command in commands:
            run = subprocess.run([*ruff, *command, *options, str(path)], capture_output=True, text=True)
            assert run.returncode == 0, run.stdout


_SCRIPT = """
import json
import sys
from sifrc.compiler import Request, compile_spec
from sifrc.spec import build_spec
spec = build_spec(json.loads(sys.argv[1]))
for backend in ("torch", "numba"):
    request = Request(backend=backend, method="none", operators=tuple(sys.argv[2:]))
    sys.stdout.write(compile_spec(spec, request).text)
"""


def test_text_is_the_same_under_other_hash_seeds() -> None:
    """Byte by byte, both backends."""
    data = {**CASES["shared_skip"], "partition": "weights-biases"}
    here = "".join(texts(spec_with(data, data["partition"])).values())
    command = [sys.executable, "-c", _SCRIPT, json.dumps(data), *OPERATORS]
    environment = {**os.environ, "PYTHONHASHSEED": "1", "PYTHONIOENCODING": "utf-8"}
    run = subprocess.run(command, capture_output=True, env=environment, check=True)
    assert run.stdout.decode() == here


# ── faults of memory and of parts of the batch ────────────────────────────────────────────────────────


BRANCHES = {
    **CASES["shared_skip"],
    "network": {
        "input": {"name": "image", "size": 3},
        "layers": [
            {"name": "fc1", "type": "dense", "units": 3, "activation": "tanh"},
            {"name": "fc2", "type": "dense", "units": 3, "inputs": ["image"], "activation": "sin"},
            {"name": "sum1", "type": "add", "inputs": ["fc1", "fc2"]},
            {"name": "fc3", "type": "dense", "share": "fc1", "activation": "softplus"},
            {"name": "fc4", "type": "dense", "units": 2},
        ],
    },
    "loss": "cross_entropy",
}
"""A layer that begins anew at the input: groups of other layers are not there."""


Truth = tuple[Compiled, Point, dict[str, list[str]], Derivatives]


@pytest.fixture(scope="module")
def truths() -> list[Truth]:
    """Networks with branches and shared layers, on classes; what is true of them."""
    made = []
    for data in (BRANCHES, {**CASES["shared_skip"], "loss": "cross_entropy"}):
        spec, groups = partition_of_case(data, "canonical") or pytest.fail("no partition")
        point = point_of(spec, 3, BATCH)
        compiled = compile_spec(spec, Request(backend="numba", method="none", operators=OPERATORS))
        made.append((compiled, point, groups, derivatives(spec, point, groups)))
    return made


def lowered_again(compiled: Compiled) -> str:
    """The text from the same equations, with the faults that the lowering has now."""
    return BACKEND.emit(replace(compiled.source, program=lowering.lower(compiled.planned.plan)))


def modules_differ(truths: list[Truth], folder: Path, text_of: Callable[[Compiled], str]) -> bool:
    """Whether one of the modules does."""
    return any(module_differs(truth, folder, text_of) for truth in truths)


def module_differs(truth: Truth, folder: Path, text_of: Callable[[Compiled], str]) -> bool:
    """Whether a Numba module disagrees, also with memory that was used before, and in parts of the batch."""
    compiled, point, groups, expected = truth
    call = SummaryCalls(load(text_of(compiled), folder), point)
    try:
        agree(call, expected, tuple(groups))
        workspace = call.module.Workspace()
        for more in ({}, {"chunk": 2}, {"chunk": 3}, {}):
            agree(call, expected, tuple(groups), workspace=workspace, **more)
            spoil(workspace)
        found = call.summary(gradient=True, chunk=3)
        assert found.gradient is not None
        product = sum((value * point.vector[key]).sum() for key, value in found.gradient.items())
        assert_near(product, expected.g.sum(), 1e-10)
    except AssertionError:
        return True
    return False


def spoil(workspace: Any) -> None:
    """Overwrite all work arrays but the inputs."""
    for work in chain.from_iterable(workspace._free.values()):
        for value in work.__dict__.values():
            for array in value[1:] if isinstance(value, tuple) else (value,):
                if isinstance(array, np.ndarray) and array.dtype.kind == "f":
                    array[...] = np.nan


def _places(change: Callable[[Place], Place]) -> Callable[[pytest.MonkeyPatch], None]:
    """Change the places of every order."""

    def fault(patch: pytest.MonkeyPatch) -> None:
        original = lifetimes.operator_places

        def changed(program: Program) -> dict[str, tuple[tuple[Place, ...], ...]]:
            return {
                name: tuple(tuple(map(change, places)) for places in cases)
                for name, cases in original(program).items()
            }

        patch.setattr(lowering, "operator_places", changed)

    return fault


def _results_let_go(patch: pytest.MonkeyPatch) -> None:
    """Results end with their last statement."""
    original = lifetimes._places
    patch.setattr(
        lifetimes,
        "_places",
        lambda program, functions, excluded, _, *rest: original(program, functions, excluded, set(), *rest),
    )


def _joined_too_often(patch: pytest.MonkeyPatch) -> None:
    """Arrays take the place of any that a kernel reads, not of those that it reads entry by entry."""

    def passed_on(statement: Any, k: int | None) -> list[Any]:
        targets = [lifetimes.absolute(load.ref, k) for load in lifetimes.targets_of(statement)]
        return [
            (lifetimes.absolute(load.ref, k), target)
            for load in lifetimes.loads_of(statement)
            for target in targets
        ]

    patch.setattr(lifetimes, "_passed_on", passed_on)


MEMORY: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    "places: let go one statement too early": _places(lambda p: replace(p, last=max(p.first, p.last - 1))),
    "places: taken one statement too late": _places(lambda p: replace(p, first=min(p.first + 1, p.last))),
    "places: only at the first touch": _places(lambda p: replace(p, last=p.first)),
    "places: results let go": _results_let_go,
    "places: handed on where entries mix": _joined_too_often,
    "windows: no zeros below the first addition": lambda patch: patch.setattr(
        windows, "_tiles", lambda *a: True
    ),
}


def test_without_a_fault_nothing_is_caught(truths: list[Truth], tmp_path: Path) -> None:
    """The check passes on the code as it is."""
    assert not modules_differ(truths, tmp_path, lowered_again)
    assert all(lowered_again(compiled) == compiled.text for compiled, *_ in truths)


@pytest.mark.parametrize("name", MEMORY)
def test_fault_of_memory_is_caught(
    name: str, truths: list[Truth], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Arrays that overlap while both are needed, or that are read before they are written."""
    MEMORY[name](monkeypatch)
    assert modules_differ(truths, tmp_path, lowered_again)


TEXT = {
    "parts of the batch weigh the same": ("len(some) / len(inputs)", "rows / len(inputs)"),
    "only the last part": ("total[name] + value if", "value if"),
    "memory of another order": ("_CASE_PLACES[case]", "_CASE_PLACES[1]"),
    "parts that nobody has": ("starts[thread::threads]", "starts[thread :: threads + 1]"),
}


@pytest.mark.parametrize("name", TEXT)
def test_fault_of_the_public_function_is_caught(name: str, truths: list[Truth], tmp_path: Path) -> None:
    """A change of the module's text."""
    old, new = TEXT[name]

    def changed(compiled: Compiled) -> str:
        assert old in compiled.text
        return compiled.text.replace(old, new)

    assert modules_differ(truths, tmp_path, changed)
