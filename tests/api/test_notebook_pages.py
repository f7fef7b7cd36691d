"""What notebooks show of specs, reports and operators: well-formed HTML with what is in them."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree

import torch
from layer_cases import LAYER_CASES

import sifrc
from sifrc.spec import build_spec
from sifrc.verify.table import Report, Row


def cells(page: str) -> list[list[str]]:
    """Texts of the rows of the tables of a page."""
    tree = ElementTree.fromstring(f"<div>{page}</div>")
    return [[cell.text or "" for cell in row] for row in tree.iter("tr")]


def test_specs_of_every_layer() -> None:
    for name, data in LAYER_CASES.items():
        spec = build_spec(data)
        rows = cells(spec._repr_html_())
        own = [*(source.name for source in spec.inputs), *(layer.name for layer in spec.layers)]
        assert [row[0] for row in rows] == ["name", *own], name


def test_a_spec_of_a_module_says_what_its_tensors_are_called() -> None:
    module = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3))
    page = sifrc.from_torch(module, torch.randn(5, 4), torch.nn.CrossEntropyLoss())._repr_html_()
    assert cells(page)[1:] == [
        ["input", "input", "", "4", ""],
        ["layer_0", "dense", "input", "8", "weight 8 × 4 = 0.weight, bias 8 = 0.bias"],
        ["layer_1", "activation, tanh", "layer_0", "8", ""],
        ["layer_2", "dense", "layer_1", "3", "weight 3 × 8 = 2.weight, bias 3 = 2.bias"],
    ]
    assert "loss: cross_entropy, of classes, mean over samples; dtype: float32" in page


def test_a_report_keeps_its_letters_and_its_verdict() -> None:
    rows = (Row("gradient", 2, "duals & more", 49.2, 40.0, False, "a < b"),)
    page = Report("tiny", rows, (("gradient", 2),))._repr_html_()
    assert cells(page)[1] == ["gradient", "2", "duals & more", "49.2", "40.0", "FAILED", "a < b"]
    assert page.endswith("<p>tiny: NOT passed (not checked: gradient at level 2)</p>")


def test_operators_by_their_parameters() -> None:
    layers = [{"name": "fc", "type": "dense", "units": 2}]
    network = {"input": {"size": 3}, "layers": layers}
    spec: dict[str, Any] = {"sifrc": 1, "name": "line", "loss": "squared_error", "network": network}
    page = sifrc.operators(spec, None, (torch.zeros(4, 3), torch.zeros(4, 2)))._repr_html_()
    assert cells(page)[1:] == [["fc.weight", "2 × 3", "6"], ["fc.bias", "2", "2"]]
    assert "operators of line: 8 parameters, 4 samples in 1 batches" in page
