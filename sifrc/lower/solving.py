"""Systems of linear equations as statements: conjugate gradients, eigenvalues."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sifrc.ir import Axis, Expr, Input, LinearSolve
from sifrc.ir.traverse import substitute
from sifrc.lower.arrays import Load
from sifrc.lower.statements import ConjugateGradients, Statement, Unknown

__all__ = ["Arrays", "conjugate_gradients"]


@dataclass(frozen=True)
class Arrays:
    """What the lowering lends: arrays, and the statements that compute an expression.

    Args:
        temporary: a new array over some axes.
        load: an array with labels of its own for its axes.
        compute: statements that give an array the value of an expression.
        report: arrays for the iterations and the relative residual.
    """

    temporary: Callable[[tuple[Axis, ...]], Input]
    load: Callable[[Input], Load]
    compute: Callable[[Input, Expr], list[Statement]]
    report: tuple[Load, Load]


def conjugate_gradients(
    node: LinearSolve,
    solutions: tuple[Input, ...],
    rhs: tuple[Input, ...],
    limits: tuple[Load, Load],
    arrays: Arrays,
) -> ConjugateGradients:
    """The statement that finds all unknowns of a system.

    Args:
        node: the system.
        solutions: arrays for the unknowns.
        rhs: arrays of the right sides.
        limits: number of iterations, and tolerance.
        arrays: of the lowering.
    """
    unknowns: list[Unknown] = []
    table: dict[Input, Input] = {}
    products: list[Input] = []
    for probe, solution, right in zip(node.probes, solutions, rhs, strict=True):
        residual, direction, product = (arrays.temporary(probe.axes) for _ in range(3))
        table[probe] = direction
        products.append(product)
        parts = (solution, right, residual, direction, product)
        unknowns.append(Unknown(*(arrays.load(part) for part in parts)))
    body: list[Statement] = []
    for product, expr in zip(products, node.products, strict=True):
        body += arrays.compute(product, substitute(expr, table))
    iterations, remaining = arrays.report
    return ConjugateGradients(tuple(unknowns), tuple(body), *limits, iterations, remaining)
