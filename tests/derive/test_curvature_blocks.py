"""Derived curvature blocks against torch.func: the recursion, factored kinds, weights, products.

Oracles see the spec alone. Blocks by pre-activations come from derivatives by shifts of them, blocks of
weights from the dense Hessian of the batch objective.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from cases import CASES, ONE_AXIS, marked
from curvature_oracle import Oracle, assert_close, means, owners, point_for
from curvature_values import Values
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from strategies import specs

from sifrc.catalogue.registry import BLOCK_OPERATORS
from sifrc.compiler import Request, compile_spec
from sifrc.derive.curvature.kinds import KINDS, Kind
from sifrc.derive.derived import Derived
from sifrc.errors import DerivationError
from sifrc.model import build_model
from sifrc.spec import Spec, build_spec

SHARED = ("shared", "shared_skip")
# Blocks of states with several axes are in tests/backends/test_axes_of_states.py.
OWNED = tuple(name for name in ONE_AXIS if name not in SHARED)
BATCH = 3


def spec_of(name: str, **changes: Any) -> Spec:
    return build_spec({**CASES[name], **changes})


def without_spectral_limits(name: str) -> Spec:
    return spec_of(name, regularization={"state": "spectral", "output": "spectral"})


def setting(spec: Spec) -> tuple[Values, Oracle]:
    point = point_for(spec, 3, BATCH)
    return Values(spec, point), Oracle(spec, point)


@cache
def case(name: str) -> tuple[Values, Oracle]:
    """One point for all tests of a named case; nothing changes it."""
    return setting(spec_of(name))


def total(spec: Spec) -> int:
    """What the oracle's dense Hessian has more than the mean."""
    return BATCH if spec.loss.reduction == "sum" else 1


def restricted(expected: dict[str, np.ndarray], found: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: expected[name] for name in found}


# ── exact blocks ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", marked(ONE_AXIS))
def test_block_of_every_pre_activation_is_its_second_derivative(name: str) -> None:
    """H_k of each sample, shared layers and sums among them; and its batch mean."""
    values, oracle = case(name)
    found, exact = values.blocks(KINDS["hessian"]), oracle.exact()
    assert_close(found, restricted(exact, found))
    mean = values.after(KINDS["hessian"], values.derived.curvature.mean_blocks("samples"))
    layers = {c.layers[0]: mean["H̄", c.index] for c in values.model.constraints}
    assert_close(layers, restricted(means(exact), found))


@pytest.mark.parametrize("name", marked(ONE_AXIS))
def test_ggn_block_is_the_loss_curvature_between_jacobians(name: str) -> None:
    """mean Jᵀ ∂²ℓ J, per sample, without the state regularisation."""
    values, oracle = case(name)
    found = values.blocks(KINDS["ggn"])
    assert_close(found, restricted(oracle.gauss_newton(), found))


@pytest.mark.parametrize("name", marked(OWNED))
def test_weights_products_and_diagonals_are_those_of_the_dense_hessian(name: str) -> None:
    """∇²W_k, (∇²W_k N_k, ∇²β_k η_k) and both diagonals, averaged over the batch."""
    spec = spec_of(name)
    point = point_for(spec, 3, BATCH)
    values = Values(spec, point)
    expected = {key: block / total(spec) for key, block in Oracle(spec, point).dense().items()}
    curvature = values.derived.curvature
    found = values.after(
        KINDS["hessian"],
        curvature.dense("samples"),
        curvature.product("samples", None),
        curvature.diagonal("samples"),
    )
    weights = {}
    for owned in values.model.parameters:
        block = found["∇²W", owned.index]
        size = block.shape[0] * block.shape[1]
        weights[f"{owned.layer}.weight"] = block.reshape(size, size)
    assert_close(weights, restricted(expected, weights))
    products = {
        key: (expected[key] @ vector.ravel()).reshape(vector.shape) for key, vector in point.vector.items()
    }
    assert_close(values.tensors(found, "BN", "Bη"), products)
    diagonals = {key: np.diag(expected[key]).reshape(value.shape) for key, value in point.params.items()}
    assert_close(values.tensors(found, "dW", "dβ"), diagonals)


@pytest.mark.parametrize("name", ["spectral", "spectral_smooth"])
def test_the_spectral_factor_of_the_loss_multiplies_its_curvature(name: str) -> None:
    """λ_n of MK(68) and λ_k of MK(65) are held constant under differentiation."""
    values, oracle = setting(without_spectral_limits(name))
    for kind, expected in (("hessian", oracle.exact()), ("ggn", oracle.gauss_newton())):
        found = values.blocks(KINDS[kind])
        assert_close(found, restricted(expected, found))
    assert np.abs(oracle.loss_scale.numpy() - 1).min() > 1e-3


@pytest.mark.parametrize("name", marked(OWNED))
def test_moments_of_the_inputs(name: str) -> None:
    """A_k = mean x xᵀ and m_k = mean x of what each layer reads."""
    values, oracle = case(name)
    curvature = values.derived.curvature
    found = values.after(KINDS["ggn"], curvature.moments("second"), curvature.moments("mean"))
    for owned in values.model.parameters:
        x = oracle.layer_inputs()[owned.layer]
        assert_close({"A": found["A", owned.index]}, {"A": x.T @ x / BATCH})
        assert_close({"m": found["m̄", owned.index]}, {"m": x.mean(axis=0)})


@pytest.mark.parametrize("name", ["skip", "tanh_cross_entropy_3", "no_bias", "skip_pre_activation"])
@pytest.mark.parametrize("moment", ["second", "mean"])
def test_products_with_factors_are_those_of_the_kronecker_matrix(name: str, moment: Any) -> None:
    """(H̄ ⊗ A) vec N and (H̄ ⊗ m mᵀ) vec N, EA-CG(11a, 11b), and H̄ ⊗ A as a matrix."""
    spec = spec_of(name)
    point = point_for(spec, 3, BATCH)
    values, oracle = Values(spec, point), Oracle(spec, point)
    curvature, kind = values.derived.curvature, KINDS["pch1"]
    found = values.after(
        kind,
        curvature.moments("second"),
        curvature.moments("mean"),
        curvature.product("batch", moment),
        curvature.dense("batch"),
    )
    blocks = oracle.kind(kind)
    assert blocks is not None
    for owned in values.model.parameters:
        x = oracle.layer_inputs()[owned.layer]
        second = x.T @ x / BATCH
        own = second if moment == "second" else np.outer(x.mean(axis=0), x.mean(axis=0))
        n = point.vector[f"{owned.layer}.weight"]
        expected = (np.kron(blocks[owned.layer], own) @ n.ravel()).reshape(n.shape)
        assert_close({"N": found["BN", owned.index]}, {"N": expected})
        if owned.bias is not None:
            eta = blocks[owned.layer] @ point.vector[f"{owned.layer}.bias"]
            assert_close({"η": found["Bη", owned.index]}, {"η": eta})
        dense = found["∇²W", owned.index]
        size = dense.shape[0] * dense.shape[1]
        expected = np.kron(blocks[owned.layer], second)
        assert_close({"W": dense.reshape(size, size)}, {"W": expected})


RANDOM = settings(
    deadline=None,
    derandomize=True,
    print_blob=True,
    suppress_health_check=list(HealthCheck),
)


def random_network(data: dict[str, Any], seed: int) -> None:
    """Every kind that exists, for every constraint, shared layers too."""
    spec = build_spec(data)
    point = point_for(spec, seed, BATCH)
    values, oracle = Values(spec, point), Oracle(spec, point)
    for kind in KINDS.values():
        if kind.source == "sampled":
            continue
        try:
            found = values.blocks(kind)
        except DerivationError:
            assert kind.source == "fisher" and spec.loss.targets == "vectors"
            continue
        if kind.name in ("hessian", "ggn"):
            exact = oracle.exact() if kind.name == "hessian" else oracle.gauss_newton()
            assert_close(found, restricted(exact, found))
        expected = oracle.kind(kind)
        assert expected is not None
        found = found if kind.expectation or kind.factored else means(found)
        assert_close(found, restricted(expected, found))


@given(data=specs(), seed=st.integers(0, 2**16))
@settings(RANDOM, max_examples=5)
def test_random_network(data: dict[str, Any], seed: int) -> None:
    """Skips, shared layers, activations and losses of the user's own among them."""
    random_network(data, seed)


@pytest.mark.slow
@given(data=specs(), seed=st.integers(0, 2**16))
@settings(RANDOM, max_examples=600)
def test_many_random_networks(data: dict[str, Any], seed: int) -> None:
    """The same on many more."""
    random_network(data, seed)


# ── rewrites ──────────────────────────────────────────────────────────────────────────────────────────

REWRITES = tuple(
    Kind(f"{source}_{expectation}_{residual}_{output}", source, expectation, residual, output)  # type: ignore[arg-type]
    for source in ("objective", "loss")
    for expectation in (False, True)
    for residual in ("kept", "dropped", "absolute", "clipped")
    for output in ("kept", "absolute", "positive")
)
GRAPHS = ("skip", "skip_pre_activation", "bounded", "output_tanh", "shared_skip")


@pytest.mark.parametrize("name", marked(ONE_AXIS))
@pytest.mark.parametrize("kind", ["pch1", "pch2", "kfra"])
def test_preset_with_rewrites_is_what_dense_algebra_gives(name: str, kind: str) -> None:
    """EA-CG(6, 8): means layer by layer, the residual's and the output's rewrites in their places."""
    values, oracle = case(name)
    found = values.blocks(KINDS[kind])
    assert_close(found, restricted(means(oracle.rewritten(KINDS[kind])), found))


@pytest.mark.parametrize("kind", REWRITES, ids=lambda kind: kind.name)
@pytest.mark.parametrize("name", GRAPHS)
def test_every_combination_of_rewrites(name: str, kind: Kind) -> None:
    """Sources and rewrites combine freely, on graphs with skips too; ``loss`` knows no regularisation."""
    values, oracle = case(name)
    found = values.blocks(kind)
    found = found if kind.expectation else means(found)
    assert_close(found, restricted(means(oracle.rewritten(kind)), found))


@pytest.mark.parametrize("name", ["skip", "bounded", "tanh_squared_error_3"])
def test_the_loss_as_source_with_nothing_rewritten_is_its_hessian(name: str) -> None:
    """Adjoints of the residual too are those of the loss without state regularisation."""
    values, oracle = case(name)
    found = values.blocks(Kind("loss_hessian", "loss"))
    assert_close(found, restricted(oracle.exact(whole=False), found))


# ── factored kinds ────────────────────────────────────────────────────────────────────────────────────

NATURAL = (
    "tanh_squared_error_3",
    "separate_activation",
    "sigmoid_binary",
    "output_tanh",
    "custom_curved",
    "one_layer",
    "gelu",
    "spectral",
    "skip_pre_activation",
)
CLASSES = ("skip", "tanh_cross_entropy_3", "bounded", "criterion", "relu", "no_bias", "spectral_smooth")


@pytest.mark.parametrize("name", CLASSES)
def test_fisher_over_the_classes(name: str) -> None:
    """mean Σ_c p_c s_c s_cᵀ, p = softmax of the output whatever the loss is."""
    values, oracle = case(name)
    found = values.blocks(KINDS["fisher"])
    assert_close(found, restricted(oracle.fisher(), found))


@pytest.mark.parametrize("name", NATURAL)
def test_fisher_of_a_natural_loss_is_between_jacobians(name: str) -> None:
    """Jᵀ ∂²ℓ J where ∂²ℓ is diagonal and free of the target."""
    values, oracle = case(name)
    found = values.blocks(KINDS["fisher"])
    assert_close(found, restricted(means(oracle.gauss_newton()), found))


@pytest.mark.parametrize("name", marked(ONE_AXIS))
def test_empirical_fisher_averages_products_of_gradients_of_the_loss(name: str) -> None:
    """mean s sᵀ, s the gradient of each sample's loss, without regularisation, by the pre-activation."""
    values, oracle = case(name)
    found = values.blocks(KINDS["empirical_fisher"])
    assert_close(found, restricted(oracle.at(oracle.targets), found))


@pytest.mark.parametrize("name", CLASSES)
def test_sampled_fisher_is_at_the_class_of_the_largest_perturbed_output(name: str) -> None:
    """The same draw by hand: argmax of x + g, g = −log(−log u)."""
    values, oracle = case(name)
    uniform = next(v for s, v in values.env.items() if s.family == "ω")
    drawn = np.argmax(oracle.outputs.numpy() - np.log(-np.log(uniform)), axis=1)
    targets = torch.eye(uniform.shape[1], dtype=torch.float64)[torch.from_numpy(drawn)]
    found = values.blocks(KINDS["sampled_fisher"])
    assert_close(found, restricted(oracle.at(targets), found))


def test_drawn_classes_have_the_frequencies_of_softmax() -> None:
    """Many copies of one sample: within five standard deviations."""
    spec = spec_of("bounded")
    point = point_for(spec, 1, 1)
    count = 20_000
    many = type(point)(point.params, np.repeat(point.inputs, count, 0), np.zeros(count, int), point.vector)
    values = Values(spec, many, random=11)
    oracle = Oracle(spec, point)
    found = values.after(KINDS["sampled_fisher"])["t̃", None]
    assert (found.sum(axis=1) == 1).all()
    p = torch.softmax(oracle.outputs, dim=1).numpy()[0]
    assert p.max() - p.min() > 0.05
    assert np.all(np.abs(found.mean(axis=0) - p) <= 5 * np.sqrt(p * (1 - p) / count))


@pytest.mark.parametrize("name", ["tanh_cross_entropy_3", "separate_activation", "sigmoid_binary", "skip"])
def test_sampled_fisher_has_the_fisher_matrix_as_its_mean(name: str) -> None:
    """Over many draws; the error is compared with the spread of the draws themselves."""
    spec = spec_of(name)
    point = point_for(spec, 2, 1)
    count, parts = 500, 24
    many = type(point)(
        point.params,
        np.repeat(point.inputs, count, 0),
        np.repeat(point.targets, count, 0),
        point.vector,
    )
    draws = [Values(spec, many, random=seed).blocks(KINDS["sampled_fisher"]) for seed in range(parts)]
    expected = Oracle(spec, point).fisher()
    for layer in draws[0]:
        every = np.stack([draw[layer] for draw in draws])
        error = np.abs(every.mean(axis=0) - expected[layer])
        deviation = every.std(axis=0, ddof=1) / np.sqrt(parts)
        assert np.all(error <= 5.5 * deviation + 1e-12), layer


TARGETED = ("selu_huber", "custom_loss", "mixed_loss", "probabilities")


@pytest.mark.parametrize("kind", ["fisher", "sampled_fisher"])
@pytest.mark.parametrize("name", TARGETED)
def test_no_fisher_where_the_curvature_of_the_loss_is_not_diagonal_and_free_of_the_target(
    name: str, kind: str
) -> None:
    """Refused with the kind and what is possible; the empirical one exists."""
    derived = Derived(build_model(spec_of(name)))
    with pytest.raises(DerivationError, match=kind) as caught:
        derived.curvature.blocks(KINDS[kind])
    assert "empirical_fisher" in str(caught.value)
    derived.curvature.blocks(KINDS["empirical_fisher"])


@pytest.mark.parametrize("kind", ["fisher", "sampled_fisher"])
@pytest.mark.parametrize("loss", ["dot(t, y) - sum(softplus(y))", "dot(t, y) + sum(sin(y))"])
def test_no_fisher_where_the_loss_is_not_convex(loss: str, kind: str) -> None:
    """A log-partition function is convex: ∂²ℓ with negative entries has no distribution, nor a root."""
    spec = spec_of("granular", loss={"expression": loss})
    assert Derived(build_model(spec)).curvature.convexity == "not convex"
    with pytest.raises(DerivationError, match=kind):
        Derived(build_model(spec)).curvature.blocks(KINDS[kind])


def test_a_kind_that_is_asked_for_and_does_not_exist_is_refused() -> None:
    """By default it is left out of the module, by name it is an error."""
    spec = spec_of("selu_huber")
    operators = ("block_hessian",)
    text = compile_spec(spec, Request(method="none", operators=operators)).text
    assert '"empirical_fisher"' in text and '"fisher"' not in text
    with pytest.raises(DerivationError, match="fisher"):
        compile_spec(spec, Request(method="none", operators=operators, curvature=("fisher",)))


# ── shared parameters ─────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("operator", BLOCK_OPERATORS)
@pytest.mark.parametrize("backend", ["torch", "numba"])
@pytest.mark.parametrize("name", SHARED)
def test_shared_parameters_are_refused_with_the_layers_that_share(
    name: str, backend: str, operator: str
) -> None:
    """Every operator; the reason and a way out."""
    spec = spec_of(name)
    users = [layer.name for layer in spec.layers if layer.name == "fc1" or layer.share == "fc1"]
    with pytest.raises(DerivationError) as caught:
        compile_spec(spec, Request(backend=backend, method="none", operators=(operator,)))
    message = str(caught.value)
    assert sum(f"'{user}'" in message for user in users) >= 2, message
    assert "shared" in message and "hessian_vector_product" in message


@pytest.mark.parametrize("system", ["dense", "product", "moments", "diagonal"])
def test_systems_of_shared_weights_are_refused(system: str) -> None:
    """Not only by the operators."""
    curvature = Derived(build_model(spec_of("shared_skip"))).curvature
    arguments = {"dense": (True,), "product": (True, None), "moments": ("second",), "diagonal": ("samples",)}[
        system
    ]
    with pytest.raises(DerivationError, match="shared"):
        getattr(curvature, system)(*arguments)


def test_every_layer_of_the_cases_is_compared() -> None:
    """The blocks cover the layers that own parameters."""
    for name in ("skip", "skip_pre_activation", "separate_activation"):
        values, _ = case(name)
        found = values.blocks(KINDS["hessian"])
        assert {layer.name for layer in owners(values.model.spec)} <= set(found)


def test_a_flat_direction_is_no_proof_against_convexity() -> None:
    """A square of one number of many: eigenvalues that are zero are not negative."""
    spec = spec_of("granular", loss={"expression": "(sum(y) - sum(t))**2"})
    assert Derived(build_model(spec)).curvature.convexity == "undecided"
