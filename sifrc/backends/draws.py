"""What layers draw in generated modules: which functions read it, and the seeds of it."""

from __future__ import annotations

from collections.abc import Iterable

from sifrc.backends.base import ModuleSource
from sifrc.ir.quantity import Storage
from sifrc.lower.access import absolute, loads_of, unrolled
from sifrc.lower.arrays import OTHER_INPUTS, Family
from sifrc.lower.program import Program

__all__ = ["SEED_ARGUMENT", "SEED_TEXT", "drawn_shape", "reads_draws", "shape_type", "step_seed"]

SEED_ARGUMENT = "seed: int = 0"
"""Of public functions whose results depend on what layers draw."""
SEED_TEXT = "of the draws of layers: for one seed, the same entries are left out."


def reads_draws(module: ModuleSource, names: Iterable[str], batched: bool) -> bool:
    """Whether one of some functions of the program reads what layers draw."""
    drawn = {(OTHER_INPUTS, index) for index in module.draws}
    functions = (module.program.function(name, batched) for name in names) if drawn else ()
    return any(
        absolute(load.ref, k) in drawn
        for function in functions
        for statement, k in unrolled(function.body)
        for load in loads_of(statement)
    )


def drawn_shape(family: Family, samples: str) -> str:
    """The shape of random numbers of a batch.

    Args:
        family: of the numbers.
        samples: the size of the batch.
    """
    (_, (_, *sizes)) = family.shapes[0]
    return f"({', '.join((samples, *map(str, sizes)))})"


def shape_type(program: Program) -> str:
    """The type of such shapes."""
    random = [family for family in program.families if family.storage is Storage.RANDOM]
    return "tuple[int, int]" if all(len(f.shapes[0][1]) == 2 for f in random) else "tuple[int, ...]"


def step_seed(seed: str, count: str) -> str:
    """The seed of a step's draws; generators take 32 bits."""
    return f"({seed} * 1_000_003 + {count}) % 2**32"
