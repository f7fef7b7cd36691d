"""``sifrc.from_torch``: a spec from a torch module."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sifrc.errors import ModuleImportError
from sifrc.extras import optional

if TYPE_CHECKING:
    import torch

    from sifrc.api.tracing import Wanted
    from sifrc.spec.types import Spec

__all__ = ["arguments_of", "compared", "from_torch", "imported"]


def from_torch(
    module: torch.nn.Module,
    example_inputs: Any,
    loss: Any = "cross_entropy",
    *,
    name: str | None = None,
    check: bool = True,
    cache: bool | str | os.PathLike[str] = True,
    trained: Collection[str] | None = None,
    targets: Any = None,
    output: int | str | None = None,
    **settings: Any,
) -> Spec:
    """A spec of a torch module: each operator that it calls becomes a layer.

    The module is traced by ``torch.export`` in the mode it is in, for batches of any size. Layers have the
    names of its modules, and ``spec.names`` says what each tensor is called in the module, so that a
    generated optimizer binds to it without more.

    Args:
        module: in training or evaluation mode; nothing of it is changed.
        example_inputs: a batch as ``forward`` takes it: a tensor, a tuple of tensors, or a dict of arguments
            by name. The first dimension of every tensor is that of the samples.
        loss: a loss module of torch, its function (with arguments by ``functools.partial``), what a spec
            has under ``loss``, or any function of outputs and targets made of torch's operators, which is
            traced and written as an expression.
        name: of the spec; by default that of the module's class.
        check: whether the network that comes out is compared with the module on the example.
        cache: of traced networks, as of generated modules (:func:`sifrc.compile`). A module that is the same
            in all that a trace depends on, its code and attributes among them, is not traced again; without
            ``check`` it always is.
        trained: names of the parameters that are no constants; by default those that want a gradient.
        targets: an example of them, for a loss that is a function and takes classes as well as vectors.
        output: of several that ``forward`` returns (a tuple, a mapping, an object), the place or the name of
            the one that the loss reads.
        settings: other top-level keys of a spec, e.g. ``method`` or ``target``.

    Returns:
        An ordinary spec, as from a YAML file.

    Raises:
        ModuleImportError: the module cannot be traced, an operator has no layer (which, in which module, at
            which line of its source), the loss is unknown, or the network gives other numbers than the
            module.
        SpecError: a setting is wrong.

    Example:
        >>> import torch, sifrc
        >>> module = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3))
        >>> spec = sifrc.from_torch(module, torch.randn(5, 4), torch.nn.CrossEntropyLoss())
        >>> [(layer.name, layer.kind) for layer in spec.layers]
        [('layer_0', 'dense'), ('layer_1', 'activation'), ('layer_2', 'dense')]
        >>> spec.names["layer_0.weight"]
        '0.weight'
    """
    from sifrc.api.tracing import Wanted

    return compared(
        module,
        example_inputs,
        loss,
        name=name,
        check=check,
        wanted=Wanted(trained, targets, output),
        cache=cache,
        **settings,
    )[0]


def compared(
    module: torch.nn.Module,
    example_inputs: Any,
    loss: Any,
    *,
    name: str | None = None,
    wanted: Wanted | None = None,
    check: bool = True,
    cache: bool | str | os.PathLike[str] = True,
    **settings: Any,
) -> tuple[Spec, torch.nn.Module]:
    """A spec of a torch module, and the module without what torch wraps around it.

    A network from the cache that gives other numbers than the module is forgotten, and the module is traced.

    Args and errors are those of :func:`from_torch`.
    """
    from sifrc.api.comparison import compare_with_module
    from sifrc.api.tracing import Wanted
    from sifrc.cache import folder_of
    from sifrc.spec import build_spec

    module, example = unwrapped(module), arguments_of(example_inputs)
    wanted = Wanted() if wanted is None else wanted
    given = module, example, loss, name, wanted, settings
    data, entry = _document(*given, folder_of(cache), reuse=check)
    if entry is not None:
        try:
            spec = build_spec(data)
            compare_with_module(spec, module, *example, loss=loss, output=wanted.output, cache=cache)
            return spec, module
        except Exception:  # whatever is wrong with it, the module itself says what is right
            entry.unlink(missing_ok=True)
            data, _ = _document(*given, folder_of(cache), reuse=False)
    spec = build_spec(data)
    if check:
        compare_with_module(spec, module, *example, loss=loss, output=wanted.output, cache=cache)
    return spec, module


def imported(
    module: torch.nn.Module,
    example_inputs: Any,
    loss: Any,
    *,
    name: str | None = None,
    output: int | str | None = None,
    **settings: Any,
) -> tuple[dict[str, Any], torch.nn.Module]:
    """A spec of a torch module as nested dicts, traced and not compared, and the module inside of wrappers.

    Args and errors are those of :func:`from_torch`.
    """
    from sifrc.api.tracing import Wanted

    module, wanted = unwrapped(module), Wanted(output=output)
    return _document(module, arguments_of(example_inputs), loss, name, wanted, settings)[0], module


def _document(
    module: torch.nn.Module,
    example: tuple[tuple[Any, ...], Mapping[str, Any]],
    loss: Any,
    name: str | None,
    wanted: Wanted,
    settings: Mapping[str, Any],
    folder: Path | None = None,
    *,
    reuse: bool = False,
) -> tuple[dict[str, Any], Path | None]:
    """A spec as nested dicts, and the entry of the cache that its network was read from."""
    from sifrc.api.comparison import run
    from sifrc.api.tracing import output_shape, traced
    from sifrc.importing.losses import TorchLoss, loss_of

    dtype, found = _dtype(module), loss_of(loss)
    own = None if found is not None else loss
    try:
        made = traced(module, *example, wanted, folder, loss=own, reuse=reuse)
    except ModuleImportError:
        run(module, *example)  # where it does not run either, that is what is wrong
        raise
    found = found or TorchLoss(made.loss or {})
    network = dict(made.network)
    if found.after not in ("", network["layers"][-1]["type"]):
        raise ModuleImportError(
            f"the loss takes logarithms of probabilities, and the module does not end with {found.after}",
            hint="torch.nn.CrossEntropyLoss takes logits",
        )
    data: dict[str, Any] = {
        "sifrc": 1,
        "name": name or _name(module),
        "network": network | {"names": _differing(made.tensors)},
        "loss": dict(found.keys),
        "dtype": dtype,
        **settings,
    }
    if len(output_shape(network)) > 1 and "axis" not in data["loss"] and _classes_first(data):
        data["loss"] = data["loss"] | {"axis": 1}
    return data, made.entry


def _differing(tensors: Mapping[str, str]) -> dict[str, str]:
    """Tensors with another name in the module; all of them where there are none."""
    return {own: given for own, given in tensors.items() if own != given} or dict(tensors)


def _classes_first(data: Mapping[str, Any]) -> bool:
    """Whether torch has the classes of this loss along the first dimension after the samples."""
    return data["loss"].get("function") in ("cross_entropy",)


def arguments_of(example: Any) -> tuple[tuple[Any, ...], Mapping[str, Any]]:
    """An example batch as arguments of ``forward``, by position and by name."""
    if isinstance(example, Mapping):
        return (), dict(example)
    if isinstance(example, Sequence):
        return tuple(example), {}
    return (example,), {}


def unwrapped(module: Any) -> Any:
    """The module inside of the wrappers that torch puts around one."""
    optional("torch", "importing a module")
    import torch

    if not isinstance(module, torch.nn.Module):
        raise ModuleImportError(
            f"a network is taken from a torch.nn.Module, not from {type(module).__name__}",
            hint="sifrc.from_torch(model, example_inputs, loss)",
        )
    if isinstance(module, torch.jit.ScriptModule):
        raise ModuleImportError("a scripted module cannot be traced", hint="the module it was made from")
    for name, part in module.named_modules():
        if part.training and _has_spectral_norm(part):
            raise ModuleImportError(
                f"spectral_norm of '{name or type(part).__name__}' changes its vectors in each forward pass "
                "while training",
                hint="model.eval(), where they are constants; or torch.nn.utils.remove_spectral_norm, "
                "torch.nn.utils.parametrize.remove_parametrizations",
            )
    parallel = torch.nn.DataParallel, torch.nn.parallel.DistributedDataParallel
    while True:
        if isinstance(module, parallel):
            module = module.module
        elif getattr(module, "_orig_mod", None) is not None:  # what torch.compile wraps
            module = getattr(module, "_orig_mod")  # noqa: B009
        else:
            return module


def _has_spectral_norm(part: Any) -> bool:
    """Whether a module divides a weight by an estimate of its largest singular value, of either kind."""
    hooks = (
        type(part).__name__ == "_SpectralNorm",
        *(type(hook).__name__ == "SpectralNorm" for hook in part._forward_pre_hooks.values()),
    )
    return any(hooks)


def _dtype(module: Any) -> str:
    """The dtype of the parameters."""
    import torch

    found = {value.dtype for value in module.parameters()}
    known = {torch.float32: "float32", torch.float64: "float64", torch.bfloat16: "bfloat16"}
    if not found:
        raise ModuleImportError("the module has no parameters", hint="a network has something to train")
    if len(found) > 1 or not found <= known.keys():
        names = ", ".join(sorted(str(each).removeprefix("torch.") for each in found))
        raise ModuleImportError(
            f"the parameters are {names}, and a network has one dtype: {', '.join(known.values())}",
            hint="module.float()",
        )
    return known[found.pop()]


def _name(module: Any) -> str:
    """A name for the spec, from the class of the module."""
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", type(module).__name__).lower()
    words = re.sub(r"[^a-z0-9_]", "", words).strip("_")
    return words if words and words[0].isalpha() and words not in ("model", "module") else "network"
