"""Chains of calls of private functions: bodies of public operators and of the optimizer's step."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from sifrc.backends.base import ModuleSource
from sifrc.backends.draws import reads_draws
from sifrc.backends.kinds import handed_families
from sifrc.backends.layout import call
from sifrc.backends.plain import Plain
from sifrc.backends.torch_eager.functions import PrivateFunction, plan_functions
from sifrc.derive.shaped import PARAMETER
from sifrc.errors import BackendError
from sifrc.ir.quantity import Storage
from sifrc.lower.arrays import OBJECTIVE, OTHER_INPUTS, Family
from sifrc.lower.chains import Key, operator_chains
from sifrc.lower.program import Program

__all__ = ["Calls", "Key", "Parts", "operator_keys", "parts_of"]


@dataclass(frozen=True)
class Parts:
    """What a module consists of, as the templates need it.

    Args:
        module: what is printed.
        weights, biases: parameter families; biases is None where no layer has one.
        buffers: families of what layers keep besides.
        states: name of the family x.
        targets: name of the family t.
        functions: private functions by (name, batched).
        forward: key of the function that computes the states.
        evaluation: key of the one that computes them after training, which is another where samples act on
            each other in training.
        output: source text of the network's output after it.
        objective: family of the objective of a sample, or ''.
        step: keys of the step's functions in order, the update last.
    """

    module: ModuleSource
    weights: Family
    biases: Family | None
    buffers: tuple[Family, ...]
    states: str
    targets: str
    functions: Mapping[Key, PrivateFunction]
    forward: Key
    evaluation: Key
    output: str
    objective: str
    step: tuple[Key, ...]

    @property
    def program(self) -> Program:
        """The program."""
        return self.module.program

    @property
    def codes(self) -> list[str]:
        """Variables of the weights, and of the biases where there are some."""
        return [self.weights.code] + ([] if self.biases is None else [self.biases.code])

    @property
    def couples(self) -> bool:
        """Whether samples act on each other in training: buffers are for what comes after it."""
        return ("statistics", True) in self.functions

    @property
    def given(self) -> list[str]:
        """Variables that operators take of what the user gives by name."""
        # Running statistics are for what comes after training; tensors that are not trained are for both.
        read = self.functions[self.forward].arguments
        return self.codes + [f.code for f in self.buffers if not self.couples or f.name in read]

    def reads_buffers(self, keys: Iterable[Key]) -> bool:
        """Whether one of the functions takes a buffer."""
        names = {family.name for family in self.buffers}
        return any(names.intersection(self.functions[key].arguments) for key in keys)

    def draws(self, keys: Iterable[Key]) -> bool:
        """Whether one of the functions reads what layers draw."""
        return any(reads_draws(self.module, [name], batched) for name, batched in keys)

    @property
    def unpacker(self) -> str:
        """The function that checks tensors like the parameters and takes them by layer."""
        return "_weights" if self.biases is None else "_weights_and_biases"

    @property
    def inputs_type(self) -> str:
        """Type of the inputs that public functions take."""
        return "Inputs" if self.module.inputs else "Tensor"

    @property
    def checked_type(self) -> str:
        """Type of the inputs, once they are checked."""
        return "_Inputs" if self.module.inputs or self.module.draws else "Tensor"

    @property
    def first_input(self) -> str:
        """x_0, from the checked inputs."""
        return "inputs.first" if self.module.inputs or self.module.draws else "inputs"

    @property
    def draws_like(self) -> str:
        """A tensor whose dtype and device drawn numbers have: the first input, where it is no class."""
        _, classes = next(iter(self.module.inputs.values()), ((), self.module.input_classes))
        return self.like if classes else self.first_input

    @property
    def like(self) -> str:
        """A tensor whose dtype and device the others have."""
        return f"next(iter({self.weights.code}.values()))"


def parts_of(module: ModuleSource) -> Parts:
    """Find the roles of families and functions, and print the private functions.

    Raises:
        BackendError: the program lacks one of them.
    """
    program = module.program
    parameters = [f for f in program.families if f.storage is Storage.PARAMETER]
    buffers = tuple(f for f in program.families if f.storage is Storage.BUFFER)
    weights, biases = (
        next((f for f in parameters if f.name == PARAMETER.family(slot)), None) for slot in ("weight", "bias")
    )
    states = next((f for f in program.families if f.name == "x"), None)
    targets = next((f.name for f in program.families if f.name == "t"), "")
    if weights is None or states is None:
        raise BackendError("the program has no weights or no states x")
    last = max(index for index, _ in states.shapes if index is not None)
    forward = next((f.name for f in program.functions if f.name == "forward" and f.batched), None)
    if forward is None:
        raise BackendError("the program has no batched function 'forward'")
    step = _step(program)
    chains = [chain.functions for operator in program.operators for chain in operator_chains(operator)]
    wanted = {name for operator in program.operators for name in operator.families()}
    if step:
        wanted.add(OBJECTIVE)
    apart = (*program.curvature_batch, *(n for n in program.step_batched if n in program.periodic))
    if program.curvature_batch:
        chains.append(tuple((name, True) for name in apart))
        wanted |= set(program.kept)
    if program.stages:
        whole = dict.fromkeys(name for stage in program.stages for name in (*stage.each, *stage.once))
        chains.append(tuple((name, True) for name in whole))
    names = {function.name for function in program.functions}
    evaluation = "evaluation" if "evaluation" in names else forward
    chains += [((forward, True),), ((evaluation, True),), step]
    if "statistics" in names:
        chains.append(((forward, True), ("statistics", True)))
    wanted |= handed_families(program)
    functions = plan_functions(
        program,
        chains,
        frozenset(wanted),
        states.name,
        output=(states.name, last),
        single=module.dtype != "float64",
        differentiated=frozenset({forward, evaluation, "statistics"}),
    )
    return Parts(
        module,
        weights,
        biases,
        buffers,
        states.name,
        targets,
        functions,
        (forward, True),
        (evaluation, True),
        f"{states.code}[{last}]",
        OBJECTIVE if step else "",
        step,
    )


def _step(program: Program) -> tuple[Key, ...]:
    """Functions of a step."""
    names = program.step_batched or program.step_single
    forms = {(f.name, f.batched) for f in program.functions}
    batched = bool(program.step_batched) and all((name, True) in forms for name in names)
    return tuple((name, batched) for name in names)


@dataclass
class Calls:
    """Calls in order, with the values that are there already.

    Args:
        parts: of the module.
        indent: of the calls.
        known: families whose values are local variables under their code names.
        guarded: whether some call takes ``checks``.
    """

    parts: Parts
    indent: int
    known: set[str] = field(default_factory=set)
    guarded: bool = False

    def run(self, keys: Sequence[Key], wanted: Iterable[str]) -> list[str]:
        """Source lines of the calls; results that neither a later call nor ``wanted`` needs become ``_``."""
        lines: list[str] = []
        for position, key in enumerate(keys):
            lines += self.one(key, self.needed(keys[position + 1 :]) | set(wanted))
        return lines

    def needed(self, keys: Iterable[Key]) -> set[str]:
        """Families that the functions take."""
        return {name for key in keys for name in self.parts.functions[key].arguments}

    def one(self, key: Key, wanted: set[str], indent: int | None = None) -> list[str]:
        """Source lines of one call."""
        function = self.parts.functions[key]
        program = self.parts.program
        arguments = [self._argument(program.family(name), function) for name in function.arguments]
        if function.guarded:
            arguments.append("checks")
            self.guarded = True
        targets = [program.family(name).code if name in wanted else "_" for name in function.results]
        self.known |= set(function.results)
        return call(targets, function.name, arguments, self.indent if indent is None else indent)

    def checked(self, lines: Sequence[str]) -> list[str]:
        """The lines of calls, with what looks at their checks, if some call takes ``checks``."""
        pad = " " * self.indent
        return [f"{pad}checks: Checks = []", *lines, f"{pad}_refuse(checks)"] if self.guarded else [*lines]

    def _argument(self, family: Family, function: PrivateFunction) -> str:
        made = (Storage.WORK, Storage.RESULT, Storage.CONSTANT, Storage.IDENTITY)
        if family.name == self.parts.states and (function.inputs_only or family.name not in self.known):
            first = self.parts.first_input
            return first if function.inputs_only else f"{{0: {first}}}"
        if family.name == OTHER_INPUTS:
            return "inputs.others"
        if family.storage not in made or family.name in self.known:
            return family.code
        if family.indexed and family.name in function.results:
            return "{}"
        raise BackendError(f"{function.name} needs {family.code}, which nothing before it computes")


def operator_keys(operator: Plain) -> tuple[tuple[Key, ...], tuple[Key, ...]]:
    """Keys of the functions of an operator: those of the point, those of the vector."""
    prepare = tuple((name, operator.batched) for name in operator.prepare)
    return prepare, tuple((name, operator.batched) for name in operator.apply)
