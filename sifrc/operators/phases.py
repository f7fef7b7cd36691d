"""Every system that an operator can run, with what must have run before it: one table, in order."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

from sifrc.derive.curvature.systems import SCORES
from sifrc.derive.shaped import DIRECTION, NEWTON_DIRECTION
from sifrc.derive.system import System
from sifrc.ir import Input
from sifrc.operators.context import Context
from sifrc.operators.phase import Phase

__all__ = ["phases_of"]

FORMS = ("batched", "single")


@dataclass(frozen=True)
class _Row:
    """A system that is derived when it is wanted."""

    name: str
    derive: Callable[[], System]
    after: tuple[str, ...] = ()


def phases_of(context: Context, wanted: Mapping[str, set[str]]) -> list[Phase]:
    """The wanted phases in an order in which they can run.

    Args:
        context: derivations and kinds.
        wanted: forms of each, by name.

    Raises:
        LookupError: something is wanted that no system has.
    """
    found = []
    every = {form for forms in wanted.values() for form in forms}
    for row in (*_table(context), *_summaries(context, wanted)):
        asked = every if row.name in context.spectral else wanted.get(row.name, ())
        forms = tuple(form for form in FORMS if form in asked)
        if forms:
            found.append(Phase(row.derive(), row.after, forms))
    missing = {name for name, asked in wanted.items() if asked} - {phase.name for phase in found}
    if missing:
        raise LookupError(f"no system is called {', '.join(sorted(missing))}")
    return found


def _table(context: Context) -> Iterator[_Row]:
    derived, spectral = context.derived, context.spectral
    base = ("forward", *spectral)
    yield _Row("forward", lambda: derived.first.forward)
    if derived.spectral is not None:
        system = derived.spectral.system
        yield _Row("spectral", lambda: system, ("forward",))
    yield _Row("objective", lambda: derived.first.objective, base)
    yield _Row("adjoint", lambda: derived.first.adjoint, base)
    after = (*base, "adjoint")
    yield _Row("gradient", lambda: derived.first.gradient, after)
    yield _Row("tangent", lambda: derived.second.tangent, after)
    yield _Row("adjoint_tangent", lambda: derived.second.adjoint_tangent, (*after, "tangent"))
    tangents = (*after, "tangent", "adjoint_tangent")
    yield _Row("hessian_product", lambda: derived.second.product, tangents)
    yield _Row("linearized", lambda: derived.gauss_newton.tangent, ("forward",))
    yield _Row("linearized_adjoint", lambda: derived.gauss_newton.adjoint, ("forward", "linearized"))
    linearized = ("forward", "linearized", "linearized_adjoint")
    yield _Row("gauss_newton_product", lambda: derived.gauss_newton.product, linearized)
    yield _Row("newton", lambda: _as_result(derived.exact_newton.system()), after)
    yield from _curvature(context)


def _curvature(context: Context) -> Iterator[_Row]:
    """Blocks of each kind, and what is made of the blocks of a form."""
    for _, system in context.systems:
        yield _Row(system.name, lambda s=system: s, context.before(system))  # type: ignore[misc]
    curvature = context.derived.curvature
    rows: list[tuple[str, Callable[[], System]]] = [
        ("mean_blocks", curvature.mean_blocks),
        ("second_moments", lambda: curvature.moments("second")),
        ("mean_moments", lambda: curvature.moments("mean")),
        *((f"sample_blocks_of_{form}", lambda f=form: curvature.sample_blocks(f)) for form in SCORES),
        ("dense_blocks_per_sample", lambda: curvature.dense("samples")),
        *((f"dense_blocks_of_{form}", lambda f=form: curvature.dense(f)) for form in SCORES),
        ("dense_blocks", lambda: curvature.dense("batch")),
        ("block_product", lambda: curvature.product("samples", None)),
        *((f"block_product_of_{form}", lambda f=form: curvature.product(f, None)) for form in SCORES),
        ("block_product_second", lambda: curvature.product("batch", "second")),
        ("block_product_mean", lambda: curvature.product("batch", "mean")),
        ("diagonal", curvature.diagonal),
    ]
    for name, derive in rows:
        yield _Row(name, derive, ("forward",))


def _summaries(context: Context, wanted: Mapping[str, set[str]]) -> Iterator[_Row]:
    """Summaries of each order, and of all of order 3, where some are wanted."""
    if not any(name.startswith("summary_") for name in wanted):
        return
    summaries, before = context.derived.summaries, ("forward", *context.spectral, "adjoint")
    systems = [(summaries.of_order(order), before) for order in (1, 2, 3)]
    ran = summaries.whole()
    for position, system in enumerate(ran):
        systems.append((system, (*before, *(earlier.name for earlier in ran[:position]))))
    for system, after in systems:
        yield _Row(system.name, lambda s=system: s, after)  # type: ignore[misc]


def _as_result(system: System) -> System:
    """Newton directions as results: apart from the vector (N, η) that a product is given."""
    results = dict(zip(DIRECTION.families, NEWTON_DIRECTION.families, strict=True))

    def result(symbol: Input) -> Input:
        return Input(results[symbol.family], symbol.index, symbol.slots, symbol.role)

    equations = tuple(replace(equation, symbol=result(equation.symbol)) for equation in system.equations)
    return replace(system, equations=equations)
