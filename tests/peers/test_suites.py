"""The peers' own test cases through ``sifrc.operators``: all that apply pass, and they are many."""

from __future__ import annotations

import os

import pytest
from suite_cases import LEAST, Record, counted, table
from suite_run import CHECKOUTS, run

needs_peers = pytest.mark.skipif(
    not all(os.environ.get(variable) for variable in CHECKOUTS.values()),
    reason=f"{' and '.join(CHECKOUTS.values())} are not set to checkouts of the peers",
)


@needs_peers
@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_cases_of_both_peers_pass_at_their_own_tolerances(capsys: pytest.CaptureFixture[str]) -> None:
    records = [record for peer in CHECKOUTS for record in run(peer)]
    with capsys.disabled():
        print(f"\n{table(records)}")
    failed = [
        f"{record.test}[{record.case}]: {record.reason}" for record in records if record.outcome == "failed"
    ]
    assert not failed, "\n".join(failed)
    assert counted(records)["passed"] >= LEAST


def test_the_table_counts_by_test_and_reason() -> None:
    records = [
        Record("backpack", "a::b", "1", "passed"),
        Record("backpack", "a::b", "2", "n/a", "no such notion"),
        Record("curvlinops", "c::d", "1", "failed", "AssertionError: far off"),
    ]
    text = table(records)
    assert [line.split()[-4:] for line in text.splitlines()[1:4]] == [
        ["1", "1", "0", "1"],
        ["1", "0", "1", "0"],
        ["2", "1", "1", "1"],
    ]
    assert "     1  no such notion" in text and "curvlinops: c::d[1]\n      AssertionError: far off" in text
