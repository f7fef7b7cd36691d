"""Gradients of single samples over several batches, and moments of these, against torch.func."""

from __future__ import annotations

import pytest
import torch
from dense_oracle import Case, close
from torch import Tensor

import sifrc
from sifrc.errors import OperatorError

CASES = [
    Case(),
    Case("conv"),
    Case(loss="squared_error", keys=(("loss", {"function": "mse", "reduction": "sum"}),)),
]


def expected(case: Case) -> dict[str, Tensor]:
    """(N, …) by name, from the loss of each sample, written out."""
    flat = case.flat.clone().requires_grad_()
    outputs = case.outputs(flat)
    if case.loss == "cross_entropy":
        losses = outputs.exp().sum(1).log() - outputs[torch.arange(len(outputs)), case.targets]
    else:
        losses = ((outputs - case.targets) ** 2).sum(1)
    rows = [torch.autograd.grad(loss, flat, retain_graph=True)[0] for loss in losses]
    sizes = [value.numel() for value in case.params.values()]
    parts = torch.split(torch.stack(rows), sizes, dim=1)
    return {
        name: part.reshape(len(rows), *value.shape)
        for (name, value), part in zip(case.params.items(), parts, strict=True)
    }


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.network} {case.loss} {case.keys}")
def test_gradients_and_their_moments_over_batches_of_other_sizes(case: Case) -> None:
    ops, each = case.operators(), expected(case)
    found = {moment: ops.sample_gradients(moment) for moment in ("none", "norm", "second", "variance")}
    assert list(found["none"]) == list(case.params)
    for name, gradients in each.items():
        close(found["none"][name], gradients)
        close(found["norm"][name], gradients.flatten(1).square().sum(1))
        close(found["second"][name], gradients.square().mean(0))
        close(found["variance"][name], gradients.var(0, unbiased=False))


def test_they_add_up_to_the_gradient() -> None:
    ops = Case().operators()
    whole = ops.gradient("dict")
    for name, gradients in ops.sample_gradients().items():
        close(gradients.mean(0), whole[name])


def test_an_unknown_moment_and_samples_that_are_not_alone_are_refused() -> None:
    with pytest.raises(OperatorError, match="'third'"):
        Case().operators().sample_gradients("third")  # type: ignore[arg-type]
    module = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2)).double()
    data = torch.randn(4, 3).double(), torch.randn(4, 2).double()
    with pytest.raises(sifrc.SifrcError, match="batch"):
        sifrc.operators(module, "squared_error", data).sample_gradients()
