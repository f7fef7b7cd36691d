"""A generated module, in its own dtype and kind of array, at a point that is rounded to it."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from types import MappingProxyType
from typing import Any, Literal, TypeAlias

import numpy as np
import torch

from sifrc.catalogue.meaning import Along
from sifrc.catalogue.record import Case, KindPlan, Operator, Pairs, Result, Table
from sifrc.errors import VerificationError
from sifrc.ir.arithmetic import Array
from sifrc.spec.types import Spec
from sifrc.verify.meaning import SINGLE
from sifrc.verify.oracles.batch_torch import TorchBatch
from sifrc.verify.oracles.forward_torch import ForwardTorch
from sifrc.verify.oracles.network import all_inputs, buffer_values, input_parts
from sifrc.verify.points import Point, near_targets, random_point
from sifrc.verify.subjects.base import Choices, Results, Subject

__all__ = ["Framework", "ModuleSubject", "framework_of"]

Framework: TypeAlias = Literal["torch", "numpy", "cuda"]


def framework_of(module: Any) -> Framework:
    """Whether a module takes tensors, or arrays, and gives them on a device: by what it imports."""
    if getattr(module, "torch", None) is torch:
        return "torch"
    device = sys.modules.get("numba.cuda")
    return "cuda" if device is not None and getattr(module, "cuda", None) is device else "numpy"


class ModuleSubject(Subject):
    """A module and its arguments.

    Args:
        spec: the network.
        module: with functions of the contract.
        framework: its arrays.
        seed: of the point.
        batch: samples.
        near: whether targets are next to the outputs, where losses such as huber are curved.
    """

    def __init__(
        self, spec: Spec, module: Any, framework: Framework, seed: int, batch: int, near: bool = False
    ) -> None:
        self.spec, self.module, self.framework, self.seed = spec, module, framework, seed
        self.dtype = getattr(torch, spec.dtype)
        self.classes = spec.loss.targets == "classes"
        point = self._with_draws(random_point(spec, seed, batch))
        if near:
            params = {name: torch.from_numpy(value) for name, value in point.params.items()}
            outputs = ForwardTorch(spec).output(params, torch.from_numpy(point.inputs))
            point = near_targets(spec, point, outputs.numpy(), seed)
            # A direction like parameters, of which no layer's moves are large.
            vector = random_point(spec, seed + 1).params
        else:
            vector = point.vector
        if spec.dtype == "bfloat16" and framework != "torch":
            raise VerificationError("bfloat16 exists in torch only")
        self.params = {name: self._rounded(value) for name, value in point.params.items()}
        self.vector = {name: self._rounded(value) for name, value in vector.items()}
        self.inputs = self._inputs(point.inputs)
        self.targets = torch.from_numpy(point.targets) if self.classes else self._rounded(point.targets)

    def _inputs(self, inputs: Array) -> torch.Tensor:
        """Inputs in the module's dtype; several are kept in one tensor of float64, rounded."""
        sources = all_inputs(self.spec)
        if len(sources) == 1:
            return torch.from_numpy(inputs) if self.spec.input.classes else self._rounded(inputs)
        parts = input_parts(self.spec, inputs)
        rounded = [
            torch.from_numpy(parts[source.name].reshape(len(inputs), -1))
            if source.classes
            else self._rounded(parts[source.name].reshape(len(inputs), -1)).double()
            for source in sources
        ]
        return torch.cat(rounded, 1)

    def _with_draws(self, point: Point) -> Point:
        """The point with the numbers that the layers of the module draw for the default seed."""
        parts = input_parts(self.spec, point.inputs)
        drawn = [source.name for source in all_inputs(self.spec)[len(self.spec.inputs) :]]
        if not drawn or self.spec.mode == "evaluation":
            return point
        self.params = {name: self._rounded(value) for name, value in point.params.items()}
        targets = torch.from_numpy(point.targets) if self.classes else self._rounded(point.targets)
        like = (next(iter(self.given(self.params).values())),) if self.framework == "torch" else ()
        check, draw = (getattr(self.module, name) for name in ("_batch" if like else "_data", "_drawn"))
        given, _ = check(self._given_inputs(self._inputs(point.inputs)), self.given(targets), *like)
        found = draw(given, 0).others
        for number, name in enumerate(drawn, len(self.spec.inputs)):
            numbers = self.arrays(found[number])
            if numbers.shape != parts[name].shape or numbers.min() < 0 or numbers.max() >= 1:
                raise VerificationError("the numbers that the module's layers draw are not between 0 and 1")
            parts[name] = numbers
        return replace(
            point, inputs=np.concatenate([part.reshape(len(part), -1) for part in parts.values()], 1)
        )

    def _given_inputs(self, inputs: torch.Tensor) -> Any:
        """What the module takes: its inputs, of a batch or of a sample."""
        parts = input_parts(self.spec, inputs)
        if not self.spec.others:
            only = parts[self.spec.input.name]
            return self.given(only.to(torch.int64 if self.spec.input.classes else self.dtype))
        return tuple(
            self.given(parts[source.name].to(torch.int64 if source.classes else self.dtype))
            for source in self.spec.inputs
        )

    def _rounded(self, value: Array) -> torch.Tensor:
        """A tensor of the module's dtype."""
        return torch.from_numpy(np.ascontiguousarray(value)).to(self.dtype)

    @property
    def samples(self) -> int:
        return len(self.inputs)

    @cached_property
    def oracle(self) -> TorchBatch:
        data = self._double(self.params), self._double(self.inputs), self._double(self.targets)
        return TorchBatch(self.spec, data, self._double(self.vector), self.seed, self._drawn)

    def _double(self, value: Any) -> Any:
        if isinstance(value, Mapping):
            return {name: self._double(item) for name, item in value.items()}
        return value.double() if value.is_floating_point() else value

    def given(self, value: Any) -> Any:
        """Tensors in the module's own kind of array."""
        if isinstance(value, Mapping):
            return {name: self.given(item) for name, item in value.items()}
        return value.clone() if self.framework == "torch" else value.numpy().copy()

    def arrays(self, value: Any) -> Array:
        """A result in float64; checks that its dtype is the module's."""
        if isinstance(value, torch.Tensor):
            if value.is_floating_point() and value.dtype != self.dtype:
                raise VerificationError(f"expected dtype {self.spec.dtype}, got {value.dtype}")
            return np.asarray(value.detach().double().cpu().numpy())
        array = np.asarray(value.copy_to_host() if hasattr(value, "copy_to_host") else value)
        if array.ndim and array.dtype.name != self.spec.dtype:
            raise VerificationError(f"expected dtype {self.spec.dtype}, got {array.dtype.name}")
        return array.astype(np.float64)

    def has(self, name: str) -> bool:
        """Whether the module has a function."""
        return getattr(self.module, name, None) is not None

    def arguments(self, batched: bool = True) -> tuple[Any, ...]:
        """Parameters, inputs and targets."""
        buffers = {name: self._rounded(value) for name, value in buffer_values(self.spec).items()}
        params, targets = self.given(self.params | buffers), self.given(self.targets)
        if batched:
            return params, self._given_inputs(self.inputs), targets
        target = targets[0]
        if self.framework != "torch" and self.classes and target.ndim == 0:
            target = int(target)
        return params, self._given_inputs(self.inputs[0]), target

    def call(
        self,
        operator: Operator,
        case: Case,
        kind: KindPlan | None,
        choices: Choices = MappingProxyType({}),
        switches: tuple[str, ...] = (),
        **more: Any,
    ) -> Results:
        vector = () if operator.vector is None else (self.given(self.vector),)
        given = {**choices, **dict.fromkeys(switches, True), **more}
        if kind is not None and not operator.kind:
            given["kind"] = kind.name
            given |= {"seed": self.seed} if kind.draws else {}
        found = getattr(self.module, operator.name)(*self.arguments(operator.batched), *vector, **given)
        chosen = [switch for switch in operator.switches if switch.name in switches]
        results = (*operator.also, *(switch.result for switch in chosen), *case.results)
        if operator.record is not None:
            self._check_record(operator, case, found, switches)
            names = {id(switch.result): switch.name for switch in chosen}
            pairs = [(r, getattr(found, names.get(id(r)) or _key(r))) for r in results]
        else:
            pairs = list(zip(results, found if len(results) > 1 else (found,), strict=True))
        return [(result.meaning, self._read(result, value)) for result, value in pairs]

    def _check_record(self, operator: Operator, case: Case, found: Any, switches: tuple[str, ...]) -> None:
        """What is not of the case is None, and arrays by groups have an axis for each order."""
        assert operator.record is not None
        size = len(self.oracle.parts)
        there = {_key(result): result.meaning for result in (*operator.also, *case.results)}
        for field in operator.record.fields:
            value, meaning = getattr(found, field.name), there.get(field.name)
            if field.kind == "groups":
                if len(value) != size:
                    raise VerificationError(f"expected {size} groups, got {len(value)}")
            elif meaning is None and field.name not in switches:
                if value is not None:
                    raise VerificationError(f"{field.name} is there, and was not asked for")
            elif isinstance(meaning, Along):
                axes = 1 if meaning.order == 3 and not meaning.full else meaning.order
                if tuple(value.shape) != (size,) * axes:
                    raise VerificationError(f"{field.name}: expected {(size,) * axes}, got {value.shape}")

    def _read(self, result: Result, value: Any) -> dict[str, Array]:
        if isinstance(result, Table):
            return {name: self.arrays(item) for name, item in value.items()}
        if isinstance(result, Pairs):
            return {
                f"{key}.{field.name}": self.arrays(getattr(pair, field.name))
                for key, pair in value.items()
                for field in result.record.fields
            }
        return {SINGLE: self.arrays(value)}

    def _drawn(self) -> Array:
        """The module's own random numbers for a seed: what it makes of them is what is checked."""
        name = "_uniform" if self.classes else "_normal"
        draw = getattr(self.module, name, None)
        shape = (self.samples, *self.spec.layers[-1].shape)
        if not hasattr(self.module, name):  # nothing depends on them: any numbers will do
            generator = np.random.default_rng(self.seed)
            found = generator.uniform(size=shape) if self.classes else generator.normal(size=shape)
            return np.asarray(found.reshape(self.samples, -1))
        if draw is None:
            raise VerificationError("the numbers that the module draws are not known")
        like = (next(iter(self.given(self.params).values())),) if self.framework == "torch" else ()
        numbers = self.arrays(draw(self.seed, shape, *like))
        if numbers.shape != shape or len(np.unique(numbers)) != numbers.size:
            raise VerificationError("the numbers that the module draws are not random")
        if self.classes and not (numbers.min() > 0 and numbers.max() < 1):
            raise VerificationError("the uniform numbers that the module draws are not between 0 and 1")
        return numbers.reshape(self.samples, -1)


def _key(result: Result) -> str:
    return "" if isinstance(result, Table | Pairs) else result.key
