"""Convolutions and pooling: Torch's own layers, every operator at every level, and what does not exist."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numba
import pytest
from curvature_modules import load
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sifrc.compiler import Request, compile_spec
from sifrc.errors import BackendError, DerivationError, SpecError
from sifrc.spec import Spec, build_spec, parse_spec, spec_to_dict
from sifrc.verify.ladder import verify

torch = pytest.importorskip("torch")
F = torch.nn.functional

PLAIN = (
    "gradient",
    "hessian_vector_product",
    "gauss_newton_vector_product",
    "per_sample_gradients",
    "summary",
)
BLOCKS = ("block_hessian", "block_vector_product", "diagonal", "trace")
OUT = [{"name": "flat", "type": "flatten"}, {"name": "out", "type": "dense", "units": 2}]


def network(size: list[int], *layers: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A spec with these layers, a dense one at the end."""
    named = [{"name": f"layer{n}", **layer} for n, layer in enumerate(layers)]
    inside = {"input": {"name": "x", "size": size}, "layers": [*named, *OUT]}
    return {
        "sifrc": 1,
        "name": "windows",
        "network": inside,
        "loss": "cross_entropy",
        "dtype": "float64",
    } | more


def conv(channels: int, kernel: Any, activation: str = "tanh", **more: Any) -> dict[str, Any]:
    return {"type": "conv", "channels": channels, "kernel": kernel, "activation": activation, **more}


def average(kernel: Any, **more: Any) -> dict[str, Any]:
    return {"type": "pool", "function": "average", "kernel": kernel, **more}


def largest(kernel: Any, **more: Any) -> dict[str, Any]:
    return {"type": "pool", "function": "max", "kernel": kernel, **more}


NETWORKS: Mapping[str, dict[str, Any]] = {
    "lenet": network([1, 6, 6], conv(2, 3, padding=1), average(2), conv(3, 2, "softplus")),
    "one axis": network([2, 7], conv(3, 3, stride=2, padding=[[2, 1]]), average(2, stride=1, padding=1)),
    "three axes": network([1, 3, 2, 3], conv(2, [2, 1, 2], padding=[0, 1, 0])),
    "groups": network([4, 3, 3], conv(4, 2, groups=2), conv(2, 1, "elu", groups=2, bias=False)),
    "dilated": network([2, 5, 4], conv(2, [2, 3], dilation=[2, 1], padding=[1, [1, 2]])),
    "residual": network(
        [2, 3, 3],
        conv(2, 3, padding="same"),
        conv(2, 3, padding="same", inputs="x"),
        {"type": "add", "inputs": ["layer0", "layer1"], "activation": "tanh"},
    ),
    "largest": network([1, 5, 6], conv(2, 2, "relu"), largest(2), conv(2, [1, 2], "tanh")),
    "largest of some": network([2, 6], conv(2, 2, padding=[[1, 0]]), largest(3, stride=2, padding=1)),
    "shared": network([2, 4], conv(2, 3, padding="same"), {"type": "conv", "share": "layer0", "kernel": 3}),
}


def spec_of(name: str, **changes: Any) -> Spec:
    operators = [*PLAIN, *(BLOCKS if name != "shared" else ())]
    return build_spec({**NETWORKS[name], "target": {"backend": "torch", "operators": operators}, **changes})


SLOW = ("lenet", "one axis", "three axes", "groups", "residual", "dilated", "largest")


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] if n in SLOW else []) for n in NETWORKS]
)
def test_every_operator_at_every_level(name: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Derived equations, fifty digits, the modules; the oracle goes through windows entry by entry."""
    monkeypatch.setattr(numba.config, "DISABLE_JIT", 1)
    spec = spec_of(name)
    report = verify(spec, levels=(1, 2))
    assert report.passed, report.text()
    for backend, framework in (("torch", "torch"), ("numba", "numpy")):
        own = replace(spec, target=replace(spec.target, backend=backend))
        module = load(own, backend, tmp_path, spec.target.operators)
        report = verify(own, levels=(3,), module=SimpleNamespace(**vars(module)), framework=framework)
        assert report.passed, report.text()
        assert {row.quantity for row in report.rows if row.passed} >= set(spec.target.operators)


@pytest.mark.parametrize("residual", ["absolute", "clipped"])
def test_blocks_go_back_through_a_maximum(residual: str) -> None:
    """Kinds that are no derivative of anything: the oracle goes back with the entries that are largest."""
    overlapping = largest([2, 2], stride=1, padding=[0, 1])
    data = network([1, 2, 3], conv(2, 1), overlapping, conv(1, [1, 2], padding=[0, [1, 0]]))
    kind = {"name": "mine", "kind": "hessian", "residual": residual}
    spec = build_spec({**data, "curvature": [kind], "target": {"operators": ["block_hessian", "trace"]}})
    report = verify(spec, levels=(2,), quantities=("block_hessian", "trace"))
    assert report.passed, report.text()


def test_compiled_convolutions(tmp_path: Any) -> None:
    """The same through Numba's compiler, which wants to know every dimension."""
    data = network([1, 5, 4], conv(2, 3, padding=1, stride=[2, 1]), conv(2, [1, 2]))
    spec = build_spec(
        {**data, "target": {"backend": "numba", "operators": ["gradient", "hessian_vector_product"]}}
    )
    module = load(spec, "numba", tmp_path, spec.target.operators)
    report = verify(spec, levels=(3,), module=SimpleNamespace(**vars(module)), framework="numpy")
    assert report.passed, report.text()


def torch_network(spec: Spec) -> Any:
    """The output of a chain by Torch's own functions."""

    def run(params: Mapping[str, Any], x: Any) -> Any:
        for layer in spec.layers:
            axes = len(layer.shape) - 1
            if layer.window is not None:
                window = layer.window
                fill = float("-inf") if window.pooling == "max" else 0.0
                x = F.pad(x, [n for pair in reversed(window.padding) for n in pair], value=fill)
                if window.pooling == "max":
                    x = getattr(F, f"max_pool{axes}d")(x, window.kernel, window.stride)
                elif layer.kind == "pool":
                    x = getattr(F, f"avg_pool{axes}d")(x, window.kernel, window.stride)
                else:
                    bias = params.get(f"{layer.name}.bias")
                    more = {"stride": window.stride, "dilation": window.dilation, "groups": window.groups}
                    x = getattr(F, f"conv{axes}d")(x, params[f"{layer.name}.weight"], bias, **more)
                x = torch.tanh(x) if layer.activation is not None else x
            elif layer.kind == "flatten":
                x = x.flatten(1)
            else:
                x = x @ params[f"{layer.name}.weight"].T + params[f"{layer.name}.bias"]
        return x

    return run


@st.composite
def chains(draw: Any) -> dict[str, Any]:
    """One or two layers with any windows."""
    axes = draw(st.integers(1, 3))
    size = [
        draw(st.sampled_from([1, 2, 4])),
        *(draw(st.integers(3, 5 if axes < 3 else 3)) for _ in range(axes)),
    ]
    channels, places, layers = size[0], size[1:], []
    for _ in range(draw(st.integers(1, 2))):
        kernel = [draw(st.integers(1, min(3, n))) for n in places]
        stride = [draw(st.integers(1, 2)) for _ in places]
        padding = [draw(st.sampled_from([0, 1, [0, 1], [2, 0]])) for _ in places]
        if draw(st.booleans()):
            groups = draw(st.sampled_from([g for g in (1, 2) if channels % g == 0]))
            dilation = [draw(st.integers(1, 2)) if k < 3 else 1 for k in kernel]
            channels = 2 * draw(st.integers(1, 2))
            more = {"dilation": dilation, "groups": groups, "bias": draw(st.booleans())}
            layers.append(conv(channels, kernel, stride=stride, padding=padding, **more))
        else:
            pool = draw(st.sampled_from([average, largest]))
            padding = (
                padding
                if pool is average
                else [0 if k == 1 else draw(st.sampled_from([0, 1])) for k in kernel]
            )
            layers.append(pool(kernel, stride=stride, padding=padding))
    return network(size, *layers)


@given(data=chains(), seed=st.integers(0, 99))
@settings(
    deadline=None, derandomize=True, max_examples=25, suppress_health_check=list(HealthCheck), print_blob=True
)
def test_torch_computes_the_same(data: dict[str, Any], seed: int, tmp_path_factory: Any) -> None:
    """Outputs, gradients and products with the Hessian, for any stride, padding, dilation and groups."""
    try:
        spec = build_spec(data)
    except SpecError as error:
        assert "does not fit into axis" in str(error)
        return
    compare_with_torch(spec, seed, tmp_path_factory.mktemp("windows"))


@pytest.mark.parametrize(
    "size, layer",
    [
        ([1, 1], conv(2, 1, stride=3, padding=[[2, 0]])),
        ([2, 2], conv(2, 1, stride=5, padding=[[3, 0]])),
        ([1, 1, 3], conv(2, [1, 2], stride=[3, 1], padding=[[2, 0], 1])),
    ],
)
def test_windows_of_nothing_but_padding(size: list[int], layer: dict[str, Any], tmp_path: Any) -> None:
    """More of the image is cut than it has: it is padded first."""
    before = {"type": "conv", "channels": size[0], "kernel": 1, "activation": "tanh"}
    compare_with_torch(build_spec(network(size, before, layer)), 0, tmp_path)


def compare_with_torch(spec: Spec, seed: int, folder: Any) -> None:
    """Outputs, a gradient and a product with the Hessian against Torch's layers and derivatives."""
    operators = ("gradient", "hessian_vector_product")
    module = load(spec, "torch", folder, operators)
    generator = torch.Generator().manual_seed(seed)

    def drawn(*shape: int) -> Any:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    params, vector = ({name: drawn(*shape) for name, shape in module.SHAPES.items()} for _ in range(2))
    x, t = drawn(3, *spec.input.shape), torch.tensor([0, 1, 1])
    run = torch_network(spec)
    torch.testing.assert_close(module.predict(params, x), run(params, x), rtol=1e-11, atol=1e-11)

    def loss(values: Mapping[str, Any]) -> Any:
        return F.cross_entropy(run(values, x), t)

    expected, product = torch.func.jvp(torch.func.grad(loss), (params,), (vector,))
    torch.testing.assert_close(module.gradient(params, x, t), expected, rtol=1e-10, atol=1e-11)
    torch.testing.assert_close(
        module.hessian_vector_product(params, x, t, vector), product, rtol=1e-10, atol=1e-11
    )


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_all_three_forms_are_functions_of_torch(axes: int) -> None:
    """Forward, transposed, gradients of kernels; padding that is the same on both sides is their argument."""
    data = network([2, *[4] * axes], conv(2, 3, padding=1), conv(3, 2))
    request = Request(backend="torch", method="none", operators=("gradient",))
    text = compile_spec(build_spec(data), request).text
    functions = f"functional.conv{axes}d(", f"functional.conv_transpose{axes}d(", f"grad.conv{axes}d_weight("
    for function, count in zip(functions, (2, 1, 2), strict=True):
        assert text.count(function) == count
    assert "functional.pad(" not in text


def test_a_module_of_the_network(tmp_path: Any) -> None:
    """Parameters have the shapes of Torch's layers, and begin by what their windows read."""
    glorot = {"kind": "glorot"}
    data = network([2, 6, 6], conv(8, 3, groups=2, init=glorot), conv(4, [2, 3], init="he"))
    module = load(build_spec(data), "torch", tmp_path, ("gradient",))
    values = module.initialize()
    assert values["layer0.weight"].shape == (8, 1, 3, 3) and values["layer1.weight"].shape == (4, 8, 2, 3)
    assert values["layer0.weight"].abs().max() <= (6.0 / (9 + 72)) ** 0.5
    assert abs(float(values["layer1.weight"].std()) / (2.0 / 48) ** 0.5 - 1.0) < 0.3
    found = module.Network()
    assert found(torch.zeros(3, 2, 6, 6, dtype=torch.float64)).shape == (3, 2)


@pytest.mark.parametrize(
    "layers",
    [
        [conv(8, 3, transposed=True, groups=2)],
        [conv(1, 2, transposed=True, stride=2), conv(3, 2, transposed=True, bias=False)],
        [conv(4, 3, padding=1), {"type": "layer_norm"}, conv(4, 3, transposed=True), {"type": "rms_norm"}],
    ],
)
def test_a_module_has_the_shapes_of_its_parameters(layers: list[dict[str, Any]], tmp_path: Any) -> None:
    """A transposed convolution's bias has its outputs' channels, its weight begins by its inputs'."""
    module = load(build_spec(network([4, 5, 5], *layers)), "torch", tmp_path, ("gradient",))
    found, values = module.Network(seed=3), module.initialize(seed=3)
    assert {name: tuple(value.shape) for name, value in found.state_dict().items()} == dict(module.SHAPES)
    x = torch.linspace(-1.0, 1.0, 200, dtype=torch.float64).reshape(2, 4, 5, 5)
    torch.testing.assert_close(found(x), module.predict(values, x), rtol=0.0, atol=0.0)


def test_a_backend_without_windows_says_so() -> None:
    with pytest.raises(BackendError, match="CUDA backend does not read windows"):
        compile_spec(build_spec(NETWORKS["lenet"]), Request(backend="cuda", operators=("gradient",)))


@pytest.mark.parametrize(
    "method, text",
    [
        ("mk", "'layer0' uses its weight at several places"),
        ("esn", "'layer0' uses its weight at several places"),
    ],
)
def test_methods_that_need_dense_layers_are_refused(method: str, text: str) -> None:
    """With the layer; EA-CG and grouped Newton take convolutions."""
    data = network([2, 3, 3], conv(2, 3, padding=1), regularization={"state": 0.1})
    data["network"]["layers"][-1]["activation"] = "tanh"
    with pytest.raises(DerivationError, match=text):
        compile_spec(build_spec(data), Request(method=method))
    for other in ("grouped_newton", "ea_cg"):
        assert compile_spec(build_spec(data), Request(method=other)).text


@pytest.mark.parametrize(
    "layer, message, hint",
    [
        ("{type: conv, channels: 2}", "conv layer has no kernel", "add kernel: 3"),
        ("{type: conv, kernel: 3}", "has no channels", "add channels: 16"),
        (
            "{type: conv, channels: 2, kernel: [3, 3, 3]}",
            "3 numbers for 2 axes of places",
            "one number for all",
        ),
        (
            "{type: conv, channels: 2, kernel: 9}",
            "9 entries does not fit into axis 2",
            "make the kernel smaller",
        ),
        (
            "{type: conv, channels: 2, kernel: 3, groups: 2}",
            "2 groups do not divide 3 channels of the input",
            "groups divide",
        ),
        (
            "{type: conv, channels: 2, kernel: 3, padding: sane}",
            "unknown padding 'sane'",
            "did you mean 'same'",
        ),
        (
            "{type: conv, channels: 2, kernel: 3, stride: 2, padding: same}",
            "goes with a stride of 1",
            "give numbers",
        ),
        ("{type: conv, channels: 2, kernel: 3, padding: -1}", "a whole number from 0", "a pair"),
        ("{type: conv, channels: 2, kernel: 3, padding: [1, 2, 3]}", "3 paddings for 2 axes", "one an axis"),
        ("{type: conv, channels: 2, kernel: 0}", "'kernel'", "1"),
        (
            "{type: conv, channels: 2, kernel: 3, units: 4}",
            "a layer of type conv has no 'units'",
            "accepted keys: name",
        ),
        ("{type: conv, chanels: 2, kernel: 3}", "unknown key 'chanels'", "did you mean 'channels'"),
        ("{type: pool, kernel: 2}", "has no function", "function: average or max"),
        (
            "{type: pool, function: max, kernel: 2, padding: 2}",
            "nothing but padding",
            "smaller than the kernel",
        ),
        ("{type: pool, function: median, kernel: 2}", "cannot be 'median'", "function: average"),
        ("{type: pool, function: average, kernel: 2, groups: 2}", "has no 'groups'", "accepted keys"),
    ],
)
def test_bad_windows_are_one_error(layer: str, message: str, hint: str) -> None:
    """With its place, and what would do."""
    text = f"""\
sifrc: 1
name: bad
loss: mse
network:
  input: {{name: x, size: [3, 8, 8]}}
  layers:
    - {layer}
    - {{name: flat, type: flatten}}
    - {{name: out, type: dense, units: 2}}
"""
    with pytest.raises(SpecError) as error:
        parse_spec(text)
    assert message in str(error.value) and hint in str(error.value), str(error.value)
    assert ":7:" in str(error.value)


def test_an_input_without_places_is_refused() -> None:
    with pytest.raises(SpecError, match="takes channels at places, of one to three axes, not 4"):
        build_spec(network([4], conv(2, 3)))


@pytest.mark.parametrize(
    "share, message",
    [
        ({"share": "layer0", "kernel": 2}, "kernels or groups of 'layer1' and 'layer0'"),
        (
            {"share": "layer0", "kernel": 3, "channels": 5},
            "has 5 channels, 'layer0' whose parameters it shares has 2",
        ),
        ({"share": "out", "kernel": 3}, "layer 'out' is of type dense"),
    ],
)
def test_shared_kernels_fit(share: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        build_spec(network([2, 4, 4], conv(2, 3, padding=1), {"type": "conv", **share}))


@pytest.mark.parametrize("name", NETWORKS)
def test_the_canonical_form_is_the_same_spec(name: str) -> None:
    spec = build_spec(NETWORKS[name])
    assert build_spec(spec_to_dict(spec)) == spec
