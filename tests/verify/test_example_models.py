"""Every network of ``examples/``, its sizes cut down: programs to 40 digits, modules in float64."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

import sifrc
from sifrc.spec.types import PartitionSpec, Spec
from sifrc.verify.capped import capped
from sifrc.verify.generated import generated_rows
from sifrc.verify.points import parameter_count
from sifrc.verify.precise.rows import precise_rows
from sifrc.verify.records import looked_at

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
FILES = sorted(path.stem for path in EXAMPLES.glob("*.yaml"))
OPERATORS = ("gradient", "hessian_vector_product", "gauss_newton_vector_product", "summary")
DIGITS = 50
"""Ten fewer must agree."""
QUICK = (
    "cifar_lenet",
    "cifar_narrow",
    "cifar_nine_layers",
    "curves_autoencoder",
    "custom",
    "digits",
    "lstm_language_model",
)
"""Whose modules are written and checked in a second or two, and unlike each other."""
AS_MODULES = [pytest.param(file, marks=() if file in QUICK else pytest.mark.slow) for file in FILES]


VGG = {"image": {"size": [3, 8, 8]}, "pool1": {"kernel": 1}, "pool2": {"kernel": 1}}
SHORTER: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "cifar_vgg11": VGG,
    "cifar_vgg11_narrow": VGG,
    "digits_vit": {
        "image": {"size": [4, 4]},
        "rows": {"sizes": [2, 2, 2, 2]},
        "patches": {"sizes": [4, 4]},
    },
    "conv_autoencoder": {"image": {"size": [1, 12, 12]}, "code": {"kernel": 3}, "open": {"kernel": 3}},
    "cifar_lenet": {"image": {"size": [3, 10, 10]}, "conv1": {"kernel": 3}, "conv2": {"kernel": 3}},
}
"""Sizes that only go together: of patches, or so that a window reads what is left of a small image.

Five maxima of 2 × 2 take an image of 32 × 32; two of VGG's are of single pixels here.
"""


@cache
def small(file: str) -> Spec:
    """A file's network with short axes, in four groups: weights and biases of its halves."""
    content = yaml.safe_load((EXAMPLES / f"{file}.yaml").read_text(encoding="utf-8"))
    network = content["network"]
    for item in (network["input"], *network["layers"]):
        item |= SHORTER.get(file, {}).get(item["name"], {})
    spec = capped(sifrc.build_spec(content), 3)
    return replace(spec, partition=PartitionSpec("chunks", 2))


@pytest.mark.parametrize("file", FILES)
def test_sizes_are_cut_down_and_the_structure_stays(file: str) -> None:
    spec, cut = sifrc.load_spec(EXAMPLES / f"{file}.yaml"), small(file)
    assert parameter_count(cut) <= 2000
    for whole, short in zip(spec.layers, cut.layers, strict=True):
        assert (short.name, short.kind, short.inputs) == (whole.name, whole.kind, whole.inputs)
        assert short.activation == whole.activation and short.share == whole.share
    assert Counter(layer.kind for layer in cut.layers) == Counter(layer.kind for layer in spec.layers)


@pytest.mark.slow
@pytest.mark.parametrize("file", FILES)
def test_program_to_forty_digits(file: str) -> None:
    looked = looked_at(small(file), OPERATORS)
    assert not looked.failed and not looked.refused
    rows = [check() for _, _, check in precise_rows(small(file), looked, DIGITS, seed=0)]
    assert {row.quantity for row in rows if row} == {*OPERATORS}
    for row in rows:
        assert row and row.passed and row.digits >= 40, row


@pytest.mark.parametrize("file", AS_MODULES)
def test_module_in_float64(file: str) -> None:
    spec = replace(small(file), dtype="float64")
    looked = looked_at(spec, OPERATORS)
    module = sifrc.compile(spec, backend="torch", method="none", operators=OPERATORS)
    rows = [check() for _, _, check in generated_rows(spec, looked, module, None, seed=0)]
    assert {row.quantity for row in rows if row} >= {*OPERATORS}
    for row in rows:
        assert row is None or row.passed, row
