"""Products and softmaxes without a tensor of their own: the kernel that uses one computes it on the way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TypeAlias

import sympy
from sympy import Expr, Symbol, exp

from sifrc.backends.torch_eager.access import Names
from sifrc.backends.torch_eager.convolutions import convolution_of
from sifrc.backends.torch_eager.expressions import Entry
from sifrc.lower.access import loads_of, targets_of
from sifrc.lower.arrays import Ref
from sifrc.lower.statements import Assign, Contract, Convolve, Kernel, LogSoftmaxOver, Statement

__all__ = ["Inlined", "inlines", "occurrences", "user_of", "with_softmax"]

Inlined: TypeAlias = Contract | Convolve | LogSoftmaxOver
"""Statements that may be part of the formula that reads what they write."""


def inlines(product: Inlined, following: Sequence[Statement], names: Names, inlined: frozenset[Ref]) -> bool:
    """Whether the next user of a product is a kernel that can compute it on the way.

    Args:
        product: the product.
        following: the statements after it.
        names: how the function refers to arrays.
        inlined: arrays that need not be there.
    """
    ref = product.target.ref
    # By what is printed: layers may share one local variable.
    operands = {names.ref(load.ref) for load in loads_of(product)}
    for statement in following:
        if any(load.ref == ref for load in loads_of(statement)):
            return isinstance(statement, Kernel) and _fits(product, statement, names, inlined)
        if operands & {names.ref(load.ref) for load in targets_of(statement)}:
            return False
    return False


def user_of(kernel: Kernel, name: str) -> Assign:
    """The first assignment that uses a symbol."""
    symbol = Symbol(name, real=True)
    return next(assign for assign in kernel.assigns if symbol in assign.value.free_symbols)


def _fits(product: Inlined, kernel: Kernel, names: Names, inlined: frozenset[Ref]) -> bool:
    """The kernel uses the product once, entry by entry, and nobody reads it afterwards."""
    ref = product.target.ref
    used = [(name, load) for name, load in kernel.loads if load.ref == ref]
    overwrites = [n for n, assign in enumerate(kernel.assigns) if assign.target.ref == ref]
    if len(used) != 1 or not (overwrites or ref in inlined):
        return False
    # A convolution has the order of axes that Torch gives it.
    if isinstance(product, Convolve) and convolution_of(product, names).labels != product.target.labels:
        return False
    # A window may be as long as the array that would not be there.
    if not used[0][1].is_whole or any(assign.target.window for assign in kernel.assigns):
        return False
    symbol, labels = Symbol(used[0][0], real=True), used[0][1].labels
    last = overwrites[0] if overwrites else len(kernel.assigns) - 1
    counts = [occurrences(assign.value, symbol) for assign in kernel.assigns[: last + 1]]
    if sum(counts) != 1:
        return False
    user = kernel.assigns[counts.index(1)]
    operands = {names.ref(load.ref) for load in loads_of(product)}
    clobbered = {names.ref(assign.target.ref) for assign in kernel.assigns[: counts.index(1)]}
    distinct = len(set(labels)) == len(labels)
    orders = (labels, labels[::-1]) if len(labels) == 2 else (labels,)
    return user.target.labels in orders and distinct and not operands & clobbered


def occurrences(value: Expr, symbol: Symbol) -> int:
    """How often a symbol stands in an expression."""
    return sum(1 for node in sympy.preorder_traversal(value) if node == symbol)


def with_softmax(assign: Assign, entries: dict[str, Entry]) -> Assign:
    """The exponential of a log-softmax, where that has no tensor of its own, as a softmax."""
    value = assign.value
    for symbol in sorted(value.free_symbols, key=str):
        product = entries[symbol.name].product if symbol.name in entries else None
        if product is not None and product.left.startswith("torch.log_softmax(") and value.has(exp(symbol)):
            softmax = replace(product, left=product.left.replace("log_", "", 1))
            entries[symbol.name] = replace(entries[symbol.name], product=softmax)
            value = value.xreplace({exp(symbol): symbol})
    return replace(assign, value=value)
