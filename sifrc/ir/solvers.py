"""Nodes that are solutions: of linear systems, of a cubic model, functions of eigenvalues."""

from __future__ import annotations

from dataclasses import dataclass

from sifrc.ir.axes import Axis
from sifrc.ir.nodes import AxisError, Compound, Expr, names

__all__ = ["CubicNewton", "Solve", "Spectral", "Sylvester"]


@dataclass(frozen=True, eq=False)
class Solve(Compound):
    """Solution u of ``matrix`` u = ``rhs``; the one of least norm where the matrix is singular.

    ``matrix`` is symmetric over (…, i, i'), ``rhs`` over (…, i) or (…, i, j) for several right sides,
    the result over (…, i') or (…, i', j), with the same leading axes. Condition, where ``checked``:
    the right sides lie in the range of the matrix; otherwise only their part in the range counts. A
    ``definite`` matrix is positive definite, and a Cholesky factor does; where it is not, the solution is
    not a number. The rows of a ``centred`` one are known to sum to zero, and the entries of the solution do:
    along (1, …, 1) the last bits of the matrix would decide what is found.
    """

    matrix: Expr
    rhs: Expr
    checked: bool = True
    definite: bool = False
    centred: bool = False

    def __post_init__(self) -> None:
        *batch, row, column = self.matrix.axes
        if self.rhs.axes[: len(batch) + 1] != (*batch, row) or not row.fits(column):
            raise AxisError(f"solve {names(self.matrix.axes)} against {names(self.rhs.axes)}")
        self._seal()

    @property
    def axes(self) -> tuple[Axis, ...]:
        *batch, _, column = self.matrix.axes
        return (*batch, column, *self.rhs.axes[len(batch) + 1 :])


@dataclass(frozen=True, eq=False)
class Spectral(Compound):
    """A function of a symmetric matrix, on its eigenvalues: ``positive`` part or ``absolute`` value.

    ``definite`` is the matrix itself, and not a number where an eigenvalue is negative beyond rounding.
    """

    matrix: Expr
    kind: str

    def __post_init__(self) -> None:
        if self.kind not in ("positive", "absolute", "definite"):
            raise AxisError(f"unknown spectral function {self.kind!r}")
        if len(self.matrix.axes) < 2 or not self.matrix.axes[-1].fits(self.matrix.axes[-2]):
            raise AxisError(f"spectral function of {names(self.matrix.axes)}")
        self._seal()

    @property
    def axes(self) -> tuple[Axis, ...]:
        return self.matrix.axes


@dataclass(frozen=True, eq=False)
class Sylvester(Compound):
    """Solution X of A X + X B = C of least norm, A (i, i') and B (j, j') symmetric positive semi-definite."""

    left: Expr
    right: Expr
    rhs: Expr

    def __post_init__(self) -> None:
        rows, columns = self.left.axes[0], self.right.axes[0]
        if self.rhs.axes != (rows, columns) or len(self.left.axes) != 2 or len(self.right.axes) != 2:
            raise AxisError(
                f"sylvester {names(self.left.axes)}, {names(self.right.axes)}, {names(self.rhs.axes)}"
            )
        self._seal()

    @property
    def axes(self) -> tuple[Axis, ...]:
        return self.rhs.axes


@dataclass(frozen=True, eq=False)
class CubicNewton(Compound):
    """The η of least −⟨η, g⟩ + ½ ⟨η, H η⟩ + λ/6 ‖D η‖³, D = diag(|D3|^⅓): GN3(10).

    ``matrix`` H is symmetric over (s, s'), ``rhs`` g and ``third`` D3 are over (s,), ``strength`` λ is a
    number that is not negative. Where groups without cubic term (D3_s or λ is zero) let the value fall
    without end, ``unbounded`` says what becomes of it: ``refuse``, those entries are not numbers;
    ``absolute``, the block of H over those groups is replaced by its absolute value.
    See :func:`sifrc.ir.cubic.cubic_newton` for the cases that are not unique.
    """

    matrix: Expr
    rhs: Expr
    third: Expr
    strength: Expr
    unbounded: str

    def __post_init__(self) -> None:
        if self.unbounded not in ("refuse", "absolute"):
            raise AxisError(f"unknown treatment of what is unbounded: {self.unbounded!r}")
        axes = self.matrix.axes
        fits = len(axes) == 2 and axes[0].fits(axes[1]) and not axes[0].is_sample
        if not fits or self.rhs.axes != axes[:1] or self.third.axes != axes[:1] or self.strength.axes:
            raise AxisError(f"cubic newton of {', '.join(names(part.axes) for part in self.children())}")
        self._seal()

    @property
    def axes(self) -> tuple[Axis, ...]:
        return self.rhs.axes
