"""Whether results are what they mean: each meaning interpreted once, on any oracle."""

from __future__ import annotations

from collections.abc import Mapping
from functools import singledispatch

import numpy as np

from sifrc.catalogue.fisher import FisherProduct
from sifrc.catalogue.jacobians import OutputsAlong
from sifrc.catalogue.meaning import (
    Along,
    BlockProduct,
    Blocks,
    Diagonal,
    Factors,
    Gradient,
    NewtonDirection,
    Product,
    SampleBlocks,
    Value,
)
from sifrc.catalogue.samples import SampleGradients
from sifrc.catalogue.traces import Trace
from sifrc.derive.curvature.kinds import KINDS, Kind
from sifrc.errors import VerificationError
from sifrc.ir.arithmetic import Array
from sifrc.verify.comparison import agreed_digits, cancelling_digits, rounded_digits, separate_digits
from sifrc.verify.oracles.batch import BatchOracle
from sifrc.verify.oracles.curvature_expected import Expected
from sifrc.verify.oracles.curvature_reference import batch_mean
from sifrc.verify.summary_parts import compared

__all__ = ["SINGLE", "agreement"]

SINGLE = "value"
"""Name of a result that is one number or array."""

Arrays = Mapping[str, Array]


@singledispatch
def agreement(meaning: object, found: Arrays, oracle: BatchOracle, kind: Kind | None) -> float:
    """Digits by which a result agrees with what it means.

    Args:
        meaning: of the result.
        found: its arrays by name.
        oracle: at the same batch.
        kind: of curvature, where the operator has kinds.

    Raises:
        VerificationError: names or shapes differ, or a number is not finite; no rule for the meaning.
    """
    raise VerificationError(f"no oracle for {type(meaning).__name__}")


def _expected(oracle: BatchOracle, kind: Kind | None) -> Expected:
    if kind is None:
        raise VerificationError("blocks of no kind of curvature")
    return oracle.expected(kind)


@agreement.register
def _(meaning: Value, found: Arrays, oracle: BatchOracle, kind: Kind | None) -> float:
    return agreed_digits(found, {SINGLE: np.asarray(oracle.value(meaning.of))}, oracle.limit)


@agreement.register
def _(meaning: Gradient, found: Arrays, oracle: BatchOracle, kind: Kind | None) -> float:
    return agreed_digits(oracle.seen(found), oracle.gradient(), oracle.limit)


@agreement.register
def _(meaning: Product, found: Arrays, oracle: BatchOracle, kind: Kind | None) -> float:
    return agreed_digits(oracle.seen(found), oracle.product(meaning.matrix), oracle.limit)


@agreement.register
def _(meaning: FisherProduct, found: Arrays, oracle: BatchOracle, kind: Kind | None) -> float:
    return agreed_digits(oracle.seen(found), oracle.fisher_product(KINDS[meaning.kind]), oracle.limit)


@agreement.register
def _(meaning: OutputsAlong, found: Arrays, oracle: BatchOracle, kind: Kind | None) -> float:
    moved = {name: value.reshape(len(value), -1) for name, value in found.items()}
    return agreed_digits(moved, {"outputs": oracle.output_along()}, oracle.limit)


@agreement.register
def _(meaning: NewtonDirection, found: Arrays, oracle: BatchOracle, kind: Kind | None) -> float:
    if set(found) != set(oracle.vector):
        raise VerificationError(f"expected the names {', '.join(oracle.vector)}, got {', '.join(found)}")
    return oracle.newton(found)


@agreement.register
def _(meaning: SampleGradients, found: Arrays, oracle: BatchOracle, kind: Kind | None) -> float:
    each = oracle.sample_gradients()
    mean = {name: batch_mean(value) for name, value in each.items()}
    second = {name: batch_mean(value * value) for name, value in each.items()}
    if meaning.moment == "variance":
        # To rounding of what it is a difference of.
        found = {name: value + mean[name] ** 2 if name in mean else value for name, value in found.items()}
    moments = {
        "none": each,
        "norm": {name: (value * value).reshape(len(value), -1).sum(axis=1) for name, value in each.items()},
        "second": second,
        "variance": second,
    }
    return separate_digits(found, moments[meaning.moment], oracle.limit)


@agreement.register
def _(meaning: SampleBlocks, found: Arrays, oracle: BatchOracle, kind: Kind | None) -> float:
    reference = _expected(oracle, kind)
    expected, terms = reference.sample_blocks(), reference.magnitudes().sample_blocks()
    return cancelling_digits(found, expected, terms, oracle.limit)


@agreement.register
def _(meaning: Blocks, found: Arrays, oracle: BatchOracle, kind: Kind | None) -> float:
    expected, terms = (
        {**of.bias_blocks(), **(of.weight_blocks() if meaning.dense else {})}
        for of in (_expected(oracle, kind), _expected(oracle, kind).magnitudes())
    )
    return cancelling_digits(found, expected, terms, oracle.limit)


@agreement.register
def _(meaning: Factors, found: Arrays, oracle: BatchOracle, kind: Kind | None) -> float:
    reference = _expected(oracle, kind)
    expected = reference.factors(meaning.moment, meaning.sharing)
    terms = reference.magnitudes().factors(meaning.moment, meaning.sharing)
    if meaning.sharing is None or oracle.limit >= _MACHINE:
        return cancelling_digits(found, expected, terms, oracle.limit)
    return rounded_digits(found, expected, terms, oracle.limit)


@agreement.register
def _(meaning: BlockProduct, found: Arrays, oracle: BatchOracle, kind: Kind | None) -> float:
    reference = _expected(oracle, kind)
    expected = reference.product(oracle.vector, meaning.moment, meaning.sharing)
    sizes = {name: np.abs(value) for name, value in oracle.vector.items()}
    terms = reference.magnitudes().product(sizes, meaning.moment, meaning.sharing)
    if oracle.limit >= _MACHINE:
        return cancelling_digits(found, expected, terms, oracle.limit)
    return rounded_digits(found, expected, terms, oracle.limit)


_CANCELLED = 1e-8
"""Against what it is a sum of, a result that is smaller may be rounding."""
_MACHINE = 20.0
"""Digits that machine numbers do not have: sums over places are right to rounding of their terms there."""


@agreement.register
def _(meaning: Diagonal, found: Arrays, oracle: BatchOracle, kind: Kind | None) -> float:
    reference = _expected(oracle, kind)
    expected, terms = reference.diagonal(), reference.magnitudes().diagonal()
    if meaning.others:
        expected = {name: expected[name] for name in meaning.others}
    return cancelling_digits(found, expected, terms, oracle.limit)


@agreement.register
def _(meaning: Trace, found: Arrays, oracle: BatchOracle, kind: Kind | None) -> float:
    reference = _expected(oracle, kind)
    diagonal, sizes = reference.diagonal(), reference.magnitudes().diagonal()
    entries = {name: np.abs(value) for name, value in diagonal.items()}
    expected, own, terms = (
        {name: np.asarray(sum(of[n].sum() for n in names)) for name, names in meaning.sums}
        for of in (diagonal, entries, sizes)
    )
    # To rounding of the entries, or of what these are sums of where nothing else is left of them.
    known = {name: terms[name] if size < _CANCELLED * terms[name] else size for name, size in own.items()}
    return rounded_digits(found, expected, known, oracle.limit)


@agreement.register
def _(meaning: Along, found: Arrays, oracle: BatchOracle, kind: Kind | None) -> float:
    return separate_digits(
        *compared(found[SINGLE], meaning.order, meaning.full, oracle.along, oracle.seed), oracle.limit
    )
