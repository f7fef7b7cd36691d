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
from sifrc.verify.comparison import agreed_digits, separate_digits
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
    return separate_digits(found, _expected(oracle, kind).sample_blocks(), oracle.limit)


@agreement.register
def _(meaning: Blocks, found: Arrays, oracle: BatchOracle, kind: Kind | None) -> float:
    expected = _expected(oracle, kind)
    weights = expected.weight_blocks() if meaning.dense else {}
    return separate_digits(found, {**expected.bias_blocks(), **weights}, oracle.limit)


@agreement.register
def _(meaning: Factors, found: Arrays, oracle: BatchOracle, kind: Kind | None) -> float:
    reference = _expected(oracle, kind)
    expected, terms = reference.factors(meaning.moment, meaning.sharing), dict[str, Array]()
    if meaning.sharing is not None and oracle.limit < _MACHINE:
        terms = reference.magnitudes().factors(meaning.moment, meaning.sharing)
    return separate_digits(_beside(found, terms), _beside(expected, terms), oracle.limit)


@agreement.register
def _(meaning: BlockProduct, found: Arrays, oracle: BatchOracle, kind: Kind | None) -> float:
    reference = _expected(oracle, kind)
    expected = reference.product(oracle.vector, meaning.moment, meaning.sharing)
    terms: Arrays = {}
    if meaning.sharing is not None and oracle.limit < _MACHINE:
        sizes = {name: np.abs(value) for name, value in oracle.vector.items()}
        terms = reference.magnitudes().product(sizes, meaning.moment, meaning.sharing)
    return separate_digits(_beside(found, terms), _beside(expected, terms), oracle.limit)


_MACHINE = 20.0
"""Digits that machine numbers do not have: sums over places are right to rounding of their terms there."""


def _beside(values: Arrays, terms: Arrays) -> Arrays:
    """Values plus the sizes of what they are sums of, so that they agree to rounding of these."""
    return {name: value + terms[name] if name in terms else value for name, value in values.items()}


@agreement.register
def _(meaning: Diagonal, found: Arrays, oracle: BatchOracle, kind: Kind | None) -> float:
    return separate_digits(found, _expected(oracle, kind).diagonal(), oracle.limit)


@agreement.register
def _(meaning: Trace, found: Arrays, oracle: BatchOracle, kind: Kind | None) -> float:
    diagonal = _expected(oracle, kind).diagonal()
    expected = {name: np.asarray(sum(diagonal[n].sum() for n in names)) for name, names in meaning.sums}
    return separate_digits(found, expected, oracle.limit)


@agreement.register
def _(meaning: Along, found: Arrays, oracle: BatchOracle, kind: Kind | None) -> float:
    return separate_digits(
        *compared(found[SINGLE], meaning.order, meaning.full, oracle.along, oracle.seed), oracle.limit
    )
