"""Entries of a kernel before and after they are overwritten."""

from __future__ import annotations

from dataclasses import replace

from sympy import Expr, Symbol

from sifrc.lower.statements import Assign, Kernel

__all__ = ["versions"]


def versions(kernel: Kernel) -> tuple[list[Assign], dict[str, str]]:
    """New symbols for entries that an earlier assignment of the kernel has overwritten.

    Both versions have the same text; different symbols keep them apart when subexpressions are shared.

    Args:
        kernel: whose assignments run in order.

    Returns:
        The assignments over the symbols of what they see, and new symbol -> the one of the kernel.
    """
    later: dict[str, str] = {}
    renaming: dict[Expr, Expr] = {}
    assigns: list[Assign] = []
    for number, assign in enumerate(kernel.assigns):
        assigns.append(replace(assign, value=assign.value.xreplace(renaming)))
        for name, load in kernel.loads:
            if load.ref == assign.target.ref:
                new = f"{name}_after{number}"
                renaming[Symbol(name, real=True)] = Symbol(new, real=True)
                later[new] = name
    return assigns, later
