"""Examples with other libraries, for tests: imported where the libraries are installed."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType

import pytest
from torchvision_here import torchvision_loads

FOLDER = Path(__file__).resolve().parents[2] / "examples"
INSTALL = 'pip install "sifrc[examples]"'


def needs(*libraries: str) -> None:
    """Skip what needs libraries that are not installed; a failure where SIFRC_EXTRAS has the examples."""
    missing = [name for name in libraries if importlib.util.find_spec(name) is None]
    if not missing:
        return
    reason = f"{', '.join(missing)} not installed: {INSTALL}"
    if "examples" in os.environ.get("SIFRC_EXTRAS", "").split(","):
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason, allow_module_level=True)


def example(name: str, *libraries: str) -> ModuleType:
    """An example as a module."""
    needs(*libraries)
    torchvision_loads()
    spec = importlib.util.spec_from_file_location(f"examples_{name}", FOLDER / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module
