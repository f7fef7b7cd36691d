"""Operators on curvature blocks in generated Torch and Numba modules, against torch.func and dense algebra.

Numba modules run with the JIT off, one compiled.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numba
import numpy as np
import pytest
import torch
from cases import CASES, ONE_AXIS
from curvature_modules import Calls, Expected, kinds_of, load, rounded
from curvature_oracle import assert_close, point_for
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from sampled import one_in
from strategies import specs

from sifrc.derive.derived import Derived
from sifrc.errors import DerivationError
from sifrc.model import build_model
from sifrc.spec import Spec, build_spec

BACKENDS = ("torch", "numba")
BATCH = 4
RANDOM = settings(
    # To shrink an example would compile hundreds of modules.
    phases=(Phase.explicit, Phase.generate),
    deadline=None,
    derandomize=True,
    print_blob=True,
    suppress_health_check=list(HealthCheck),
)
OVERRIDES = [
    "hessian",
    "ggn",
    "kfra",
    "pch1",
    {"name": "pch2_positive", "kind": "pch2", "output": "positive"},
    {"name": "pch_each", "kind": "pch1", "expectation": False},
    {"name": "hessian_clipped", "kind": "hessian", "residual": "clipped"},
    {"name": "mean_hessian", "kind": "hessian", "expectation": True},
]
"""Kinds with a block for every sample and for the batch, each with rewrites."""

NAMED = (
    "skip",
    "skip_pre_activation",
    "no_bias",
    "bounded",
    "spectral_smooth",
    "reduction_sum",
    "output_softplus",
    "mixed_loss",
)


@pytest.fixture(autouse=True)
def jit_off(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Numba's compiler off, except for the test of compiled modules."""
    monkeypatch.setattr(numba.config, "DISABLE_JIT", int("compiled" not in request.node.name))


def spec_of(name: str, **changes: Any) -> Spec:
    return build_spec({**CASES[name], **changes})


def own_parameters(data: dict[str, Any]) -> dict[str, Any]:
    """The network with a weight of its own for every layer that shares one."""
    units = {layer["name"]: layer["units"] for layer in data["network"]["layers"] if "units" in layer}
    layers = [
        {**{k: v for k, v in layer.items() if k != "share"}, "units": units[layer["share"]]}
        if "share" in layer
        else layer
        for layer in data["network"]["layers"]
    ]
    return {**data, "network": {**data["network"], "layers": layers}}


def agree(
    spec: Spec,
    module: ModuleType,
    point: Any,
    dtype: str = "float64",
    relative: float = 1e-9,
    products: bool = True,
) -> None:
    """Every operator, kind and argument of the module agrees with the oracle.

    ``products`` says whether those with moments in place of the inputs are among them.
    """
    call, expected = Calls(module, point, dtype), Expected(spec, point)
    for name, kind in kinds_of(spec, module).items():
        numbers = call.drawn(spec, 0) if kind.source == "sampled" else None
        mean = expected.mean(kind, numbers)
        for dense in (False, True):
            found = call("block_hessian", kind=name, dense=dense)
            assert_close(found, expected.block_hessian(kind, mean, dense, numbers), relative)
        for moment in ("second", "mean"):
            found = call("curvature_factors", kind=name, moment=moment)
            assert_close(found, expected.factors(mean, moment), relative)
            if products:
                found = call("block_vector_product", kind=name, moment=moment)
                assert_close(found, expected.product(kind, mean, moment), relative)
        product = expected.product(kind, mean, numbers=numbers)
        assert_close(call("block_vector_product", kind=name), product, relative)
        each = expected.each(kind, numbers)
        assert (each is None) == kind.expectation
        if each is not None:
            assert_close(call("block_vector_product", kind=name, moment="exact"), product, relative)
            found = call("block_hessian", kind=name, reduction="none")
            assert_close(
                found,
                {f"{layer.name}.bias": each[layer.name] for layer in expected.layers if layer.bias},
                relative,
            )
    assert_close(call("hessian_diagonal"), expected.diagonal(), relative)
    if "hessian" in module._KINDS:
        assert_close(call("block_hessian", dense=True), expected.exact_dense(), relative)


# ── random networks ───────────────────────────────────────────────────────────────────────────────────


def refused_if_shared(data: dict[str, Any]) -> None:
    """Weights that two layers use have no block."""
    spec = build_spec(data)
    if any(layer.share is not None for layer in spec.layers):
        with pytest.raises(DerivationError, match="shared"):
            Derived(build_model(spec)).curvature.moments("second")


def random_network(data: dict[str, Any], seed: int, backends: tuple[str, ...], folder: Path) -> None:
    refused_if_shared(data)
    spec = build_spec(own_parameters(data))
    point = point_for(spec, seed, BATCH)
    for backend in backends:
        agree(spec, load(spec, backend, folder), point)


@given(data=specs(), seed=st.integers(0, 2**16))
@settings(RANDOM, max_examples=3)
def test_modules_of_random_networks(data: dict[str, Any], seed: int, tmp_path_factory: Any) -> None:
    """All operators and kinds of both backends."""
    random_network(data, seed, BACKENDS, tmp_path_factory.mktemp("random"))


@pytest.mark.slow
@given(data=specs(), seed=st.integers(0, 2**16))
@settings(RANDOM, max_examples=100)
def test_modules_of_many_random_networks(data: dict[str, Any], seed: int, tmp_path_factory: Any) -> None:
    """The same on many more."""
    random_network(data, seed, BACKENDS, tmp_path_factory.mktemp("many"))


@pytest.mark.slow
def test_compiled_numba_modules(tmp_path: Path) -> None:
    """With the JIT on: classes and vectors, every kind; a network without biases."""
    for name in ("skip", "no_bias", "sigmoid_binary"):
        spec = spec_of(name)
        agree(spec, load(spec, "numba", tmp_path), point_for(spec, 5, BATCH))


HEAVY = """
import json
import sys
from sifrc.compiler import Request, compile_spec
from sifrc.spec import build_spec

compile_spec(build_spec(json.loads(sys.argv[1])), Request(method="none", operators=("block_hessian",)))
"""


@pytest.mark.slow
@pytest.mark.parametrize("units", [1, 3])
def test_an_activation_at_the_output_compiles_in_seconds(units: int) -> None:
    """Its slopes multiply the terms of ∂²ℓ: products of many factors."""
    layer = {"name": "fc1", "type": "dense", "units": units, "activation": "tanh"}
    data = {
        "sifrc": 1,
        "name": "heavy",
        "network": {"input": {"name": "image", "size": units}, "layers": [layer]},
        "loss": "bounded",
    }
    root = Path(__file__).resolve().parents[2]
    subprocess.run([sys.executable, "-c", HEAVY, json.dumps(data)], check=True, cwd=root, timeout=25)


# ── named networks ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", ("skip", "reduction_sum", "no_bias"))
def test_presets(name: str, backend: str, tmp_path: Path) -> None:
    """A skip, a sum over the batch (moments do not grow with it), and layers without biases."""
    spec = spec_of(name)
    agree(spec, load(spec, backend, tmp_path), point_for(spec, 5, BATCH))


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", [name for name in ONE_AXIS if "shared" not in name])
def test_presets_of_every_case(name: str, backend: str, tmp_path: Path) -> None:
    """Every named case but those of states with several axes, which have oracles of their own."""
    spec = spec_of(name)
    agree(spec, load(spec, backend, tmp_path), point_for(spec, 5, BATCH))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", one_in(2, NAMED))
def test_overrides(name: str, backend: str, tmp_path: Path) -> None:
    """Kinds of the spec's own, for samples and for the batch."""
    spec = spec_of(name, curvature=OVERRIDES)
    agree(spec, load(spec, backend, tmp_path), point_for(spec, 5, BATCH))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", ["skip", "reduction_sum"])
def test_parts_of_a_batch(name: str, backend: str, tmp_path: Path) -> None:
    """Parts of two samples (the last of one) give what the whole batch gives."""
    spec = spec_of(name)
    module = load(spec, backend, tmp_path)
    module._ROWS = 2
    agree(spec, module, point_for(spec, 5, 5), products=False)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("rows", [2, 4, 5])
def test_no_more_samples_at_a_time_than_there_is_memory_for(rows: int, backend: str, tmp_path: Path) -> None:
    """Parts in order, their results weighted by their sizes; all at once where there is no block for each."""
    module = load(spec_of("skip"), backend, tmp_path)
    inputs, targets, seen = np.arange(15.0).reshape(5, 3), np.arange(5) % 2, []

    def part(some: Any, *_: Any) -> dict[str, Any]:
        values = some.x[0] if backend == "numba" else some
        seen.append([int(value) // 3 for value in values[:, 0]])
        return {"mean": values.mean(0)}

    given = (inputs, targets) if backend == "numba" else (torch.from_numpy(inputs), torch.from_numpy(targets))
    found = module._averaged(part, *given, rows)
    assert seen == [list(range(k, min(k + rows, 5))) for k in range(0, 5, rows)]
    np.testing.assert_allclose(np.asarray(found["mean"]), [6.0, 7.0, 8.0], rtol=1e-14)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("moment", ["second", "mean"])
def test_products_with_moments_of_parts_of_a_batch(moment: str, backend: str, tmp_path: Path) -> None:
    """H̄ V E[x xᵀ]: both means are over the whole batch, not over a part of it."""
    spec = spec_of("skip", curvature=["ggn", "kfra"])
    module = load(spec, backend, tmp_path, ("block_vector_product",))
    module._ROWS = 2
    point = point_for(spec, 5, 5)
    call, expected = Calls(module, point), Expected(spec, point)
    for name, kind in kinds_of(spec, module).items():
        found = call("block_vector_product", kind=name, moment=moment)
        assert_close(found, expected.product(kind, expected.mean(kind), moment))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("batch", [1, 2, 16])
@pytest.mark.parametrize("loss", ["cross_entropy", "squared_error"])
def test_fisher_blocks_are_gauss_newton_blocks(loss: str, batch: int, backend: str, tmp_path: Path) -> None:
    """Of biases and weights, their products and those of samples: at every batch size, not of one alone."""
    spec = spec_of("tanh_cross_entropy_3", loss=loss, curvature=["fisher", "ggn"])
    module = load(spec, backend, tmp_path, ("block_hessian", "block_vector_product", "curvature_factors"))
    call = Calls(module, point_for(spec, 5, batch))
    for choices in ({"dense": True}, {"reduction": "none"}):
        found, expected = (call("block_hessian", kind=kind, **choices) for kind in ("fisher", "ggn"))
        assert_close(found, expected)
    exact, known = (call("block_vector_product", kind=kind) for kind in ("fisher", "ggn"))
    assert_close(exact, known)
    assert_close(call("block_vector_product", kind="fisher", moment="exact"), exact, 0)
    # What is a product of means is another number, and says so.
    means = call("block_vector_product", kind="fisher", moment="second")
    far = max(np.abs(means[key] - exact[key]).max() / np.abs(exact[key]).max() for key in exact)
    assert far < 1e-12 if batch == 1 else far > 1e-3
    assert "approximates" in (module.curvature_factors.__doc__ or "")


def test_docstrings_name_the_approximations(calls: Calls) -> None:
    """Which kinds have a product of means for the block of a weight, and which do not."""
    text = " ".join((calls.module.block_hessian.__doc__ or "").split())
    assert "of kfra the product of means H̄ ⊗ E[x xᵀ], an approximation" in text


def chain(sizes: list[int], loss: Any) -> Spec:
    """Linear layers on three inputs."""
    layers = [{"name": f"fc{k}", "type": "dense", "units": n} for k, n in enumerate(sizes, start=1)]
    network = {"input": {"name": "image", "size": 3}, "layers": layers}
    return build_spec({"sifrc": 1, "name": "linear", "network": network, "loss": loss, "dtype": "float64"})


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("sizes", [[2], [4, 2], [4, 3, 2]], ids=str)
def test_blocks_that_are_the_same_for_every_sample(sizes: list[int], backend: str, tmp_path: Path) -> None:
    """Linear layers and squared error: nothing in the recursion has a sample axis; means are not smaller."""
    spec = chain(sizes, "squared_error")
    agree(spec, load(spec, backend, tmp_path), point_for(spec, 5, BATCH))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("loss", ["bounded", "cross_entropy", "squared_error"])
def test_one_output(loss: str, backend: str, tmp_path: Path) -> None:
    """One unit, one class: axes of size one stay axes."""
    spec = chain([1], loss)
    agree(spec, load(spec, backend, tmp_path), point_for(spec, 5, BATCH))


@pytest.mark.parametrize("backend", BACKENDS)
def test_one_sample(backend: str, tmp_path: Path) -> None:
    """A batch of one."""
    spec = spec_of("skip")
    agree(spec, load(spec, backend, tmp_path), point_for(spec, 5, 1))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", ["skip", "sigmoid_binary"])
def test_single_precision(name: str, backend: str, tmp_path: Path) -> None:
    """Arguments and results are float32, and as close as that allows."""
    spec = spec_of(name, dtype="float32")
    point = rounded(point_for(spec, 5, BATCH), "float32")
    agree(spec, load(spec, backend, tmp_path), point, "float32", 3e-4)


# ── random numbers ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", ["skip", "sigmoid_binary"])
def test_seeds(name: str, backend: str, tmp_path: Path) -> None:
    """The same seed gives the same draws in every operator, the default is 0, another seed others."""
    spec = spec_of(name, curvature=["sampled_fisher", "hessian"])
    module = load(spec, backend, tmp_path, ("block_hessian", "curvature_factors", "block_vector_product"))
    point = point_for(spec, 5, 6)
    call, expected = Calls(module, point), Expected(spec, point)
    kind = kinds_of(spec, module)["sampled_fisher"]
    first = call("block_hessian", kind="sampled_fisher")
    state = torch.get_rng_state()
    assert_close(call("block_hessian", kind="sampled_fisher", seed=0), first, 0)
    assert torch.equal(torch.get_rng_state(), state)  # the global generator is not touched
    third = call("block_hessian", kind="sampled_fisher", seed=3)
    assert any(np.abs(third[key] - first[key]).max() > 1e-3 for key in first)
    numbers = call.drawn(spec, 3)
    mean = expected.mean(kind, numbers)
    assert_close(third, expected.block_hessian(kind, mean, numbers=numbers))
    assert_close(call("curvature_factors", kind="sampled_fisher", seed=3), expected.factors(mean, "second"))
    found = call("block_vector_product", kind="sampled_fisher", seed=3)
    assert_close(found, expected.product(kind, mean, numbers=numbers))
    assert_close(call("block_hessian", kind="hessian", seed=3), call("block_hessian", kind="hessian"), 0)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_drawn_classes_have_the_frequencies_of_softmax(backend: str, dtype: str, tmp_path: Path) -> None:
    """One layer: the block is mean (p − e_c)(p − e_c)ᵀ, whose expectation is diag p − p pᵀ."""
    spec = spec_of("one_layer", loss="cross_entropy", curvature=["sampled_fisher", "fisher"], dtype=dtype)
    module = load(spec, backend, tmp_path, ("block_hessian",))
    point, many = rounded(point_for(spec, 5, 1), dtype), 40_000
    repeated = type(point)(
        point.params, np.repeat(point.inputs, many, 0), np.repeat(point.targets, many, 0), point.vector
    )
    call = Calls(module, repeated, dtype)
    p = torch.softmax(Expected(spec, point).oracle.outputs, dim=1).numpy()[0]
    expected = np.diag(p) - np.outer(p, p)
    # Sums of so many numbers in float32, one after the other, lose three digits.
    rounding = 1e-9 if dtype == "float64" else 2e-3
    assert_close(call("block_hessian", kind="fisher"), {"fc1.bias": expected}, rounding)
    found = call("block_hessian", kind="sampled_fisher", seed=8)["fc1.bias"]
    outers = [np.outer(p - e, p - e) for e in np.eye(len(p))]
    variance = sum(w * (o - expected) ** 2 for w, o in zip(p, outers, strict=True))
    assert np.all(np.abs(found - expected) <= 5 * np.sqrt(variance / many) + rounding * p.max())


# ── arguments ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module", params=BACKENDS)
def calls(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Calls:
    """A module of presets and an own kind."""
    kinds = ["hessian", "kfra", "fisher", {"name": "mine", "kind": "pch1", "expectation": False}]
    spec = spec_of("skip", curvature=kinds)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(numba.config, "DISABLE_JIT", 1)
        module = load(spec, request.param, tmp_path_factory.mktemp("arguments"))
    return Calls(module, point_for(spec, 5, BATCH))


@pytest.mark.parametrize("operator", ["block_hessian", "curvature_factors", "block_vector_product"])
def test_a_kind_that_the_module_lacks_is_refused_with_those_it_has(operator: str, calls: Calls) -> None:
    """A preset that was not asked for too."""
    for kind in ("nonsense", "ggn"):
        with pytest.raises(ValueError, match=kind) as caught:
            calls(operator, kind=kind)
        assert all(f"'{name}'" in str(caught.value) for name in ("hessian", "kfra", "fisher", "mine"))


IMPOSSIBLE: tuple[tuple[str, dict[str, Any], str, str], ...] = (
    ("block_hessian", {"reduction": "sum"}, "reduction", "mean"),
    ("block_hessian", {"kind": "kfra", "reduction": "none"}, "reduction", "mean"),
    ("block_hessian", {"kind": "fisher", "reduction": "none", "dense": True}, "dense", "mean"),
    ("block_hessian", {"reduction": "none", "dense": True}, "dense", "mean"),
    ("curvature_factors", {"moment": "third"}, "moment", "second"),
    ("curvature_factors", {"moment": "exact"}, "moment", "second"),
    ("curvature_factors", {"kind": "kfra", "moment": "none"}, "moment", "second"),
    ("block_vector_product", {"moment": "third"}, "moment", "exact"),
    ("block_vector_product", {"kind": "kfra", "moment": "exact"}, "moment", "second"),
)


@pytest.mark.parametrize("operator, choices, argument, possible", IMPOSSIBLE, ids=str)
def test_arguments_that_do_not_go_with_the_kind_are_refused(
    operator: str, choices: dict[str, Any], argument: str, possible: str, calls: Calls
) -> None:
    """The message names the kind, the argument and what it got, and what would be accepted."""
    with pytest.raises(ValueError) as caught:
        calls(operator, **choices)
    message = str(caught.value)
    assert choices.get("kind", "hessian") in message
    assert argument in message and repr(choices[argument]) in message
    assert f"'{possible}'" in message
    # Single samples have choices that the batch alone has not: both lists are there.
    if operator != "curvature_factors":
        assert "kinds of single samples: " in message and "; other kinds: " in message


def test_a_vector_of_another_shape_is_refused(calls: Calls) -> None:
    """By name."""
    vector = {**calls.point.vector, "fc2.weight": np.zeros((2, 2))}
    with pytest.raises(ValueError, match=r"fc2\.weight"):
        calls("block_vector_product", vector=vector)
    missing = {key: value for key, value in calls.point.vector.items() if key != "fc1.bias"}
    with pytest.raises(ValueError, match=r"fc1\.bias"):
        calls("block_vector_product", vector=missing)


def test_arguments_are_not_changed_and_results_do_not_share_memory(calls: Calls) -> None:
    """Two results of one module are independent of each other."""
    first = calls("curvature_factors", kind="kfra")
    kept = {key: value.copy() for key, value in first.items()}
    calls("curvature_factors", kind="hessian", moment="mean")
    assert_close(first, kept, 0)
    given = [calls.own(v) for v in (calls.point.params, calls.point.inputs, calls.point.targets)]
    before = [calls.own(v) for v in (calls.point.params, calls.point.inputs, calls.point.targets)]
    calls.module.block_hessian(*given)
    for after, was in zip(given[1:], before[1:], strict=True):
        assert (after == was).all()
    assert all((given[0][key] == before[0][key]).all() for key in given[0])


def test_the_first_kind_is_the_default(calls: Calls) -> None:
    assert_close(calls("block_hessian"), calls("block_hessian", kind="hessian"), 0)


def test_the_diagonal_needs_the_hessian(tmp_path: Path) -> None:
    """Asking for it with other kinds alone is an error when compiling."""
    from sifrc.errors import MethodError

    for backend in BACKENDS:
        with pytest.raises(MethodError, match="hessian"):
            load(spec_of("skip", curvature=["ggn"]), backend, tmp_path, ("hessian_diagonal",))


@pytest.mark.parametrize("operator", ["block_hessian", "curvature_factors", "block_vector_product"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_an_operator_alone_with_one_kind(backend: str, operator: str, tmp_path: Path) -> None:
    """Modules have what one operator needs, whether the kind is of samples or of the batch."""
    for name in ("ggn", "kfra", "empirical_fisher"):
        spec = spec_of("tanh_cross_entropy_2", curvature=[name])
        module = load(spec, backend, tmp_path, (operator,))
        point = point_for(spec, 5, BATCH)
        call, expected = Calls(module, point), Expected(spec, point)
        kind = kinds_of(spec, module)[name]
        mean = expected.mean(kind)
        wanted = {
            "block_hessian": lambda: expected.block_hessian(kind, mean),
            "curvature_factors": lambda: expected.factors(mean, "second"),
            "block_vector_product": lambda: expected.product(kind, mean),
        }[operator]()
        assert_close(call(operator), wanted)
