"""The example with Hugging Face: loss and Hessian of a GPT-2 against the model's own, and training."""

from __future__ import annotations

import copy
from functools import cache
from typing import Any

import pytest
import torch
from library_examples import example
from torch.func import functional_call

import sifrc

pytestmark = pytest.mark.slow


@cache
def module() -> Any:
    """Imported when the first test runs."""
    return example("with_transformers", "transformers")


def test_the_operator_is_the_hessian_of_the_models_own_loss() -> None:
    """By forward mode over reverse mode through its attention written out."""
    torch.manual_seed(1)
    model = module().model().double()
    elementary = copy.deepcopy(model)
    elementary.set_attn_implementation("eager")
    inputs, following = module().batch(torch.Generator().manual_seed(3), 8)
    ops = sifrc.operators(model, module().LOSS, (inputs, following))
    own = {name: value.detach() for name, value in model.named_parameters()}
    labels = inputs["input_ids"]

    def loss(parameters: Any) -> torch.Tensor:
        logits = functional_call(elementary, parameters, (), dict(inputs)).logits[:, :-1]
        return torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten())

    assert ops.objective() == pytest.approx(float(loss(own)), rel=1e-12)
    # The model's own loss is of logits in single precision.
    assert ops.objective() == pytest.approx(float(model(**inputs, labels=labels).loss.detach()), rel=1e-6)
    vector = {name: torch.randn_like(own[name]) for name in ops.space.shapes}
    rest = {name: torch.zeros_like(value) for name, value in own.items() if name not in vector}
    slope = torch.func.grad(loss)
    gradient, product = torch.func.jvp(slope, (own,), (vector | rest,))
    found = ops.H @ vector
    for name in vector:
        torch.testing.assert_close(ops.gradient("dict")[name], gradient[name], rtol=0, atol=1e-8)
        torch.testing.assert_close(found[name], product[name], rtol=0, atol=1e-7)


def test_it_learns_what_comes_next() -> None:
    _, losses = module().trained(100)
    assert losses[0] > 3.5 and losses[-1] < 2.0
