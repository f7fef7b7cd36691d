"""Points at which numbers of a random spec are compared, and what is known there: kinks, 50 digits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import mpmath
import numpy as np
import torch
from spec_watch import Hang, limited

from sifrc.spec.expression import Binary, Call, Compare, Expression, Name, Negative, Number
from sifrc.spec.types import Spec
from sifrc.verify.oracles import forward_torch as oracle_torch
from sifrc.verify.oracles.forward_mpmath import ForwardMpmath
from sifrc.verify.oracles.network import forward_pass
from sifrc.verify.oracles.trees import evaluate_tree
from sifrc.verify.oracles.windows import patches
from sifrc.verify.points import Point, random_point

__all__ = [
    "QUANTITIES",
    "behind_a_constant",
    "beyond",
    "expected",
    "few_digits",
    "largest_in_formulas",
    "largest_inside",
    "moved",
    "near_kink",
    "point_of",
    "precise",
    "tensors",
]

QUANTITIES = ("loss", "objective", "gradient", "hessian_vector_product", "gauss_newton_vector_product")
Arrays = Mapping[str, Any]
_DIGITS, _DIGITS_INSIDE = 50, 400
_PATIENCE = 8.0
_SIDES = 8


def point_of(spec: Spec, seed: int, batch: int, variant: str) -> Point:
    """A generic point, one with large outputs, or one at which everything ties."""
    point = random_point(spec, seed, batch)
    rounded = np.float32 if spec.dtype == "float32" else np.float64
    factor = {"generic": 1.0, "large": 30.0, "zero": 0.0}[variant]

    def rounding(value: Any) -> Any:
        return value.astype(rounded).astype(np.float64) if value.dtype.kind == "f" else value

    return Point(
        {name: rounding(factor * value) for name, value in point.params.items()},
        rounding(point.inputs),
        rounding(point.targets),
        {name: rounding(value) for name, value in point.vector.items()},
    )


def moved(point: Point, seed: int, eps: float) -> Point:
    """The point with the last bits of everything changed."""
    generator = np.random.default_rng(seed)

    def change(value: Any) -> Any:
        if value.dtype.kind != "f":
            return value
        return value * (1 + eps * generator.choice((-1.0, 1.0), size=value.shape))

    return replace(
        point,
        params={name: change(value) for name, value in point.params.items()},
        inputs=change(point.inputs),
        targets=change(point.targets),
    )


def beside(point: Point, seed: int) -> Point:
    """The point with parameters and inputs moved by some 1e-14."""
    generator = np.random.default_rng(seed)
    params = {n: v + 1e-14 * generator.standard_normal(v.shape) for n, v in point.params.items()}
    return replace(
        point, params=params, inputs=point.inputs + 1e-14 * generator.standard_normal(point.inputs.shape)
    )


def tensors(point: Point) -> tuple[Any, ...]:
    """Parameters, inputs, targets and vector as tensors of float64."""
    params = {name: torch.from_numpy(np.array(value)) for name, value in point.params.items()}
    vector = {name: torch.from_numpy(np.array(value)) for name, value in point.vector.items()}
    return params, torch.from_numpy(np.array(point.inputs)), torch.from_numpy(np.array(point.targets)), vector


def expected(spec: Spec, point: Point) -> dict[str, dict[str, Any]]:
    """Every quantity by automatic differentiation of the spec's own trees, in float64."""
    params, inputs, targets, vector = tensors(point)
    forward = oracle_torch.ForwardTorch(spec)
    batch = (spec, params, inputs, targets)

    def arrays(values: Arrays) -> dict[str, Any]:
        return {name: value.detach().numpy() for name, value in values.items()}

    return {
        "loss": {"value": forward.loss(params, inputs, targets).detach().numpy()},
        "objective": {"value": forward(params, inputs, targets).detach().numpy()},
        "gradient": arrays(oracle_torch.gradient(*batch)),
        "hessian_vector_product": arrays(oracle_torch.hvp(*batch, vector)),
        "gauss_newton_vector_product": arrays(oracle_torch.ggn_vp(*batch, vector)),
    }


def precise(
    spec: Spec, point: Point, quantity: str, digits: int = _DIGITS, beside: int = 0
) -> dict[str, Any] | None:
    """The same with many digits by nested dual numbers; None where it is not defined in real numbers.

    Args:
        spec: the network.
        point: where.
        quantity: one of ``QUANTITIES``.
        digits: of the arithmetic.
        beside: seed of a direction in which everything is moved by about 1e-30; 0 leaves it. With 1 all
            numbers grow, with 2 all fall, vectors most, and with them what biases are added to: random
            moves seldom have all entries of a state on one side.
    """
    try:
        return _mean(spec, point, quantity, digits, beside)
    except (ArithmeticError, ValueError, TypeError):
        # mpmath leaves the real line, divides by zero, or compares complex numbers.
        return None
    except Hang:
        # exp(exp(exp(x))) has more digits than anyone can wait for.
        return None


def beyond(spec: Spec, point: Point, quantity: str) -> bool:
    """Whether many digits say nothing because something in it is too large for them."""
    try:
        _mean(spec, point, quantity, _DIGITS, 0)
    except (OverflowError, Hang):
        return True
    except (ArithmeticError, ValueError, TypeError):
        return False
    return False


def _mean(spec: Spec, point: Point, quantity: str, digits: int, beside: int) -> dict[str, Any] | None:
    """The mean or the sum over the samples; None where it, or an output, is no real number."""
    with mpmath.workdps(digits), limited(_PATIENCE):
        generator = np.random.default_rng(beside)

        def given(value: Any) -> Any:
            numbers = _exact(value)
            if beside:
                drawn = generator.standard_normal(np.size(value))
                if beside <= 2:
                    drawn = (3 - 2 * beside) * (0.1 + np.abs(drawn)) * (1e4 if np.ndim(value) == 1 else 1.0)
                moves = [mpmath.mpf(float(move)) for move in drawn]
                numbers = numbers + mpmath.mpf(10) ** -30 * np.reshape(moves, np.shape(value))
            return np.asarray(numbers, dtype=object)

        oracle = _Beside(spec) if beside else ForwardMpmath(spec)
        params = {name: given(value) for name, value in point.params.items()}
        vector = {name: given(value) for name, value in point.vector.items()}
        total: dict[str, Any] = {}
        for index in range(len(point.inputs)):
            target = point.targets[index]
            sample = given(point.inputs[index])
            target = given(target) if getattr(target, "ndim", 0) else int(target)
            if not _real(oracle.output(params, sample)):
                return None  # a comparison with what is not a number is a number again
            found = _of_sample(oracle, quantity, params, sample, target, vector)
            for name, value in found.items():
                total[name] = total[name] + value if name in total else value
        count = 1 if spec.loss.reduction == "sum" else len(point.inputs)
        result = {name: np.asarray(value / count, dtype=object) for name, value in total.items()}
        return result if all(_real(value) for value in result.values()) else None


def _real(values: Any) -> bool:
    """Whether all entries are real numbers."""
    return all(isinstance(entry, mpmath.mpf) and mpmath.isfinite(entry) for entry in np.ravel(values))


def _exact(value: Any) -> Any:
    """Numbers of float64 at the precision in force."""
    return np.asarray(np.frompyfunc(lambda entry: mpmath.mpf(float(entry)), 1, 1)(value), dtype=object)


class _Beside(ForwardMpmath):
    """With classes that are vectors beside those of zeros and ones."""

    def target_vector(self, sample: Any, target: Any) -> Any:
        vector = super().target_vector(sample, target)
        if self.spec.loss.targets == "vectors":
            return vector
        return vector + mpmath.mpf(10) ** -30 * np.arange(1, len(vector) + 1)


def _of_sample(
    oracle: ForwardMpmath, quantity: str, params: Any, sample: Any, target: Any, vector: Any
) -> Any:
    match quantity:
        case "loss":
            return {"value": np.asarray(oracle.loss(params, sample, target), dtype=object)}
        case "objective":
            return {"value": np.asarray(oracle.objective(params, sample, target), dtype=object)}
        case "gradient":
            return oracle.gradient(params, sample, target)
        case "hessian_vector_product":
            return oracle.hvp(params, sample, target, vector)
        case "gauss_newton_vector_product":
            return oracle.ggn_vp(params, sample, target, vector)
    raise LookupError(quantity)


def largest_inside(spec: Spec, point: Point) -> float:
    """The largest number that a forward pass meets: second derivatives have about its fourth power."""
    params, inputs, _, _ = tensors(point)
    forward = oracle_torch.ForwardTorch(spec)
    found = 0.0
    for sample in inputs:
        run = forward_pass(spec, params, sample, forward.activate)
        for value in (*run.values.values(), *run.arguments.values()):
            found = max(found, _largest(value))
    return found


def largest_in_formulas(spec: Spec, point: Point) -> float:
    """The largest number that a part of an activation or of the loss has."""
    operations = oracle_torch.ForwardTorch(spec).operations
    found = 0.0
    for tree, scope in _formulas(spec, point):
        for part in _parts(tree):
            found = max(found, _largest(evaluate_tree(part, scope, operations)))
    return found


def few_digits(spec: Spec, point: Point, least: float = 1e-6) -> bool:
    """Whether a state, by the text of the spec in float64, is off: what is written cancels."""
    params, inputs, _, _ = tensors(point)
    forward = oracle_torch.ForwardTorch(spec)
    with mpmath.workdps(_DIGITS_INSIDE):
        oracle = ForwardMpmath(spec)

        try:
            with limited(_PATIENCE):
                for sample in inputs:
                    right = oracle.run(
                        {n: _exact(v) for n, v in point.params.items()}, _exact(sample.numpy())
                    )
                    run = forward_pass(spec, params, sample, forward.activate)
                    for name, value in run.values.items():
                        exact = np.asarray(right.values[name], dtype=object)
                        wanted = np.array([float(entry) for entry in exact.ravel()]).reshape(exact.shape)
                        if not np.allclose(value.numpy(), wanted, rtol=least, atol=0.0, equal_nan=True):
                            return True
        except (ArithmeticError, ValueError, TypeError, Hang):
            return False
    return False


def behind_a_constant(spec: Spec) -> bool:
    """Whether some function of the spec is the same everywhere: what is before it is then not read.

    Where that is not a number, the function of the user's text is none either, and the constant is. A part
    of an activation may be one too, such as ``x/x``: it has its value at all numbers, 0 as a single point.
    """
    operations = oracle_torch.ForwardTorch(spec).operations
    sizes = operations.size
    numbers = torch.tensor([-2.3, -0.7, 0.4, 1.1, 3.2], dtype=torch.float64)
    for layer in spec.layers:
        if layer.activation is not None:
            scope = {"x": numbers, **dict(layer.activation.parameters)}
            value = torch.as_tensor(evaluate_tree(layer.activation.expression, scope, operations))
            if _same(value.expand(len(numbers))):
                return True
            for part in _parts(layer.activation.expression):
                value = torch.as_tensor(evaluate_tree(part, scope, operations))
                # Not 0*log(x), which is no number below zero and has to stay none.
                everywhere = value.shape == numbers.shape and bool(torch.isfinite(value).all())
                if everywhere and Name("x") in _parts(part) and _same(value):
                    return True
    function = spec.loss.function
    scope = {"t": torch.full((sizes,), 1 / sizes, dtype=torch.float64), **dict(function.parameters)}
    outputs = [number * torch.linspace(1, 2, sizes, dtype=torch.float64) for number in numbers]
    losses = [evaluate_tree(function.expression, {"y": y, **scope}, operations) for y in outputs]
    return _same(torch.stack([torch.as_tensor(loss, dtype=torch.float64) for loss in losses]))


def _same(values: torch.Tensor) -> bool:
    """Whether all that are numbers are equal but for their rounding."""
    finite = values[torch.isfinite(values)]
    return len(finite) < 2 or bool((finite - finite[0]).abs().max() <= 1e-9 * (1 + finite[0].abs()))


def _largest(value: Any) -> float:
    numbers = torch.as_tensor(value, dtype=torch.float64)
    return float(torch.nan_to_num(numbers, nan=torch.inf).abs().max())


def _formulas(spec: Spec, point: Point) -> Iterator[tuple[Expression, dict[str, Any]]]:
    """Trees of the activations and the loss, with what their names are, sample by sample."""
    params, inputs, targets, _ = tensors(point)
    forward = oracle_torch.ForwardTorch(spec)
    for sample, target in zip(inputs, forward.target_vectors(inputs, targets), strict=True):
        run = forward_pass(spec, params, sample, forward.activate)
        for layer in spec.layers:
            function = layer.activation
            if function is not None:
                yield function.expression, {"x": run.arguments[layer.name], **dict(function.parameters)}
        function = spec.loss.function
        yield function.expression, {"y": run.output, "t": target, **dict(function.parameters)}


def _parts(tree: Expression) -> Iterator[Expression]:
    """The tree and everything in it that is a number."""
    if not isinstance(tree, Compare):
        yield tree
    match tree:
        case Negative(operand=operand):
            yield from _parts(operand)
        case Binary(left=left, right=right) | Compare(left=left, right=right):
            yield from _parts(left)
            yield from _parts(right)
        case Call(arguments=arguments):
            for argument in arguments:
                yield from _parts(argument)


def near_kink(spec: Spec, point: Point, width: float = 1e-9) -> bool:
    """Whether both sides of some comparison of the spec are within rounding of each other at the point."""
    # Not at it: sides such as x²/x are no numbers at zero, and those of log(x) on one side alone.
    return any(_near_kink(spec, beside(point, seed), width) for seed in range(_SIDES))


def _near_kink(spec: Spec, point: Point, width: float) -> bool:
    if _tied(spec, point, width):
        return True
    operations = oracle_torch.ForwardTorch(spec).operations
    for tree, scope in _formulas(spec, point):
        for left, right in _sides(tree):
            a, b = (
                torch.as_tensor(evaluate_tree(side, scope, operations), dtype=torch.float64)
                if side is not None
                else torch.zeros((), dtype=torch.float64)
                for side in (left, right)
            )
            if bool(((a - b).abs() <= width * (a.abs() + b.abs() + 1e-3)).any()):
                return True
    return False


def _tied(spec: Spec, point: Point, width: float) -> bool:
    """Whether the two largest entries of a window of which the largest is taken are that close."""
    pools = [layer for layer in spec.layers if layer.window is not None and layer.window.pooling == "max"]
    params, inputs, _, _ = tensors(point)
    forward = oracle_torch.ForwardTorch(spec)
    for sample in inputs if pools else ():
        run = forward_pass(spec, params, sample, forward.activate)
        for layer in pools:
            value = run.values[layer.inputs[0]].numpy()
            assert layer.window is not None
            each = replace(layer, window=replace(layer.window, groups=len(value)))
            inside = patches(each, np.ones_like(value)) > 0
            entries = np.sort(np.where(inside, patches(each, value), -np.inf), axis=-1)
            last, first = entries[..., -2:-1], entries[..., -1:]
            scale = abs(last) + abs(first) + 1e-3
            if bool((np.isfinite(last) & (first - last <= width * scale)).any()):
                return True
    return False


_KINKED = ("abs", "relu", "leaky_relu", "elu", "selu", "sqrt")


def _sides(tree: Expression) -> Iterator[tuple[Expression, Expression | None]]:
    """Pairs that a tree compares; None is zero."""
    match tree:
        case Negative(operand=operand):
            yield from _sides(operand)
        case Binary(operator=operator, left=left, right=right):
            if operator == "**" and not (isinstance(right, Number) and right.value.denominator == 1):
                yield left, None
            yield from _sides(left)
            yield from _sides(right)
        case Compare(left=left, right=right):
            yield left, right
            yield from _sides(left)
            yield from _sides(right)
        case Call(function=function, arguments=arguments):
            if function in ("max", "min"):
                yield arguments[0], arguments[1]
            if function in _KINKED:
                yield arguments[0], None
            for argument in arguments:
                yield from _sides(argument)
