"""Public operators of a generated module."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sifrc.backends.draws import SEED_ARGUMENT, SEED_TEXT, reads_draws
from sifrc.backends.layout import signature
from sifrc.backends.numba_common.functions import PrivateFunction
from sifrc.backends.numba_common.parts import Parts
from sifrc.backends.plain import Plain, plain_operators
from sifrc.backends.text import data_texts, docstring
from sifrc.errors import BackendError
from sifrc.ir.quantity import Storage
from sifrc.lower.access import absolute, targets_of, unrolled

__all__ = ["RAISES", "Linearized", "data_text", "linearized_kinds", "operator_texts", "params_text", "unpack"]

RAISES = (
    "Raises:\n    TypeError: an argument is no array, or has another dtype.\n"
    "    ValueError: names or shapes are not as described{classes}."
)
_REFUSED = "\n    FloatingPointError: a quantity that must be finite is not, or a system has no solution."


@dataclass(frozen=True)
class Linearized:
    """An operator that can keep its primal: name in ``kind`` and text of the private function."""

    kind: str
    name: str
    text: str


def params_text(parts: Parts) -> str:
    """Line on ``params`` in docstrings."""
    shapes = "``SHAPES`` and ``BUFFERS``" if parts.module.buffers else "``SHAPES``"
    return f"params: by name, shapes as in {shapes}, {parts.module.dtype}."


def data_text(parts: Parts, batched: bool) -> tuple[str, str]:
    """Shapes of inputs and targets in docstrings."""
    return data_texts(parts.module, batched, "an integer, class")


def operator_texts(parts: Parts) -> list[tuple[str, str]]:
    """Name and text of every public operator but ``linearize``."""
    return [(operator.name, _text(parts, operator)) for operator in plain_operators(parts.program)]


def linearized_kinds(parts: Parts) -> list[Linearized]:
    """Private functions that prepare repeated products, for the operators that take a vector."""
    return [
        Linearized(operator.linearized, _private_name(operator), _prepared(parts, operator))
        for operator in plain_operators(parts.program)
        if operator.linearized
    ]


def _private_name(operator: Plain) -> str:
    return f"_prepared_{operator.name}"


def _functions(parts: Parts, operator: Plain, names: Sequence[str]) -> list[PrivateFunction]:
    return [parts.function(name, operator.batched) for name in names]


def _draws(parts: Parts, operator: Plain) -> bool:
    """Whether layers draw numbers where it is computed."""
    return reads_draws(parts.module, (*operator.prepare, *operator.apply), operator.batched)


def _reads_buffers(parts: Parts, operator: Plain) -> bool:
    groups = parts.groups(_functions(parts, operator, operator.prepare))
    return any(group.family.storage is Storage.BUFFER for group in groups)


def unpack(parts: Parts, families: Sequence[str], argument: str) -> str:
    """The statement that checks tensors shaped like the parameters and takes them by layer."""
    return f'{parts.unpacked(parts.like_parameters(families))} = _parameters({argument}, "{argument}")'


def _total(parts: Parts, operator: Plain) -> bool:
    """Whether results are sums over the batch."""
    return parts.module.reduction == "sum" and operator.scaled


def _codes(parts: Parts, operator: Plain) -> list[str]:
    """Variables of the results like the parameters; without biases, the program has the first only."""
    return parts.variables(operator.tensors)


def _named(parts: Parts, operator: Plain) -> str:
    found = [f"work.{code}" for code in _codes(parts, operator)]
    scale = ", work.batch" if _total(parts, operator) else ""
    found += [] if parts.has_biases else ["()"]
    return f"_named({', '.join(found)}{scale})"


def _mean(parts: Parts, operator: Plain) -> str:
    family = parts.program.family(operator.scalar)
    return parts.number(f"work.{family.code}", _total(parts, operator))


def _text(parts: Parts, operator: Plain) -> str:
    batched = operator.batched
    names = ["inputs", "targets"] if batched else ["input", "target"]
    kinds = [parts.inputs_type, "Array" if batched or not parts.classes else "int"]
    arguments = ["params: Parameters", *(f"{n}: {k}" for n, k in zip(names, kinds, strict=True))]
    if operator.apply:
        arguments.append("vector: Parameters")
    draws = _draws(parts, operator)
    arguments += [SEED_ARGUMENT] if draws else []
    returns = _returns(operator)
    head = signature(operator.name, arguments, returns)
    lines = [
        head,
        f"    {_doc(parts, operator)}",
        f"    {parts.taken(whole=_reads_buffers(parts, operator))}",
    ]
    if operator.apply:
        point = ", ".join([*parts.given_names, "inputs", "targets", *(["seed"] if draws else [])])
        lines.append(f"    return {_private_name(operator)}({point})(vector)")
        return "\n".join(lines)
    given = [*names, *(["seed"] if draws else [])]
    lines.append(f"    work = _{'batch' if batched else 'sample'}({', '.join(given)})")
    lines += parts.calls(operator.prepare, batched, 4)
    results = [_mean(parts, operator)] if operator.scalar else []
    results += [_named(parts, operator)] if operator.tensors else []
    return "\n".join([*lines, f"    return {', '.join(results)}"])


def _prepared(parts: Parts, operator: Plain) -> str:
    """A private function that returns the product as a closure over the primal."""
    if not operator.batched or operator.scalar:
        raise BackendError(f"the Numba backend cannot linearize '{operator.name}'")
    arguments = [*(f"{name}: Arrays" for name in parts.given_names), f"inputs: {parts.inputs_type}"]
    arguments.append("targets: Array")
    draws = _draws(parts, operator)
    arguments += ["seed: int"] if draws else []
    _check_apart(parts, operator)
    renew = ", ".join(f'"{code}"' for code in _codes(parts, operator))
    lines = [
        signature(_private_name(operator), arguments, "Product"),
        f'    """{operator.doc.rstrip(".")}, prepared for many vectors."""',
        f"    work = _batch(inputs, targets{', seed' if draws else ''})",
        *parts.calls(operator.prepare, True, 4),
        "    point = _Point(work)",
        "",
        "    def product(vector: Parameters) -> dict[str, Array]:",
        f"        {unpack(parts, operator.vector, 'vector')}",
        "        work = point.take()",
        f"        work.renew({renew})",
        *parts.calls(operator.apply, True, 8),
        f"        found = {_named(parts, operator)}",
        "        point.give(work)",
        "        return found",
        "",
        "    return product",
    ]
    return "\n".join(lines)


def _check_apart(parts: Parts, operator: Plain) -> None:
    """Calls of a product share what depends on the point: nothing in there may be written by them.

    Raises:
        BackendError: a variable is written for the point and again for a vector.
    """
    prepared = {g.name for f in _functions(parts, operator, operator.prepare) for g in f.groups}
    for function in _functions(parts, operator, operator.apply):
        layout = parts.layouts[operator.batched]
        for statement, k in unrolled(function.function.body):
            for load in targets_of(statement):
                name = layout.group(*absolute(load.ref, k)).name
                if name in prepared:
                    raise BackendError(f"'{operator.name}' writes '{name}' for the point and for the vector")


def _returns(operator: Plain) -> str:
    if operator.scalar and operator.tensors:
        return "tuple[float, dict[str, Array]]"
    return "float" if operator.scalar else "dict[str, Array]"


def _doc(parts: Parts, operator: Plain) -> str:
    inputs, targets = data_text(parts, operator.batched)
    names = ("inputs", "targets") if operator.batched else ("input", "target")
    lines = [
        "Args:",
        f"    {params_text(parts)}",
        f"    {names[0]}: {inputs}.",
        f"    {names[1]}: {targets}.",
    ]
    if operator.apply:
        lines.append("    vector: by name, shapes as in ``SHAPES``.")
    if _draws(parts, operator):
        lines.append(f"    seed: {SEED_TEXT}")
    returns = {
        "float": "A number.",
        "dict[str, Array]": "Arrays by name, shapes as in ``SHAPES``.",
    }.get(_returns(operator), "A number, and arrays by name, shapes as in ``SHAPES``.")
    source = f" [{operator.source}]" if operator.source else ""
    functions = _functions(parts, operator, (*operator.prepare, *operator.apply))
    refused = _REFUSED if any(function.guarded for function in functions) else ""
    classes = ", or a class is out of range" if parts.classes else ""
    return docstring(
        [
            f"{operator.doc.rstrip('.')}.{source}",
            "\n".join(lines),
            f"Returns:\n    {returns}",
            RAISES.format(classes=classes) + refused,
        ],
        indent=4,
    )
