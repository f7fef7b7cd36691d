"""Level 3 for summaries: a generated module in its own dtype against nested derivatives of ``torch.func``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch.func import jvp, vmap

from sifrc.errors import VerificationError
from sifrc.ir.arithmetic import Array
from sifrc.spec.types import Spec
from sifrc.verify.oracles import forward_torch as oracle_torch
from sifrc.verify.comparison import EPSILON, allowed_digits, rounding_bound, separate_digits
from sifrc.verify.generated.rows import Framework, Setting, framework_of
from sifrc.verify.points import random_point
from sifrc.verify.summary_parts import FEW, SUMMARY, Coefficients, Found, compared, parts_of, remembered
from sifrc.verify.table import Row

__all__ = ["summary_generated_rows"]

_BATCH = 3
_LIMIT = 16.0
_WHOLE, _MATRIX = 64, 2048
"""Up to this many groups all of order 3, and orders 2 and 3 at all, are looked at."""
_TOGETHER = 2**22
"""Numbers in directions that the oracle differentiates along at once."""
_FUNC, _IDENTITIES = "torch.func, float64", "identities"

Arrays = dict[str, Array]


class _Checks:
    """A module, its arguments, and the oracle at them.

    Args:
        spec: the network.
        module: with a summary.
        framework: its arrays.
        seed: of the point.
    """

    def __init__(self, spec: Spec, module: Any, framework: Framework, seed: int) -> None:
        self.spec, self.seed = spec, seed
        # Targets near the outputs: losses such as huber are curved there.
        self.setting = Setting(spec, module, framework, seed, _BATCH, near=True)
        # A direction like parameters, of which no layer's moves are large.
        vector = random_point(spec, seed + 1).params
        self.setting.vector = {name: self.setting.rounded(value) for name, value in vector.items()}
        *_, self.direction = self.setting.oracle("vector")
        given = {name: value.numpy() for name, value in self.direction.items()}
        self.parts = parts_of(spec, given)
        self.along = remembered(self._along)

    @cached_property
    def objective(self) -> Callable[[Any], torch.Tensor]:
        return oracle_torch.forward_torch(self.spec).differentiable(*self.setting.oracle())

    def _along(self, many: Sequence[Coefficients]) -> list[float]:
        """Derivatives of the objective along Σ_s c_s u_s for each of the coefficients, many at once."""
        params = self.setting.oracle()[0]
        entries = len(many[0]) * sum(value.numel() for value in self.direction.values())
        together = max(1, _TOGETHER // entries)

        def one(*directions: Any) -> torch.Tensor:
            value: Callable[[Any], torch.Tensor] = self.objective
            for direction in directions:
                value = _moved(value, direction)
            return value(params)

        found: list[float] = []
        for start in range(0, len(many), together):
            part = [[self._combined(c) for c in each] for each in many[start : start + together]]
            stacked = (
                {name: torch.stack([each[name] for each in directions]) for name in self.direction}
                for directions in zip(*part, strict=True)
            )
            found += vmap(one)(*stacked).tolist()
        return found

    def _combined(self, coefficients: Array) -> dict[str, torch.Tensor]:
        pairs = [(float(c), part) for c, part in zip(coefficients, self.parts, strict=True) if c != 0]
        return {
            name: sum((c * torch.from_numpy(part[name]) for c, part in pairs), torch.zeros_like(value))
            for name, value in self.direction.items()
        }

    def call(self, order: int, full: bool = False, **choices: Any) -> tuple[Found, Any]:
        """A summary of the module as float64 arrays, and its gradient."""
        given = self.setting.given("vector")
        result = self.setting.function(SUMMARY)(*given, order=order, full=full, **choices)
        g, h, third = (None if v is None else self.setting.arrays(v) for v in (result.g, result.H, result.D3))
        size = len(self.parts)
        shapes = [None if value is None else value.shape for value in (g, h, third)]
        last = (size,) * 3 if full else (size,)
        expected = [(size,), (size, size) if order > 1 else None, last if order > 2 else None]
        if shapes != expected or len(result.groups) != size:
            raise VerificationError(f"order {order}: expected shapes {expected}, got {shapes}")
        slopes = None if result.gradient is None else self.setting.arrays(result.gradient)
        return Found.of((g, h, None if full else third, third if full else None)), slopes

    def orders(self) -> tuple[tuple[int, bool], ...]:
        """Orders, and whether all of order 3, that are small enough."""
        size = len(self.parts)
        table = ((1, False, True), (2, False, size <= _MATRIX), (3, False, size <= _MATRIX))
        whole = ((3, True, size <= _WHOLE),)
        return tuple((order, full) for order, full, small in (*table, *whole) if small)

    def against_oracle(self) -> Iterator[float]:
        for order, full in self.orders():
            found, _ = self.call(order, full)
            yield separate_digits(*compared(found, self.along, self.seed), _LIMIT)

    def identities(self) -> Iterator[float]:
        """Relations between results of the module."""
        order, full = self.orders()[-1]
        found, slopes = self.call(order, full, gradient=True)
        if slopes is None:
            raise VerificationError("no gradient where it was asked for")
        products = [sum(float((part[name] * slopes[name]).sum()) for name in part) for part in self.parts]
        yield _near(found.g, np.asarray(products))
        for lower, whole in self.orders()[:-1]:
            other, _ = self.call(lower, whole)
            yield _near(other.g, found.g)
            if other.h is not None and found.h is not None:
                yield _near(other.h, found.h)
            if other.d is not None and found.t is not None:
                yield _near(other.d, np.einsum("sss->s", found.t), found.t)
        parts, _ = self.call(order, full, chunk=1)
        for name in ("g", "h", "d", "t"):
            one, other_one = getattr(parts, name), getattr(found, name)
            if one is not None:
                yield _near(one, other_one)
        if found.h is not None:
            yield _near(found.h, found.h.T)
        if found.t is not None:
            yield _near(found.t, found.t.transpose(1, 0, 2))
            yield _near(found.t, found.t.transpose(0, 2, 1))


def _moved(
    value: Callable[[Any], torch.Tensor], along: dict[str, torch.Tensor]
) -> Callable[[Any], torch.Tensor]:
    """The differential of a function along a direction."""

    def differential(params: Any) -> torch.Tensor:
        result: torch.Tensor = jvp(value, (dict(params),), (along,))[1]
        return result

    return differential


def _near(found: Array, expected: Array, scale: Array | None = None) -> float:
    """Digits of agreement, relative to the largest entry of ``expected`` or ``scale``."""
    largest = np.abs(expected if scale is None else scale).max(initial=0.0)
    ours, theirs = np.append(found, largest), np.append(expected, largest)
    return separate_digits({"summary": ours}, {"summary": theirs}, _LIMIT)


def summary_generated_rows(
    spec: Spec, module: Any, framework: Framework | None, seed: int
) -> Iterator[tuple[str, str, Callable[[], Row | None]]]:
    """The checks of level 3 as (quantity, oracle, check); None where the module lacks the function."""
    checks = _Checks(spec, module, framework or framework_of(module), seed)
    for oracle, check in ((_FUNC, checks.against_oracle), (_IDENTITIES, checks.identities)):
        yield SUMMARY, oracle, lambda o=oracle, c=check: _row(checks, o, c)  # type: ignore[misc]


def _row(checks: _Checks, oracle: str, check: Callable[[], Iterator[float]]) -> Row | None:
    if getattr(checks.setting.module, SUMMARY, None) is None:
        return None
    spec, groups = checks.spec, len(checks.parts)
    required = max(0.0, allowed_digits(rounding_bound(spec, SUMMARY, spec.dtype)))
    worst = min(check())
    framework = checks.setting.framework
    notes = [f"{framework}, {spec.dtype}, batch {_BATCH}; {groups} groups"]
    notes += ["entries by random coefficients"] if groups > FEW and oracle == _FUNC else []
    notes += ["of order 3 the diagonal alone"] if _WHOLE < groups <= _MATRIX else []
    notes += [f"orders 2 and 3 are left out: more than {_MATRIX} groups"] if groups > _MATRIX else []
    notes.append(f"eps = {EPSILON[spec.dtype]:.1e}")
    return Row(SUMMARY, 3, oracle, worst, required, worst >= required, "; ".join(notes))
