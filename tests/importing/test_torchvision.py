"""Networks of torchvision, smaller images: outputs and derivatives by the module's own names."""

from __future__ import annotations

import copy
import importlib.util
from typing import Any

import pytest
import torch
from test_modules import OPERATORS, expected_of
from torch import nn

import sifrc

pytestmark = pytest.mark.slow


def models() -> Any:
    """torchvision, also where its operators were built for another torch: none of them is needed here."""
    if importlib.util.find_spec("torchvision") is None:
        pytest.skip("torchvision is not installed")
    library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        try:
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        except RuntimeError:
            break
    import torchvision

    return torchvision.models


NETWORKS: dict[str, tuple[dict[str, Any], int]] = {
    "resnet18": ({}, 32),
    "resnet50": ({}, 32),
    "vgg11": ({}, 32),
    "mobilenet_v2": ({}, 32),
    "convnext_tiny": ({}, 32),
    "efficientnet_b0": ({}, 32),
    "swin_t": ({}, 32),
    "vit": (
        {"image_size": 32, "patch_size": 8, "num_layers": 2, "num_heads": 2, "hidden_dim": 16, "mlp_dim": 32},
        32,
    ),
    "densenet121": ({}, 32),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_gradient_and_products(name: str) -> None:
    """In float64, evaluated, to 1e-9 of the largest entry of each."""
    keys, size = NETWORKS[name]
    torch.manual_seed(0)
    zoo = models()
    make = zoo.VisionTransformer if name == "vit" else zoo.get_model_builder(name)
    module = make(num_classes=5, **keys).double().eval()
    if name == "vgg11":
        module.avgpool, module.classifier[0] = nn.Identity(), nn.Linear(512, 64).double()
        module.classifier[3], module.classifier[6] = nn.Linear(64, 64).double(), nn.Linear(64, 5).double()
    x = torch.randn(2, 3, size, size, dtype=torch.float64)
    loss, targets = nn.CrossEntropyLoss(), torch.tensor([1, 3])
    spec = sifrc.from_torch(module, x, loss, target={"operators": list(OPERATORS)})
    generated: Any = sifrc.compile(spec)
    vector = {own: torch.randn_like(value) for own, value in module.named_parameters()}
    value, *expected = expected_of(copy.deepcopy(module), x, loss, targets, vector)
    held = dict(module.named_parameters()) | dict(module.named_buffers())
    names = {own: spec.names.get(own, own) for own in (*generated.SHAPES, *getattr(generated, "BUFFERS", {}))}
    params = {own: held[given].detach() for own, given in names.items()}
    moved = {own: vector[names[own]] for own in generated.SHAPES}
    torch.testing.assert_close(generated.predict(params, x), module(x).detach(), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(generated.loss(params, x, targets), value, rtol=1e-11, atol=1e-12)
    found = [generated.gradient(params, x, targets)]
    found += [getattr(generated, each)(params, x, targets, moved) for each in OPERATORS[1:]]
    assert {names[own] for own in generated.SHAPES} == set(vector)
    for result, wanted in zip(found, expected, strict=True):
        scale = max(float(each.detach().abs().max()) for each in wanted.values())
        for own, each in result.items():
            torch.testing.assert_close(each, wanted[names[own]].detach(), rtol=0.0, atol=1e-9 * scale)
