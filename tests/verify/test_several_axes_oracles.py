"""Oracles on states of several axes, against torch: its own layers and its automatic differentiation."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache, cached_property
from itertools import product
from typing import Any

import mpmath
import numpy as np
import pytest
import torch
from torch import Tensor
from torch.autograd.functional import hessian, jacobian
from torch.nn import functional

from sifrc.derive.curvature.kinds import KINDS, Kind
from sifrc.errors import VerificationError
from sifrc.ir.arithmetic import MPMATH
from sifrc.spec import build_spec
from sifrc.spec.types import Spec
from sifrc.verify.capped import capped
from sifrc.verify.comparison import rounding_bound
from sifrc.verify.oracles import forward_torch as oracle
from sifrc.verify.oracles.batch import BatchOracle
from sifrc.verify.oracles.batch_mpmath import PreciseBatch
from sifrc.verify.oracles.batch_torch import TorchBatch
from sifrc.verify.oracles.curvature_expected import Expected
from sifrc.verify.oracles.curvature_reference import reference_blocks
from sifrc.verify.oracles.forward_mpmath import ForwardMpmath
from sifrc.verify.oracles.network import parameter_shapes
from sifrc.verify.points import random_point

ORACLES = ("torch", "mpmath")
LOSSES = ("cross_entropy", "squared_error")
SELDOM = (("cross_entropy", True, "mpmath"), ("squared_error", False, "mpmath"))
COMBINED = [
    pytest.param(*choice, marks=pytest.mark.slow if choice in SELDOM else ())
    for choice in product(LOSSES, (False, True), ORACLES)
]
"""Dual numbers take long: they see both losses, and parameters that are shared and that are not."""
SHAPES = {"fc0": (2, 3), "fc1": (2, 3), "fc2": (2, 3), "both": (2, 3), "all": (6,), "out": (3,)}
SCALE = 0.3
BATCH = 2

Tensors = Mapping[str, Tensor]


@pytest.fixture(autouse=True, scope="module")
def thirty_digits():
    with mpmath.workdps(30):
        yield


def spec_of(layers: list[dict[str, Any]], size: Any, **more: Any) -> Spec:
    network = {"input": {"name": "image", "size": size}, "layers": layers}
    return build_spec({"sifrc": 1, "name": "axes", "loss": "squared_error", "network": network, **more})


@cache
def residual(loss: str, shared: bool = False) -> Spec:
    """Two places; a layer that skips two, whose second may share the parameters of the first."""
    more = {"share": "fc1"} if shared else {"units": 3, "bias": False}
    return spec_of(
        [
            {"name": "fc0", "type": "dense", "units": 3, "activation": "tanh"},
            {"name": "fc1", "type": "dense", "units": 3, "activation": "sigmoid"},
            {"name": "fc2", "type": "dense", "activation": "softplus", **more},
            {"name": "both", "type": "add", "inputs": ["fc0", "fc2"], "activation": "sin"},
            {"name": "all", "type": "flatten"},
            {"name": "out", "type": "dense", "units": 3},
        ],
        [2, 4],
        loss=loss,
        regularization={"state": SCALE},
    )


class ByHand:
    """The same network in torch."""

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self.point = random_point(spec, seed=3, batch=BATCH)
        self.params = {name: torch.from_numpy(value) for name, value in self.point.params.items()}
        self.vector = {name: torch.from_numpy(value) for name, value in self.point.vector.items()}
        self.inputs, self.targets = torch.from_numpy(self.point.inputs), torch.from_numpy(self.point.targets)
        self.samples = list(zip(self.inputs, self.targets, strict=True))
        self.shared = "fc2.weight" not in self.params

    def states(self, p: Tensors, x: Tensor, shifts: Tensors | None = None) -> dict[str, Tensor]:
        """Values of the layers for one sample."""
        s = {name: torch.zeros(shape, dtype=torch.float64) for name, shape in SHAPES.items()} | (shifts or {})
        second = ("fc1.weight", "fc1.bias") if self.shared else ("fc2.weight", None)
        fc0 = torch.tanh(functional.linear(x, p["fc0.weight"], p["fc0.bias"]) + s["fc0"])
        fc1 = torch.sigmoid(functional.linear(fc0, p["fc1.weight"], p["fc1.bias"]) + s["fc1"])
        fc2 = functional.softplus(functional.linear(fc1, p[second[0]], p.get(second[1])) + s["fc2"])
        both = torch.sin(fc0 + fc2 + s["both"])
        flat = torch.flatten(both) + s["all"]
        out = functional.linear(flat, p["out.weight"], p["out.bias"]) + s["out"]
        return {"fc0": fc0, "fc1": fc1, "fc2": fc2, "both": both, "all": flat, "out": out}

    def output(self, p: Tensors, x: Tensor, shifts: Tensors | None = None) -> Tensor:
        return self.states(p, x, shifts)["out"]

    def loss_of(self, output: Tensor, target: Tensor) -> Tensor:
        if self.spec.loss.targets == "classes":
            return functional.cross_entropy(output[None], target[None])
        return ((output - target) ** 2).sum() / 2

    def objective(self, p: Tensors, x: Tensor, t: Tensor, shifts: Tensors | None = None) -> Tensor:
        states = self.states(p, x, shifts)
        squares = sum((value**2).sum() for name, value in states.items() if name != "out")
        return self.loss_of(states["out"], t) + SCALE / 2 * squares

    def mean(self, p: Tensors) -> Tensor:
        return torch.stack([self.objective(p, x, t) for x, t in self.samples]).mean()

    def flat(self, tensors: Tensors) -> Tensor:
        return torch.cat([tensors[name].reshape(-1) for name in self.params])

    def named(self, flat: Tensor) -> dict[str, Tensor]:
        pieces = torch.split(flat, [value.numel() for value in self.params.values()])
        return {
            name: piece.reshape(value.shape)
            for piece, (name, value) in zip(pieces, self.params.items(), strict=True)
        }

    def block_of(self, matrix: Tensor, name: str) -> np.ndarray:
        """A diagonal block of a matrix over all parameters."""
        names = list(self.params)
        start = sum(self.params[other].numel() for other in names[: names.index(name)])
        stop = start + self.params[name].numel()
        return matrix[start:stop, start:stop].numpy()

    @cached_property
    def whole(self) -> Tensor:
        """The Hessian of the mean objective."""
        return hessian(lambda flat: self.mean(self.named(flat)), self.flat(self.params))

    @cached_property
    def gauss_newton(self) -> Tensor:
        total = torch.zeros(())
        for x, t in self.samples:
            j = jacobian(lambda flat, x=x: self.output(self.named(flat), x), self.flat(self.params))
            curved = hessian(lambda y, t=t: self.loss_of(y, t), self.output(self.params, x))
            total = total + j.T @ curved @ j / BATCH
        return total


@cache
def hand_of(loss: str, shared: bool = False) -> ByHand:
    return ByHand(residual(loss, shared))


@cache
def batch_of(name: str, loss: str, shared: bool = False) -> BatchOracle:
    hand = hand_of(loss, shared)
    if name == "mpmath":
        return PreciseBatch(hand.spec, hand.point, 0, 30)
    data = hand.params, hand.inputs, hand.targets
    return TorchBatch(hand.spec, data, hand.vector, 0, lambda: np.zeros((BATCH, 3)))


def close(found: Any, expected: Any) -> None:
    found = np.asarray(found).astype(np.float64)
    expected = np.asarray(expected)
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-12)


def all_close(found: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    assert set(found) == set(expected)
    for name, value in expected.items():
        close(found[name], value)


# -- the network


def test_parameters_have_the_last_axis() -> None:
    assert parameter_shapes(residual("squared_error")) == {
        "fc0.weight": (3, 4),
        "fc0.bias": (3,),
        "fc1.weight": (3, 3),
        "fc1.bias": (3,),
        "fc2.weight": (3, 3),
        "out.weight": (3, 6),
        "out.bias": (3,),
    }
    assert "fc2.weight" not in parameter_shapes(residual("squared_error", shared=True))


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("loss", LOSSES)
def test_the_forward_pass(loss: str, shared: bool) -> None:
    hand = hand_of(loss, shared)
    found = oracle.ForwardTorch(hand.spec).output(hand.params, hand.inputs)
    precise = ForwardMpmath(hand.spec)
    params = {name: MPMATH.array(value) for name, value in hand.point.params.items()}
    for n, x in enumerate(hand.inputs):
        states = hand.states(hand.params, x)
        close(found[n], states["out"])
        run = precise.run(params, MPMATH.array(hand.point.inputs[n]))
        all_close({name: run.values[name] for name in SHAPES}, states)
        assert {name: value.shape for name, value in run.values.items()} == {"image": (2, 4), **SHAPES}


def test_an_activation_and_three_axes() -> None:
    """An activation of the input, and one that is a state together with the flatten layer before it."""
    spec = spec_of(
        [
            {"name": "bent", "type": "activation", "function": "sin"},
            {"name": "fc", "type": "dense", "units": 2},
            {"name": "all", "type": "flatten"},
            {"name": "act", "type": "activation", "function": "tanh"},
            {"name": "out", "type": "dense", "units": 1},
        ],
        [2, 2, 3],
    )
    point = random_point(spec, seed=0)
    p = {name: torch.from_numpy(value) for name, value in point.params.items()}
    inputs = torch.from_numpy(point.inputs)
    hidden = functional.linear(torch.sin(inputs), p["fc.weight"], p["fc.bias"])
    expected = functional.linear(torch.tanh(hidden.flatten(1)), p["out.weight"], p["out.bias"])
    close(oracle.ForwardTorch(spec).output(p, inputs), expected)
    params = {name: MPMATH.array(value) for name, value in point.params.items()}
    close(ForwardMpmath(spec).output(params, MPMATH.array(point.inputs[0])), expected[0])


# -- derivatives by the parameters


@pytest.mark.parametrize(("loss", "shared", "name"), COMBINED)
def test_derivatives_by_the_parameters(loss: str, shared: bool, name: str) -> None:
    hand, found = hand_of(loss, shared), batch_of(name, loss, shared)
    start, v = hand.flat(hand.params), hand.flat(hand.vector)
    close(found.value("objective"), hand.mean(hand.params))
    slope = jacobian(lambda flat: hand.mean(hand.named(flat)), start)
    all_close(found.gradient(), hand.named(slope))
    all_close(found.product("hessian"), hand.named(hand.whole @ v))
    all_close(found.product("gauss_newton"), hand.named(hand.gauss_newton @ v))
    each = found.sample_gradients()
    for n, (x, t) in enumerate(hand.samples):
        one = jacobian(lambda flat, x=x, t=t: hand.objective(hand.named(flat), x, t), start)
        all_close({key: value[n] for key, value in each.items()}, hand.named(one))
    units = np.eye(len(found.parts))
    parts = [{key: torch.tensor(v) for key, v in _floats(found.parts[i]).items()} for i in (0, -1)]
    first, second = map(hand.flat, parts)
    close(found.derivatives([[units[0], units[-1]]]), (first @ hand.whole @ second)[None])


def _floats(tensors: Mapping[str, Any]) -> dict[str, np.ndarray]:
    return {name: np.asarray(value).astype(np.float64) for name, value in tensors.items()}


def test_dense_derivatives() -> None:
    hand = hand_of("cross_entropy", shared=True)
    close(oracle.dense_hessian(hand.spec, hand.params, hand.inputs, hand.targets), hand.whole)
    found = oracle.jacobian(hand.spec, hand.params, hand.inputs)
    for n, x in enumerate(hand.inputs):
        rows = jacobian(lambda flat, x=x: hand.output(hand.named(flat), x), hand.flat(hand.params))
        close(found[n], rows)


# -- curvature


@pytest.mark.parametrize(("loss", "shared", "name"), COMBINED)
def test_blocks_of_pre_activations(loss: str, shared: bool, name: str) -> None:
    hand, at = hand_of(loss, shared), batch_of(name, loss, shared).measured
    kinds = ("hessian", "ggn", "empirical_fisher")
    blocks = {kind: reference_blocks(at, KINDS[kind]) for kind in kinds}
    for layer, shape in SHAPES.items():
        zero = torch.zeros(shape, dtype=torch.float64)
        for n, (x, t) in enumerate(hand.samples):
            exact = hessian(lambda s, x=x, t=t: hand.objective(hand.params, x, t, {layer: s}), zero)
            close(blocks["hessian"][layer][n], exact)
            j = jacobian(lambda s, x=x: hand.output(hand.params, x, {layer: s}), zero)
            close(at.jacobian(layer)[n], j)
            y = hand.output(hand.params, x)
            curved = hessian(lambda y, t=t: hand.loss_of(y, t), y)
            close(blocks["ggn"][layer][n], torch.tensordot(j.movedim(0, -1) @ curved, j, 1))
            score = torch.tensordot(jacobian(lambda y, t=t: hand.loss_of(y, t), y), j, 1)
            close(blocks["empirical_fisher"][layer][n], torch.tensordot(score, score, 0))


@pytest.mark.parametrize(
    ("loss", "name"),
    [
        *((loss, "torch") for loss in LOSSES),
        pytest.param("cross_entropy", "mpmath", marks=pytest.mark.slow),
        ("squared_error", "mpmath"),
    ],
)
def test_the_elimination_of_layers(loss: str, name: str) -> None:
    """What is rewritten changes nothing: the output's block is definite."""
    at = batch_of(name, loss, shared=True).measured
    for exact, kept in (("hessian", "kept"), ("ggn", "dropped")):
        kind = KINDS[exact]
        same = Kind("same", kind.source, residual=kept, output="absolute")
        expected = _floats(reference_blocks(at, kind))
        all_close(reference_blocks(at, same), expected)
        assert {layer: block.shape[1:] for layer, block in expected.items()} == {
            layer: 2 * shape for layer, shape in SHAPES.items()
        }


@pytest.mark.parametrize("name", ORACLES)
@pytest.mark.parametrize("kind", ["hessian", "ggn"])
def test_blocks_of_parameters(kind: str, name: str) -> None:
    hand, batch = hand_of("cross_entropy"), batch_of(name, "cross_entropy")
    matrix = hand.whole if kind == "hessian" else hand.gauss_newton
    blocks = {key: hand.block_of(matrix, key) for key in hand.params}
    found = Expected(batch.measured, KINDS[kind])
    all_close({**found.bias_blocks(), **found.weight_blocks()}, blocks)
    diagonal = {key: np.diagonal(block).reshape(hand.params[key].shape) for key, block in blocks.items()}
    all_close(found.diagonal(), diagonal)
    moved = {
        key: (block @ hand.point.vector[key].ravel()).reshape(hand.params[key].shape)
        for key, block in blocks.items()
    }
    all_close(found.product(batch.vector, None), moved)
    all_close(found.product(batch.vector, "exact"), moved)
    each = found.sample_blocks()
    assert each["fc0.bias"].shape == (BATCH, 3, 3)
    all_close({key: value.mean(axis=0) for key, value in each.items()}, {key: blocks[key] for key in each})
    summed = Expected(batch.measured, KINDS[kind], factor=BATCH)
    close(summed.weight_blocks()["fc1.weight"], BATCH * blocks["fc1.weight"])


def test_blocks_of_parameters_are_those_of_the_whole_hessian() -> None:
    batch = batch_of("torch", "squared_error")
    found = Expected(batch.measured, KINDS["hessian"])
    assert isinstance(batch, TorchBatch)
    all_close({**found.bias_blocks(), **found.weight_blocks()}, batch.dense_blocks())


@pytest.mark.parametrize("name", ORACLES)
def test_blocks_of_outer_products(name: str) -> None:
    """The empirical Fisher matrix averages those of gradients of the loss; Fisher's is Gauss and Newton's."""
    hand, batch = hand_of("cross_entropy"), batch_of(name, "cross_entropy")
    total = torch.zeros(())
    for x, t in hand.samples:
        slope = jacobian(
            lambda flat, x=x, t=t: hand.loss_of(hand.output(hand.named(flat), x), t), hand.flat(hand.params)
        )
        total = total + torch.outer(slope, slope) / BATCH
    found = Expected(batch.measured, KINDS["empirical_fisher"])
    blocks = {**found.bias_blocks(), **found.weight_blocks()}
    all_close(blocks, {key: hand.block_of(total, key) for key in hand.params})
    fisher = Expected(batch.measured, KINDS["fisher"]).weight_blocks()
    all_close(fisher, {key: hand.block_of(hand.gauss_newton, key) for key in fisher})


def test_products_of_means_are_of_every_pair_of_places() -> None:
    """Of kinds of the batch: the diagonal and a product are those of the blocks."""
    batch = batch_of("torch", "cross_entropy")
    found = Expected(batch.measured, KINDS["kfra"])
    blocks, products = found.weight_blocks(), found.product(batch.vector, "places")
    diagonal = found.diagonal()
    for key, block in blocks.items():
        close(diagonal[key].ravel(), np.diagonal(block))
        close(products[key].ravel(), block @ batch.vector[key].ravel())


def test_factors_of_several_places_need_a_choice() -> None:
    batch = batch_of("torch", "cross_entropy")
    exact, apart = (Expected(batch.measured, KINDS[kind]) for kind in ("ggn", "kfra"))
    for call in (
        lambda: apart.product(batch.vector, None),
        lambda: exact.product(batch.vector, "second"),
        lambda: exact.product(batch.vector, "mean"),
        lambda: exact.factors("second"),
        lambda: exact.factors("mean"),
    ):
        with pytest.raises(VerificationError, match="several places"):
            call()


# -- regularisation by the sample


@pytest.mark.parametrize("name", ORACLES)
def test_spectral_factors(name: str) -> None:
    """λ_k = ‖∂ℓ/∂a_{k+1}‖₂ / ‖F'(a_k)‖_∞ over all axes, MK(65); the flattened state has no slope."""
    spec = spec_of(
        [
            {"name": "fc0", "type": "dense", "units": 4, "activation": "tanh"},
            {"name": "fc1", "type": "dense", "units": 2, "activation": "sigmoid"},
            {"name": "all", "type": "flatten"},
            {"name": "out", "type": "dense", "units": 3},
        ],
        [2, 3],
        regularization={"state": "spectral"},
    )
    point = random_point(spec, seed=1)
    p = {key: torch.from_numpy(value) for key, value in point.params.items()}
    x, t = (torch.from_numpy(value) for value in point.sample())
    a0 = functional.linear(x, p["fc0.weight"], p["fc0.bias"]).requires_grad_()
    a1 = functional.linear(torch.tanh(a0), p["fc1.weight"], p["fc1.bias"])
    a2 = torch.sigmoid(a1).flatten()
    a3 = functional.linear(a2, p["out.weight"], p["out.bias"])
    slopes = torch.autograd.grad(((a3 - t) ** 2).sum() / 2, (a1, a2, a3))
    steepest = (1 - torch.tanh(a0) ** 2).amax(), (torch.sigmoid(a1) * (1 - torch.sigmoid(a1))).amax(), 1.0
    expected = {
        state: (slope.norm() / steep).item()
        for state, slope, steep in zip(("fc0", "fc1", "all"), slopes, steepest, strict=True)
    }
    if name == "torch":
        factors = oracle.ForwardTorch(spec).factors(p, x[None], t[None])
        all_close({state: value[0] for state, value in factors.items()}, expected)
    else:
        params = {key: MPMATH.array(value) for key, value in point.params.items()}
        all_close(ForwardMpmath(spec).factors(params, *map(MPMATH.array, point.sample())), expected)


# -- points and bounds


def test_points_have_all_axes() -> None:
    point = random_point(residual("cross_entropy"), seed=0, batch=5)
    assert point.inputs.shape == (5, 2, 4)
    assert point.targets.shape == (5,)


def test_every_axis_is_capped() -> None:
    shapes = dict(capped(residual("squared_error"), 2).shapes)
    assert shapes == {"image": (2, 2), **dict.fromkeys(SHAPES, (2, 2)), "all": (4,), "out": (2,)}
    assert capped(residual("squared_error"), 8) == residual("squared_error")


def test_what_is_as_long_as_several_axes_stays_so() -> None:
    """A layer is added to a flattened one, and its sum to one that is flattened once more."""
    spec = spec_of(
        [
            {"name": "all", "type": "flatten"},
            {"name": "fc", "type": "dense", "units": 30},
            {"name": "both", "type": "add", "inputs": ["all", "fc"]},
            {"name": "again", "type": "flatten"},
            {"name": "small", "type": "dense", "units": 20},
            {"name": "out", "type": "dense", "units": 30, "activation": "tanh"},
        ],
        [5, 6],
    )
    small = capped(spec, 3)
    nine = dict.fromkeys(("all", "fc", "both", "again", "out"), (9,))
    assert dict(small.shapes) == {"image": (3, 3), **nine, "small": (3,)}
    point = random_point(small, seed=0)
    params = {name: torch.from_numpy(value) for name, value in point.params.items()}
    assert oracle.ForwardTorch(small).output(params, torch.from_numpy(point.inputs)).shape == (1, 9)


def test_the_bound_of_rounding_goes_by_the_last_axis_and_the_places() -> None:
    dense = {"name": "fc", "type": "dense", "units": 4}
    flat, several = spec_of([dense], 3), spec_of([dense, {"name": "all", "type": "flatten"}], [5, 3])
    eps = 2.0**-52
    assert rounding_bound(flat, "loss", "float64") == eps * (3 + 4 + 16)
    assert rounding_bound(several, "loss", "float64") == eps * ((3 + 4 + 4 + 4 + 16) + (4 + 4 + 20 + 16))
