"""What vectors are: named tensors one after the other, in whichever form a caller has them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from itertools import accumulate
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from sifrc.errors import OperatorError
from sifrc.spec.suggest import did_you_mean, shortened

__all__ = ["Form", "Space", "Vector", "is_transformed"]

Form: TypeAlias = Literal["flat", "matrix", "dict", "list"]
"""How a vector is given: a tensor (n,), one (n, k) of k vectors, tensors by name, or tensors in order."""
Vector: TypeAlias = Tensor | Mapping[str, Tensor] | Sequence[Tensor]
"""A vector, or a matrix with a vector in each column."""


@dataclass(frozen=True, eq=False)
class Space:
    """Vectors made of named tensors.

    Args:
        shapes: name -> shape, in order.
        dtype: of all of them.
        device: of all of them.

    Example:
        >>> space = Space({"fc.weight": (2, 3), "fc.bias": (2,)}, torch.float64, torch.device("cpu"))
        >>> space.size, space.matching(["fc"])
        (8, ('fc.weight', 'fc.bias'))
        >>> flat, form = space.flat(torch.arange(8.0, dtype=torch.float64), "vector")
        >>> space.split(flat)["fc.bias"]
        tensor([6., 7.], dtype=torch.float64)
    """

    shapes: Mapping[str, tuple[int, ...]]
    dtype: torch.dtype
    device: torch.device

    def __eq__(self, other: object) -> bool:
        """The same tensors in the same order, of one dtype on one device."""
        return isinstance(other, Space) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    @cached_property
    def _key(self) -> tuple[object, ...]:
        return tuple((name, *shape) for name, shape in self.shapes.items()), self.dtype, self.device

    @cached_property
    def sizes(self) -> list[int]:
        """Entries of each tensor."""
        return [torch.Size(shape).numel() for shape in self.shapes.values()]

    @cached_property
    def size(self) -> int:
        """Entries of a vector."""
        return sum(self.sizes)

    @cached_property
    def starts(self) -> Mapping[str, int]:
        """Where each tensor begins in a flat vector."""
        return dict(zip(self.shapes, accumulate(self.sizes, initial=0), strict=False))

    # -- forms

    def split(self, flat: Tensor) -> dict[str, Tensor]:
        """The tensors of a flat vector, as views."""
        parts = torch.split(flat, self.sizes)
        return {
            name: part.view(shape) for (name, shape), part in zip(self.shapes.items(), parts, strict=True)
        }

    def join(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """The flat vector of tensors by name."""
        return torch.cat([tensors[name].reshape(-1) for name in self.shapes])

    def flat(self, value: Vector, what: str) -> tuple[Tensor, Form]:
        """A vector, or several as columns, as one tensor, and the form it came in.

        Args:
            value: what a caller gave.
            what: it is, for errors.

        Raises:
            OperatorError: names, shapes, dtype or device are others, or a number is not finite.
        """
        if isinstance(value, Tensor):
            return self._tensor(value, what)
        if isinstance(value, Mapping):
            self._check_names(value, what)
            found = {name: self._like(value[name], name, what) for name in self.shapes}
            return self._finite(self.join(found), what), "dict"
        if isinstance(value, Sequence) and not isinstance(value, str):
            if len(value) != len(self.shapes):
                raise OperatorError(
                    f"{what}: {len(value)} tensors, and the space has {len(self.shapes)}",
                    hint=f"tensors in this order: {', '.join(self.shapes)}",
                )
            found = {n: self._like(v, n, what) for n, v in zip(self.shapes, value, strict=True)}
            return self._finite(self.join(found), what), "list"
        raise OperatorError(
            f"{what}: an object of type {type(value).__name__}",
            hint=f"a tensor ({self.size},) or ({self.size}, k), a dict of tensors by name, or a list of them "
            "(to_scipy() takes NumPy arrays)",
        )

    def restored(self, flat: Tensor, form: Form) -> Vector:
        """A flat result in a form."""
        if form in ("flat", "matrix"):
            return flat
        found = self.split(flat)
        return found if form == "dict" else list(found.values())

    def _tensor(self, value: Tensor, what: str) -> tuple[Tensor, Form]:
        if value.ndim not in (1, 2) or value.shape[0] != self.size:
            raise OperatorError(
                f"{what}: a tensor of shape {tuple(value.shape)}, and the operator takes ({self.size},)",
                hint=f"a flat vector, or a matrix ({self.size}, k) with a vector in each column",
            )
        self._check(value, what)
        return self._finite(value, what), "flat" if value.ndim == 1 else "matrix"

    def _like(self, value: object, name: str, what: str) -> Tensor:
        where = f"{what}['{name}']"
        if not isinstance(value, Tensor):
            raise OperatorError(f"{where}: an object of type {type(value).__name__}", hint="a tensor")
        if tuple(value.shape) != tuple(self.shapes[name]):
            raise OperatorError(
                f"{where}: a tensor of shape {tuple(value.shape)}", hint=f"shape {tuple(self.shapes[name])}"
            )
        self._check(value, where)
        return value

    def _check(self, value: Tensor, where: str) -> None:
        if value.dtype != self.dtype:
            raise OperatorError(
                f"{where}: a tensor of {value.dtype}, and the operator is one of {self.dtype}",
                hint=f"value.to({self.dtype})",
            )
        if value.device != self.device:
            raise OperatorError(
                f"{where}: a tensor on {value.device}, and the operator is on {self.device}",
                hint=f'value.to("{self.device}")',
            )

    def _finite(self, value: Tensor, what: str) -> Tensor:
        if is_transformed():
            return value  # what is mapped over has no entries to look at
        # A device would wait for everything before it. The sum is one pass without a copy; it may overflow.
        if not value.is_cuda and not bool(torch.isfinite(value.sum())) and not bool(value.isfinite().all()):
            raise OperatorError(f"{what}: numbers that are not finite", hint="look where they come from")
        return value.detach()

    def _check_names(self, value: Mapping[str, Tensor], what: str) -> None:
        missing = [name for name in self.shapes if name not in value]
        unknown = [name for name in value if name not in self.shapes]
        if not missing and not unknown:
            return
        texts = [f"'{shortened(str(name))}' is none of its tensors" for name in unknown[:1]]
        texts += [f"'{name}' is missing" for name in missing[:1]]
        raise OperatorError(
            f"{what}: {', and '.join(texts)}",
            label=did_you_mean(str(unknown[0]), self.shapes) if unknown else None,
            hint=f"names: {', '.join(self.shapes)}",
        )

    # -- parts

    def matching(self, patterns: Iterable[str]) -> tuple[str, ...]:
        """Names of tensors that patterns are about, in their order here.

        A pattern is a name, the name of a module that has some, or either with ``*``, ``?`` and ``[ab]``.

        Raises:
            OperatorError: a pattern is about nothing.
        """
        found: set[str] = set()
        for pattern in patterns:
            if not isinstance(pattern, str):
                raise OperatorError(
                    f"a part is asked for by an object of type {type(pattern).__name__}",
                    hint="names of parameters, as op['fc1.weight', 'fc1.bias']",
                )
            chosen = {
                name
                for name in self.shapes
                if fnmatchcase(name, pattern) or fnmatchcase(name, f"{pattern}.*")
            }
            if not chosen:
                raise OperatorError(
                    f"no parameter is called '{shortened(pattern)}'",
                    label=did_you_mean(pattern, self.shapes),
                    hint=f"names: {', '.join(self.shapes)}",
                )
            found |= chosen
        return tuple(name for name in self.shapes if name in found)

    def part(self, names: Iterable[str]) -> Space:
        """The space of some of the tensors."""
        return Space({name: self.shapes[name] for name in names}, self.dtype, self.device)

    def positions(self, names: Iterable[str]) -> Tensor:
        """Where the entries of some of the tensors are in a flat vector."""
        sizes = dict(zip(self.shapes, self.sizes, strict=True))
        ranges = [torch.arange(self.starts[name], self.starts[name] + sizes[name]) for name in names]
        return torch.cat(ranges).to(self.device)

    def by_module(self) -> dict[str, tuple[str, ...]]:
        """Tensors by the module that has them."""
        found: dict[str, list[str]] = {}
        for name in self.shapes:
            found.setdefault(name.rpartition(".")[0] or name, []).append(name)
        return {module: tuple(names) for module, names in found.items()}


def is_transformed() -> bool:
    """Whether this runs inside of a transform of torch.func, as ``vmap`` or ``vjp``.

    Example:
        >>> is_transformed(), bool(torch.func.vmap(lambda x: x + is_transformed())(torch.zeros(1)))
        (False, True)
    """
    active: bool = torch._C._are_functorch_transforms_active()
    return active
