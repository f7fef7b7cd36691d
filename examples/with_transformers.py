"""Train a small GPT-2 of Hugging Face with a second-order step, and look at the spectrum of its Hessian.

    pip install "sifrc[examples]"
    python examples/with_transformers.py

The model comes from a configuration; nothing is downloaded. It is taken as it is: called by ``input_ids``,
with its mapping of outputs and the names of its parameters. The loss is its own: what comes next at each
place but the last.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel

import sifrc

TOKENS = 40
LOSS = {"function": "cross_entropy", "axis": -1, "ignore_index": -100}
"""Classes are the last dimension of the logits; the last place of a sequence has nothing to predict."""


def model() -> GPT2LMHeadModel:
    """Two blocks of 16 features, without dropout."""
    torch.manual_seed(0)
    off = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
    sizes = {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 12}
    return GPT2LMHeadModel(GPT2Config(vocab_size=TOKENS, bos_token_id=0, eos_token_id=0, **sizes, **off))


def batch(draw: torch.Generator, size: int = 64) -> tuple[Mapping[str, Tensor], Tensor]:
    """Sequences that go on by a stride of their own, and what comes next in them."""
    first, stride = (torch.randint(1, most, (size, 1), generator=draw) for most in (TOKENS, 4))
    tokens = (first + stride * torch.arange(12)) % TOKENS
    following = torch.cat([tokens[:, 1:], torch.full((size, 1), -100)], 1)
    return {"input_ids": tokens}, following


def trained(steps: int = 120) -> tuple[GPT2LMHeadModel, list[float]]:
    """A model after some steps of grouped Newton, and the loss before each."""
    network, draw = model(), torch.Generator().manual_seed(1)
    optimizer: Any = sifrc.optimizer(
        network, LOSS, example=batch(draw), partition="weights-biases", learning_rate=0.3
    )
    return network, [float(optimizer.step(*batch(draw))) for _ in range(steps)]


def new_sequences() -> tuple[Mapping[str, Tensor], Tensor]:
    """A batch that training has not seen."""
    return batch(torch.Generator().manual_seed(2), 128)


def main() -> None:
    network, losses = trained()
    for step in range(0, len(losses), 30):
        print(f"step {step:3}: loss {losses[step]:.3f}")
    inputs, following = new_sequences()
    ops = sifrc.operators(network, LOSS, (inputs, following))
    own = float(network(**inputs, labels=inputs["input_ids"]).loss.detach())
    print(f"loss on new sequences {ops.objective():.3f}, by the model itself {own:.3f}")
    found = ops.H.eigsh(5).values
    print("largest eigenvalues of the Hessian:", ", ".join(f"{value:.2f}" for value in found))
    parts = {name: part for name, part in ops.H.per("module").items() if name.endswith("c_attn")}
    for name, part in parts.items():
        print(f"  of {name}: {float(part.eigsh(1).values[0]):.2f}")


if __name__ == "__main__":
    main()
