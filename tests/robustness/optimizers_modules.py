"""What the life of an optimizer is tried on: a method with its data, and a run of it on either backend."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Any

import numba
import numpy as np
import torch

import sifrc
from sifrc.compiler import Request, compile_spec

__all__ = ["METHODS", "NumbaRun", "Row", "Run", "TorchRun", "at_once", "bits", "made", "modules"]

CLEAR = (ValueError, TypeError, FloatingPointError, AttributeError)
"""Errors that a module raises on purpose. An AttributeError is that of an attribute that does not exist."""

METHODS: Mapping[str, tuple[dict[str, Any], str, str]] = MappingProxyType(
    {
        "mk": ({"name": "mk"}, "cross_entropy", "float32"),
        "mk undamped": ({"name": "mk", "damping": 0.0}, "squared_error", "float64"),
        "exact": ({"name": "esn", "variant": "exact"}, "squared_error", "float32"),
        "saddle-free": ({"name": "esn", "variant": "saddle_free"}, "cross_entropy", "float64"),
        "rank one": ({"name": "esn"}, "cross_entropy", "float64"),
        "direct": ({"name": "esn", "precision": "direct", "period": 2}, "squared_error", "float32"),
        "sylvester": (
            {"name": "esn", "precision": "direct", "form": "sylvester"},
            "cross_entropy",
            "float64",
        ),
        "recursive": ({"name": "esn", "precision": "recursive"}, "squared_error", "float64"),
        "ea_cg": ({"name": "ea_cg", "period": 2}, "cross_entropy", "float32"),
        "cg": ({"name": "ea_cg", "solver": "cg", "kind": "ggn"}, "squared_error", "float64"),
        "kfi": (
            {"name": "ea_cg", "solver": "kfi", "kind": "fisher", "decay": 0.5},
            "cross_entropy",
            "float64",
        ),
        "sampled": (
            {"name": "ea_cg", "solver": "exact", "kind": "sampled_fisher", "period": 3},
            "cross_entropy",
            "float32",
        ),
        "grouped": ({"name": "grouped_newton", "period": 2}, "cross_entropy", "float32"),
        "grouped adam": (
            {"name": "grouped_newton", "direction": "adam", "period": 2, "clip": 1.0},
            "squared_error",
            "float64",
        ),
        "grouped ridge": (
            {"name": "grouped_newton", "direction": "gradient", "regularization": "ridge", "ridge": 0.5},
            "cross_entropy",
            "float64",
        ),
    }
)
"""Name -> method, loss and dtype."""

JOINT = ("exact", "saddle-free", "grouped", "grouped adam", "grouped ridge")
"""Methods with one direction for all parameters, which refuse frozen ones."""
ONE = ("recursive",)
"""Methods that take one sample a step."""
SIZES = (5, 4, 4, 3)
BATCH = 6


def spec_of(method: str) -> dict[str, Any]:
    """A network 5, 4, 4, 3."""
    options, loss, dtype = METHODS[method]
    return {
        "sifrc": 1,
        "name": "life",
        "loss": loss,
        "dtype": dtype,
        "regularization": {"state": 0.02},
        "network": {
            "input": {"name": "image", "size": SIZES[0]},
            "layers": [
                {"name": "fc1", "type": "dense", "units": SIZES[1], "activation": "tanh"},
                {"name": "fc2", "type": "dense", "units": SIZES[2], "activation": "softplus"},
                {"name": "out", "type": "dense", "units": SIZES[3]},
            ],
        },
        "method": options,
    }


def made(method: str, backend: str, folder: Path, jit: bool = False) -> ModuleType:
    """The generated module, importable by its name."""
    name = f"life_{method.replace(' ', '_').replace('-', '_')}_{backend}{'_jit' if jit else ''}"
    if name in sys.modules:
        return sys.modules[name]
    request = Request(backend=backend, operators=("objective",))
    path = folder / f"{name}.py"
    path.write_text(compile_spec(sifrc.build_spec(spec_of(method)), request).text)
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    before = numba.config.DISABLE_JIT
    numba.config.DISABLE_JIT = not jit
    try:
        spec.loader.exec_module(module)
    finally:
        numba.config.DISABLE_JIT = before
    return module


@contextmanager
def modules(folder: Path) -> Iterator[Path]:
    """A folder for generated modules, which are forgotten at the end."""
    known = set(sys.modules)
    try:
        yield folder
    finally:
        for name in set(sys.modules) - known:
            if name.startswith("life_"):
                del sys.modules[name]


def bits(value: Any) -> Any:
    """A value as something that is equal only to the same bits."""
    if isinstance(value, torch.Tensor) and value.is_meta:
        return str(value.dtype), tuple(value.shape)
    if isinstance(value, torch.Tensor):
        flat = value.detach().cpu().contiguous()
        return str(value.dtype), tuple(value.shape), flat.reshape(-1).view(torch.uint8).numpy().tobytes()
    if isinstance(value, np.ndarray | np.generic):
        return str(value.dtype), np.shape(value), np.asarray(value).tobytes()
    if isinstance(value, Mapping):
        return {str(key): bits(item) for key, item in value.items()}
    return repr(value)


class Run:
    """A module with parameters and state, which takes steps on its samples in turn."""

    backend = ""

    def __init__(self, method: str, module: ModuleType) -> None:
        self.method, self.module = method, module
        self.size = 1 if method in ONE else BATCH
        self.classes = METHODS[method][1] == "cross_entropy"
        self.dtype = METHODS[method][2]
        rng = np.random.default_rng(4)
        self.all_inputs = rng.standard_normal((60, SIZES[0])).astype(self.dtype)
        self.all_targets = (
            rng.integers(0, SIZES[-1], 60)
            if self.classes
            else rng.standard_normal((60, SIZES[-1])).astype(self.dtype)
        )
        self.position = 0
        self.objectives: list[float] = []
        self.before: Any = None

    @property
    def joint(self) -> bool:
        """Whether all parameters have one direction."""
        return self.method in JOINT

    def batch(self, size: int | None = None) -> tuple[Any, Any]:
        """The next samples."""
        size = self.size if size is None else size
        rows = slice(self.position, self.position + size)
        self.position += size
        return self.given(self.all_inputs[rows].copy()), self.given(self.all_targets[rows].copy())

    def advance(self, count: int = 2) -> None:
        """Some steps."""
        for _ in range(count):
            self.step(*self.batch())

    def step(self, inputs: Any, targets: Any) -> None:
        """One step; what was before it is remembered."""
        self.before = self.saved()
        self.objectives.append(float(self.update(inputs, targets)))

    def given(self, array: Any) -> Any:
        """Data as the module takes it."""
        raise NotImplementedError

    def update(self, inputs: Any, targets: Any) -> Any:
        """One step; the objective."""
        raise NotImplementedError

    def values(self) -> Mapping[str, Any]:
        """Parameters by name."""
        raise NotImplementedError

    def state(self) -> Any:
        """What the optimizer keeps, apart from hyperparameters."""
        raise NotImplementedError

    def numbers(self) -> Mapping[str, Any]:
        """Hyperparameters by name: their range as the module has it."""
        return {n: r for n, r in self.module._RANGES.items() if n not in ("steps", "age")}

    def set(self, name: str, value: Any) -> None:
        """Change a hyperparameter."""
        raise NotImplementedError

    def get(self, name: str) -> Any:
        """A hyperparameter."""
        raise NotImplementedError

    def saved(self) -> Any:
        """Everything that a refused step must leave, as bits."""
        return bits({"params": self.values(), "state": self.state()})

    def finite(self) -> bool:
        """Whether all parameters are."""
        return all(bool(np.isfinite(self.array(value)).all()) for value in self.values().values())

    @staticmethod
    def array(value: Any) -> np.ndarray:
        """A copy as float64; NaN where nothing has a value."""
        if isinstance(value, torch.Tensor) and value.is_meta:
            return np.full(tuple(value.shape), np.nan)
        if isinstance(value, torch.Tensor):
            value = value.detach().double().numpy()
        return np.array(value, np.float64)


class TorchRun(Run):
    """The generated Torch optimizer."""

    backend = "torch"

    def __init__(self, method: str, module: ModuleType) -> None:
        super().__init__(method, module)
        self.model = module.Network(seed=1)
        self.optimizer = module.Optimizer(self.model, lr=1e-2)

    def given(self, array: Any) -> Any:
        return torch.from_numpy(np.ascontiguousarray(array))

    def update(self, inputs: Any, targets: Any) -> Any:
        return self.optimizer.step(inputs, targets)

    def values(self) -> Mapping[str, Any]:
        return dict(self.model.named_parameters())

    def state(self) -> Any:
        return {name: self.optimizer.state[value] for name, value in self.model.named_parameters()}

    def set(self, name: str, value: Any) -> None:
        self.optimizer.param_groups[0][name] = value

    def get(self, name: str) -> Any:
        return self.optimizer.param_groups[0][name]

    def renewed(self) -> None:
        """A new optimizer with what a state dict has of the old one."""
        saved = self.optimizer.state_dict()
        self.optimizer = self.module.Optimizer(self.model)
        self.optimizer.load_state_dict(saved)


class NumbaRun(Run):
    """The generated Numba module."""

    backend = "numba"

    def __init__(self, method: str, module: ModuleType) -> None:
        super().__init__(method, module)
        self.params = module.init(1)
        self.optimizer = module.State(self.params, lr=1e-2)

    def given(self, array: Any) -> Any:
        return array

    def update(self, inputs: Any, targets: Any) -> Any:
        return self.module.step(self.params, self.optimizer, inputs, targets)

    def epoch(self, count: int, **options: Any) -> float:
        """Several steps by one call."""
        order = np.arange(self.position, self.position + count * self.size)
        self.position += count * self.size
        return float(
            self.module.train_epoch(
                self.params,
                self.optimizer,
                self.all_inputs,
                self.all_targets,
                order,
                batch=self.size,
                **options,
            )
        )

    def values(self) -> Mapping[str, Any]:
        return self.params

    def state(self) -> Any:
        return self.optimizer.state_dict()

    def set(self, name: str, value: Any) -> None:
        setattr(self.optimizer, name, value)

    def get(self, name: str) -> Any:
        return getattr(self.optimizer, name)


@dataclass(frozen=True)
class Row:
    """Something done to an optimizer between steps, and what a user of PyTorch expects then.

    Args:
        name: what is done.
        do: it; what it raises, or what the steps after it raise, is a refusal.
        text: the expectation in a sentence.
        expect: ``goes on``, ``refused``, or ``either`` where it depends on the numbers.
        like: what the run that it is compared with does in its place; nothing by default.
        heal: what makes a refused run go on as if nothing had been; None where nothing has to be done.
        lost: whether a refused run cannot go on.
        tolerance: relative, of parameters; 0 for the same bits.
    """

    name: str
    do: Callable[[Any], None]
    text: str
    expect: str = "goes on"
    like: Callable[[Any], None] | None = None
    heal: Callable[[Any], None] | None = None
    lost: bool = False
    tolerance: float = 0.0


def at_once(work: Callable[..., None], arguments: Iterable[Sequence[Any]]) -> None:
    """Run a function on a thread for each of some arguments; raise the first error of one."""
    given = list(arguments)
    with ThreadPoolExecutor(len(given)) as threads:
        for done in [threads.submit(work, *own) for own in given]:
            done.result()
