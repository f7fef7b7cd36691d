"""Level 1 for curvature blocks: identities with the derivatives that they stand for.

A block is −dq_k / da_k, q_k the adjoint of the pre-activation. The identities move the states along
directions, forward, and compare with the recursion, which multiplies matrices from the output back:

    −dq_k = H_k δ + Σ_j E_kj dx_j        δ = da_k; x_j earlier states that other layers read too

where the layers after k move as far as they depend on a_k and the x_j, and their own −dq_m is
H_m da_m + Σ E_mj dx_j by the same identity. That later blocks are symmetric is put in as H = P + Pᵀ, and
proved of each block from those after it. The products with (N, η) are compared with the
Hessian–vector product along one layer's direction alone.
"""

from __future__ import annotations

from collections.abc import Iterator

from sifrc.calculus import jvp
from sifrc.derive.curvature.kinds import KINDS
from sifrc.derive.curvature.parameters import owner_of
from sifrc.derive.curvature.recursion import recursion
from sifrc.derive.curvature.systems import BLOCK
from sifrc.derive.curvature.traces import PARTS, parts_system
from sifrc.derive.derived import Derived
from sifrc.derive.lagrangian import FirstOrder
from sifrc.derive.shaped import BLOCK_PRODUCT, DIAGONAL, DIRECTION, HESSIAN_PRODUCT
from sifrc.derive.system import System
from sifrc.ir import Expr, Input, Role, primed
from sifrc.ir.build import apply, einsum, hadamard, negative, rename, subtract, total, zero
from sifrc.ir.traverse import substitute
from sifrc.model import Constraint
from sifrc.verify.symbolic.identities import Identity

__all__ = [
    "diagonal_identities",
    "output_identities",
    "product_identities",
    "recursion_identities",
    "trace_identities",
]

_NEAR = 4
"""Layers between a product and the output, up to which it is compared with the Hessian's."""


def recursion_identities(derived: Derived) -> Iterator[Identity]:
    """H_k and E_kj of the exact recursion are the derivatives of the back-propagated adjoints."""
    first = derived.first
    system = derived.curvature.blocks(KINDS["hessian"])
    symmetric = _symmetric(system)
    mixed = _mixed(system, symmetric)
    for c in derived.model.constraints:
        block = next(s for s in system.symbols if (s.family, s.index) == (BLOCK, c.index))
        value = substitute(substitute(system[block], mixed), symmetric)
        table = {**mixed, **symmetric, block: value}
        residual = substitute(_residual(first, system, c), table)
        yield Identity(f"H[{c.index}] = −dy/da[{c.index}]", residual)
        left, right = (Input(family, None, c.axes, Role.TANGENT) for family in ("δ", "ε"))
        forms = [
            einsum([(value, value.axes), (u, c.axes), (v, value.axes[len(c.axes) :])], ())
            for u, v in ((left, right), (right, left))
        ]
        yield Identity(f"H[{c.index}] is symmetric", subtract(*forms))


def _symmetric(system: System) -> dict[Input, Expr]:
    """Every block as P + Pᵀ."""
    table: dict[Input, Expr] = {}
    for symbol in system.symbols:
        if symbol.family == BLOCK:
            part = Input("P", symbol.index, symbol.slots, symbol.role)
            half = len(symbol.axes) // 2
            turned = einsum([(part, (*symbol.axes[half:], *symbol.axes[:half]))], symbol.axes)
            table[symbol] = total([part, turned], symbol.axes)
    return table


def _mixed(system: System, blocks: dict[Input, Expr]) -> dict[Input, Expr]:
    """Every E_kj in terms of blocks."""
    table: dict[Input, Expr] = {}
    for equation in system.equations:
        if equation.symbol.family != BLOCK:
            table[equation.symbol] = substitute(substitute(equation.value, table), blocks)
    return table


def _residual(first: FirstOrder, system: System, c: Constraint) -> Expr:
    """−dq_k from the layers after k, minus what the recursion gives."""
    model = first.model
    shift = Input("δ", None, c.axes, Role.TANGENT)
    # Earlier states move freely, later ones as they must.
    free: dict[Input, Expr] = {
        other.state: Input("ẋ", other.index, other.axes, Role.TANGENT)
        for other in model.constraints[: c.index - 1]
    }
    moves = free | {c.state: shift if c.activation is None else _slope_times(c, shift)}
    adjoints: dict[Input, Expr] = {}
    for later in model.constraints[c.index :]:
        step = jvp(later.pre_activation, moves)
        if step is None:
            continue
        move = step if later.activation is None else _slope_times(later, step)
        adjoints[first.backpropagated(later.index)] = negative(_through(system, later, step, moves))
        moves[later.state] = move
    own = first.backpropagated(c.index)
    adjoint = first.adjoints[c.index]
    known = {**moves, **adjoints}
    moved = jvp(first.adjoint[adjoint], known) or zero(c.axes)
    if c.activation is not None:
        a = Input("a", c.index, c.axes, Role.STATE)
        moved = jvp(first.adjoint[own], {adjoint: moved, a: shift}) or zero(c.axes)
    return total([moved, _through(system, c, shift, free)], c.axes)


def _slope_times(c: Constraint, move: Expr) -> Expr:
    """F'(a_k) ∘ move, a_k the symbol that the first-order system defines."""
    assert c.activation is not None
    a = Input("a", c.index, c.axes, Role.STATE)
    return hadamard(apply(c.activation, a, orders=(1,)), move)


def _through(system: System, c: Constraint, step: Expr, moves: dict[Input, Expr]) -> Expr:
    """H_k da_k + Σ_j E_kj dx_j."""
    terms = []
    for symbol in system.symbols:
        if symbol.index != c.index:
            continue
        columns = symbol.axes[len(c.axes) :]
        if symbol.family == BLOCK:
            move: Expr | None = step
        else:
            # E_kj is called after k − j, whatever axes the states have: a number has none.
            earlier = c.index - int(symbol.family.removeprefix("E"))
            move = next((found for state, found in moves.items() if state.index == earlier), None)
        if move is not None:
            terms.append(einsum([(symbol, symbol.axes), (move, columns)], c.axes))
    return total(terms, c.axes)


def product_identities(derived: Derived) -> Iterator[Identity]:
    """Along a direction in one layer's weight or bias, H·v there is the block times the direction."""
    model, second = derived.model, derived.second
    blocks = derived.curvature.blocks(KINDS["hessian"])
    product = derived.curvature.product("samples", None)
    directions = [d for owned in model.parameters for _, d in DIRECTION.pairs(owned)]
    exact = _solved((blocks,))
    first = derived.first
    back = [first.backpropagated(c.index) for c in model.constraints if c.activation is not None]
    passed = {own: first.adjoint[own] for own in back}
    for owned in model.parameters:
        owner = owner_of(model, owned)
        if model.depth - owner.index > _NEAR:
            continue
        quantities = (DIRECTION, HESSIAN_PRODUCT, BLOCK_PRODUCT)
        results = zip(*(quantity.pairs(owned) for quantity in quantities), strict=True)
        for (_, own), (_, moved), (_, found) in results:
            still = {other: zero(other.axes) for other in directions if other is not own}
            tangents = _solved((second.tangent, second.adjoint_tangent), still)
            along = substitute(substitute(second.product[moved], still), tangents)
            value = substitute(substitute(product[found], still), exact)
            # Products of numbers are written out in one, and have a name in the other.
            residual = substitute(subtract(along, value), passed)
            yield Identity(f"{found.name} = {moved.name} along {own.name}", residual)


def _solved(systems: tuple[System, ...], given: dict[Input, Expr] | None = None) -> dict[Input, Expr]:
    """Every symbol of the systems in terms of what they start from."""
    table: dict[Input, Expr] = dict(given or {})
    for system in systems:
        for equation in system.equations:
            table[equation.symbol] = substitute(equation.value, table)
    return table


def diagonal_identities(derived: Derived) -> Iterator[Identity]:
    """The diagonals are those of the blocks of the weights and of the pre-activations."""
    curvature = derived.curvature
    diagonal, dense = curvature.diagonal("samples"), curvature.dense("samples")
    entries = _solved((diagonal,))
    for _, blocks in reversed([*curvature.parameters("samples")]):
        for block in blocks:
            own, parameter = block.own, block.parameter
            whole, labels = curvature.symbol(block, mean=True), (*own, *own)
            value: Expr = whole if block.of_pre_activation else dense[whole]
            if block.of_pre_activation:
                # That of the pre-activation itself, all pairs of its places added up.
                c = block.c
                value = Input(BLOCK, c.index, (*c.axes, *primed(c.axes)), Role.STATE)
                table = {c.row: own[0], c.row.primed: own[0]}
                labels = tuple(table.get(axis, axis) for axis in value.axes)
            found = entries[DIAGONAL.of(parameter)]
            expected = einsum([(value, labels)], own)
            yield Identity(
                f"diagonal of {parameter.symbol.name}", subtract(rename(expected, found.axes), found)
            )


def output_identities(derived: Derived) -> Iterator[Identity]:
    """J_kᵀ M J_k of the Gauss–Newton matrix is what the recursion gives; then the diagonals of blocks."""
    kind, model = KINDS["ggn"], derived.model
    convex = derived.curvature.convexity == "convex"
    blocks = _solved((System("recursion", "", recursion(derived.first, kind, convex).equations),))
    found = _solved((derived.curvature.blocks(kind), derived.curvature.sample_blocks("outputs")))
    for c in reversed(model.constraints):
        if model.depth - c.index <= _NEAR:
            symbol = Input(BLOCK, c.index, (*c.axes, *primed(c.axes)), Role.STATE)
            yield Identity(f"H[{c.index}] = JᵀMJ", subtract(blocks[symbol], found[symbol]))
    yield from diagonal_identities(derived)


def trace_identities(derived: Derived) -> Iterator[Identity]:
    """The trace of the block of a parameter is the sum of its diagonal."""
    entries = _solved((derived.curvature.diagonal("samples"),))
    traces = _solved((parts_system(derived.curvature, "samples"),))
    for owned in derived.model.parameters:
        for (_, diagonal), (_, trace) in zip(DIAGONAL.pairs(owned), PARTS.pairs(owned), strict=True):
            number = Input(trace.family, trace.index, (), trace.role)
            whole = einsum([(entries[diagonal], diagonal.axes)], ())
            yield Identity(f"{number.name} = Σ {diagonal.name}", subtract(whole, traces[number]))
