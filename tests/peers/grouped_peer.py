"""The authors' code of Grouped Newton (GN3), p-wol/GroupedNewton, and a network for both sides.

Set ``SIFRC_GROUPED_NEWTON`` to a checkout. Only the files that are asked for are loaded: their package as
a whole imports torchvision and more.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Any

import pytest
import torch
from torch import nn

__all__ = ["CHECKOUT", "PARTITIONS", "SIZES", "TENSORS", "Network", "document", "needs_peer", "peer_module"]

CHECKOUT = os.environ.get("SIFRC_GROUPED_NEWTON", "")
needs_peer = pytest.mark.skipif(
    not CHECKOUT, reason="SIFRC_GROUPED_NEWTON is not set to a checkout of p-wol/GroupedNewton, the peer"
)
SIZES = (5, 6, 4, 3)
TENSORS = tuple(f"fc{k}.{kind}" for k in (1, 2, 3) for kind in ("weight", "bias"))
PARTITIONS: Mapping[str, Sequence[Sequence[str]]] = MappingProxyType(
    {
        "canonical": [[name] for name in TENSORS],
        "trivial": [TENSORS],
        "weights-biases": [[f"fc{k}.{kind}" for k in (1, 2, 3)] for kind in ("weight", "bias")],
    }
)


def peer_module(name: str) -> ModuleType:
    """A module of their package, e.g. ``hg``, without what the package itself would import."""
    folder = Path(CHECKOUT) / "src" / "grnewt"
    assert folder.is_dir(), f"{folder} does not exist"
    if "grnewt" not in sys.modules:
        package = ModuleType("grnewt")
        package.__path__ = [str(folder)]
        sys.modules["grnewt"] = package
    return importlib.import_module(f"grnewt.{name}")


class Network(nn.Module):
    """Dense layers with tanh, a linear one last, float64."""

    def __init__(self) -> None:
        super().__init__()
        for k in (1, 2, 3):
            setattr(self, f"fc{k}", nn.Linear(SIZES[k - 1], SIZES[k], dtype=torch.float64))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc3(torch.tanh(self.fc2(torch.tanh(self.fc1(x)))))


def document(partition: str, **more: Any) -> dict[str, Any]:
    """The spec of the network, with cross-entropy."""
    layers = [
        {"name": f"fc{k}", "type": "dense", "units": SIZES[k]} | ({"activation": "tanh"} if k < 3 else {})
        for k in (1, 2, 3)
    ]
    return {
        "sifrc": 1,
        "name": "peer",
        "network": {"input": {"name": "image", "size": SIZES[0]}, "layers": layers},
        "loss": "cross_entropy",
        "regularization": {"state": "none"},
        "dtype": "float64",
        "partition": partition,
    } | more
