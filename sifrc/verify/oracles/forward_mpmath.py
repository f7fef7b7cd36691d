"""Oracle at any precision: nested dual numbers through the spec's forward pass.

It sees the forward pass only. Derivatives of any order come out as coefficients of dual numbers, one
pass for each number asked for: exact, independent of the derivation, and for small networks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import pairwise
from types import MappingProxyType
from typing import Any

import mpmath
import numpy as np

from sifrc.ir.arithmetic import MPMATH, Array
from sifrc.spec.types import FunctionSpec, Spec
from sifrc.verify.oracles.duals import FUNCTIONS, part, power, primal, seed
from sifrc.verify.oracles.network import (
    Pass,
    argument_names,
    buffer_values,
    counted,
    forward_pass,
    one_hot,
    parameter_shapes,
    placed_loss,
    regularized_states,
    spectral_chain,
    with_mask,
)
from sifrc.verify.oracles.trees import evaluate_tree

__all__ = ["Arrays", "ForwardMpmath", "seeded"]

Arrays = Mapping[str, Array]


def _each(function: Callable[[Any], Any], value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return np.asarray(np.frompyfunc(function, 1, 1)(value), dtype=object)
    return function(value)


class _MpmathOperations:
    """mpf or dual numbers; arrays of them are object arrays."""

    functions: Mapping[str, Callable[[Any], Any]] = MappingProxyType(
        {name: partial(_each, function) for name, function in FUNCTIONS.items()}
    )

    def __init__(self, size: int) -> None:
        self.size = size

    def number(self, numerator: int, denominator: int) -> Any:
        return mpmath.mpf(numerator) / denominator

    def parameter(self, value: float) -> Any:
        return mpmath.mpf(repr(value))

    def power(self, base: Any, exponent: Any) -> Any:
        if isinstance(base, np.ndarray) or isinstance(exponent, np.ndarray):
            return np.asarray(np.frompyfunc(power, 2, 1)(base, exponent), dtype=object)
        return power(base, exponent)

    def choose(self, condition: Any, chosen: Callable[[], Any], otherwise: Callable[[], Any]) -> Any:
        if not isinstance(condition, np.ndarray):
            return chosen() if condition else otherwise()
        taken = np.broadcast_to(np.asarray(chosen(), dtype=object), condition.shape)
        other = np.broadcast_to(np.asarray(otherwise(), dtype=object), condition.shape)
        return np.where(condition.astype(bool), taken, other)

    def total(self, vector: Any) -> Any:
        return vector.sum() if isinstance(vector, np.ndarray) else vector * self.size

    def log_sum_exp(self, vector: Any) -> Any:
        entries = list(vector) if isinstance(vector, np.ndarray) else [vector] * self.size
        largest = max(primal(entry) for entry in entries)
        terms = [FUNCTIONS["exp"](entry - largest) for entry in entries]
        return FUNCTIONS["log"](sum(terms[1:], terms[0])) + largest


class ForwardMpmath:
    """Objective and derivatives of one sample, at the precision in force (``mpmath.workdps``).

    Args:
        spec: the network.

    Example:
        >>> from sifrc.spec import build_spec
        >>> spec = build_spec({"sifrc": 1, "name": "tiny", "loss": "squared_error", "network": {
        ...     "input": {"size": 1}, "layers": [{"name": "fc", "type": "dense", "units": 1}]}})
        >>> one = np.array([mpmath.mpf(1)], dtype=object)
        >>> oracle = ForwardMpmath(spec)
        >>> gradient = oracle.gradient({"fc.weight": one.reshape(1, 1), "fc.bias": one}, 2 * one, 0 * one)
        >>> float(gradient["fc.weight"][0, 0])
        6.0
    """

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self.shapes = parameter_shapes(spec)
        self.buffers = {name: MPMATH.array(value) for name, value in buffer_values(spec).items()}
        self.operations = _MpmathOperations(spec.layers[-1].shape[spec.loss.axis])

    def output(self, params: Arrays, sample: Array) -> Array:
        """Network output of the sample, (n_out,)."""
        return np.asarray(self.run(params, sample).output, dtype=object)

    def loss(self, params: Arrays, sample: Array, target: Any) -> Any:
        """Loss of the sample."""
        vector = self.target_vector(sample, target)
        return self.loss_of_output(self.run(params, sample).output, vector) / counted(self.spec, [vector])

    def objective(self, params: Arrays, sample: Array, target: Any) -> Any:
        """Loss and state regularisation of the sample."""
        return self._objective(params, sample, target, *self._held(params, sample, target))

    def _held(self, params: Arrays, sample: Array, target: Any) -> tuple[Mapping[str, Any], Any]:
        """What is a value of the sample and no variable."""
        return self.factors(params, sample, target), self.loss_factor(params, sample, target)

    def _objective(
        self, params: Arrays, sample: Array, target: Any, factors: Mapping[str, Any], weight: Any
    ) -> Any:
        run = self.run(params, sample)
        value = weight * self.loss_of_output(run.output, self.target_vector(sample, target))
        for name, factor in factors.items():
            value = value + factor / 2 * (run.values[name] * run.values[name]).sum()
        return value + self._penalty(params)

    def _penalty(self, params: Arrays) -> Any:
        """Regularisation of the parameters."""
        found = mpmath.mpf(0)
        for name, number in self.spec.regularization.parameters:
            found = found + mpmath.mpf(repr(number)) / 2 * (params[name] * params[name]).sum()
        return found

    def derivative(self, params: Arrays, sample: Array, target: Any, directions: Sequence[Arrays]) -> Any:
        """Mixed derivative of the objective along directions shaped like the parameters, any order."""
        held = self._held(params, sample, target)
        moved = dict(params)
        for tag, direction in enumerate(directions, start=1):
            moved = {name: seeded(value, direction[name], tag) for name, value in moved.items()}
        tags = tuple(range(len(directions), 0, -1))
        return part(self._objective(moved, sample, target, *held), tags)

    def gradient(self, params: Arrays, sample: Array, target: Any) -> dict[str, Array]:
        """Gradient of the objective: one pass for each parameter."""
        return self.components(params, lambda unit: self.derivative(params, sample, target, [unit]))

    def hvp(self, params: Arrays, sample: Array, target: Any, vector: Arrays) -> dict[str, Array]:
        """Hessian times vector: e_iᵀ H v, one pass of second-order duals for each parameter."""
        return self.components(params, lambda unit: self.derivative(params, sample, target, [vector, unit]))

    def ggn_bilinear(self, params: Arrays, sample: Array, target: Any, left: Arrays, right: Arrays) -> Any:
        """(J left)ᵀ ∇²ℓ (J right) of the loss, as the objective has it."""
        moves = [self.output_along(params, sample, direction) for direction in (left, right)]
        return self._loss_curvature(params, sample, target, *moves)

    def ggn_vp(self, params: Arrays, sample: Array, target: Any, vector: Arrays) -> dict[str, Array]:
        """Gauss–Newton matrix of the data loss times vector: (J e_i)ᵀ ∇²ℓ J v, a pass for each parameter."""
        move = self.output_along(params, sample, vector)
        units = MPMATH.array(np.eye(len(move)))
        curved = MPMATH.array([self._loss_curvature(params, sample, target, unit, move) for unit in units])
        return self.components(params, lambda unit: self.output_along(params, sample, unit) @ curved)

    def output_along(self, params: Arrays, sample: Array, direction: Arrays) -> Array:
        """J times direction."""
        moved = {name: seeded(value, direction[name], 1) for name, value in params.items()}
        return np.asarray([part(y, (1,)) for y in self.run(moved, sample).output], dtype=object)

    def _loss_curvature(self, params: Arrays, sample: Array, target: Any, left: Array, right: Array) -> Any:
        """leftᵀ ∇²ℓ right at the output."""
        found = np.asarray([primal(y) for y in self.run(params, sample).output], dtype=object)
        for tag, move in enumerate((left, right), start=1):
            found = seeded(found, move, tag)
        weight = self.loss_factor(params, sample, target)
        return weight * part(self.loss_of_output(found, self.target_vector(sample, target)), (2, 1))

    def factors(self, params: Arrays, sample: Array, target: Any) -> dict[str, Any]:
        """λ by state; for ``spectral`` MK(65), with the adjoint of the loss alone."""
        chosen = regularized_states(self.spec)
        if self.spec.regularization.kind != "spectral":
            return {name: mpmath.mpf(repr(value)) for name, value in chosen.items()}
        states = spectral_chain(self.spec)
        arguments = self.run(params, sample).arguments
        result: dict[str, Any] = {}
        for name, after in pairwise(states):
            entries = np.ndindex(self.spec.shapes[after])
            squares = [self._by_shift(params, sample, target, after, entry) ** 2 for entry in entries]
            result[name] = mpmath.sqrt(sum(squares)) / self._steepest(name, arguments)
        return result

    def loss_factor(self, params: Arrays, sample: Array, target: Any) -> Any:
        """What the objective multiplies the loss by: one, or λ_n of MK(68)."""
        if self.spec.regularization.output == "none":
            return mpmath.mpf(1) / counted(self.spec, [self.target_vector(sample, target)])
        run, vector = self.run(params, sample), self.target_vector(sample, target)
        squares = []
        for entry in range(len(run.output)):
            moved = [seed(y, mpmath.mpf(int(i == entry)), 1) for i, y in enumerate(run.output)]
            squares.append(part(self.loss_of_output(np.asarray(moved, dtype=object), vector), (1,)) ** 2)
        return mpmath.sqrt(sum(squares)) / self._steepest(self.spec.layers[-1].name, run.arguments)

    def _steepest(self, layer: str, arguments: Mapping[str, Any]) -> Any:
        """‖F'(a)‖_∞ of a layer."""
        function = next(item.activation for item in self.spec.layers if item.name == layer)
        if function is None:
            return mpmath.mpf(1)
        one = mpmath.mpf(1)
        slopes = (self.scalar_function(function, seed(a, one, 1)) for a in arguments[layer].ravel())
        return max(abs(part(slope, (1,))) for slope in slopes)

    def _by_shift(
        self, params: Arrays, sample: Array, target: Any, layer: str, entry: tuple[int, ...]
    ) -> Any:
        """∂ℓ/∂a_i of one layer."""
        shift = np.full(self.spec.shapes[layer], mpmath.mpf(0), dtype=object)
        shift[entry] = seed(mpmath.mpf(0), mpmath.mpf(1), 1)
        whole = {**self.buffers, **params}
        run = forward_pass(self.spec, whole, sample, self.activate, {layer: shift})
        return part(self.loss_of_output(run.output, self.target_vector(sample, target)), (1,))

    def components(self, params: Arrays, value: Callable[[Arrays], Any]) -> dict[str, Array]:
        """A tensor for each parameter, entry by entry, from its value on unit vectors."""
        result: dict[str, Array] = {}
        for name, given in params.items():
            entries = np.empty(given.shape, dtype=object)
            for index in np.ndindex(given.shape):
                unit = {other: np.zeros(tensor.shape, dtype=object) for other, tensor in params.items()}
                unit[name][index] = mpmath.mpf(1)
                entries[index] = value(unit)
            result[name] = entries
        return result

    def run(self, params: Arrays, sample: Array) -> Pass:
        """All states and pre-activations of a sample."""
        return forward_pass(self.spec, {**self.buffers, **params}, sample, self.activate)

    def activate(self, function: FunctionSpec, *arguments: Array) -> Array:
        """An activation at all entries of an array, or a function of entries of several."""
        each = np.frompyfunc(lambda *entries: self.scalar_function(function, *entries), len(arguments), 1)
        return np.asarray(each(*arguments), dtype=object)

    def scalar_function(self, function: FunctionSpec, *arguments: Any) -> Any:
        """An activation at a number for each argument: only the branch that is taken is computed."""
        scope = dict(zip(argument_names(len(arguments)), arguments, strict=True))
        return evaluate_tree(function.expression, scope | self._named(function), self.operations)

    def loss_of_output(self, output: Array, target: Array) -> Any:
        """The loss of an output and a target, all axes as one."""
        function = self.spec.loss.function

        def loss(y: Array, t: Array) -> Any:
            scope = {"y": y, "t": t, **self._named(function)}
            return evaluate_tree(function.expression, scope, self.operations)

        return placed_loss(self.spec, output, target, loss)

    def _named(self, function: FunctionSpec) -> dict[str, Any]:
        return {name: self.operations.parameter(value) for name, value in function.parameters}

    def target_vector(self, sample: Array, target: Any) -> Array:
        """The target as a vector, with a mask after it; a class index becomes one-hot."""
        if self.spec.loss.targets == "vectors":
            vector = np.asarray(target, dtype=object).reshape(-1)
        else:
            entries = [mpmath.mpf(int(entry)) for entry in one_hot(self.spec, target)]
            vector = np.asarray(entries, dtype=object)
        return np.asarray(with_mask(self.spec, vector, sample), dtype=object)


def seeded(value: Array, slope: Array, tag: int) -> Array:
    """An array with a dual part of a tag."""
    move = np.frompyfunc(lambda a, b: seed(a, b, tag), 2, 1)
    return np.asarray(move(value, slope), dtype=object)
