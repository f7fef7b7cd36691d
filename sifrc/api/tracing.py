"""Networks of torch modules, traced once: kept in the cache by a digest of all that a trace depends on."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from sifrc.importing.expressed import Targets

__all__ = ["Traced", "Wanted", "output_shape", "traced"]


@dataclass(frozen=True)
class Traced:
    """A network, and where it came from.

    Args:
        network: as nested dicts, as a spec has it.
        tensors: tensor of the spec -> tensor of the module.
        loss: keys of a loss that is a function, as a spec has them.
        entry: file of the cache that it was read from; None where the module was traced just now.
    """

    network: Mapping[str, Any]
    tensors: Mapping[str, str]
    loss: Mapping[str, Any] | None = None
    entry: Path | None = None


@dataclass(frozen=True)
class Wanted:
    """What of a module is taken.

    Args:
        trained: names of the parameters that are no constants; by default those that want a gradient.
        targets: an example of them, for a loss that is a function.
        output: place or name of the output, of several that ``forward`` returns.
    """

    trained: Collection[str] | None = None
    targets: Any = None
    output: int | str | None = None


_ALL = Wanted()


def traced(
    module: torch.nn.Module,
    arguments: Sequence[Any],
    named: Mapping[str, Any],
    wanted: Wanted = _ALL,
    folder: Path | None = None,
    *,
    loss: Any = None,
    reuse: bool = True,
) -> Traced:
    """The network of a module, from the cache where one was traced that is the same in all that counts.

    Args:
        module: whose ``forward`` is traced.
        arguments: an example batch by position.
        named: the same by name.
        wanted: what of it is taken.
        folder: of the cache; None for none.
        loss: a function of outputs and targets that is traced as well; None for none.
        reuse: False traces the module in any case.

    Raises:
        ModuleImportError: it cannot be traced, or an operator has no layer.
    """
    from sifrc.cache import entry_name, read_entry, write_entry
    from sifrc.importing.fingerprint import Unkeyed, content_of, fingerprint

    kind = None if loss is None else _kind_of(wanted.targets)
    path = None
    buffers = dict(module.named_buffers())
    if folder is not None:
        with suppress(Unkeyed):
            chosen = None if wanted.trained is None else sorted(wanted.trained), wanted.output
            key = fingerprint(module, _like(arguments), _like(named), chosen, loss, kind)
            path = folder / f"{entry_name('traced', {'module': key})}.json"
    if path is not None and reuse:
        found = read_entry(path)
        kept = None if found is None else json.loads(found)
        if kept is not None and kept["fixed"] == {name: content_of(buffers[name]) for name in kept["fixed"]}:
            return Traced(kept["network"], kept["tensors"], kept["loss"], path)
    from sifrc.importing.network import network_of

    network, tensors, fixed = network_of(module, arguments, named, wanted.trained, wanted.output)
    entry = {
        "network": network,
        "tensors": tensors,
        "loss": None if loss is None else _loss(network, loss, kind, module),
        "fixed": {name: content_of(buffers[name]) for name in fixed},
    }
    text = json.dumps(entry)
    if path is not None:
        write_entry(path, text)
    # As it is read: the first time and every other one give the same.
    entry = json.loads(text)
    return Traced(entry["network"], entry["tensors"], entry["loss"])


def _kind_of(targets: Any) -> Targets | None:
    """What an example of targets is of; None where there is none, or it may be of both."""
    import torch

    if not isinstance(targets, torch.Tensor) or targets.dtype == torch.bool:
        return None
    return "vectors" if targets.is_floating_point() else "classes"


def _loss(
    network: Mapping[str, Any], loss: Any, kind: Targets | None, module: torch.nn.Module
) -> dict[str, Any]:
    """The keys of a loss that is a function of the outputs of a network."""
    from sifrc.importing.expressed import expressed

    return expressed(loss, output_shape(network), next(module.parameters()).dtype, kind)


def output_shape(network: Mapping[str, Any]) -> tuple[int, ...]:
    """Sizes of the axes of a network's output."""
    from sifrc.spec import build_spec

    loss = {"function": "squared_error"}
    return build_spec({"sifrc": 1, "name": "shape", "network": dict(network), "loss": loss}).layers[-1].shape


def _like(example: Any) -> Any:
    """An example batch as far as a trace depends on it: tensors without samples and numbers."""
    import torch

    if isinstance(example, torch.Tensor):
        steps = None if example.is_contiguous() else example.stride()
        device, grad = str(example.device), example.requires_grad
        return "tensor", tuple(example.shape[1:]), example.dim(), str(example.dtype), device, grad, steps
    if isinstance(example, Mapping):
        return {name: _like(each) for name, each in example.items()}
    if isinstance(example, tuple | list):
        return [_like(each) for each in example]
    return example
