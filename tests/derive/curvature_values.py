"""Curvature systems evaluated for a batch in NumPy: the derivation and the sample axis, nothing lowered."""

from __future__ import annotations

from typing import Any

import numpy as np

from sifrc.derive.curvature.kinds import Kind
from sifrc.derive.curvature.scores import NORMAL, UNIFORM
from sifrc.derive.derived import Derived
from sifrc.derive.shaped import DIRECTION
from sifrc.derive.system import System
from sifrc.ir import Input, Role
from sifrc.ir.evaluate import evaluate
from sifrc.ir.traverse import inputs_of
from sifrc.lower.batch import MEAN, batch_symbol, batch_system
from sifrc.model import build_model
from sifrc.spec.types import Spec
from sifrc.verify.points import Point

__all__ = ["Values"]


class Values:
    """The derivations of a spec at a point.

    Args:
        spec: the network.
        point: parameters, batch and direction.
        random: seed of the numbers that sampled kinds use.
    """

    def __init__(self, spec: Spec, point: Point, random: int = 0) -> None:
        self.model = build_model(spec)
        self.derived = Derived(self.model)
        self.samples = len(point.inputs)
        generator = np.random.default_rng(random)
        size = spec.layers[-1].size
        targets = point.targets if spec.loss.targets == "vectors" else np.eye(size)[point.targets]
        env: dict[Input, Any] = {MEAN: np.array(1 / self.samples)}
        env[batch_symbol(self.model.input)] = point.inputs
        env[batch_symbol(self.model.target)] = targets
        axes = self.model.output.state.axes
        env[batch_symbol(Input(UNIFORM, None, axes, Role.DATA))] = generator.uniform(
            size=(self.samples, size)
        )
        env[batch_symbol(Input(NORMAL, None, axes, Role.DATA))] = generator.normal(size=(self.samples, size))
        for owned in self.model.parameters:
            for parameter in owned.members:
                env[parameter.symbol] = point.params[parameter.name]
                env[DIRECTION.of(parameter)] = point.vector[parameter.name]
        factors = dict(self.model.regularized)
        for index, value in self.model.lambda_values:
            env[batch_symbol(factors[index])] = np.array(float(value))
        self.env = self.run(env, self.derived.first.forward)
        if self.derived.spectral is not None:
            self.env = self.run(self.env, self.derived.spectral.system)
        self.env = self.run(self.env, self.derived.first.adjoint)

    def run(self, env: dict[Input, Any], system: System) -> dict[Input, Any]:
        """The symbols, and those that the system defines."""
        values = dict(env)
        for equation in batch_system(system).equations:
            used = {s: values[s] for s in inputs_of(equation.value) if s in values}
            found = evaluate({"value": equation.value}, used, samples=self.samples)
            values[equation.symbol] = np.asarray(found["value"])
        return values

    def blocks(self, kind: Kind) -> dict[str, np.ndarray]:
        """Spec layer -> H (B, n, n), or H̄ (n, n), of every pre-activation, bias or not."""
        curvature = self.derived.curvature
        env = self.run(self.env, curvature.blocks(kind))
        if kind.factored:
            env = self.run(env, curvature.mean_blocks(kind.form))
        elif kind.form == "outputs":
            env = self.run(env, curvature.sample_blocks(kind.form))
        values = self.named(env)
        family = "H̄" if kind.expectation or kind.factored else "H"
        return {c.layers[0]: values[family, c.index] for c in self.model.constraints}

    def after(self, kind: Kind, *systems: System) -> dict[tuple[str, int | None], np.ndarray]:
        """(family, index) -> value after the blocks of a kind and other systems."""
        env = self.env
        for system in (self.derived.curvature.blocks(kind), *systems):
            env = self.run(env, system)
        return self.named(env)

    @staticmethod
    def named(env: dict[Input, Any]) -> dict[tuple[str, int | None], np.ndarray]:
        """Values by family and index."""
        return {(symbol.family, symbol.index): value for symbol, value in env.items()}

    def tensors(self, values: dict[Any, np.ndarray], weight: str, bias: str) -> dict[str, np.ndarray]:
        """Results that are shaped like parameters."""
        return {
            parameter.name: values[weight if parameter.slot == "weight" else bias, owned.index]
            for owned in self.model.parameters
            for parameter in owned.members
        }
