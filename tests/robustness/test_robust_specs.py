"""A sample of the fuzzing of specs, what it has found before, and that it would notice what it is for."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pytest
import spec_pipeline
import spec_whole
from sampled import one_in
from spec_findings import Finding, Findings, Tally, of_exception
from spec_minimise import minimised
from spec_pipeline import SIMPLE, item_of, parse_item, read
from spec_points import behind_a_constant
from spec_pool import work_on
from spec_watch import Hang, Watch, limited

import sifrc
from sifrc.errors import SifrcError, SpecError

CORPUS = sorted((Path(__file__).parent / "corpus").glob("*.yaml"))


@pytest.fixture(scope="module")
def watch() -> Watch:
    """One for all tests: a hook of audit events stays for as long as the process."""
    for seed in range(100):
        parse_item(item_of(seed))
    return Watch()


@pytest.mark.parametrize("start", [2000, 3000, 5000])
def test_random_and_mutated_specs_are_read_or_refused(start: int, watch: Watch) -> None:
    """No other exception, no hang, nothing executed, every error with a message and a place."""
    counts = Tally().counts
    for seed in range(start, start + 250):
        tally = parse_item(item_of(seed), watch)
        assert not tally.findings, (seed, tally.findings)
        counts.update(tally.counts)
    assert counts["models"] > 50
    assert counts["refused"] > 100


@pytest.mark.parametrize("path", one_in(3, CORPUS), ids=lambda path: path.stem)
def test_what_was_found_before(path: Path, watch: Watch) -> None:
    """Small specs at which something was wrong once. Those named ``whole_`` go through everything."""
    item: Any = path.read_text(encoding="utf-8")
    if item.startswith("# python\n"):
        item = ast.literal_eval(item.partition("\n")[2])
    tally = spec_whole.whole_item(item, 1) if path.stem.startswith("whole_") else parse_item(item, watch)
    assert not tally.findings


@pytest.mark.parametrize("seed", [10, 12])
def test_random_specs_through_everything(seed: int) -> None:
    """Check, both backends and one call of every operator agree with the oracles."""
    tally = spec_whole.whole_item(spec_whole.whole_of(seed), seed)
    assert not tally.findings
    assert tally.counts["numbers compared"] > 100
    assert tally.counts["compared"] >= 40


def test_windows_of_every_form_are_drawn() -> None:
    """Convolutions and pooling on one to three axes, with all that their windows may have."""
    found = set()
    for seed in range(400):
        try:
            spec = read(spec_whole.whole_of(seed))
        except SifrcError:
            continue
        windows = [(layer, layer.window) for layer in spec.layers if layer.window is not None]
        for layer, window in windows:
            found |= {f"{layer.kind}{len(window.kernel)}", window.pooling, "shared" if layer.share else ""}
            found |= {"groups"} if window.groups > 1 else set()
            found |= {"dilation"} if max(window.dilation) > 1 else set()
            found |= {"stride"} if not window.pooling and max(window.stride) > 1 else set()
            found |= {"both sides" if before == after else "one side" for before, after in window.padding}
    assert found >= {f"{kind}{axes}" for kind in ("conv", "pool") for axes in (1, 2, 3)}
    assert found >= {"average", "max", "shared", "groups", "dilation", "stride", "both sides", "one side"}


def test_seed_says_everything() -> None:
    """The same item for the same seed."""
    for seed in range(50):
        assert repr(item_of(seed)) == repr(item_of(seed))
    assert spec_whole.whole_of(7) == spec_whole.whole_of(7)


# What the harness must notice


def test_raw_error_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any exception but the package's own."""

    def broken(spec: Any) -> Any:
        raise KeyError(1)

    monkeypatch.setattr(spec_pipeline, "build_model", broken)
    (finding,) = parse_item(dict(SIMPLE)).findings
    assert finding.kind == "raw error"
    assert finding.place.startswith("KeyError")


def test_hang_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where somebody catches every exception."""

    def endless(spec: Any) -> Any:
        while True:
            try:
                sum(range(1000))
            except Exception:
                continue

    monkeypatch.setattr(spec_pipeline, "build_model", endless)
    (finding,) = parse_item(dict(SIMPLE), limit=0.05).findings
    assert finding.kind == "hang"
    with pytest.raises(Hang), limited(0.05):
        endless(None)


@pytest.mark.parametrize("deed", ["open('{0}/x', 'w')", "__import__('os').system('true')", "exec('1')"])
def test_execution_is_noticed(
    deed: str, watch: Watch, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Files that are written, processes, text that is run."""
    code = compile(deed.format(tmp_path), "spec", "eval")

    def executing(spec: Any) -> Any:
        return eval(code)

    monkeypatch.setattr(spec_pipeline, "build_model", executing)
    findings = parse_item(dict(SIMPLE), watch).findings
    assert {finding.kind for finding in findings} == {"execution"}


def test_error_without_a_place_or_a_line_is_noticed() -> None:
    """An error must say something, on one line."""
    (finding,) = spec_pipeline.problems_of(SpecError("two\nlines"), "text")
    assert finding.kind == "message"


def test_wrong_number_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Hessian–vector product that is off by a millionth."""
    loaded = spec_whole._loaded

    def wrong(name: str, text: str) -> Any:
        module = loaded(name, text)
        right = module.hessian_vector_product
        module.hessian_vector_product = lambda *given: {
            key: value * (1 + 1e-6) for key, value in right(*given).items()
        }
        return module

    monkeypatch.setattr(spec_whole, "_loaded", wrong)
    findings = spec_whole.whole_item(spec_whole.whole_of(20), 20).findings
    places = {finding.place for finding in findings if finding.kind == "wrong number"}
    assert places == {"torch hessian_vector_product", "numpy hessian_vector_product"}


# Grouping, making small, going on


@pytest.mark.parametrize(
    ("text", "constant"),
    [
        ("max(where(x > 3, x, 0.1), x/x)", True),
        ("x**0 + tanh(x)", True),
        ("tanh(x) + 0*log(x)", False),
        ("sqrt(x)**2 + 3*x", False),
    ],
)
def test_what_does_not_read_is_told_from_what_is_no_number(text: str, constant: bool) -> None:
    """A constant part has its value at all numbers; 0*log(x) is to stay no number below zero."""
    network = {
        "input": {"name": "x", "size": 1},
        "layers": [{"name": "y", "type": "dense", "units": 1, "activation": {"expression": text}}],
    }
    spec = sifrc.build_spec({"sifrc": 1, "name": "parts", "network": network, "loss": "squared_error"})
    assert behind_a_constant(spec) is constant


def test_findings_of_one_place_are_one_fault() -> None:
    """However many seeds show it; the least one is kept."""
    findings = Findings()
    for seed in (5, 3, 9):
        findings.put(Finding("raw error", "KeyError in a.py:f", "1", seed))
    findings.put(Finding("hang", "hang in a.py:f", "", 4))
    assert [line.split()[0] for _, line in findings.lines()] == ["3", "1"]
    assert "(seed 3)" in findings.lines()[0][1]


def test_recursion_is_one_fault_wherever_it_ends() -> None:
    """The place is the function that occurs most often."""

    def odd(number: int) -> bool:
        return not even(number - 1)

    def even(number: int) -> bool:
        return not odd(number - 1)

    places = set()
    for start in range(8):
        try:
            odd(start)
        except RecursionError as error:
            places.add(of_exception(error).place)
    assert len(places) == 1


def test_item_is_made_small() -> None:
    """What is left shows the same, and little else."""
    spec = {
        **SIMPLE,
        "seed": 3,
        "init": "glorot",
        "loss": {"expression": "sum((y - t)**2) + mean(floor(y)*t)", "parameters": {}},
    }

    def shows(item: Any) -> bool:
        try:
            read(item)
        except SifrcError as error:
            return "floor" in error.message
        return False

    assert shows(spec)
    small = minimised(spec, shows)
    assert shows(small)
    assert set(small) == {"sifrc", "name", "network", "loss"}
    assert len(small["loss"]["expression"]) <= len("floor(y)")
    assert minimised("sifrc: 1\n\n# x\na: &b 1\n", lambda text: "&" in text) == "&"


def _dies() -> Any:
    """A work that ends its process at one seed."""
    import os

    def work(seed: int) -> Tally:
        if seed == 5:
            os._exit(7)
        tally = Tally()
        tally.counts["items"] += 1
        return tally

    return work


@pytest.mark.slow
def test_process_that_dies_is_a_finding_and_nothing_else_is_lost() -> None:
    """Its chunk is done again without the seed."""
    chunks = list(work_on(_dies, 0, 20, chunk=4, processes=2))
    assert sum(chunk.tally.counts["items"] for chunk in chunks) == 19
    (finding,) = [found for chunk in chunks for found in chunk.tally.findings]
    assert (finding.kind, finding.seed) == ("died", 5)
