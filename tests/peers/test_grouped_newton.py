"""Summaries against the authors' code of Grouped Newton (GN3), ``grnewt.compute_Hg``.

Its conventions: the direction is a tuple of tensors in the order of the groups, H is the full matrix, and
order 3 is the diagonal D_s itself, without a root.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from grouped_peer import PARTITIONS, SIZES, Network, document, needs_peer, peer_module
from torch import nn

import sifrc
from sifrc.spec import build_spec

pytestmark = needs_peer
BATCH = 7


def near(found: Any, expected: torch.Tensor) -> None:
    """To 1e-10 of the largest entry."""
    error = np.abs(np.asarray(found) - expected.numpy()).max()
    assert error <= 1e-10 * float(expected.abs().max()), error


@pytest.mark.parametrize("partition", PARTITIONS)
def test_summaries_are_those_of_the_authors(partition: str) -> None:
    """ḡ, H̄ and the diagonal of order 3, mean cross-entropy, along the gradient and at random."""
    peer, util = peer_module("hg"), peer_module("util")
    ours = sifrc.compile(
        build_spec(document(partition)),
        backend="torch",
        method="none",
        operators=("summary", "gradient"),
        cache=False,
    )
    torch.manual_seed(3)
    network = Network()
    params = dict(network.named_parameters())
    inputs = torch.randn(BATCH, SIZES[0], dtype=torch.float64)
    targets = torch.randint(SIZES[-1], (BATCH,))
    groups = [{"params": [params[name] for name in names]} for names in PARTITIONS[partition]]
    structure = util.ParamStructure(groups)
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
