"""Rows of hyperparameters: every kind of number, of both backends."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from optimizers_modules import Row, Run

__all__ = ["number_rows"]

KINDS: dict[str, Callable[[float], Any]] = {
    "NumPy float64": np.float64,
    "NumPy float32": np.float32,
    "0-d array": lambda value: np.array(value),
    "0-d float32 array": lambda value: np.array(value, np.float32),
    "0-d tensor": lambda value: torch.tensor(value, dtype=torch.float64),
    "0-d float32 tensor": lambda value: torch.tensor(value, dtype=torch.float32),
    "0-d tensor with a gradient": lambda value: torch.tensor(value, requires_grad=True),
    "fraction": Fraction,
}
WHOLE: dict[str, Callable[[int], Any]] = {
    "float": float,
    "NumPy int64": np.int64,
    "NumPy uint8": np.uint8,
    "0-d array": lambda value: np.array(value),
    "0-d tensor": lambda value: torch.tensor(value),
}
NEVER: dict[str, Any] = {
    "nan": math.nan,
    "inf": math.inf,
    "-inf": -math.inf,
    "NumPy nan": np.float32("nan"),
    "0-d nan array": np.array(math.nan),
    "0-d inf tensor": torch.tensor(math.inf),
    "True": True,
    "NumPy bool": np.bool_(True),
    "bool tensor": torch.tensor(True),
    "None": None,
    "text": "0.1",
    "NumPy text": np.str_("0.1"),
    "complex": 0.1 + 0.0j,
    "NumPy complex": np.complex64(0.1),
    "complex tensor": torch.tensor(0.1 + 0.0j),
    "list": [0.1],
    "array of one": np.array([0.1]),
    "tensor of one": torch.tensor([0.1]),
    "empty array": np.array([]),
    "dict": {},
    "decimal": Decimal("0.1"),
    "meta tensor": torch.tensor(0.1, device="meta"),
    "huge whole number": 10**400,
    "-1": -1,
    "-1e-30": -1e-30,
    "-0-d tensor": torch.tensor(-0.5),
}


def number_rows(run: Run) -> Iterator[Row]:
    """Rows for each hyperparameter of a method."""
    numbers = run.numbers()
    excluded = getattr(run.module, "_EXCLUDED", {})
    whole = getattr(run.module, "_WHOLE", ())
    for name, (low, high, *_) in numbers.items():
        value = _inside(low, high, name in whole)
        kinds: dict[str, Callable[[Any], Any]] = dict(WHOLE) if name in whole else dict(KINDS)
        for kind, make in kinds.items():
            yield Row(
                f"{name}: {kind}",
                lambda run, name=name, made=make(value): run.set(name, made),
                "the same steps as with a number of Python",
                like=lambda run, name=name, made=_plain(make(value)): run.set(name, made),
            )
        for kind, made in [*NEVER.items(), *_outside(low, high, excluded.get(name, ()), name in whole, run)]:
            yield _refused(run, f"{name}: {kind}", name, made)
        for end in {low, high} - {None, *excluded.get(name, ())}:
            yield Row(
                f"{name}: its end {end}",
                lambda run, name=name, end=end: run.set(name, end),
                "an end that belongs to the range is taken; something may still not be finite",
                expect="either",
                like=lambda run, name=name, end=end: run.set(name, end),
                heal=lambda run, name=name, old=run.get(name): run.set(name, old),
            )
    yield Row(
        "lr: so large that the step overflows",
        lambda run: run.set("lr", 3e38 if run.dtype == "float32" else 1.7e308),
        "refused, unless the direction is zero",
        expect="either",
        like=lambda run: run.set("lr", 3e38 if run.dtype == "float32" else 1.7e308),
        heal=lambda run: run.set("lr", 1e-2),
    )


def _inside(low: Any, high: Any, whole: bool) -> Any:
    if whole:
        return int(low) + 2
    return 0.25 if high is None else low + 0.25 * (high - low)


def _plain(value: Any) -> Any:
    """The same number as a number of Python."""
    found = value.item() if hasattr(value, "item") else value
    return int(found) if isinstance(found, int) else float(found)


def _outside(
    low: Any, high: Any, excluded: tuple[float, ...], whole: bool, run: Run
) -> Iterator[tuple[str, Any]]:
    """Numbers next to the range."""
    if whole:
        yield "half a number more", low + 2.5
        yield "one less", low - 1
        yield "one more", high + 1
        yield "a 0-d array of half a number", np.array(low + 1.5)
        return
    if high is not None:
        yield "above", math.nextafter(high, math.inf)
        yield "far above", 2.0 * high
    for end in excluded:
        yield f"the excluded end {end}", end
        yield f"the excluded end {end} as a tensor", torch.tensor(end)
    if high is None and run.dtype == "float32":
        yield "more than the dtype has", 1e300


def _refused(run: Run, name: str, number: str, value: Any) -> Row:
    return Row(
        name,
        lambda run: run.set(number, value),
        "refused before anything changes",
        expect="refused",
        heal=lambda run, old=run.get(number): run.set(number, old),
    )
