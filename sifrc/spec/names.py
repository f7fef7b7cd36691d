"""Which names a spec may use: they become identifiers of generated code and keys of parameters."""

from __future__ import annotations

import keyword
import re

__all__ = ["MAX_NAME", "RESERVED", "name_problem"]

MAX_NAME = 64

_IDENTIFIER = re.compile(r"[A-Za-z][A-Za-z0-9_]*", re.ASCII)

RESERVED: frozenset[str] = frozenset(
    {word for word in (*keyword.kwlist, *keyword.softkwlist) if word != "_"}
    # Modules that generated code imports.
    | {"cuda", "math", "nb", "njit", "np", "numba", "numpy", "prange", "sifrc", "torch"}
    # Names that generated modules define, and the arguments of their functions.
    | {"Network", "Optimizer", "SPEC", "State", "closure", "cls", "direction", "init", "inputs", "linearize"}
    | {"loss", "lr", "model", "objective", "order", "params", "sample", "seed", "self", "step", "summary"}
    | {"target", "targets", "train_epoch", "vector"}
    | {"block_hessian", "curvature_factors", "gauss_newton_vector_product", "gradient"}
    | {"hessian_vector_product", "newton_direction", "objective_and_gradient"}
    # Built-in functions that generated code calls.
    | {"abs", "bool", "callable", "dict", "enumerate", "float", "getattr", "int", "isinstance", "iter", "len"}
    | {"list", "max", "min", "object", "print", "property", "range", "repr", "reversed", "set", "sorted"}
    | {"str", "sum", "super", "tuple", "type", "zip"}
)
"""Names that are taken."""


def name_problem(name: str) -> tuple[str, str] | None:
    """Return what is wrong with a name and what would be accepted; None if it is fine.

    Example:
        >>> name_problem("fc1") is None
        True
        >>> name_problem("lambda")[0]
        "'lambda' is a reserved name"
    """
    hint = f"a letter, then letters, digits and '_', at most {MAX_NAME} characters, e.g. fc1"
    if len(name) > MAX_NAME:
        return f"the name is too long: {len(name)} characters", hint
    if not _IDENTIFIER.fullmatch(name):
        return f"{name!a} is not a name", hint
    if name in RESERVED:
        return f"'{name}' is a reserved name", f"choose another, e.g. {name}_1"
    return None
