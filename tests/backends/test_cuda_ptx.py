"""Kernels of the CUDA modules of the golden specs, compiled to PTX and assembled without a GPU.

What they take is kept in ``golden/cuda_ptx.txt``. Numbers of registers change with the compiler, so the table
is that of the versions in ``PINNED``; without them the tests are skipped. ``SIFRC_CUDA_PYTHON`` is an
interpreter that has them, by default the one that runs the tests. As on a GPU, the library of the wheel
nvidia-nvjitlink optimises kernels, compiles them to PTX and assembles them.
"""

from __future__ import annotations

import difflib
import json
import os
import subprocess
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from cuda_assembled import ARCHITECTURES, Assembled

from sifrc.compiler import Request, compile_spec
from sifrc.spec import load_spec

CUDA = "cuda"
ROOT = Path(__file__).resolve().parents[2]
TABLE = Path(__file__).parent / "golden" / "cuda_ptx.txt"
SPECS = ("mnist_esn", "digits_blocks", "digits_grouped", "digits", "custom")
"""Files of examples/ that generated/ has modules of; first those that take the longest."""

PINNED = {
    "llvmlite": "0.50.0",
    "numba": "0.68.1",
    "numba-cuda": "0.30.4",
    "nvidia-nvjitlink": "13.0.88",
    "nvidia-nvvm": "13.0.88",
}
INSTALL = "pip install 'numba-cuda[cu13]==0.30.4' 'cuda-toolkit==13.0.*' " + " ".join(
    f"{name}=={version}" for name, version in PINNED.items() if name != "numba-cuda"
)

_SYSTEM = "systems are solved in float64"
_SEARCH = "numbers of a search, which is decided in float64"
_SUM = "sums over many entries are made in float64"
WIDE: Mapping[str, str] = {
    "_solve_each": _SYSTEM,
    "_function_each": _SYSTEM,
    "_solve_in_bases": _SYSTEM,
    "_online_steps": "systems and the sum of the objectives, as in the kernels above",
    "_add_up": _SUM,
    **dict.fromkeys((f"_search_{name}" for name in ("largest", "begin", "sums", "move", "end")), _SUM),
    **dict.fromkeys((f"_search_{name}" for name in ("decide", "turn", "scale")), _SEARCH),
}
"""Kernels that compute in float64 in every module -> why."""
SPARE: Mapping[str, str] = {"_fill": "printed in every module; needed for sums that begin with zeros"}
"""Kernels that a module may have without a launch -> why."""

SPILLED: Mapping[str, str] = {
    "_online_steps": "the wait for the whole grid is a call, around which values are kept on the stack"
}
"""Kernels that may keep registers in memory -> why."""

CHILDREN = 2
"""Processes at a time."""

Results = Mapping[str, Mapping[str, Mapping[str, Any]]]
"""Module -> kernel -> architecture -> the fields of ``Assembled``, or an error."""


def child(script: str, arguments: Sequence[str], python: str = sys.executable, **more: Any) -> Any:
    """What a script beside this file prints."""
    command = [python, str(Path(__file__).with_name(script)), *arguments]
    ran = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False, **more)
    assert ran.returncode == 0, ran.stderr[-2000:]
    return json.loads(ran.stdout)


@pytest.fixture(scope="module")
def modules(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The modules of the golden specs, files of one folder."""
    folder = tmp_path_factory.mktemp("cuda_ptx")
    made = {}
    for name in SPECS:
        compiled = compile_spec(load_spec(ROOT / "examples" / f"{name}.yaml"), Request(backend=CUDA))
        made[compiled.name] = folder / f"{compiled.name}.py"
        made[compiled.name].write_text(compiled.text, encoding="utf-8")
    return made


@pytest.fixture(scope="module")
def signatures(modules: Mapping[str, Path]) -> dict[str, dict[str, list[Any]]]:
    """Module -> kernel -> types of the arguments of its launches."""
    env = os.environ | {"NUMBA_ENABLE_CUDASIM": "1", "NUMBA_DISABLE_JIT": "1"}

    def found(name: str) -> Any:
        return child("cuda_recorded.py", [str(modules[name].parent), name], env=env)[name]

    with ThreadPoolExecutor(CHILDREN) as pool:
        return dict(sorted(zip(modules, pool.map(found, modules), strict=True)))


@pytest.fixture(scope="module")
def python() -> str:
    """An interpreter with the pinned versions."""
    python = os.environ.get("SIFRC_CUDA_PYTHON") or sys.executable
    code = (
        "import json, sys; from importlib.metadata import distributions as every;"
        "print(json.dumps({item.metadata['Name']: item.version for item in every()}))"
    )
    ran = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True)
    known = json.loads(ran.stdout)
    other = {name: known.get(name) for name, version in PINNED.items() if known.get(name) != version}
    if other:
        text = ", ".join(f"{name} is {version or 'absent'}" for name, version in other.items())
        pytest.skip(f"kernels are not assembled: {text}; install with: {INSTALL}")
    return python


@pytest.fixture(scope="module")
def results(python: str, signatures: Mapping[str, Any], modules: Mapping[str, Path]) -> Results:
    """What all kernels take."""
    folder = str(next(iter(modules.values())).parent)
    given = json.dumps(signatures)

    def share(number: int) -> Any:
        return child("cuda_assembled.py", [folder, str(number), str(CHILDREN)], python, input=given)

    with ThreadPoolExecutor(CHILDREN) as pool:
        shares = list(pool.map(share, range(CHILDREN)))
    return {
        module: {
            kernel: next(part[module][kernel] for part in shares if kernel in part.get(module, {}))
            for kernel, known in kernels.items()
            if known
        }
        for module, kernels in signatures.items()
    }


def lines(results: Results) -> Iterator[tuple[str, str, str, Any]]:
    """Module, kernel, architecture, and what it takes."""
    for module, kernels in results.items():
        for kernel, found in kernels.items():
            for architecture in ARCHITECTURES:
                yield module, kernel, architecture, found[architecture]


def table(results: Results) -> str:
    """The golden table."""
    head = [
        "What kernels of the CUDA modules of the golden specs take, compiled to PTX and assembled without a",
        "GPU: registers of a thread; bytes of static shared memory, of local memory (stack), and of spilled",
        "registers; float64 instructions and 64-bit integer divisions in the PTX. Written by",
        f"SIFRC_UPDATE=1 pytest tests/backends/{Path(__file__).name}",
        "with these versions, and not compared with what others find:",
        ", ".join(f"{name} {version}" for name, version in PINNED.items()),
    ]
    fields = list(Assembled.__dataclass_fields__)
    rows = [["module", "kernel", "arch", *fields]]
    rows += [
        [*names, *([str(found[field]) for field in fields] if isinstance(found, dict) else ["error"])]
        for *names, found in lines(results)
    ]
    widths = [max(len(row[column]) for row in rows if column < len(row)) for column in range(len(rows[0]))]
    texts = [
        "  ".join(
            cell.ljust(width) if column < 3 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=False))
        )
        for row in rows
    ]
    return "\n".join([*(f"# {line}" for line in head), *(text.rstrip() for text in texts)]) + "\n"


def faults(results: Results, narrow: Collection[str]) -> Iterator[str]:
    """What must not be, a line each; ``narrow`` are the modules in float32."""
    for module, kernel, architecture, found in lines(results):
        name = f"{module}, {kernel}, {architecture}"
        if isinstance(found, str):
            yield f"{name}: {found[-600:]}"
            continue
        if found["spilled"] and kernel not in SPILLED:
            yield f"{name}: {found['spilled']} bytes of registers are spilled"
        if found["float64"] and module in narrow and kernel not in WIDE:
            yield f"{name}: {found['float64']} float64 instructions in a float32 module"


def test_the_table_is_that_of_the_golden_specs() -> None:
    """Every golden module, for each architecture."""
    rows = [line.split() for line in TABLE.read_text(encoding="utf-8").splitlines() if line[0] != "#"]
    golden = {path.stem.removesuffix("_numba") for path in (ROOT / "generated").glob("*_numba.py")}
    for architecture in ARCHITECTURES:
        assert {row[0].removesuffix("_cuda") for row in rows if row[2] == architecture} == golden


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_every_kernel_is_launched(signatures: Mapping[str, Mapping[str, list[Any]]]) -> None:
    """Operators, steps and epochs leave none out: neither here nor in the table."""
    never = [
        (module, kernel)
        for module, kernels in signatures.items()
        for kernel, known in kernels.items()
        if not known and kernel not in SPARE
    ]
    assert signatures and all(signatures.values())
    assert not never


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_kernels_fit(results: Results, modules: Mapping[str, Path]) -> None:
    """Kernels compile, spill nothing, and compute in float64 only where they are meant to."""
    narrow = {
        module for module, file in modules.items() if "DTYPE = np.float32" in file.read_text(encoding="utf-8")
    }
    found = list(faults(results, narrow))
    assert not found, "\n".join(found)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_table(results: Results) -> None:
    """Run with SIFRC_UPDATE=1 to write it anew, and review the difference as code."""
    now = table(results)
    if os.environ.get("SIFRC_UPDATE"):
        TABLE.write_text(now, encoding="utf-8")
    known = TABLE.read_text(encoding="utf-8")
    difference = difflib.unified_diff(known.splitlines(), now.splitlines(), "committed", "now", n=0)
    assert known == now, "\n".join(difference)
