"""What printers share: templates, docstrings, headers and literals of generated modules."""

from __future__ import annotations

import functools
import re
import textwrap
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2

from sifrc.backends.base import LayerInfo, ModuleSource
from sifrc.backends.draws import SEED_TEXT
from sifrc.errors import BackendError

__all__ = [
    "LINE_LENGTH",
    "assigned",
    "data_texts",
    "docstring",
    "environment",
    "exported",
    "finished",
    "header",
    "input_texts",
    "inputs_context",
    "layer_names",
    "literal",
    "output_texts",
    "parameter_shapes",
    "shape_text",
    "template_folder",
]

LINE_LENGTH = 110
"""Longest line of generated code, as in the repository's own formatter settings."""
_DEFINED = re.compile(r"^(?:def|class) (\w+)", re.MULTILINE)


def template_folder(backend: str) -> Path:
    """Folder with the templates of a built-in backend: in the wheel, else in the repository.

    Raises:
        BackendError: neither has a folder of this name.

    Example:
        >>> template_folder("torch").name
        'torch'
    """
    package = Path(__file__).resolve().parent.parent
    for base in (package / "templates", package.parent / "templates"):
        folder = base / backend
        if folder.is_dir():
            return folder
    raise BackendError(
        f"the templates of backend '{backend}' are missing",
        hint="reinstall sifrc, or run it from its repository",
    )


def input_texts(shape: tuple[int, ...]) -> dict[str, str]:
    """How the shape of inputs reads: in the code of a batch and of one sample, and in prose.

    Example:
        >>> input_texts((8, 8))
        {'batch_shape': '(None, 8, 8)', 'sample_shape': '(8, 8)', 'inputs_shape': '(B, 8, 8)'}
        >>> input_texts((64,))["sample_shape"]
        '(64,)'
    """
    sizes = ", ".join(map(str, shape))
    comma = "," if len(shape) == 1 else ""
    return {
        "batch_shape": f"(None, {sizes})",
        "sample_shape": f"({sizes}{comma})",
        "inputs_shape": f"(B, {sizes})",
    }


def data_texts(module: ModuleSource, batched: bool, one_class: str) -> tuple[str, str]:
    """Shapes of inputs and targets in docstrings; ``one_class`` says what the target of one sample is."""
    inputs = _inputs_text(module, batched)
    if module.targets == "classes":
        shape = ", ".join(["B", *map(str, module.places)]) + ("" if module.places else ",")
        kind = f"({shape}) integers, classes" if batched else one_class
        if module.places and not batched:
            kind = f"{shape_text(module.places)} integers, classes"
        ignored = "" if module.ignored is None else f", or {module.ignored} for what does not count"
        return inputs, f"{kind} 0 to {module.output_size - 1}{ignored}"
    texts = output_texts(module)
    return inputs, texts["outputs_text"] if batched else texts["sample_output"]


def shape_text(sizes: tuple[int, ...]) -> str:
    """A shape as a tuple in code.

    Example:
        >>> shape_text((3,)), shape_text((3, 4))
        ('(3,)', '(3, 4)')
    """
    return f"({sizes[0]},)" if len(sizes) == 1 else f"({', '.join(map(str, sizes))})"


def output_texts(module: ModuleSource) -> dict[str, Any]:
    """How the shapes of outputs and of classes read, in prose and in the code of checks."""
    shape = module.output_shape or (module.output_size,)
    sizes, places = ", ".join(map(str, shape)), "".join(f", {size}" for size in module.places)
    return {
        "outputs_text": f"(B, {sizes})",
        "sample_output": shape_text(shape),
        "batch_output": f"(len(inputs), {sizes})",
        "class_places": places,
        "ignored": module.ignored,
    }


def _inputs_text(module: ModuleSource, batched: bool) -> str:
    """Shapes of inputs, of a batch or of one sample, in prose."""
    form = "inputs_shape" if batched else "sample_shape"
    given = module.inputs or {"": (module.input_shape, module.input_classes)}
    texts = [
        f"{name} {input_texts(shape)[form]}".strip()
        + (f" integers, classes 0 to {classes - 1}" if classes else "")
        for name, (shape, classes) in given.items()
    ]
    return f"a tuple of {'; '.join(texts)}; or a dict of them" if module.inputs else texts[0]


def inputs_context(module: ModuleSource, array: str) -> dict[str, Any]:
    """Names for templates: how inputs are checked, and how their types and shapes read.

    Args:
        module: what is printed.
        array: type of one input.
    """
    several = bool(module.inputs)
    classes = any(count for _, count in module.inputs.values()) if several else module.input_classes
    texts = input_texts(module.input_shape)
    if several:
        # A check takes what comes before the axes of each input.
        texts = {"batch_shape": "(None,)", "sample_shape": "()"}
        texts["inputs_shape"] = _inputs_text(module, batched=True)
    return {
        **texts,
        "several": several,
        "draws": bool(module.draws),
        "seed_text": SEED_TEXT,
        "checked_batch": f"tuple[_Inputs, {array}]" if module.draws else "Batch",
        "undrawn": ", ".join(
            f"{k}: np.zeros({(0,) * (1 + len(sizes))}, DTYPE)" for k, sizes in module.draws.items()
        ),
        "first_axes": len(module.input_shape),
        "draw_table": assigned("_DRAWN: dict[int, tuple[int, ...]] = ", dict(module.draws)),
        "single_check": "_class_inputs" if classes else "_checked",
        "input_table": assigned("INPUTS: dict[str, tuple[tuple[int, ...], int]] = ", module.inputs),
        "inputs_type": "Inputs" if several else array,
        "checked_type": "_Inputs" if several or module.draws else array,
        "input_check": "_several"
        if several
        else "_alone"
        if module.draws
        else "_class_inputs"
        if classes
        else "_checked",
        "input_classes": classes,
        "typed_inputs": bool(classes and module.draws),
        "class_argument": ", classes: int" if several else "",
        "class_count": "classes" if several else str(module.input_classes),
        "class_last": "{classes - 1}" if several else str(module.input_classes - 1),
    }


def parameter_shapes(layers: Sequence[LayerInfo]) -> dict[str, tuple[int, ...]]:
    """Shapes of the parameters by name."""
    shapes: dict[str, tuple[int, ...]] = {}
    for layer in layers:
        shapes[f"{layer.name}.weight"] = layer.weight
        if layer.bias:
            shapes[f"{layer.name}.bias"] = layer.bias
    return shapes


def layer_names(layers: Sequence[LayerInfo], kind: str) -> dict[int, str]:
    """Names of the weights, or of the biases, by layer number."""
    return {layer.index: f"{layer.name}.{kind}" for layer in layers if kind == "weight" or layer.bias}


def exported(names: Iterable[str]) -> str:
    """``__all__``: constants, then classes, then functions, each sorted, the order that ruff asks for."""
    ordered = sorted(names, key=lambda name: (not name.isupper(), not name[0].isupper(), name))
    return assigned("__all__ = ", ordered)


@functools.cache
def environment(folder: Path) -> jinja2.Environment:
    """A Jinja environment in which an unknown name is an error and block tags leave no trace.

    The functions :func:`docstring`, :func:`literal` are available in templates as filters.

    Args:
        folder: with the templates; those in the folder ``shared`` next to it are there too.

    Example:
        >>> environment(template_folder("torch")).from_string("{% if true %}\\nx\\n{% endif %}\\n").render()
        'x\\n'
    """
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader([folder, folder.parent / "shared"]),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
    )
    made.filters["docstring"] = docstring
    made.filters["literal"] = literal
    return made


def docstring(parts: str | Sequence[str], indent: int = 0) -> str:
    r'''A docstring with its quotes; lines after the first are indented, the first one is not.

    Args:
        parts: the summary line, then paragraphs, separated by empty lines. Paragraphs of one line are
            wrapped; one with line breaks is kept as it is (equations, tables, lists of arguments).
        indent: spaces before the lines after the first.

    Example:
        >>> docstring(["Gradient.", "x: (B, 4)\ny: (B, 2)"], indent=4).splitlines()
        ['"""Gradient.', '', '    x: (B, 4)', '    y: (B, 2)', '    """']
    '''
    paragraphs = [parts] if isinstance(parts, str) else [part for part in parts if part]
    width = LINE_LENGTH - indent
    blocks = [
        part.splitlines()
        if "\n" in part
        else textwrap.wrap(part, width - 3 if number == 0 else width, break_long_words=False)
        for number, part in enumerate(paragraphs)
    ]
    lines: list[str] = []
    for block in blocks:
        lines += ["", *block] if lines else block
    escaped = [line.replace("\\", "\\\\").replace('"""', '\\"\\"\\"').rstrip() for line in lines]
    if len(escaped) == 1 and len(escaped[0]) + 6 <= width and not escaped[0].endswith('"'):
        return f'"""{escaped[0]}"""'
    pad = " " * indent
    body = "\n".join([escaped[0], *(pad + line if line else "" for line in escaped[1:])])
    return f'"""{body}\n{pad}"""'


def header(module: ModuleSource, target: str) -> str:
    """The docstring of a generated module.

    Args:
        module: what is printed.
        target: name of the framework and device, e.g. ``Numba, CPU``.
    """
    options = ", ".join(f"{name}={value!r}" for name, value in module.options.items())
    facts = [
        f"Generated by sifrc {module.version}. Do not edit: change the spec and compile again.",
        f"spec sha256 {module.spec_hash}",
        f"dtype {module.dtype}, method {module.method or 'none'}, options {options or 'default'}",
        f"Network {module.architecture}.",
    ]
    parts = [f"{module.name}: {module.summary} ({target}).", "\n".join(_wrapped(facts))]
    if module.cost:
        parts.append("\n".join(["Cost:", *(f"    {line}" for line in module.cost)]))
    if module.conditions:
        parts.append("\n".join(["Conditions:", *_bullets(module.conditions)]))
    return docstring(parts)


def _wrapped(lines: Iterable[str]) -> list[str]:
    return [
        part
        for line in lines
        for part in textwrap.wrap(line, LINE_LENGTH, subsequent_indent="    ", break_long_words=False)
    ]


def _bullets(texts: Iterable[str]) -> list[str]:
    return [
        part
        for text in texts
        for part in textwrap.wrap(
            text,
            LINE_LENGTH,
            initial_indent="    - ",
            subsequent_indent="      ",
            break_long_words=False,
        )
    ]


def literal(value: Any, indent: int = 0, used: int = 0, width: int = LINE_LENGTH) -> str:
    """Plain data as a Python literal in ruff's format: one line if it fits, else one item a line.

    Args:
        value: of mappings, lists, tuples, strings, numbers, booleans and None.
        indent: spaces before the statement, which later lines keep.
        used: characters of the first line that something else takes, e.g. ``SPEC = `` before it and
            a comma after it.
        width: longest line.

    Raises:
        BackendError: anything else in the data.

    Example:
        >>> print(literal({"name": "digits", "sizes": [64, 10]}))
        {"name": "digits", "sizes": [64, 10]}
    """
    flat = _flat(value)
    if indent + used + len(flat) <= width or not isinstance(value, (Mapping, list, tuple)) or not value:
        return flat
    inner = indent + 4
    pad = " " * inner
    if isinstance(value, Mapping):
        keys = {key: _flat(key) for key in value}
        rows = [f"{text}: {literal(value[key], inner, len(text) + 3, width)}" for key, text in keys.items()]
        opening, closing = "{", "}"
    else:
        rows = [literal(item, inner, 1, width) for item in value]
        opening, closing = ("[", "]") if isinstance(value, list) else ("(", ")")
    lines = "".join(f"{pad}{row},\n" for row in rows)
    return f"{opening}\n{lines}{' ' * indent}{closing}"


def assigned(head: str, value: Any) -> str:
    """``head``, which ends in ``= ``, and plain data as a literal after it."""
    return head + literal(value, used=len(head))


def _flat(value: Any) -> str:
    if value is None or isinstance(value, (bool, int, float)):
        return repr(value)
    if isinstance(value, str):
        return _string(value)
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_flat(key)}: {_flat(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_flat, value)) + "]"
    if isinstance(value, tuple):
        return "(" + ", ".join(map(_flat, value)) + ("," if len(value) == 1 else "") + ")"
    raise BackendError(f"no literal for a value of type {type(value).__name__}")


def _string(value: str) -> str:
    """Double quotes, as ruff writes them; single ones where that saves escapes."""
    text = repr(value)
    if text[0] == '"' or '"' in value:
        return text
    return '"' + text[1:-1].replace("\\'", "'") + '"'


def finished(text: str) -> str:
    """The module's text as it is written: no space at the end of a line, one newline at the end.

    Raises:
        BackendError: two functions or classes of one name, of which a module has only the last.

    Example:
        >>> finished("x = 1  \\n\\n")
        'x = 1\\n'
    """
    names = Counter(_DEFINED.findall(text))
    if twice := [name for name, count in names.items() if count > 1]:
        raise BackendError(
            f"two functions of the module are called '{twice[0]}'",
            hint="they are called after the kinds of curvature: other names in the spec's 'curvature' do",
        )
    return "\n".join(line.rstrip() for line in text.splitlines()).rstrip() + "\n"
