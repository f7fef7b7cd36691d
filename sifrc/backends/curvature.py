"""Text of the public functions on curvature blocks, which differs between Python frameworks in few places.

A module has one private function for each kind, which computes its blocks, and a table of them. A public
function looks its kind up, computes the blocks of a part of the batch, and goes on by the values of its
other arguments; parts are averaged.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any, Protocol

from sifrc.backends.base import ModuleSource
from sifrc.backends.layout import signature
from sifrc.backends.text import LINE_LENGTH, docstring, literal
from sifrc.errors import BackendError
from sifrc.lower.program import Program
from sifrc.operators.record import Case, Entry, Form, KindPlan, Operator, Pairs, Result, Table

__all__ = [
    "BLOCKS",
    "Glue",
    "block_operators",
    "curvature_families",
    "draws",
    "extras",
    "form_words",
    "operator_text",
    "score_families",
    "shared_context",
]

_PART_FLOATS = 2**25
"""Numbers in the blocks of single samples that a part of a batch may have: 128 MiB in float32."""


BLOCKS: Mapping[bool, str] = MappingProxyType({True: "H", False: "H̄"})
"""Family of the blocks: of every sample, or of the batch."""

_SCORES: Mapping[Form, str] = MappingProxyType({"scores": "T", "class_scores": "Tᶜ"})
"""Family of the factors of the samples' blocks, by the form of the kind."""
_SINGLE: Mapping[Form, bool] = MappingProxyType(
    {"samples": True, "scores": True, "class_scores": True, "batch": False}
)
"""Whether there is a block, or a factor of it, for each sample."""


def block_operators(program: Program) -> tuple[Operator, ...]:
    """The operators that go on from the blocks of a kind of curvature."""
    return tuple(operator for operator in program.operators if operator.kinds)


def score_families(program: Program, kind: KindPlan | None = None) -> tuple[str, ...]:
    """Families of scores that public functions go on with, of one kind or of all."""
    read = {name for o in block_operators(program) for case in o.cases for name in case.functions}
    known = {f.name: f for f in program.functions if f.batched and f.name in read}
    used = {name for f in known.values() for name in f.reads}
    forms = dict.fromkeys(k.form for k in program.kinds if kind in (None, k))
    return tuple(_SCORES[form] for form in forms if form in _SCORES and _SCORES[form] in used)


def form_words(kind: KindPlan) -> str:
    """What the function of a kind computes."""
    if kind.form == "samples":
        return "blocks of every sample"
    return "blocks of the batch" + ("" if kind.form == "batch" else ", and scores")


def curvature_families(program: Program) -> set[str]:
    """Families that the public functions return or keep."""
    results = {family for operator in block_operators(program) for family in operator.families()}
    return results | {BLOCKS[kind.per_sample] for kind in program.kinds} | set(score_families(program))


class Glue(Protocol):
    """What a backend adds."""

    @property
    def array(self) -> str:
        """Type of an array in annotations."""
        ...

    @property
    def decorators(self) -> tuple[str, ...]:
        """Lines before a definition."""
        ...

    @property
    def apart(self) -> str:
        """Function that gives each result memory of its own, if arrays of two layers can be one."""
        ...

    @property
    def params_text(self) -> str:
        """Line on ``params`` in docstrings."""
        ...

    @property
    def raises_text(self) -> str:
        """Errors of the checks of arguments, for docstrings."""
        ...

    def data_text(self) -> tuple[str, str]:
        """Shapes of inputs and targets."""
        ...

    def opening(self, operator: Operator) -> list[str]:
        """Statements that check and unpack params, inputs, targets and vector; indented by 4."""
        ...

    def blocks(self, operator: Operator, seeded: bool) -> list[str]:
        """Statements of ``part`` that compute the blocks with ``prepare``; indented by 8."""
        ...

    def calls(self, case: Case, indent: int) -> list[str]:
        """Calls of a case's functions."""
        ...

    def member(self, family: str, index: int | None) -> str:
        """An array after them."""
        ...


def rows(program: Program) -> int:
    """Samples in a part of a batch, for kinds with a block for each."""
    count = 1
    for kind in program.kinds:
        if kind.per_sample:
            written = {name for f in kind.functions for name in program.function(f, True).writes}
            sizes = [
                shape[1] * shape[2]
                for name in sorted(written)
                for _, shape in program.family(name).shapes
                if len(shape) == 3 and shape[1] is not None and shape[2] is not None
            ]
            count = max(count, sum(sizes))
    return max(1, _PART_FLOATS // count)


def shared_context(module: ModuleSource, texts: Sequence[str], functions: Sequence[str]) -> dict[str, Any]:
    """What the templates of all backends need.

    Args:
        module: what is printed.
        texts: of the public functions.
        functions: texts of those that compute the blocks of one kind.
    """
    program = module.program
    layers = tuple(layer.name for layer in module.layers)
    return {
        "curvature": True,
        "kind_functions": functions,
        "kind_table": _kind_table(program.kinds, "_KINDS", ""),
        "gradient_table": (
            _kind_table(program.kinds, "_GRADIENT_KINDS", "_gradient")
            if any(operator.extra for operator in block_operators(program))
            else ""
        ),
        "layer_names": literal(layers, used=len("_LAYERS = ")),
        "factors": any(_pair(operator) for operator in block_operators(program)),
        "rows": rows(program),
        "matrices": any("_matrix(" in text for text in texts),
        "uniform": any("_uniform(" in text for text in functions),
        "normal": any("_normal(" in text for text in functions),
        "curvature_operators": texts,
    }


def draws(program: Program) -> bool:
    """Whether some kind draws random numbers, so that functions take a seed."""
    return any(kind.draws for kind in program.kinds)


def _kind_table(kinds: Sequence[KindPlan], name: str, suffix: str) -> str:
    lines = [f'    "{kind.name}": (_prepared_{kind.name}{suffix}, "{kind.form}"),' for kind in kinds]
    return "\n".join([f"{name}: dict[str, tuple[Prepared, str]] = {{", *lines, "}"])


def extras(program: Program) -> tuple[tuple[str, ...], ...]:
    """Extra functions that the functions of the kinds come with: none, and those of operators."""
    return tuple(dict.fromkeys(((), *(operator.extra for operator in block_operators(program)))))


def _pair(operator: Operator) -> tuple[str, ...]:
    """Names of the members of the pairs that it returns, or ()."""
    results = (result for case in operator.cases for result in case.results)
    return next((result.names for result in results if isinstance(result, Pairs)), ())


def operator_text(module: ModuleSource, operator: Operator, glue: Glue) -> str:
    """The source of one public function."""
    kinds = module.program.kinds
    seeded = draws(module.program) and not operator.kind
    arguments = [f"params: {_mapping(glue)}", f"inputs: {glue.array}", f"targets: {glue.array}"]
    arguments += [f"vector: {_mapping(glue)}"] if operator.vector else []
    arguments += [] if operator.kind else [f'kind: str = "{kinds[0].name}"']
    arguments += [f"{a.name}: {_annotation(a.default)} = {_value(a.default)}" for a in operator.arguments]
    arguments += ["seed: int = 0"] if seeded else []
    returns = "dict[str, Factors]" if _pair(operator) else f"dict[str, {glue.array}]"
    kind = f'"{operator.kind}"' if operator.kind else "kind"
    kind += ", _GRADIENT_KINDS" if operator.extra else ""
    if operator.also:
        returns = f"tuple[dict[str, {glue.array}], {returns}]"
    lines = [
        *glue.decorators,
        signature(operator.name, arguments, returns),
        f"    {_doc(module, operator, glue, seeded)}",
        *glue.opening(operator),
        f"    prepare, form = _kind({kind})",
        "",
        f"    def part(inputs: {glue.array}, targets: {glue.array}) -> dict[str, {glue.array}]:",
        *glue.blocks(operator, seeded),
    ]
    forms = {kind.form for kind in kinds}
    possible = [
        replace(case, forms=tuple(form for form in case.forms if form in forms))
        for case in operator.cases
        if forms & {*case.forms}
    ]
    if operator.kind:
        (single,) = possible
        lines += _case(single, operator, glue, 8)
    else:
        lines += _cases(possible, operator, glue)
    lines += ["", *_run(module, operator, possible)]
    return "\n".join(lines)


def _cases(cases: Sequence[Case], operator: Operator, glue: Glue) -> list[str]:
    lines: list[str] = []
    for case in cases:
        lines.append(f"        if {_condition(case)}:")
        lines += _case(case, operator, glue, 12)
    named = ", ".join(f"{a.name}={{{a.name}!r}}" for a in operator.arguments)
    lines += [
        "        raise ValueError(",
        f'            f"kind {{kind!r}} does not go with {named}; expected "',
        *(f"            {_quoted(part)}" for part in _pieces(_accepted(cases))),
        "        )",
    ]
    return lines


def _accepted(cases: Sequence[Case]) -> str:
    """What the arguments may be, for each sort of kinds."""
    texts: dict[bool, list[str]] = {}
    for case in cases:
        choice = " and ".join(
            f"{name} {' or '.join(repr(value) for value in values if value is not None)}"
            for name, values in case.choices
        )
        for single in sorted({_SINGLE[form] for form in case.forms}, reverse=True):
            texts.setdefault(single, []).append(choice)
    sorts = {True: "kinds of single samples", False: "other kinds"}
    found = {sort: ", or ".join(dict.fromkeys(texts[sort])) for sort in texts}
    if len(set(found.values())) == 1:
        return next(iter(found.values()))
    return "; ".join(f"{sorts[sort]}: {text}" for sort, text in found.items())


def _pieces(text: str) -> list[str]:
    """The text in parts that fit on lines; put together they are the text again."""
    lines = textwrap.wrap(text, LINE_LENGTH - 16)
    return [*(f"{line} " for line in lines[:-1]), lines[-1]]


def _quoted(text: str) -> str:
    return '"' + text + '"'


def _case(case: Case, operator: Operator, glue: Glue, indent: int) -> list[str]:
    pad = " " * indent
    pairs = [entry for result in (*operator.also, *case.results) for entry in _entries(result, glue)]
    inner = f"{pad}    " if glue.apart else pad
    entries = [f'{inner}    "{key}": {text},' for key, text in pairs]
    opening, closing = (f"{glue.apart}(\n{inner}{{", f"    }}\n{pad})") if glue.apart else ("{", "}")
    return [*glue.calls(case, indent), f"{pad}return {opening}", *entries, f"{pad}{closing}"]


def _entries(result: Result, glue: Glue) -> list[tuple[str, str]]:
    """Keys and texts of the arrays of a result; members of pairs have both names in the key."""
    if isinstance(result, Table):
        return [(entry.key, _array(entry, glue)) for entry in result.entries]
    if isinstance(result, Pairs):
        return [
            (f"{key}.{name}", glue.member(*member))
            for key, pair in result.rows
            for name, member in zip(result.names, pair, strict=True)
        ]
    raise BackendError(f"a result of a kind of curvature is no {type(result).__name__}")


def _array(entry: Entry, glue: Glue) -> str:
    text = glue.member(*entry.member)
    return f"_matrix({text})" if entry.matrix else text


def _run(module: ModuleSource, operator: Operator, cases: Sequence[Case]) -> list[str]:
    lines = []
    pair = _pair(operator)
    apart = [case for case in cases if case.batch_axis]
    if apart:
        every = replace(apart[0], forms=tuple(form for case in apart for form in case.forms))
        lines += [f"    if {_condition(every)}:", "        return part(inputs, targets)"]
    call = '_averaged(part, inputs, targets, form == "samples")'
    together = [_condition(case) for case in cases if case.whole]
    if together:
        lines += [f"    together = {' or '.join(f'({text})' for text in together)}"]
        call = '_averaged(part, inputs, targets, form == "samples" and not together)'
    if module.reduction != "sum" and not pair:
        return [*lines, f"    return {call}"]
    lines.append(f"    found = {call}")
    if module.reduction == "sum":
        kept = ' if name.endswith(".moment") else ' if pair else ""
        value = f"value{kept}len(inputs) * value" if kept else "len(inputs) * value"
        lines.append(f"    found = {{name: {value} for name, value in found.items()}}")
    if not pair:
        return [*lines, "    return found"]
    members = ", ".join(f'found[f"{{name}}.{member}"]' for member in pair)
    factors = f"{{name: Factors({members}) for name in _LAYERS}}"
    if operator.also:
        lines.append("    gradient = {name: found[name] for name in SHAPES}")
        factors = f"gradient, {factors}"
    return [*lines, f"    return {factors}"]


def _condition(case: Case) -> str:
    quoted = [f'"{form}"' for form in case.forms]
    parts = [f"form == {quoted[0]}" if len(quoted) == 1 else f"form in ({', '.join(quoted)})"]
    for name, values in case.choices:
        if values in ((True,), (False,)):
            parts.append(name if values[0] else f"not {name}")
        elif len(values) == 1:
            parts.append(f"{name} is None" if values[0] is None else f"{name} == {_value(values[0])}")
        else:
            parts.append(f"{name} in ({', '.join(map(_value, values))})")
    return " and ".join(parts)


def _value(value: object) -> str:
    return f'"{value}"' if isinstance(value, str) else repr(value)


def _annotation(default: object) -> str:
    return {bool: "bool", str: "str"}.get(type(default), "str | None")


def _mapping(glue: Glue) -> str:
    return "Parameters" if glue.array == "Array" else f"Mapping[str, {glue.array}]"


def _doc(module: ModuleSource, operator: Operator, glue: Glue, seeded: bool) -> str:
    inputs, targets = glue.data_text()
    lines = ["Args:", f"    {glue.params_text}", f"    inputs: {inputs}.", f"    targets: {targets}."]
    lines += ["    vector: like params."] if operator.vector else []
    if not operator.kind:
        lines.append(f"    kind: {', '.join(kind.name for kind in module.program.kinds)}.")
    for argument in operator.arguments:
        lines += textwrap.wrap(
            f"{argument.name}: {argument.text}",
            LINE_LENGTH - 4,
            initial_indent="    ",
            subsequent_indent="        ",
        )
    lines += ["    seed: of the draws of sampled kinds."] if seeded else []
    raises = glue.raises_text
    if not operator.kind:
        raises += "\n    ValueError: the kind is unknown, or does not go with the other arguments."
    source = f"  [{operator.source}]" if operator.source else ""
    return docstring(
        [
            operator.doc.rstrip(".") + "." + source,
            "\n".join(lines),
            "Returns:\n"
            + textwrap.fill(
                operator.returns, LINE_LENGTH - 4, initial_indent="    ", subsequent_indent="    "
            ),
            raises,
        ],
        indent=4,
    )
