"""What operators and steps of one module share: functions, variables, and how a call is written."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from sifrc.backends.base import ModuleSource
from sifrc.backends.layout import statement
from sifrc.backends.numba_common.functions import PrivateFunction
from sifrc.backends.numba_common.storage import Group, Layout, is_scalar, rank_name
from sifrc.backends.tables import table_family
from sifrc.derive.quantities import QUANTITIES
from sifrc.derive.shaped import PARAMETER
from sifrc.errors import BackendError
from sifrc.ir.quantity import Storage
from sifrc.lower.arrays import OTHER_INPUTS
from sifrc.lower.lifetimes import kept_families
from sifrc.lower.program import Function, Place, Program

__all__ = ["STATES", "TARGETS", "ParameterVariable", "Parts"]

STATES = "x"
"""Family of the states; its member 0 is the input."""
TARGETS = "t"
"""Family of the targets."""
PARAMETERS = PARAMETER.families
"""Families of the parameters."""
MOST_IN_TUPLES = 6
"""Layers of a network whose arrays by layer are in tuples: making them is faster than making lists."""


@dataclass(frozen=True)
class ParameterVariable:
    """A variable of parameters: those of one slot and one rank, by layer number.

    Args:
        name: of the variable.
        constant: of the table of their names.
        rank: number of their dimensions.
        names: layer number -> name.
        biases: whether they are biases.
    """

    name: str
    constant: str
    rank: int
    names: Mapping[int, str]
    biases: bool


@dataclass(frozen=True)
class Parts(ABC):
    """A module taken apart.

    Args:
        module: what is printed.
    """

    module: ModuleSource

    @abstractmethod
    def number(self, array: str, total: bool) -> str:
        """Sum or mean of an array as a Python number."""

    @property
    def program(self) -> Program:
        """What is computed."""
        return self.module.program

    @property
    def real(self) -> str:
        """Cast of literals."""
        return f"np.{self.module.dtype}"

    @cached_property
    def layouts(self) -> dict[bool, Layout]:
        """Variables of the batched and of the one-sample form."""
        return {batched: Layout(self.program, batched) for batched in (True, False)}

    @cached_property
    def functions(self) -> dict[tuple[str, bool], PrivateFunction]:
        """Private functions by name and form."""
        printed = map(self.printed, self.program.functions)
        return {(item.function.name, item.function.batched): item for item in printed}

    @abstractmethod
    def printed(self, function: Function) -> PrivateFunction:
        """A function of the program as source text."""

    @abstractmethod
    def call_lines(self, function: PrivateFunction, arguments: Sequence[str], indent: int) -> list[str]:
        """A call of a private function by a public one, which ends where a check fails."""

    def function(self, name: str, batched: bool) -> PrivateFunction:
        """A private function.

        Raises:
            BackendError: the program lacks it.
        """
        found = self.functions.get((name, batched))
        if found is None:
            form = "batched" if batched else "one-sample"
            raise BackendError(f"the program has no {form} function '{name}'")
        return found

    @property
    def deep(self) -> bool:
        """Whether arrays by layer are in lists of Numba: with tuples, compiling takes time for each entry."""
        return len(self.module.layers) > MOST_IN_TUPLES

    @property
    def has_biases(self) -> bool:
        """Whether some layer has a bias."""
        return any(layer.bias for layer in self.module.layers)

    @property
    def classes(self) -> bool:
        """Whether targets are class indices."""
        return self.module.targets == "classes"

    @property
    def output(self) -> str:
        """The output among the states, as an entry of their variable."""
        last = max(index for index, _ in self.program.family(STATES).shapes if index is not None)
        return f"{self.layouts[True].group(STATES, last).name}[{last}]"

    def input_variable(self, batched: bool) -> str:
        """The variable of the workspace that the input is a member of."""
        groups = self.layouts[batched].families.get(STATES, ())
        return next((f"work.{group.name}" for group in groups if self.has_input(group)), "work.x")

    def has_input(self, group: Group) -> bool:
        """Whether the variable holds the input, the first of the states."""
        return group.family.name == STATES and any(index == 0 for index, _ in group.members)

    @property
    def inputs_type(self) -> str:
        """Type of the inputs that public functions take."""
        return "Inputs" if self.module.inputs else "Array"

    @property
    def holds(self) -> bool:
        """Whether checked inputs are several arrays: inputs, or what layers draw."""
        return bool(self.module.inputs or self.module.draws)

    @property
    def further(self) -> tuple[str, ...]:
        """Names of the arrays of samples of the inputs after the first, in compiled loops."""
        return tuple(f"samples_{number}" for number in range(1, len(self.module.inputs)))

    @property
    def table_variables(self) -> list[Group]:
        """Variables of the fixed tables, which every workspace has."""
        family = table_family(self.program)
        return [] if family is None else list(self.layouts[True].families[family.name])

    def table_arrays(self) -> list[str]:
        """Statements that put the fixed tables into tuples or lists of arrays, as functions take them."""
        return [
            line
            for group in self.table_variables
            for line in self._gathered(f"_{group.name.upper()}", group, lambda k: f"_FIXED[{k}]", 0)
        ]

    def _gathered(
        self, target: str, group: Group, array: Callable[[int | None], str], indent: int
    ) -> list[str]:
        """The statement that puts arrays by their subscript into a variable of their rank."""
        known = {k for k, _ in group.members}
        empty = f"np.zeros({(0,) * group.rank}, {'np.int64' if group.of_classes else 'DTYPE'})"
        last = max(k for k in known if k is not None)
        values = ", ".join(array(k) if k in known else empty for k in range(last + 1))
        comma = "," if last == 0 else ""
        return statement(f"{target} = {'_gathered' if self.deep else ''}(({values}{comma}))", indent)

    def filled(self, batched: bool, source: str) -> list[str]:
        """Statements that put checked inputs into the variables of a workspace.

        Args:
            batched: of a batch, or of one sample.
            source: variable of the inputs.
        """
        states = self.input_variable(batched)
        first = f"{source}.first" if self.holds else source
        lines = [f"{states}[0] = {first}" if self.deep else f"{states} = ({first}, *{states}[1:])"]
        for group in self.work_tables()[batched].values():
            if group.family.name == OTHER_INPUTS:
                own = self._gathered(f"work.{group.name}", group, lambda k: f"{source}.others[{k}]", 4)
                lines += [line[4:] for line in own]
        return [f"    {line}" for line in lines]

    def groups(self, functions: Iterable[PrivateFunction]) -> list[Group]:
        """Variables that the functions take, each once."""
        found = {group.name: group for function in functions for group in function.groups}
        return list(found.values())

    @cached_property
    def parameter_variables(self) -> tuple[ParameterVariable, ...]:
        """Variables of the parameters in public functions: weights of each rank, and biases."""
        found = []
        for what, slot in (("weights", "weight"), ("biases", "bias")):
            shapes = {layer: getattr(layer, slot) for layer in self.module.layers}
            ranks = sorted({len(shape) for shape in shapes.values() if shape is not None}, reverse=True)
            for rank in ranks:
                more = "" if rank == ranks[0] else f"_{rank_name(rank)}"
                own = [layer for layer, shape in shapes.items() if shape is not None and len(shape) == rank]
                names = {layer.index: f"{layer.name}.{slot}" for layer in own}
                table = f"_{slot.upper()}{more.upper()}_NAMES"
                found.append(ParameterVariable(f"{what}{more}", table, rank, names, slot == "bias"))
        return tuple(found)

    @cached_property
    def buffer_variables(self) -> tuple[ParameterVariable, ...]:
        """Variables of what layers keep besides parameters."""
        found = []
        for family in (f for f in self.program.families if f.storage is Storage.BUFFER):
            own = [each for each in self.module.buffers if each.family == family.name]
            ranks = sorted({len(each.shape) for each in own}, reverse=True)
            for rank in ranks:
                code = family.code + ("" if rank == ranks[0] else f"_{rank_name(rank)}")
                names = {each.index: each.name for each in own if len(each.shape) == rank}
                found.append(ParameterVariable(code, f"_{code.upper()}_NAMES", rank, names, False))
        return tuple(found)

    @property
    def couples(self) -> bool:
        """Whether samples act on each other in training: buffers are for what comes after it."""
        return ("statistics", True) in self.functions

    @property
    def given_names(self) -> list[str]:
        """Variables that operators take of what the user gives by name."""
        # Running statistics are for what comes after training; tensors that are not trained are for both.
        read = {group.name for group in self.function("forward", True).groups}
        buffers = [own.name for own in self.buffer_variables if not self.couples or own.name in read]
        return [*self.parameter_names, *buffers]

    @property
    def parameter_names(self) -> list[str]:
        """Names of these variables."""
        return [variable.name for variable in self.parameter_variables]

    def taken(self, *, whole: bool = False, in_place: bool = False) -> str:
        """The statement that checks parameters and buffers and takes them by layer.

        Args:
            whole: whether buffers are read in any case.
            in_place: whether they are updated.
        """
        more = ", in_place=True" if in_place else ""
        if not self.buffer_variables:
            return f'{self.unpacked(self.parameter_names)} = _parameters(params, "params"{more})'
        names = self.unpacked(self.parameter_names)
        if whole or len(self.given_names) > len(self.parameter_names):
            names = ", ".join([names, *(variable.name for variable in self.buffer_variables)])
        else:
            names += ", *_"
        return f'{names} = _parameters_and_buffers(params, "params"{more})'

    def unpacked(self, names: Sequence[str]) -> str:
        """What the checked parameters, or tensors shaped like them, are taken apart into."""
        return ", ".join([*names, *([] if self.has_biases else ["_"])])

    def like_parameters(self, families: Sequence[str]) -> list[str]:
        """Variables of checked tensors of the shapes of the parameters, whether the program has them or not.

        Args:
            families: of the tensors for weights, and for biases.
        """
        return [
            QUANTITIES[families[variable.biases]].code
            + variable.name.removeprefix("biases" if variable.biases else "weights")
            for variable in self.parameter_variables
        ]

    def variables(self, families: Sequence[str]) -> list[str]:
        """Variables of tensors shaped like the parameters, in the order of those of the parameters.

        Args:
            families: of the tensors for weights, and for biases; where no layer has a bias, the program has
                the first alone.
        """
        known = {family.name for family in self.program.families}
        found = []
        for family, biases in zip(families, (False, True), strict=False):
            for variable in self.parameter_variables if family in known else ():
                if variable.biases == biases:
                    found.append(self.layouts[True].group(family, min(variable.names)).name)
        return found

    @property
    def has_step(self) -> bool:
        """Whether there is an optimizer."""
        return bool(self.program.step_batched or self.program.step_single)

    @property
    def returned_age(self) -> str:
        """What the loop returns besides, where something runs only now and then."""
        return ", age" if self.program.periodic else ""

    @property
    def step_functions(self) -> list[PrivateFunction]:
        """Functions of a step, in the program's order."""
        names = {True: self.program.step_batched, False: self.program.step_single}
        return [function for (name, batched), function in self.functions.items() if name in names[batched]]

    def calls(self, names: Iterable[str], batched: bool, indent: int) -> list[str]:
        """Calls of private functions by public ones, which have parameters and vectors as variables.

        All others are attributes of a workspace.
        """
        outside = (Storage.PARAMETER, Storage.BUFFER, Storage.DIRECTION)
        lines: list[str] = []
        for function in (self.function(name, batched) for name in names):
            arguments = [g.name if g.family.storage in outside else f"work.{g.name}" for g in function.groups]
            lines += self.call_lines(function, arguments, indent)
        return lines

    @cached_property
    def kept(self) -> frozenset[str]:
        """Families that a periodic function computes and others use in the steps between its runs."""
        return kept_families(self.program)

    def is_memory(self, group: Group) -> bool:
        """Whether the optimizer's state holds the variable."""
        return group.family.storage is Storage.MEMORY or group.family.name in self.kept

    def place_table(
        self, places: Sequence[Place]
    ) -> dict[str, dict[int, tuple[int, int, int]] | tuple[int, int, int]]:
        """Number of the place and the statements that touch it first and last, by variable and subscript."""
        tuples: dict[str, dict[int, tuple[int, int, int]]] = {}
        table: dict[str, dict[int, tuple[int, int, int]] | tuple[int, int, int]] = {}
        for number, place in enumerate(places):
            for family, index in place.members:
                group = self.layouts[True].group(family, index)
                life = number, place.first, place.last
                if group.is_tuple and index is not None:
                    table[group.name] = tuples.setdefault(group.name, {})
                    tuples[group.name][index] = life
                else:
                    table[group.name] = life
        return table

    def work_tables(self) -> dict[bool, dict[str, Group]]:
        """Variables of each form that a workspace allocates."""
        tables: dict[bool, dict[str, Group]] = {True: {}, False: {}}
        # A direction that a step computes is no argument of it.
        computed = {name for f in self.program.functions for name in f.writes}
        for (_, batched), function in self.functions.items():
            for group in function.groups:
                outside = (Storage.PARAMETER, Storage.BUFFER, Storage.DIRECTION, Storage.MEMORY)
                # What a step keeps, operators compute in a workspace of their own.
                operators = not all(operator.plain for operator in self.program.operators)
                kept = group.family.name in self.kept and not operators
                given = group.family.storage in outside and group.family.name not in computed
                lasting = (Storage.PARAMETER, Storage.BUFFER, Storage.MEMORY, Storage.TABLE)
                given |= group.family.storage in lasting
                if not (is_scalar(group.family) or kept or given):
                    tables[batched][group.name] = group
        return tables
