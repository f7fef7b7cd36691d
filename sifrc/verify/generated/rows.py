"""Level 3 of the ladder: a generated module, in its own dtype, against automatic differentiation."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal, TypeAlias

import numpy as np
import torch

from sifrc.errors import VerificationError
from sifrc.ir.arithmetic import Array
from sifrc.spec.types import Spec
from sifrc.verify.oracles import forward_torch as oracle_torch
from sifrc.verify.comparison import EPSILON, Agreement, agreed_digits, allowed_digits, rounding_bound
from sifrc.verify.points import near_targets, random_point
from sifrc.verify.table import Row

__all__ = ["Framework", "Setting", "framework_of", "generated_rows"]

Framework: TypeAlias = Literal["torch", "numpy"]

_ORACLE = "torch.func, float64"
_LIMIT = 16.0
_ATTEMPTS = 5


class _MissingError(Exception):
    """The module lacks an operator."""


class Setting:
    """A module, a point rounded to its dtype, and the oracle's view of that point in float64."""

    def __init__(
        self, spec: Spec, module: Any, framework: Framework, seed: int, batch: int, near: bool = False
    ) -> None:
        self.spec, self.module, self.framework = spec, module, framework
        point = random_point(spec, seed, batch)
        if near:
            params = {name: torch.from_numpy(value) for name, value in point.params.items()}
            outputs = oracle_torch.forward_torch(spec).output(params, torch.from_numpy(point.inputs))
            point = near_targets(spec, point, outputs.numpy(), seed)
        if spec.dtype == "bfloat16" and framework != "torch":
            raise VerificationError("bfloat16 exists in torch only")
        self.dtype = getattr(torch, spec.dtype)
        self.classes = spec.loss.targets == "classes"
        rounded = {name: self.rounded(value) for name, value in point.params.items()}
        self.params = rounded
        self.vector = {name: self.rounded(value) for name, value in point.vector.items()}
        self.inputs = self.rounded(point.inputs)
        self.targets = torch.from_numpy(point.targets) if self.classes else self.rounded(point.targets)

    def rounded(self, value: Array) -> torch.Tensor:
        """A tensor of the module's dtype."""
        return torch.from_numpy(np.ascontiguousarray(value)).to(self.dtype)

    def oracle(self, *names: str) -> tuple[Any, ...]:
        """Arguments in float64."""
        return tuple(self._double(getattr(self, name)) for name in ("params", "inputs", "targets", *names))

    def given(self, *names: str) -> tuple[Any, ...]:
        """Arguments in the module's own dtype and kind of array."""
        return tuple(self._own(getattr(self, name)) for name in ("params", "inputs", "targets", *names))

    def _double(self, value: Any) -> Any:
        if isinstance(value, Mapping):
            return {name: self._double(item) for name, item in value.items()}
        return value.double() if value.is_floating_point() else value

    def _own(self, value: Any) -> Any:
        if isinstance(value, Mapping):
            return {name: self._own(item) for name, item in value.items()}
        return value.clone() if self.framework == "torch" else value.numpy().copy()

    def arrays(self, value: Any) -> Any:
        """A result as float64 arrays; checks that its dtype is the module's."""
        if isinstance(value, Mapping):
            return {name: self.arrays(item) for name, item in value.items()}
        if isinstance(value, torch.Tensor):
            if value.is_floating_point() and value.dtype != self.dtype:
                raise VerificationError(f"expected dtype {self.spec.dtype}, got {value.dtype}")
            return value.detach().double().cpu().numpy()
        array = np.asarray(value)
        if array.ndim and array.dtype.name != self.spec.dtype:
            raise VerificationError(f"expected dtype {self.spec.dtype}, got {array.dtype.name}")
        return array.astype(np.float64)

    def function(self, name: str) -> Callable[..., Any]:
        found: Callable[..., Any] | None = getattr(self.module, name, None)
        if found is None:
            raise _MissingError(name)
        return found


def _scalar(value: Any) -> dict[str, Any]:
    return {"value": np.asarray(value)}


def _loss(setting: Setting) -> float:
    found = setting.arrays(setting.function("loss")(*setting.given()))
    return agreed_digits(
        _scalar(found), _scalar(oracle_torch.forward_torch(setting.spec).loss(*setting.oracle())), _LIMIT
    )


def _objective(setting: Setting) -> float:
    found = setting.arrays(setting.function("objective")(*setting.given()))
    return agreed_digits(
        _scalar(found), _scalar(oracle_torch.forward_torch(setting.spec)(*setting.oracle())), _LIMIT
    )


def _gradient_oracle(setting: Setting) -> dict[str, Any]:
    return _numbers(oracle_torch.gradient(setting.spec, *setting.oracle()))


def _numbers(tensors: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    return {name: value.numpy(force=True) for name, value in tensors.items()}


def _gradient(setting: Setting) -> float:
    found = setting.arrays(setting.function("gradient")(*setting.given()))
    return agreed_digits(found, _gradient_oracle(setting), _LIMIT)


def _both(setting: Setting) -> float:
    value, slope = setting.function("objective_and_gradient")(*setting.given())
    expected = oracle_torch.forward_torch(setting.spec)(*setting.oracle())
    digits = agreed_digits(_scalar(setting.arrays(value)), _scalar(expected), _LIMIT)
    return min(digits, agreed_digits(setting.arrays(slope), _gradient_oracle(setting), _LIMIT))


def _hessian(setting: Setting) -> float:
    found = setting.arrays(setting.function("hessian_vector_product")(*setting.given("vector")))
    return agreed_digits(found, _numbers(oracle_torch.hvp(setting.spec, *setting.oracle("vector"))), _LIMIT)


def _linearize(setting: Setting) -> float:
    """Two products from one linearisation: the second must not see the first."""
    product = setting.function("linearize")(*setting.given())
    *_, vector = setting.given("vector")
    found = [setting.arrays(product(vector)) for _ in range(2)]
    expected = _numbers(oracle_torch.hvp(setting.spec, *setting.oracle("vector")))
    return min(agreed_digits(each, expected, _LIMIT) for each in found)


def _gauss_newton(setting: Setting) -> float:
    found = setting.arrays(setting.function("gauss_newton_vector_product")(*setting.given("vector")))
    return agreed_digits(
        found, _numbers(oracle_torch.ggn_vp(setting.spec, *setting.oracle("vector"))), _LIMIT
    )


def _newton(setting: Setting) -> float:
    """Backward error of the direction: |H d − g| against |H| |d| + |g|, H the oracle's."""
    params, inputs, targets = setting.given()
    target = targets[0] if setting.framework == "torch" or not setting.classes else int(targets[0])
    direction = setting.arrays(setting.function("newton_direction")(params, inputs[0], target))
    params64, inputs64, targets64 = setting.oracle()
    if set(direction) != set(setting.params):
        raise VerificationError(f"expected the names {', '.join(setting.params)}, got {', '.join(direction)}")
    vector = {name: torch.from_numpy(np.array(value)) for name, value in direction.items()}
    if not all(bool(torch.isfinite(value).all()) for value in vector.values()):
        raise FloatingPointError("newton_direction is not finite")
    moved = oracle_torch.hvp(setting.spec, params64, inputs64, targets64, vector)
    product = oracle_torch.flatten(moved)
    gradient = oracle_torch.flatten(oracle_torch.gradient(setting.spec, params64, inputs64, targets64))
    flat = oracle_torch.flatten({name: vector[name] for name in setting.params})
    scale = _hessian_norm(setting, params64, inputs64, targets64) * flat.norm() + gradient.norm()
    error = float((product - gradient).norm() / scale)
    digits = min(_LIMIT, allowed_digits(error)) if error > 0 else _LIMIT
    lengths = f"{float((product - gradient).norm()):.3g} against |H| |d| + |g| = {float(scale):.3g}"
    return Agreement(digits, f"|H d − g| is {lengths}")


def _hessian_norm(setting: Setting, params: Any, inputs: Any, targets: Any) -> torch.Tensor:
    """A lower bound of |H|₂ by a few power iterations."""
    vector = {name: value.double() for name, value in setting.vector.items()}
    norm = torch.ones((), dtype=torch.float64)
    for _ in range(5):
        length = oracle_torch.flatten(vector).norm()
        vector = {name: value / length for name, value in vector.items()}
        vector = oracle_torch.hvp(setting.spec, params, inputs, targets, vector)
        norm = oracle_torch.flatten(vector).norm()
        if float(norm) == 0:
            break
    return norm


_CHECKS: tuple[tuple[str, Callable[[Setting], float], int], ...] = (
    ("loss", _loss, 3),
    ("objective", _objective, 3),
    ("gradient", _gradient, 3),
    ("objective_and_gradient", _both, 3),
    ("hessian_vector_product", _hessian, 3),
    ("linearize", _linearize, 3),
    ("gauss_newton_vector_product", _gauss_newton, 3),
    ("newton_direction", _newton, 1),
)


def framework_of(module: Any) -> Framework:
    """Whether a module takes tensors or arrays: by what it imports."""
    return "torch" if getattr(module, "torch", None) is torch else "numpy"


def generated_rows(
    spec: Spec, module: Any, framework: Framework | None, seed: int
) -> Iterator[tuple[str, str, Callable[[], Row | None]]]:
    """The checks of level 3 as (quantity, oracle, check); None where the module lacks the function."""
    kind = framework or framework_of(module)
    for quantity, check, batch in _CHECKS:
        yield quantity, _ORACLE, lambda q=quantity, c=check, b=batch: _row(spec, module, kind, q, c, b, seed)  # type: ignore[misc]


def _row(
    spec: Spec,
    module: Any,
    framework: Framework,
    quantity: str,
    check: Callable[[Setting], float],
    batch: int,
    seed: int,
) -> Row | None:
    bound = rounding_bound(spec, quantity, spec.dtype)
    required = max(0.0, allowed_digits(bound))
    note = f"{framework}, {spec.dtype}, batch {batch}; eps = {EPSILON[spec.dtype]:.1e}"
    if quantity == "newton_direction":
        note = "backward error of H(N, η) = (G, g); " + note
    attempts = _ATTEMPTS if quantity == "newton_direction" else 1
    for attempt in range(attempts):
        try:
            found = check(Setting(spec, module, framework, seed + 101 * attempt, batch, near=attempt > 0))
        except _MissingError:
            return None
        except FloatingPointError:
            # A condition that depends on the sample, e.g. a zero slope; another point decides.
            if attempt == attempts - 1:
                raise
            continue
        return Row(quantity, 3, _ORACLE, found, required, found >= required, note)
    raise AssertionError("unreachable")
