"""Sums of products of two tangents with a weight, some entries at a time: where they are, and values."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest
import torch

from sifrc.backends.torch_eager import functions
from sifrc.cache import module_from_cache
from sifrc.compiler import Request, compile_spec
from sifrc.spec import Spec, build_spec
from sifrc.verify.points import random_point

SPEC = build_spec(
    {
        "sifrc": 1, "name": "weighted", "loss": "cross_entropy", "dtype": "float64",
        "partition": "canonical",
        "network": {"input": {"name": "image", "size": [3, 4]}, "layers": [
            {"name": "up", "type": "dense", "units": 6, "activation": "tanh"},
            {"name": "attn", "type": "attention", "heads": 2, "causal": True},
            {"name": "norm", "type": "layer_norm"},
            {"name": "flat", "type": "flatten"},
            {"name": "out", "type": "dense", "units": 3}]},
    }
)  # fmt: skip


def module_of(spec: Spec, folder: Path) -> ModuleType:
    request = Request(backend="torch", method="none", operators=("summary",))
    return module_from_cache(f"weighted_{folder.name}", lambda: compile_spec(spec, request).text, folder)


def test_values(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All orders, as in a module that has the arrays."""
    found = module_of(SPEC, tmp_path / "parts")
    with monkeypatch.context() as patch:
        patch.setattr(functions, "weighted_refs", lambda *_: frozenset())
        plain = module_of(SPEC, tmp_path / "whole")
    text, other = (Path(str(module.__file__)).read_text() for module in (found, plain))
    assert text.count("_weighted_product(") > 4 and "_weighted_product(" not in other
    point = random_point(SPEC, 3, 4)
    params, direction = ({n: torch.from_numpy(v) for n, v in t.items()} for t in (point.params, point.vector))
    batch = torch.from_numpy(point.inputs), torch.from_numpy(point.targets)
    for choice in ({"order": 2}, {"order": 3}, {"order": 3, "full": True}):
        one, two = (m.summary(params, *batch, direction, **choice) for m in (found, plain))
        for name in "gH":
            torch.testing.assert_close(getattr(one, name), getattr(two, name), rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("entries", [(1, 1), (7, 5), (16384, 1), (1000, 33)])
def test_helper(entries: tuple[int, int], tmp_path: Path) -> None:
    """One part, whole parts, and a rest; also for many weights at once."""
    helper = module_of(SPEC, tmp_path / "parts")._weighted_product
    generator = torch.Generator().manual_seed(0)
    weight, rows, columns = (
        torch.randn(*shape, generator=generator, dtype=torch.float64)
        for shape in (entries, (4, *entries), (3, *entries))
    )
    expected = torch.einsum("pi,rpi,cpi->rc", weight, rows, columns)
    torch.testing.assert_close(helper(weight, rows, columns), expected, rtol=1e-11, atol=1e-11)
    many = torch.vmap(helper, in_dims=(0, None, None))(torch.stack([weight, 2 * weight]), rows, columns)
    torch.testing.assert_close(many, torch.stack([expected, 2 * expected]), rtol=1e-11, atol=1e-11)
