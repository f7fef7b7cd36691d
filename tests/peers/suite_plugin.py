"""A plugin of pytest that runs the tests of a peer with ``sifrc.operators`` in the place of its operators.

Given as ``-p suite_plugin`` by ``suite_run.py``, in a process of its own: both peers call their tests
``test``. Names in the modules of their tests are replaced while a test runs, and what becomes of each case is
written to a file.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from suite_cases import Driven, NotApplicable, Record, Used

__all__: list[str] = []


def pytest_addoption(parser: pytest.Parser) -> None:
    """The peer, and where records go."""
    parser.addoption("--sifrc-peer", default=None)
    parser.addoption("--sifrc-records", default=None)


def pytest_configure(config: pytest.Config) -> None:
    """Turn on where a peer is given."""
    peer = config.getoption("--sifrc-peer")
    if peer is not None:
        config.addinivalue_line("markers", "montecarlo: slow tests of BackPACK")
        suite = importlib.import_module(f"suite_{peer}")
        suite.prepare()
        config.pluginmanager.register(_Suite(peer, suite.TESTS, Path(config.getoption("--sifrc-records"))))


class _Suite:
    """The run of one peer's tests."""

    def __init__(self, peer: str, tests: Mapping[str, Driven | str], path: Path) -> None:
        self.peer, self.tests, self.path = peer, tests, path
        self._before = 0

    # -- what is run

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        """Leave out what is not applicable, and remember why."""
        unknown = sorted({_test(item) for item in items} - set(self.tests))
        if unknown:
            raise pytest.UsageError(f"neither driven nor with a reason: {', '.join(unknown)}")
        run = []
        for item in items:
            driven = self.tests[_test(item)]
            reason = driven if isinstance(driven, str) else driven.applies(_parameters(item))
            if reason is None:
                run.append(item)
            else:
                self._record(item, "n/a", reason)
        items[:] = run

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        """Names of the module are others while a test runs."""
        driven = self.tests[_test(item)]
        assert isinstance(driven, Driven)
        module = item.getparent(pytest.Module).obj  # type: ignore[union-attr]
        with pytest.MonkeyPatch.context() as patch:
            for name, value in driven.names.items():
                place, _, own = name.rpartition(":")
                patch.setattr(importlib.import_module(place) if place else module, own, value)
            self._before = Used.count
            return (yield)

    # -- what becomes of it

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
        """Record how a case ended."""
        report = yield
        if call.excinfo is not None:
            error = call.excinfo.value
            if isinstance(error, NotApplicable):
                self._record(item, "n/a", error.reason)
            elif isinstance(error, pytest.skip.Exception):
                self._record(item, "n/a", f"skipped by its own test: {error.msg}")
            else:
                self._record(
                    item, "failed", f"{type(error).__name__}: {error}".strip().split("\n\n")[0][:500]
                )
        elif call.when == "call":
            used = Used.count > self._before
            self._record(item, *(("passed", "") if used else ("n/a", "asks for no operator")))
        return report

    def _record(self, item: pytest.Item, outcome: str, reason: str) -> None:
        case = item.name.partition("[")[2].removesuffix("]")
        record = Record(self.peer, _test(item), case, outcome, reason)
        with self.path.open("a", encoding="utf-8") as file:  # what is done is there whatever comes
            file.write(f"{json.dumps(asdict(record))}\n")


def _test(item: pytest.Item) -> str:
    """File and function."""
    file, _, function = item.nodeid.partition("::")
    return f"{file.removeprefix('test/').removesuffix('.py')}::{function.partition('[')[0]}"


def _parameters(item: pytest.Item) -> Mapping[str, Any]:
    spec = getattr(item, "callspec", None)
    return {} if spec is None else spec.params
