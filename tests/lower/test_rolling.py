"""Equal layers become one loop: the length of a program does not depend on how many of them there are."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from compiling import compile_once
from newton_blocks import network

from sifrc.cache import load_text
from sifrc.compiler import Request
from sifrc.lower.access import unrolled
from sifrc.lower.lowering import Passes, lower
from sifrc.lower.program import Program
from sifrc.methods.plan import Plan
from sifrc.methods.planning import make_plan
from sifrc.model import build_model
from sifrc.spec import build_spec
from sifrc.verify import verify

METHODS: dict[str, tuple[int, int]] = {"mk": (8, 13), "grouped_newton": (4, 7), "ea_cg": (8, 13)}
"""Two numbers of equal layers; between 8 and 13 subscripts get a second digit."""


@cache
def plan_of(method: str, layers: int) -> Plan:
    """Of a network with as many layers of four units, and two more."""
    options = {"kind": "ggn"} if method == "ea_cg" else {}
    data: dict[str, Any] = network(
        {"name": method, **options}, sizes=(4, *([4] * layers), 3), loss="squared_error", dtype="float64"
    )
    if method == "grouped_newton":
        data["partition"] = "weights-biases"
    return make_plan(build_model(build_spec(data))).plan


@pytest.mark.parametrize("method", METHODS)
def test_depth_does_not_make_a_program_longer(method: str) -> None:
    """Each function has as many statements and loops; unrolled, they are the statements without loops."""
    shallow, deep = (lower(plan_of(method, layers)) for layers in METHODS[method])
    counts = [{(f.name, f.batched): len(f.body) for f in program.functions} for program in (shallow, deep)]
    assert counts[0] == counts[1]
    straight = lower(plan_of(method, METHODS[method][0]), Passes(roll=False))
    for rolled, plain in zip(shallow.functions, straight.functions, strict=True):
        assert len(list(unrolled(rolled.body))) == len(plain.body)


def residual(blocks: int, bias: bool = True) -> dict[str, Any]:
    """Blocks of two dense layers around which the state is added."""
    dense = {"type": "dense", "units": 4, "bias": bias}
    layers: list[dict[str, Any]] = [{"name": "stem", **dense, "activation": "tanh"}]
    for b in range(1, blocks + 1):
        last = layers[-1]["name"]
        layers += [
            {"name": f"a{b}", **dense, "activation": "tanh", "inputs": [last]},
            {"name": f"b{b}", **dense, "inputs": [f"a{b}"]},
            {"name": f"s{b}", "type": "add", "inputs": [last, f"b{b}"]},
        ]
    layers.append({"name": "head", "type": "dense", "units": 3})
    network = {"input": {"name": "image", "size": 5}, "layers": layers}
    return {"sifrc": 1, "name": "residual", "network": network, "loss": "cross_entropy", "dtype": "float64"}


def shared(layers: int) -> dict[str, Any]:
    """As many layers with the weights of the first one."""
    first = {"name": "l1", "type": "dense", "units": 4, "activation": "tanh"}
    others = [{**first, "name": f"l{k}", "share": "l1"} for k in range(2, layers + 1)]
    network = {
        "input": {"name": "image", "size": 4},
        "layers": [first, *others, {"type": "dense", "units": 3}],
    }
    return {"sifrc": 1, "name": "shared", "network": network, "loss": "cross_entropy", "dtype": "float64"}


OPERATORS = ("gradient", "hessian_vector_product", "gauss_newton_vector_product", "per_sample_gradients")
BLOCKS = ("block_hessian", "diagonal", "trace", "summary")


def planned(data: dict[str, Any], *operators: str) -> Plan:
    spec = build_spec({**data, "target": {"operators": list(operators)}, "partition": "weights-biases"})
    return make_plan(build_model(spec)).plan


def lowered(plan: Plan, roll: bool = True) -> Program:
    return lower(plan, Passes(roll=roll, validate=True))


@pytest.mark.parametrize(
    ("bias", "operators"),
    [
        (True, (*OPERATORS, *BLOCKS)),
        (False, ("hessian_vector_product", "block_hessian")),
        pytest.param(False, (*OPERATORS, *BLOCKS), marks=pytest.mark.slow),
    ],
    ids=["with biases", "without", "without, all operators"],
)
def test_residual_blocks_become_loops(bias: bool, operators: tuple[str, ...]) -> None:
    """Of 3 and of 4 blocks: every function has as many statements, whatever operators there are."""
    plans = [planned(residual(blocks, bias), *operators) for blocks in (3, 4)]
    few, many = map(lowered, plans)
    counts = [{f.name: len(f.body) for f in program.functions} for program in (few, many)]
    assert counts[0] == counts[1]
    straight = lowered(plans[0], roll=False)
    for rolled, plain in zip(few.functions, straight.functions, strict=True):
        assert len(list(unrolled(rolled.body))) == len(plain.body)


def test_layers_that_share_weights_become_loops() -> None:
    """Forward and back: the subscript of the weights stays."""
    few, many = (lowered(planned(shared(count), *OPERATORS[:3])) for count in (6, 13))
    for name in ("forward", "backward", "tangent", "hessian_product", "linearized", "gauss_newton_product"):
        one, two = (len(program.function(name, True).body) for program in (few, many))
        assert one == two, name


def at_places(layers: int) -> dict[str, Any]:
    """As many dense layers at each of six places, each tensor a group of its own."""
    dense = {"type": "dense", "units": 4, "activation": "tanh"}
    names = [f"l{k}" for k in range(1, layers + 1)]
    network = {
        "input": {"name": "image", "size": [6, 4]},
        "layers": [{"name": name, **dense} for name in names],
    }
    tensors = [f"{name}.{part}" for name in names for part in ("weight", "bias")]
    return {
        "sifrc": 1,
        "name": "at_places",
        "network": network,
        "loss": "squared_error",
        "dtype": "float64",
        "partition": {tensor.replace(".", "_"): [tensor] for tensor in tensors},
    }


def normed(blocks: int) -> dict[str, Any]:
    """As many blocks of a norm and a dense layer at six places, each with the state around it."""
    layers: list[dict[str, Any]] = [{"name": "stem", "type": "dense", "units": 4}]
    for b in range(1, blocks + 1):
        last = layers[-1]["name"]
        layers += [
            {"name": f"n{b}", "type": "layer_norm", "inputs": [last]},
            {"name": f"d{b}", "type": "dense", "units": 4, "activation": "tanh", "inputs": [f"n{b}"]},
            {"name": f"s{b}", "type": "add", "inputs": [last, f"d{b}"]},
        ]
    names = ["stem", *(f"{kind}{b}" for b in range(1, blocks + 1) for kind in "nd")]
    tensors = [f"{name}.{part}" for name in names for part in ("weight", "bias")]
    data = at_places(1)
    data["network"]["layers"] = layers
    data["partition"] = {tensor.replace(".", "_"): [tensor] for tensor in tensors}
    return data


def attending(blocks: int) -> dict[str, Any]:
    """As many blocks of attention with the state around it."""
    data = normed(blocks)
    for layer in data["network"]["layers"]:
        if layer["name"].startswith("d"):
            layer |= {"type": "attention", "heads": 2, "causal": True}
            del layer["units"], layer["activation"]
    del data["partition"]
    return data


@pytest.mark.parametrize(
    "network, few, many",
    # Attention stands between the norms of the second one.
    [(at_places, 5, 8), pytest.param(normed, 4, 6, marks=pytest.mark.slow), (attending, 4, 6)],
)
def test_layers_at_places_become_loops(network: Callable[[int], dict[str, Any]], few: int, many: int) -> None:
    """Tangents of biases, which have no places of their own, are no obstacle, nor what groups share."""
    counts = []
    for layers in (few, many):
        spec = build_spec({**network(layers), "target": {"operators": ["summary"]}})
        program = lowered(make_plan(build_model(spec)).plan)
        counts.append({f.name: len(f.body) for f in program.functions})
    assert counts[0] == counts[1]


@pytest.mark.parametrize("backend", ["torch", "numba"])
def test_summaries_at_places_are_right(backend: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Against torch.func, with loops over the layers."""
    monkeypatch.setattr("numba.config.DISABLE_JIT", 1)
    spec = build_spec({**at_places(4), "target": {"backend": backend, "operators": ["summary"]}})
    path = tmp_path / f"{tmp_path.name}.py"
    path.write_text(text := compile_once(spec, Request()).text, encoding="utf-8")
    assert "for k in range" in text.partition("def _summary_2")[2]
    report = verify(spec, levels=(3,), module=load_text(path.stem, path, text))
    assert report.passed, report.text()


@pytest.mark.parametrize("backend", ["torch", "numba"])
@pytest.mark.parametrize(
    "data", [residual(3), residual(3, bias=False), shared(5)], ids=["residual", "plain", "shared"]
)
def test_rolled_modules_are_right(
    data: dict[str, Any], backend: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Against torch.func, with loops over groups of layers."""
    monkeypatch.setattr("numba.config.DISABLE_JIT", 1)
    blocks = () if data["name"] == "shared" else ("block_hessian", "diagonal")
    target = {"backend": backend, "operators": [*OPERATORS, *blocks]}
    spec = build_spec({**data, "target": target, **({"curvature": ["hessian", "ggn"]} if blocks else {})})
    path = tmp_path / f"{tmp_path.name}.py"
    path.write_text(text := compile_once(spec, Request()).text, encoding="utf-8")
    report = verify(spec, levels=(3,), module=load_text(path.stem, path, text))
    assert report.passed, report.text()
