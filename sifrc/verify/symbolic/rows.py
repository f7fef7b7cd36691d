"""Level 1 of the ladder: proofs by the normal form, and agreement with SymPy."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

import mpmath
import numpy as np

from sifrc.derive.derived import Derived
from sifrc.errors import VerificationError
from sifrc.ir import Expr, Input, Reduce, Role
from sifrc.ir.arithmetic import MPMATH, Array
from sifrc.ir.build import zero
from sifrc.ir.evaluate import evaluate
from sifrc.ir.normal import reduce
from sifrc.ir.traverse import inputs_of, postorder
from sifrc.model import Model, build_model
from sifrc.spec.types import Spec
from sifrc.verify.capped import capped
from sifrc.verify.comparison import Agreement
from sifrc.verify.points import random_point
from sifrc.verify.precise.systems import SampleSystems
from sifrc.verify.records import Looked
from sifrc.verify.symbolic.curvature import (
    diagonal_identities,
    output_identities,
    product_identities,
    recursion_identities,
    trace_identities,
)
from sifrc.verify.symbolic.expansion import Expansion
from sifrc.verify.symbolic.identities import (
    Identity,
    first_order_identities,
    gauss_newton_identities,
    sample_identities,
    second_order_identities,
)
from sifrc.verify.symbolic.summaries import summary_identities
from sifrc.verify.table import Row

__all__ = ["SYMBOLIC", "symbolic_rows"]

_LARGEST_EXPANSION = 3
_DEEPEST_BLOCKS = 4
_NORMAL_FORM = "normal form"


_IDENTITIES: Mapping[str, Callable[[Derived], Iterable[Identity]]] = MappingProxyType(
    {
        "gradient": first_order_identities,
        "hessian_vector_product": second_order_identities,
        "gauss_newton_vector_product": gauss_newton_identities,
        "block_hessian": recursion_identities,
        "block_vector_product": product_identities,
        "hessian_diagonal": diagonal_identities,
        "diagonal": output_identities,
        "trace": trace_identities,
        "per_sample_gradients": sample_identities,
        "summary": summary_identities,
    }
)
"""Operator -> identities of what it is made of."""
_EXPANDED: Mapping[str, tuple[Callable[[Expansion], bool], int]] = MappingProxyType(
    {
        "gradient": (Expansion.gradient, _LARGEST_EXPANSION),
        "hessian_vector_product": (Expansion.hessian_vector_product, _LARGEST_EXPANSION),
        "block_hessian": (Expansion.block_hessian, _DEEPEST_BLOCKS),
    }
)
"""Operator -> comparison with SymPy, and for how many layers at most."""
SYMBOLIC = (*_IDENTITIES, "newton_direction")
"""What level 1 checks."""


def symbolic_rows(
    spec: Spec, looked: Looked, digits: int, seed: int
) -> Iterator[tuple[str, str, Callable[[], Row | None]]]:
    """The checks of level 1 as (quantity, oracle, check); a check of nothing returns None."""
    derived = Derived(_small(spec))
    for name in (record.name for record in looked.records):
        if name in _IDENTITIES:
            maker = _IDENTITIES[name]
            yield (
                name,
                _NORMAL_FORM,
                lambda q=name, m=maker: _identities(q, m(derived), derived, digits, seed),  # type: ignore[misc]
            )
        if name == "newton_direction":
            yield name, _NORMAL_FORM, lambda: _newton(derived, digits, seed)
        if name in _EXPANDED:
            check, deepest = _EXPANDED[name]
            yield name, "SymPy", lambda q=name, c=check, n=deepest: _expanded(spec, q, c, n)  # type: ignore[misc]


def _small(spec: Spec) -> Model:
    """A model with short axes; shorter ones where states are put into each other once for each step."""
    model = build_model(capped(spec, 4))
    recurrent = any(index >= c.index for c in model.constraints for index in c.sources)
    return build_model(capped(spec, 2)) if recurrent else model


def _identities(
    quantity: str, identities: Iterable[Identity], derived: Derived, digits: int, seed: int
) -> Row:
    return _decide(quantity, list(identities), digits, lambda symbols: _random_values(symbols, seed), ())


def _newton(derived: Derived, digits: int, seed: int) -> Row:
    """The tetrad with the solution put in; its residuals vanish on states and adjoints of a sample."""
    newton = derived.newton
    identities = [Identity(label, residual) for label, residual in newton.residuals.items()]
    expected = 2 * len(derived.model.parameters) + 2 * derived.model.depth
    if len(identities) != expected:
        raise VerificationError(f"{len(identities)} equations were tested, the tetrad has {expected}")
    assumed = tuple(c.text for c in newton.conditions if c.status != "proved")

    def on_sample(symbols: Iterable[Input]) -> dict[Input, Array]:
        point = random_point(derived.model.spec, seed)
        env = SampleSystems(derived, point.params, *point.sample(), MPMATH).env
        return {symbol: env[symbol] for symbol in symbols}

    return _decide("newton_direction", identities, digits, on_sample, assumed)


def _decide(
    quantity: str,
    identities: list[Identity],
    digits: int,
    values: Callable[[Iterable[Input]], dict[Input, Array]],
    assumed: tuple[str, ...],
) -> Row:
    """Prove every identity; what the normal form leaves open is tested at a random point."""
    if not identities:
        raise VerificationError("there is no identity to prove")
    undecided = [identity for identity in identities if not _proved(identity.residual)]
    note = f"{len(identities)} identities reduce to zero"
    if assumed:
        note += "; assumes at run time: " + ", ".join(assumed)
    if not undecided:
        return Row(quantity, 1, _NORMAL_FORM, None, None, True, note)
    worst = min(_digits(identity, digits, values) for identity in undecided)
    names = ", ".join(identity.label for identity in undecided[:3]) + (", …" if len(undecided) > 3 else "")
    note = f"{len(undecided)} of {len(identities)} not decided by the normal form ({names})"
    note += "; tested at a random point"
    passed = worst >= digits - 10
    return Row(quantity, 1, f"{digits} digits", worst, digits - 10.0, passed, note)


def _proved(residual: Expr) -> bool:
    return reduce(residual, ()) is zero(residual.axes)


def _digits(
    identity: Identity, digits: int, values: Callable[[Iterable[Input]], dict[Input, Array]]
) -> float:
    """Digits by which a residual vanishes, its inputs being of order one."""
    with mpmath.workdps(digits):
        env = values(inputs_of(identity.residual))
        largest = _size(identity, env)
        if not mpmath.isfinite(largest):
            # Functions of norms are of positive numbers.
            largest = _size(identity, {symbol: np.abs(value) for symbol, value in env.items()})
        if not mpmath.isfinite(largest):
            return Agreement(float("-inf"), f"{identity.label}: not finite, expected 0")
        agreed = float(min(digits, -mpmath.log10(largest))) if largest else float(digits)
        return Agreement(agreed, f"{identity.label}: {mpmath.nstr(largest, 6)}, expected 0")


def _size(identity: Identity, env: Mapping[Input, Array]) -> Any:
    """The largest entry of a residual."""
    value = evaluate({"residual": identity.residual}, env, MPMATH)["residual"]
    return max((abs(entry) for entry in value.ravel()), default=mpmath.mpf(0))


def _random_values(symbols: Iterable[Input], seed: int) -> dict[Input, Array]:
    generator = np.random.default_rng(seed)
    values: dict[Input, Array] = {}
    for symbol in symbols:
        sizes = [axis.size or 1 for axis in symbol.axes]
        drawn = generator.normal(size=sizes)
        if symbol.role is Role.CLASS:
            drawn = np.eye(sizes[-1])[generator.integers(sizes[-1], size=sizes[:-1] or None)]
        values[symbol] = MPMATH.array(drawn)
    return values


def _expanded(spec: Spec, quantity: str, check: Callable[[Expansion], bool], deepest: int) -> Row | None:
    """Agreement with SymPy on the network with two units a layer; None where it is too deep."""
    model = build_model(capped(spec, 2))
    if any(isinstance(node, Reduce) for node in postorder(*(c.value for c in model.constraints))):
        return Row(quantity, 1, "SymPy", None, None, None, "a maximum has no expansion to scalars")
    if model.depth > deepest or spec.regularization.kind == "spectral":
        return None
    if not check(Expansion(Derived(model))):
        raise VerificationError("differs from SymPy's derivative of the expanded objective")
    note = "expanded with at most 2 units a layer; exact rational arithmetic at random values"
    return Row(quantity, 1, "SymPy", None, None, True, note)
