"""A step whose periodic part runs on a batch of its own: a function of the module for that part."""

from __future__ import annotations

from dataclasses import dataclass

from sifrc.backends.layout import call, returned, signature
from sifrc.backends.text import docstring
from sifrc.backends.torch_eager.calls import Calls, Key, Parts
from sifrc.backends.torch_eager.functions import annotation_of
from sifrc.ir.quantity import Storage

__all__ = ["OtherBatch", "other_batch"]

_NAME = "_on_batch"


@dataclass(frozen=True)
class OtherBatch:
    """What runs on the other batch.

    Args:
        text: of the function.
        keys: the periodic functions in it.
        arguments: families that it takes besides the batch.
        results: families that it returns.
    """

    text: str
    keys: tuple[Key, ...]
    arguments: tuple[str, ...]
    results: tuple[str, ...]

    def call(self, parts: Parts, indent: int, *, own: bool = True) -> list[str]:
        """The call in a step: on ``curvature`` if it is given, else on the step's ``own`` batch."""
        codes = {family.name: family.code for family in parts.program.families}
        pad = " " * indent
        arguments = [*(codes[name] for name in self.arguments), "*chosen", "checks"]
        given = "curvature, like, draw_seed" if parts.module.draws else "curvature, like"
        usual = "(inputs, targets) if curvature is None else " if own else ""
        return [
            f"{pad}chosen = {usual}self._other({given})",
            *call([codes[name] for name in self.results], _NAME, arguments, indent),
        ]


def other_batch(parts: Parts) -> OtherBatch | None:
    """The part of a step that may have a batch of its own."""
    program = parts.program
    if not program.curvature_batch:
        return None
    before = [(name, True) for name in program.curvature_batch]
    periodic = [key for key in parts.step if key[0] in program.periodic]
    made = {name for key in before for name in parts.functions[key].results}
    keys = tuple(key for key in periodic if made & set(parts.functions[key].arguments))
    rest = [key for key in parts.step if key not in keys]
    wanted = {name for key in rest for name in parts.functions[key].arguments} | set(program.kept)
    results = tuple(n for key in keys for n in parts.functions[key].results if n in wanted)
    chain = Calls(parts, 4)
    lines = chain.run([*before, *keys], results)
    own = {name for key in (*before, *keys) for name in parts.functions[key].results}
    arguments = tuple(
        family.name
        for family in program.families
        if family.name in chain.needed([*before, *keys])
        and family.name not in own | {"mean", parts.states}
        and family.storage is not Storage.DATA
    )
    kinds = {name: annotation_of(program, name) for name in (*arguments, *results)}
    codes = {family.name: family.code for family in program.families}
    parameters = [f"{codes[name]}: {kinds[name]}" for name in arguments]
    parameters += [f"inputs: {parts.checked_type}", "targets: Tensor", "checks: Checks"]
    annotation = ", ".join(kinds[name] for name in results)
    titles = ", ".join(parts.program.function(*key).title for key in keys)
    text = "\n".join(
        [
            signature(_NAME, parameters, annotation if len(results) == 1 else f"tuple[{annotation}]"),
            f"    {docstring([f'{titles}, on a batch.'], indent=4)}",
            "    mean = 1.0 / len(inputs)",
            *lines,
            *returned([codes[name] for name in results], 4),
        ]
    )
    return OtherBatch(text, keys, arguments, results)
