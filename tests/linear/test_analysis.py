"""``sifrc analyze``: numbers against dense matrices, files, JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

import sifrc
from sifrc.cli.main import app
from sifrc.linear.analysis import analyze

FACTORY = """
import torch

def make():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 5), torch.nn.Tanh(), torch.nn.Linear(5, 3)).double()
    return model, (torch.randn(20, 4).double(), torch.arange(20) % 3), torch.nn.CrossEntropyLoss()
"""


def subject() -> tuple[Any, Any, Any]:
    names: dict[str, Any] = {}
    exec(FACTORY, names)
    return names["make"]()


def test_numbers_are_those_of_the_dense_matrices() -> None:
    model, (x, t), loss = subject()
    ops = sifrc.operators(model, loss, (x, t))
    found = analyze(ops, top=4, probes=200, steps=60)
    values = list(model.parameters())
    gradient = torch.autograd.grad(loss(model(x), t), values, create_graph=True)
    flat = torch.cat([g.flatten() for g in gradient])
    rows = [torch.autograd.grad(each, values, retain_graph=True) for each in flat]
    hessian = torch.stack([torch.cat([g.flatten() for g in row]) for row in rows])
    eigenvalues = torch.linalg.eigvalsh(hessian)
    torch.testing.assert_close(torch.tensor(found.largest).double(), eigenvalues.flip(0)[:4])
    torch.testing.assert_close(torch.tensor(found.smallest).double(), eigenvalues[:4])
    assert found.objective == pytest.approx(float(loss(model(x), t))) and found.samples == 20
    parts = {"0": slice(0, 25), "2": slice(25, 43)}
    unit = torch.zeros(43, 2, dtype=torch.float64)
    for n, module in enumerate(found.modules):
        block = hessian[parts[module.name], parts[module.name]]
        assert module.largest == pytest.approx(float(torch.linalg.eigvalsh(block)[-1]))
        assert abs(module.hessian.value - float(block.trace())) < 4 * module.hessian.error
        part = flat.detach()[parts[module.name]]
        assert module.gradient == pytest.approx(float(part.norm()))
        unit[parts[module.name], n] = part / part.norm()
    torch.testing.assert_close(found.interactions, unit.T @ hessian @ unit)
    assert json.loads(json.dumps(found.to_dict()))["modules"][1]["name"] == "2"


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a factory with another state, and of a spec; pictures, tables, JSON, errors."""
    (tmp_path / "net_to_analyze.py").write_text(FACTORY)
    monkeypatch.chdir(tmp_path)
    model, batch, loss = subject()
    with torch.no_grad():
        model[0].weight *= 2
    torch.save(model.state_dict(), tmp_path / "state.pt")
    run = CliRunner().invoke
    given = ["analyze", "net_to_analyze:make", "--top", "2", "--probes", "4"]
    result = run(app, [*given, "--checkpoint", "state.pt", "--json"])
    assert result.exit_code == 0, result.output
    ops = sifrc.operators(model, loss, batch)
    assert json.loads(result.output)["hessian"]["largest"][0] == pytest.approx(
        float(ops.H.eigsh(1).values[0])
    )
    result = run(app, [*given, "-o", "out"])
    assert result.exit_code == 0, result.output
    assert "largest eigenvalue" in result.output and "sequential: 43 parameters" in result.output
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert written == {"analysis.json", "spectrum.png", "modules.png", "interactions.png"}
    spec = tmp_path / "net.yaml"
    layers = "[{name: fc, type: dense, units: 10}]"
    spec.write_text(
        "sifrc: 1\nname: net\nloss: cross_entropy\nnetwork:\n"
        f"  input: {{size: 64}}\n  layers: {layers}\ntraining: {{data: digits}}\n"
    )
    result = run(app, ["analyze", "net.yaml", "--samples", "30", "--top", "1"])
    assert result.exit_code == 0, result.output
    assert "net: 650 parameters, 30 samples" in result.output
    assert run(app, ["analyze", "none.yaml"]).exit_code == 1
