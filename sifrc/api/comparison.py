"""An imported network beside the module that it was taken from: they give the same numbers, in both modes."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sifrc.errors import ModuleImportError, words_of

if TYPE_CHECKING:
    import torch

    from sifrc.spec.types import Spec

__all__ = ["compare_with_module", "run"]


def compare_with_module(
    spec: Spec,
    module: torch.nn.Module,
    arguments: Sequence[Any],
    named: Mapping[str, Any],
    *,
    loss: Any = None,
    output: int | str | None = None,
    cache: bool | str | os.PathLike[str] = True,
) -> None:
    """Compare the outputs of a spec's network with those of a module, as far as rounding allows.

    Both are evaluated; a network for training whose layers draw nothing is compared in that mode too. The
    module's own mode and buffers are put back.

    Args:
        spec: with ``names``.
        module: that it was taken from.
        arguments: an example batch by position.
        named: the same by name.
        loss: of outputs and targets; it is compared as well where it is a function that is none of torch's.
        output: place or name of the module's output, of several that it returns.
        cache: of generated modules, as for :func:`sifrc.compile`.

    Raises:
        ModuleImportError: they differ.
    """
    from dataclasses import replace

    import torch

    from sifrc.api.compiling import compile
    from sifrc.importing.exported import output_of
    from sifrc.importing.losses import loss_of
    from sifrc.spec.layers import LAYER_TYPES
    from sifrc.spec.types import TargetSpec

    generated: Any = compile(
        replace(spec, method=None, target=TargetSpec()), operators=("loss",), cache=cache
    )
    draws = any(LAYER_TYPES[layer.kind].draws for layer in spec.layers)
    apart = any(LAYER_TYPES[layer.kind].apart for layer in spec.layers)
    uniform = len({part.training for part in module.modules()}) == 1
    modes = [False, True] if apart and uniform and module.training and not draws else [False]
    held = dict(module.named_parameters()) | dict(module.named_buffers())
    names = {name: spec.names.get(name, name) for name in (*generated.SHAPES, *_buffers(generated))}
    for training in modes:
        params = {name: held[given].detach().clone() for name, given in names.items()}
        expected = run(module, arguments, named, training if apart else None)
        with torch.no_grad():
            found = _output(generated, params, _inputs(spec, module, arguments, named), training)
        _compare(found, output_of(expected, output), training, generated.TOLERANCES)
    if callable(loss) and loss_of(loss) is None:
        params = {name: held[given].detach().clone() for name, given in names.items()}
        _compare_loss(generated, params, _inputs(spec, module, arguments, named), loss, spec)


def run(
    module: torch.nn.Module, arguments: Sequence[Any], named: Mapping[str, Any], training: bool | None = None
) -> Any:
    """What a module gives in a mode, or in its own; it is left as it was.

    Raises:
        ModuleImportError: it raises.
    """
    import torch

    from sifrc.importing.exported import raised_at
    from sifrc.restored import restored

    try:
        with restored(module), torch.no_grad():
            if training is not None:
                module.train(training)
            return module(*arguments, **named)
    except Exception as error:
        at = raised_at(error)
        raise ModuleImportError(
            f"the module raises on the example{f', {at}' if at else ''}: {words_of(error)}",
            hint="an example batch as its forward takes it, in shapes and dtypes",
        ) from error


def _buffers(generated: Any) -> Sequence[str]:
    return list(getattr(generated, "BUFFERS", {}))


def _inputs(spec: Spec, module: Any, arguments: Sequence[Any], named: Mapping[str, Any]) -> Any:
    """What the generated functions take."""
    from sifrc.importing.draft import Draft
    from sifrc.importing.exported import names_of

    tensors = [value for value in (*arguments, *named.values()) if hasattr(value, "dim")]
    draft = Draft({})  # which names inputs as they were named
    given = dict(zip(map(draft.name, names_of(module, arguments, named)), tensors, strict=True))
    found = [given[source.name] for source in spec.inputs]
    return found[0] if len(found) == 1 else tuple(found)


def _output(generated: Any, params: Mapping[str, Any], inputs: Any, training: bool) -> Any:
    """Outputs after training, or by the statistics of the batch."""
    if not training:
        return generated.predict(params, inputs)
    network = generated.Network(dtype=next(iter(params.values())).dtype).train()
    network.load_state_dict(dict(params), strict=False)
    return network(*inputs) if isinstance(inputs, tuple) else network(inputs)


def _compare_loss(generated: Any, params: Mapping[str, Any], inputs: Any, loss: Any, spec: Spec) -> None:
    """Compare a loss that is a function with the expression that it became, at targets of all kinds."""
    import torch

    with torch.no_grad():
        outputs = generated.predict(params, inputs)
        if spec.loss.targets == "classes":
            classes = outputs.shape[spec.loss.axis + 1]
            places = outputs.select(spec.loss.axis + 1, 0)
            targets = (torch.arange(places.numel()) % classes).reshape(places.shape).to(outputs.device)
        else:
            targets = torch.linspace(0.0, 1.0, outputs.numel()).reshape(outputs.shape).to(outputs)
        expected = loss(outputs, targets)
        found = getattr(generated, "evaluation_loss", generated.loss)(params, inputs, targets)
    apart = float((found - expected).abs() / expected.abs().clamp(min=1e-30))
    if not apart <= generated.TOLERANCES[outputs.dtype]:
        raise ModuleImportError(
            f"the loss gives {float(expected):.6g}, and its expression {float(found):.6g}",
            hint="please report it with the loss; an expression of a spec says the same",
        )


def _compare(found: Any, expected: Any, training: bool, tolerances: Mapping[Any, float]) -> None:
    tolerance = tolerances[found.dtype]
    reached = expected.abs().max().clamp(min=1e-30)
    if found.shape != expected.shape:
        raise ModuleImportError(f"the network gives {tuple(found.shape)}, the module {tuple(expected.shape)}")
    if not bool(expected.isfinite().all()):
        raise ModuleImportError(
            "the module gives numbers on the example that are not finite, with which nothing can be compared",
            hint="an example batch of usual numbers; check=False imports it all the same",
        )
    apart = float((found - expected).abs().max() / reached)
    if not apart <= tolerance:
        mode = "in training" if training else "evaluated"
        raise ModuleImportError(
            f"the network {mode} gives other numbers than the module, by {apart:.1e} of the largest",
            hint="please report it with the module; check=False imports it all the same",
        )
