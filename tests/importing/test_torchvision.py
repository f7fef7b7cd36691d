"""Networks of torchvision, smaller images: outputs and derivatives by the module's own names."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from test_modules import OPERATORS, expected_of
from torch import nn
from torchvision_here import torchvision_loads

import sifrc

pytestmark = pytest.mark.slow


def models() -> Any:
    """torchvision, also where its operators were built for another torch: none of them is needed here."""
    if not torchvision_loads():
        pytest.skip("torchvision is not installed")
    import torchvision

    return torchvision.models


SWIN = {
    "patch_size": [4, 4],
    "embed_dim": 8,
    "depths": [2, 2],
    "num_heads": [1, 2],
    "window_size": [2, 2],
    "stochastic_depth_prob": 0.1,
}
NETWORKS: dict[str, tuple[str, dict[str, Any]]] = {
    "resnet18": ("resnet18", {}),
    "resnet50": ("resnet50", {}),
    "vgg11": ("vgg11", {}),
    "mobilenet_v2": ("mobilenet_v2", {}),
    "convnext_tiny": ("convnext_tiny", {}),
    "efficientnet_b0": ("efficientnet_b0", {}),
    "densenet121": ("densenet121", {}),
    "swin": ("SwinTransformer", SWIN),
    "swin v2": ("SwinTransformer", SWIN),
    "vit": (
        "VisionTransformer",
        {"image_size": 32, "patch_size": 8, "num_layers": 2, "num_heads": 2, "hidden_dim": 16, "mlp_dim": 32},
    ),
}
"""Function or class of torchvision, and its arguments; transformers are smaller than those with a name."""


def made(name: str) -> nn.Module:
    """A network for five classes of images of 32 x 32, evaluated, in float64."""
    zoo = models()
    builder, keys = NETWORKS[name]
    if name == "swin v2":
        blocks = zoo.swin_transformer
        keys = keys | {"block": blocks.SwinTransformerBlockV2, "downsample_layer": blocks.PatchMergingV2}
    torch.manual_seed(0)
    module: nn.Module = getattr(zoo, builder)(num_classes=5, **keys).double().eval()
    if name == "vgg11":
        module.avgpool, module.classifier[0] = nn.Identity(), nn.Linear(512, 64).double()
        module.classifier[3], module.classifier[6] = nn.Linear(64, 64).double(), nn.Linear(64, 5).double()
    return module


@pytest.mark.parametrize("name", NETWORKS)
def test_gradient_and_products(name: str) -> None:
    """In float64, evaluated, to 1e-9 of the largest entry of each."""
    module = made(name)
    x = torch.randn(2, 3, 32, 32, dtype=torch.float64)
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
