"""The Lagrangian by constraints: what each state, and the parameters that it brings in, have of it."""

from __future__ import annotations

from collections.abc import Iterator

from sifrc.calculus import jvp, vjp
from sifrc.derive.lagrangian import FirstOrder
from sifrc.derive.shaped import DIRECTION
from sifrc.ir import Einsum, Expr, Input, Role
from sifrc.ir.build import einsum, inner, subtract, total
from sifrc.ir.traverse import inputs_of
from sifrc.model import Constraint, Model, Parameter
from sifrc.model.build import state_regularizer

__all__ = ["penalty_curvature", "terms_by_constraint"]


def terms_by_constraint(first: FirstOrder) -> Iterator[tuple[Constraint | None, Expr]]:
    """The terms of L of each constraint, with a_k and y_k in them; those of the loss last.

    Regularisation of a parameter is with the first constraint that reads it.
    """
    model = first.model
    factors = dict(model.regularized)
    penalized = {parameter.symbol for parameter, _, _ in model.penalties}
    for c in model.constraints:
        b, own = first.adjoints[c.index], first.backpropagated(c.index)
        forms = [inner(subtract(c.state, first.forward[c.state]), b)]
        if c.activation is not None:
            forms.append(inner(subtract(c.symbol("a", Role.STATE), c.pre_activation), own))
        if c.index in factors:
            forms.append(state_regularizer([(factors[c.index], c.state)]))
        read: set[Input] = penalized.intersection(inputs_of(c.pre_activation))
        penalized -= read
        yield c, total([*forms, model.penalty_of(read)], ())
    yield None, model.data_loss


def penalty_curvature(model: Model, parameter: Parameter) -> Expr | None:
    """The number that the regularisation of a parameter multiplies its directions by in Hessian products.

    Returns:
        None where the parameter has none.

    Raises:
        ValueError: its second derivatives are no multiple of the identity.
    """
    direction = DIRECTION.of(parameter)
    (slope,) = vjp(model.penalty, [parameter.symbol])
    product = jvp(slope, {parameter.symbol: direction})
    if product is None:
        return None
    operands = product.operands if isinstance(product, Einsum) else ()
    factors = [(factor, labels) for factor, labels in operands if factor is not direction]
    if len(factors) != len(operands) - 1 or any(labels for _, labels in factors):
        raise ValueError(f"regularisation of {parameter.name} is no multiple of its square")
    return einsum(factors, ())
