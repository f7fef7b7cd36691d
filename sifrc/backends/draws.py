"""What layers draw in generated modules: which functions read it, and the seeds of it."""

from __future__ import annotations

from collections.abc import Iterable

from sifrc.backends.base import ModuleSource
from sifrc.lower.access import absolute, loads_of, unrolled
from sifrc.lower.arrays import OTHER_INPUTS

__all__ = ["SEED_ARGUMENT", "SEED_TEXT", "reads_draws", "step_seed"]

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


def step_seed(seed: str, count: str) -> str:
    """The seed of a step's draws; generators take 32 bits."""
    return f"({seed} * 1_000_003 + {count}) % 2**32"
