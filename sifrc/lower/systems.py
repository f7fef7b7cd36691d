"""Statements that take whole matrices: solutions of systems, and functions by eigenvalues."""

from __future__ import annotations

from dataclasses import dataclass

from sifrc.lower.arrays import Load

__all__ = ["MatrixFunction", "SolveCubic", "SolveKronecker", "SolveSylvester", "SolveSystem"]


@dataclass(frozen=True)
class SolveSystem:
    """Least-norm solution of a symmetric system, (i, i') against (i,) or (i, j), maybe for every sample.

    Where ``checked``, refuse through ``guard`` a right side that is not in the range of the matrix;
    otherwise its part outside the range is dropped. A ``definite`` matrix has a Cholesky factor.
    """

    target: Load
    matrix: Load
    rhs: Load
    guard: int | None = None
    checked: bool = True
    definite: bool = False


@dataclass(frozen=True)
class SolveSylvester:
    """Least-norm X of left X + X right = rhs, symmetric positive semi-definite operands, in float64."""

    target: Load
    left: Load
    right: Load
    rhs: Load


@dataclass(frozen=True)
class SolveKronecker:
    """(shift + left ⊗ right) X = rhs for symmetric matrices, in the eigenbases of both, in float64.

    ``shift`` is a number. Where an eigenvalue of the operator is zero, the solution is not a number.
    """

    target: Load
    left: Load
    right: Load
    rhs: Load
    shift: Load


@dataclass(frozen=True)
class SolveCubic:
    """``target`` := η of least −⟨η, rhs⟩ + ½ ⟨η, matrix η⟩ + strength/6 ‖|third|^⅓ ∘ η‖³, in float64.

    ``matrix`` is symmetric, ``strength`` a number. Where there is no least value, ``unbounded`` is ``refuse``
    (entries of the groups without cubic term are not numbers) or ``absolute`` (their block of the matrix is
    replaced by its absolute value). What is not finite in an operand makes all entries not a number.
    """

    target: Load
    matrix: Load
    rhs: Load
    third: Load
    strength: Load
    unbounded: str


@dataclass(frozen=True)
class MatrixFunction:
    """``target`` := positive part or absolute value of a symmetric matrix, by its eigenvalues.

    ``definite`` is the matrix itself, and not a number where an eigenvalue is negative beyond rounding.
    """

    target: Load
    matrix: Load
    kind: str
