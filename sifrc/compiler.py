"""Compile a network spec into a module of curvature operators and optimizer updates.

Stages, each with its input and output:

    spec      text        -> Spec      validated, every item knows its place
    model     Spec        -> Model     constraints x = F(a) of one sample, objective
    derive    Model       -> Derived   Lagrangian, Sifrian, Newton direction, with provenance
    methods   Derived     -> Plan      phases, operators, the optimizer's step
    lower     Plan        -> Program   typed statements over buffers, after the passes
    backends  Program     -> text      one stand-alone module
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from itertools import groupby
from types import MappingProxyType
from typing import get_args

from sifrc.backends import check_options, find_backend
from sifrc.backends.base import (
    BufferInfo,
    LayerInfo,
    ModuleSource,
    accumulates,
    blocks_for,
    has_class_indices,
    has_parameter_rates,
    made_again_for,
)
from sifrc.errors import Location, SpecError
from sifrc.lower.cost import cost_lines
from sifrc.lower.lowering import Passes, lower
from sifrc.methods.planning import Planned, make_plan
from sifrc.model import Model, build_model
from sifrc.report.lines import condition_lines, describe_system
from sifrc.spec import Spec, format_expression, spec_hash, spec_to_dict
from sifrc.spec.curvaturespec import choose_curvature
from sifrc.spec.partitionspec import choose_partition
from sifrc.spec.suggest import did_you_mean, shortened
from sifrc.spec.types import FunctionSpec, MethodSpec, Mode, OptionValue, PartitionChoice, TargetSpec
from sifrc.spec.words import size_text
from sifrc.version import __version__

__all__ = ["Compiled", "Request", "compile_spec"]

_MODES: tuple[Mode, ...] = get_args(Mode)
_MOST_SIZES = 24
"""Sizes of layers in the line that describes a network."""


@dataclass(frozen=True)
class Request:
    """What to compile, over what the spec says itself.

    Args:
        backend: name of a backend; the spec's by default.
        method: name of a method; the spec's by default, ``none`` for operators alone.
        operators: names of operators; the spec's by default.
        curvature: names of kinds, presets or the spec's own; the spec's by default, all presets if empty.
        partition: of the parameters: a word, or groups with or without names; the spec's by default.
        mode: ``training`` or ``evaluation``; the spec's by default.
        options: options of the method.
        backend_options: options of the backend.
        option_locations: where options were given, for errors; a backend's under ``backend.<name>``.
        passes: which lowering passes run.
    """

    backend: str | None = None
    method: str | None = None
    operators: tuple[str, ...] | None = None
    curvature: tuple[str, ...] | None = None
    partition: PartitionChoice | None = None
    mode: str | None = None
    options: Mapping[str, OptionValue] = field(default_factory=lambda: MappingProxyType({}))
    backend_options: Mapping[str, OptionValue] = field(default_factory=lambda: MappingProxyType({}))
    option_locations: Mapping[str, Location] = field(default_factory=lambda: MappingProxyType({}))
    passes: Passes = field(default_factory=Passes)


@dataclass(frozen=True)
class Compiled:
    """A generated module as text, and what it was made from.

    Args:
        name: file name without its suffix: ``<spec name>_<method>_<backend>``.
        backend: name of the backend.
        text: the module.
        source: what the backend printed.
        planned: plan and derivations.
    """

    name: str
    backend: str
    text: str
    source: ModuleSource
    planned: Planned


def compile_spec(
    spec: Spec, request: Request | None = None, progress: Callable[[str, float], None] | None = None
) -> Compiled:
    """Compile a spec to the text of a module.

    Args:
        spec: validated.
        request: choices over the spec's own.
        progress: called with the name of each stage and the share of the work before it.

    Raises:
        SifrcError: the spec asks for something that does not exist or cannot be derived.
    """
    request = request or Request()
    say = progress or (lambda stage, share: None)
    spec = apply_request(spec, request)
    backend = find_backend(spec.target.backend, spec.target.location)
    options = check_options(backend, spec.target.options, spec.target.option_locations)
    say("model", 0.0)
    model = build_model(spec)
    say("derivation", 0.02)
    planned = make_plan(
        model, lambda system: describe_system(system, model), by_parameter=has_parameter_rates(backend)
    )
    say("lowering", 0.4)
    again = made_again_for(backend, options)
    program = lower(
        planned.plan,
        request.passes,
        indices=has_class_indices(backend),
        again=again,
        blocks=blocks_for(options),
        accumulates=accumulates(backend),
    )
    say("printing", 0.85)
    method = "" if planned.method is None else planned.method.name
    source = ModuleSource(
        program=program,
        name=spec.name,
        summary=_summary(planned),
        architecture=architecture(spec),
        version=__version__,
        spec_hash=spec_hash(spec),
        spec=spec_to_dict(spec),
        dtype=spec.dtype,
        layers=_layers(model),
        buffers=_buffers(model),
        input_shape=spec.input.shape,
        output_size=spec.layers[-1].shape[spec.loss.axis],
        input_classes=spec.input.classes,
        ignored=spec.loss.ignored,
        inputs={source.name: (source.shape, source.classes) for source in spec.inputs if spec.others},
        draws={draw.symbol.index: draw.sizes for draw in model.draws if draw.symbol.index is not None},
        output_shape=spec.layers[-1].shape,
        places=spec.loss.of_places(spec.layers[-1].shape),
        targets=spec.loss.targets,
        seed=spec.seed,
        names=spec.names,
        reduction=spec.loss.reduction,
        method=method,
        method_text=_method_text(planned),
        conditions=_conditions(planned),
        options={**options, "passes": str(request.passes)},
        cost=("Multiply-adds:", *cost_lines(program)),
    )
    text = backend.emit(source)
    return Compiled(
        f"{spec.name}_{method or 'operators'}_{backend.name}", backend.name, text, source, planned
    )


def apply_request(spec: Spec, request: Request) -> Spec:
    """The spec with the request's choices in it, so that the module's own SPEC records them.

    Raises:
        MethodError: a kind of curvature that does not exist, or is named twice.
        SpecError: a partition that is none of the parameters, or an unknown mode.
    """
    target = spec.target
    if request.backend is not None and request.backend != target.backend:
        target = TargetSpec(request.backend, target.operators, operator_locations=target.operator_locations)
    if request.operators is not None:
        target = replace(target, operators=request.operators)
    if request.backend_options:
        own = {name: request.option_locations.get(f"backend.{name}") for name in request.backend_options}
        target = replace(
            target,
            options={**target.options, **request.backend_options},
            option_locations=_replaced(target.option_locations, own),
        )
    method = spec.method
    if request.method == "none":
        method = None
    elif request.method is not None and (method is None or request.method != method.name):
        method = MethodSpec(request.method)
    if request.options and method is not None:
        own = {name: request.option_locations.get(name) for name in request.options}
        method = replace(
            method,
            options={**method.options, **request.options},
            option_locations=_replaced(method.option_locations, own),
        )
    curvature = spec.curvature
    if request.curvature is not None:
        curvature = choose_curvature(request.curvature, curvature)
    partition = spec.partition
    if request.partition is not None:
        partition = choose_partition(request.partition, spec.layers)
    return replace(
        spec,
        target=target,
        method=method,
        curvature=curvature,
        partition=partition,
        mode=spec.mode if request.mode is None else _mode(request.mode),
    )


def _mode(given: str) -> Mode:
    found: Mode | None = next((mode for mode in _MODES if mode == given), None)
    if found is None:
        label = did_you_mean(given, _MODES)
        raise SpecError(f"unknown mode '{shortened(given)}'", hint=" or ".join(_MODES), label=label)
    return found


def _replaced(places: Mapping[str, Location], given: Mapping[str, Location | None]) -> Mapping[str, Location]:
    """Places of options, some of them given anew: at a place of their own, or at none."""
    return {name: place for name, place in {**places, **given}.items() if place is not None}


def architecture(spec: Spec) -> str:
    """One line: sizes along a chain or the layers of a graph, activations, loss."""
    shaping = (layer.shape for layer in spec.layers if layer.kind in ("dense", "flatten"))
    given = " and ".join(size_text(source.shape) for source in spec.inputs)
    sizes = [given, *(size_text(shape) for shape in shaping)]
    names = dict.fromkeys(
        _function_text(layer.activation)
        for layer in spec.layers
        if layer.activation is not None and layer.activation.name != "identity"
    )
    runs = [(size, len(list(run))) for size, run in groupby(sizes)]
    words = [f"{size} ×{count}" if count > 2 else " → ".join([size] * count) for size, count in runs]
    if len(words) > _MOST_SIZES:
        words = [*words[: _MOST_SIZES // 2], "…", *words[-_MOST_SIZES // 2 :]]
    chain = " → ".join(words)
    parts = [chain, *names, _function_text(spec.loss.function)]
    if any(layer.kind == "add" or layer.share is not None for layer in spec.layers):
        parts.insert(1, f"graph of {len(spec.layers)} layers")
    regularization = spec.regularization
    if regularization.kind == "uniform":
        parts.append(f"state regularisation {regularization.value:g}")
    elif regularization.kind != "none":
        parts.append(f"state regularisation {regularization.kind.replace('_', ' ')}")
    if regularization.parameters:
        parts.append("regularisation of parameters")
    return ", ".join(parts)


def _function_text(function: FunctionSpec) -> str:
    parameters = ", ".join(f"{name}={value:g}" for name, value in function.parameters)
    name = function.name if function.name != "custom" else format_expression(function.expression)
    return f"{name}({parameters})" if parameters and function.name != "custom" else name


def _summary(planned: Planned) -> str:
    if planned.method is None:
        return "curvature operators"
    shown = [
        f"{value}".replace("_", " ")
        for name, value in planned.options.items()
        if isinstance(value, str) and value not in ("none",) and name in ("variant", "precision")
    ]
    extra = f" ({', '.join(shown)})" if shown else ""
    return planned.method.title + extra


def _method_text(planned: Planned) -> str:
    if planned.method is None:
        return ""
    return " ".join([f"{planned.method.title} [{planned.method.paper}].", *planned.notes])


def _conditions(planned: Planned) -> tuple[str, ...]:
    lines = tuple(condition_lines(planned.conditions))
    if not planned.accepted:
        return lines
    verdict = f"zero ({planned.accepted})"
    return (*lines, f"Newton direction substituted into the Sifrian's equations: {verdict}")


def _buffers(model: Model) -> tuple[BufferInfo, ...]:
    return tuple(
        BufferInfo(
            index,
            buffer.name,
            buffer.symbol.family,
            tuple(axis.entries for axis in buffer.symbol.axes),
            buffer.start,
        )
        for buffer in model.buffers
        if (index := buffer.symbol.index) is not None
    )


def _layers(model: Model) -> tuple[LayerInfo, ...]:
    infos: list[LayerInfo] = []
    layers = {layer.name: layer for layer in model.spec.layers}
    for owned in model.parameters:
        window = layers[owned.layer.partition(".")[0]].window
        start = owned.initialization
        weight, *biases = (tuple(axis.entries for axis in symbol.axes) for symbol in owned.symbols)
        infos.append(
            LayerInfo(
                owned.index,
                owned.layer,
                weight,
                biases[0] if biases else None,
                start.kind,
                start.value,
                start.connections,
                0 if window is None else window.groups,
            )
        )
    return tuple(infos)
