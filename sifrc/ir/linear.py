"""Linear equations whose operator is an expression, not an array."""

from __future__ import annotations

from dataclasses import dataclass

from sifrc.ir.axes import Axis
from sifrc.ir.nodes import AxisError, Expr, Input, Role

__all__ = ["LinearSolve", "report_symbols"]


@dataclass(frozen=True, eq=False)
class LinearSolve(Expr):
    """One unknown of a system of linear equations A u = r with a symmetric operator.

    The unknowns u_1, … may be of any shape; A is given by what it does: ``products`` are linear in the
    ``probes``, which stand for the unknowns and are bound to this node. All unknowns of one system are
    found together, so that nodes that differ in ``component`` alone cost one solution.

    Args:
        probes: one symbol for each unknown.
        products: A applied to the probes, with the axes of the probes.
        rhs: right sides, with the axes of the probes.
        component: which unknown this is.
        method: ``cg`` (from zero, positive semi-definite A) or ``eigen`` (by eigenvalues; for one
            unknown and an operator that is a number plus a product of matrices on its axes).
        limit: largest number of iterations, for ``cg``.
        tolerance: of the residual relative to the right side, for ``cg``.
    """

    probes: tuple[Input, ...]
    products: tuple[Expr, ...]
    rhs: tuple[Expr, ...]
    component: int = 0
    method: str = "cg"
    limit: Input | None = None
    tolerance: Input | None = None

    def __post_init__(self) -> None:
        numbers = (self.limit is not None, self.tolerance is not None)
        if self.method not in ("cg", "eigen") or numbers != (self.method == "cg",) * 2:
            raise AxisError(
                f"no linear solution by {self.method!r} with {self.limit!r} and {self.tolerance!r}"
            )
        if not 0 <= self.component < len(self.probes):
            raise AxisError(f"a system of {len(self.probes)} unknowns has no component {self.component}")
        for probe, product, rhs in zip(self.probes, self.products, self.rhs, strict=True):
            if product.axes != probe.axes or rhs.axes != probe.axes:
                raise AxisError(f"a product or a right side is not over the axes of {probe.name}")
        self._seal()

    @property
    def axes(self) -> tuple[Axis, ...]:
        return self.probes[self.component].axes

    def children(self) -> tuple[Expr, ...]:
        numbers = (number for number in (self.limit, self.tolerance) if number is not None)
        return (*self.products, *self.rhs, *numbers)


def report_symbols(symbol: Input) -> tuple[Input, Input]:
    """Numbers that come with a solution: iterations made, and the relative residual.

    Args:
        symbol: what an equation defines as a solution by conjugate gradients.
    """
    return tuple(  # type: ignore[return-value]
        Input(f"{symbol.family}{mark}", symbol.index, (), Role.DIRECTION) for mark in ("#", "≈")
    )
