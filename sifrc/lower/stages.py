"""Steps over several batches: which of its functions run on each batch, and which on their means.

A value without samples that is made of values of samples is their mean over the batch. The mean over all
samples is that of the means of some batches, weighted by their samples. So a step of many samples goes in
stages: functions that run on one batch after the other, whose means are added up, and then functions that
read those means alone. A value of a sample that depends on a mean, as a tangent along the mean gradient,
belongs to the next stage, where what it needs of a sample is computed once more.

Most functions of a step are of one sort as they are. One that is not is taken apart: ``θ − lr·mean`` into the
mean and what is made of it, and a product of samples' factors with a mean of its own function into the mean
of the former and its product with the latter.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from sifrc.catalogue.phase import Phase
from sifrc.derive.recurrence import Name, name_of
from sifrc.derive.system import Equation, System
from sifrc.ir.traverse import inputs_of
from sifrc.lower.arrays import OBJECTIVE
from sifrc.lower.batch import MEAN
from sifrc.lower.means import COUPLED, MARK, Apart, Coupled, is_affine, of_samples, reads
from sifrc.lower.program import Function, Stage
from sifrc.methods.plan import Plan

__all__ = ["Part", "stages_of", "taken_apart"]

_ONCE = "of_means"


@dataclass(frozen=True)
class Part:
    """A phase of a step, or a part of one.

    Args:
        phase: the equations, of a batch.
        of: name of the phase of the step.
        stage: in which it runs, from 0; for what runs on means, the stage that they are complete after.
        each: whether it runs on each batch.
        names: means that it makes.
    """

    phase: Phase
    of: str
    stage: int
    each: bool
    names: frozenset[Name] = frozenset()

    @property
    def is_new(self) -> bool:
        """Whether it is no phase of the step."""
        return self.phase.name != self.of

    def without_others(self) -> Part:
        """All of the phase, where it reads no intermediate arrays of other phases."""
        system = replace(self.phase.system, name=f"{self.of}_{_ONCE}")
        return replace(self, phase=replace(self.phase, system=system, after=()))

    def guarded(self, plan: Plan) -> tuple[tuple[str, tuple[str, ...]], ...]:
        """What must be finite of it: that of the step's phase, if it is made of means."""
        families = None if self.each else dict(plan.guarded).get(self.of)
        return () if families is None else ((self.phase.name, families),)

    def words(self) -> Iterator[tuple[str, str, str]]:
        """Families of means that have none, with the family that they are for, and a number."""
        for equation in self.phase.system.equations:
            family, found, number = equation.symbol.family.partition(MARK)
            if found:
                yield equation.symbol.family, family, number


def taken_apart(
    phases: Sequence[Phase],
    plan: Plan,
    in_place: frozenset[str],
    functions: Sequence[Function],
    intermediate: Mapping[str, str],
) -> tuple[list[Part], str]:
    """The parts of a step over several batches, or why there are none.

    Args:
        phases: of batches, with those of the step.
        plan: that says which those are.
        in_place: families that the step overwrites.
        functions: of these phases, lowered.
        intermediate: family of intermediate arrays -> that which they are for.
    """
    known = {phase.name: phase for phase in phases}
    if not plan.step or any(name not in known for name in plan.step):
        return [], ""
    try:
        parts = _parts_of_step([known[name] for name in plan.step], in_place)
    except Coupled as error:
        return [], str(error)
    by_name = {function.name: function for function in functions}
    of_batches = {f for part in parts if part.each and not part.is_new for f in by_name[part.of].writes}
    of_batches = {MEAN.family, *(family for family in of_batches if family in intermediate)}
    # What runs on means may read no sums of one batch.
    own = {part.of for part in parts if not part.each and not part.is_new}
    torn = {name for name in own if of_batches.intersection(by_name[name].reads)}
    return [part.without_others() if part.of in torn and not part.is_new else part for part in parts], ""


def _parts_of_step(phases: Sequence[Phase], in_place: Collection[str]) -> list[Part]:
    """The phases of a step, each in one part or in two.

    Args:
        phases: in the order of the step, with the equations of a batch.
        in_place: families that the step overwrites.

    Raises:
        Coupled: a function has values of samples that depend on means which it makes itself.
    """
    levels = _Levels(frozenset(in_place))
    parts = [part for phase in phases for part in levels.parts(phase)]
    last = max(part.stage for part in parts)
    # What is overwritten stays as it is until all has been read.
    return [replace(p, stage=last) if levels.changes(p.phase) else p for p in parts]


@dataclass
class _Levels:
    """In which stage each value can be computed, as far as the phases of a step are known.

    Args:
        in_place: families that the step overwrites.
        at: by name, for values that are not there from the start.
        complete: the same for what runs on means, of constants that are made beside values of samples.
        gone: values of samples that stand in what reads them.
    """

    in_place: frozenset[str]
    at: dict[Name, int] = field(default_factory=dict)
    complete: dict[Name, int] = field(default_factory=dict)
    gone: set[Name] = field(default_factory=set)

    def parts(self, phase: Phase) -> Iterator[Part]:
        """A phase in one part or in two."""
        equations = phase.system.equations
        if any(reads(equation.value, self.gone) for equation in equations):
            raise Coupled(COUPLED.format(phase.system.title))
        own = {name_of(equation.symbol) for equation in equations}
        level = self._level(equations, own)
        if not any(e.symbol.role.per_sample or of_samples(e.value) for e in equations):
            level = self._level(equations, own, once=True)
            self._set(own, level)
            # What depends on no sample may run anywhere, but for what it overwrites.
            early = level == 0 and not self.changes(phase)
            yield Part(phase, phase.name, max(level - 1, 0), early, frozenset(own if early else ()))
            return
        without = {name_of(e.symbol) for e in equations if not e.symbol.role.per_sample}
        means = self._means(equations)
        if means is not None:
            self._set(own, level)
            self._set(means, level + 1)
            self.complete |= dict.fromkeys(without, level + 1)
            yield Part(phase, phase.name, level, True, frozenset(without))
            return
        apart = Apart(phase.system.title, self.in_place)
        each, once, made = apart.split(equations)
        self.gone |= {name_of(symbol) for symbol in apart.inlined}
        level = self._level(each, own)
        after = max(level, self._level(once, own, once=True) - 1)
        self._set(own, level)
        self._set(made, level + 1)
        self._set({name_of(e.symbol) for e in once}, after + 1)
        yield self._part(phase, each, "means", (level, True), made)
        yield self._part(phase, once, _ONCE, (after, False), frozenset())

    def changes(self, phase: Phase) -> bool:
        """Whether a phase overwrites something."""
        return any(equation.symbol.family in self.in_place for equation in phase.system.equations)

    def _part(
        self,
        phase: Phase,
        equations: Sequence[Equation],
        word: str,
        place: tuple[int, bool],
        names: frozenset[Name],
    ) -> Part:
        title = f"{phase.system.title}: {'means over a batch' if place[1] else 'of the means'}"
        system = System(f"{phase.name}_{word}", title, tuple(equations))
        after = phase.after if place[1] else ()
        return Part(Phase(system, after), phase.name, *place, names)

    def _level(self, equations: Iterable[Equation], own: Collection[Name], *, once: bool = False) -> int:
        """The first stage in which all that some equations read of others is there."""
        read = {name_of(symbol) for equation in equations for symbol in inputs_of(equation.value)} - set(own)
        complete = self.complete if once else {}
        return max((max(self.at.get(name, 0), complete.get(name, 0)) for name in read), default=0)

    def _set(self, names: Collection[Name], level: int) -> None:
        self.at |= dict.fromkeys(names, level)

    def _means(self, equations: Iterable[Equation]) -> set[Name] | None:
        """What a phase makes that is the weighted mean of its values of some batches; None if not all is."""
        found: set[Name] = set()
        for equation in equations:
            symbol, value = equation.symbol, equation.value
            reads_means = any(name_of(s) in found for s in inputs_of(value))
            if symbol.role.per_sample:
                if reads_means:
                    return None
            elif symbol.family in self.in_place or (reads_means and not is_affine(value, found)):
                return None
            elif reads_means or of_samples(value):
                found.add(name_of(symbol))
        return found


def stages_of(
    parts: Sequence[Part], functions: Mapping[str, Function], kept: Collection[str]
) -> tuple[Stage, ...]:
    """The stages of a step, as the functions of its parts make them.

    Args:
        parts: of the step, in order.
        functions: lowered, by name.
        kept: families that are kept from step to step.
    """
    if not parts:
        return ()
    stages: list[Stage] = []
    means = {family for part in parts for family, _ in part.names}
    for number in range(1 + max(part.stage for part in parts)):
        own = [part.phase.name for part in parts if part.each and part.stage == number]
        later = {
            family
            for part in parts
            if part.stage > number or (part.stage == number and not part.each)
            for family in functions[part.phase.name].reads
        }
        made = dict.fromkeys(family for name in own for family in functions[name].writes)
        sums = tuple(family for family in made if family in means and family in later.union(kept))
        wanted = {n for n in own if {*sums, OBJECTIVE}.intersection(functions[n].writes)}
        reads = {family for name in wanted for family in functions[name].reads}
        for part in reversed(parts):
            # What is of a sample, or a part of a batch, is computed once more for those that read it.
            name = part.phase.name
            known = means if part.stage < number else set()
            if part.each and part.stage <= number and reads & (set(functions[name].writes) - known):
                wanted.add(name)
                reads |= set(functions[name].reads)
        each = tuple(part.phase.name for part in parts if part.phase.name in wanted)
        once = tuple(part.phase.name for part in parts if not part.each and part.stage == number)
        stages.append(Stage(each, sums, once))
    return tuple(stages)
