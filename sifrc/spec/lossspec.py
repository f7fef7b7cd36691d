"""The loss of a spec: its function, its targets, and what of them counts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from sifrc.spec.checks import entrywise_reduction
from sifrc.spec.functionspec import loss_function_spec
from sifrc.spec.positions import Path, Positions
from sifrc.spec.registry import LOSSES
from sifrc.spec.schema import InputShape, LossShape
from sifrc.spec.suggest import did_you_mean, shortened
from sifrc.spec.types import InputSpec, LossSpec, Sizes, TargetKind
from sifrc.spec.words import size_text

__all__ = ["check_mask", "loss_spec"]

_PATH: Path = ("loss",)


def loss_spec(loss: LossShape, inputs: Sequence[InputSpec], output: Sizes, positions: Positions) -> LossSpec:
    """Build the loss.

    Args:
        loss: as written.
        inputs: of the network.
        output: sizes of the axes of its output.
        positions: places, for errors.

    Raises:
        SpecError: a key that means nothing for this loss, or does not fit the output.

    Example:
        >>> weighted = LossShape(function="cross_entropy", class_weights=[1.0, 2.0])
        >>> loss_spec(weighted, [], (5, 2), Positions("f")).weights
        (1.0, 2.0)
    """
    function = loss_function_spec(
        positions, _PATH, loss.function, loss.expression, loss.parameters, loss.reduction
    )
    default: TargetKind = LOSSES[function.name].targets if function.name in LOSSES else "vectors"
    targets, axis = loss.targets or default, _axis(loss, len(output), positions)
    places = loss.places or (LOSSES[function.name].places if function.name in LOSSES else "mean")
    if loss.reduction == "sum" and loss.places is None:
        places = "sum"
    # Of one place they are the same.
    places = places if len(output) > 1 else "mean"
    _check_keys(loss, function.name, targets, positions)
    found = LossSpec(
        function,
        targets,
        loss.reduction,
        axis,
        places,
        float(loss.label_smoothing or 0.0),
        loss.ignore_index,
        _class_weights(loss, output[axis], positions),
        _pos_weight(loss, function.name, output[axis], positions),
        loss.mask or "",
        location=positions.value(_PATH),
    )
    return found if loss.mask is None else _masked(found, inputs, output, positions)


def _axis(loss: LossShape, rank: int, positions: Positions) -> int:
    """The axis of the output, from 0, that vectors are along."""
    axis = -1 if loss.axis is None else loss.axis
    position = axis - 1 if axis > 0 else axis + rank
    if axis == 0 or not 0 <= position < rank:
        raise positions.error(
            (*_PATH, "axis"),
            f"the output has no axis {axis}: it has {rank}",
            hint=f"1 to {rank}, or -1 for the last one; samples do not count",
        )
    return position


def _check_keys(loss: LossShape, name: str, targets: TargetKind, positions: Positions) -> None:
    """What cross-entropy alone has."""
    for key, of_classes in (("label_smoothing", True), ("ignore_index", True), ("class_weights", False)):
        meant = name == "cross_entropy" and (targets == "classes" or not of_classes)
        if getattr(loss, key) is not None and not meant:
            raise positions.error(
                (*_PATH, key),
                f"'{key}' is for cross_entropy{' of classes' if of_classes else ''}",
                hint=f"loss: {{function: cross_entropy{', targets: classes' if of_classes else ''}, …}}",
                at_key=True,
            )


def _class_weights(loss: LossShape, classes: int, positions: Positions) -> tuple[float, ...]:
    """A number for each class, not all of them zero."""
    weights = tuple(map(float, loss.class_weights or ()))
    if weights and len(weights) != classes:
        raise positions.error(
            (*_PATH, "class_weights"),
            f"{len(weights)} weights for {classes} classes",
            hint="one for each entry of the output along the axis of the loss",
        )
    if weights and not any(weights):
        raise positions.error(
            (*_PATH, "class_weights"), "no class counts: all weights are zero", hint="e.g. 1 for some class"
        )
    return weights


def _pos_weight(loss: LossShape, name: str, entries: int, positions: Positions) -> tuple[float, ...]:
    """A number for each entry of a vector; one for all may stand alone."""
    given = tuple(map(float, loss.pos_weight or ()))
    if given and not LOSSES.get(name, LOSSES["mse"]).parts:
        raise positions.error(
            (*_PATH, "pos_weight"),
            "'pos_weight' is for binary_cross_entropy",
            hint="loss: {function: binary_cross_entropy, …}",
            at_key=True,
        )
    if len(given) not in (0, 1, entries):
        raise positions.error(
            (*_PATH, "pos_weight"),
            f"{len(given)} weights for {entries} entries",
            hint="one for all, or one for each entry of the output along the axis of the loss",
        )
    return given * entries if len(given) == 1 else given


def _masked(loss: LossSpec, inputs: Sequence[InputSpec], output: Sizes, positions: Positions) -> LossSpec:
    """With a mask: an input of the network with a number for each place, or for each entry."""
    path: Path = (*_PATH, "mask")
    source = next(source for source in inputs if source.name == loss.mask)
    places = loss.of_places(output) or (1,)
    if source.shape not in (places, output):
        raise positions.error(
            path,
            f"the mask '{source.name}' has size {size_text(source.shape)}, the output {size_text(output)}",
            hint=f"a number for each place, {size_text(places)}, or for each entry, {size_text(output)}",
        )
    if loss.reduction == "mean" and loss.places == "sum":
        raise positions.error(
            path,
            "means are over all that counts, and this loss is a sum over the places of a sample",
            hint="places: mean, or reduction: sum",
        )
    if source.shape == places:
        return loss
    found = entrywise_reduction(loss.function.expression)
    if found is None or (found == "sum" and loss.reduction == "mean"):
        raise positions.error(
            path,
            f"a mask of entries is for a loss that is the {loss.reduction} of a function of each entry",
            hint=f"a number for each place, size {size_text(places)}; or mse, binary_cross_entropy, huber, "
            f'expression: "{loss.reduction}(…)"',
        )
    return replace(loss, entries=True)


def check_mask(name: str | None, inputs: Sequence[InputShape], positions: Positions) -> None:
    """A mask is an input of the network: not the first one, and of numbers.

    Args:
        name: of the mask, if there is one.
        inputs: of the network, as written.
        positions: places, for errors.

    Raises:
        SpecError: it is not.
    """
    path: Path = (*_PATH, "mask")
    known = {source.name: source for source in inputs[1:]}
    if name is None or (name in known and not known[name].classes):
        return
    if name in known:
        raise positions.error(
            path, f"'{name}' has classes for entries, a mask has numbers", hint="no classes:"
        )
    if name == inputs[0].name:
        raise positions.error(
            path,
            f"the mask '{name}' is the first input of the network",
            hint="put what the layers read before it in the list of inputs",
        )
    raise positions.error(
        path,
        f"no input is named '{shortened(name)}'",
        hint="a mask is one of the network's inputs: after the first one",
        label=did_you_mean(name, list(known)),
    )
