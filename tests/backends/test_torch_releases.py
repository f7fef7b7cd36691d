"""Torch functions let go of a layer's tensors: what is deleted, and that the values stay."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch

import sifrc.backends.torch_eager.functions as functions
from sifrc.backends import find_backend
from sifrc.cache import module_from_cache
from sifrc.compiler import Request, compile_spec
from sifrc.spec import Spec, build_spec

DEPTH = 9


def deep(partition: str) -> Spec:
    """A chain of equal layers, whose statements become loops."""
    layers = [
        {"name": f"fc{k}", "type": "dense", "units": 4 if k < DEPTH else 3}
        | ({"activation": "tanh"} if k < DEPTH else {})
        for k in range(1, DEPTH + 1)
    ]
    head = {"sifrc": 1, "name": "deep", "dtype": "float64", "loss": "cross_entropy", "init": "glorot"}
    network = {"input": {"name": "x", "size": 4}, "layers": layers}
    return build_spec(head | {"network": network, "partition": partition})


@pytest.mark.parametrize("partition", ["canonical", "chunks-3", "trivial"])
def test_deep_summaries_with_and_without(
    partition: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the bit; tangents of the layer before are gone after each round."""
    request = Request(backend="torch", method="none", operators=("summary", "hessian_vector_product"))
    compiled = compile_spec(deep(partition), request)
    texts = {"with": compiled.text}
    monkeypatch.setattr(functions, "releases", lambda p, f, families: ({},) * len(functions.parts_of_body(f)))
    texts["without"] = find_backend("torch").emit(compiled.source)
    assert "del tangent_x[k - 1]" in texts["with"] and not re.search(r"^ +del ", texts["without"], re.M)
    rng = np.random.default_rng(0)
    inputs, targets = torch.from_numpy(rng.normal(size=(5, 4))), torch.from_numpy(rng.integers(0, 3, 5))
    found = []
    for name, text in texts.items():
        module = module_from_cache(
            f"{name}_{partition.replace('-', '_')}",
            lambda text=text: text,
            tmp_path,  # type: ignore[misc]
        )
        given = module.initialize(0), inputs, targets, module.initialize(1)
        values = [module.summary(*given, order=order) for order in (1, 2, 3)]
        values.append(module.summary(*given, order=3, full=True, gradient=True, chunk=2))
        found.append((values, module.hessian_vector_product(*given)))
    for mine, theirs in zip(found[0][0], found[1][0], strict=True):
        for one, other in zip(mine[:4], theirs[:4], strict=True):
            assert (one is None and other is None) or torch.equal(one, other)
    assert all(torch.equal(found[0][1][name], found[1][1][name]) for name in found[0][1])


def test_what_a_function_returns_stays() -> None:
    """States of all layers; adjoints are gone after the layer that needs them."""
    text = compile_spec(
        deep("canonical"), Request(backend="torch", method="none", operators=("gradient",))
    ).text
    forward, backward = (text.partition(f"def _{name}(")[2] for name in ("forward", "backward"))
    assert not re.search(r"^ +del ", forward.partition("\ndef ")[0], re.M)
    assert re.search(r"^ +del y\[k \+ 1\]", backward.partition("\ndef ")[0], re.M)
