"""What an optimizer of a torch module is derived from, to derive it again for more parameters."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from sifrc.spec.types import OptionValue, PartitionChoice

__all__ = ["Recipe"]


@dataclass(frozen=True)
class Recipe:
    """All that a derivation depends on, beside the parameters that are trained.

    Args:
        model: with the wrappers that torch puts around one.
        loss: as :func:`sifrc.from_torch` takes it.
        method: name of the method.
        settings: its options, numbers among them.
        inputs: an example batch.
        targets: of the example; None for none.
        check: whether the network is compared with the model on the example.
        output: of several that the model returns, the one that the loss reads.
        cache: of traced networks and generated modules.
        partition: groups of parameters that a method has numbers for.
        l2: λ of an ℓ₂ term of the objective.
    """

    model: torch.nn.Module
    loss: Any
    method: str
    settings: Mapping[str, OptionValue]
    inputs: Any
    targets: Any = None
    check: bool = True
    output: int | str | None = None
    cache: bool | str | os.PathLike[str] = True
    partition: PartitionChoice | None = None
    l2: float | Mapping[str, float] = 0.0

    def module(self, trained: Collection[str] | None, *, decays: bool) -> Any:
        """The generated module of a derivation, from the cache where it is in there.

        Args:
            trained: names of the parameters that are no constants; None for those that want a gradient.
            decays: whether a group has a ``weight_decay`` of its own, which the update has then.

        Raises:
            ModuleImportError: the model cannot be imported, or a layer is trained in part.
            MethodError: the method does not apply to the network.
        """
        from sifrc.api.compiling import compile
        from sifrc.api.groups import penalized
        from sifrc.api.importing import from_torch

        own: dict[str, Any] = {"weight_decay": 0.0} if decays else {}
        spec = from_torch(
            self.model,
            self.inputs,
            self.loss,
            check=self.check,
            cache=self.cache,
            trained=trained,
            targets=self.targets,
            output=self.output,
            method={"name": self.method, **own, **self.settings},
        )
        spec = penalized(spec, self.l2)
        return compile(spec, "torch", self.method, partition=self.partition, cache=self.cache)
