"""Words for types of layers, each a row of the table in :mod:`sifrc.spec.layers`."""

from __future__ import annotations

from typing import Literal, TypeAlias

__all__ = ["LayerKind"]

LayerKind: TypeAlias = Literal[
    "dense",
    "conv",
    "pool",
    "activation",
    "add",
    "flatten",
    "reshape",
    "permute",
    "slice",
    "strided",
    "concatenate",
    "pad",
    "upsample",
    "multiply",
    "matmul",
    "scale",
    "sum",
    "mean",
    "max",
    "softmax",
    "log_softmax",
    "layer_norm",
    "group_norm",
    "instance_norm",
    "rms_norm",
    "batch_norm",
    "dropout",
    "attention",
    "positions",
    "embedding",
    "rnn",
    "lstm",
    "gru",
    "entrywise",
    "parameter",
    "table",
]
