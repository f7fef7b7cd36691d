"""What decides whether a fault is noticed: ``sifrc verify`` on small networks, generated modules, tests.

Only comparisons count: a row that fails by its digits, an identity that is not zero, an assertion of a test.
An exception of the broken code is noted and decides nothing.
"""

from __future__ import annotations

import math
import os
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from mutation_rows import SPECS, Verdict, decided, rows, said

__all__ = ["failing", "judge", "run_killer", "steps_for"]


_FILES = """
sifrc/calculus/          chain ir/test_derivatives own graph spectral blocks groups derive/test_random_specs
                         derive/test_summaries derive/test_newton
sifrc/derive/curvature/convexity derive/test_curvature_limits methods/test_ea_cg methods/test_ea_cg_refusals
                         derive/test_curvature_blocks blocks report/test_report_curvature
sifrc/derive/curvature/parameters blocks places own spectral derive/test_curvature_blocks
                         methods/test_ea_cg report/test_report_curvature backends/test_curvature_modules
sifrc/derive/curvature/  own blocks spectral derive/test_curvature_blocks derive/test_curvature_limits
                         methods/test_ea_cg report/test_report_curvature backends/test_curvature_modules
sifrc/derive/summaries   own groups derive/test_summaries methods/test_grouped_newton_steps
                         report/test_report_summaries backends/test_summary_arguments backends/test_scales
sifrc/derive/scaling     groups backends/test_scales methods/test_grouped_newton_steps derive/test_summaries
sifrc/derive/samples     own backends/test_sample_gradients chain
sifrc/derive/randomised  methods/test_method_steps backends/test_torch_optimizer backends/test_numba_training
sifrc/derive/acceptance  derive/test_acceptance chain
sifrc/derive/output_range own derive/test_ladder derive/test_acceptance spectral
sifrc/derive/            chain own graph spectral derive/test_newton methods/test_method_steps blocks groups
                         report docs derive/test_acceptance derive/test_random_specs derive/test_ladder
sifrc/model/partition    groups own spec/test_partition derive/test_summaries backends/test_summary_arguments
                         training/test_training_summaries report/test_report_summaries
sifrc/model/loss         chain graph own model spectral backends/test_softmaxes blocks groups
                         backends/test_vanishing_modules derive/test_random_specs derive/test_ladder
sifrc/model/layers/windows windows own backends/test_convolutions::test_torch_computes_the_same
                         backends/test_convolutions
sifrc/model/             chain graph own spectral model methods/test_method_steps blocks groups
                         derive/test_random_specs derive/test_summaries backends/test_vanishing_modules report
sifrc/ir/cubic           ir/test_cubic own methods/test_grouped_newton_steps backends/test_cubic_modules
                         backends/test_scales
sifrc/ir/selections      own windows ir/test_derivatives lower/test_selections backends/test_convolutions
sifrc/ir/                chain own graph ir/test_canonical ir/test_derivatives ir/test_evaluate spectral
                         blocks groups ir model derive/test_newton derive/test_acceptance lower
                         derive/test_ladder derive/test_random_specs derive/test_summaries methods
                         backends/test_vanishing_modules report
sifrc/lower/structure    lower/test_structure own blocks methods/test_conjugate_gradients methods/test_ea_cg
                         backends/test_torch_ea_cg backends/test_numba_ea_cg
sifrc/lower/solving      blocks own methods/test_conjugate_gradients methods/test_ea_cg lower
                         backends/test_torch_ea_cg backends/test_numba_ea_cg
sifrc/lower/groups       groups own lower/test_groups derive/test_summaries backends/test_summary_arguments
                         backends/test_summary_modules
sifrc/lower/windows      groups own derive/test_summaries backends/test_summary_arguments
                         backends/test_summary_modules backends/test_cubic_modules
sifrc/lower/lifetimes    lower/test_lifetimes chain own graph methods/test_reused_buffers lower spectral
                         groups blocks backends/test_numba_training backends/test_numba_lists
                         methods/test_method_steps backends/test_summary_modules
sifrc/lower/reuse        lower/test_reuse methods/test_reused_buffers own chain graph spectral blocks groups
                         lower backends/test_numba_training methods/test_method_steps
sifrc/lower/selections   lower/test_selections places windows own chain lower backends/test_axes_of_states
                         backends/test_convolutions
sifrc/lower/convolutions windows own lower/test_selections
                         backends/test_convolutions::test_all_three_forms_are_functions_of_torch
                         backends/test_convolutions::test_torch_computes_the_same backends/test_convolutions
sifrc/lower/uses         lower/test_rolling graph chain own lower
sifrc/lower/             chain own graph lower/test_rolling spectral groups blocks lower
                         backends/test_torch_statements backends/test_numba_statements
                         methods derive/test_summaries backends/test_torch_releases
                         backends/test_torch_operators backends/test_numba_operators
                         backends/test_vanishing_modules backends/test_random_modules
sifrc/scalar/helpers     chain graph own backends/test_numba_statements scalar/test_scalar_stability
                         backends/test_numba_operators spectral blocks groups
                         scalar/test_scalar_single::test_two_units_in_the_last_place
sifrc/scalar/            graph own chain scalar/test_scalar_function scalar/test_scalar_domain
                         scalar/test_scalar_stability scalar/test_scalar_scaling spectral
                         model/test_model_loss blocks groups backends/test_torch_operators
                         backends/test_numba_operators backends/test_softmaxes
                         backends/test_vanishing_modules report/test_report_notation
                         backends/test_random_modules
templates/torch/cubic    backends/test_cubic_modules backends/test_scales methods/test_grouped_newton_steps
                         groups
templates/shared/cubic   backends/test_cubic_modules backends/test_scales methods/test_grouped_newton_steps
                         groups
templates/torch/chosen   blocks groups spectral backends/test_curvature_modules::test_parts_of_a_batch
                         backends/test_sample_gradients backends/test_diagonals_and_traces
                         backends/test_curvature_modules backends/test_operator_ownership
                         backends/test_summary_arguments backends/test_scales backends/test_summary_modules
                         backends/test_torch_ea_cg
templates/numba/chosen   blocks groups spectral backends/test_curvature_modules::test_parts_of_a_batch
                         backends/test_sample_gradients backends/test_diagonals_and_traces
                         backends/test_curvature_modules backends/test_operator_ownership
                         backends/test_summary_arguments backends/test_scales backends/test_summary_modules
                         backends/test_random_numbers backends/test_numba_ea_cg backends/test_numba_lists
templates/torch/edge     chain backends/test_torch_operators graph blocks methods/test_grouped_newton_steps
                         backends/test_summary_arguments backends/test_operator_ownership
                         backends/test_torch_optimizer spectral groups backends/test_curvature_modules
templates/numba/edge     chain backends/test_numba_operators graph blocks methods/test_grouped_newton_steps
                         backends/test_summary_arguments backends/test_operator_ownership
                         backends/test_numba_training spectral groups backends/test_curvature_modules
                         backends/test_numba_lists
templates/torch/solvers  backends/test_torch_statements chain spectral blocks methods/test_conjugate_gradients
                         methods/test_method_steps methods/test_ea_cg backends/test_torch_ea_cg
                         methods/test_conjugate_gradients_rounding backends/test_torch_optimizer
                         backends/test_curvature_modules
templates/numba/helpers  backends/test_numba_statements chain spectral blocks methods/test_method_steps
                         methods/test_ea_cg backends/test_numba_ea_cg backends/test_numba_training
                         backends/test_curvature_modules backends/test_numba_lists
templates/torch/optimizer backends/test_torch_optimizer backends/test_torch_ea_cg
                         methods/test_method_steps methods/test_grouped_newton_steps
                         training/test_training_torch backends/test_operator_ownership chain
templates/torch/random   backends/test_torch_optimizer backends/test_curvature_modules::test_seeds
                         backends/test_curvature_modules::test_drawn_classes_have_the_frequencies_of_softmax
                         backends/test_torch_operators
templates/shared/init    backends/test_numba_operators backends/test_numba_training chain
templates/numba/random   backends/test_random_numbers backends/test_curvature_modules::test_seeds
                         backends/test_numba_ea_cg
templates/numba/memory   chain graph groups backends/test_numba_operators backends/test_numba_training
                         backends/test_numba_ea_cg lower/test_lifetimes blocks backends/test_numba_lists
                         backends/test_operator_ownership
templates/shared/optimizer backends/test_random_numbers backends/test_numba_training
                         methods/test_grouped_newton_steps backends/test_numba_ea_cg methods/test_method_steps
                         chain training/test_training_summaries backends/test_operator_ownership groups
                         backends/test_numba_lists
sifrc/backends/torch_eager/convolutions windows
                         backends/test_convolutions::test_all_three_forms_are_functions_of_torch
                         backends/test_convolutions::test_windows_of_nothing_but_padding
                         backends/test_convolutions::test_torch_computes_the_same backends/test_convolutions
torch                    chain graph backends/test_torch_operators backends/test_torch_statements spectral
                         backends/test_torch_optimizer backends/test_torch_ea_cg blocks groups
                         backends/test_summary_arguments backends/test_operator_ownership methods
                         backends/test_torch_releases backends/test_cubic_modules
                         backends/test_curvature_modules training/test_training_torch
                         backends/test_vanishing_modules backends/test_summary_modules
                         backends/test_random_modules
numba                    chain graph backends/test_numba_operators backends/test_numba_statements spectral
                         backends/test_numba_training backends/test_numba_ea_cg backends/test_numba_text
                         blocks groups backends/test_operator_ownership backends/test_numba_lists
                         backends/test_summary_arguments lower/test_lifetimes methods
                         backends/test_cubic_modules backends/test_curvature_modules
                         backends/test_vanishing_modules backends/test_summary_modules
                         backends/test_random_modules
sifrc/backends/kinds     blocks own backends/test_backends_shared backends/test_operator_ownership
                         backends/test_curvature_modules
sifrc/catalogue/blocks   blocks places own spectral backends/test_curvature_modules
                         backends/test_diagonals_and_traces derive/test_ladder
sifrc/catalogue/         own chain graph blocks groups spectral backends/test_sample_gradients
                         backends/test_diagonals_and_traces backends/test_curvature_modules
                         backends/test_summary_arguments derive/test_ladder
sifrc/backends/operators chain blocks groups own backends/test_backends_shared
                         backends/test_sample_gradients backends/test_diagonals_and_traces
                         backends/test_curvature_modules backends/test_summary_arguments
                         backends/test_operator_ownership
sifrc/backends/          chain own graph backends/test_backends_shared blocks groups
                         backends/test_numba_statements backends/test_torch_statements backends
                         methods/test_method_steps
"""
"""Beginning of a file's path or a word in it, and its killers in their order; the first line that fits.

The names of networks stand for their rows, ``own`` for the examples in the docstrings of the file itself.
"""


def steps_for(file: str, whole: bool = False) -> list[str]:
    """The killers of a file in their order: ``torch:<network>``, ``verify:<network>``, ``tests:<file>``."""
    torch, numba = "torch" in file, "numba" in file
    printed = torch or numba or "backends" in file or "printing" in file or "helpers" in file
    sides = [name for name, other in (("torch", numba), ("numba", torch)) if not other]
    if not printed:
        sides.insert(1, "verify")
    steps = []
    for word in _words_of(file):
        if word in SPECS:
            steps += [f"{side}:{word}" for side in sides]
        elif word == "own":
            steps += [f"tests:{file}"] if file.endswith(".py") else []
        else:
            name, *test = word.split("::")
            steps.append("::".join([f"tests:tests/{name}" + (".py" if "/" in name else ""), *test]))
    return [*steps, "tests:"] if whole else steps


def _words_of(file: str) -> list[str]:
    """The line of the table that fits."""
    table: list[tuple[str, list[str]]] = []
    for line in _FILES.strip().splitlines():
        beginning, *words = line.split()
        if line.startswith(" "):
            table[-1][1].extend([beginning, *words])
        else:
            table.append((beginning, words))
    return next(w for b, w in table if file.startswith(b) or (b in ("torch", "numba") and b in file))


_ENOUGH = 2
"""Killers of one kind that have raised, after which the others of that kind are not asked."""


def judge(file: str, root: str, first: str = "", whole: bool = False, seconds: float = math.inf) -> Verdict:
    """Run the killers of a file on the package as it is now, until one notices something.

    Args:
        file: that has the fault.
        root: folder of the tree that is tested; the package is imported from it.
        first: killer that is asked before the others; what it says counts only if it notices something.
        whole: whether the whole fast suite comes last.
        seconds: of processor time, after which no other killer is begun.
    """
    if first:
        try:
            for verdict in run_killer(first, root, seconds):
                if verdict.kind == "caught":
                    return verdict
        except Exception:
            pass
    shown = ""
    raised: Counter[bool] = Counter()
    for step in steps_for(file, whole):
        tests = step.startswith("tests:")
        if time.process_time() > seconds:
            return Verdict("raised" if shown else "undecided", shown or f"time is over before {step}")
        # What raises already on small networks would raise in most tests.
        if raised[tests] >= _ENOUGH or (tests and raised[False]):
            continue
        failed = ""
        try:
            for verdict in run_killer(step, root, seconds):
                if verdict.kind == "caught":
                    return verdict
                failed = failed or verdict.by
        except Exception as error:
            failed = f"{step}: {said(error)}"
        raised[tests] += bool(failed)
        shown = shown or failed
    if time.process_time() > seconds and not shown:
        return Verdict("undecided", "time is over in the last step")
    return Verdict("raised", shown) if shown else Verdict("survived", "")


def run_killer(step: str, root: str, seconds: float = math.inf) -> Iterator[Verdict]:
    """What one killer finds: rows of a network, or the tests of a file, a folder or a name.

    Args:
        step: one of ``steps_for``, or ``killer`` of a verdict.
        root: folder of the tree.
        seconds: of processor time, after which no test begins.
    """
    kind, _, name = step.partition(":")
    if kind == "tests":
        return _tests(root, [name], seconds)
    return rows(name, "" if kind == "verify" else kind)


def failing(killers: Sequence[str], root: str) -> list[str]:
    """Those of these killers that find something, exceptions included; tests run together."""
    found = []
    for killer in killers:
        if not killer.startswith("tests:"):
            found += [f"{killer} {verdict.by}" for verdict in run_killer(killer, root)]
    names = [killer.removeprefix("tests:") for killer in killers if killer.startswith("tests:")]
    return found + [verdict.by for verdict in _tests(root, names, math.inf, math.inf)] if names else found


_COMPILED = (
    "tests/backends/test_numba_lists.py::test_compiled_lists",
    "tests/api/test_pickled_modules.py::test_a_pool_of_processes",
    "tests/scalar/test_scalar_single.py::test_loops_become_vector_instructions",
    "tests/scalar/test_scalar_single.py::test_without_the_compiler_too",
    "tests/scalar/test_scalar_stability.py::test_numba",
)
"""Tests that need Numba's compiler, or processes of their own; they cannot pass here."""


def _tests(root: str, names: Sequence[str], seconds: float, enough: float = 10) -> Iterator[Verdict]:
    """The tests of files, folders or names, as far as the time goes."""
    import pytest

    listener = _Listener(root, seconds, enough)
    arguments = [os.path.join(root, name) for name in names]
    arguments += ["-q", "--no-header", "-p", "no:cacheprovider", "--tb=no", "-W", "ignore"]
    arguments += ["-m", "not slow", "--rootdir", root]
    # Golden files would count every change of text.
    for name in ("golden", "robustness"):
        arguments += ["--ignore", os.path.join(root, "tests", name)]
    for name in _COMPILED:
        arguments += ["--deselect", name]
    if pytest.main(arguments, plugins=[listener]) == pytest.ExitCode.USAGE_ERROR:
        listener.found.append(Verdict("raised", f"{' '.join(names)[:80]}: there is no such test"))
    yield from listener.found


class _Listener:
    """Sorts failures of tests into comparisons and exceptions.

    Args:
        root: folder of the tree.
        seconds: of processor time, after which no test begins.
        enough: exceptions after which nothing else is expected; infinite if nothing shall end the run.
    """

    def __init__(self, root: str, seconds: float, enough: float) -> None:
        self.root, self.seconds, self.enough = root, seconds, enough
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
        words = f"{item.nodeid}: {said(error)[:120]}"
        self.found.append(Verdict("caught" if caught else "raised", words, f"tests:{item.nodeid}"))
        if (caught and self.enough < math.inf) or len(self.found) >= self.enough:
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
    name = type(error).__name__
    if name == "MultipleDoctestFailures":
        return any(type(each).__name__ == "DocTestFailure" for each in error.failures)  # type: ignore[attr-defined]
    if name in ("Failed", "DocTestFailure"):
        return "timeout" not in str(error).lower()
    if not isinstance(error, AssertionError):
        return decided(error)
    frames = traceback.extract_tb(error.__traceback__)
    package = os.path.join(root, "sifrc") + os.sep
    return bool(frames) and not frames[-1].filename.startswith(package)
