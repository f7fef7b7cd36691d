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
    monkeypatch.setattr(
        functions, "releases", lambda p, f, *families: ({},) * len(functions.parts_of_body(f))
    )
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


def test_an_array_that_nobody_reads_afterwards_is_handed_on(tmp_path: Path) -> None:
    """A sum of tangents is added to one that nobody else reads; one that is read again is copied."""
    layers = [
        {"name": "a", "type": "dense", "units": 4, "activation": "tanh"},
        {"name": "b", "type": "dense", "units": 4},
        {"name": "c", "type": "add", "inputs": ["a", "b"]},
        {"name": "d", "type": "dense", "units": 4},
        {"name": "e", "type": "add", "inputs": ["d", "c"]},
        {"name": "f", "type": "add", "inputs": ["e", "d"]},
        {"name": "out", "type": "dense", "units": 3},
    ]
    head = {"sifrc": 1, "name": "sums", "dtype": "float64", "loss": "cross_entropy", "partition": "canonical"}
    spec = build_spec(head | {"network": {"input": {"name": "x", "size": 4}, "layers": layers}})
    compiled = compile_spec(spec, Request(backend="torch", method="none", operators=("summary",)))
    body = compiled.text.partition("def _summary_2(")[2].partition("\ndef ")[0]
    assert "tangent_x[3] = tangent_x[2]\n" in body and "tangent_x[5] = tangent_x[4].clone()\n" in body
    module = module_from_cache("handed_on", lambda: compiled.text, tmp_path)
    generator = torch.Generator().manual_seed(0)
    inputs, targets = torch.randn(5, 4, generator=generator, dtype=torch.float64), torch.arange(5) % 3
    params, direction = module.initialize(0), module.initialize(1)

    def loss(*steps: torch.Tensor) -> torch.Tensor:
        """Along the directions of the groups."""
        moved = {
            name: params[name]
            + sum(s * direction[name] * (name in names) for s, names in zip(steps, groups, strict=True))
            for name in params
        }
        x = torch.tanh(inputs @ moved["a.weight"].T + moved["a.bias"])
        c = x + x @ moved["b.weight"].T + moved["b.bias"]
        d = c @ moved["d.weight"].T + moved["d.bias"]
        logits = (2 * d + c) @ moved["out.weight"].T + moved["out.bias"]
        return torch.nn.functional.cross_entropy(logits, targets)

    groups = list(module.GROUPS.values())
    zeros = tuple(torch.zeros((), dtype=torch.float64) for _ in groups)
    hessian = torch.autograd.functional.hessian(loss, zeros)
    found = module.summary(params, inputs, targets, direction)
    torch.testing.assert_close(
        found.H, torch.stack([torch.stack(row) for row in hessian]), rtol=1e-10, atol=1e-12
    )
