"""Recurrent layers: states that read themselves one step before, which is a product with a constant shift.

rnn   h_t = F(U x_t + W h_{t−1} + β)
lstm  (i, f, g, o)_t = (σ, σ, tanh, σ)(U x_t + W h_{t−1} + β),
      c_t = f_t c_{t−1} + i_t g_t,  h_t = o_t tanh(c_t)
gru   (r, z)_t = σ(U x_t + W h_{t−1} + β),  n_t = tanh(U x_t + r_t (W h_{t−1} + β)),
      h_t = (1 − z_t) n_t + z_t h_{t−1}

U x_t is a state of its own, of all steps at once. Before the first step everything is zero, or what the layer
begins with. Where a mask leaves a step out, h and c are those of the step before; so a direction that goes
backwards begins at the last step that is read. The output is h; of an LSTM that gives cells it is h, then c.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from types import MappingProxyType
from typing import TypeAlias

from sifrc.ir import Affine, Axis, Expr, Input, Operand
from sifrc.ir.build import add, apply, einsum, rename, total
from sifrc.model.layers.building import Building
from sifrc.model.layers.elementary import linear
from sifrc.model.layers.masks import LEFT, READ
from sifrc.model.layers.shapes import side_by_side
from sifrc.model.parameters import LayerParameters
from sifrc.scalar import ScalarFunction, scalar_from_tree
from sifrc.spec.functionspec import built_in_expression
from sifrc.spec.layers.recurrence import Pass, RecurrentSpec
from sifrc.spec.types import LayerKind

__all__ = ["recurrent"]

_Term: TypeAlias = tuple[int, list[Operand]]
"""A product with its sign."""


def _function(name: str) -> ScalarFunction:
    return scalar_from_tree(built_in_expression("activation", name), ("x",), (), name)


_SIGMOID, _TANH = _function("sigmoid"), _function("tanh")


@dataclass(frozen=True)
class _Made:
    """What the state at a step is made of.

    Args:
        value: before a function.
        function: of each entry, or None.
        parameters: that the value reads.
        cell: the other state that goes on to the next step, where there is one.
    """

    value: Expr
    function: ScalarFunction | None = None
    parameters: LayerParameters | None = None
    cell: Input | None = None


def recurrent(building: Building) -> Expr:
    """All layers of a layer: each reads the one before, or both directions of it side by side."""
    settings = building.layer.settings
    assert isinstance(settings, RecurrentSpec)
    source, cell = building.sources[0], _CELLS[building.layer.kind]
    zero = settings.masked == "zero"
    for layer in range(settings.layers):
        ends = layer == settings.layers - 1
        steps = [_Step(building, settings, each, source) for each in settings.passes if each.layer == layer]
        if ends and building.alone and len(steps) == 1 and not zero and not settings.cells:
            made = cell(steps[0], building.axes)
            building.function = made.function
            return made.value
        found, cells = list[Expr](), list[Expr]()
        for step in steps:
            made = cell(step, step.axes("state"))
            found.append(step.state("state", made.value, made.function, made.parameters))
            cells += [made.cell] if ends and settings.cells and made.cell is not None else []
        axes = building.axes
        if not ends:
            axes = building.inner(f"both_l{layer}", (axes[0], Axis("units", settings.width)))
        whole = side_by_side([*found, *cells], axes, len(axes) - 1)
        if ends:
            # What is carried on over steps that are left out is no output of theirs.
            return einsum([(whole, axes), *steps[0].reads(axes[0])], axes) if zero else whole
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
    source: Expr

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

    def moved(self, before: _Before, axes: tuple[Axis, ...]) -> tuple[Expr, LayerParameters]:
        """W h + β of the step before, over some axes."""
        owned = self.building.parameters(self.each.part("hh"))
        (step, out), read = axes, before.state.axes[1].primed
        terms = [einsum([(owned.weight, (out, read)), *before.at((step, read))], axes)]
        if owned.bias is not None:
            terms.append(einsum([(owned.bias, (out,))], axes))
        return total(terms, axes), owned

    @property
    def begins(self) -> bool:
        """Whether the layer is given what is before the first step."""
        return self.building.layer.begins > 0

    def before(self, state: Input, number: int = 0) -> _Before:
        """A state at the step before; before the first one what the layer begins with, or zero.

        Args:
            state: that is read; it is made after what comes before the first step has got a state of its own.
            number: of the state, among those that the layer begins with.
        """
        count = state.axes[0].entries
        shift = Affine((count, count), (1, -1), 1 if self.each.backwards else -1)
        found = _Before(state, shift)
        if not self.begins:
            return found
        name = f"before{number or ''}"
        axes = self.axes(name)
        begun = [_one(axes[0], count - 1 if self.each.backwards else 0), *self._begun(number, axes[1])]
        return _Before(self.state(name, total([einsum(found.at(axes), axes), einsum(begun, axes)], axes)))

    def _begun(self, number: int, unit: Axis) -> list[Operand]:
        """What the pass begins with: an input of the layer, or its row."""
        source = self.building.sources[1 + number]
        if len(source.axes) == 1:
            return [(source, (unit,))]
        row = source.axes[0].primed
        return [_one(row, list(self.settings.passes).index(self.each)), (source, (row, unit))]

    def reads(self, step: Axis, otherwise: bool = False) -> list[Operand]:
        """1 where the mask lets a step be read, else 0, or the other way round; nothing without a mask."""
        if not self.settings.masked:
            return []
        return [(apply(LEFT if otherwise else READ, self.building.sources[-1]), (step,))]

    def kept(self, made: list[_Term], before: _Before, axes: tuple[Axis, ...]) -> Expr:
        """A sum of products with their signs, or, where the mask leaves a step out, the state before it."""
        mask = self.reads(axes[0])
        terms = [(Fraction(sign), einsum([*mask, *product], axes)) for sign, product in made]
        if mask:
            left = self.reads(axes[0], otherwise=True)
            terms.append((Fraction(1), einsum([*left, *before.at(axes)], axes)))
        return add(terms, axes)


@dataclass(frozen=True)
class _Before:
    """A state at the step before.

    Args:
        state: the state, or one that has what is before each step.
        shift: by a step, where it is the state itself.
    """

    state: Input
    shift: Affine | None = None

    def at(self, labels: tuple[Axis, ...]) -> list[Operand]:
        """As factors, over labels of the steps and of the units."""
        if self.shift is None:
            return [(self.state, labels)]
        (step, unit), read = labels, self.state.axes[0].primed
        return [(self.shift, (read, step)), (self.state, (read, unit))]


def _one(axis: Axis, position: int) -> Operand:
    """1 at one position of an axis, else 0."""
    return Affine((axis.entries, 1), (1, -1), position), (axis, Axis("first", 1))


def _part(state: Input, number: int, axes: tuple[Axis, ...]) -> list[Operand]:
    """One of the vectors of units that a state has at each step, or several from one on."""
    (step, unit), (_, read) = axes, state.axes
    taken = Affine((read.entries, unit.entries), (1, -1), number)
    return [(taken, (read, unit)), (state, (step, read))]


def _rnn(step: _Step, axes: tuple[Axis, ...]) -> _Made:
    """F(U x_t + W h_{t−1} + β)."""
    inputs, function = step.inputs(1), step.settings.function
    assert function is not None
    masked = bool(step.settings.masked)
    state = step.building.ahead(step.begins + masked, axes)
    before = step.before(state)
    own = step.axes("fresh") if masked else axes
    moved, owned = step.moved(before, own)
    found = scalar_from_tree(function.expression, ("x",), function.parameters, function.name)
    bent = None if function.name == "identity" else found
    value = total([rename(inputs, own), moved], own)
    if masked:
        fresh = step.state("fresh", value, bent, owned)
        assert step.building.ahead(0, axes) is state
        return _Made(step.kept([(1, [(fresh, axes)])], before, axes))
    assert step.building.ahead(0, axes) is state
    return _Made(value, bent, owned)


def _lstm(step: _Step, axes: tuple[Axis, ...]) -> _Made:
    """o_t tanh(c_t), c_t = f_t c_{t−1} + i_t g_t."""
    n = step.settings.units
    inputs, state = step.inputs(4), step.building.ahead(6 + 2 * step.begins, axes)
    before = step.before(state)
    wide = step.axes("gates", 4)
    moved, owned = step.moved(before, wide)
    gates = step.state("gates", total([rename(inputs, wide), moved], wide), parameters=owned)
    two = step.axes("open", 2)
    opened = step.state("open", einsum(_part(gates, 0, two), two), _SIGMOID)
    fresh = step.state("fresh", einsum(_part(gates, 2 * n, axes), axes), _TANH)
    shown = step.state("shown", einsum(_part(gates, 3 * n, axes), axes), _SIGMOID)
    own = step.axes("cell")
    held = step.before(step.building.ahead(int(step.begins), own), 1)
    made = [(1, [*_part(opened, n, own), *held.at(own)]), (1, [*_part(opened, 0, own), (fresh, own)])]
    cell = step.state("cell", step.kept(made, held, own))
    bent = step.state("bent", rename(cell, axes), _TANH)
    assert step.building.ahead(0, axes) is state
    return _Made(step.kept([(1, [(shown, axes), (bent, axes)])], before, axes), cell=cell)


def _gru(step: _Step, axes: tuple[Axis, ...]) -> _Made:
    """(1 − z_t) n_t + z_t h_{t−1}."""
    n = step.settings.units
    inputs, state = step.inputs(3), step.building.ahead(3 + step.begins, axes)
    before = step.before(state)
    wide, two = step.axes("moved", 3), step.axes("open", 2)
    value, owned = step.moved(before, wide)
    moved = step.state("moved", value, parameters=owned)
    both = [einsum(_part(each, 0, two), two) for each in (inputs, moved)]
    opened = step.state("open", total(both, two), _SIGMOID)
    reset = einsum([*_part(opened, 0, axes), *_part(moved, 2 * n, axes)], axes)
    fresh = step.state("fresh", total([einsum(_part(inputs, 2 * n, axes), axes), reset], axes), _TANH)
    assert step.building.ahead(0, axes) is state
    update = _part(opened, n, axes)
    made: list[_Term] = [
        (1, [(fresh, axes)]),
        (-1, [*update, (fresh, axes)]),
        (1, [*update, *before.at(axes)]),
    ]
    return _Made(step.kept(made, before, axes))


_CELLS: Mapping[LayerKind, Callable[[_Step, tuple[Axis, ...]], _Made]] = MappingProxyType(
    {"rnn": _rnn, "lstm": _lstm, "gru": _gru}
)
