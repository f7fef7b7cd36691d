"""``regularization``: of the states, and of the parameters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from sifrc.errors import Location
from sifrc.spec.diagnostics import describe
from sifrc.spec.partition import tensor_names
from sifrc.spec.positions import Path, Positions
from sifrc.spec.schema import SpecShape
from sifrc.spec.states import state_names
from sifrc.spec.suggest import did_you_mean, shortened
from sifrc.spec.types import LayerSpec, RegularizationSpec

__all__ = ["regularization_spec"]


def regularization_spec(
    shape: SpecShape, layers: tuple[LayerSpec, ...], positions: Positions
) -> RegularizationSpec:
    """Regularisation as a spec says it.

    Args:
        shape: of the spec.
        layers: resolved, in the order of the network.
        positions: of the spec's items.

    Raises:
        SpecError: a name that does not exist, or no number from zero on.
    """
    weights = _of_parameters(shape.regularization.parameters, layers, positions)
    return replace(_of_states(shape, layers, positions), parameters=weights)


def _of_states(shape: SpecShape, layers: tuple[LayerSpec, ...], positions: Positions) -> RegularizationSpec:
    """The four forms of ``regularization.state``, and the factor of the loss."""
    state, output = shape.regularization.state, shape.regularization.output
    path: Path = ("regularization", "state")
    location = positions.value(("regularization",))
    hint = "a number such as 1e-3, none, spectral, or numbers by state: {act1: 1e-3}"
    if output == "spectral" and state != "spectral":
        raise positions.error(
            ("regularization", "output"),
            "a spectral factor of the loss (MK(68)) goes with spectral states",
            hint="add state: spectral, or leave output out",
        )
    if isinstance(state, str):
        if state == "none":
            return RegularizationSpec(location=location)
        if state == "spectral":
            return RegularizationSpec("spectral", output=output, location=location)
        raise positions.error(
            path,
            f"unknown state regularisation '{shortened(state)}'",
            hint=hint,
            label=did_you_mean(state, ("none", "spectral")),
        )
    if isinstance(state, dict):
        return _per_state(state, layers, shape.network.sources[0].name, positions, location)
    return RegularizationSpec("uniform", _weight(state, path, positions, hint), location=location)


def _weight(value: Any, path: Path, positions: Positions, hint: str) -> float:
    """One λ: a finite number, zero or more."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise positions.error(path, f"{path[1]} regularisation cannot be {describe(value)}", hint=hint)
    # Compared before the conversion, which fails for huge whole numbers.
    if not 0 <= value <= 1e300:
        message = f"{path[1]} regularisation cannot be {describe(value)}"
        raise positions.error(path, message, hint="zero or more")
    return float(value)


def _per_state(
    weights: Mapping[Any, Any],
    layers: tuple[LayerSpec, ...],
    input_name: str,
    positions: Positions,
    location: Location | None,
) -> RegularizationSpec:
    names = state_names(layers)
    states = [input_name, *dict.fromkeys(names.values())]  # the input's is the white layer's
    for key, value in weights.items():
        path: Path = ("regularization", "state", key)
        if key not in states:
            message, label = f"no state is named '{shortened(str(key))}'", did_you_mean(str(key), states)
            if key in names:
                message = f"layer '{key}' is one state with the activation '{names[key]}' that follows it"
                label = f"write {names[key]}"
            hint = f"states: {shortened(' '.join(states), 300)}"
            raise positions.error(path, message, hint=hint, label=label, at_key=True)
        _weight(value, path, positions, "a number such as 1e-3")
    values = tuple((state, float(weights[state])) for state in states if state in weights)
    return RegularizationSpec("per_state", values=values, location=location)


def _of_parameters(
    given: Any, layers: tuple[LayerSpec, ...], positions: Positions
) -> tuple[tuple[str, float], ...]:
    """λ of every tensor that has one: of all of them, of those of a layer, or of one by name."""
    path: Path = ("regularization", "parameters")
    hint = "a number such as 1e-4, or numbers by parameter or layer: {fc1.weight: 1e-4}"
    tensors = tensor_names(layers)
    if given is None:
        return ()
    if not isinstance(given, dict):
        value = _weight(given, path, positions, hint)
        return tuple((name, value) for name in tensors) if value else ()
    found: dict[str, float] = {}
    # A tensor by its name comes before the layer that it is of.
    for key in sorted(given, key=lambda key: (key in tensors, -len(str(key)))):
        own: Path = (*path, key)
        value = _weight(given[key], own, positions, hint)
        members = [name for name in tensors if name == key or name.startswith(f"{key}.")]
        if not members:
            owners = list(dict.fromkeys(name.rpartition(".")[0] for name in tensors))
            raise positions.error(
                own,
                f"no parameter or layer with parameters is named '{shortened(str(key))}'",
                hint=f"parameters: {shortened(' '.join(tensors), 300)}",
                label=did_you_mean(str(key), [*tensors, *owners]),
                at_key=True,
            )
        found |= dict.fromkeys(members, value)
    return tuple((name, found[name]) for name in tensors if found.get(name))
