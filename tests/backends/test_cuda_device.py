"""CUDA modules on a device that does its worst compute what modules for the CPU do."""

from __future__ import annotations

import types
import warnings
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numba
import numpy as np
import pytest
from cuda_comparison import compared, data, error, on_host, trained
from cuda_device import Deadlock, loaded
from cuda_graphs import Torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from strategies import specs
from test_cuda_simulator import CUDA, METHODS, assert_same, method_spec

from sifrc.backends.numba_cuda import online, placement, rows
from sifrc.cache import load_text
from sifrc.catalogue.derivatives import DERIVATIVES
from sifrc.compiler import Request, compile_spec
from sifrc.lower.lowering import Passes
from sifrc.spec import build_spec

RANDOM = settings(deadline=None, derandomize=True, print_blob=True, suppress_health_check=list(HealthCheck))
SMOOTH = tuple(one.name for one in DERIVATIVES.operators if one.name != "newton_direction")
ONLINE = ("mk", "esn", "esn_exact", "esn_saddle_free", "esn_recursive")
WIDE = [
    {"name": "fc1", "type": "dense", "units": 5, "activation": "tanh"},
    {"name": "fc2", "type": "dense", "units": 4, "activation": "softplus"},
    {"name": "out", "type": "dense", "units": 3},
]
"""More entries than a block has threads, and systems of more than one turn of rotations."""


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(numba.config, "DISABLE_JIT", 1)
    with np.errstate(all="ignore"):
        yield


@pytest.fixture
def divided(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks divide the products of small networks too."""
    for module in (placement, rows):
        monkeypatch.setattr(module, "LARGE", 6)


def texts(data: Mapping[str, Any], **asked: Any) -> tuple[str, str]:
    """The module for the CPU and the one for CUDA."""
    spec = build_spec(dict(data))
    passes = Passes(validate=True)
    cpu, cuda = (
        compile_spec(spec, Request(backend=name, passes=passes, **asked)).text for name in ("numba", CUDA)
    )
    return cpu, cuda


def on_cpu(text: str, folder: Path) -> Any:
    """The module of a text, without the cache."""
    path = folder / f"cpu_{abs(hash(text))}.py"
    path.write_text(text, encoding="utf-8")
    return load_text(path.stem, path, text)


def errors(pair: tuple[str, str], folder: Path, seed: int = 0) -> dict[str, float | str]:
    """What differs."""
    cpu, cuda = on_cpu(pair[0], folder), loaded(pair[1], seed)
    return (trained if hasattr(cpu, "State") else compared)(cpu, cuda)


def wide(name: str, outputs: int = 3) -> tuple[str, str]:
    """Both modules of a method on a network that blocks have to divide."""
    return _wide(name, outputs, placement.LARGE, online.SHARED)


@cache
def _wide(name: str, outputs: int, large: int, shared: int) -> tuple[str, str]:
    data, last = method_spec(METHODS[name]), WIDE[-1] | {"units": outputs}
    return texts(data | {"network": data["network"] | {"layers": [*WIDE[:-1], last]}})


@pytest.mark.parametrize("shared", [online.SHARED, 0])
@pytest.mark.parametrize("name", ["mk", *(pytest.param(n, marks=pytest.mark.slow) for n in ONLINE[1:])])
def test_blocks_divide_steps_of_single_samples(
    name: str, shared: int, divided: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three blocks that wait for each other make what one processor makes, in shared memory or without."""
    monkeypatch.setattr(online, "SHARED", shared)
    pair = wide(name)
    assert "grid.sync()" in pair[1]
    assert ("own = memory[" in pair[1]) == (not shared)
    found = trained(on_cpu(pair[0], tmp_path), loaded(pair[1], seed=1), batches=(1,))
    assert_same({name: found}, "float64")


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
def test_methods(name: str, tmp_path: Path) -> None:
    """Every method, an epoch of each batch size and a step."""
    assert_same({name: errors(wide(name), tmp_path)}, "float64")


@given(data=specs(), seed=st.integers(0, 2**16))
@settings(RANDOM, max_examples=4)
def test_random_networks(data: dict[str, Any], seed: int, tmp_path_factory: Any) -> None:
    """Every operator of random networks, with every sort of argument."""
    pair = texts(data, method="none", operators=SMOOTH)
    assert_same(
        {"random": errors(pair, tmp_path_factory.mktemp("random"), seed)}, data.get("dtype", "float64")
    )


@pytest.mark.slow
@given(data=specs(), seed=st.integers(0, 2**16))
@settings(RANDOM, max_examples=60)
def test_many_random_networks(data: dict[str, Any], seed: int, tmp_path_factory: Any) -> None:
    """The same on many more."""
    test_random_networks.hypothesis.inner_test(data, seed, tmp_path_factory)


def faults(text: str) -> Iterator[tuple[str, str]]:
    """The module with one thing wrong in what the kernel over single samples does: where, and its text."""
    lines = text.split("\n")
    function = ""
    for number, line in enumerate(lines):
        function = line.partition("(")[0][4:] if line.startswith("def ") else function
        for right, wrong in FAULTS:
            here = "".join(lines[number - 1 : number + 3])
            if function in IN_FAULTS and right in line and not any(word in here for word in HARMLESS):
                changed = [*lines[:number], line.replace(right, wrong, 1), *lines[number + 1 :]]
                yield f"{function}, line {number + 1}: {line.strip()}", "\n".join(changed)


FAULTS = (
    ("cuda.syncthreads()", "pass"),
    ("grid.sync()", "pass"),
    (" = thread", " = 1 + thread"),
    (" = block", " = 1 + block"),
    ("+= threads", "+= 1 + threads"),
    ("if i < ", "if i + 1 < "),
    (" + i * ", " + j * "),
    (" + j * ", " + i * "),
    ("if thread == 0:", "if thread > 9:"),
)
HARMLESS = ("isfinite", "reached[0]", "number += threads", "return bad", "_read(", "STRETCH_PART4")
"""In lines around: numbers that are finite, what is only reported, no more pairs than threads,
waits before what the same thread goes on with here, and a mean that is zero."""
IN_FAULTS = ("_online_steps", "_sum", "_diagonalise", "_solved", "_log_softmax_of")


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_faults_are_found(divided: None, tmp_path: Path) -> None:
    """A missing wait, a wrong bound, a swapped index: in some order of the threads, numbers are wrong."""
    pair = wide("mk", outputs=4)
    cpu = on_cpu(pair[0], tmp_path)
    every = list(faults(pair[1]))
    assert len(every) >= 60
    missed = [where for where, text in every if not any(_is_wrong(cpu, text, seed) for seed in range(3))]
    assert not missed, "\n".join(missed)


def _is_wrong(cpu: Any, text: str, seed: int) -> bool:
    cuda = loaded(text, seed)
    # Fewer than the entries of any layer.
    cuda.THREADS = 2
    try:
        found = trained(cpu, cuda, batches=(1,))
    except Exception:
        return True
    return any(isinstance(error, str) or not error <= 1e-9 for error in found.values())


REDUCTIONS = """
@cuda.jit(cache=True)
def kernel(values, found):
    scratch = cuda.shared.array(0, np.float64)
    thread, threads = cuda.threadIdx.x, cuda.blockDim.x
    top = _most_of(values, scratch, True)
    total = _sum(values[thread], scratch, threads)
    pair = _sum(values[thread], scratch, 2)
    found[thread] = top + 1000 * total + 1000000 * pair
"""


@pytest.mark.parametrize("fault", ["", "def _most(", "def _sum("])
def test_reductions(fault: str) -> None:
    """Largest entry and sums of a block, which every thread gets; without their waits some threads do not."""
    text = wide("mk")[1] + REDUCTIONS
    if fault:
        head, rest = text.split(fault)
        text = (
            head
            + fault
            + rest.replace("    cuda.syncthreads()\n    while", "    while", 1).replace(
                "        cuda.syncthreads()\n        step", "        step", 1
            )
        )
    right = []
    for seed in range(8):
        module = loaded(text, seed)
        found = module.cuda.device_array(4)
        module.kernel[1, 4, 0, 64](module.cuda.to_device(np.array([1.0, -7.0, 2.0, 5.0])), found)
        totals = 7 + 1000 * 1 + 1000000 * np.array([-6.0, -6.0, 7.0, 7.0])
        right.append(np.array_equal(found.copy_to_host(), totals))
    assert all(right) if not fault else not all(right)


@pytest.mark.parametrize("name", ["esn_saddle_free", "ea_cg_kfi", "ea_cg_exact"])
def test_products_and_systems_by_torch(name: str, tmp_path: Path) -> None:
    """What a library computes where there is one: torch, here with memory that it shares with the device."""
    torch = pytest.importorskip("torch")
    pair = wide(name)
    cpu, cuda = on_cpu(pair[0], tmp_path), loaded(pair[1])
    seen: list[int] = []
    Torch(torch).given_to(cuda)
    cuda._view = lambda array: seen.append(1) or torch.from_numpy(array.values)
    cuda.SMALL, cuda.GRAPH = 1, "never"
    assert_same({name: trained(cpu, cuda)}, "float64")
    assert seen


IN_GRAPHS = (
    "grouped_newton",
    "mk",
    *(pytest.param(n, marks=pytest.mark.slow) for n in METHODS if "ea_cg" in n),
)


@pytest.mark.parametrize("name", IN_GRAPHS)
def test_steps_as_graphs(name: str, tmp_path: Path) -> None:
    """What is captured and replayed makes the same steps, also with other numbers or parameters."""
    torch = Torch(pytest.importorskip("torch"))
    pair = wide(name)
    cpu, cuda = on_cpu(pair[0], tmp_path), torch.given_to(loaded(pair[1]))
    params, inputs, targets, _ = data(cpu, 7)
    order = np.tile(np.arange(4), 3)
    more = {"curvature_order": np.arange(5), "curvature_batch": 2} if name == "grouped_newton" else {}
    found = []
    for module, make in ((cpu, np.array), (cuda, cuda.cuda.to_device)):
        own, other = ({n: make(value) for n, value in params.items()} for _ in range(2))
        state = module.State(own, lr=0.01)
        for number in {"cg_iterations", "period"} & set(module._RANGES):
            setattr(state, number, 2)
        losses = [module.train_epoch(own, state, inputs, targets, order, batch=2)]
        state.lr = 0.02
        losses += [module.train_epoch(own, state, inputs, targets, order, batch=2)]
        losses += [module.train_epoch(other, state, inputs, targets, order, batch=2, **more)]
        found.append((losses, on_host(own), on_host(other)))
    assert error(*found) < 1e-9
    assert torch.graphs >= 6
    assert torch.replays >= 2 * torch.graphs


def test_a_step_that_asks_the_device_is_no_graph(tmp_path: Path) -> None:
    """Long searches end when they are done; what cannot be captured is said once for each part."""
    torch = Torch(pytest.importorskip("torch"))
    cuda = torch.given_to(loaded(wide("ea_cg")[1]))
    params = {n: cuda.cuda.to_device(np.full(shape, 0.1)) for n, shape in cuda.SHAPES.items()}
    state = cuda.State(params, cg_iterations=1000)
    arguments = np.eye(3), np.zeros(3, int), np.tile(np.arange(3), 2)
    with warnings.catch_warnings(action="error"):
        cuda.train_epoch(params, state, *arguments, batch=1)
    assert torch.replays
    cuda._MOST_CAPTURED = 10**4
    state = cuda.State(params)
    # As if a library waited for the device.
    forward = cuda._forward
    cuda._forward = lambda *given: (given[3][1].copy_to_host(), forward(*given))
    with pytest.warns(
        UserWarning, match="launched kernel by kernel, as no graph could be made: the host"
    ) as said:
        cuda.train_epoch(params, state, *arguments, batch=1)
    assert len(said) == 1


def test_which_launches_make_an_epoch() -> None:
    """The module says it, and both make the same."""
    said = []
    for blocks in (None, 0, 2):
        module = loaded(wide("mk")[1])
        if blocks is not None:
            module._compiled = lambda arguments, own=module, found=blocks: (own._online_steps, found)
        params = {name: module.cuda.to_device(np.full(s, 0.1)) for name, s in module.SHAPES.items()}
        state = module.State(params)
        said.append(module.launches(state))
        module.train_epoch(params, state, np.ones((2, 3)), np.zeros(2, int), np.arange(2))
        said.append(module.launches(state))
    none = "no step of a single sample has been made"
    one = "one cooperative launch for all samples, {} blocks of 4 threads"
    each = "a launch for each kernel of a sample: the device has no cooperative launches"
    assert said == [none, one.format(1), none, each, none, one.format(1)]


@pytest.mark.parametrize("together", [True, False])
def test_a_refused_sample_ends_an_epoch(together: bool, divided: None, tmp_path: Path) -> None:
    """The error has its number, parameters are as before it, and the next epoch goes on: as on the CPU."""
    pair = wide("mk")
    cpu, cuda = on_cpu(pair[0], tmp_path), loaded(pair[1])
    if not together:
        cuda._compiled = lambda arguments: (None, 0)
    rng = np.random.default_rng(3)
    values = {name: rng.standard_normal(shape) for name, shape in cpu.SHAPES.items()}
    inputs, targets, order = rng.standard_normal((5, 3)), np.array([0, 2, 1, 1, 0]), np.array([4, 0, 2, 1])
    inputs[2] = np.nan
    found = []
    for module, make, read in (
        (cpu, np.array, np.array),
        (cuda, cuda.cuda.to_device, lambda array: array.copy_to_host()),
    ):
        params = {name: make(value) for name, value in values.items()}
        state = module.State(params)
        with pytest.raises(FloatingPointError) as error:
            module.train_epoch(params, state, inputs, targets, order)
        assert "step refused at sample 2:" in str(error.value)
        steps = state.steps
        module.train_epoch(params, state, inputs, targets, np.array([1]))
        found.append((str(error.value), steps, state.steps, {n: read(params[n]) for n in params}))
    (text, *counts, ours), (other, *others, theirs) = found
    assert (text, counts) == (other, others)
    assert counts == [2, 3]
    for name, value in ours.items():
        assert np.allclose(value, theirs[name], rtol=1e-12, atol=1e-12)


class Elsewhere:
    """An array of another library, as torch and CuPy have them."""

    def __init__(self, memory: Any, device: Any, on_device: bool = True, requires_grad: bool = False) -> None:
        self.memory, self.device, self.requires_grad = memory, device, requires_grad
        if on_device and not requires_grad:
            self.__cuda_array_interface__ = {"data": (1, False)}

    def detach(self) -> Elsewhere:
        """Without gradients."""
        return Elsewhere(self.memory, self.device)


def test_arrays_that_a_module_takes(tmp_path: Path) -> None:
    """Those of other libraries on the device and of NumPy; anything else is one clear error."""
    data = method_spec(METHODS["mk"])
    module = loaded(texts(data, method="none", operators=("loss",))[1])
    params = {name: np.full(shape, 0.1) for name, shape in module.SHAPES.items()}
    inputs, targets = np.ones((4, 3)), np.zeros(4, int)
    right = module.loss(params, inputs, targets)
    here = types.SimpleNamespace(index=0)
    for own in (
        Elsewhere(inputs, here),
        Elsewhere(inputs, here, requires_grad=True),
        Elsewhere(inputs, None),
    ):
        assert module.loss(params, own, targets) == right
    wrong = {
        "inputs: expected an array on the device, got Elsewhere on cpu": Elsewhere(inputs, "cpu", False),
        "inputs: expected an array on the device, got list": inputs.tolist(),
        "inputs: expected an array on the current device, 0, got one on 1": Elsewhere(
            inputs, types.SimpleNamespace(id=1)
        ),
        "inputs: expected dtype float64, got float32": inputs.astype(np.float32),
        r"inputs: expected shape \(B, 3\), got \(4, 2\)": np.ones((4, 2)),
        "inputs: expected a contiguous array": Elsewhere(np.ones((3, 4)).T, here),
    }
    for message, given_array in wrong.items():
        with pytest.raises((TypeError, ValueError), match=f"^{message}$"):
            module.loss(params, given_array, targets)


def test_threads_that_do_not_meet_are_seen() -> None:
    """A wait that only some threads reach is an error, and not for ever."""
    text = """
@cuda.jit(cache=True)
def kernel(values):
    if cuda.threadIdx.x == 0:
        cuda.syncthreads()
"""
    module = loaded(text)
    with pytest.raises(Deadlock):
        module.kernel[1, 2](np.zeros(1))
