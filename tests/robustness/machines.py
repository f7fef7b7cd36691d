"""Other machines: the suites with other orders of sums, last bits, seeds, threads and kernels.

As a plugin (``python -m pytest -p machines``, this folder on PYTHONPATH) it reads what to change from
``SIFRC_MACHINE``. ``main`` runs suites on a table of machines and compares the verdicts:

    python tests/robustness/machines.py            # the suites most at risk, all machines
    python tests/robustness/machines.py --machines order1 seeds1 --suites tests/ir

A product of matrices may be summed in any order and is off by units in its last place: what a processor or
a BLAS decides. Elementwise operations are not: they are rounded in one way everywhere. So a product that is
exact stays exact here, and equal products stay equal.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
SUITES = ("tests/ir", "tests/lower", "tests/methods", "tests/backends")
_MOST = 10**6
"""Multiplications up to which a product is made again in more digits."""


@dataclass(frozen=True)
class Machine:
    """What is changed.

    Args:
        order: seed of the orders in which products are summed; 0 leaves them.
        bits: seed of the changes of last places; 0 for none.
        seeds: added to every number that a test seeds a generator with.
        environment: variables of the process: threads, kernels of the libraries.
    """

    order: int = 0
    bits: int = 0
    seeds: int = 0
    environment: dict[str, str] = field(default_factory=dict)


_ONE = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
_TWO = dict.fromkeys(_ONE, "2")
_OLD = {
    "OPENBLAS_CORETYPE": "Nehalem",
    "MKL_CBWR": "COMPATIBLE",
    "ATEN_CPU_CAPABILITY": "default",
    "NPY_DISABLE_CPU_FEATURES": "AVX2 FMA3",
    "NUMBA_CPU_NAME": "generic",
}

MACHINES: dict[str, Machine] = {
    "here": Machine(),
    "threads": Machine(environment=_TWO),
    "kernels": Machine(environment=_OLD),
    "order1": Machine(order=1),
    "order2": Machine(order=2, environment=_TWO),
    "bits1": Machine(bits=1),
    "bits2": Machine(order=3, bits=2),
    "seeds1": Machine(seeds=1000),
    "seeds2": Machine(order=4, bits=3, seeds=2000),
}
"""By name; the first one is what the others are compared with."""


# -- products


@dataclass(frozen=True)
class Products:
    """Matrix products as another machine makes them, the same for the same operands.

    Args:
        order: see :class:`Machine`.
        bits: see :class:`Machine`.
    """

    order: int
    bits: int

    def permutation(self, count: int) -> np.ndarray:
        """The order in which ``count`` terms are summed."""
        return np.random.Generator(np.random.PCG64([self.order, count])).permutation(count)

    def moved(self, values: np.ndarray, exact: np.ndarray) -> np.ndarray:
        """A unit up or down in the last place, by the bits of the number itself, where it is rounded."""
        integer = np.int32 if values.dtype == np.float32 else np.int64
        digest = values.view(integer).astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15 + 2 * self.bits)
        step = (digest >> np.uint64(40)) % np.uint64(3)
        inexact = np.isfinite(values) & (exact != values)
        up = np.nextafter(values, np.array(np.inf, values.dtype))
        down = np.nextafter(values, np.array(-np.inf, values.dtype))
        return np.where(inexact & (step == 0), up, np.where(inexact & (step == 1), down, values))

    def numpy(self, product: Callable[..., Any], left: Any, right: Any) -> Any:
        """A product over the last axis of one and the first (or last but one) of the other operand."""
        if self.order:
            chosen = self.permutation(left.shape[-1])
            left = np.take(left, chosen, axis=-1)
            right = np.take(right, chosen, axis=-2 if right.ndim > 1 else 0)
        result = product(left, right)
        return self.changed(
            result, left.size * right.shape[-1], lambda wide: product(wide(left), wide(right))
        )

    def changed(self, result: Any, work: int, again: Callable[[Callable[[Any], Any]], Any]) -> Any:
        """The result with other last places; ``again`` makes it from operands in more digits."""
        if not self.bits or work > _MOST:
            return result
        wide = np.float64 if np.asarray(result).dtype == np.float32 else np.longdouble
        exact = again(lambda operand: np.asarray(operand).astype(wide))
        return self.moved(np.ascontiguousarray(result), exact).reshape(np.shape(result))[()]


def _real(*operands: Any) -> bool:
    return all(isinstance(v, np.ndarray) and v.dtype in (np.float32, np.float64) for v in operands)


def _plain(left: Any, right: Any) -> bool:
    """Two matrices, or a matrix and a vector, of one dtype and of sizes that fit."""
    return (
        _real(left, right)
        and left.dtype == right.dtype
        and 1 <= left.ndim <= 2
        and 1 <= right.ndim <= 2
        and 0 < left.shape[-1] == right.shape[0]
    )


def _numpy_functions(products: Products) -> dict[str, Callable[..., Any]]:
    plain = {name: getattr(np, name) for name in ("dot", "matmul", "einsum")}

    def of(name: str) -> Callable[..., Any]:
        def product(left: Any, right: Any, out: Any = None, **more: Any) -> Any:
            if more or not _plain(left, right):
                given = more if out is None else {"out": out, **more}
                return plain[name](left, right, **given)
            result = products.numpy(plain[name], left, right)
            if out is None:
                return result
            out[...] = result
            return out

        return product

    def einsum(*operands: Any, **more: Any) -> Any:
        result = plain["einsum"](*operands, **more)
        text, *arrays = operands
        if more or not isinstance(text, str) or "->" not in text or not _real(*arrays):
            return result
        inputs, out = text.replace(" ", "").split("->")
        if not set(inputs) - set(out) - {","} or not isinstance(result, np.ndarray | np.floating):
            return result
        work = int(np.prod([array.size for array in arrays]))
        return products.changed(result, work, lambda wide: plain["einsum"](text, *map(wide, arrays)))

    return {"dot": of("dot"), "matmul": of("matmul"), "einsum": einsum}


class _Operator:
    """The operator @ of NumPy arrays: its slot in the type, which no attribute reaches."""

    _NUMBER, _MATMUL = 12, 34  # fields of PyTypeObject and of PyNumberMethods
    _KIND = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.py_object, ctypes.py_object)

    def __init__(self) -> None:
        table = ctypes.cast(id(np.ndarray), ctypes.POINTER(ctypes.c_void_p))[self._NUMBER]
        self._slots = ctypes.cast(table, ctypes.POINTER(ctypes.c_void_p))
        self._before = self._slots[self._MATMUL]
        self.plain = self._KIND(self._before)

    def set(self, product: Callable[[Any, Any], Any]) -> None:
        """Put a function in; it must not raise."""
        self._kept = self._KIND(product)
        self._slots[self._MATMUL] = ctypes.cast(self._kept, ctypes.c_void_p).value

    def restore(self) -> None:
        """As it was."""
        self._slots[self._MATMUL] = self._before


def _compiled_as_before(made: Callable[..., Any], plain: Callable[..., Any]) -> None:
    """Numba compiles calls of a replaced function as calls of the one before."""
    from numba.core import types
    from numba.extending import overload

    @overload(made)
    def _(left: Any, right: Any, out: Any = None) -> Any:
        if out is None or isinstance(out, types.NoneType | types.Omitted):
            return lambda left, right, out=None: plain(left, right)
        return lambda left, right, out=None: plain(left, right, out)


@contextlib.contextmanager
def numpy_products(products: Products) -> Iterator[None]:
    """NumPy's products replaced: functions, and the operator of arrays."""
    functions = _numpy_functions(products)
    before = {name: getattr(np, name) for name in functions}
    _compiled_as_before(functions["dot"], before["dot"])
    operator = _Operator()

    def product(left: Any, right: Any) -> Any:
        # An error cannot leave this function: sizes that do not fit end as a TypeError of the operator.
        try:
            if _plain(left, right):
                return products.numpy(operator.plain, left, right)
            return before["matmul"](left, right)
        except (ValueError, TypeError):
            return NotImplemented

    operator.set(product)
    for name, function in functions.items():
        setattr(np, name, function)
    try:
        yield
    finally:
        operator.restore()
        for name, function in before.items():
            setattr(np, name, function)


def torch_products(products: Products) -> Any:
    """A mode of Torch in which its products are replaced."""
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    places = {"mm": (0, 1), "bmm": (0, 1), "mv": (0, 1), "dot": (0, 1), "addmm": (1, 2), "baddbmm": (1, 2)}
    places["addmv"] = (1, 2)

    class Mode(TorchDispatchMode):
        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            kwargs = kwargs or {}
            name = function.overloadpacket.__name__
            known = function.namespace == "aten" and function._overloadname != "out"
            at = places.get(name) if known else None
            if at is None or args[at[0]].dtype not in (torch.float32, torch.float64):
                return function(*args, **kwargs)
            given = list(args)
            left, right = (given[n] for n in at)
            if products.order and left.shape[-1] > 0:
                chosen = torch.from_numpy(products.permutation(left.shape[-1]))
                along = right.dim() - 2 if right.dim() > 1 else 0
                given[at[0]], given[at[1]] = left.index_select(-1, chosen), right.index_select(along, chosen)
            result = function(*given, **kwargs)
            if not products.bits or left.numel() * right.shape[-1] > _MOST:
                return result
            # Twice the digits of float32; of float64 the products are made by NumPy.
            if result.dtype == torch.float32:
                exact = function(*(a.double() if isinstance(a, torch.Tensor) else a for a in given), **kwargs)
                wide = exact.numpy(force=True)
            else:
                wide = self._wide(name, given, kwargs)
            moved = products.moved(result.contiguous().numpy(force=True), wide)
            return result.copy_(torch.from_numpy(np.ascontiguousarray(moved)).reshape(result.shape))

        def _wide(self, name: str, given: list[Any], kwargs: dict[str, Any]) -> np.ndarray:
            parts = [a.numpy(force=True).astype(np.longdouble) for a in given if isinstance(a, torch.Tensor)]
            if not name.startswith(("add", "badd")):
                return np.asarray(np.matmul(parts[0], parts[1]))
            start, left, right = parts
            return np.asarray(kwargs.get("beta", 1) * start + kwargs.get("alpha", 1) * np.matmul(left, right))

    return Mode()


# -- seeds


@contextlib.contextmanager
def shifted_seeds(by: int) -> Iterator[None]:
    """Generators that tests, or the points of verification, seed with a number, seeded with another one."""
    import torch

    marks = (str(ROOT / "tests"), str(ROOT / "sifrc" / "verify"))
    before = np.random.default_rng, torch.manual_seed

    def mine(depth: int = 2) -> bool:
        return sys._getframe(depth).f_code.co_filename.startswith(marks)

    def default_rng(seed: Any = None) -> Any:
        return before[0](seed + by if isinstance(seed, int) and mine() else seed)

    def manual_seed(seed: int) -> Any:
        return before[1](seed + by if mine() else seed)

    np.random.default_rng, torch.manual_seed = default_rng, manual_seed  # type: ignore[assignment]
    try:
        yield
    finally:
        np.random.default_rng, torch.manual_seed = before


@contextlib.contextmanager
def another(machine: Machine) -> Iterator[None]:
    """All that can be changed within a process."""
    with contextlib.ExitStack() as stack:
        if machine.order or machine.bits:
            products = Products(machine.order, machine.bits)
            stack.enter_context(numpy_products(products))
            stack.enter_context(torch_products(products))
        if machine.seeds:
            stack.enter_context(shifted_seeds(machine.seeds))
        yield


# -- plugin


def _asked() -> Machine:
    return Machine(**json.loads(os.environ.get("SIFRC_MACHINE", "{}")))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol() -> Iterator[Any]:
    """Fixtures and the test itself run on the other machine."""
    with another(_asked()):
        return (yield)


def pytest_runtest_logreport(report: Any) -> None:
    """One line for the verdict of each test, where ``SIFRC_VERDICTS`` says."""
    path = os.environ.get("SIFRC_VERDICTS")
    if path and (report.when == "call" or report.outcome != "passed"):
        with open(path, "a", encoding="utf-8") as file:
            reason = report.longreprtext.splitlines()[-1:] if report.outcome == "failed" else []
            file.write(json.dumps([report.nodeid, report.outcome, *reason]) + "\n")


# -- table


def run(name: str, targets: list[str], options: list[str]) -> tuple[dict[str, str], dict[str, str], float]:
    """Verdicts of the tests on a machine, where failures were and what, and seconds."""
    machine = MACHINES[name]
    with tempfile.TemporaryDirectory() as folder:
        verdicts = Path(folder) / "verdicts"
        inside = {k: getattr(machine, k) for k in ("order", "bits", "seeds")}
        environment = {
            **os.environ,
            **_ONE,
            **machine.environment,
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(HERE), os.environ.get("PYTHONPATH", "")]),
            "SIFRC_MACHINE": json.dumps(inside),
            "SIFRC_VERDICTS": str(verdicts),
        }
        command = [sys.executable, "-m", "pytest", "-p", "machines", "-q", "-p", "no:cacheprovider", *options]
        start = time.perf_counter()
        ended = subprocess.run(
            [*command, *targets], cwd=ROOT, env=environment, capture_output=True, text=True
        )
        seconds = time.perf_counter() - start
        if not verdicts.exists():
            raise RuntimeError(f"no test ran on '{name}':\n{ended.stdout[-2000:]}{ended.stderr[-2000:]}")
        found: dict[str, str] = {}
        reasons: dict[str, str] = {}
        for line in verdicts.read_text(encoding="utf-8").splitlines():
            test, outcome, *reason = json.loads(line)
            found[test] = outcome if found.get(test) != "failed" else "failed"
            reasons |= {test: text for text in reason}
    return found, reasons, seconds


def main(argv: list[str] | None = None) -> int:
    """Run suites on machines and print their verdicts; 1 where they differ or a test failed."""
    parser = argparse.ArgumentParser(description="Same verdicts on other machines.")
    parser.add_argument("--suites", nargs="+", default=list(SUITES))
    parser.add_argument("--machines", nargs="+", default=list(MACHINES), choices=list(MACHINES))
    parser.add_argument("--slow", action="store_true", help="slow tests too")
    parser.add_argument("-k", default="", help="as pytest's")
    chosen = parser.parse_args(argv)
    options = ([] if chosen.slow else ["-m", "not slow"]) + (["-k", chosen.k] if chosen.k else [])
    table: dict[str, dict[str, str]] = {}
    print(f"{'machine':10}{'tests':>8}{'passed':>8}{'failed':>8}{'skipped':>9}{'seconds':>9}")
    for name in chosen.machines:
        table[name], reasons, seconds = run(name, chosen.suites, options)
        counts = {word: list(table[name].values()).count(word) for word in ("passed", "failed", "skipped")}
        passed, failed, skipped = counts.values()
        print(f"{name:10}{len(table[name]):8}{passed:8}{failed:8}{skipped:9}{seconds:9.0f}", flush=True)
        for test, reason in reasons.items():
            print(f"    {test}: {reason}", flush=True)
    first = chosen.machines[0]
    tests = dict.fromkeys(test for verdicts in table.values() for test in verdicts)
    different = [t for t in tests if len({table[name].get(t) for name in table}) > 1]
    for test in different:
        print(f"different: {test}: " + ", ".join(f"{name} {table[name].get(test)}" for name in table))
    failed = sorted(test for test, outcome in table[first].items() if outcome == "failed")
    for test in failed:
        print(f"failed: {test}")
    print(
        f"{len(tests)} tests on {len(table)} machines: {len(different)} verdicts differ, {len(failed)} failed"
    )
    return int(bool(different or failed))


if __name__ == "__main__":
    sys.exit(main())
