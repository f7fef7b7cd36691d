"""What decides whether a fault is noticed: ``sifrc verify`` on small networks, generated modules, tests.

Only comparisons count: a row that fails by its digits, an identity that is not zero, an assertion of a test.
An exception of the broken code is noted and decides nothing.
"""

from __future__ import annotations

import math
import os
import re
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

__all__ = ["Verdict", "judge", "steps_for"]


@dataclass(frozen=True)
class Verdict:
    """What became of a fault.

    Args:
        kind: ``caught``, ``raised`` where only exceptions showed it, ``survived``, or ``undecided`` where the
            time was over.
        by: the row or the test that failed, or the first exception.
    """

    kind: str
    by: str


def _spec(layers: list[dict[str, Any]], loss: Any, **more: Any) -> dict[str, Any]:
    return {
        "sifrc": 1,
        "name": "small",
        "network": {"input": {"name": "image", "size": 2}, "layers": layers},
        "loss": loss,
        "regularization": {"state": 0.3},
        "dtype": "float64",
        **more,
    }


def _dense(name: str, units: int, activation: Any = None, **more: Any) -> dict[str, Any]:
    layer = {"name": name, "type": "dense", "units": units, **more}
    return layer if activation is None else {**layer, "activation": activation}


_SKIP = [
    _dense("fc1", 3, "tanh"),
    _dense("fc2", 3, "softplus"),
    {"name": "sum1", "type": "add", "inputs": ["fc1", "fc2"]},
    _dense("fc3", 2, "tanh"),
]
_BRANCHES = {"expression": "where(x > c, x**2/2, a*x)", "parameters": {"a": 0.4, "c": -0.3}}
_SUM = {"reduction": "sum"}
_OPERATORS = ["loss", "objective", "gradient", "objective_and_gradient", "hessian_vector_product"]
_PRODUCTS = [*_OPERATORS, "gauss_newton_vector_product"]
_BLOCKS = ["block_hessian", "curvature_factors", "block_vector_product", "hessian_diagonal"]

SPECS: Mapping[str, dict[str, Any]] = MappingProxyType(
    {
        "chain": _spec(
            [_dense("fc1", 3, "tanh"), _dense("fc2", 2)],
            "cross_entropy",
            method="mk",
            target={"operators": [*_PRODUCTS, "newton_direction"]},
        ),
        "graph": _spec(
            [
                _dense("fc1", 2, "softplus"),
                {"name": "fc2", "type": "dense", "share": "fc1", "activation": "tanh"},
                {"name": "sum1", "type": "add", "inputs": ["fc2", "image"]},
                _dense("fc3", 3, _BRANCHES, bias=False),
            ],
            {"expression": "log(1 + sum((y - t)**2)) + c*logsumexp(y)", "parameters": {"c": 0.4}, **_SUM},
            target={"operators": _PRODUCTS},
        ),
        "blocks": _spec(_SKIP, "bounded", method="ea_cg", target={"operators": _BLOCKS}),
        "groups": _spec(
            _SKIP,
            "squared_error",
            partition="weights-biases",
            method={"name": "grouped_newton", "internal_damping": 1.0},
            target={"operators": ["gradient", "summary"]},
        ),
        "spectral": _spec(
            [_dense("fc1", 3, "leaky_relu"), _dense("fc2", 2, "softplus")],
            "binary_cross_entropy",
            regularization={"state": "spectral"},
            curvature=["fisher", "sampled_fisher", "kfra"],
            target={"operators": [*_PRODUCTS, "newton_direction", "curvature_factors"]},
        ),
    }
)
"""Chains and graphs, classes and vectors, blocks, summaries, steps: small, so that all take seconds."""

_FILES = """
sifrc/calculus/          ir/test_derivatives derive/test_random_specs derive/test_summaries derive/test_newton
sifrc/derive/curvature/  derive/test_curvature_blocks derive/test_curvature_limits report
sifrc/derive/summaries   derive/test_summaries report/test_report_summaries
sifrc/derive/randomised  methods/test_method_steps backends/test_torch_optimizer
sifrc/derive/            derive/test_newton derive/test_acceptance methods/test_method_steps
                         derive/test_random_specs derive/test_ladder report docs
sifrc/model/             model derive/test_random_specs derive/test_summaries spec/test_partition cli api
sifrc/ir/cubic           ir/test_cubic methods/test_grouped_newton_steps backends/test_cubic_modules
sifrc/ir/                ir derive/test_newton derive/test_acceptance derive/test_random_specs lower methods
                         report
sifrc/lower/             lower backends/test_torch_statements backends/test_numba_statements methods
                         derive/test_summaries backends/test_torch_releases backends/test_torch_operators
                         backends/test_numba_operators backends/test_summary_modules
                         backends/test_random_modules
sifrc/scalar/            scalar model backends/test_torch_operators backends/test_numba_operators
                         derive/test_random_specs backends/test_random_modules report/test_report_notation
torch                    backends/test_torch_operators backends/test_torch_statements
                         backends/test_torch_optimizer backends/test_torch_releases backends/test_torch_ea_cg
                         backends/test_cubic_modules
                         backends/test_summary_arguments methods backends/test_summary_modules
                         backends/test_curvature_modules training/test_training_torch
                         training/test_training_summaries backends/test_random_modules
numba                    backends/test_numba_operators backends/test_numba_text backends/test_numba_training
                         backends/test_numba_ea_cg backends/test_numba_statements backends/test_cubic_modules
                         backends/test_summary_arguments lower/test_lifetimes methods
                         backends/test_summary_modules backends/test_curvature_modules
                         backends/test_numba_lists training/test_training_summaries
                         backends/test_random_modules
sifrc/backends/          backends methods/test_method_steps
"""
"""Beginning of a file's path or a word in it, and the tests that belong to it; the first line that fits."""


def steps_for(file: str, whole: bool = False) -> list[str]:
    """The killers of a file, from quick to slow: ``verify``, ``module:<backend>``, ``tests:<file>``."""
    torch, numba = "torch" in file, "numba" in file
    printed = torch or numba or "backends" in file or "printing" in file or "helpers" in file
    steps = [] if printed else ["verify"]
    steps += [f"module:{name}" for name, other in (("torch", numba), ("numba", torch)) if not other]
    table: list[tuple[str, list[str]]] = []
    for line in _FILES.strip().splitlines():
        beginning, *tests = line.split()
        if line.startswith(" "):
            table[-1][1].extend([beginning, *tests])
        else:
            table.append((beginning, tests))
    words = ("torch", "numba")
    matched = next(t for b, t in table if file.startswith(b) or (b in words and b in file))
    steps += [f"tests:{name}.py" if "/" in name else f"tests:{name}" for name in matched]
    return [*steps, "tests:"] if whole else steps


def judge(file: str, root: str, whole: bool = False, seconds: float = math.inf) -> Verdict:
    """Run the killers of a file on the package as it is now, until one notices something.

    Args:
        file: that has the fault.
        root: folder of the tree that is tested; the package is imported from it.
        whole: whether the whole fast suite comes last.
        seconds: of processor time, after which no other killer is begun.
    """
    raised = ""
    for step in steps_for(file, whole):
        kind, _, rest = step.partition(":")
        # What raises already on small networks would raise in most tests.
        if time.process_time() > seconds or (raised and kind == "tests"):
            return Verdict("raised" if raised else "undecided", raised or f"time is over before {step}")
        try:
            found = _tests(root, rest, seconds) if kind == "tests" else _rows(rest)
            for verdict in found:
                if verdict.kind == "caught":
                    return verdict
                raised = raised or verdict.by
        except Exception as error:
            raised = raised or f"{step}: {_said(error)}"
    if time.process_time() > seconds and not raised:
        return Verdict("undecided", "time is over in the last step")
    return Verdict("raised", raised) if raised else Verdict("survived", "")


def _said(error: BaseException) -> str:
    return " ".join("".join(traceback.format_exception_only(error)).split())[:200]


def _rows(backend: str) -> Iterator[Verdict]:
    """Levels 1 and 2, or level 3 of modules of a backend."""
    from sifrc.verify import ladder

    # The ladder turns exceptions into rows; here they must be told from numbers that disagree. A derivation
    # that refuses itself because its substitution does not leave zero has compared.
    ladder._reason = lambda error: ("" if _decided(error) else _RAISED) + _said(error)
    for name, data in SPECS.items():
        try:
            rows = _rows_of(data, backend)
        except _FailedRow as failed:
            rows = [failed.row]
        except Exception as error:
            yield Verdict("caught" if _decided(error) else "raised", f"verify {name}: {_said(error)}")
            continue
        for row in rows:
            if row.passed is False:
                kind = "raised" if row.note.startswith(_RAISED) else "caught"
                yield Verdict(
                    kind, f"verify {name}: {row.quantity}, level {row.level}, {row.oracle} {row.note}"
                )


_RAISED = "RAISED "


class _FailedRow(Exception):
    """Ends a report at the first comparison that fails."""

    def __init__(self, row: Any) -> None:
        super().__init__(row.note)
        self.row = row


def _stop(row: Any) -> None:
    if row.passed is False and not row.note.startswith(_RAISED):
        raise _FailedRow(row)


def _decided(error: Exception) -> bool:
    """Whether verification refused by what it compared; it also reports exceptions of modules."""
    from sifrc.errors import VerificationError

    return isinstance(error, VerificationError) and not re.search(r"[A-Z]\w*Error: ", error.message)


def _rows_of(data: dict[str, Any], backend: str) -> Sequence[Any]:
    import sifrc
    from sifrc.verify.ladder import verify

    spec = sifrc.build_spec(data)
    if not backend:
        return verify(spec, levels=(1, 2), digits=20, progress=_stop).rows
    module = sifrc.compile(spec, backend, cache=False)
    return verify(spec, levels=(3,), module=module, progress=_stop).rows


def _tests(root: str, name: str, seconds: float) -> Iterator[Verdict]:
    """The tests of a file or a folder, as far as the time goes."""
    import pytest

    listener = _Listener(root, seconds)
    path = os.path.join(root, "tests", name)
    arguments = [
        path,
        "-m",
        "not slow",
        "-q",
        "--no-header",
        "-p",
        "no:cacheprovider",
        "--tb=no",
        "-W",
        "ignore",
    ]
    arguments += ["--ignore", os.path.join(root, "tests", "golden"), "--rootdir", root]
    pytest.main(arguments, plugins=[listener])
    yield from listener.found


class _Listener:
    """Sorts failures of tests into comparisons and exceptions; the first comparison ends the run."""

    enough = 10
    """Exceptions after which nothing else is expected of a file."""

    def __init__(self, root: str, seconds: float) -> None:
        self.root, self.seconds = root, seconds
        self.found: list[Verdict] = []
        self.session: Any = None

    def pytest_sessionstart(self, session: Any) -> None:
        self.session = session

    def pytest_runtest_makereport(self, item: Any, call: Any) -> None:
        """Note what a test said."""
        if call.excinfo is None:
            return
        error = call.excinfo.value
        name = type(error).__name__
        if name in ("Skipped", "Exit", "KeyboardInterrupt"):
            return
        caught = _compared(error, self.root)
        self.found.append(Verdict("caught" if caught else "raised", f"{item.nodeid}: {_said(error)[:120]}"))
        if caught or len(self.found) >= self.enough:
            self.session.shouldstop = "decided"

    def pytest_runtest_logfinish(self) -> None:
        """No test begins after the time is over."""
        if time.process_time() > self.seconds:
            self.session.shouldstop = "time is over"

    def pytest_collectreport(self, report: Any) -> None:
        """A file that cannot be collected is an exception."""
        if report.failed:
            self.found.append(Verdict("raised", f"{report.nodeid}: cannot be collected"))


def _compared(error: BaseException, root: str) -> bool:
    """Whether a test compared and found a difference; assertions of the package are exceptions."""
    if isinstance(error, BaseExceptionGroup):
        return any(_compared(each, root) for each in error.exceptions)
    if type(error).__name__ in ("Failed", "DocTestFailure", "MultipleDoctestFailures"):
        return "timeout" not in str(error).lower()
    if not isinstance(error, AssertionError):
        return False
    frames = traceback.extract_tb(error.__traceback__)
    package = os.path.join(root, "sifrc") + os.sep
    return bool(frames) and not frames[-1].filename.startswith(package)
