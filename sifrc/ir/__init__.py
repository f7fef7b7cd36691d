"""The expression language: hash-consed tensor expressions over named axes."""

from sifrc.ir.axes import SAMPLE, Axis, primed
from sifrc.ir.linear import LinearSolve
from sifrc.ir.nodes import (
    Add,
    AlongAxis,
    AxisError,
    Delta,
    Einsum,
    Expr,
    Input,
    Join,
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
    "AlongAxis",
    "Axis",
    "AxisError",
    "CubicNewton",
    "Delta",
    "Einsum",
    "Expr",
    "Input",
    "Join",
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
