"""The Newton direction of one sample in closed form, by recorded elimination in the Sifrian's tetrad.

On a chain whose layers have a weight and a bias of their own, and for one sample, the four equations

    (1) ∂S/∂W_k = −G_k    (2) ∂S/∂β_k = −g_k    (3) ∂S/∂x_k = 0    (4) ∂S/∂b_k = 0

are solved by the steps of :mod:`sifrc.derive.elimination`, layer by layer. What comes out is ESN(17)
for piecewise affine activations and its C² generalisation otherwise. It is accepted only if substituting
it into the tetrad leaves zero.

The white layer (ESN 2.2) is one more dense layer before the input, with the identity for a weight, that
is never updated: the equation it contributes fixes N_1, which the network alone leaves free.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from types import MappingProxyType

from sifrc.derive.elimination import (
    Stuck,
    contains,
    solve_common_factor,
    solve_linear,
    solve_minimum_norm,
    solve_outer,
    solve_unit,
)
from sifrc.derive.lagrangian import FirstOrder, derive_first_order
from sifrc.derive.preconditions import OTHER_PRODUCTS, check_newton_preconditions
from sifrc.derive.sifrian import SecondOrder, derive_second_order
from sifrc.derive.system import Condition, Equation, System, abbreviate
from sifrc.derive.white_layer import with_white_layer
from sifrc.errors import DerivationError
from sifrc.ir import Expr, Input, Role
from sifrc.ir.build import add, einsum, rename, subtract, total, zero
from sifrc.ir.normal import Relation, expand, reduce, relation, terms_of
from sifrc.ir.traverse import inputs_of, substitute
from sifrc.model import Constraint, LayerParameters

__all__ = ["Newton", "Step", "derive_newton"]


@dataclass(frozen=True)
class Step:
    """One recorded step of the elimination.

    Args:
        layer: k.
        action: ``subtract``, ``solve``, ``substitute`` or ``choose`` (a choice is not a deduction).
        equations: which equations it used, e.g. ``(1) − (2) ⊗ x``.
        result: what it gave, as text.
        condition: what it assumes, or ''.
    """

    layer: int
    action: str
    equations: str
    result: str
    condition: str = ""


@dataclass(frozen=True)
class Newton:
    """A Newton direction: H(N, η) = (G, g) for one sample.

    Args:
        second: the second-order derivation of the model.
        white_layer: whether the white layer fixed N_1.
        weights: index of a layer -> N_k, over the slots of W_k.
        biases: index of a layer -> η_k.
        granular: v, the part of η_n that does not come from the regularisation.
        output_equation: (matrix, rest) of the linear equation matrix·v + rest = 0; the matrix is −M or,
            where it is diagonal, its diagonal.
        weight_conditions: index -> r with r = 0: the equation that N_k solves, N_k a symbol.
        bias_conditions: index -> N_k x_{k−1} + η_k, which is zero without the granular part.
        steps: the elimination, in order.
        conditions: under which it holds.
        relations: that the substitution test used.
        residuals: label of a tetrad equation -> what substituting leaves; all zero.
    """

    second: SecondOrder
    white_layer: bool
    weights: Mapping[int, Expr]
    biases: Mapping[int, Expr]
    granular: Expr
    output_equation: tuple[Expr, Expr]
    weight_conditions: Mapping[int, Expr]
    bias_conditions: Mapping[int, Expr]
    steps: tuple[Step, ...]
    conditions: tuple[Condition, ...]
    relations: tuple[Relation, ...]
    residuals: Mapping[str, Expr]

    @property
    def proved(self) -> bool:
        """Whether every equation of the tetrad reduces to the zero expression."""
        return all(residual is zero(residual.axes) for residual in self.residuals.values())

    def system(self) -> System:
        """N_k and η_k as equations, with y_k and a_k abbreviated."""
        equations: list[Equation] = []
        symbols = self.second.directions
        for owned in self.second.first.model.parameters:
            values = (self.weights[owned.index], self.biases[owned.index])
            for symbol, value in zip(owned.symbols, values, strict=True):
                short = expand(abbreviate([value], self.second.first.names)[0])
                equations.append(Equation(symbols[symbol], short, owned.index, "ESN(17)"))
        return System("newton", "Newton direction of one sample", tuple(equations), self.conditions)


def derive_newton(second: SecondOrder, white_layer: bool = True) -> Newton:
    """Solve the tetrad of a chain for one sample.

    Args:
        second: the second-order derivation of the model.
        white_layer: let an identity layer before the input fix N_1; otherwise N_1 is free and zero.

    Raises:
        DerivationError: a precondition fails; the message names the layer.
    """
    model = second.first.model
    conditions = check_newton_preconditions(model)
    extended = derive_second_order(derive_first_order(with_white_layer(model))) if white_layer else second
    work = _Elimination(extended)
    try:
        work.run()
    except Stuck as error:
        raise DerivationError(
            f"the Newton direction has no closed form that the elimination finds: {error}",
            location=model.spec.loss.location,
            hint=OTHER_PRODUCTS,
        ) from None
    own = {p.index for p in model.parameters}
    values = work.values
    if white_layer:
        work.without_white_adjoint()
    return Newton(
        second=second,
        white_layer=white_layer,
        weights=MappingProxyType({k: v for k, v in work.weights.items() if k in own}),
        biases=MappingProxyType({k: v for k, v in work.biases.items() if k in own}),
        granular=work.granular,
        output_equation=work.output_equation,
        weight_conditions=MappingProxyType(work.weight_conditions),
        bias_conditions=MappingProxyType({k: v for k, v in work.bias_conditions.items() if k in own}),
        steps=tuple(work.steps),
        conditions=conditions,
        relations=tuple(work.relations),
        residuals=MappingProxyType(_substitute_back(second, values, work.relations)),
    )


class _Elimination:
    """State of one elimination: known values, relations and the record."""

    def __init__(self, second: SecondOrder) -> None:
        self.second = second
        self.first: FirstOrder = second.first
        self.model = second.first.model
        self.values: dict[Input, Expr] = {}
        self.relations: list[Relation] = []
        self.steps: list[Step] = []
        self.weights: dict[int, Expr] = {}
        self.biases: dict[int, Expr] = {}
        self.weight_conditions: dict[int, Expr] = {}
        self.bias_conditions: dict[int, Expr] = {}
        self.granular: Expr = zero()
        self.output_equation: tuple[Expr, Expr] = (zero(), zero())

    def run(self) -> None:
        chain = self.model.constraints
        for c in chain[1:]:
            self._tangent_vanishes(c)
        self._output(chain[-1])
        for c in chain[:-1]:
            self._hidden(c)
        for c in chain:
            self._adjoint_relation(c)
        for c, following in pairwise(chain):
            self._weight(c, following)
        self._first_weight(chain[0])
        for c in chain:
            self._bias(c)

    def without_white_adjoint(self) -> None:
        """Put in b_0 = W_1ᵀ y_1 − λ_0 x_0 where the reduction left it: the model has no such adjoint."""
        adjoint = self.first.adjoints[0]
        value = {adjoint: solve_unit(self.first.stationarity[0], adjoint)}
        for results in (self.weights, self.biases, self.weight_conditions, self.bias_conditions):
            results.update({k: substitute(found, value) for k, found in results.items()})

    def _equation(self, expr: Expr, right: Expr | None = None) -> Expr:
        moved = expr if right is None else total([expr, right], expr.axes)
        return expand(substitute(moved, self.values))

    def _parts(self, c: Constraint) -> tuple[LayerParameters, Input, Input, Input, Input]:
        """The layer's parameters and its unknowns N, η, γ, ζ."""
        assert c.parameters is not None and c.parameters.bias is not None
        directions = self.second.directions
        return (
            c.parameters,
            directions[c.parameters.weight],
            directions[c.parameters.bias],
            self.second.forward_multipliers[c.index],
            self.second.adjoint_multipliers[c.index],
        )

    def _bias_equation(self, c: Constraint) -> Expr:
        """(2): ∂S/∂β_k + g_k, over the axis of the layer."""
        owned, *_ = self._parts(c)
        assert owned.bias is not None
        both = self._equation(self.second.by_parameter[owned.bias], self.first.gradients[owned.bias])
        return rename(both, c.axes)

    def _tangent_vanishes(self, c: Constraint) -> None:
        """(1) − (2) ⊗ x_{k−1} leaves y_k ζ_{k−1}ᵀ: ζ_{k−1} = 0 where y_k ≠ 0."""
        owned, *_ = self._parts(c)
        assert owned.bias is not None
        previous = self.model.constraints[c.index - self.model.constraints[0].index - 1]
        zeta = self.second.adjoint_multipliers[previous.index]
        weight = self._equation(self.second.by_parameter[owned.weight], self.first.gradients[owned.weight])
        bias = self._equation(self.second.by_parameter[owned.bias], self.first.gradients[owned.bias])
        rows, columns = owned.weight.axes
        outer = einsum([(bias, (rows,)), (previous.state, (columns,))], (rows, columns))
        value, _ = solve_outer(subtract(weight, outer), zeta)
        self.values[zeta] = value
        k = c.index
        self.steps.append(
            Step(
                k,
                "subtract",
                "(1) − (2) ⊗ x_{k−1}",
                f"y[{k}] ⊗ ζ[{k - 1}] = 0, so ζ[{k - 1}] = 0",
                f"y[{k}] ≠ 0",
            )
        )

    def _output(self, c: Constraint) -> None:
        """The last layer: (4), (3), (2) give v = N_n x_{n−1} + η_n."""
        _, weight, bias, gamma, zeta = self._parts(c)
        k = c.index
        v = Input("v", k, bias.axes, Role.TANGENT)
        source = self._source(c)
        applied = einsum([(weight, weight.axes), (source, weight.axes[1:])], bias.axes)
        self.values[bias] = subtract(v, applied)
        self.steps.append(Step(k, "substitute", "", f"η[{k}] = v − N[{k}] x[{k - 1}]"))
        self.values[zeta] = solve_unit(self._equation(self.second.by_adjoint[k]), zeta)
        self.steps.append(Step(k, "solve", "(4)", f"ζ[{k}] in terms of v"))
        self.values[gamma] = solve_unit(self._equation(self.second.by_state[k]), gamma)
        self.steps.append(Step(k, "solve", "(3)", f"γ[{k}] = −∂²ℓ/∂x² ζ[{k}]"))
        equation = self._bias_equation(c)
        symbol = Input("v", k, c.axes, Role.TANGENT)
        equation = substitute_axes(equation, v, symbol)
        if symbol not in inputs_of(equation):
            raise DerivationError(
                "there is no Newton direction: the loss has no curvature in the output, ∂²ℓ/∂y² is zero "
                "wherever it exists",
                location=self.model.spec.loss.location,
                hint=OTHER_PRODUCTS,
            )
        value, matrix, rest, relations, divisors = solve_linear(equation, symbol, f"v[{k}]")
        self.relations.extend(relations)
        self.granular, self.output_equation = rename(value, v.axes), (matrix, rest)
        condition = "right side in the range of the matrix"
        if divisors:
            condition = f"F'(a[{k}]) has no zero entry"
        self.steps.append(Step(k, "solve", "(2)", "v, a linear system of the size of the output", condition))
        named = {v: rename(value, v.axes)}
        for unknown in (bias, zeta, gamma):
            self.values[unknown] = substitute(self.values[unknown], named)

    def _source(self, c: Constraint) -> Input:
        return self.model.input if c is self.model.constraints[0] else self._previous(c).state

    def _previous(self, c: Constraint) -> Constraint:
        return self.model.constraints[c.index - self.model.constraints[0].index - 1]

    def _hidden(self, c: Constraint) -> None:
        """(4) with ζ_k = 0 gives η_k = −N_k x_{k−1}; then (2) gives γ_k = −b_k."""
        _, _, bias, gamma, _ = self._parts(c)
        k = c.index
        symbol = Input(bias.family, bias.index, c.axes, bias.role)
        equation = substitute_axes(self._equation(self.second.by_adjoint[k]), bias, symbol)
        value, divisors = solve_common_factor(equation, symbol)
        self.values[bias] = rename(value, bias.axes)
        condition = f"F'(a[{k}]) has no zero entry" if divisors else ""
        self.steps.append(Step(k, "solve", "(4)", f"η[{k}] = −N[{k}] x[{k - 1}]", condition))
        self.values[gamma], divisors = solve_common_factor(self._bias_equation(c), gamma)
        condition = f"F'(a[{k}]) has no zero entry" if divisors else ""
        self.steps.append(Step(k, "solve", "(2)", f"γ[{k}] = −b[{k}]", condition))

    def _adjoint_relation(self, c: Constraint) -> None:
        """∂L/∂x_k = 0, read as a value of Wᵀ y_{k+1}."""
        if c is self.model.output:
            return
        equation = self.first.stationarity[c.index]
        following = self.model.constraints[c.index - self.model.constraints[0].index + 1]
        assert following.parameters is not None
        weight = following.parameters.weight
        lead = next(term for _, term in terms_of(expand(equation)) if contains(term, weight))
        self.relations.append(relation(f"adjoint[{c.index}]", equation, lead))

    def _weight(self, c: Constraint, following: Constraint) -> None:
        """(3) leaves N_{k+1}ᵀ y_{k+1} + ∂ℓ_R/∂x_k = 0; the least-norm N_{k+1} is chosen."""
        owned, weight, *_ = self._parts(following)
        k = c.index
        equation = reduce(self._equation(self.second.by_state[k]), self.relations)
        self.weight_conditions[owned.index] = equation
        value, _, known = solve_minimum_norm(equation, weight, f"norm[{k + 1}]")
        self.weights[owned.index] = value
        self.relations.append(known)
        self.steps.append(
            Step(
                k + 1,
                "choose",
                "(3)",
                f"N[{k + 1}] of least norm with N[{k + 1}]ᵀ y[{k + 1}] = −∂ℓ_R/∂x[{k}]",
                f"y[{k + 1}] ≠ 0",
            )
        )

    def _first_weight(self, c: Constraint) -> None:
        """No equation fixes the first N: zero is the one of least norm."""
        owned, weight, *_ = self._parts(c)
        self.weights[owned.index] = zero(weight.axes)
        self.steps.append(Step(c.index, "choose", "", f"N[{c.index}] = 0: no equation fixes it"))

    def _bias(self, c: Constraint) -> None:
        owned, weight, bias, *_ = self._parts(c)
        own = self.values[bias]
        if c is self.model.output:
            own = subtract(own, self.granular)
        self.bias_conditions[owned.index] = expand(subtract(bias, own))
        self.values[weight] = self.weights[owned.index]
        self.biases[owned.index] = substitute(self.values[bias], {weight: self.weights[owned.index]})
        self.values[bias] = self.biases[owned.index]


def substitute_axes(expr: Expr, symbol: Input, renamed: Input) -> Expr:
    """Use a symbol under another name for its slots."""
    return expand(substitute(expr, {symbol: rename(renamed, symbol.axes)}))


def _substitute_back(
    second: SecondOrder, values: Mapping[Input, Expr], relations: list[Relation]
) -> dict[str, Expr]:
    """The tetrad with the solution put in, reduced modulo the relations."""
    model, first = second.first.model, second.first
    residuals: dict[str, Expr] = {}

    def test(label: str, expr: Expr) -> None:
        residuals[label] = reduce(substitute(expr, values), relations)

    for owned in model.parameters:
        for number, symbol in enumerate(owned.symbols, 1):
            both = add(
                [(Fraction(1), second.by_parameter[symbol]), (Fraction(1), first.gradients[symbol])],
                symbol.axes,
            )
            test(f"({number}) k={owned.index}", both)
    for c in model.constraints:
        test(f"(3) k={c.index}", second.by_state[c.index])
        test(f"(4) k={c.index}", second.by_adjoint[c.index])
    return residuals
