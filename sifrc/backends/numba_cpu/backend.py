"""The Numba backend: a program as a module of compiled functions on NumPy arrays."""

from __future__ import annotations

from sifrc.backends.base import ModuleSource, Option
from sifrc.backends.numba_common.chosen import chosen_context
from sifrc.backends.numba_common.context import module_context
from sifrc.backends.numba_cpu.functions import CpuParts
from sifrc.backends.numba_cpu.step import step_context
from sifrc.backends.text import environment, finished, template_folder
from sifrc.errors import BackendError

__all__ = ["BACKEND", "NumbaBackend"]

_DECORATOR = '@njit(cache=True, error_model="numpy")'
"""Of functions of a number. Without fast-math: these keep their own order of operations, for accuracy."""


class NumbaBackend:
    """Prints Numba modules for the CPU; see :class:`sifrc.backends.base.Backend`."""

    name = "numba"
    dtypes = ("float32", "float64")
    options: tuple[Option, ...] = ()

    def emit(self, module: ModuleSource) -> str:
        """The module's text: stand-alone, deterministic, ending in a newline.

        Raises:
            BackendError: a dtype or a statement that Numba modules do not have.
        """
        if module.dtype not in self.dtypes:
            raise BackendError(
                f"the Numba backend has no dtype '{module.dtype}'", hint="dtypes: " + " ".join(self.dtypes)
            )
        template = environment(template_folder("numba")).get_template("module.py.jinja")
        parts = CpuParts(module)
        step = step_context(parts) if parts.has_step else {}
        names = module_context(parts, "Numba, CPU", _DECORATOR, chosen_context(parts), step)
        return finished(template.render(names))


BACKEND = NumbaBackend()
