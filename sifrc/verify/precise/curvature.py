"""Level 2 for curvature blocks: the interpreted program for batches of one and two at many digits."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import mpmath
import numpy as np

from sifrc.derive.curvature.kinds import Kind
from sifrc.derive.curvature.scores import NORMAL, UNIFORM
from sifrc.errors import VerificationError
from sifrc.ir.arithmetic import MPMATH, Array
from sifrc.lower.program import Program
from sifrc.model import Model
from sifrc.spec.types import Spec
from sifrc.verify.comparison import separate_digits
from sifrc.verify.curvature_kinds import described, kinds_of_spec
from sifrc.verify.oracles.curvature_expected import Expected
from sifrc.verify.oracles.curvature_mpmath import measure_mpmath
from sifrc.verify.oracles.curvature_reference import batch_mean, is_exact, is_gauss_newton, limit_of
from sifrc.verify.oracles.forward_mpmath import ForwardMpmath
from sifrc.verify.points import capped, parameter_count, random_point
from sifrc.verify.precise.programs import ProgramBatch, block_program
from sifrc.verify.table import Row

__all__ = ["curvature_precise_rows"]

_CAP = 3
_LARGEST = 40
"""Up to this many parameters the network is taken as it is."""
_BATCHES = (1, 2)
_DUALS, _ALGEBRA, _BOTH, _LIMITS = (
    "nested duals",
    "dense algebra",
    "nested duals, dense algebra",
    "exact limits",
)

Tensors = Mapping[str, Array]
Lowered = Callable[[], tuple[Model, Program]]


class _Batch:
    """The program and the oracle at one random batch."""

    def __init__(self, spec: Spec, seed: int, size: int, digits: int, lowered: Lowered) -> None:
        self.spec, self.digits, self.lowered = spec, digits, lowered
        point = random_point(spec, seed, size)
        self.params = {name: MPMATH.array(value) for name, value in point.params.items()}
        self.vector = {name: MPMATH.array(value) for name, value in point.vector.items()}
        self.inputs = MPMATH.array(point.inputs)
        self.targets: Any = point.targets
        if spec.loss.targets == "vectors":
            self.targets = MPMATH.array(point.targets)
        self.at = measure_mpmath(spec, self.params, self.inputs, self.targets)
        generator = np.random.default_rng(seed)
        outputs = self.at.values[spec.layers[-1].name]
        normal = MPMATH.array(generator.normal(size=outputs.shape))
        self.drawn = {UNIFORM: _nearly_tied(outputs, normal), NORMAL: normal}
        self._expected: dict[str, Expected] = {}

    @cached_property
    def program(self) -> ProgramBatch:
        return ProgramBatch(
            *self.lowered(), self.params, self.inputs, self.at.targets, self.vector, self.drawn, MPMATH
        )

    def expected(self, kind: Kind) -> Expected:
        if kind.name not in self._expected:
            numbers = self.drawn[UNIFORM if self.spec.loss.targets == "classes" else NORMAL]
            self._expected[kind.name] = Expected(self.at, kind, numbers)
        return self._expected[kind.name]

    @cached_property
    def gradient(self) -> dict[str, Array]:
        """Mean of the gradients of the samples."""
        oracle = ForwardMpmath(self.spec)
        each = [oracle.gradient(self.params, x, t) for x, t in zip(self.inputs, self.targets, strict=True)]
        return {name: batch_mean(np.stack([found[name] for found in each])) for name in self.params}

    def compare(self, found: Tensors, expected: Tensors) -> float:
        return separate_digits(found, expected, self.digits)


def _nearly_tied(outputs: Array, noise: Array) -> Array:
    """Uniform numbers u for which all x + g, g = −log(−log u), are about equal.

    A draw depends on its numbers through the order of the x + g alone: only there a wrong g shows.
    """
    gumbel = noise / 20 - outputs + batch_mean(outputs.T)[:, None]
    return np.asarray(np.frompyfunc(lambda g: mpmath.exp(-mpmath.exp(-g)), 1, 1)(gumbel), dtype=object)


def _blocks(batch: _Batch, kind: Kind) -> Iterator[float]:
    expected = batch.expected(kind)
    biases, weights = expected.bias_blocks(), expected.weight_blocks()
    call = batch.program.call
    yield batch.compare(call("block_hessian", kind.name, reduction="mean", dense=False), biases)
    yield batch.compare(call("block_hessian", kind.name, reduction="mean", dense=True), {**biases, **weights})
    if expected.each is not None:
        found = call("block_hessian", kind.name, reduction="none", dense=False)
        yield batch.compare(found, expected.sample_blocks())


def _factors(batch: _Batch, kind: Kind) -> Iterator[float]:
    for moment in ("second", "mean"):
        found = batch.program.call("curvature_factors", kind.name, moment=moment)
        yield batch.compare(found, batch.expected(kind).factors(moment))


def _gradient_and_factors(batch: _Batch, kind: Kind) -> Iterator[float]:
    for moment in ("second", "mean"):
        found = batch.program.call("gradient_and_factors", kind.name, moment=moment)
        gradient = {name: found.pop(name) for name in batch.params}
        yield batch.compare(gradient, batch.gradient)
        yield batch.compare(found, batch.expected(kind).factors(moment))


def _product(batch: _Batch, kind: Kind) -> Iterator[float]:
    expected = batch.expected(kind)
    for moment in (None, "exact", "second", "mean"):
        if moment != "exact" or expected.each is not None:
            found = batch.program.call("block_vector_product", kind.name, moment=moment)
            yield batch.compare(found, expected.product(batch.vector, moment))


def _diagonal(batch: _Batch, kind: Kind) -> Iterator[float]:
    found = batch.program.call("hessian_diagonal", kind.name)
    yield batch.compare(found, batch.expected(kind).diagonal())


def _limits(batch: _Batch, kind: Kind) -> Iterator[float]:
    """What a rewritten kind is exactly under the conditions of this batch, from nested duals."""
    limit = limit_of(kind, batch.at)
    if limit is None or is_exact(kind) or is_gauss_newton(kind):
        return
    whole = kind.source == "objective"
    exact = Kind("exact", kind.source) if limit == "hessian" else Kind("exact", "loss", residual="dropped")
    assert limit == "hessian" or not whole
    found = batch.program.call("block_hessian", kind.name, reduction="mean", dense=False)
    yield batch.compare(found, Expected(batch.at, exact).bias_blocks())


Check = Callable[[_Batch, Kind], Iterator[float]]


def curvature_precise_rows(
    spec: Spec, names: Sequence[str], digits: int, seed: int
) -> Iterator[tuple[str, str, Callable[[], Row | None]]]:
    """The checks of level 2 as (quantity, oracle, check).

    Args:
        spec: the network.
        names: of the operators.
        digits: precision; ten fewer must agree.
        seed: of the random points.
    """
    used = spec if parameter_count(spec) <= _LARGEST else capped(spec, _CAP)
    kinds = kinds_of_spec(used)
    work = _Work(used, used is not spec, digits, seed)
    exact = [kind for kind in kinds if is_exact(kind) or is_gauss_newton(kind) or kind.factored]
    rewritten = [kind for kind in kinds if kind not in exact]
    table: list[tuple[str, str, Check, list[Kind]]] = [
        ("block_hessian", _DUALS, _blocks, exact),
        ("block_hessian", _ALGEBRA, _blocks, rewritten),
        ("block_hessian", _LIMITS, _limits, work.limited(rewritten) if rewritten else []),
        ("curvature_factors", _BOTH, _factors, list(kinds)),
        ("gradient_and_factors", _BOTH, _gradient_and_factors, list(kinds)),
        ("block_vector_product", _BOTH, _product, list(kinds)),
        ("hessian_diagonal", _DUALS, _diagonal, [kind for kind in kinds if kind.name == "hessian"]),
    ]
    for quantity, oracle, check, of in table:
        if quantity in names and of:
            yield quantity, oracle, lambda q=quantity, o=oracle, c=check, k=of: work.row(q, o, c, k)  # type: ignore[misc]


class _Work:
    """Batches that all checks share.

    Args:
        spec: the network, small.
        small: whether it is a smaller version of the user's.
        digits: precision.
        seed: of the points.
    """

    def __init__(self, spec: Spec, small: bool, digits: int, seed: int) -> None:
        self.spec, self.small, self.digits, self.seed = spec, small, digits, seed

    @cached_property
    def batches(self) -> tuple[_Batch, ...]:
        return tuple(
            _Batch(self.spec, self.seed + size, size, self.digits, lambda: self.lowered) for size in _BATCHES
        )

    @cached_property
    def lowered(self) -> tuple[Model, Program]:
        return block_program(self.spec)

    def limited(self, kinds: Sequence[Kind]) -> list[Kind]:
        """Kinds that are exact for some batch."""
        with mpmath.workdps(self.digits):
            return [k for k in kinds if any(limit_of(k, batch.at) is not None for batch in self.batches)]

    def row(self, quantity: str, oracle: str, check: Check, kinds: Sequence[Kind]) -> Row:
        worst, where = float("inf"), ""
        with mpmath.workdps(self.digits):
            for batch in self.batches:
                for kind in kinds:
                    try:
                        found = min(check(batch, kind), default=float("inf"))
                    except Exception as error:
                        raise VerificationError(f"kind {kind.name}: {_text(error)}") from error
                    if found < worst:
                        worst, where = found, f"worst: {kind.name}, batch of {batch.at.samples}"
        if worst == float("inf"):
            raise VerificationError("nothing was compared")
        required = self.digits - 10.0
        notes = [described(kinds), "batch of 1" if oracle == _LIMITS else "batches of 1 and 2"]
        notes += [f"layers capped at {_CAP} units"] if self.small else []
        notes += [] if worst >= required else [where]
        return Row(quantity, 2, oracle, worst, required, worst >= required, "; ".join(reversed(notes)))


def _text(error: Exception) -> str:
    return getattr(error, "message", None) or f"{type(error).__name__}: {error}"
