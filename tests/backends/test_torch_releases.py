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


POOLED = [
    {"name": "c", "type": "conv", "channels": 3, "kernel": 3, "padding": 1, "activation": "tanh"},
    {"name": "p", "type": "pool", "function": "max", "kernel": 2},
    {"name": "d", "type": "conv", "channels": 3, "kernel": 3, "padding": 1, "activation": "elu"},
    {"name": "s", "type": "add", "inputs": ["p", "d"]},
    {"name": "q", "type": "pool", "function": "max", "kernel": 3, "stride": 1, "padding": 1},
    {"name": "f", "type": "flatten"},
    {"name": "out", "type": "dense", "units": 3},
]
OPERATORS = (
    "gradient",
    "objective_and_gradient",
    "hessian_vector_product",
    "gauss_newton_vector_product",
    "per_sample_gradients",
    "summary",
)


@pytest.mark.parametrize("layers", [POOLED, POOLED[:2] + POOLED[4:]], ids=["a branch", "a chain"])
def test_large_arrays_go_one_by_one(
    layers: list[dict[str, object]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Local variables, members that nobody reads later, and those of the caller alone: to the bit the same.

    Products after ``linearize`` find the point as it was, however often they are called.
    """
    network = {"input": {"name": "x", "size": [2, 6, 6]}, "layers": layers}
    head = {"sifrc": 1, "name": "pooled", "dtype": "float64", "loss": "cross_entropy"}
    spec = build_spec(head | {"network": network, "partition": "canonical"})
    source = compile_spec(spec, Request(backend="torch", method="none", operators=OPERATORS)).source
    texts = {}
    for name, limit in (("all", 0), ("none", 10**9)):
        monkeypatch.setattr("sifrc.backends.torch_eager.releases._LARGE", limit)
        texts[name] = find_backend("torch").emit(source)
    product = texts["all"].partition("def _hessian_product(")[2].partition("\ndef ")[0]
    assert re.search(r"^ +del .*\bu\[1\]", product, re.M) and re.search(r"^ +del .*\bgamma\b", product, re.M)
    assert not re.search(r"^ +del .*\b[bxy]\[", product, re.M)  # of the point
    backward = texts["all"].partition("def _backward(")[2].partition("\ndef ")[0]
    assert re.search(r"^    del .*\bx\[1\]", backward, re.M)  # as the layers after it need it no more
    assert re.search(r"^    del zeta\[1\]", texts["all"].partition("def _tangent(")[2], re.M)
    assert "del u[1]" not in texts["none"] and "del zeta[1]" not in texts["none"]
    rng = np.random.default_rng(0)
    inputs, targets = torch.from_numpy(rng.normal(size=(5, 2, 6, 6))), torch.from_numpy(rng.integers(0, 3, 5))
    found: list[list[object]] = []
    for name, text in texts.items():
        module = module_from_cache(f"large_{name}_{len(layers)}", lambda text=text: text, tmp_path)  # type: ignore[misc]
        given = module.initialize(0), inputs, targets
        vector = module.initialize(1)
        values: list[object] = [module.gradient(*given), module.per_sample_gradients(*given)]
        values += module.objective_and_gradient(*given)
        for kind in ("hessian", "gauss_newton"):
            linear = module.linearize(*given, kind)
            values += [linear(vector), linear(vector), linear(given[0])]
        values += [module.summary(*given, vector, order=order) for order in (1, 2, 3)]
        values += module.summary(*given, vector, order=3, full=True, gradient=True, chunk=2)[:5]
        found.append(values)
    for mine, theirs in zip(*found, strict=True):
        assert_same(mine, theirs)


def assert_same(mine: object, theirs: object) -> None:
    """To the bit, in tables and tuples too."""
    if isinstance(mine, dict) and isinstance(theirs, dict):
        mine, theirs = tuple(mine.values()), tuple(theirs.values())
    if isinstance(mine, tuple) and isinstance(theirs, tuple):
        for one, other in zip(mine, theirs, strict=True):
            assert_same(one, other)
    elif isinstance(mine, torch.Tensor) and isinstance(theirs, torch.Tensor):
        assert torch.equal(mine, theirs)
    else:
        assert mine == theirs
