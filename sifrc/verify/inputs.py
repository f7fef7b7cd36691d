"""What a model is given for each sample, and what the oracles call it."""

from __future__ import annotations

from collections.abc import Iterator

from sifrc.ir import Input
from sifrc.model import Model
from sifrc.spec.types import InputSpec
from sifrc.verify.oracles.network import all_inputs

__all__ = ["given_symbols"]


def given_symbols(model: Model) -> Iterator[tuple[Input, InputSpec]]:
    """The symbols of the inputs and of what layers draw; none is drawn where the network is evaluated."""
    symbols = (model.input, *model.others, *(draw.symbol for draw in model.draws))
    return zip(symbols, all_inputs(model.spec), strict=False)
