"""One item of the fuzzing of specs: made from its seed, read, and made a model."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from random import Random
from types import MappingProxyType
from typing import Any

from spec_findings import Finding, Tally, of_exception
from spec_generator import random_spec
from spec_mutator import mutated_data, mutated_text, written
from spec_watch import Hang, Watch, limited

from sifrc.errors import SifrcError
from sifrc.model import build_model
from sifrc.spec import Spec, build_spec, parse_spec, spec_to_dict

__all__ = ["LIMIT", "item_of", "parse_item", "source_text"]

LIMIT = 20.0
"""Seconds of processor time that one item may take."""
LONGEST_LINE, LONGEST_MESSAGE = 1000, 20_000
_EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
_LARGE = 4000


@dataclass(frozen=True)
class _Bases:
    """What mutations start from.

    Args:
        texts: the examples.
        datas: the same as data.
    """

    texts: tuple[str, ...]
    datas: tuple[dict[str, Any], ...]


@cache
def _bases() -> _Bases:
    texts = [path.read_text(encoding="utf-8") for path in sorted(_EXAMPLES.glob("*.yaml"))]
    datas = [spec_to_dict(parse_spec(text)) for text in texts]
    small = [text for text in texts if len(text) < _LARGE]
    return _Bases(
        (*small * 8, *texts), tuple(json.loads(json.dumps(data)) for data in datas if len(str(data)) < _LARGE)
    )


def item_of(seed: int) -> str | dict[str, Any]:
    """The item of a seed: text or data, random or mutated."""
    rng = Random(seed)
    draw = rng.random()
    if draw < 0.17:
        return mutated_text(rng.choice(_bases().texts), rng)
    if draw < 0.27:
        return mutated_text(written(random_spec(rng), rng), rng)
    if draw < 0.40:
        return mutated_data(rng.choice(_bases().datas), rng)
    if draw < 0.65:
        return mutated_data(random_spec(rng), rng)
    spec = random_spec(rng, degenerate=rng.choice((0.3, 0.8, 1.0)), largest=rng.choice((2, 5, 5, 10_000_000)))
    return written(spec, rng) if draw < 0.75 else spec


def source_text(item: Any) -> str:
    """An item as text, for messages and for the watch."""
    return item if isinstance(item, str) else repr(item)


def read(item: Any) -> Spec:
    """The spec of an item."""
    return parse_spec(item, "fuzzed.yaml") if isinstance(item, str) else build_spec(item)


def parse_item(item: Any, watch: Watch | None = None, limit: float = LIMIT) -> Tally:
    """Read an item and make its model; everything that must not be is a finding.

    Args:
        item: text or data.
        watch: hears what is executed.
        limit: seconds.
    """
    tally = Tally()
    try:
        with limited(limit):
            if watch is None:
                _parse(item, tally)
            else:
                with watch.on(source_text(item)):
                    _parse(item, tally)
    except Hang as error:
        tally.findings.append(of_exception(error, "hang"))
    except (Exception, SystemExit, KeyboardInterrupt) as error:
        tally.findings.append(of_exception(error))
    if watch is not None:
        tally.findings += [Finding("execution", what[:80], what) for what in dict.fromkeys(watch.seen)]
    return tally


def _parse(item: Any, tally: Tally) -> None:
    try:
        spec = read(item)
    except SifrcError as error:
        tally.counts["refused"] += 1
        tally.findings += problems_of(error, item)
        return
    tally.counts["specs"] += 1
    if build_spec(spec_to_dict(spec)) != spec:
        tally.findings.append(Finding("round trip", "spec_to_dict", "the canonical form is another spec"))
    try:
        build_model(spec)
    except SifrcError as error:
        tally.counts["no model"] += 1
        tally.findings += problems_of(error, item)
        return
    tally.counts["models"] += 1


def problems_of(error: SifrcError, item: Any) -> list[Finding]:
    """What is wrong with an error itself: no message, a place outside of the text, too long to be read."""
    shown = str(error)
    name = type(error).__name__
    found = []
    if not error.message.strip() or not error.message.isprintable():
        found.append(f"{name}: its message is not one printable line")
    if len(error.message) > LONGEST_LINE or len(shown) > LONGEST_MESSAGE:
        found.append(f"{name}: too long to be read")
    if isinstance(item, str) and error.location is not None:
        where = error.location
        lines = (
            item.count("\n")
            + item.count("\r")
            + item.count("\x85")
            + item.count("\u2028")
            + item.count("\u2029")
        )
        if not (1 <= where.line <= lines + 2 and where.column >= 1):
            found.append(f"{name}: its place is outside of the text")
    return [Finding("message", text, ascii(error.message)[:120]) for text in found]


SIMPLE = MappingProxyType(
    {
        "sifrc": 1,
        "name": "simple",
        "network": {"input": {"size": 2}, "layers": [{"type": "dense", "units": 2}]},
        "loss": "mse",
    }
)
"""The least spec: what is imported on first use is imported by it, before anything is watched."""
