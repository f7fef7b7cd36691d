"""Recurrent layers: states that read themselves one step before, which is a product with a constant shift.

rnn   h_t = F(U x_t + W h_{t−1} + β)
lstm  (i, f, g, o)_t = (σ, σ, tanh, σ)(U x_t + W h_{t−1} + β),
      c_t = f_t c_{t−1} + i_t g_t,  h_t = o_t tanh(c_t)
gru   (r, z)_t = σ(U x_t + W h_{t−1} + β),  n_t = tanh(U x_t + r_t (W h_{t−1} + β)),
      h_t = (1 − z_t) n_t + z_t h_{t−1}

U x_t is a state of its own, of all steps at once. Before the first step everything is zero.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TypeAlias

from sifrc.ir import Affine, Axis, Expr, Input, Operand
from sifrc.ir.build import einsum, rename, subtract, total
from sifrc.model.layers.building import Building
from sifrc.model.layers.elementary import linear
from sifrc.model.layers.shapes import side_by_side
from sifrc.model.parameters import LayerParameters
from sifrc.scalar import ScalarFunction, scalar_from_tree
from sifrc.spec.functionspec import built_in_expression
from sifrc.spec.layers.recurrence import Pass, RecurrentSpec
from sifrc.spec.types import LayerKind

__all__ = ["recurrent"]

Made: TypeAlias = tuple[Expr, ScalarFunction | None, LayerParameters | None]
"""What the state at a step is made of: its value before a function, the function, the parameters in it."""


def _function(name: str) -> ScalarFunction:
    return scalar_from_tree(built_in_expression("activation", name), ("x",), (), name)


_SIGMOID, _TANH = _function("sigmoid"), _function("tanh")


def recurrent(building: Building) -> Expr:
    """All layers of a layer: each reads the one before, or both directions of it side by side."""
    settings = building.layer.settings
    assert isinstance(settings, RecurrentSpec)
    source, cell = building.source, _CELLS[building.layer.kind]
    for layer in range(settings.layers):
        ends = layer == settings.layers - 1
        steps = [_Step(building, settings, each, source) for each in settings.passes if each.layer == layer]
        if ends and building.alone and len(steps) == 1:
            value, building.function, _ = cell(steps[0], building.axes)
            return value
        found = [step.state("state", *cell(step, step.axes("state"))) for step in steps]
        axes = building.axes if ends else building.inner(f"both_l{layer}", building.axes)
        whole = side_by_side(found, axes, len(axes) - 1)
        if ends:
            return whole
        source = found[0] if len(found) == 1 else building.state(f"both_l{layer}", whole)
    raise AssertionError("a recurrent layer has a layer")


@dataclass(frozen=True)
class _Step:
    """One pass of a layer while its states are made.

    Args:
        building: the layer.
        settings: of the layer.
        each: which layer and direction.
        source: what the pass reads.
    """

    building: Building
    settings: RecurrentSpec
    each: Pass
    source: Input

    def axes(self, name: str, times: int = 1) -> tuple[Axis, ...]:
        """Of a state with some vectors of units at each step."""
        units = Axis("units", times * self.settings.units)
        return self.building.inner(self.each.part(name), (self.source.axes[0], units))

    def state(
        self,
        name: str,
        value: Expr,
        function: ScalarFunction | None = None,
        parameters: LayerParameters | None = None,
    ) -> Input:
        """Give an expression a state."""
        name = self.each.part(name)
        return self.building.state(
            name, rename(value, self.building.inner(name, value.axes)), function, parameters
        )

    def inputs(self, times: int) -> Input:
        """U x + β, of all steps."""
        owned = self.building.parameters(self.each.part("ih"))
        value = linear(owned, self.source, self.axes("input", times))
        return self.state("input", value, parameters=owned)

    def moved(self, state: Input, axes: tuple[Axis, ...]) -> tuple[Expr, LayerParameters]:
        """W h + β of the step before, over some axes."""
        owned = self.building.parameters(self.each.part("hh"))
        (step, out), read = axes, state.axes[1].primed
        terms = [einsum([(owned.weight, (out, read)), *self.before(state, step, read)], axes)]
        if owned.bias is not None:
            terms.append(einsum([(owned.bias, (out,))], axes))
        return total(terms, axes), owned

    def before(self, state: Input, step: Axis, unit: Axis) -> list[Operand]:
        """A state at the step before: zero before the first one."""
        read = state.axes[0].primed
        shift = Affine((read.entries, step.entries), (1, -1), 1 if self.each.backwards else -1)
        return [(shift, (read, step)), (state, (read, unit))]


def _part(state: Input, number: int, axes: tuple[Axis, ...]) -> list[Operand]:
    """One of the vectors of units that a state has at each step, or several from one on."""
    (step, unit), (_, read) = axes, state.axes
    taken = Affine((read.entries, unit.entries), (1, -1), number)
    return [(taken, (read, unit)), (state, (step, read))]


def _rnn(step: _Step, axes: tuple[Axis, ...]) -> Made:
    """F(U x_t + W h_{t−1} + β)."""
    inputs, function = step.inputs(1), step.settings.function
    moved, owned = step.moved(step.building.ahead(0, axes), axes)
    assert function is not None
    found = scalar_from_tree(function.expression, ("x",), function.parameters, function.name)
    return total([rename(inputs, axes), moved], axes), None if function.name == "identity" else found, owned


def _lstm(step: _Step, axes: tuple[Axis, ...]) -> Made:
    """o_t tanh(c_t), c_t = f_t c_{t−1} + i_t g_t."""
    n = step.settings.units
    inputs, state = step.inputs(4), step.building.ahead(6, axes)
    wide = step.axes("gates", 4)
    moved, owned = step.moved(state, wide)
    gates = step.state("gates", total([rename(inputs, wide), moved], wide), parameters=owned)
    two = step.axes("open", 2)
    opened = step.state("open", einsum(_part(gates, 0, two), two), _SIGMOID)
    fresh = step.state("fresh", einsum(_part(gates, 2 * n, axes), axes), _TANH)
    shown = step.state("shown", einsum(_part(gates, 3 * n, axes), axes), _SIGMOID)
    own = step.axes("cell")
    cell = step.building.ahead(0, own)
    kept = einsum([*_part(opened, n, own), *step.before(cell, own[0], own[1])], own)
    added = einsum([*_part(opened, 0, own), (fresh, own)], own)
    cell = step.state("cell", total([kept, added], own))
    bent = step.state("bent", rename(cell, axes), _TANH)
    assert step.building.ahead(0, axes) is state
    return einsum([(shown, axes), (bent, axes)], axes), None, None


def _gru(step: _Step, axes: tuple[Axis, ...]) -> Made:
    """(1 − z_t) n_t + z_t h_{t−1}."""
    n = step.settings.units
    inputs, state = step.inputs(3), step.building.ahead(3, axes)
    wide, two = step.axes("moved", 3), step.axes("open", 2)
    value, owned = step.moved(state, wide)
    moved = step.state("moved", value, parameters=owned)
    both = [einsum(_part(each, 0, two), two) for each in (inputs, moved)]
    opened = step.state("open", total(both, two), _SIGMOID)
    reset = einsum([*_part(opened, 0, axes), *_part(moved, 2 * n, axes)], axes)
    fresh = step.state("fresh", total([einsum(_part(inputs, 2 * n, axes), axes), reset], axes), _TANH)
    assert step.building.ahead(0, axes) is state
    update = _part(opened, n, axes)
    kept = einsum([*update, *step.before(state, axes[0], axes[1])], axes)
    return (
        total([subtract(rename(fresh, axes), einsum([*update, (fresh, axes)], axes)), kept], axes),
        None,
        None,
    )


_CELLS: Mapping[LayerKind, Callable[[_Step, tuple[Axis, ...]], Made]] = MappingProxyType(
    {"rnn": _rnn, "lstm": _lstm, "gru": _gru}
)
