"""Level 3 for curvature blocks: a generated module against ``torch.func`` and dense algebra in float64."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from sifrc.derive.curvature.kinds import Kind
from sifrc.errors import VerificationError
from sifrc.ir.arithmetic import Array
from sifrc.spec.types import Spec
from sifrc.verify.oracles import forward_torch as oracle_torch
from sifrc.verify.comparison import EPSILON, Agreement, allowed_digits, rounding_bound, separate_digits
from sifrc.verify.oracles.curvature_expected import Expected
from sifrc.verify.curvature_kinds import described, kinds_of_module
from sifrc.verify.oracles.curvature_reference import is_exact, is_gauss_newton
from sifrc.verify.oracles.curvature_torch import measure_torch
from sifrc.verify.generated.rows import Framework, Setting, framework_of
from sifrc.verify.oracles.network import parameter_shapes
from sifrc.verify.table import Row

__all__ = ["curvature_generated_rows"]

_BATCH = 3
_LIMIT = 16.0
_SMALL = 2**18
_LARGE = 2**25
"""Entries of all blocks of weights, up to which they are compared for every kind, and at all."""
_DENSE_HESSIAN = 200
"""Up to this many parameters the diagonal blocks of the whole Hessian are the oracle for its blocks."""
_FUNC, _ALGEBRA, _BOTH = "torch.func, float64", "dense algebra, float64", "torch.func, dense algebra"
_EIGENVALUES = "eigenvalues"

Tensors = Mapping[str, Array]
Check = Callable[["_Checks", Kind], Iterator[float]]


class _Checks:
    """A module, its arguments, and what the oracle expects.

    Args:
        spec: the network.
        module: with functions on blocks.
        framework: its arrays.
        seed: of the point.
    """

    def __init__(self, spec: Spec, module: Any, framework: Framework, seed: int) -> None:
        self.spec, self.seed = spec, seed
        self.setting = Setting(spec, module, framework, seed, _BATCH)
        self.kinds = kinds_of_module(spec, module)
        self.factor = _BATCH if spec.loss.reduction == "sum" else 1
        self.vector = {name: value.double().numpy() for name, value in self.setting.vector.items()}
        shapes = parameter_shapes(spec).values()
        self.weights = sum(int(np.prod(shape)) ** 2 for shape in shapes if len(shape) == 2)
        self._expected: dict[str, Expected] = {}

    @cached_property
    def measured(self) -> Any:
        return measure_torch(self.spec, *self.setting.oracle())

    def expected(self, kind: Kind) -> Expected:
        if kind.name not in self._expected:
            drawn = self._drawn() if kind.source == "sampled" else None
            self._expected[kind.name] = Expected(self.measured, kind, drawn, self.factor)
        return self._expected[kind.name]

    def _drawn(self) -> Array:
        """The module's own random numbers for a seed: what it makes of them is what is checked."""
        classes = self.spec.loss.targets == "classes"
        draw = getattr(self.setting.module, "_uniform" if classes else "_normal", None)
        if draw is None:
            raise VerificationError("the numbers that the module draws are not known")
        shape = (_BATCH, self.spec.layers[-1].size)
        like = (self.setting.given()[1],) if self.setting.framework == "torch" else ()
        numbers = self.setting.arrays(draw(self.seed, shape, *like))
        if numbers.shape != shape or len(np.unique(numbers)) != numbers.size:
            raise VerificationError("the numbers that the module draws are not random")
        if classes and not (numbers.min() > 0 and numbers.max() < 1):
            raise VerificationError("the uniform numbers that the module draws are not between 0 and 1")
        return np.asarray(numbers)

    def call(self, name: str, kind: Kind | None, **choices: Any) -> Any:
        """A result of the module as float64 arrays; factors by layer and member."""
        vector = ("vector",) if name == "block_vector_product" else ()
        if kind is not None:
            choices["kind"] = kind.name
            if kind.source == "sampled":
                choices["seed"] = self.seed
        found = self.setting.function(name)(*self.setting.given(*vector), **choices)
        if name == "gradient_and_factors":
            gradient, factors = found
            return self.setting.arrays(gradient), self._members(factors)
        return self._members(found) if name == "curvature_factors" else self.setting.arrays(found)

    def _members(self, factors: Mapping[str, Any]) -> dict[str, Array]:
        return {
            f"{layer}.{member}": self.setting.arrays(getattr(pair, member))
            for layer, pair in factors.items()
            for member in ("moment", "block")
        }

    def with_weights(self, kind: Kind) -> bool:
        """Whether the blocks of the weights are compared: all, or those of one kind of either form."""
        if self.weights <= _SMALL:
            return True
        first = next(k for k in self.kinds if k.form == kind.form)
        return self.weights <= _LARGE and kind is first


def _digits(found: Tensors, expected: Tensors) -> float:
    return separate_digits(found, expected, _LIMIT)


def _blocks(checks: _Checks, kind: Kind) -> Iterator[float]:
    expected = checks.expected(kind)
    biases = expected.bias_blocks()
    found = checks.call("block_hessian", kind)
    if biases or found:
        yield _digits(found, biases)
    if checks.with_weights(kind):
        found = checks.call("block_hessian", kind, dense=True)
        yield _digits(found, {**biases, **expected.weight_blocks()})
        if kind.name == "hessian" and sum(map(np.size, checks.vector.values())) <= _DENSE_HESSIAN:
            yield _digits(found, _dense_blocks(checks))
    if expected.each is not None and biases:
        found = checks.call("block_hessian", kind, reduction="none")
        yield _digits(found, expected.sample_blocks())


def _dense_blocks(checks: _Checks) -> dict[str, Array]:
    """Diagonal blocks of the whole Hessian, by parameter."""
    params, inputs, targets = checks.setting.oracle()
    matrix = oracle_torch.dense_hessian(checks.spec, params, inputs, targets).numpy(force=True)
    found, start = {}, 0
    for name, value in params.items():
        stop = start + value.numel()
        found[name] = matrix[start:stop, start:stop]
        start = stop
    return found


def _factors(checks: _Checks, kind: Kind) -> Iterator[float]:
    for moment in ("second", "mean"):
        found = checks.call("curvature_factors", kind, moment=moment)
        yield _digits(found, checks.expected(kind).factors(moment))


def _gradient_and_factors(checks: _Checks, kind: Kind) -> Iterator[float]:
    slopes = oracle_torch.gradient(checks.spec, *checks.setting.oracle())
    for moment in ("second", "mean"):
        gradient, found = checks.call("gradient_and_factors", kind, moment=moment)
        yield _digits(gradient, {name: value.numpy(force=True) for name, value in slopes.items()})
        yield _digits(found, checks.expected(kind).factors(moment))


def _product(checks: _Checks, kind: Kind) -> Iterator[float]:
    expected = checks.expected(kind)
    yield _digits(checks.call("block_vector_product", kind), expected.product(checks.vector, None))
    for moment in ("second", "mean", *(("exact",) if expected.each is not None else ())):
        found = checks.call("block_vector_product", kind, moment=moment)
        yield _digits(found, expected.product(checks.vector, moment))


def _diagonal(checks: _Checks, kind: Kind) -> Iterator[float]:
    yield _digits(checks.call("hessian_diagonal", None), checks.expected(kind).diagonal())


def _definite(checks: _Checks, kind: Kind) -> Iterator[float]:
    """Digits by which the smallest eigenvalue of every block is not negative, against the largest."""
    for name, block in checks.call("block_hessian", kind, dense=checks.with_weights(kind)).items():
        if not np.isfinite(block).all():
            raise VerificationError(f"{name} is not finite")
        eigenvalues = np.linalg.eigvalsh((block + block.T) / 2)
        largest = float(np.abs(eigenvalues).max())
        negative = max(-float(eigenvalues[0]), float(np.abs(block - block.T).max()))
        text = f"{name}: least eigenvalue {eigenvalues[0]:.3g}, largest {largest:.3g}"
        yield Agreement(allowed_digits(negative / largest) if negative > 0 else _LIMIT, text)


def curvature_generated_rows(
    spec: Spec, names: Sequence[str], module: Any, framework: Framework | None, seed: int
) -> Iterator[tuple[str, str, Callable[[], Row | None]]]:
    """The checks of level 3 as (quantity, oracle, check); None where the module lacks the function."""
    checks = _Checks(spec, module, framework or framework_of(module), seed)
    kinds = checks.kinds
    plain = [kind for kind in kinds if is_exact(kind) or is_gauss_newton(kind) or kind.factored]
    table: list[tuple[str, str, Check, Sequence[Kind]]] = [
        ("block_hessian", _FUNC, _blocks, plain),
        ("block_hessian", _ALGEBRA, _blocks, [kind for kind in kinds if kind not in plain]),
        ("block_hessian", _EIGENVALUES, _definite, [kind for kind in kinds if kind.definite]),
        ("curvature_factors", _BOTH, _factors, kinds),
        ("gradient_and_factors", _BOTH, _gradient_and_factors, kinds),
        ("block_vector_product", _BOTH, _product, kinds),
        ("hessian_diagonal", _FUNC, _diagonal, [kind for kind in kinds if kind.name == "hessian"]),
    ]
    for quantity, oracle, check, of in table:
        if quantity in names and of:
            yield quantity, oracle, lambda q=quantity, o=oracle, c=check, k=of: _row(checks, q, o, c, k)  # type: ignore[misc]


def _row(checks: _Checks, quantity: str, oracle: str, check: Check, kinds: Sequence[Kind]) -> Row | None:
    if getattr(checks.setting.module, quantity, None) is None:
        return None
    spec = checks.spec
    required = max(0.0, allowed_digits(rounding_bound(spec, quantity, spec.dtype)))
    worst, where = float("inf"), ""
    for kind in kinds:
        try:
            found = min(check(checks, kind), default=float("inf"))
        except Exception as error:
            text = getattr(error, "message", None) or f"{type(error).__name__}: {error}"
            raise VerificationError(f"kind {kind.name}: {text}") from error
        if found < worst:
            worst, where = found, f"worst: {kind.name}"
    if worst == float("inf"):
        return Row(quantity, 3, oracle, None, None, None, "no block that is small enough to be compared")
    notes = [] if worst >= required else [where]
    notes += [f"{checks.setting.framework}, {spec.dtype}, batch {_BATCH}; eps = {EPSILON[spec.dtype]:.1e}"]
    if check is _blocks and checks.weights > _SMALL:
        of = "of one kind of each form" if checks.weights <= _LARGE else "too large to be formed"
        notes.append(f"blocks of weights {of}")
    notes.append(described(kinds))
    return Row(quantity, 3, oracle, worst, required, worst >= required, "; ".join(notes))
