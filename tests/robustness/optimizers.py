"""The life of an optimizer: things done to it between steps, crossed with every method and backend.

    python tests/robustness/optimizers.py                every method, both backends; a few of Numba compiled
    python tests/robustness/optimizers.py --method mk    one method
    python tests/robustness/optimizers.py --table        the table: what is done, and what is expected

Each row either does what PyTorch's users expect (compared with another run, to the bit or to rounding) or is
one clear error with parameters and state unchanged, after which steps go on. Nothing that is not finite
reaches parameters.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
from optimizers_data import data_rows
from optimizers_modules import CLEAR, METHODS, NumbaRun, Row, Run, TorchRun, made, modules
from optimizers_numba import numba_rows
from optimizers_numbers import number_rows
from optimizers_torch import torch_rows

__all__ = ["Report", "life", "main"]

COMPILED = ("mk", "direct", "ea_cg", "grouped")
"""Methods whose Numba modules are also tried with the compiler."""


@dataclass
class Report:
    """Counts of cases by verdict, and what was found."""

    counts: Counter[str] = field(default_factory=Counter)
    findings: list[str] = field(default_factory=list)

    def put(self, verdict: str, case: str, detail: str = "") -> None:
        """Count a case; what is not as expected is kept."""
        self.counts["cases"] += 1
        self.counts[verdict] += 1
        if verdict not in ("as expected", "clear errors"):
            self.findings.append(f"{verdict}: {case}: {detail}")

    @property
    def clean(self) -> bool:
        """Whether nothing was found."""
        return not self.findings

    def lines(self) -> list[str]:
        """The table of counts."""
        names = ("cases", "as expected", "clear errors", "raw errors", "not finite", "wrong")
        return [f"{name:14}{self.counts[name]:8}" for name in names]


def life(
    method: str,
    backend: str,
    folder: Path,
    report: Report,
    *,
    jit: bool = False,
    only: str = "",
    part: tuple[int, int] = (0, 1),
) -> None:
    """The rows of one method on one backend.

    Args:
        method: of ``METHODS``.
        backend: ``torch`` or ``numba``.
        folder: for generated modules.
        report: to count in.
        jit: whether Numba compiles.
        only: text that must be in the name of a row.
        part: the rows from the first number on, one of so many.
    """
    kind: Any = TorchRun if backend == "torch" else NumbaRun
    module = made(method, backend, folder, jit)
    other = kind(
        "kfi" if method != "kfi" else "direct", made("kfi" if method != "kfi" else "direct", backend, folder)
    )

    def fresh() -> Any:
        run = kind(method, module)
        run.advance(3)
        return run

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for row in islice(_rows(fresh(), other), part[0], None, part[1]):
            if only in row.name:
                _case(row, fresh, f"{method}, {backend}{', compiled' if jit else ''}: {row.name}", report)


def _rows(run: Run, other: Any) -> Iterator[Row]:
    own: Callable[..., Iterator[Row]] = torch_rows if run.backend == "torch" else numba_rows
    yield from chain(number_rows(run), own(run, other), data_rows(run))


def _case(row: Row, fresh: Callable[[], Any], case: str, report: Report) -> None:
    """Do it, and compare."""
    run = fresh()
    run.before = run.saved()
    try:
        row.do(run)
        run.advance()
    except CLEAR as error:
        report.put(*_after_refusal(row, run, fresh, error, case))
        return
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        report.put(
            "raw errors",
            case,
            f"{type(error).__name__}: {error} ({Path(place.filename).name}:{place.lineno})",
        )
        return
    if not run.finite():
        report.put("not finite", case)
        return
    if row.expect == "refused":
        report.put("wrong", case, f"not refused; expected: {row.text}")
        return
    if row.lost and row.like is None:
        report.put("as expected", case)
        return
    like = fresh()
    try:
        if row.like is not None:
            row.like(like)
        like.advance()
    except Exception as error:
        report.put("wrong", case, f"the run to compare with: {type(error).__name__}: {error}")
        return
    report.put(*_compared(row, run, like, case))


def _after_refusal(
    row: Row, run: Any, fresh: Callable[[], Any], error: Exception, case: str
) -> tuple[str, str, str]:
    """An error: was one expected, is nothing changed, and do steps go on?"""
    detail = f"{type(error).__name__}: {error}"
    if row.expect == "goes on":
        return "wrong", case, f"refused, expected: {row.text}; {detail}"
    if not str(error).strip():
        return "wrong", case, f"an error without text: {detail}"
    if row.lost:
        return "clear errors", case, detail
    if run.saved() != run.before:
        return "wrong", case, f"the refused step has changed something; {detail}"
    if row.heal is not None:
        row.heal(run)
    if not run.finite():
        return "not finite", case, detail
    if row.expect == "refused":
        like = fresh()
        run.position, run.objectives = like.position, list(like.objectives)
        try:
            run.advance()
        except Exception as later:
            return "wrong", case, f"no step after the refusal: {type(later).__name__}: {later}; {detail}"
        like.advance()
        verdict = _compared(row, run, like, case)
        return verdict if verdict[0] == "wrong" else ("clear errors", case, detail)
    return "clear errors", case, detail


def _compared(row: Row, run: Any, like: Any, case: str) -> tuple[str, str, str]:
    """Parameters and objectives of two runs."""
    for name, value in like.values().items():
        mine, theirs = run.array(run.values()[name]), run.array(value)
        bound = row.tolerance * (1.0 + np.abs(theirs).max())
        if mine.shape != theirs.shape or not np.abs(mine - theirs).max() <= bound:
            gap = np.abs(mine - theirs).max() if mine.shape == theirs.shape else "its shape"
            return "wrong", case, f"{name} differs by {gap}; expected: {row.text}"
    mine, theirs = np.array(run.objectives), np.array(like.objectives)
    if mine.shape != theirs.shape or not np.allclose(mine, theirs, row.tolerance, row.tolerance):
        return "wrong", case, f"objectives {mine} and {theirs}; expected: {row.text}"
    return "as expected", case, ""


def _table(folder: Path) -> Iterator[str]:
    for backend, kind in (("torch", TorchRun), ("numba", NumbaRun)):
        run, other = (kind(name, made(name, backend, folder)) for name in ("kfi", "mk"))
        for row in _rows(run, other):
            yield f"{backend:6} {row.name:55} {row.expect:8} {row.text}"


def main(argv: list[str]) -> int:
    """Run the cases and print the counts; 0 where nothing was found."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--method", action="append", choices=list(METHODS), help="only these methods")
    parser.add_argument("--backend", choices=("torch", "numba"), help="only this backend")
    parser.add_argument("--row", default="", help="only rows with this text in their name")
    parser.add_argument("--no-jit", action="store_true", help="nothing compiled")
    parser.add_argument("--table", action="store_true", help="print the table and end")
    options = parser.parse_args(argv)
    report = Report()
    with tempfile.TemporaryDirectory() as name, modules(Path(name)) as folder:
        if options.table:
            print("\n".join(_table(folder)))
            return 0
        for method in options.method or METHODS:
            for backend in ("torch", "numba"):
                if options.backend in (None, backend):
                    life(method, backend, folder, report, only=options.row)
                    print(f"{method}, {backend}: {report.counts['cases']} cases so far", flush=True)
            if method in COMPILED and options.backend in (None, "numba") and not options.no_jit:
                life(method, "numba", folder, report, jit=True, only=options.row)
    print("\n".join([*report.findings, *report.lines()]))
    return 0 if report.clean else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
