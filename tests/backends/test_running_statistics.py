"""Batch normalisation whose running statistics are means over all steps, or that has none, as PyTorch's."""

from __future__ import annotations

import copy
from itertools import count
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from curvature_oracle import assert_close
from torch import Tensor, nn
from torch.func import functional_call, grad

from sifrc.cache import load_text
from sifrc.compiler import Request, compile_spec
from sifrc.errors import DerivationError, SpecError
from sifrc.spec import build_spec, spec_to_dict
from sifrc.verify.ladder import verify

METHOD = {"name": "grouped_newton", "direction": "gradient", "learning_rate": 0.1, "internal_damping": 3.0}
BATCH = 7


def spec_of(mode: str = "training", method: bool = True, **keys: Any) -> Any:
    """A dense layer, a normalised one, and one of outputs."""
    layers = [
        {"name": "d", "type": "dense", "units": 4, "bias": False},
        {"name": "b", "type": "batch_norm", "activation": "tanh", **keys},
        {"name": "out", "type": "dense", "units": 2},
    ]
    return build_spec(
        {
            "sifrc": 1,
            "name": "tracked",
            "dtype": "float64",
            "loss": "mse",
            "network": {"input": {"name": "x0", "size": 3}, "layers": layers, "mode": mode},
            **({"method": METHOD} if method else {}),
        }
    )


class Net(nn.Module):
    """The same by PyTorch's layers."""

    def __init__(self, **keys: Any) -> None:
        super().__init__()
        self.d, self.b, self.out = nn.Linear(3, 4, bias=False), nn.BatchNorm1d(4, **keys), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.out(torch.tanh(self.b(self.d(x))))
        return found


_NUMBERS = count()


def module_of(
    spec: Any, backend: str, folder: Path, operators: tuple[str, ...] = ("gradient",)
) -> ModuleType:
    text = compile_spec(spec, Request(backend=backend, operators=operators)).text
    path = folder / f"tracked_{backend}_{next(_NUMBERS)}.py"
    path.write_text(text, encoding="utf-8")
    return load_text(path.stem, path, text)


def point(seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return (
        torch.randn(BATCH, 3, generator=generator, dtype=torch.float64),
        torch.randn(BATCH, 2, generator=generator, dtype=torch.float64),
    )


@pytest.mark.usefixtures("jit_off")
@pytest.mark.parametrize("backend", ["torch", "numba"])
def test_means_over_all_steps(backend: str, tmp_path: Path) -> None:
    """After steps they are those of PyTorch's layer on the same parameters and batches."""
    spec = spec_of(momentum=None)
    assert build_spec(spec_to_dict(spec)) == spec
    module = module_of(spec, backend, tmp_path)
    assert module.BUFFERS == {"b.running_mean": (4,), "b.running_var": (4,), "b.num_batches_tracked": ()}
    own = Net(momentum=None).double()
    if backend == "torch":
        network = module.Network(seed=0)
        optimizer = module.Optimizer(network)
        state = network.state_dict
    else:
        params = module.init(0)
        kept = module.State(params)

        def state() -> dict[str, Tensor]:
            return {name: torch.as_tensor(value) for name, value in params.items()}

    for seed in range(3):
        x, t = point(seed)
        found = {name: value.clone() for name, value in state().items()}
        found["b.num_batches_tracked"] = found["b.num_batches_tracked"].to(torch.int64)
        own.load_state_dict(found)
        own(x)
        if backend == "torch":
            optimizer.step(x, t)
        else:
            module.step(params, kept, x.numpy(), t.numpy())
        for name, value in own.named_buffers():
            np.testing.assert_allclose(state()[name], value, rtol=1e-12, err_msg=name)
    assert float(state()["b.num_batches_tracked"]) == 3


def test_networks_of_the_user(tmp_path: Path) -> None:
    """The whole number of PyTorch's layer is one that a step counts with."""
    module = module_of(spec_of(momentum=None), "torch", tmp_path)
    torch.manual_seed(0)
    network = Net(momentum=None).double()
    other = copy.deepcopy(network)
    optimizer = module.Optimizer(network)
    for seed in range(2):
        x, t = point(seed)
        other.load_state_dict(network.state_dict())
        other(x)
        optimizer.step(x, t)
        for name, value in other.named_buffers():
            np.testing.assert_allclose(dict(network.named_buffers())[name], value, rtol=1e-12, err_msg=name)


@pytest.mark.usefixtures("jit_off")
@pytest.mark.parametrize("mode", ["training", "evaluation"])
@pytest.mark.parametrize("backend", ["torch", "numba"])
def test_no_running_statistics(backend: str, mode: str, tmp_path: Path) -> None:
    """Those of the batch in both modes: outputs are PyTorch's, the gradient is that of the whole batch."""
    spec = spec_of(mode, method=False, track=False)
    assert build_spec(spec_to_dict(spec)) == spec
    module = module_of(spec, backend, tmp_path)
    assert not getattr(module, "BUFFERS", {})
    own = Net(track_running_stats=False).double()
    own.train(mode == "training")
    names = [name for name, _ in own.named_parameters()]
    params = {name: torch.randn_like(dict(own.named_parameters())[name]) for name in names}
    x, t = point(5)

    def objective(values: dict[str, Tensor]) -> Tensor:
        found: Tensor = ((functional_call(own, values, (x,)) - t) ** 2).mean()
        return found

    given = (
        (params, x, t)
        if backend == "torch"
        else ({n: v.numpy() for n, v in params.items()}, x.numpy(), t.numpy())
    )
    y = functional_call(own, params, (x,)).detach()
    np.testing.assert_allclose(module.predict(*given[:2]), y, rtol=1e-12, atol=1e-12)
    assert float(module.loss(*given)) == pytest.approx(float(objective(params)), rel=1e-12)
    assert_close(module.gradient(*given), grad(objective)(params))


@pytest.mark.parametrize(
    ("mode", "keys"), [("evaluation", {"track": False}), ("training", {"momentum": None})]
)
def test_all_that_is_derived_is_verified(mode: str, keys: dict[str, Any]) -> None:
    """Also where a network after training couples samples."""
    report = verify(spec_of(mode, method=False, **keys), levels=(1, 2), quantities=("gradient",))
    assert report.passed, [row for row in report.rows if row.passed is False]


def test_what_is_refused(tmp_path: Path) -> None:
    """Each with what would do."""
    with pytest.raises(SpecError, match="'b' has no running statistics"):
        spec_of(track=False, momentum=0.1)
    with pytest.raises(SpecError, match="'b' counts batches, and bfloat16"):
        build_spec({**spec_to_dict(spec_of(method=False, momentum=None)), "dtype": "bfloat16"})
    spec = spec_of("evaluation", method=False, track=False)
    with pytest.raises(DerivationError, match="act on each other in batch_norm layer 'b'") as refused:
        module_of(spec, "torch", tmp_path, ("per_sample_gradients",))
    assert "running statistics" not in str(refused.value)
