"""Derived systems evaluated for one sample, equation after equation, in any number system."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import Any, TypeVar

import numpy as np

from sifrc.derive.curvature.kinds import KINDS
from sifrc.derive.derived import Derived
from sifrc.derive.groups import OWNER, SINGLE
from sifrc.derive.recurrence import name_of, recursions
from sifrc.derive.shaped import DIRECTION, GAUSS_NEWTON_PRODUCT, GRADIENT, HESSIAN_PRODUCT
from sifrc.derive.system import Equation, System
from sifrc.ir import Input, Role
from sifrc.ir.arithmetic import NUMPY, Arithmetic, Array
from sifrc.ir.evaluate import evaluate
from sifrc.ir.traverse import inputs_of
from sifrc.model import Model
from sifrc.model.parameters import Shaped
from sifrc.verify.inputs import given_symbols
from sifrc.verify.oracles.network import as_vectors, buffer_values, input_parts
from sifrc.verify.summary_parts import parts_of

__all__ = ["SampleSystems", "evaluate_system"]


def evaluate_system(
    system: System, env: Mapping[Input, Array], arithmetic: Arithmetic = NUMPY
) -> dict[Input, Array]:
    """Run a system's equations in order.

    Args:
        system: equations, each over symbols of ``env`` and symbols that it defined before.
        env: values so far; not changed.
        arithmetic: number system of the values.

    Returns:
        ``env`` with the values of the symbols that the system defines.

    Raises:
        KeyError: an equation uses a symbol that has no value yet.
    """
    values = dict(env)
    _run(system, values, lambda symbol: symbol, arithmetic)
    return values


_Key = TypeVar("_Key", bound=Hashable)


def _run(
    system: System, values: dict[_Key, Array], key: Callable[[Input], _Key], arithmetic: Arithmetic
) -> None:
    """Give the symbols of a system their values.

    What refers to itself at other steps is evaluated at all of them again and again, from zero: each time one
    more step is right.

    Args:
        system: equations.
        values: by key, which are added to.
        key: of a symbol.
        arithmetic: number system.
    """
    for each in recursions(system.equations):
        if isinstance(each, Equation):
            _assign(each, values, key, arithmetic)
            continue
        for equation in each.equations:
            shape = [axis.entries for axis in equation.symbol.axes]
            values[key(equation.symbol)] = arithmetic.array(np.zeros(shape))
        for _ in range(each.steps):
            for equation in each.equations:
                _assign(equation, values, key, arithmetic)


def _assign(
    equation: Equation, values: dict[_Key, Array], key: Callable[[Input], _Key], arithmetic: Arithmetic
) -> None:
    used = {symbol: values[key(symbol)] for symbol in inputs_of(equation.value) if key(symbol) in values}
    values[key(equation.symbol)] = evaluate({"value": equation.value}, used, arithmetic)["value"]


class SampleSystems:
    """All derived systems of a model at one sample.

    Args:
        derived: what was derived from the model.
        params: parameter name -> array.
        sample: network input.
        target: target vector (n_out,), or a class index where the spec's targets are classes.
        arithmetic: number system.
        white_factor: λ_0 of the white layer; by default the uniform λ of the spec, else 1. (A spectral
            λ_0 is a value of the sample and is derived.)

    Example:
        >>> from sifrc.model import build_model
        >>> from sifrc.spec import build_spec
        >>> spec = build_spec({"sifrc": 1, "name": "tiny", "loss": "squared_error", "network": {
        ...     "input": {"size": 1}, "layers": [{"name": "fc", "type": "dense", "units": 1}]}})
        >>> one = np.ones(1)
        >>> params = {"fc.weight": one.reshape(1, 1), "fc.bias": one}
        >>> run = SampleSystems(Derived(build_model(spec)), params, 2 * one, 0 * one)
        >>> float(run.gradient()["fc.weight"][0, 0])
        6.0
    """

    def __init__(
        self,
        derived: Derived,
        params: Mapping[str, Any],
        sample: Any,
        target: Any,
        arithmetic: Arithmetic = NUMPY,
        white_factor: float | None = None,
    ) -> None:
        self.derived = derived
        self.arithmetic = arithmetic
        model = derived.model
        env = {parameter.symbol: arithmetic.array(params[parameter.name]) for parameter in model.tensors}
        values = buffer_values(model.spec)
        env |= {buffer.symbol: arithmetic.array(values[buffer.name]) for buffer in model.buffers}
        parts = input_parts(model.spec, sample)
        for symbol, source in given_symbols(model):
            env[symbol] = arithmetic.array(as_vectors(source, parts[source.name]))
        env |= {table.symbol: table.values(arithmetic) for table in model.tables}
        env[model.target] = arithmetic.array(_target_vector(model, target))
        factors = dict(model.regularized)
        white = _white_factor(model) if white_factor is None else white_factor
        for index, value in {0: white, **dict(model.lambda_values)}.items():
            symbol = factors.get(index, Input("λ", 0, (), Role.HYPERPARAMETER))
            # The decimal number of the spec, not the binary number next to it.
            env[symbol] = arithmetic.array(repr(float(value)))
        env |= {symbol: arithmetic.array(repr(value)) for _, symbol, value in model.penalties}
        env = self._run(env, [derived.first.forward, derived.first.normalization])
        if derived.spectral is not None:
            env = self._run(env, [derived.spectral.system])
        self.env = self._run(env, [derived.first.objective, derived.first.adjoint])
        """Value of every symbol: inputs, states, adjoints."""

    def _run(self, env: Mapping[Input, Array], systems: Iterable[System]) -> dict[Input, Array]:
        values = dict(env)
        for system in systems:
            values = evaluate_system(system, values, self.arithmetic)
        return values

    def loss(self) -> Any:
        """Loss of the sample."""
        return self._scalar("loss")

    def objective(self) -> Any:
        """Loss and regularisation of the sample."""
        return self._scalar("objective")

    def gradient(self) -> dict[str, Array]:
        """Gradient of the objective."""
        return self._results(self._run(self.env, [self.derived.first.gradient]), GRADIENT)

    def along(self, vector: Mapping[str, Any]) -> dict[Input, Array]:
        """All symbols of the Hessian–vector product: tangents ζ, γ and the product itself."""
        second = self.derived.second
        systems = [second.tangent, second.adjoint_tangent, second.product]
        return self._run({**self.env, **self._directions(vector)}, systems)

    def hessian_vector_product(self, vector: Mapping[str, Any]) -> dict[str, Array]:
        """Hessian of the objective times vector."""
        return self._results(self.along(vector), HESSIAN_PRODUCT)

    def gauss_newton_vector_product(self, vector: Mapping[str, Any]) -> dict[str, Array]:
        """Gauss–Newton matrix of the data loss times vector."""
        derivation = self.derived.gauss_newton
        systems = [derivation.tangent, derivation.adjoint, derivation.product]
        return self._results(
            self._run({**self.env, **self._directions(vector)}, systems), GAUSS_NEWTON_PRODUCT
        )

    def newton_direction(self) -> dict[str, Array]:
        """Newton direction (N, η) of the sample."""
        return self._results(self._run(self.env, [self.derived.newton.system()]), DIRECTION)

    def blocks(self) -> dict[str, Array]:
        """Blocks of the Hessian by parameter: (n, n) of biases, (n, m, n, m) of weights."""
        curvature = self.derived.curvature
        systems = [curvature.blocks(KINDS["hessian"]), curvature.bias_blocks(mean=False)]
        env = self._run(self.env, [*systems, curvature.dense("samples")])
        found = _by_name(env)
        result: dict[str, Array] = {}
        for _, blocks in curvature.parameters("samples"):
            for block in blocks:
                symbol = curvature.symbol(block, mean=not block.of_pre_activation)
                result[block.parameter.name] = found[symbol.family, symbol.index]
        return result

    def summary(self, direction: Mapping[str, Any], order: int | None) -> tuple[Array | None, ...]:
        """ḡ (S,), H̿ (S, S), D̄ (S,) and T̄ (S, S, S) up to an order, None for what is not of it.

        Args:
            direction: by name.
            order: 1, 2 or 3 for the diagonal D̄; None for T̄ in its place.
        """
        summaries = self.derived.summaries
        systems = summaries.whole() if order is None else (summaries.of_order(order),)
        values = _by_name(self.env)
        values |= _directions_of(self.derived, direction, self.arithmetic)
        for system in systems:
            # By family and index: tangents of groups are read along several axes.
            _run(system, values, name_of, self.arithmetic)
        return tuple(values.get((family, None)) for family in ("ḡ", "H̿", "D̄", "T̄"))

    def _scalar(self, family: str) -> Any:
        symbol = next(symbol for symbol in self.env if symbol.family == family)
        return self.env[symbol][()]

    def _directions(self, vector: Mapping[str, Any]) -> dict[Input, Array]:
        symbols = self.derived.second.directions
        tensors = self.derived.model.tensors
        return {symbols[each.symbol]: self.arithmetic.array(vector[each.name]) for each in tensors}

    def _results(self, env: Mapping[Input, Array], quantity: Shaped) -> dict[str, Array]:
        found = _by_name(env)
        keys = {each.name: quantity.of(each) for each in self.derived.model.tensors}
        return {name: found[symbol.family, symbol.index] for name, symbol in keys.items()}


def _by_name(env: Mapping[Input, Array]) -> dict[tuple[str, int | None], Array]:
    """Values by family and index, whatever the axes are called."""
    return {(symbol.family, symbol.index): value for symbol, value in env.items()}


def _directions_of(
    derived: Derived, direction: Mapping[str, Any], arithmetic: Arithmetic
) -> dict[tuple[str, int | None], Array]:
    """Values of (N, η), and of what says which group owns a tensor; of every entry alone for ``discrete``."""
    partition = derived.summaries.partition
    found: dict[tuple[str, int | None], Array] = {}
    parts = parts_of(derived.model.spec, {name: arithmetic.array(v) for name, v in direction.items()})
    for parameter in derived.model.tensors:
        name, symbol = parameter.name, DIRECTION.of(parameter)
        family, index = symbol.family, symbol.index
        found[family, index] = arithmetic.array(direction[name])
        if partition.discrete:
            found[SINGLE[family], index] = np.stack([part[name] for part in parts])
        else:
            own = [int(group == partition.position[name]) for group in range(partition.size)]
            found[OWNER[family], index] = arithmetic.array(own)
    return found


def _white_factor(model: Model) -> float:
    chosen = model.spec.regularization
    return chosen.value if chosen.kind == "uniform" else 1.0


def _target_vector(model: Model, target: Any) -> Any:
    loss = model.spec.loss
    if loss.targets == "vectors":
        return target
    classes, size = np.asarray(target, dtype=int), model.target.axes[-1].entries
    counts = np.ones(classes.shape, dtype=int) if loss.ignored is None else classes != loss.ignored
    return np.eye(size)[classes % size] * counts[..., None]
