"""The expression of each type of layer, over its sources and its parameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from sifrc.ir import Expr
from sifrc.model.layers.attention import attention, embedding, positions
from sifrc.model.layers.batch_norm import batch_norm
from sifrc.model.layers.building import Building
from sifrc.model.layers.dropout import dropout
from sifrc.model.layers.elementary import dense, entrywise, flatten, summed
from sifrc.model.layers.norms import norm
from sifrc.model.layers.products import log_softmax, matmul, maximum, mean, multiply, scaled, softmax, sum_
from sifrc.model.layers.recurrence import recurrent
from sifrc.model.layers.shapes import concatenate, pad, permute, reshape, slice_, strided, upsample
from sifrc.model.layers.tensors import parameter, table
from sifrc.model.layers.windows import conv, pool
from sifrc.spec.types import LayerKind

__all__ = ["LAYER_RULES"]

LAYER_RULES: Mapping[LayerKind, Callable[[Building], Expr]] = MappingProxyType(
    {
        "dense": dense,
        "conv": conv,
        "pool": pool,
        "activation": summed,
        "add": summed,
        "flatten": flatten,
        "reshape": reshape,
        "permute": permute,
        "slice": slice_,
        "strided": strided,
        "concatenate": concatenate,
        "pad": pad,
        "upsample": upsample,
        "multiply": multiply,
        "matmul": matmul,
        "scale": scaled,
        "sum": sum_,
        "mean": mean,
        "max": maximum,
        "softmax": softmax,
        "log_softmax": log_softmax,
        "attention": attention,
        "positions": positions,
        "embedding": embedding,
        "entrywise": entrywise,
        "layer_norm": norm,
        "group_norm": norm,
        "instance_norm": norm,
        "rms_norm": norm,
        "batch_norm": batch_norm,
        "dropout": dropout,
        "rnn": recurrent,
        "lstm": recurrent,
        "gru": recurrent,
        "parameter": parameter,
        "table": table,
    }
)
"""Type of a layer -> the value of its state before the activation."""
