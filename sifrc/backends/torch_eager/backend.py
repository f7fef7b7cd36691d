"""The Torch backend: a program as a module of functions on tensors and a ``torch.optim.Optimizer``."""

from __future__ import annotations

import re
from math import prod
from typing import Any

from sifrc.backends.base import LayerInfo, ModuleSource, Option
from sifrc.backends.cases import records
from sifrc.backends.draws import shape_type
from sifrc.backends.layout import call, lines_of, signature, statement
from sifrc.backends.operators import choosing
from sifrc.backends.tables import table_lines, uses_indices
from sifrc.backends.text import (
    assigned,
    data_texts,
    docstring,
    environment,
    exported,
    finished,
    header,
    inputs_context,
    layer_names,
    literal,
    output_texts,
    parameter_shapes,
    template_folder,
)
from sifrc.backends.torch_eager.calls import Calls, Parts, parts_of
from sifrc.backends.torch_eager.chosen import chosen_context
from sifrc.backends.torch_eager.groups import group_tables
from sifrc.backends.torch_eager.initializers import INITIALIZERS
from sifrc.backends.torch_eager.operators import params_text, public_functions, unpack
from sifrc.backends.torch_eager.reserved import MODULE_MEMBERS
from sifrc.backends.torch_eager.step import guard_table, memory_table, optimizer_context
from sifrc.errors import BackendError
from sifrc.ir.quantity import Storage
from sifrc.scalar import called_helpers
from sifrc.scalar import helpers as scalar_helpers

__all__ = ["BACKEND", "TorchBackend"]


class TorchBackend:
    """Prints Torch modules; see :class:`sifrc.backends.base.Backend`."""

    name = "torch"
    class_indices = True
    parameter_rates = True
    accumulates = True
    makes_again = ("entrywise",)
    dtypes = ("float32", "float64", "bfloat16")
    options = (
        Option(
            "check_forward",
            True,
            "compare the generated forward pass with the user's model at the first step (true or false)",
        ),
        Option(
            "compile", False, "compile what computes with torch.compile, at its first call (true or false)"
        ),
        Option(
            "recompute",
            False,
            "compute products that are larger than their factors, as scores of attention, where they "
            "are read, and keep none of them (true or false)",
        ),
        Option(
            "blocks",
            1,
            "compute them in so many blocks of rows, one after the other; more than one implies recompute",
            (1, 2, 4, 8, 16, 32),
        ),
    )

    def emit(self, module: ModuleSource) -> str:
        """The module's text: stand-alone, deterministic, ending in a newline.

        Raises:
            BackendError: a dtype or a statement that Torch modules do not have.
        """
        if module.dtype not in self.dtypes:
            raise BackendError(
                f"the Torch backend has no dtype '{module.dtype}'", hint="dtypes: " + " ".join(self.dtypes)
            )
        parts = parts_of(module)
        context = _context(parts)
        template = environment(template_folder("torch")).get_template("module.py.jinja")
        return finished(template.render(context))


BACKEND = TorchBackend()


def _context(parts: Parts) -> dict[str, Any]:
    module = parts.module
    public = public_functions(parts)
    private = list(parts.functions.values())
    step = bool(parts.step)
    guarded = step or any(function.guarded for function in private)
    chosen = chosen_context(parts)
    texts = "\n".join(
        [
            *(function.text for function in private),
            *(function.text for function in public),
            *chosen.get("kind_functions", ()),
            *chosen["chosen"],
        ]
    )
    weights = parts.weights.code
    biases = parts.biases.code if parts.biases is not None else ""
    chain, tables = Calls(parts, 8), _buffer_tables(parts)
    context: dict[str, Any] = {
        "header": header(module, "Torch"),
        "exports": exported(
            [
                *(["BUFFERS"] if parts.buffers else []),
                *(["NAMES"] if module.names else []),
                *("DTYPE", "SHAPES", "SPEC", "Network", "initialize", "predict"),
                *(["INPUTS"] if module.inputs else []),
                *(f.name for f in public if not f.name.startswith("_")),
                *(record.name for record in records(parts.program)),
                *(operator.name for operator in choosing(parts.program)),
                *(["GROUPS"] if parts.program.groups else []),
                *(["Optimizer"] if step else []),
            ]
        ),
        "name": module.name,
        "architecture": module.architecture,
        "spec": assigned("SPEC = ", module.spec),
        "dtype": module.dtype,
        "shapes": assigned("SHAPES = ", parameter_shapes(module.layers)),
        "weight_names": assigned("WEIGHT_NAMES = ", layer_names(module.layers, "weight")),
        "bias_names": assigned("BIAS_NAMES = ", layer_names(module.layers, "bias")),
        "names": assigned("NAMES = ", dict(module.names)) if module.names else "",
        "buffers": tables,
        "buffer_shapes": assigned("BUFFERS = ", {own.name: own.shape for own in module.buffers}),
        "couples": parts.couples,
        "params_text": params_text(parts),
        "shapes_name": "shapes" if parts.buffers else "SHAPES",
        "tables": ["WEIGHT_NAMES", *(["BIAS_NAMES"] if biases else []), *(own["names"] for own in tables)],
        "constants": [*_constants(parts), *group_tables(parts)],
        "guarded": guarded,
        "math": step or "math." in "".join(_initializers(module.layers)),
        "guards": guard_table(parts),
        "memory": memory_table(parts) if step else "",
        "has_step": step,
        "initialize_head": signature("initialize", _start_arguments(module.seed), "Parameters"),
        "network_head": signature("__init__", ["self", *_start_arguments(module.seed)], "None", 4),
        "initial": [*_initial(module.layers), *_initial_buffers(parts)],
        "initializers": _initializers(module.layers),
        "make_layers": [*_make_layers(module.layers), *_make_buffers(parts)],
        "weights": weights,
        "biases": biases,
        "forward_call": chain.run([parts.evaluation], {parts.states})[0].strip(),
        "evaluation_couples": "mean" in chain.needed([parts.evaluation]),
        "counts": any(not own.shape for own in module.buffers),
        "training_call": _training_lines(parts),
        "output": parts.output,
        "forward_arguments": ", ".join(f"{name}: Tensor" for name in module.inputs or ("inputs",)),
        "forward_names": ", ".join(module.inputs),
        "first_input": parts.first_input,
        **inputs_context(module, "Tensor"),
        **output_texts(module),
        "output_size": module.output_size,
        "targets_text": data_texts(module, True, "")[1],
        "classes": module.targets == "classes",
        "total": module.reduction == "sum" and "_named(" in texts,
        "named": "_named(" in texts,
        "batches": step or re.search(r"(?<!\w)_batch\(", texts) is not None,
        "samples": re.search(r"(?<!\w)_sample\(", texts) is not None,
        "scaled": "_scaled_product(" in texts,
        "product_into": "_product_into(" in texts,
        "weighted": "_weighted_product(" in texts,
        "entries_from": "_entries_from(" in texts,
        "read_at": "_read_at(" in texts,
        "one_hot": "_one_hot(" in texts,
        "taken": "_taken(" in texts,
        "add_at": "_add_at(" in texts,
        "put": "_put(" in texts,
        "put_each": "_put_each(" in texts,
        "read_along": "_read_along(" in texts,
        "put_along": "_put_along(" in texts,
        "largest_position": "_largest_position(" in texts,
        "first_largest": "_first_largest(" in texts,
        "largest": " _largest(" in texts,
        "sum_of_few": "_sum_of_few(" in texts,
        "few_products": "_sum_of_few_products(" in texts,
        "finite": " _all_finite(" in texts,
        "rows_finite": "_rows_finite(" in texts,
        "linearizes": "@_at_its_point" in texts,
        "scalar_helpers": scalar_helpers("torch", _scalar_helpers(texts)).rstrip("\n"),
        "solvers": _solvers(texts),
        "private": private,
        "public": public,
        "unpack": unpack(parts, 0, whole=True),
        "fixed_tables": table_lines(parts.program, "torch"),
        "table_indices": uses_indices(parts.program),
        "check_forward": bool(module.options.get("check_forward", True)),
        "compiled": bool(module.options.get("compile", False)),
    }
    printed: dict[str, Any] = optimizer_context(parts) if step else {"accumulates": False}
    drawn = "\n".join([texts, *printed.get("step_lines", ()), *printed.get("refresh_lines", ())])
    random = {name: f"_{name}(" in drawn for name in ("uniform", "normal")}
    return context | chosen | random | {"shape_type": shape_type(parts.program)} | printed


def _buffer_tables(parts: Parts) -> list[dict[str, str]]:
    """Variables of the buffers, and their tables of names by layer number."""
    return [
        {
            "code": family.code,
            "names": f"{family.code.upper()}_NAMES",
            "table": assigned(
                f"{family.code.upper()}_NAMES = ",
                {own.index: own.name for own in parts.module.buffers if own.family == family.name},
            ),
            "text": family.text.capitalize(),
        }
        for family in parts.buffers
    ]


def _initial_buffers(parts: Parts) -> list[str]:
    lines: list[str] = []
    for own in parts.module.buffers:
        function, values = _full(own.shape, repr(float(own.start)))
        lines += lines_of(values, f'"{own.name}": {function}(', "),", 8)
    return lines


def _make_buffers(parts: Parts) -> list[str]:
    """Statements that give submodules their buffers."""
    lines: list[str] = []
    made = {layer.name for layer in parts.module.layers}
    for own in parts.module.buffers:
        layer, _, slot = own.name.rpartition(".")
        outer = layer.partition(".")[0]
        for name in dict.fromkeys((outer, layer)):
            if name not in made and not (name == outer and any(m.startswith(f"{outer}.") for m in made)):
                lines.append(f"        self.{name} = torch.nn.Module()")
                made.add(name)
        empty = f"torch.empty({own.shape}, dtype=dtype, device=device)"
        lines += call([], f"self.{layer}.register_buffer", [f'"{slot}"', empty], 8)
    return lines


def _training_lines(parts: Parts) -> list[str]:
    """The network in training, where it is another than afterwards."""
    if parts.evaluation == parts.forward:
        return []
    chain, update = Calls(parts, 12), ("statistics", True)
    # Torch's own generator, as that of torch.nn.Dropout.
    draw = (
        ["            inputs = _drawn(inputs, int(torch.randint(2**31, ())))"] if parts.module.draws else []
    )
    if not parts.couples:
        return [*draw, *chain.run([parts.forward], {parts.states})]
    lines = [*draw, *chain.run([parts.forward], {parts.states, *chain.needed([update])})]
    mean = ["            mean = 1.0 / len(inputs)"]
    chain.indent = 16
    return [*mean, *lines, "            with torch.no_grad():", *chain.run([update], set())]


def _start_arguments(seed: int) -> list[str]:
    return [f"seed: int = {seed}", "dtype: torch.dtype = DTYPE", 'device: torch.device | str = "cpu"']


def _scalar_helpers(texts: str) -> list[str]:
    return [*called_helpers("torch", texts), *(["_power_below"] if "_Search(" in texts else [])]


def _solvers(texts: str) -> list[str]:
    names = (
        "_solve_sylvester",
        "_solve_kronecker",
        "_solve_definite",
        "_solve_cubic",
        "_positive_part",
        "_absolute_value",
        "_definite",
        "_Search",
    )
    called = set(re.findall(r"\w+(?=\()", texts))
    found = [name for name in names if name in called]
    found = [*(["_solve"] if "_solve_vector(" in texts or "_solve_matrix(" in texts else []), *found]
    return [*(["_finite"] if set(found) - {"_Search"} else []), *found]


def _constants(parts: Parts) -> list[str]:
    texts = []
    for family in parts.program.families:
        if family.storage is Storage.CONSTANT:
            table = {index: value for (index, _), value in zip(family.shapes, family.values, strict=True)}
            name = family.code.upper()
            value = literal(table, used=len(name) + 3) if family.indexed else repr(family.values[0])
            texts.append(f"{name} = {value}\n{docstring(family.text.capitalize() + '.')}")
    return texts


def _initial(layers: tuple[LayerInfo, ...]) -> list[str]:
    """Entries of the dict of initial values."""
    lines: list[str] = []
    for layer in layers:
        matrix, whole = [str(layer.outputs), str(layer.fan_in)], [*map(str, layer.weight)]
        value = repr(float(layer.value))
        reached = [str(layer.fan_out)] if layer.kernel else []
        found = {
            "he": ("_he", ["generator", *matrix]),
            "glorot": ("_glorot", ["generator", *matrix, *reached]),
            "sparse": ("_sparse", ["generator", *matrix, str(min(layer.connections, layer.fan_in))]),
            "normal": ("_normal_start", ["generator", *matrix, value]),
            "uniform": ("_uniform", ["generator", *matrix, value]),
            "zeros": ("torch.zeros", whole),
            "ones": ("torch.ones", whole),
            "constant": _full(layer.weight, value),
        }.get(layer.initialization)
        if found is None:
            raise BackendError(f"the Torch backend has no initialisation '{layer.initialization}'")
        function, values = found
        reshaped = function.startswith("_") and len(layer.weight) != 2
        changed = f".reshape({', '.join(whole)})" if reshaped else ""
        lines += lines_of(values, f'"{layer.name}.weight": {function}(', f"){changed},", 8)
        if layer.bias is not None:
            sizes, changed = [*map(str, layer.bias)], ""
            function, values = "torch.zeros", sizes
            if layer.initialization == "constant":
                function, values = _full(layer.bias, value)
            elif layer.initialization == "uniform":
                function, values = "_uniform", ["generator", str(prod(layer.bias)), "1", value]
                changed = f".reshape({', '.join(sizes)})"
            lines += lines_of(values, f'"{layer.name}.bias": {function}(', f"){changed},", 8)
    return lines


def _full(shape: tuple[int, ...], value: str) -> tuple[str, list[str]]:
    sizes = ", ".join(map(str, shape)) + ("," if len(shape) == 1 else "")
    return "torch.full", [f"({sizes})", value, "dtype=torch.float64"]


def _make_layers(layers: tuple[LayerInfo, ...]) -> list[str]:
    """Statements that make the submodules.

    Raises:
        BackendError: a layer's name is that of a member of ``torch.nn.Module``.
    """
    lines: list[str] = []
    made: set[str] = set()
    for layer in layers:
        outer, _, part = layer.name.partition(".")
        if outer in MODULE_MEMBERS:
            raise BackendError(
                f"a layer of a Torch module cannot be called '{outer}'",
                hint=f"torch.nn.Module has a member of this name; choose another, e.g. {outer}_1",
            )
        if part and outer not in made:
            lines.append(f"        self.{outer} = torch.nn.Module()")
            made.add(outer)
        function, arguments = _submodule(layer)
        lines += call([f"self.{layer.name}"], function, [*arguments, "dtype", "device"], 8)
    return lines


def _submodule(layer: LayerInfo) -> tuple[str, list[str]]:
    """The function that makes the submodule with a layer's parameters, and its arguments."""
    if layer.bias not in (None, layer.weight[:1]):
        return "_tensors", [str(layer.weight), str(layer.bias)]
    if layer.kernel:
        sizes = [str(layer.weight[1] * layer.groups), str(layer.outputs)]
        return "_convolution", [*sizes, str(layer.kernel), str(layer.groups), str(layer.bias is not None)]
    if len(layer.weight) == 2:
        return "_linear", [str(layer.weight[1]), str(layer.outputs), str(layer.bias is not None)]
    return "_tensors", [str(layer.weight), str(layer.bias)]


def _initializers(layers: tuple[LayerInfo, ...]) -> list[str]:
    kinds = {layer.initialization for layer in layers}
    texts = []
    for kind in sorted(kinds & set(INITIALIZERS)):
        name, text, value = INITIALIZERS[kind]
        # A channel of a convolution is read by a window of outputs.
        windows = kind == "glorot" and any(layer.kernel for layer in layers)
        number = {"normal": ", deviation: float", "uniform": ", limit: float"}
        more = ", reached: int = 0" if windows else number.get(kind, "")
        head = signature(name, ["generator: torch.Generator", "outputs: int", f"inputs: int{more}"], "Tensor")
        value = value.format(reached="(reached or outputs)" if windows else "outputs")
        texts.append("\n".join([head, f'    """{text}"""', *statement(f"return {value}", 4, "values")]))
    if "sparse" in kinds:
        texts.append(_SPARSE)
    return texts


_SPARSE = '''def _sparse(generator: torch.Generator, outputs: int, inputs: int, connections: int) -> Tensor:
    """Standard normal at ``connections`` places of each row, zero elsewhere."""
    places = torch.rand(outputs, inputs, generator=generator, dtype=torch.float64).argsort(1)[:, :connections]
    values = torch.randn(outputs, connections, generator=generator, dtype=torch.float64)
    return torch.zeros(outputs, inputs, dtype=torch.float64).scatter_(1, places, values)'''
