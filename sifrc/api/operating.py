"""Curvature operators of a model, a loss and data."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sifrc.api.source import Source

if TYPE_CHECKING:
    from torch import Tensor

    from sifrc.linear import CurvatureOperators

__all__ = ["operators"]


def operators(
    model: Any,
    loss: Any,
    data: Any,
    *,
    spec: Source | None = None,
    params: Mapping[str, Tensor] | None = None,
    names: Mapping[str, str] | None = None,
    mode: str | None = None,
    seed: int = 0,
    output: int | str | None = None,
    cache: bool | str | os.PathLike[str] = True,
    progress: bool = True,
) -> CurvatureOperators:
    """Hessian, Gauss–Newton matrix, Fisher matrices and Jacobian of a model as linear operators.

    They are those of the objective of all the data at the parameters that the model has now: what becomes of
    these later changes no operator.

    Args:
        model: any torch module, which is traced in the mode it is in (:func:`sifrc.from_torch`); a spec, the
            path of one or a mapping; or a module of :func:`sifrc.compile` or its ``Network``.
        loss: a word or a mapping as in a spec, such as ``"cross_entropy"``, or a loss of torch, as
            :func:`sifrc.from_torch` takes it; None for a spec's own.
        data: one batch ``(inputs, targets)``, or an iterable of batches such as a data loader, which is gone
            through once. Several inputs of a network are a tuple or a dict by name.
        spec: of a torch module, in the place of tracing it.
        params: where the model is no torch module; the spec's initial ones by default.
        names: name in the spec, of a parameter or a layer -> the torch module's own.
        mode: ``training`` or ``evaluation``, for layers that do something else then; that of a torch module,
            else the spec's, by default.
        seed: of what layers and sampled kinds of curvature draw.
        output: of several that a torch module returns, the place or the name of the one that the loss reads.
        cache: of traced networks and generated modules, as for :func:`sifrc.compile`.
        progress: whether a bar on the error stream shows what takes longer than two seconds.

    Returns:
        The operators: ``H``, ``G``, ``F(…)``, ``J``, ``blocks(…)``, ``kronecker(…)``.

    Raises:
        SifrcError: the spec is wrong, its parameters are not those of the model, or the data does not fit.

    Example:
        >>> import torch
        >>> spec = {"sifrc": 1, "name": "line", "loss": "squared_error", "dtype": "float64", "network": {
        ...     "input": {"size": 2}, "layers": [{"name": "fc", "type": "dense", "units": 1}]}}
        >>> inputs = torch.tensor([[1.0, 0.0], [0.0, 2.0]], dtype=torch.float64)
        >>> ops = operators(spec, None, (inputs, torch.zeros(2, 1, dtype=torch.float64)))
        >>> ops.H @ torch.tensor([1.0, 1.0, 0.0], dtype=torch.float64)
        tensor([0.5000, 2.0000, 1.5000], dtype=torch.float64)
    """
    from sifrc.extras import optional

    optional("torch", "sifrc.operators")
    from sifrc.linear import make_operators

    return make_operators(
        model,
        loss,
        data,
        spec=spec,
        params=params,
        names=names,
        mode=mode,
        seed=seed,
        output=output,
        cache=cache,
        progress=progress,
    )
