"""Shape of a spec: keys and types, as strict pydantic models. Meaning is checked afterwards."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag

from sifrc.spec.curvature import CurvatureOutput, CurvatureResidual
from sifrc.spec.types import InitializationKind, LayerKind, Mode

__all__ = [
    "SHAPES",
    "TAGS",
    "CurvatureShape",
    "FunctionShape",
    "InitializationShape",
    "LayerShape",
    "LossShape",
    "MethodShape",
    "NetworkShape",
    "PlateauShape",
    "SpecShape",
    "TargetShape",
    "TrainingShape",
]

MAX_UNITS = 10_000_000
MAX_LAYERS = 10_000
MAX_AXES = 6
MAX_INPUTS = 100
MAX_VALUES = 65_536
TAGS = ("<size>", "<sizes>")
"""What tells the forms of a value apart; no part of its path."""

Count: TypeAlias = Annotated[int, Field(ge=1, le=MAX_UNITS)]
Whole: TypeAlias = Annotated[int, Field(ge=0, le=MAX_UNITS)]
Sizes: TypeAlias = Annotated[
    Annotated[Count, Tag(TAGS[0])]
    | Annotated[list[Count], Field(min_length=1, max_length=MAX_AXES), Tag(TAGS[1])],
    Discriminator(lambda value: TAGS[isinstance(value, list)]),
]
"""Sizes of axes; one alone may stand without a list."""
InputSizes: TypeAlias = Annotated[
    Annotated[Count, Tag(TAGS[0])] | Annotated[list[Count], Field(max_length=MAX_AXES), Tag(TAGS[1])],
    Discriminator(lambda value: TAGS[isinstance(value, list)]),
]
"""Sizes of the axes of an input; none for one number a sample."""
Integer: TypeAlias = Annotated[int, Field(ge=-MAX_UNITS, le=MAX_UNITS)]
Finite: TypeAlias = Annotated[float, Field(allow_inf_nan=False)]
Weight: TypeAlias = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Parameters: TypeAlias = dict[str, Finite]


def _named(key: str) -> BeforeValidator:
    """Accept a bare word for a mapping with one key: ``tanh`` for ``{function: tanh}``."""
    return BeforeValidator(lambda value: {key: value} if isinstance(value, str) else value)


class Shape(BaseModel):
    """Base: exact types, no unknown keys."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class FunctionShape(Shape):
    """An activation in the short form of a dense or add layer."""

    function: str | None = None
    expression: str | None = None
    parameters: Parameters | None = None


class InitializationShape(Shape):
    """How parameters start."""

    kind: InitializationKind
    value: Finite | None = None
    connections: Count | None = None


class InputShape(Shape):
    """The network input."""

    name: str = "input"
    size: InputSizes
    classes: Count | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes of the axes."""
        return tuple(self.size) if isinstance(self.size, list) else (self.size,)


class LayerShape(Shape):
    """A layer of any type; which keys go with which type is checked with the graph."""

    name: str | None = None
    type: LayerKind
    inputs: Annotated[
        list[str] | None, BeforeValidator(lambda value: [value] if isinstance(value, str) else value)
    ] = None
    units: Count | None = None
    channels: Count | None = None
    kernel: Sizes | None = None
    stride: Sizes | None = None
    dilation: Sizes | None = None
    padding: Any = None
    output_padding: (
        Annotated[int, Field(ge=0, le=MAX_UNITS)] | list[Annotated[int, Field(ge=0, le=MAX_UNITS)]] | None
    ) = None
    transposed: bool | None = None
    ceil: bool | None = None
    count_padding: bool | None = None
    output: Sizes | None = None
    groups: Count | None = None
    sizes: Annotated[list[Integer], Field(min_length=1, max_length=MAX_AXES)] | None = None
    order: Annotated[list[Integer], Field(min_length=1, max_length=MAX_AXES)] | None = None
    axes: Annotated[
        list[Integer] | None, BeforeValidator(lambda value: [value] if type(value) is int else value)
    ] = None
    axis: Integer | None = None
    keep: bool | None = None
    start: Integer | None = None
    stop: Integer | None = None
    step: Integer | None = None
    steps: Annotated[list[Integer], Field(min_length=1, max_length=MAX_AXES)] | None = None
    factor: Sizes | None = None
    mode: str | None = None
    layers: Count | None = None
    bidirectional: bool | None = None
    cells: bool | None = None
    heads: Count | None = None
    causal: bool | None = None
    mask: str | None = None
    masked: Literal["zero", "carried"] | None = None
    state: Annotated[
        list[str] | None, BeforeValidator(lambda value: [value] if isinstance(value, str) else value)
    ] = None
    rotary: bool | Literal["halves", "interleaved"] | None = None
    base: Finite | None = None
    kind: Literal["learned", "sinusoids"] | None = None
    projected: bool | None = None
    epsilon: Finite | None = None
    momentum: Finite | None = None
    track: bool | None = None
    trained: bool | None = None
    frozen: bool | None = None
    values: Annotated[list[Finite], Field(min_length=1, max_length=MAX_VALUES)] | None = None
    probability: Finite | None = None
    affine: bool | None = None
    value: Finite | None = None
    shift: Finite | None = None
    transpose: Annotated[
        list[str] | None, BeforeValidator(lambda value: [value] if isinstance(value, str) else value)
    ] = None
    share: str | None = None
    bias: bool | None = None
    init: Annotated[InitializationShape | None, _named("kind")] = None
    activation: Annotated[FunctionShape | None, _named("function")] = None
    function: str | None = None
    expression: str | None = None
    parameters: Parameters | None = None


class NetworkShape(Shape):
    """The graph of layers."""

    input: InputShape | None = None
    inputs: Annotated[list[InputShape], Field(min_length=1, max_length=MAX_INPUTS)] | None = None
    layers: Annotated[list[LayerShape], Field(min_length=1, max_length=MAX_LAYERS)]
    mode: Mode = "training"
    names: dict[str, str] | None = None

    @property
    def sources(self) -> tuple[InputShape, ...]:
        """The inputs, in order; none where they were not written."""
        return (self.input,) if self.input is not None else tuple(self.inputs or ())

    @property
    def source_paths(self) -> tuple[tuple[str | int, ...], ...]:
        """Where they stand."""
        if self.input is not None:
            return (("network", "input"),)
        return tuple(("network", "inputs", position) for position, _ in enumerate(self.sources))


class LossShape(FunctionShape):
    """The loss of one sample."""

    targets: Literal["classes", "vectors"] | None = None
    axis: int | None = None
    places: Literal["mean", "sum"] | None = None
    reduction: Literal["mean", "sum"] = "mean"
    label_smoothing: Annotated[float, Field(ge=0, le=1)] | None = None
    ignore_index: Integer | None = None
    mask: str | None = None
    pos_weight: Annotated[
        list[Weight] | None,
        Field(min_length=1),
        BeforeValidator(lambda value: [value] if isinstance(value, int | float) else value),
    ] = None
    class_weights: Annotated[list[Weight], Field(min_length=1)] | None = None


class RegularizationShape(Shape):
    """Regularisation of states and parameters; the forms of both are told apart afterwards."""

    state: Any = "none"
    parameters: Any = None
    output: Literal["none", "spectral"] = "none"


class PlateauShape(Shape):
    """When the learning rate falls."""

    patience: Annotated[int, Field(ge=0, le=MAX_UNITS)] = 5
    factor: Annotated[float, Field(gt=0, lt=1)] = 0.5


class TrainingShape(Shape):
    """What ``sifrc train`` does."""

    data: str = "digits"
    epochs: Count = 10
    batch: Count = 1
    one_hot: bool = False
    pad: Annotated[int, Field(ge=0, le=1000)] = 0
    curvature_batch: Annotated[int, Field(ge=0, le=MAX_UNITS)] = 0
    plateau: PlateauShape | None = None
    summaries: Annotated[int, Field(ge=0, le=MAX_UNITS)] | None = None


class MethodShape(Shape):
    """A method and its options, which its declaration validates."""

    model_config = ConfigDict(strict=True, extra="allow", frozen=True)

    name: str


class TargetShape(Shape):
    """What is generated."""

    backend: str = "torch"
    operators: list[str] = Field(default_factory=list)
    options: dict[str, Any] = Field(default_factory=dict)


class CurvatureShape(Shape):
    """A kind of curvature: a preset and what replaces its own rewrites."""

    name: str
    kind: str
    residual: CurvatureResidual | None = None
    output: CurvatureOutput | None = None
    expectation: bool | None = None


# A bare word names a preset, and the curvature after it.
_Curvature: TypeAlias = Annotated[
    CurvatureShape,
    BeforeValidator(lambda value: {"name": value, "kind": value} if isinstance(value, str) else value),
]


class SpecShape(Shape):
    """A whole spec."""

    sifrc: Literal[1]
    name: str
    network: NetworkShape
    loss: Annotated[LossShape, _named("function")]
    regularization: RegularizationShape = RegularizationShape()
    init: Annotated[InitializationShape | None, _named("kind")] = None
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    dtype: Literal["float32", "float64", "bfloat16"] = "float32"
    training: TrainingShape = TrainingShape()
    method: Annotated[MethodShape | None, _named("name")] = None
    target: Annotated[TargetShape, _named("backend")] = Field(default_factory=TargetShape)
    curvature: list[_Curvature] = Field(default_factory=list)
    # A word, groups by name, or lists; told apart afterwards.
    partition: Any = "canonical"


SHAPES: Mapping[tuple[str, ...], type[Shape]] = MappingProxyType(
    {
        (): SpecShape,
        ("network",): NetworkShape,
        ("network", "input"): InputShape,
        ("network", "inputs", "*"): InputShape,
        ("network", "layers", "*"): LayerShape,
        ("network", "layers", "*", "activation"): FunctionShape,
        ("network", "layers", "*", "init"): InitializationShape,
        ("loss",): LossShape,
        ("regularization",): RegularizationShape,
        ("init",): InitializationShape,
        ("training",): TrainingShape,
        ("training", "plateau"): PlateauShape,
        ("method",): MethodShape,
        ("target",): TargetShape,
        ("curvature", "*"): CurvatureShape,
    }
)
"""Which shape stands at which path, ``*`` for any index; for messages about keys."""
