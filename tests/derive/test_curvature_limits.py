"""Where each approximation of the curvature is exact, as ``EXACT_WHEN`` states, and definite where claimed.

Kinds are built as users build them: entries of the spec key ``curvature``.
"""

from __future__ import annotations

from functools import cache
from itertools import product
from typing import Any

import numpy as np
import pytest
from cases import CASES, ONE_AXIS
from curvature_oracle import Oracle, assert_close, means, point_for
from curvature_values import Values

from sifrc.derive.curvature.kinds import EXACT_WHEN, KINDS, Kind, kind_of
from sifrc.spec import Spec, build_spec
from sifrc.verify.points import Point


def spec_of(name: str, **changes: Any) -> Spec:
    return build_spec({**CASES[name], **changes})


def chain(sizes: list[int], activation: Any, loss: Any, last: Any = None, **more: Any) -> Spec:
    """3 → sizes, an activation on every layer but the last."""
    layers: list[dict[str, Any]] = []
    for k, units in enumerate(sizes, start=1):
        layer = {"name": f"fc{k}", "type": "dense", "units": units}
        own = activation if k < len(sizes) else last
        layers.append(layer if own is None else {**layer, "activation": own})
    return build_spec(
        {
            "sifrc": 1,
            "name": "limits",
            "network": {"input": {"name": "image", "size": 3}, "layers": layers},
            "loss": loss,
            "dtype": "float64",
            **more,
        }
    )


def kinds_of(*entries: Any) -> list[Kind]:
    """Kinds as entries of a spec."""
    return [kind_of(c) for c in spec_of("skip", curvature=list(entries)).curvature]


def override(preset: str, **changes: Any) -> Kind:
    (kind,) = kinds_of({"name": "mine", "kind": preset, **changes})
    return kind


EXPECTED = override("hessian", expectation=True)
"""The Hessian with the expectation approximation alone."""


def mean_blocks(spec: Spec, kind: Kind, point: Point) -> dict[str, np.ndarray]:
    blocks = Values(spec, point).blocks(kind)
    return blocks if kind.expectation or kind.factored else means(blocks)


def dense_weights(spec: Spec, kind: Kind, point: Point) -> dict[str, np.ndarray]:
    values = Values(spec, point)
    moments = (values.derived.curvature.moments("second"),) if kind.form == "batch" else ()
    found = values.after(kind, *moments, values.derived.curvature.dense(kind.form))
    result = {}
    for owned in values.model.parameters:
        block = found["∇²W", owned.index]
        size = block.shape[0] * block.shape[1]
        result[f"{owned.layer}.weight"] = block.reshape(size, size)
    return result


def same(spec: Spec, left: Kind, right: Kind, batch: int = 5, seed: int = 2) -> None:
    point = point_for(spec, seed, batch)
    assert_close(mean_blocks(spec, left, point), mean_blocks(spec, right, point))


def differ(spec: Spec, left: Kind, right: Kind, batch: int = 5, seed: int = 2) -> None:
    """So that the conditions of a limit matter: outside of it the kinds are not the same."""
    point = point_for(spec, seed, batch)
    first, second = mean_blocks(spec, left, point), mean_blocks(spec, right, point)
    assert max(np.abs(first[n] - second[n]).max() for n in first) > 1e-6


# ── expectation ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", ONE_AXIS)
def test_with_one_sample_the_expectation_approximation_is_exact(name: str) -> None:
    """KFRA is then the Gauss–Newton block, and the rewrite alone changes nothing in the Hessian."""
    spec = spec_of(name)
    values = Values(spec, point_for(spec, 2, 1))
    for expected, exact in ((KINDS["kfra"], KINDS["ggn"]), (EXPECTED, KINDS["hessian"])):
        assert_close(values.blocks(expected), means(values.blocks(exact)))


@pytest.mark.parametrize("preset", ["pch1", "pch2"])
@pytest.mark.parametrize("name", ["skip", "bounded", "skip_pre_activation", "spectral_smooth"])
def test_with_one_sample_pch_is_the_same_with_and_without_it(name: str, preset: str) -> None:
    same(spec_of(name), KINDS[preset], override(preset, expectation=False), batch=1)


@pytest.mark.parametrize("name", ["skip", "tanh_cross_entropy_3", "gelu", "no_bias"])
def test_with_one_sample_blocks_of_weights_are_exact_too(name: str) -> None:
    """H̄ ⊗ A is the dense Hessian's block."""
    spec = spec_of(name)
    point = point_for(spec, 2, 1)
    found = dense_weights(spec, EXPECTED, point)
    dense = Oracle(spec, point).dense()
    assert_close(found, {key: dense[key] for key in found})


LOSSES = (
    "squared_error",
    "cross_entropy",
    "binary_cross_entropy",
    "bounded",
    {"expression": "sum((y-t)**4)"},
)


@pytest.mark.parametrize("last", [None, "tanh", "softplus"])
@pytest.mark.parametrize("loss", LOSSES, ids=str)
def test_one_layer_has_an_exact_bias_block(loss: Any, last: Any) -> None:
    """The block of the output is the batch mean of the exact ones, its activation in it."""
    spec = chain([3], None, loss, last)
    same(spec, EXPECTED, KINDS["hessian"])
    same(spec, KINDS["kfra"], KINDS["ggn"])


def test_one_linear_layer_has_an_exact_weight_block_only_if_the_curvature_is_constant() -> None:
    """H̄ ⊗ A: squared error yes, cross-entropy no (MATH: exact iff ∂²ℓ does not depend on the sample)."""
    for loss, exact in (("squared_error", True), ("mse", True), ("cross_entropy", False)):
        spec = chain([3], None, loss)
        point = point_for(spec, 2, 5)
        found, dense = dense_weights(spec, EXPECTED, point), Oracle(spec, point).dense()
        error = np.abs(found["fc1.weight"] - dense["fc1.weight"]).max()
        assert error < 1e-12 if exact else error > 1e-4


LINEAR_SKIP = {
    **CASES["skip"],
    "network": {
        "input": {"name": "image", "size": 3},
        "layers": [
            {"name": "fc1", "type": "dense", "units": 4},
            {"name": "fc2", "type": "dense", "units": 4},
            {"name": "sum1", "type": "add", "inputs": ["fc1", "fc2"]},
            {"name": "fc3", "type": "dense", "units": 2},
        ],
    },
}


@pytest.mark.parametrize("loss", LOSSES, ids=str)
def test_linear_networks_have_exact_bias_blocks(loss: Any) -> None:
    """Slopes are one for every sample: H_k is linear in ∂²ℓ, whatever the loss; with a skip too."""
    for spec in (
        chain([4, 2, 3], None, loss, regularization={"state": 0.3}),
        build_spec({**LINEAR_SKIP, "loss": loss}),
    ):
        point = point_for(spec, 2, 5)
        same(spec, EXPECTED, KINDS["hessian"])
        found = mean_blocks(spec, EXPECTED, point)
        exact = means(Oracle(spec, point).exact())
        assert_close(found, {n: exact[n] for n in found})


def test_linear_networks_with_squared_error_have_exact_weight_blocks() -> None:
    """∂²ℓ is constant."""
    spec = build_spec({**LINEAR_SKIP, "loss": "squared_error"})
    point = point_for(spec, 2, 5)
    found, dense = dense_weights(spec, EXPECTED, point), Oracle(spec, point).dense()
    assert_close(found, {key: dense[key] for key in found})


def test_inputs_that_are_the_same_for_all_samples_make_blocks_of_weights_exact() -> None:
    """Copies of one input with different targets: H differs from sample to sample, x xᵀ does not."""
    spec = spec_of("tanh_cross_entropy_3")
    point = point_for(spec, 2, 5)
    copies = type(point)(point.params, np.repeat(point.inputs[:1], 5, 0), point.targets, point.vector)
    assert len(set(point.targets.tolist())) > 1
    found, dense = dense_weights(spec, EXPECTED, copies), Oracle(spec, copies).dense()
    assert_close(found, {key: dense[key] for key in found})


def test_slopes_that_are_the_same_for_all_samples_make_it_exact() -> None:
    """Leaky ReLU with copies of one input and different targets: F' is the same, ∂²ℓ is not."""
    spec = chain([4, 2, 3], "leaky_relu", {"expression": "sum((y - t)**4)/4"})
    point = point_for(spec, 2, 5)
    copies = Point(point.params, np.repeat(point.inputs[:1], 5, 0), point.targets, point.vector)
    assert_close(mean_blocks(spec, EXPECTED, copies), mean_blocks(spec, KINDS["hessian"], copies))


def test_it_is_an_approximation_elsewhere() -> None:
    """Two layers with a curved activation: KFRA is not the Gauss–Newton block."""
    spec = chain([4, 3], "tanh", "cross_entropy")
    differ(spec, KINDS["kfra"], KINDS["ggn"])
    differ(spec, EXPECTED, KINDS["hessian"])


# ── residual ──────────────────────────────────────────────────────────────────────────────────────────

AFFINE = (
    "relu",
    {"function": "leaky_relu", "parameters": {"slope": 0.1}},
    {"expression": "where(x > c, 2*x, x/2)", "parameters": {"c": 0.1}},
    "identity",
)


@pytest.mark.parametrize("activation", AFFINE, ids=str)
@pytest.mark.parametrize("residual", ["dropped", "absolute", "clipped"])
def test_piecewise_affine_activations_have_no_residual(activation: Any, residual: str) -> None:
    """Kept, dropped or rewritten: the same."""
    spec = chain([4, 3, 2], activation, "bounded", regularization={"state": 0.2})
    same(spec, override("hessian", residual=residual), KINDS["hessian"])
    same(spec, override("pch1", residual=residual, output="kept"), EXPECTED)
    same(spec, KINDS["pch1"], KINDS["pch2"])


@pytest.mark.parametrize("residual", ["absolute", "clipped"])
@pytest.mark.parametrize("expectation", [False, True])
def test_residuals_that_are_not_negative_stay(residual: str, expectation: bool) -> None:
    """softplus'' > 0, positive weights and a loss that grows: F'' ∘ Wᵀ∂ℓ ≥ 0."""
    spec = chain([4, 3, 2], "softplus", {"expression": "sum(softplus(y)*t)"})
    point = point_for(spec, 2, 5)
    positive = Point({n: np.abs(v) for n, v in point.params.items()}, point.inputs, point.targets, {})
    positive = Point(positive.params, point.inputs, point.targets, point.vector)
    kept = override("hessian", expectation=expectation)
    rewritten = override("hessian", expectation=expectation, residual=residual)
    assert_close(mean_blocks(spec, rewritten, positive), mean_blocks(spec, kept, positive))
    dropped = override("hessian", expectation=expectation, residual="dropped")
    found, without = mean_blocks(spec, kept, positive), mean_blocks(spec, dropped, positive)
    assert max(np.abs(found[n] - without[n]).max() for n in found) > 1e-3


def test_residuals_of_both_signs_change() -> None:
    """PCH-1, PCH-2 and the dropped residual are three different things with tanh."""
    spec = chain([4, 3, 2], "tanh", "cross_entropy")
    differ(spec, KINDS["pch1"], KINDS["pch2"])
    differ(spec, KINDS["pch2"], KINDS["kfra"])
    differ(spec, KINDS["pch1"], EXPECTED)


# ── output ────────────────────────────────────────────────────────────────────────────────────────────

CONVEX = (
    "squared_error",
    "cross_entropy",
    "binary_cross_entropy",
    "huber",
    {"expression": "sum((y-t)**4)/4"},
)


@pytest.mark.parametrize("loss", CONVEX, ids=str)
@pytest.mark.parametrize("output", ["absolute", "positive"])
def test_convex_losses_are_not_changed_by_the_rewrite_of_the_output(loss: Any, output: str) -> None:
    """Declared convex, or found by nobody not to be: the block has no negative eigenvalues."""
    for name in ("tanh_squared_error_3", "skip"):
        spec = spec_of(name, loss=loss)
        for preset in ("hessian", "ggn", "pch1"):
            kept = override(preset, output="kept")
            same(spec, override(preset, output=output), kept)


@pytest.mark.parametrize("preset", ["hessian", "ggn", "kfra", "pch1"])
def test_losses_that_are_not_convex_are_changed(preset: str) -> None:
    """``bounded`` has eigenvalues of both signs; absolute and positive differ from kept and each other."""
    spec = spec_of("bounded")
    kept, absolute, positive = (override(preset, output=o) for o in ("kept", "absolute", "positive"))
    differ(spec, kept, absolute)
    differ(spec, kept, positive)
    differ(spec, absolute, positive)


# ── Fisher ────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "name", ["skip", "tanh_cross_entropy_4", "tanh_squared_error_3", "sigmoid_binary", "separate_activation"]
)
def test_fisher_is_gauss_newton_for_negative_log_likelihoods(name: str) -> None:
    same(spec_of(name), KINDS["fisher"], KINDS["ggn"])


@pytest.mark.parametrize("batch", [1, 2, 7])
@pytest.mark.parametrize("name", ["skip", "tanh_cross_entropy_4", "sigmoid_binary"])
def test_fisher_blocks_of_weights_are_those_of_gauss_newton(name: str, batch: int) -> None:
    """For the batch, not for one sample alone: a mean of products."""
    spec = spec_of(name)
    point = point_for(spec, 2, batch)
    found, expected = (dense_weights(spec, KINDS[kind], point) for kind in ("fisher", "ggn"))
    assert_close(found, expected)


def test_fisher_is_something_else_for_other_losses() -> None:
    differ(spec_of("bounded"), KINDS["fisher"], KINDS["ggn"])


def test_every_stated_limit_has_tests_here() -> None:
    assert set(EXACT_WHEN) == {"expectation", "moment", "dropped", "residual", "output", "fisher"}


# ── definite and symmetric ────────────────────────────────────────────────────────────────────────────

NOT_CONVEX = (
    "bounded",
    "criterion",
    "skip",
    "skip_pre_activation",
    "mixed_loss",
    "output_tanh",
    "shared_skip",
)

COMBINED = tuple(
    override(preset, expectation=expectation, residual=residual, output=output)
    for preset, expectation, residual, output in product(
        ("hessian", "ggn"),
        (False, True),
        ("dropped", "absolute", "clipped"),
        ("absolute", "positive"),
    )
)


def definite(blocks: dict[str, np.ndarray]) -> None:
    for name, value in blocks.items():
        eigenvalues = np.linalg.eigvalsh((value + np.swapaxes(value, -1, -2)) / 2)
        assert eigenvalues.min() >= -1e-12 * max(1.0, np.abs(eigenvalues).max()), (name, eigenvalues.min())


@cache
def not_convex() -> tuple[Values, ...]:
    """Points of networks whose Hessians have eigenvalues of both signs."""
    networks = (bounded_skip(), *(spec_of(name) for name in NOT_CONVEX))
    return tuple(Values(spec, point_for(spec, seed, 4)) for spec in networks for seed in (0, 1))


def bounded_skip() -> Spec:
    return spec_of("skip", loss="bounded")


@pytest.mark.parametrize("kind", ["pch1", "pch2", "fisher", "sampled_fisher", "empirical_fisher"])
@pytest.mark.parametrize("seed", range(3))
def test_presets_that_claim_it_are_positive_semi_definite(kind: str, seed: int) -> None:
    """With skips, with a loss that is not convex, and blocks of weights too."""
    assert KINDS[kind].definite
    for spec in (bounded_skip(), spec_of("bounded"), spec_of("criterion")):
        point = point_for(spec, seed, 4)
        definite(mean_blocks(spec, KINDS[kind], point))
        definite(dense_weights(spec, KINDS[kind], point))


@pytest.mark.parametrize(
    "kind", COMBINED, ids=lambda k: f"{k.source}-{k.expectation}-{k.residual}-{k.output}"
)
def test_every_combination_that_claims_it_is_positive_semi_definite(kind: Kind) -> None:
    """Whatever the loss is, with or without the expectation approximation."""
    assert kind.definite
    for values in not_convex():
        definite(values.blocks(kind))


def test_the_hessian_and_ggn_claim_nothing_and_are_not_definite() -> None:
    """So that the tests above can fail."""
    spec = bounded_skip()
    for name in ("hessian", "ggn", "kfra"):
        assert not KINDS[name].definite
        with pytest.raises(AssertionError):
            for seed in range(4):
                definite(mean_blocks(spec, KINDS[name], point_for(spec, seed, 4)))


@pytest.mark.parametrize("name", NOT_CONVEX)
def test_blocks_are_symmetric(name: str) -> None:
    """Every kind that exists for the spec, for every sample."""
    spec = spec_of(name)
    values = Values(spec, point_for(spec, 1, 3))
    for kind in KINDS.values():
        if kind.source in ("fisher", "sampled") and spec.loss.targets == "vectors":
            continue
        for value in values.blocks(kind).values():
            scale = max(1.0, np.abs(value).max())
            assert np.abs(value - np.swapaxes(value, -1, -2)).max() <= 1e-14 * scale
