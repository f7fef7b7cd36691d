"""Traces of a curvature: sums over its diagonal, without the diagonal of any weight.

The block of a weight is H ⊗ x xᵀ for one sample, whose trace is tr(H) ‖x‖²; that of one which acts at several
places is Σ_ss' ⟨x_s, x_s'⟩ Σ_i H_(si)(s'i).
"""

from __future__ import annotations

from collections.abc import Sequence

from sifrc.derive.curvature.kinds import Form
from sifrc.derive.curvature.systems import Curvature
from sifrc.derive.shaped import shaped
from sifrc.derive.system import Equation, System
from sifrc.ir import Expr, Input, Role
from sifrc.ir.build import einsum, total
from sifrc.model import Model, Parameter

__all__ = ["PARTS", "TRACE", "parts_system", "sums_system"]

PARTS = shaped("trace", "trW", "trβ")
"""Traces of the blocks of single parameters."""
TRACE = "tr"
"""Family of sums of these, numbered from 1."""


def _of(parameter: Parameter) -> Input:
    part = PARTS.of(parameter)
    return Input(part.family, part.index, (), part.role)


def parts_system(curvature: Curvature, form: Form) -> System:
    """The trace of the block of every parameter.

    Args:
        curvature: of the model.
        form: of the kind; from ``batch`` the trace of a weight's block is a product of means.
    """
    factors, equations = [], []
    role, mark = (Role.DIRECTION, "̄") if form == "batch" else (Role.STATE, "")
    for layer, blocks in curvature.parameters("samples"):
        c = blocks[0].c
        symbol, size = Input(f"τ{mark}", c.index, (), role), Input(f"ξ{mark}", layer.index, (), role)
        if any(block.separates or block.of_pre_activation for block in blocks):
            trace = Equation(symbol, einsum(curvature.on_diagonal(c, form), ()), c.index, "definition")
            factors += [trace] if trace not in factors else []
        for block in blocks:
            value: Expr = symbol
            if block.separates:
                columns = block.own_columns
                squares = einsum([(block.second_moment, (*columns, *columns))], ())
                factors.append(Equation(size, squares, layer.index, "definition"))
                value = einsum([(symbol, ()), (size, ())], ())
            elif not block.of_pre_activation:
                value = einsum(curvature.of_samples(block, form).diagonal, ())
            equations.append(Equation(_of(block.parameter), value, layer.index, "EA-CG(4c)"))
    return System(f"traces_of_{form}", "Traces of the blocks", (*factors, *equations))


def sums_system(model: Model, name: str, sums: Sequence[Sequence[str]]) -> System:
    """Sums of the traces of some parameters.

    Args:
        model: the model.
        name: of the system.
        sums: names of parameters, for each of the results.
    """
    parts = {parameter.name: _of(parameter) for owned in model.parameters for parameter in owned.members}
    return System(
        name,
        "Trace of the curvature",
        tuple(
            Equation(
                Input(TRACE, k, (), Role.DIRECTION), total([parts[n] for n in names], ()), None, "definition"
            )
            for k, names in enumerate(sums, 1)
        ),
    )
