"""The loop over batches in CUDA modules: it launches, and asks once a step whether a check failed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from sifrc.backends.layout import call
from sifrc.backends.numba_common.functions import PrivateFunction
from sifrc.backends.numba_common.loop import LoopText
from sifrc.backends.numba_common.storage import Group

__all__ = ["CudaLoop"]


class CudaLoop(LoopText):
    """A loop of Python; objectives are summed on the device."""

    arguments: ClassVar[tuple[str, ...]] = ("checks", "sums")
    total: ClassVar[str] = "float(sums.copy_to_host()[0])"

    def begun(self, other: bool) -> list[str]:
        """The order goes to the device once."""
        lines = ["sums.copy_to_device(np.zeros(1))", "order = cuda.to_device(order)"]
        if not other:
            return lines
        more = ["if len(curvature_order):", "    curvature_order = cuda.to_device(curvature_order)"]
        return [*lines, "first = 0", *more]

    def samples(self, targets: Group | None, count: str, first: str, prefix: str = "") -> list[str]:
        """One launch for all samples, and one for their targets."""
        rows = f"{prefix}rows"
        lines = [f"_take({prefix}samples, {prefix}order, {first}, {rows}, {count})"]
        if targets is None:
            return lines
        take = "_take_classes" if self.parts.classes else "_take"
        return [*lines, f"{take}({prefix}labels, {prefix}order, {first}, {prefix}{targets.name}, {count})"]

    def filled(self, states: Group, targets: Group | None, batched: bool) -> list[str]:
        """The same for one sample."""
        if batched:
            return self.samples(targets, "batch", "position")
        return [f"rows, {states.name} = work_x[0], work_x", *self.samples(targets, "1", "position")]

    def call(self, function: PrivateFunction, arguments: Sequence[str], indent: int) -> list[str]:
        """Checks are looked at before the update."""
        return call([], function.name, [*arguments, *(["checks"] if function.guarded else [])], indent)

    def checked(self, objective: Group, batched: bool, code: int) -> list[str]:
        """Like any check."""
        return [f"_check({objective.name}, checks, {code})"]

    def added(self, objective: Group, batched: bool) -> list[str]:
        """Nothing is changed where a check has failed; this is where the host waits for the device."""
        return [
            "code = checks.code()",
            "if code != 0:",
            f"    return {self.total}, code, position{self.parts.returned_age}",
            f"_launch(_add_up, 1, {objective.name}, sums)",
        ]

    def saved(self, group: Group) -> list[str]:
        """Array by array."""
        return [f"_remember({group.name}, {group.name}_before)"]

    def ended(self, indent: int) -> list[str]:
        """Checks of all that was launched."""
        return [" " * indent + "_refuse(work.checks.code())"]
