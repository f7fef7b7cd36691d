"""The expression language: hash-consed tensor expressions over named axes."""

from sifrc.ir.axes import SAMPLE, Axis, primed
from sifrc.ir.linear import LinearSolve
from sifrc.ir.nodes import (
    Add,
    Affine,
    AlongAxis,
    ArgMax,
    AxisError,
    Delta,
    Einsum,
    Expr,
    Input,
    LogSoftmax,
    LogSumExp,
    Map,
    Operand,
    Reduce,
    Role,
)
from sifrc.ir.solvers import CubicNewton, Solve, Spectral, Sylvester

__all__ = [
    "SAMPLE",
    "Add",
    "Affine",
    "AlongAxis",
    "ArgMax",
    "Axis",
    "AxisError",
    "CubicNewton",
    "Delta",
    "Einsum",
    "Expr",
    "Input",
    "LinearSolve",
    "LogSoftmax",
    "LogSumExp",
    "Map",
    "Operand",
    "Reduce",
    "Role",
    "Solve",
    "Spectral",
    "Sylvester",
    "primed",
]
