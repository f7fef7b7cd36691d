"""Networks with several inputs: what modules take and refuse, steps, products, and what does not exist."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from curvature_modules import load
from elementary_layers import Elementary, drawn_inputs, loss_of_outputs
from layer_cases import LAYER_CASES
from numba.typed import List

import sifrc
from sifrc.errors import SifrcError
from sifrc.spec import build_spec, spec_hash, spec_to_dict

assert List is not None
"""Imported with the JIT on: Numba's own functions for lists are compiled or not as they were imported."""
DATA = LAYER_CASES["two inputs"]
CLASSES = LAYER_CASES["an input of classes after one of numbers"]


pytestmark = pytest.mark.usefixtures("jit_off")


def with_inputs(inputs: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    return {**DATA, "network": {**DATA["network"], "inputs": inputs}, **more}


def point(data: dict[str, Any], module: ModuleType, batch: int = 4) -> tuple[Any, Any, Any]:
    """Parameters, inputs and targets, as the module takes them."""
    generator = torch.Generator().manual_seed(1)
    x = drawn_inputs(data, batch, generator)
    classes = data["loss"] == "cross_entropy"
    t = torch.randint(3, (batch,), generator=generator) if classes else torch.randn(batch, 3).double()
    params = {
        name: torch.randn(*shape, generator=generator, dtype=torch.float64)
        for name, shape in module.SHAPES.items()
    }
    return (params, x, t) if hasattr(module, "torch") else arrays((params, x, t))


def arrays(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: arrays(item) for name, item in value.items()}
    return tuple(map(arrays, value)) if isinstance(value, tuple) else value.numpy()


# ── specs ─────────────────────────────────────────────────────────────────────────────────────────────


def test_one_input_in_a_list_is_the_input() -> None:
    """The canonical form, and so the hash, has the key for one."""
    source = {"name": "x0", "size": 3}
    layers = [{"name": "out", "type": "dense", "units": 2}]
    head = {"sifrc": 1, "name": "one", "loss": "mse"}
    listed = build_spec(head | {"network": {"inputs": [source], "layers": layers}})
    plain = build_spec(head | {"network": {"input": source, "layers": layers}})
    assert listed == plain and spec_hash(listed) == spec_hash(plain)
    assert spec_to_dict(listed)["network"]["input"] == source


@pytest.mark.parametrize(
    ("network", "message"),
    [
        ({"input": {"size": 2}, "inputs": [{"size": 2}]}, "the network has both 'input' and 'inputs'"),
        ({}, "the network has no input"),
        ({"inputs": []}, "inputs"),
        ({"inputs": [{"name": "a", "size": 2}, {"name": "a", "size": 2}]}, "the name 'a' is used twice"),
        ({"inputs": [{"name": "a", "size": 2}, {"name": "b", "size": 2}]}, "no layer reads the input 'b'"),
        ({"inputs": [{"name": "a", "size": 2}, {"name": "out", "size": 2}]}, "the name 'out' is used twice"),
        ({"inputs": [{"name": "a", "size": 2}, {"name": "sum", "size": 2}]}, "'sum' is a reserved name"),
        ({"inputs": [{"name": "a", "size": 2, "kind": 1}]}, "kind"),
    ],
)
def test_what_is_no_list_of_inputs(network: dict[str, Any], message: str) -> None:
    layers = [{"name": "out", "type": "dense", "units": 2}]
    with pytest.raises(SifrcError, match=message):
        build_spec({"sifrc": 1, "name": "n", "loss": "mse", "network": {**network, "layers": layers}})


def test_classes_of_any_input_are_read_by_embeddings() -> None:
    inputs = [{"name": "x0", "size": 3}, {"name": "x1", "size": 2, "classes": 4}]
    with pytest.raises(SifrcError, match="'x1' has classes for entries, and dense layer 'e' takes real"):
        build_spec(with_inputs(inputs))


def test_shared_embeddings_read_as_many_classes() -> None:
    shared = LAYER_CASES["two inputs of classes with one weight"]
    network = dict(shared["network"])
    network["inputs"] = [network["inputs"][0], {**network["inputs"][1], "classes": 4}]
    with pytest.raises(SifrcError, match="'e' reads 4 classes, 'd', whose weight it uses, 5"):
        build_spec({**shared, "network": network})


# ── modules ───────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("backend", ["torch", "numba"])
def test_inputs_by_name_and_in_order(backend: str, tmp_path: Path) -> None:
    """The same numbers; and so is a product that keeps its point, whatever becomes of the arrays."""
    module = load(build_spec(CLASSES), backend, tmp_path, ("loss", "hessian_vector_product"))
    params, x, t = point(CLASSES, module)
    named = dict(zip(("x1", "x0"), x[::-1], strict=True))
    assert module.loss(params, named, t) == module.loss(params, x, t) == module.loss(params, [*x], t)
    product = module.linearize(params, x, t)
    expected = module.hessian_vector_product(params, named, t, params)
    for value in x:
        value[...] = 0
    for name, value in product(params).items():
        np.testing.assert_allclose(value, expected[name], atol=1e-12)


@pytest.mark.parametrize("backend", ["torch", "numba"])
def test_refused_inputs(backend: str, tmp_path: Path) -> None:
    """Each with its name, what was expected and what came."""
    module = load(build_spec(CLASSES), backend, tmp_path, ("loss",))
    params, (x0, x1), t = point(CLASSES, module)
    arrays = "tensors" if backend == "torch" else "arrays"
    several = rf"inputs: expected a tuple of 2 {arrays} \(x0, x1\) or a dict of them, got "
    for given, error, message in (
        (x0, TypeError, several + "(Tensor|ndarray)"),
        ((x0,), ValueError, several + "1"),
        ({"x0": x0, "x2": x1}, ValueError, several + r"the names \['x0', 'x2'\]"),
        ((x0, x1[:2]), ValueError, r"inputs\['x1'\]: expected shape \(4, 3\), got \(2, 3\)"),
        ((x0[:, :2], x1), ValueError, r"inputs\['x0'\]: expected shape \(B, 3, 4\), got \(4, 2, 4\)"),
        ((x0, x1 + 5), ValueError, r"inputs\['x1'\]: expected classes 0 to 4, got"),
        ((x0, x0[..., 0]), TypeError, r"inputs\['x1'\]: expected integers"),
        ((x1, x1), (TypeError, ValueError), r"inputs\['x0'\]: expected"),
    ):
        with pytest.raises(error, match=message):
            module.loss(params, given, t)
        with pytest.raises(error, match=message):
            module.predict(params, given)


def test_network_takes_its_inputs(tmp_path: Path) -> None:
    """As arguments, in order or by name; automatic differentiation goes through."""
    module = load(build_spec(DATA), "torch", tmp_path, ("gradient",))
    params, x, t = point(DATA, module)
    network = module.Network(dtype=torch.float64)
    network.load_state_dict(params)
    output = network(x0=x[0], x1=x[1])
    torch.testing.assert_close(output.detach(), module.predict(params, x))
    torch.testing.assert_close(output.detach(), Elementary(DATA)(params, x), rtol=1e-12, atol=1e-12)
    loss_of_outputs(DATA["loss"], network(*x), t).backward()
    expected = module.gradient(params, x, t)
    for name, value in network.named_parameters():
        torch.testing.assert_close(value.grad, expected[name], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("method", [{"name": "ea_cg"}, {"name": "grouped_newton", "period": 2}])
def test_steps(method: dict[str, Any]) -> None:
    """Both backends take the same ones; Torch compares with the user's model at the first."""
    data = {**DATA, "method": method}
    eager, compiled = (sifrc.compile(build_spec(data), backend=backend) for backend in ("torch", "numba"))
    params, x, t = point(data, eager)
    own, given = arrays(params), (arrays(x), arrays(t))
    network = eager.Network(dtype=torch.float64)
    network.load_state_dict(params)
    optimizer, state = eager.Optimizer(network), compiled.State(own)
    for _ in range(2):
        assert float(optimizer.step(x, t)) == pytest.approx(compiled.step(own, state, *given), rel=1e-12)
    assert float(optimizer.step(lambda: (dict(zip(eager.INPUTS, x, strict=True)), t))) == pytest.approx(
        compiled.step(own, state, *given), rel=1e-12
    )
    order = np.array([2, 0, 3, 1])
    found = [float(optimizer.step(tuple(v[part] for v in x), t[part])) for part in (order[:2], order[2:])]
    assert compiled.train_epoch(own, state, *given, order, 2) == pytest.approx(np.mean(found), rel=1e-12)
    for name, value in network.named_parameters():
        np.testing.assert_allclose(own[name], value.detach(), rtol=1e-9, atol=1e-11)
    other = eager.Optimizer(lambda_model(network))
    with pytest.raises(ValueError, match="model: "):
        other.step(x, t)


def lambda_model(network: torch.nn.Module) -> torch.nn.Module:
    """A model with the same parameters that reads its inputs the other way round."""

    class Turned(type(network)):  # type: ignore[misc]
        def forward(self, x0: torch.Tensor, x1: torch.Tensor) -> Any:
            return super().forward(-x0, x1)

    made = Turned(dtype=torch.float64)
    made.load_state_dict(network.state_dict())
    return made


@pytest.mark.parametrize("backend", ["torch", "numba"])
def test_summaries_in_parts(backend: str, tmp_path: Path) -> None:
    """A batch a few samples at a time."""
    module = load(build_spec(DATA), backend, tmp_path, ("summary",))
    params, x, t = point(DATA, module)
    whole, parts = (module.summary(params, x, t, params, **more) for more in ({}, {"chunk": 3}))
    np.testing.assert_allclose(parts.H, whole.H, rtol=1e-10)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"method": "mk"}, "the network has 2 inputs"),
        ({"method": "esn"}, "the network has 2 inputs"),
        ({"target": "cuda"}, "the CUDA backend does not have several inputs"),
    ],
)
def test_what_does_not_exist(more: dict[str, Any], message: str) -> None:
    with pytest.raises(SifrcError, match=message):
        sifrc.compile(build_spec({**DATA, "regularization": {"state": 0.1}, **more}))


def test_training_on_data_sets_is_refused() -> None:
    with pytest.raises(SifrcError, match="data sets have one input, and the network has 2"):
        sifrc.train(build_spec({**DATA, "method": "grouped_newton"}))


def test_verified() -> None:
    """All three levels, blocks of curvature among them."""
    spec = build_spec({**DATA, "target": {"operators": ["block_hessian", "hessian_vector_product"]}})
    report = sifrc.verify(spec)
    checked = {(row.quantity, row.level) for row in report.rows if row.passed}
    assert report.passed
    assert {("block_hessian", level) for level in (2, 3)} <= checked
    assert {("hessian_vector_product", level) for level in (2, 3)} <= checked
