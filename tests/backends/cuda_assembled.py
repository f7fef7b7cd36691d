"""Compiles kernels of CUDA modules to PTX and assembles them, without a GPU or its driver; its own process.

    python cuda_assembled.py FOLDER SHARE SHARES < SIGNATURES

Needs numba-cuda and NVIDIA's libraries as wheels. Modules are files of the folder; the input is what
``cuda_recorded.py`` prints. What is printed, as JSON, is for each module, kernel and architecture what
``Assembled`` holds, or the error. Only this share of all kernels is done. Kernels that read the same are one.
"""

from __future__ import annotations

import importlib
import inspect
import json
import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from types import CodeType, SimpleNamespace
from typing import Any

import numpy as np

__all__ = ["ARCHITECTURES", "Assembled", "counted"]

ARCHITECTURES = {"sm_80": (8, 0), "sm_90": (9, 0)}
"""Those of the A100, and of the H100 and H200."""

_MOVES = frozenset(("ld", "ldu", "mov", "selp", "st"))
"""Instructions that copy a number of any type."""
_INSTRUCTION = re.compile(r"^\s*(?:@!?%\w+\s+)?(\w+)((?:\.\w+)+)\s", re.MULTILINE)


@dataclass(frozen=True)
class Assembled:
    """What a kernel takes, the most of its signatures.

    Args:
        registers: of a thread.
        shared: bytes of static shared memory of a block.
        stack: bytes of local memory of a thread.
        spilled: bytes of registers that are stored in local memory, and of those that are loaded again.
        float64: instructions that compute with float64 numbers, or convert them.
        divisions: of 64-bit integers, each many instructions.
    """

    registers: int
    shared: int
    stack: int
    spilled: int
    float64: int
    divisions: int


def counted(ptx: str, log: str) -> Assembled:
    """What a kernel takes, from its PTX and from what the assembler says.

    >>> lines = "add.f64 %a, %b, %c;", "@%p1 cvt.f64.f32 %a, %f;", "st.f64 [%d], %a;", "rem.s64 %d, %e, %f;"
    >>> ptx = "\\n".join([".shared .align 4 .b8 tile[1024];", *lines])
    >>> counted(ptx, "8 bytes stack frame, 4 bytes spill stores, 8 bytes spill loads; Used 40 registers")
    Assembled(registers=40, shared=1024, stack=8, spilled=12, float64=2, divisions=1)
    """
    instructions = [(name, types.split(".")) for name, types in _INSTRUCTION.findall(ptx)]

    def numbers(pattern: str, text: str = log) -> list[int]:
        return [int(number) for number in re.findall(pattern, text)]

    return Assembled(
        registers=max(numbers(r"[Uu]sed (\d+) registers")),
        # The assembler does not count it where a kernel is linked to a library.
        shared=sum(numbers(r"\.shared [^;]*\[(\d+)\]", ptx)),
        stack=max(numbers(r"(\d+) bytes stack frame")),
        spilled=sum(numbers(r"(\d+) bytes spill")),
        float64=sum("f64" in types and name not in _MOVES for name, types in instructions),
        divisions=sum(
            name in ("div", "rem") and ("s64" in types or "u64" in types) for name, types in instructions
        ),
    )


def type_from(data: Any) -> Any:
    """A type of Numba from what ``type_of`` in ``cuda_recorded.py`` gives."""
    from numba import types
    from numba.np import numpy_support

    if isinstance(data, dict):
        return types.Array(type_from(data["dtype"]), data["ndim"], data["layout"])
    if isinstance(data, list):
        return types.BaseTuple.from_types([type_from(item) for item in data])
    return types.none if data == "none" else numpy_support.from_dtype(np.dtype(data))


def linked(code: bytes, architecture: str, options: Sequence[str] = ()) -> tuple[str, str]:
    """PTX of a kernel, and what the assembler says of it.

    Args:
        code: of the kernel before its optimisation, which is what numba-cuda links on a GPU.
        architecture: its name.
        options: further ones.
    """
    from cuda.bindings import nvjitlink
    from cuda.pathfinder import find_static_lib

    def link(*more: str, libraries: Sequence[str] = ()) -> tuple[str, str]:
        every = [f"-arch={architecture}", "-lto", *options, *more]
        handle = nvjitlink.create(len(every), every)

        def text(kind: str) -> str:
            made = bytearray(getattr(nvjitlink, f"get_{kind}_size")(handle))
            getattr(nvjitlink, f"get_{kind}")(handle, made)
            return made.decode().strip("\0 \n")

        try:
            nvjitlink.add_data(handle, nvjitlink.InputType.LTOIR, code, len(code), "kernel")
            for name in libraries:
                nvjitlink.add_file(handle, nvjitlink.InputType.LIBRARY, find_static_lib(name))
            nvjitlink.complete(handle)
            return text("linked_ptx") if "-ptx" in more else "", text("info_log")
        except nvjitlink.nvJitLinkError as error:
            raise RuntimeError(f"{error}: {text('error_log')}") from error
        finally:
            nvjitlink.destroy(handle)

    ptx, _ = link("-ptx")
    # Threads of a whole grid wait for each other in a function of this library.
    return ptx, link("-Xptxas=-v", libraries=["cudadevrt"] if "cudaCG" in ptx else [])[1]


def assembled(kernel: Any, signatures: Iterable[Any], architecture: str) -> Assembled:
    """The most that a kernel takes of each resource."""
    from numba import cuda
    from numba.cuda import dispatcher

    # Functions of the device that a kernel calls are compiled for the device in use.
    device = SimpleNamespace(compute_capability=ARCHITECTURES[architecture])
    dispatcher.get_current_device = lambda: device
    known = kernel.targetoptions
    options = {name: known[name] for name in ("fastmath", "launch_bounds") if known.get(name)}
    options |= {"device": False, "abi": "numba", "output": "ltoir", "cc": device.compute_capability}
    limit = known.get("max_registers")
    more = [f"-maxrregcount={limit}"] if limit else []
    found = []
    for signature in signatures:
        code, _ = cuda.compile(kernel.py_func, tuple(map(type_from, signature)), **options)
        found.append(asdict(counted(*linked(code, architecture, more))))
    return Assembled(**{name: max(item[name] for item in found) for name in found[0]})


def reading(function: Any, seen: frozenset[Any] = frozenset()) -> str:
    """Source of a function without its name, and all of its module that it uses."""
    text = re.sub(r"\bdef \w+\(", "def (", inspect.getsource(function), count=1)
    parts = [text, f"{function.__defaults__}"]
    for name in sorted(names_in(function.__code__) & function.__globals__.keys()):
        value = function.__globals__[name]
        inner = getattr(value, "py_func", None)
        if inner is None:
            parts.append(f"{name} = {value!r}")
        elif inner not in seen:
            parts.append(f"{name}: {reading(inner, seen | {function})}")
    return "\n".join(parts)


def names_in(code: CodeType) -> set[str]:
    """Names that a function uses, also within its comprehensions."""
    inner = [constant for constant in code.co_consts if isinstance(constant, CodeType)]
    return {*code.co_names}.union(*map(names_in, inner))


def main(folder: str, share: int, shares: int) -> None:
    """Print what the kernels of this share take."""
    sys.path.insert(0, folder)
    same: dict[str, list[tuple[str, str]]] = {}
    work: dict[str, tuple[Any, list[Any]]] = {}
    for module, kernels in json.load(sys.stdin).items():
        loaded = importlib.import_module(module)
        for name, signatures in kernels.items():
            if signatures:
                kernel = getattr(loaded, name)
                key = reading(kernel.py_func) + json.dumps(signatures)
                same.setdefault(key, []).append((module, name))
                work[key] = kernel, signatures
    results: dict[str, dict[str, dict[str, Any]]] = {}
    for key in list(work)[share::shares]:
        for architecture in ARCHITECTURES:
            try:
                found: Any = asdict(assembled(*work[key], architecture))
            except Exception as error:
                found = f"{type(error).__name__}: {error}"
            for module, name in same[key]:
                results.setdefault(module, {}).setdefault(name, {})[architecture] = found
    print(json.dumps(results))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
