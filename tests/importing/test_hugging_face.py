"""Transformers of Hugging Face from a configuration: imported as they are, derivatives by their own names."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from test_modules import OPERATORS, expected_of
from torch import nn
from torchvision_here import torchvision_loads

import sifrc

transformers = pytest.importorskip("transformers", exc_type=ImportError)
pytestmark = pytest.mark.slow

IDS = torch.randint(1, 40, (3, 6), generator=torch.Generator().manual_seed(0))
SIZES = {"vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4}


@pytest.fixture(autouse=True, scope="module")
def torchvision() -> None:
    """Models import it where it is installed."""
    torchvision_loads()


class Logits(nn.Module):
    """A model as a function of the ids, classes before places."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        found = self.model(input_ids).logits
        return found.transpose(1, 2) if found.dim() == 3 else found


def gpt2() -> Any:
    sizes = {"vocab_size": 40, "n_positions": 16, "n_embd": 16, "n_layer": 2, "n_head": 2}
    ends = {"bos_token_id": 0, "eos_token_id": 0}
    return transformers.GPT2LMHeadModel(transformers.GPT2Config(**sizes, **ends))


def bert() -> Any:
    more = {"intermediate_size": 32, "max_position_embeddings": 16, "num_labels": 3}
    return transformers.BertForSequenceClassification(transformers.BertConfig(**SIZES, **more))


def llama() -> Any:
    more = {"intermediate_size": 32, "max_position_embeddings": 16, "num_key_value_heads": 2}
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**SIZES, **more))


def test_llama_is_imported_as_it_is() -> None:
    """Grouped queries, rotary positions. In float64 it computes some things in float32 itself."""
    torch.manual_seed(0)
    spec = sifrc.from_torch(llama().eval(), {"input_ids": IDS}, nn.CrossEntropyLoss())
    assert [layer.kind for layer in spec.layers].count("attention") == 2


@pytest.mark.parametrize("make", [gpt2, bert])
def test_gradient_and_products(make: Any) -> None:
    torch.manual_seed(0)
    module = Logits(make()).double().eval()
    spec = sifrc.from_torch(module, IDS, nn.CrossEntropyLoss(), target={"operators": list(OPERATORS)})
    assert sifrc.from_torch(
        module.model, {"input_ids": IDS}
    ).names  # the model itself, its mapping of outputs
    generated: Any = sifrc.compile(spec)
    outputs = module(IDS)
    generator = torch.Generator().manual_seed(1)
    targets = torch.randint(outputs.shape[1], (3, *outputs.shape[2:]), generator=generator)
    vector = {name: torch.randn_like(value) for name, value in module.named_parameters()}
    value, *expected = expected_of(copy.deepcopy(module), IDS, nn.CrossEntropyLoss(), targets, vector)
    held = dict(module.named_parameters()) | dict(module.named_buffers())
    names = {own: spec.names.get(own, own) for own in (*generated.SHAPES, *getattr(generated, "BUFFERS", {}))}
    params = {own: held[given].detach() for own, given in names.items()}
    moved = {own: vector[names[own]] for own in generated.SHAPES}
    torch.testing.assert_close(generated.loss(params, IDS, targets), value, rtol=1e-12, atol=1e-12)
    found = [generated.gradient(params, IDS, targets)]
    found += [getattr(generated, each)(params, IDS, targets, moved) for each in OPERATORS[1:]]
    for result, wanted in zip(found, expected, strict=True):
        scale = max(float(each.detach().abs().max()) for each in wanted.values())
        for own, each in result.items():
            torch.testing.assert_close(each, wanted[names[own]].detach(), rtol=0.0, atol=1e-9 * scale)
