"""What the templates of Numba modules need, whichever machine they are for."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

from sifrc.backends.base import LayerInfo
from sifrc.backends.cases import records
from sifrc.backends.layout import statement
from sifrc.backends.numba_common.access import constant_name
from sifrc.backends.numba_common.groups import owner_tables
from sifrc.backends.numba_common.operators import (
    Linearized,
    data_text,
    linearized_kinds,
    operator_texts,
    params_text,
)
from sifrc.backends.numba_common.parts import Parts
from sifrc.backends.numba_common.step import random_helpers
from sifrc.backends.numba_common.storage import Group
from sifrc.backends.operators import choosing
from sifrc.backends.tables import table_lines, uses_indices
from sifrc.backends.text import (
    LINE_LENGTH,
    assigned,
    docstring,
    exported,
    header,
    inputs_context,
    literal,
    output_texts,
    parameter_shapes,
)
from sifrc.errors import BackendError
from sifrc.ir.quantity import Storage
from sifrc.scalar import helpers as scalar_helpers
from sifrc.scalar.printing import Dialect

__all__ = ["module_context"]


def module_context(
    parts: Parts,
    machine: str,
    dialect: Dialect,
    decorator: str,
    helpers: frozenset[str],
    chosen: dict[str, Any],
    printed: dict[str, Any],
) -> dict[str, Any]:
    """Names for ``module.py.jinja``.

    Args:
        parts: of the module.
        machine: what it is for, in the header.
        dialect: of expressions.
        decorator: of functions of a number.
        helpers: names of functions that the templates have; all others are functions of a number.
        chosen: names for the operators that do different things for different arguments.
        printed: names for the optimizer.
    """
    module, program = parts.module, parts.program
    private = list(parts.functions.values())
    operators = operator_texts(parts)
    linearized = linearized_kinds(parts)
    step = bool(printed)
    used = {helper for function in private for helper in function.helpers}
    texts = "\n".join(
        [
            *(f.text for f in private),
            *(t for _, t in operators),
            *(x.text for x in linearized),
            *chosen.get("kind_functions", ()),
            *chosen["chosen"],
            printed.get("refresh", ""),
        ]
    )
    used |= {name for name in ("_delta", "_read_at") if f"{name}(" in texts}
    scalar = scalar_helpers(dialect, used - helpers, real=parts.real, decorator=decorator).rstrip("\n")
    tables = parts.work_tables()
    inputs, targets = data_text(parts, True)
    evaluation = "evaluation" if ("evaluation", True) in parts.functions else "forward"
    kinds = [item.kind for item in linearized]
    exports = [
        *(["INPUTS"] if module.inputs else []),
        "DTYPE",
        "SHAPES",
        "SPEC",
        "init",
        "predict",
        *(name for name, _ in operators),
    ]
    exports += ["BUFFERS"] if module.buffers else []
    exports += ["linearize"] if linearized else []
    exports += [record.name for record in records(program)]
    exports += [operator.name for operator in choosing(program)]
    exports += ["Workspace"] if chosen["chunks"] else []
    exports += ["GROUPS"] if program.groups else []
    exports += ["State", "step", "train_epoch"] if step else []
    exports += ["refresh"] if printed.get("refresh") else []
    return {
        "header": header(module, machine),
        "exports": exported(exports),
        "spec": assigned("SPEC: dict[str, Any] = ", module.spec),
        "real": parts.real,
        "deep": parts.deep,
        "gather": "_gathered" if parts.deep else "tuple",
        "shapes": assigned("SHAPES = ", parameter_shapes(module.layers)),
        "parameters": parts.parameter_variables,
        "parameter_tables": [assigned(f"{v.constant} = ", v.names) for v in parts.parameter_variables],
        "buffers": parts.buffer_variables,
        "buffer_shapes": assigned("BUFFERS = ", {own.name: own.shape for own in module.buffers}),
        "buffer_tables": [assigned(f"{v.constant} = ", v.names) for v in parts.buffer_variables],
        "couples": parts.couples,
        "unpacker": "_parameters_and_buffers" if module.buffers else "_parameters",
        "taken": parts.taken(),
        "taken_whole": parts.taken(whole=True),
        "taken_in_place": parts.taken(whole=True, in_place=True),
        "own_given": ", ".join(parts.parameter_names),
        "given": ", ".join(parts.given_names),
        "given_whole": ", ".join([*parts.parameter_names, *(v.name for v in parts.buffer_variables)]),
        "changed_names": "(*SHAPES, *BUFFERS)" if parts.couples else "SHAPES",
        "named_arguments": _named_arguments(parts),
        "constants": [*_constants(parts), *owner_tables(parts)],
        "guards": _guards(parts),
        "guarded": any(function.guarded for function in private) or step,
        "work_tables": _tables(parts, tables),
        "seed": module.seed,
        "initial": [*_initial(module.layers), *_initial_buffers(parts)],
        "initializers": sorted({layer.initialization for layer in module.layers}),
        "windows": any(layer.kernel for layer in module.layers),
        **inputs_context(module, "Array"),
        **output_texts(module),
        "output_size": module.output_size,
        "output": parts.output,
        "fixed_tables": table_lines(program, "numpy"),
        "table_indices": uses_indices(program),
        "table_variables": parts.table_variables,
        "table_arrays": parts.table_arrays(),
        "input_variable": {batched: parts.input_variable(batched) for batched in (True, False)},
        "filled": {name: parts.filled(name == "inputs", name) for name in ("inputs", "input")},
        "inputs_text": inputs,
        "targets_text": targets,
        "params_text": params_text(parts),
        "classes": parts.classes,
        "total": module.reduction == "sum",
        "biases": parts.has_biases,
        "needs_targets": {
            batched: any(g.family.name == "t" for g in table.values()) for batched, table in tables.items()
        },
        "samples": bool(tables[False]),
        "batches": re.search(r"(?<!\w)(_batch|_data)\(", texts) is not None,
        "single": re.search(r"(?<!\w)_sample\(", texts) is not None,
        "named": "_named(" in texts,
        "renew": bool(linearized),
        "private": private,
        "operators": operators,
        "linearized": linearized,
        "kinds": kinds,
        "prepared": _prepared_table(linearized),
        "forward_call": "\n".join(parts.calls((evaluation,), True, 4)).strip(),
        "scalar_helpers": scalar,
        "helpers": used & helpers,
        "needs_math": "math." in texts + scalar,
        "has_step": step,
        "places": "",
        "kept": "",
        "other_batch": False,
        "random_helpers": random_helpers(parts),
        **chosen,
        **printed,
    }


def _prepared_table(linearized: list[Linearized]) -> list[str]:
    items = [f'"{item.kind}": {item.name}' for item in linearized]
    flat = "    prepared = {" + ", ".join(items) + "}"
    if len(flat) <= LINE_LENGTH:
        return [flat]
    return ["    prepared = {", *(f"        {item}," for item in items), "    }"]


def _constants(parts: Parts) -> list[str]:
    """Numbers of the spec as tuples, by subscript; a subscript without a number has zero."""
    texts = []
    for family in parts.program.families:
        if family.storage is not Storage.CONSTANT:
            continue
        name = constant_name(family.code)
        if family.indexed:
            table = {index: value for (index, _), value in zip(family.shapes, family.values, strict=True)}
            last = max(index for index in table if index is not None)
            items = ", ".join(f"DTYPE({float(table.get(k, 0.0))!r})" for k in range(last + 1))
            lines = statement(f"{name} = ({items},)", 0)
        else:
            lines = [f"{name} = DTYPE({float(family.values[0])!r})"]
        texts.append(
            "\n".join([*lines, docstring(family.text[:1].upper() + family.text[1:] + ", by subscript.")])
        )
    return texts


def _guards(parts: Parts) -> str:
    program = parts.program
    unnamed = [("network", "solution of a linear system"), ("network", "objective")]
    if program.step_batched or program.step_single:
        kept = any(parts.is_memory(group) for group in parts.groups(parts.step_functions))
        state = "parameter or quantity of the state" if kept else "parameter"
        unnamed.append(("network", f"{state} after the step"))
    table = dict(enumerate((*parts.program.guards, *unnamed), 1))
    return assigned("GUARDS = ", table) + '\n"""Checks by code: layer and quantity."""'


def _tables(parts: Parts, tables: dict[bool, dict[str, Group]]) -> list[str]:
    """Shapes of the workspaces; tables that several variables share are written once."""
    uses = Counter(literal(g.table) for table in tables.values() for g in table.values() if g.is_tuple)
    shared: dict[str, str] = {}
    texts: list[str] = []
    for groups in tables.values():
        for group in groups.values():
            flat = literal(group.table)
            if uses[flat] > 1 and flat not in shared:
                shared[flat] = f"_SHAPES{len(shared) + 1}"
                texts.append(assigned(f"{shared[flat]}: Shapes = ", group.table))
    for batched, name in ((True, "_WORK"), (False, "_WORK_ONE")):
        if tables[batched] or batched:
            texts.append(_work_table(name, tables[batched], shared))
    return texts


def _named_arguments(parts: Parts) -> str:
    """Of the function that puts tensors shaped like the parameters together by name."""
    names = [*parts.parameter_names, *([] if parts.has_biases else ["biases"])]
    factor = ["factor: int"] if parts.module.reduction == "sum" else []
    return ", ".join([*(f"{name}: Arrays" for name in names), *factor])


def _work_table(name: str, groups: dict[str, Group], shared: dict[str, str]) -> str:
    rows = []
    for key, group in groups.items():
        flat = literal(group.table)
        value = shared.get(flat) or literal(group.table, indent=4, used=len(key) + 5)
        rows.append(f'    "{key}": {value},')
    kind = "batch of samples" if name == "_WORK" else "single sample"
    lines = [f"{name}: dict[str, Shapes] = {{", *rows, "}"]
    return "\n".join([*lines, f'"""Intermediate values of a {kind}: name -> shapes."""'])


def _initial_buffers(parts: Parts) -> list[str]:
    return [
        f'        "{own.name}": np.full({own.shape}, {float(own.start)!r}),' for own in parts.module.buffers
    ]


def _initial(layers: tuple[LayerInfo, ...]) -> list[str]:
    rows: list[str] = []
    for layer in layers:
        matrix, whole = f"{layer.outputs}, {layer.fan_in}", f"({', '.join(map(str, layer.weight))})"
        changed = f".reshape({whole})" if len(layer.weight) != 2 else ""
        reached = f", {layer.fan_out}" if layer.kernel else ""
        number = repr(float(layer.value))
        value = {
            "he": f"_he(generator, {matrix}){changed}",
            "glorot": f"_glorot(generator, {matrix}{reached}){changed}",
            "sparse": f"_sparse(generator, {matrix}, {min(layer.connections, layer.fan_in)}){changed}",
            "normal": f"{number} * generator.standard_normal({whole})",
            "uniform": f"generator.uniform(-{number}, {number}, {whole})",
            "zeros": f"np.zeros({whole})",
            "ones": f"np.ones({whole})",
            "constant": f"np.full({whole}, {number})",
        }.get(layer.initialization)
        if value is None:
            raise BackendError(f"the Numba backend has no initialisation '{layer.initialization}'")
        rows.append(f'        "{layer.name}.weight": {value},')
        if layer.bias is not None:
            shape = str(layer.bias[0]) if len(layer.bias) == 1 else str(layer.bias)
            start = {
                "constant": f"np.full({shape}, {number})",
                "uniform": f"generator.uniform(-{number}, {number}, {shape})",
            }.get(layer.initialization, f"np.zeros({shape})")
            rows.append(f'        "{layer.name}.bias": {start},')
    return rows
