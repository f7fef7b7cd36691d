"""The Numba backend: a program as a module of compiled functions on NumPy arrays."""

from __future__ import annotations

from sifrc.backends.base import ModuleSource, Option
from sifrc.backends.numba_common.chosen import chosen_context
from sifrc.backends.numba_common.context import module_context
from sifrc.backends.numba_common.step import step_context
from sifrc.backends.numba_cpu.functions import CpuParts
from sifrc.backends.numba_cpu.loop import CpuLoop
from sifrc.backends.text import environment, finished, template_folder
from sifrc.errors import BackendError

__all__ = ["BACKEND", "NumbaBackend"]

_DECORATOR = '@njit(cache=True, error_model="numpy")'
"""Of functions of a number. Without fast-math: these keep their own order of operations, for accuracy."""

_SHAPES_HELPERS = frozenset({"_as_matrix", "_entries"})
_REDUCTIONS = frozenset({"_log_softmax", "_log_sum_exp", "_magnitude", "_maximum", "_first_largest"})
_SOLVERS = frozenset(
    {"_solve_vector", "_solve_matrix", "_solve_sylvester", "_solve_kronecker", "_solve_definite"}
    | {"_solve_cubic", "_positive_part", "_absolute_value", "_definite", "_inner", "_add", "_turn"}
)
_HELPERS = (
    _SHAPES_HELPERS | _REDUCTIONS | _SOLVERS | {"_scale", "_all_finite", "_counted", "_delta", "_read_at"}
)


class NumbaBackend:
    """Prints Numba modules for the CPU; see :class:`sifrc.backends.base.Backend`."""

    name = "numba"
    class_indices = True
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
        step = step_context(CpuLoop(parts)) if parts.has_step else {}
        names = module_context(
            parts, "Numba, CPU", "numba", _DECORATOR, _HELPERS, chosen_context(parts), step
        )
        return finished(template.render(names | {"helpers": _with_dependencies(names["helpers"])}))


BACKEND = NumbaBackend()


def _with_dependencies(used: set[str]) -> set[str]:
    more = set(used)
    if "_solve_vector" in more:
        more.add("_solve_matrix")
    if more & {"_positive_part", "_absolute_value"}:
        more.add("_of_eigenvalues")
    if more & {
        "_solve_matrix",
        "_solve_sylvester",
        "_solve_kronecker",
        "_solve_definite",
        "_solve_cubic",
        "_definite",
        "_of_eigenvalues",
    }:
        more.add("_all_finite")
    return more
