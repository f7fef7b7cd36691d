"""Public functions of a generated module."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sifrc.backends.draws import SEED_ARGUMENT, SEED_TEXT
from sifrc.backends.layout import lines_of, returned, signature
from sifrc.backends.plain import Plain, plain_operators
from sifrc.backends.text import data_texts, docstring
from sifrc.backends.torch_eager.calls import Calls, Parts, operator_keys

__all__ = ["RAISES_TEXT", "PublicFunction", "params_text", "public_functions", "unpack"]

RAISES_TEXT = """Raises:
    TypeError: an argument is no tensor, or has another dtype.
    ValueError: names, shapes or devices are not as described."""
_REFUSED = "\n    FloatingPointError: a quantity that must be finite is not, or a system has no solution."


@dataclass(frozen=True)
class PublicFunction:
    """Name and source text."""

    name: str
    text: str


def public_functions(parts: Parts) -> tuple[PublicFunction, ...]:
    """The operators of the program in its order; products come with ``linearize``, which keeps the point."""
    operators = plain_operators(parts.program)
    found: list[PublicFunction] = []
    for operator in operators:
        if operator.linearized:
            found.append(PublicFunction(f"_prepared_{operator.name}", _prepared(parts, operator)))
            found.append(PublicFunction(operator.name, _product(parts, operator)))
        else:
            found.append(PublicFunction(operator.name, _plain(parts, operator)))
    products = [operator for operator in operators if operator.linearized]
    if products:
        found.append(PublicFunction("linearize", _linearize(parts, products)))
    return tuple(found)


def _arguments_text(parts: Parts, operator: Plain) -> list[str]:
    inputs, targets = data_texts(parts.module, operator.batched, "a class,")
    plural = "s" if operator.batched else ""
    return [params_text(parts), f"input{plural}: {inputs}.", f"target{plural}: {targets}."]


def _seed(parts: Parts, operator: Plain) -> tuple[list[str], list[str]]:
    """The argument that what layers draw depends on, and its text; it comes last."""
    return ([SEED_ARGUMENT], [f"seed: {SEED_TEXT}"]) if _draws(parts, operator) else ([], [])


def _returns(operator: Plain) -> str:
    tensors = "Dict with the names, shapes and dtype of params"
    if operator.scalar and operator.tensors:
        return f"{operator.scalar.capitalize()}, a scalar tensor, and a dict like params."
    return f"{tensors}." if operator.tensors else "Scalar tensor."


def _doc(parts: Parts, operator: Plain, arguments: list[str], returns: str, guarded: bool) -> str:
    source = f"  [{operator.source}]" if operator.source else ""
    summary = operator.doc.rstrip(".") + "." + source
    return docstring(
        [
            summary,
            "\n".join(["Args:", *(f"    {line}" for line in arguments)]),
            f"Returns:\n    {returns}",
            RAISES_TEXT + (_REFUSED if guarded else ""),
        ],
        indent=4,
    )


def params_text(parts: Parts) -> str:
    """What the argument ``params`` is."""
    shapes = "``SHAPES`` and ``BUFFERS``" if parts.buffers else "``SHAPES``"
    return f"params: by name, shapes as in {shapes}, all of one dtype on one device."


def unpack(parts: Parts, indent: int, *, whole: bool = False) -> str:
    """The statement that checks parameters and buffers and takes them by layer.

    Args:
        parts: of the module.
        indent: of the statement.
        whole: whether buffers are read in any case.
    """
    unpacker, codes = parts.unpacker, parts.given
    if parts.buffers:
        unpacker = "_parameters_and_buffers"
        codes = [*parts.codes, *(own.code for own in parts.buffers)] if whole else codes
        codes = codes if whole or not parts.couples else [*codes, "*_"]
    return f'{" " * indent}{", ".join(codes)} = {unpacker}(params, "params")'


def _checked_arguments(parts: Parts, operator: Plain) -> list[str]:
    """Statements that check the arguments of a point and take them apart."""
    function, data = ("_batch", "inputs, targets") if operator.batched else ("_sample", "input, target")
    whole = parts.reads_buffers(operator_keys(operator)[0])
    lines = [unpack(parts, 4, whole=whole), f"    inputs, targets = {function}({data}, {parts.like})"]
    return [*lines, *(["    inputs = _drawn(inputs, seed)"] if _draws(parts, operator) else [])]


def _draws(parts: Parts, operator: Plain) -> bool:
    """Whether layers draw numbers where it is computed."""
    return parts.draws(key for keys in operator_keys(operator) for key in keys)


def _mean(operator: Plain, chain: Calls) -> list[str]:
    """The statement for the factor of a mean over the batch, if some function takes it."""
    if "mean" not in chain.needed((*operator_keys(operator)[0], *operator_keys(operator)[1])):
        return []
    return ["    mean = 1.0 / len(inputs)" if operator.batched else "    mean = 1.0"]


def _result(parts: Parts, operator: Plain, indent: int) -> list[str]:
    program = parts.program
    values = []
    total = parts.module.reduction == "sum" and operator.batched and operator.scaled
    if operator.scalar:
        code = program.family(operator.scalar).code
        values.append(f"{code}.{'sum' if total else 'mean'}()" if operator.batched else code)
    if operator.tensors:
        codes = ", ".join(_codes(parts, operator.tensors))
        values.append(f"_named({codes}{', len(inputs)' if total else ''})")
    return returned(values, indent)


def _codes(parts: Parts, names: Sequence[str]) -> list[str]:
    """Variables of a weight and a bias family; without biases, the program has the first only."""
    known = {family.name: family.code for family in parts.program.families}
    return [known.get(name, "_") for name in (names[:1] if parts.biases is None else names)]


def _annotation(operator: Plain) -> str:
    kinds = (["Tensor"] if operator.scalar else []) + (["Parameters"] if operator.tensors else [])
    return kinds[0] if len(kinds) == 1 else f"tuple[{', '.join(kinds)}]"


def _parameters(parts: Parts, operator: Plain) -> list[str]:
    kind = parts.inputs_type
    data = (
        [f"inputs: {kind}", "targets: Tensor"]
        if operator.batched
        else [f"input: {kind}", "target: Tensor | int"]
    )
    return ["params: Mapping[str, Tensor]", *data]


def _plain(parts: Parts, operator: Plain) -> str:
    prepare, _ = operator_keys(operator)
    chain = Calls(parts, 4)
    opening = [*_checked_arguments(parts, operator), *_mean(operator, chain)]
    wanted = {operator.scalar, *operator.tensors}
    calls = chain.checked(chain.run(prepare, wanted))
    seed, seed_text = _seed(parts, operator)
    parameters = [*_parameters(parts, operator), *seed]
    arguments = [*_arguments_text(parts, operator), *seed_text]
    doc = _doc(parts, operator, arguments, _returns(operator), chain.guarded)
    head = signature(operator.name, parameters, _annotation(operator))
    return "\n".join(["@_as_written", head, f"    {doc}", *opening, *calls, *_result(parts, operator, 4)])


def _unpack_vector(parts: Parts, operator: Plain, indent: int) -> str:
    codes = ", ".join(_codes(parts, operator.vector))
    return f'{" " * indent}{codes} = {parts.unpacker}(vector, "vector", {parts.like})'


_PRODUCT_TYPE = "Callable[[Mapping[str, Tensor]], Parameters]"


def _prepared(parts: Parts, operator: Plain) -> str:
    """The product at one point: what depends on the point only, and the function of the vector."""
    prepare, apply = operator_keys(operator)
    chain = Calls(parts, 4)
    opening = _mean(operator, chain)
    calls = chain.checked(chain.run(prepare, chain.needed(apply)))
    chain.indent, chain.guarded = 8, False
    inner = chain.checked(chain.run(apply, operator.tensors))
    source = f"  [{operator.source}]" if operator.source else ""
    data = [f"inputs: {parts.checked_type}", "targets: Tensor"]
    arguments = [*(f"{code}: Tensors" for code in parts.given), *data]
    return "\n".join(
        [
            signature(f"_prepared_{operator.name}", arguments, _PRODUCT_TYPE),
            f'    """{operator.doc.rstrip(".")}, at one point."""',
            *opening,
            *calls,
            "",
            "    @_as_written",
            "    def product(vector: Mapping[str, Tensor]) -> Parameters:",
            f'        """{operator.doc.rstrip(".")}.{source}"""',
            _unpack_vector(parts, operator, 8),
            *inner,
            *_result(parts, operator, 8),
            "",
            "    return product",
        ]
    )


def _linearize(parts: Parts, products: Sequence[Plain]) -> str:
    kinds = [operator.linearized for operator in products]
    seed, seed_text = _seed(parts, products[0])
    doc = docstring(
        [
            "A matrix–vector product at one point, for many vectors; what they share is computed once.",
            "The point is kept: what becomes of the tensors that it was made from changes no product.",
            "\n".join(
                [
                    "Args:",
                    *(f"    {line}" for line in _arguments_text(parts, products[0])),
                    f"    kind: {' or '.join(kinds)}.",
                    *(f"    {line}" for line in seed_text),
                ]
            ),
            "Returns:\n    Function of a vector like params that returns a dict like params.",
            RAISES_TEXT.replace("are not as described", "are not as described, or the kind is unknown"),
        ],
        indent=4,
    )
    parameters = [*_parameters(parts, products[0]), f'kind: str = "{kinds[0]}"', *seed]
    table = [f'        "{operator.linearized}": _prepared_{operator.name},' for operator in products]
    return "\n".join(
        [
            "@_at_its_point",
            signature("linearize", parameters, _PRODUCT_TYPE),
            f"    {doc}",
            "    prepared = {",
            *table,
            "    }",
            "    if kind not in prepared:",
            '        raise ValueError(f"kind: expected one of {list(prepared)}, got {kind!r}")',
            *_checked_arguments(parts, products[0]),
            *lines_of([*parts.given, "inputs", "targets"], "return prepared[kind](", ")", 4),
        ]
    )


def _product(parts: Parts, operator: Plain) -> str:
    seed, seed_text = _seed(parts, operator)
    texts = [*_arguments_text(parts, operator), "vector: like params.", *seed_text]
    doc = _doc(parts, operator, texts, _returns(operator), False)
    parameters = [*_parameters(parts, operator), "vector: Mapping[str, Tensor]", *seed]
    head = signature(operator.name, parameters, "Parameters")
    arguments = [*parts.given, "inputs", "targets"]
    call = lines_of(arguments, f"return _prepared_{operator.name}(", ")(vector)", 4)
    return "\n".join(["@_as_written", head, f"    {doc}", *_checked_arguments(parts, operator), *call])
