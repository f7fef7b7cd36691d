"""Arrays that are made again where they are read, against torch.func and against modules that keep them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from curvature_oracle import assert_close
from elementary_layers import Elementary
from layer_cases import layer_spec
from sampled import one_in
from summary_modules import SummaryCalls, agree
from summary_modules import load as load_text
from test_layer_types import expected_of, point_at, summaries_of

from sifrc.compiler import Compiled, Request, compile_spec
from sifrc.errors import BackendError
from sifrc.lower.access import absolute, loads_of, targets_of, unrolled
from sifrc.lower.cost import cost_of
from sifrc.lower.lowering import Passes
from sifrc.lower.program import Function, Program
from sifrc.spec import build_spec
from sifrc.verify.points import Point

OPERATORS = ("gradient", "hessian_vector_product", "gauss_newton_vector_product", "summary")
PLACES, HEADS = 6, 2
"""So that attention's HEADS · PLACES² scores of a sample are more entries than any other array has."""


def blocks(depth: int, **keys: Any) -> dict[str, Any]:
    """Blocks of a transformer, whose scores are larger than their factors."""
    layers: list[dict[str, Any]] = [{"name": "s0", "type": "dense", "units": 4}]
    for k in range(1, depth + 1):
        layers += [
            {"name": f"n{k}", "type": "layer_norm", "inputs": f"s{k - 1}"},
            {"name": f"a{k}", "type": "attention", "heads": HEADS, **keys},
            {"name": f"r{k}", "type": "add", "inputs": [f"s{k - 1}", f"a{k}"]},
            {"name": f"up{k}", "type": "dense", "units": 6, "activation": "gelu"},
            {"name": f"down{k}", "type": "dense", "units": 4},
            {"name": f"s{k}", "type": "add", "inputs": [f"r{k}", f"down{k}"]},
        ]
    layers.append({"name": "m", "type": "mean", "axes": [1]})
    return layer_spec([PLACES, 2], layers, loss="cross_entropy")


NETWORKS = {
    "causal": blocks(1, causal=True),
    "of grouped queries": blocks(1, groups=1),
    "blocks": blocks(3, causal=True),
}


def compiled(data: dict[str, Any], operators: tuple[str, ...] = OPERATORS, **options: Any) -> Compiled:
    request = Request("torch", "none", operators, backend_options=options, passes=Passes(validate=True))
    return compile_spec(build_spec(data), request)


@pytest.mark.parametrize("options", [{"recompute": True}, {"blocks": 2}, {"blocks": 4}], ids=str)
@pytest.mark.parametrize("name", one_in(3, NETWORKS))
def test_derivatives(name: str, options: dict[str, Any], tmp_path: Path) -> None:
    """Of a network in elementary operations; products at a point do not spoil it for the next."""
    data = NETWORKS[name]
    module = load_text(compiled(data, OPERATORS[:3], **options).text, tmp_path)
    point, vector = point_at(module, data)
    expected = expected_of(data, point, vector)
    assert_close(module.gradient(*point), expected["gradient"])
    for kind in ("hessian", "gauss_newton"):
        product = module.linearize(*point, kind)
        for _ in range(2):
            assert_close(product(vector), expected[f"{kind}_vector_product"])


@pytest.mark.parametrize("blocks", [1, 2])
def test_summaries(blocks: int, tmp_path: Path) -> None:
    """Orders 1, 2 and 3."""
    data = NETWORKS["causal"]
    module = load_text(compiled(data, OPERATORS[3:], recompute=True, blocks=blocks).text, tmp_path)
    (params, x, t), vector = point_at(module, data)
    expected = summaries_of(data, (params, x, t), vector)
    own, along = ({key: value.numpy() for key, value in tensors.items()} for tensors in (params, vector))
    agree(SummaryCalls(module, Point(own, x.numpy(), t.numpy(), along)), expected, tuple(vector))


def kept_of(program: Program, function: Function) -> dict[tuple[str, int | None], int]:
    """Entries of a sample of the arrays that a function reads and does not write."""
    written: set[tuple[str, int | None]] = set()
    found: dict[tuple[str, int | None], int] = {}
    for statement, k in unrolled(function.body):
        written |= {absolute(target.ref, k) for target in targets_of(statement)}
        for load in loads_of(statement):
            member = absolute(load.ref, k)
            shape = dict(program.family(member[0]).shapes)[member[1]]
            if member not in written and None in shape:
                found[member] = torch.Size([n for n in shape if n is not None]).numel()
    return found


@pytest.mark.parametrize("name", NETWORKS)
def test_no_scores_are_kept(name: str) -> None:
    """No function reads an array of attention's scores that another one wrote."""
    usual, again = (compiled(NETWORKS[name], OPERATORS[:3], recompute=on) for on in (False, True))
    scores = HEADS * PLACES**2
    for found, large in ((usual, True), (again, False)):
        program = found.source.program
        kept = [kept_of(program, function).values() for function in program.functions]
        assert (max(entries for found in kept for entries in found) == scores) == large


@pytest.mark.parametrize("name", NETWORKS)
def test_no_array_is_of_all_rows(name: str) -> None:
    """In blocks, functions neither read nor write an array of all scores of a sample."""
    program = compiled(NETWORKS[name], OPERATORS[:3], blocks=2).source.program
    sizes = set()
    for function in program.functions:
        for statement, k in unrolled(function.body):
            for load in (*loads_of(statement), *targets_of(statement)):
                member = absolute(load.ref, k)
                shape = dict(program.family(member[0]).shapes)[member[1]]
                sizes.add((None in shape) * torch.Size([n for n in shape if n is not None]).numel())
    assert max(sizes) == HEADS * PLACES**2 // 2


def test_scores_that_are_the_output(tmp_path: Path) -> None:
    """They are returned whole, though what makes them is computed in blocks."""
    layers = [
        {"name": "q", "type": "dense", "units": 2},
        {"name": "k", "type": "dense", "units": 2, "inputs": "x0"},
        {"name": "s", "type": "matmul", "inputs": ["q", "k"], "transpose": ["second"]},
        {"name": "w", "type": "softmax"},
        {"name": "f", "type": "flatten"},
    ]
    network = {"input": {"name": "x0", "size": [PLACES, 2]}, "layers": layers}
    data = {"sifrc": 1, "name": "scores", "dtype": "float64", "network": network, "loss": "squared_error"}
    module = load_text(compiled(data, OPERATORS[:3], blocks=2).text, tmp_path)
    point, vector = point_at(module, data)
    expected = expected_of(data, point, vector)
    torch.testing.assert_close(module.predict(*point[:2]), Elementary(data)(*point[:2]), rtol=1e-12, atol=0)
    assert_close(module.gradient(*point), expected["gradient"])
    for operator in OPERATORS[1:3]:
        assert_close(getattr(module, operator)(*point, vector), expected[operator])


def test_the_cost_is_shown() -> None:
    """That of the scores, once for each function that reads them."""
    usual, again = (compiled(NETWORKS["causal"], OPERATORS[:1], recompute=on) for on in (False, True))
    costs = [
        cost_of(one.source.program, tuple(one.source.program.functions)).per_sample for one in (usual, again)
    ]
    scores = PLACES**2 * 4
    assert scores <= costs[1] - costs[0] <= 3 * scores  # a product, and sums over entries
    assert "recompute=True" in again.text and "recompute=False" in usual.text
    assert usual.source.cost != again.source.cost


def test_a_tangent_at_hand_is_not_kept(tmp_path: Path) -> None:
    """The tangent of an activation is its slope times that of what it is of: both are read again anyway."""
    data = NETWORKS["causal"]
    text = compiled(data, OPERATORS[1:2]).text
    body = text.partition("def _hessian_product(")[2].partition("\ndef ")[0]
    assert "zeta_again = (slope[" in body
    module = load_text(text, tmp_path)
    point, vector = point_at(module, data)
    expected = expected_of(data, point, vector)
    assert_close(module.hessian_vector_product(*point, vector), expected["hessian_vector_product"])


@pytest.mark.parametrize("backend", ["numba", "cuda"])
@pytest.mark.parametrize("option", ["recompute", "blocks"])
def test_other_backends_refuse_the_options(backend: str, option: str) -> None:
    request = Request(backend, "none", OPERATORS[:1], backend_options={option: True})
    with pytest.raises(BackendError, match=f"backend '{backend}' has no option '{option}'"):
        compile_spec(build_spec(NETWORKS["causal"]), request)


def test_numbers_of_blocks_are_listed() -> None:
    with pytest.raises(BackendError, match="blocks"):
        compiled(NETWORKS["causal"], OPERATORS[:1], blocks=3)
