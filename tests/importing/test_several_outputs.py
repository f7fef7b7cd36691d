"""Modules that return several tensors: the one that the loss reads is named."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import sifrc


class Outputs(NamedTuple):
    logits: Tensor
    aux: Tensor


X, T = torch.randn(6, 4, generator=torch.Generator().manual_seed(0)), torch.arange(6) % 3


class Several(nn.Module):
    """Heads as GoogLeNet has them: an auxiliary one in training alone."""

    def __init__(self, kind: Any) -> None:
        super().__init__()
        self.body, self.head, self.side = nn.Linear(4, 5), nn.Linear(5, 3), nn.Linear(5, 2)
        self.kind = kind

    def forward(self, x: Tensor) -> Any:
        h = torch.tanh(self.body(x))
        logits, aux = self.head(h), self.side(h)
        return self.kind(logits, aux) if self.training else logits


KINDS: dict[str, tuple[Any, int | str, int | str]] = {
    "a tuple": (lambda one, two: (one, two), 0, 1),
    "a list": (lambda one, two: [one, two], 0, -1),
    "a named tuple": (Outputs, "logits", "aux"),
    "a mapping": (lambda one, two: {"out": one, "aux": two}, "out", 1),
}


@pytest.mark.parametrize("name", KINDS)
def test_one_of_several(name: str) -> None:
    kind, first, second = KINDS[name]
    torch.manual_seed(0)
    module = Several(kind)
    spec = sifrc.from_torch(module, X, output=first)
    assert [layer.name for layer in spec.layers if layer.kind == "dense"] == ["body", "head"]
    other = sifrc.from_torch(module, X, "mse", output=second)
    assert [layer.name for layer in other.layers if layer.kind == "dense"] == ["body", "side"]
    evaluated = sifrc.from_torch(module.eval(), X)
    assert evaluated.layers == spec.layers


def test_steps_and_operators_of_one_output() -> None:
    """The loss is that of the output; parameters that only another one reads stay as they are."""
    torch.manual_seed(0)
    module = Several(Outputs)
    before, side = float(F.cross_entropy(module(X).logits, T)), module.side.weight.clone()
    operators = sifrc.operators(module, "cross_entropy", (X, T), output="logits")
    assert operators.H.shape == (5 * 5 + 6 * 3,) * 2
    optimizer = sifrc.optimizer(module, example=(X, T), output=0)
    assert float(optimizer.step(X, T)) == pytest.approx(before, rel=1e-5)
    assert float(F.cross_entropy(module(X).logits, T)) < before
    assert torch.equal(side, module.side.weight)
    assert sifrc.verify(model=module.double(), example=X.double(), output="logits", levels=(1, 2)).passed


@pytest.mark.parametrize(
    "output, words", [(None, "returns 2 tensors"), (5, "without an output 5"), ("b", "without an output 'b'")]
)
def test_which_one_is_said(output: Any, words: str) -> None:
    with pytest.raises(sifrc.ModuleImportError, match=words) as caught:
        sifrc.from_torch(Several(Outputs), X, output=output)
    assert "output=0" in str(caught.value)
