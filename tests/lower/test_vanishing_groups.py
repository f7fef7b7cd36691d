"""Tangents that are zero for every group have the memory of one."""

from __future__ import annotations

from layer_cases import LAYER_CASES

from sifrc.compiler import Request, compile_spec
from sifrc.spec import build_spec


def test_what_is_zero_for_all_groups_has_one() -> None:
    """Second tangents before the first layer with two groups that meet: later ones go by their own groups."""
    spec = build_spec(LAYER_CASES["batch norm of the input evaluated"])
    request = Request(backend="torch", method="none", operators=("summary",))
    families = compile_spec(spec, request).source.program.families
    second = {f.name: dict(f.shapes) for f in families if f.name in ("ä", "ẍ")}
    groups = sorted(shape[0] for shapes in second.values() for shape in shapes.values() if shape[0])
    # Four tensors: weights and biases of both layers.
    assert groups and groups[0] == 1 and groups[-1] <= 4


def test_deep_networks_do_not_carry_all_groups() -> None:
    """Rectifiers bend nothing, and no layer multiplies two of its own tensors: nothing moves twice."""
    layers = [
        {"name": "c1", "type": "conv", "channels": 2, "kernel": 1, "bias": False},
        {"name": "b1", "type": "batch_norm", "activation": "relu"},
        {"name": "c2", "type": "conv", "channels": 2, "kernel": 1, "bias": False},
        {"name": "b2", "type": "batch_norm", "activation": "relu"},
        {"name": "f", "type": "flatten"},
        {"name": "out", "type": "dense", "units": 2},
    ]
    network = {"input": {"size": [2, 2]}, "mode": "evaluation", "layers": layers}
    partition = {f"g{n}": [f"{layer['name']}.*"] for n, layer in enumerate(layers) if layer["name"] != "f"}
    spec = build_spec({"sifrc": 1, "name": "deep", "network": network, "loss": "mse", "partition": partition})
    request = Request(backend="torch", method="none", operators=("summary",))
    shapes = dict(compile_spec(spec, request).source.program.family("ẍ").shapes)
    assert len(shapes) > 3 and {shape[0] for shape in shapes.values()} == {1}
