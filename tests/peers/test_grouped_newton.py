"""Summaries against the authors' code of Grouped Newton (GN3), ``grnewt.compute_Hg``.

Its conventions: the direction is a tuple of tensors in the order of the groups, H is the full matrix, and
order 3 is the diagonal D_s itself, without a root. Set ``SIFRC_GROUPED_NEWTON`` to a checkout of their
repository, p-wol/GroupedNewton.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import sifrc
from sifrc.spec import build_spec

CHECKOUT = os.environ.get("SIFRC_GROUPED_NEWTON", "")
pytestmark = pytest.mark.skipif(
    not CHECKOUT, reason="SIFRC_GROUPED_NEWTON is not set to a checkout of p-wol/GroupedNewton, the peer"
)
SIZES, BATCH = (5, 6, 4, 3), 7
PARTITIONS = {
    "canonical": [[f"fc{k}.{kind}"] for k in (1, 2, 3) for kind in ("weight", "bias")],
    "trivial": [[f"fc{k}.{kind}" for k in (1, 2, 3) for kind in ("weight", "bias")]],
    "weights-biases": [[f"fc{k}.{kind}" for k in (1, 2, 3)] for kind in ("weight", "bias")],
}


@pytest.fixture(scope="module")
def peer() -> ModuleType:
    """The file with ``compute_Hg`` and what it needs, without the package's other parts."""
    folder = Path(CHECKOUT) / "src" / "grnewt"
    assert folder.is_dir(), f"{folder} does not exist"
    found = {}
    for name, path in (
        ("grnewt", None),
        ("grnewt.util", folder / "util" / "__init__.py"),
        ("grnewt.hg", folder / "hg.py"),
    ):
        if path is None:
            module = ModuleType(name)
            module.__path__ = [str(folder)]
        else:
            spec = importlib.util.spec_from_file_location(name, path)
            assert spec is not None and spec.loader is not None
            module = importlib.util.module_from_spec(spec)
        found[name] = sys.modules[name] = module
        if path is not None:
            spec.loader.exec_module(module)
    return found["grnewt.hg"]


class Network(nn.Module):
    """Dense layers with tanh, a linear one last."""

    def __init__(self) -> None:
        super().__init__()
        for k in (1, 2, 3):
            setattr(self, f"fc{k}", nn.Linear(SIZES[k - 1], SIZES[k], dtype=torch.float64))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc3(torch.tanh(self.fc2(torch.tanh(self.fc1(x)))))


def near(found: Any, expected: torch.Tensor) -> None:
    """To 1e-10 of the largest entry."""
    error = np.abs(np.asarray(found) - expected.numpy()).max()
    assert error <= 1e-10 * float(expected.abs().max()), error


@pytest.mark.parametrize("partition", PARTITIONS)
def test_summaries_are_those_of_the_authors(partition: str, peer: ModuleType) -> None:
    """ḡ, H̄ and the diagonal of order 3, mean cross-entropy, along the gradient and at random."""
    layers = [
        {"name": f"fc{k}", "type": "dense", "units": SIZES[k]} | ({"activation": "tanh"} if k < 3 else {})
        for k in (1, 2, 3)
    ]
    document = {
        "sifrc": 1,
        "name": "peer",
        "network": {"input": {"name": "image", "size": SIZES[0]}, "layers": layers},
        "loss": "cross_entropy",
        "regularization": {"state": "none"},
        "dtype": "float64",
        "partition": partition,
    }
    ours = sifrc.compile(
        build_spec(document), backend="torch", method="none", operators=("summary", "gradient"), cache=False
    )
    torch.manual_seed(3)
    network = Network()
    params = dict(network.named_parameters())
    inputs = torch.randn(BATCH, SIZES[0], dtype=torch.float64)
    targets = torch.randint(SIZES[-1], (BATCH,))
    groups = [{"params": [params[name] for name in names]} for names in PARTITIONS[partition]]
    structure = peer.ParamStructure(groups)
    gradient = ours.gradient(params, inputs, targets)
    random = {name: torch.randn_like(value.detach()) for name, value in params.items()}
    for direction in (gradient, random):
        found = ours.summary(params, inputs, targets, direction, order=3)
        given = tuple(direction[name] for names in PARTITIONS[partition] for name in names)
        H, g, order3 = peer.compute_Hg(
            structure, lambda x, y: nn.functional.cross_entropy(network(x), y), inputs, targets, given
        )
        near(found.g, g)
        near(found.H, H)
        near(found.D3, order3)
