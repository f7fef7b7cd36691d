"""The CUDA backend: a program as a module of Numba kernels and the functions that launch them."""

from __future__ import annotations

from sifrc.backends.base import ModuleSource, Option
from sifrc.backends.numba_common.chosen import chosen_context
from sifrc.backends.numba_common.context import module_context
from sifrc.backends.numba_common.nests import indented
from sifrc.backends.numba_common.step import step_context
from sifrc.backends.numba_cuda.chosen import CudaPrinter
from sifrc.backends.numba_cuda.functions import CudaParts
from sifrc.backends.numba_cuda.loop import CudaLoop
from sifrc.backends.numba_cuda.online import online_context
from sifrc.backends.numba_cuda.statements import HELPERS, SMALL, SOLVERS
from sifrc.backends.numba_cuda.strides import with_steps_added
from sifrc.backends.tables import table_family
from sifrc.backends.text import environment, finished, template_folder
from sifrc.errors import BackendError
from sifrc.lower.access import flat
from sifrc.lower.program import Program
from sifrc.lower.statements import Steps

__all__ = ["BACKEND", "CudaBackend"]

_DECORATOR = "@cuda.jit(device=True)"
"""Of functions of a number."""
_TILE = 16
"""Rows and columns of a product that a block computes together."""


class CudaBackend:
    """Prints Numba modules for CUDA; see :class:`sifrc.backends.base.Backend`."""

    name = "cuda"
    dtypes = ("float32", "float64")
    options: tuple[Option, ...] = (
        Option("block", 128, "threads of a block", (32, 64, 128, 256, 512, 1024)),
        Option(
            "products",
            "auto",
            "what computes products of matrices and large systems",
            ("auto", "torch", "cupy", "own"),
        ),
        Option("graph", "auto", "whether steps become CUDA graphs, which takes torch", ("auto", "never")),
    )

    def emit(self, module: ModuleSource) -> str:
        """The module's text: stand-alone, deterministic, ending in a newline.

        Raises:
            BackendError: a dtype, a statement, inputs or outputs that CUDA modules do not have.
        """
        if module.dtype not in self.dtypes:
            raise BackendError(
                f"the CUDA backend has no dtype '{module.dtype}'", hint="dtypes: " + " ".join(self.dtypes)
            )
        for there, what in (
            (module.input_classes, "classes as inputs"),
            (module.inputs, "several inputs"),
            (module.draws, "dropout in training"),
            (table_family(module.program), "fixed tables"),
            (module.places, "outputs with several axes"),
            (module.buffers, "running statistics"),
            (module.ignored is not None, "targets that do not count"),
            (any(f.classes for f in module.program.families), "classes that are integers"),
            (_has_steps(module.program), "loops over the steps of recurrent layers"),
        ):
            if there:
                raise BackendError(
                    f"the CUDA backend does not have {what}", hint="the backends torch and numba have them"
                )
        parts = CudaParts(module)
        chosen = chosen_context(parts, CudaPrinter)
        step = step_context(CudaLoop(parts)) if parts.has_step else {}
        names = module_context(parts, "Numba, CUDA", "cuda", _DECORATOR, HELPERS, chosen, step)
        online = online_context(parts) if parts.has_step else {}
        names["helpers"] |= online.get("online_helpers", set())
        if parts.has_step:
            names["helpers"].add("_sum")
        systems = bool(names["helpers"] & SOLVERS)
        own = {
            "block": parts.most,
            "products": module.options.get("products", "auto"),
            "graph": module.options.get("graph", "auto"),
            "tile": _TILE,
            "small": SMALL,
            "systems": systems,
            "launches": _plan(parts),
            "online": "",
            "places": "",
            "other_places": "",
        }
        if online:
            step["runs"]["single"] = _online_first(step["runs"]["single"], parts)
        template = environment(template_folder("cuda")).get_template("module.py.jinja")
        return finished(with_steps_added(template.render(names | own | online)))


def _online_first(lines: list[str], parts: CudaParts) -> list[str]:
    """Steps of single samples: in one launch, or else by a launch for each kernel."""
    biases = "biases, " if parts.has_biases else ""
    return [
        f"        result = _online(weights, {biases}state, samples, labels, order)",
        "        if result is None:",
        *indented(lines, 4),
    ]


def _plan(parts: CudaParts) -> str:
    """The table of kernels whose blocks take a row each."""
    kernels = [kernel for own in parts.kernels.values() for kernel in own if kernel.rows]
    size = parts.itemsize
    rows = [
        f'    "{kernel.name}": Launch("row", {kernel.threads}, {kernel.scratch * kernel.threads * size}),'
        for kernel in kernels
    ]
    if parts.has_step:
        rows.append(f'    "_add_up": Launch("row", {parts.most}, {8 * parts.most}),')
    return "\n".join(["LAUNCHES: dict[str, Launch] = {", *rows, "}"])


BACKEND = CudaBackend()


def _has_steps(program: Program) -> bool:
    return any(isinstance(statement, Steps) for f in program.functions for statement in flat(f.body))
