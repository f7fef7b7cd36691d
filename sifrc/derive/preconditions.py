"""What the closed-form Newton direction assumes, checked against the spec.

What the spec decides is decided here; what depends on the sample (whether F' or y_k vanishes there) is
returned as a condition that generated code checks at run time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from sifrc.derive.system import Condition
from sifrc.errors import DerivationError, Location
from sifrc.model import Model
from sifrc.scalar.analysis import slope_vanishing

__all__ = ["OTHER_PRODUCTS", "check_newton_preconditions"]

OTHER_PRODUCTS = "hessian_vector_product and gauss_newton_vector_product have no such condition"
"""A hint where there is no Newton direction."""


def check_newton_preconditions(model: Model) -> tuple[Condition, ...]:
    """Conditions of the exact stochastic Newton direction.

    Raises:
        DerivationError: the graph is no chain, a bias is missing, parameters are shared, or an
            activation is flat on an interval.
    """
    if model.penalties:
        raise DerivationError(
            "the Newton direction of a sample has no closed form with regularisation of the parameters",
            location=model.spec.regularization.location,
            hint="state regularisation, the option weight_decay of the method, or ea_cg or grouped_newton",
        )
    layers = {layer.name: layer for layer in model.spec.layers}
    users = Counter(c.parameters.index for c in model.constraints if c.parameters is not None)
    for c in model.constraints:
        location = layers[c.layers[0]].location
        _check_constraint(model, c.index, location, users)
    conditions: list[Condition] = []
    for c in model.constraints:
        if c.activation is not None:
            verdict = slope_vanishing(c.activation)
            if verdict == "interval":
                raise DerivationError(
                    f"the Newton direction needs F' ≠ 0, and '{c.activation.name}' of state '{c.name}' "
                    "is flat on an interval",
                    location=layers[c.layers[-1]].location,
                    hint="use a strictly monotone activation, e.g. leaky_relu, tanh, softplus, elu",
                )
            status = "proved" if verdict == "never" else "run time"
            conditions.append(Condition(f"F'(a[{c.index}]) has no zero entry", c.index, status))
        conditions.append(Condition(f"y[{c.index}] ≠ 0", c.index, "run time"))
    conditions.append(
        Condition("y[n] lies in the range of the output matrix", model.output.index, "run time")
    )
    return tuple(conditions)


def _check_constraint(model: Model, index: int, location: Location | None, users: Mapping[int, int]) -> None:
    c = model.constraints[index - 1]
    start = f"the Newton direction has a closed form on chains of dense layers; '{c.name}'"
    hint = OTHER_PRODUCTS
    if model.others:
        raise DerivationError(
            f"the Newton direction has a closed form on chains of dense layers, and the network has "
            f"{1 + len(model.others)} inputs",
            location=location,
            hint=hint,
        )
    if len(c.sources) != 1 or c.sources[0] != index - 1:
        names = [model.spec.input.name if s == 0 else model.constraints[s - 1].name for s in c.sources]
        raise DerivationError(
            f"{start} reads {', '.join(names)} (a skip connection)", location=location, hint=hint
        )
    if c.parameters is None:
        raise DerivationError(f"{start} has no weight and bias of its own", location=location, hint=hint)
    if c.places:
        raise DerivationError(f"{start} uses its weight at several places", location=location, hint=hint)
    if users[c.parameters.index] > 1:
        raise DerivationError(f"{start} shares its parameters", location=location, hint=hint)
    if c.parameters.bias is None:
        raise DerivationError(
            f"{start} has no bias", location=location, hint="leave out 'bias: false'; " + hint
        )
