"""The validated spec: immutable, every default filled in, every item knows its place in the file.

Locations never take part in comparison: two specs are equal when they mean the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from types import MappingProxyType
from typing import Any, Literal, TypeAlias, TypeVar

from sifrc.errors import Location
from sifrc.spec.curvature import CurvatureOutput, CurvatureResidual
from sifrc.spec.expression import Expression
from sifrc.spec.layerkinds import LayerKind
from sifrc.spec.settings import AdaptiveSpec, LayerSettings, WindowSpec

__all__ = [
    "STANDARD",
    "VALUED",
    "AdaptiveSpec",
    "CurvatureSpec",
    "Dtype",
    "FunctionSpec",
    "InitializationKind",
    "InitializationSpec",
    "InputSpec",
    "LayerKind",
    "LayerSettings",
    "LayerSpec",
    "LossSpec",
    "MethodSpec",
    "Mode",
    "OptionValue",
    "PartitionChoice",
    "PartitionKind",
    "PartitionSpec",
    "PlateauSpec",
    "RegularizationSpec",
    "Sizes",
    "Spec",
    "TargetKind",
    "TargetSpec",
    "TrainingSpec",
    "WindowSpec",
]

_Item = TypeVar("_Item")

Dtype: TypeAlias = Literal["float32", "float64", "bfloat16"]
Mode: TypeAlias = Literal["training", "evaluation"]
Sizes: TypeAlias = tuple[int, ...]
"""Sizes of axes, in order."""
TargetKind: TypeAlias = Literal["classes", "vectors"]
InitializationKind: TypeAlias = Literal[
    "he", "glorot", "uniform", "sparse", "normal", "zeros", "ones", "constant"
]
VALUED: tuple[InitializationKind, ...] = ("normal", "uniform", "constant")
"""Initialisations with a number."""
STANDARD: Mapping[str, float] = MappingProxyType({"constant": 0.0, "normal": 1.0, "uniform": 0.0})
"""Their numbers, where none is given."""
OptionValue: TypeAlias = bool | int | float | str
PartitionKind: TypeAlias = Literal[
    "canonical", "trivial", "weights-biases", "discrete", "blocks", "alternate", "chunks", "groups"
]
PartitionChoice: TypeAlias = str | Mapping[str, str | Sequence[str]] | Sequence[Sequence[str]]
"""What a caller may write for a partition: a word, or groups with or without names."""


def _no_places() -> Any:
    """A field of places by name, empty by default."""
    return field(default_factory=lambda: MappingProxyType({}), compare=False, repr=False)


@dataclass(frozen=True)
class InputSpec:
    """An input of the network.

    Args:
        name: of the state.
        shape: sizes of its axes.
        classes: of which its entries are, numbered from 0; 0 for real numbers.
    """

    name: str
    shape: tuple[int, ...]
    classes: int = 0
    location: Location | None = field(default=None, compare=False, repr=False)

    @property
    def size(self) -> int:
        """Number of entries."""
        return prod(self.shape)

    @property
    def vector_shape(self) -> tuple[int, ...]:
        """Sizes of its axes where classes are vectors with a one, along a last axis."""
        return (*self.shape, self.classes) if self.classes else self.shape


@dataclass(frozen=True)
class FunctionSpec:
    """A scalar function or a loss, built in or the user's own; both are expressions.

    Args:
        name: registry name such as ``leaky_relu``, or ``custom``.
        expression: syntax tree over ``x`` (activation) or ``y`` and ``t`` (loss) and parameters.
        parameters: values of the declared parameters, in order of declaration.
    """

    name: str
    expression: Expression
    parameters: tuple[tuple[str, float], ...] = ()
    location: Location | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True)
class InitializationSpec:
    """How a dense layer's parameters start.

    ``he``: normal, variance 2 / fan-in; ``glorot``: uniform, limit sqrt(6 / (fan-in + fan-out));
    ``uniform``: uniform, limit ``value``, by default (0) one over the root of the fan-in, also of biases;
    ``sparse``: ``connections`` entries a row drawn from N(0, 1), the others zero; ``normal``: normal,
    standard deviation ``value``; ``zeros``; ``ones``; ``constant``: every entry ``value``. Biases start at
    zero, except for ``uniform`` and ``constant``.
    """

    kind: InitializationKind = "he"
    value: float = 0.0
    connections: int = 15
    location: Location | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True)
class LayerSpec:
    """One layer of the graph.

    Args:
        name: identifier, unique.
        kind: its type, a row of :data:`sifrc.spec.layers.LAYER_TYPES`.
        inputs: names of the producing layers or of inputs of the network.
        shape: sizes of the axes of its output, resolved for every kind.
        activation: the elementwise function of an ``activation`` layer, or of another one in the short form;
            None otherwise.
        bias: whether a layer with parameters has a bias.
        share: name of the layer whose parameters this one uses, or None.
        initialization: of a layer that owns parameters, where it does not start as its type does; else None.
        settings: of its type; None for a type that has none.
        mask: whether the last of its inputs says which others are read: it has no derivative.
        begins: how many of its inputs, before a mask, are states that it begins with.
        frozen: whether its parameters are given and not trained: buffers, which nothing is differentiated by.
    """

    name: str
    kind: LayerKind
    inputs: tuple[str, ...]
    shape: Sizes
    activation: FunctionSpec | None = None
    bias: bool = True
    share: str | None = None
    initialization: InitializationSpec | None = None
    settings: LayerSettings | None = None
    mask: bool = False
    begins: int = 0
    frozen: bool = False
    location: Location | None = field(default=None, compare=False, repr=False)

    @property
    def window(self) -> WindowSpec | None:
        """Of a convolution or of pooling."""
        return self.settings if isinstance(self.settings, WindowSpec) else None

    @property
    def channels_first(self) -> bool:
        """Whether its output has channels at places, as that of a convolution."""
        return isinstance(self.settings, WindowSpec | AdaptiveSpec)

    @property
    def size(self) -> int:
        """Number of entries of its output."""
        return prod(self.shape)


@dataclass(frozen=True)
class LossSpec:
    """The loss of one sample over the output y and the target t, vectors along one axis.

    Where the output has further axes, it is the mean, or the sum, of that of the vectors at all their places.

    Args:
        function: expression over ``y`` and ``t``; ``name`` is the registry name or ``custom``.
        targets: ``classes`` (integer indices, t is the one-hot vector) or ``vectors``.
        reduction: ``mean`` or ``sum`` over the batch; the expression of a built-in loss is that for it.
        axis: of the output, from 0, that vectors (and classes) are along.
        places: what is made of the losses at the places of the other axes.
        smoothing: part of a class that all classes share.
        ignored: class index of targets that do not count, neither in sums nor in what means divide by.
        weights: of the classes; a mean of targets that are classes divides by those of the targets. Empty
            where all classes count alike.
        positive: what the loss at targets of one is multiplied by, for each entry of a vector; empty for one.
        mask: input of the network whose numbers weigh the losses at the places; means divide by them. Empty
            where all count alike.
        entries: whether the mask has a number for each entry of the output, not for each place.
    """

    function: FunctionSpec
    targets: TargetKind
    reduction: Literal["mean", "sum"] = "mean"
    axis: int = 0
    places: Literal["mean", "sum"] = "mean"
    smoothing: float = 0.0
    ignored: int | None = None
    weights: tuple[float, ...] = ()
    positive: tuple[float, ...] = ()
    mask: str = ""
    entries: bool = False
    location: Location | None = field(default=None, compare=False, repr=False)

    def of_places(self, each: Iterable[_Item]) -> tuple[_Item, ...]:
        """Of what there is one of for each axis of the output, those of the places.

        Example:
            >>> from sifrc.spec import build_spec
            >>> network = {"input": {"size": [8, 16]}, "layers": [{"type": "dense", "units": 3}]}
            >>> spec = build_spec({"sifrc": 1, "name": "tokens", "loss": "cross_entropy", "network": network})
            >>> spec.layers[-1].shape, spec.loss.of_places(spec.layers[-1].shape)
            ((8, 3), (8,))
        """
        return tuple(item for axis, item in enumerate(each) if axis != self.axis)


@dataclass(frozen=True)
class RegularizationSpec:
    """Regularisation R(x) = ½ Σ_k λ_k ‖x_k‖² of states, and ½ Σ λ ‖θ‖² of parameters.

    Args:
        kind: ``none``, ``uniform`` (``value`` for every hidden state), ``per_state``
            (``values``: state name, λ; the input's name gives the white layer's) or ``spectral`` (MK(65)).
        output: ``spectral`` multiplies the loss of a sample by λ_n of MK(68); only with ``spectral`` states.
        parameters: tensor, λ; those that have none are left out.
    """

    kind: Literal["none", "uniform", "per_state", "spectral"] = "none"
    value: float = 0.0
    values: tuple[tuple[str, float], ...] = ()
    output: Literal["none", "spectral"] = "none"
    location: Location | None = field(default=None, compare=False, repr=False)
    parameters: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True)
class PlateauSpec:
    """When the learning rate falls: after more than ``patience`` epochs that are no better."""

    patience: int = 5
    factor: float = 0.5


@dataclass(frozen=True)
class TrainingSpec:
    """What ``sifrc train`` does.

    Args:
        data: name of a data set, or path of an archive.
        epochs: the run is complete after these.
        batch: samples in a step; 1 is one sample at a time.
        one_hot: turn class indices into vectors.
        pad: pixels of background added at each side of every image.
        curvature_batch: samples of a batch of its own for the periodic part of the method; 0 for none.
        plateau: schedule of the learning rate, if any.
        summaries: recorded in an epoch, at most; None for the default.
    """

    data: str = "digits"
    epochs: int = 10
    batch: int = 1
    one_hot: bool = False
    pad: int = 0
    curvature_batch: int = 0
    plateau: PlateauSpec | None = None
    summaries: int | None = None
    location: Location | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True)
class MethodSpec:
    """A method by name, and its options as given; the method's declaration validates them."""

    name: str
    options: Mapping[str, OptionValue] = field(default_factory=lambda: MappingProxyType({}))
    location: Location | None = field(default=None, compare=False, repr=False)
    option_locations: Mapping[str, Location] = _no_places()

    def location_of(self, option: str) -> Location | None:
        """Where an option was given; where the method was named, for one that was not given."""
        return self.option_locations.get(option) if option in self.options else self.location


@dataclass(frozen=True)
class TargetSpec:
    """Backend, requested operators, and backend options as given; the backend validates them."""

    backend: str = "torch"
    operators: tuple[str, ...] = ()
    options: Mapping[str, OptionValue] = field(default_factory=lambda: MappingProxyType({}))
    location: Location | None = field(default=None, compare=False, repr=False)
    option_locations: Mapping[str, Location] = _no_places()
    operator_locations: Mapping[str, Location] = _no_places()


@dataclass(frozen=True)
class CurvatureSpec:
    """A kind of curvature that the operators know: a preset, with what replaces its own rewrites.

    Args:
        name: as operators take it; that of the preset where nothing is replaced.
        kind: name of the preset.
        residual: what becomes of the residual term; None is the preset's.
        output: what becomes of the block of the output; None is the preset's.
        expectation: whether expectations of products are products of expectations; None is the preset's.
    """

    name: str
    kind: str
    residual: CurvatureResidual | None = None
    output: CurvatureOutput | None = None
    expectation: bool | None = None
    location: Location | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True)
class PartitionSpec:
    """How the parameter tensors are put into groups.

    Args:
        kind: the word, without its number; ``groups`` where the tensors of each group are named.
        count: K of ``blocks``, ``alternate`` and ``chunks``, else 0.
        groups: name and tensors of each group, for ``groups``; in the order of their first tensor.
    """

    kind: PartitionKind = "canonical"
    count: int = 0
    groups: tuple[tuple[str, tuple[str, ...]], ...] = ()
    location: Location | None = field(default=None, compare=False, repr=False)
    group_locations: Mapping[str, Location] = _no_places()


@dataclass(frozen=True)
class Spec:
    """A validated network spec.

    ``layers`` is in topological order; the last one is the network's output. ``input`` is the first of the
    network's inputs, ``others`` are those after it. ``curvature`` is empty where the spec does not choose.
    ``mode`` is for layers that differ in training and after it. ``names`` is what tensors are called in the
    torch module that the network was taken from, where they have another name there.
    """

    name: str
    input: InputSpec
    layers: tuple[LayerSpec, ...]
    loss: LossSpec
    regularization: RegularizationSpec = RegularizationSpec()
    dtype: Dtype = "float32"
    seed: int = 0
    training: TrainingSpec = TrainingSpec()
    method: MethodSpec | None = None
    target: TargetSpec = TargetSpec()
    curvature: tuple[CurvatureSpec, ...] = ()
    partition: PartitionSpec = PartitionSpec()
    mode: Mode = "training"
    others: tuple[InputSpec, ...] = ()
    names: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    location: Location | None = field(default=None, compare=False, repr=False)

    def _repr_html_(self) -> str:
        """For notebooks."""
        from sifrc.spec.display import page_of

        return page_of(self)

    @property
    def inputs(self) -> tuple[InputSpec, ...]:
        """All inputs of the network, in order."""
        return (self.input, *self.others)

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Name of a network input or of a layer -> sizes of the axes of what it gives.

        Classes are vectors with a one, along a last axis.
        """
        given = {source.name: source.vector_shape for source in self.inputs}
        return MappingProxyType(given | {layer.name: layer.shape for layer in self.layers})
