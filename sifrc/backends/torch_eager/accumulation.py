"""Steps over several batches: functions of what each of them adds up, and what follows from the sums."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sifrc.backends.draws import drawn_shape, step_seed
from sifrc.backends.layout import call, signature
from sifrc.backends.text import LINE_LENGTH, docstring
from sifrc.backends.torch_eager.calls import Calls, Key, Parts
from sifrc.backends.torch_eager.functions import annotation_of
from sifrc.backends.torch_eager.other_batch import OtherBatch
from sifrc.ir.quantity import Storage
from sifrc.lower.program import Stage

__all__ = ["Accumulation", "accumulation"]

_OBJECTIVE = "mean_objective"
"""Key of the mean objective among the means of a batch."""


@dataclass(frozen=True)
class Accumulation:
    """A step over several batches.

    Args:
        functions: texts of functions of a batch that return what it adds up.
        gather: lines that add up what a batch has, as soon as it is there.
        objective: lines that compute the objective of this batch, where those do not.
        finish: lines of what follows, until something changes.
        change: lines of what changes.
        kept: when batches are kept for a later stage: '' for always, ``due``, or None for never.
    """

    functions: tuple[str, ...]
    gather: tuple[str, ...]
    objective: tuple[str, ...]
    finish: tuple[str, ...]
    change: tuple[str, ...]
    kept: str | None


def accumulation(
    parts: Parts, periodic: Iterable[Key], kept: dict[str, str], other: OtherBatch | None
) -> Accumulation | None:
    """The step over several batches; None where a batch cannot be taken in parts.

    Args:
        parts: of the module.
        periodic: functions that run now and then.
        kept: periodic families that the state keeps: name -> variable.
        other: the periodic part on a batch of its own.
    """
    if not parts.program.stages:
        return None
    return _Printer(parts, frozenset(name for name, _ in periodic), kept, other).lines()


@dataclass(frozen=True)
class _Means:
    """Functions of a batch that return means over it, as one function of the module.

    Args:
        name: of the function.
        text: of it.
        arguments: variables that it takes before the inputs.
        draws: variables of random numbers that it takes, and what draws them: function and arguments.
        guarded: whether it takes checks.
    """

    name: str
    text: str
    arguments: tuple[str, ...]
    draws: tuple[tuple[str, str, tuple[str, ...]], ...]
    guarded: bool

    def call(self, indent: int) -> list[str]:
        """Lines that call it."""
        given = [*self.arguments, "inputs", "targets", *(["checks"] if self.guarded else [])]
        lines: list[str] = []
        for code, function, values in self.draws:
            # The rows of this batch among those of all samples.
            lines += call([code], function, [*values], indent)
            lines.append(f"{' ' * indent}{code} = {code}[start:]")
        return [*lines, *call(["means"], self.name, given, indent)]


@dataclass
class _Printer:
    parts: Parts
    periodic: frozenset[str]
    kept: dict[str, str]
    other: OtherBatch | None

    def lines(self) -> Accumulation:
        """All of it."""
        functions: list[str] = []
        gather: list[str] = []
        finish: list[str] = []
        change: list[str] = []
        again: list[str] = []
        for number, stage in enumerate(self.parts.program.stages):
            always, all_of_it = self._of_stage(number, stage)
            functions += [one.text for one in (always, all_of_it) if one is not None]
            if number == 0:
                gather = _chosen(always, all_of_it, 8, adds=False)
            elif always is not None or all_of_it is not None:
                again.append("" if always is not None else "due")
                finish += self._loop(stage, always, all_of_it)
            finish += self._read(stage)
            for name in stage.once:
                lines = change if change or self.parts.functions[name, True].mutates else finish
                lines += self._once(name, 12 if lines is change else 8)
        first = self.parts.program.stages[0]
        own = [] if self._has_objective(first.each) else self._objective()
        kept = None if not again else "" if "" in again else "due"
        return Accumulation(tuple(functions), tuple(gather), tuple(own), tuple(finish), tuple(change), kept)

    # -- functions of a batch

    def _of_stage(self, number: int, stage: Stage) -> tuple[_Means | None, _Means | None]:
        """What always runs on each batch, and all that does where more of it runs now and then."""
        wanted: set[str] = set()
        always: list[str] = []
        for name in reversed(stage.each):
            results = {*self._results(name)}
            ends = not self._is_periodic(name) and {*stage.sums, self.parts.objective} & results
            if ends or wanted & results:
                always.insert(0, name)
                wanted |= {*self.parts.functions[name, True].arguments}
        suffix = "" if number == 0 else f"_{number + 1}"
        usual = self._means(f"_batch_means{suffix}", stage, always) if always else None
        if len(always) == len(stage.each):
            return usual, None
        return usual, self._means(f"_batch_means{suffix}_when_due", stage, stage.each)

    def _means(self, name: str, stage: Stage, names: Sequence[str]) -> _Means:
        program = self.parts.program
        keys = [(each, True) for each in names]
        known = self._known_before(stage)
        chain = Calls(self.parts, 4)
        chain.known |= known
        lines: list[str] = []
        for position, key in enumerate(keys):
            wanted = (chain.needed(keys[position + 1 :]) | {*stage.sums, self.parts.objective}) - known
            lines += chain.one(key, wanted)
        results = {result for each in names for result in self._results(each)}
        made = results - known
        needed = chain.needed(keys)
        families = [
            family
            for family in program.families
            if family.name in needed - made
            and family.name not in ("mean", self.parts.states)
            and family.storage is not Storage.DATA
        ]
        if "mean" in needed:
            lines.insert(0, "    mean = 1.0 / len(inputs)")
        items = [f'"{self._code(n)}": {self._code(n)}' for n in stage.sums if n in results]
        if self.parts.objective in results:
            items.append(f'"{_OBJECTIVE}": {self._code(self.parts.objective)}.mean()')
        flat = f"    return {{{', '.join(items)}}}"
        laid_out = [flat]
        if len(flat) > LINE_LENGTH:
            laid_out = ["    return {", *(f"        {item}," for item in items), "    }"]
        parameters = [f"{family.code}: {annotation_of(program, family.name)}" for family in families]
        parameters += [f"inputs: {self.parts.checked_type}", "targets: Tensor"]
        parameters += ["checks: Checks"] if chain.guarded else []
        text = [
            signature(name, parameters, "dict[str, Any]"),
            f"    {docstring(['Means over a batch that those over all samples are made of.'], indent=4)}",
            *lines,
            *laid_out,
        ]
        seed, samples, like = step_seed("seed", "int(steps)"), "start + len(inputs)", self.parts.draws_like
        draws = [
            (f.code, f"_{f.code}", (seed, drawn_shape(f, samples), like))
            for f in families
            if f.storage is Storage.RANDOM
        ]
        return _Means(
            name, "\n".join(text), tuple(family.code for family in families), tuple(draws), chain.guarded
        )

    def _known_before(self, stage: Stage) -> set[str]:
        """What is known of all batches when a stage begins."""
        stages = self.parts.program.stages
        earlier = stages[: stages.index(stage)]
        found = {name for one in earlier for name in one.sums}
        return found | {result for one in earlier for name in one.once for result in self._results(name)}

    # -- lines of the optimizer

    def _loop(self, stage: Stage, always: _Means | None, all_of_it: _Means | None) -> list[str]:
        """All batches once more."""
        if always is None:
            condition = "due and curvature is None" if self._takes_other(stage) else "due"
            head, indent = [f"        if {condition}:"], 12
            body = _chosen(all_of_it, None, indent + 4)
        else:
            head, indent = [], 8
            body = _chosen(always, all_of_it, indent + 4)
        draws = ", draw_seed" if self.parts.module.draws else ""
        names = "inputs, targets, start" if any("[start:]" in line for line in body) else "inputs, targets, _"
        return [*head, f"{' ' * indent}for {names} in self._again(block, like{draws}):", *body]

    def _takes_other(self, stage: Stage) -> bool:
        """Whether a batch of its own may take the place of all in a stage."""
        return self.other is not None and {name for name, _ in self.other.keys} <= {*stage.each}

    def _read(self, stage: Stage) -> list[str]:
        """What a stage has added up, under the names of variables."""
        by_family = {result: name for name in stage.each for result in self._results(name)}
        usual = [name for name in stage.sums if not self._is_periodic(by_family[name])]
        now_and_then = [name for name in stage.sums if self._is_periodic(by_family[name])]
        lines = ["        means = block.means()"] if stage.sums else []
        lines += [self._taken(name, 8) for name in usual]
        if self._has_objective(stage.each):
            lines.append(f'        {self._code(self.parts.objective)} = means["{_OBJECTIVE}"]')
        if not now_and_then:
            return lines
        inner = [self._taken(name, 12) for name in now_and_then]
        if self._takes_other(stage):
            assert self.other is not None
            head = ["        if due and curvature is not None:", *self.other.call(self.parts, 12, own=False)]
            lines += [*head, "        elif due:", *inner]
        else:
            lines += ["        if due:", *inner]
        kept = [self.kept[name] for name in now_and_then if name in self.kept]
        memory = [f'            {code} = self._memory("{code}")' for code in kept]
        return lines + (["        else:", *memory] if kept else [])

    def _once(self, name: str, indent: int) -> list[str]:
        """A function of all samples."""
        program, later = self.parts.program, self._later(name)
        chain = Calls(self.parts, indent)
        chain.known |= {family.name for family in program.families}
        if not self._is_periodic(name):
            return chain.one((name, True), later, indent)
        pad = " " * indent
        kept = [self.kept[result] for result in self._results(name) if result in self.kept]
        memory = [f'{pad}    {code} = self._memory("{code}")' for code in kept]
        lines = chain.one((name, True), later, indent + 4)
        return [f"{pad}if due:", *lines, *([f"{pad}else:", *memory] if kept else [])]

    def _later(self, name: str) -> set[str]:
        """What others read after a function, or the state keeps."""
        found = {*self.kept}
        for stage in reversed(self.parts.program.stages):
            for other in reversed(stage.once):
                if other == name:
                    return found
                found |= {*self.parts.functions[other, True].arguments}
            found |= {a for other in stage.each for a in self.parts.functions[other, True].arguments}
        return found

    def _objective(self) -> list[str]:
        """The objective of one batch, by the functions of the step."""
        keys = list(self.parts.step)
        made = [self.parts.objective in self.parts.functions[key].results for key in keys]
        end = made.index(True)
        chain = Calls(self.parts, 8)
        wanted = {self.parts.objective}
        chosen: list[Key] = []
        for key in reversed(keys[: end + 1]):
            if wanted & {*self.parts.functions[key].results}:
                chosen.insert(0, key)
                wanted |= {*self.parts.functions[key].arguments}
        return chain.run(chosen, {self.parts.objective})

    def _taken(self, name: str, indent: int) -> str:
        return f'{" " * indent}{self._code(name)} = means["{self._code(name)}"]'

    def _has_objective(self, names: Iterable[str]) -> bool:
        return any(self.parts.objective in self._results(name) for name in names)

    def _results(self, name: str) -> tuple[str, ...]:
        return self.parts.functions[name, True].results

    def _code(self, name: str) -> str:
        return self.parts.program.family(name).code

    def _is_periodic(self, name: str) -> bool:
        """Whether a function, or that which it is a part of, runs now and then."""
        return self.parts.program.parts_of_steps.get(name, name) in self.periodic


def _chosen(usual: _Means | None, when_due: _Means | None, indent: int, *, adds: bool = True) -> list[str]:
    """The call of what always runs, or of all that runs where something is due."""
    pad = " " * indent
    added = [f"{pad}block.add(len(inputs), means)"] if adds else []
    if when_due is None:
        return [] if usual is None else [*usual.call(indent), *added]
    if usual is None:
        return [f"{pad}means = {{}}", f"{pad}if due:", *when_due.call(indent + 4), *added]
    return [f"{pad}if due:", *when_due.call(indent + 4), f"{pad}else:", *usual.call(indent + 4), *added]
