"""Padding with numbers, fixed masks, weights shared with other biases: values and derivatives."""

from __future__ import annotations

import pytest
import torch
from test_modules import OPERATORS, expected_of
from torch import Tensor, nn
from torch.nn import functional as F

import sifrc
from sifrc.spec import spec_to_dict


class Halves(nn.Module):
    """Two dense layers with one weight, and other biases."""

    def __init__(self, first: bool, second: bool) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(3, 3, bias=first), nn.Linear(3, 3, bias=second)
        self.two.weight = self.one.weight

    def forward(self, x: Tensor) -> Tensor:
        left, right = x.split(3, -1)
        return torch.cat([torch.tanh(self.one(left)), self.two(right)], -1)


class Padded(nn.Module):
    """A convolution, padded with a number after it, channels too."""

    def __init__(self, padding: tuple[int, ...], value: float) -> None:
        super().__init__()
        self.conv, self.padding, self.value = nn.Conv2d(2, 3, 2), padding, value

    def forward(self, x: Tensor) -> Tensor:
        padded = F.pad(torch.sigmoid(self.conv(x)), self.padding, value=self.value)
        return torch.sin(padded * padded).flatten(1)


def agrees(module: nn.Module, x: Tensor) -> None:
    """Outputs, gradient and both products against reverse mode."""
    module, x = module.double(), x.double()
    targets = torch.linspace(-1, 1, module(x).numel(), dtype=torch.float64).reshape(module(x).shape)
    spec = sifrc.from_torch(module, x, nn.MSELoss(), target={"operators": list(OPERATORS)})
    generated = sifrc.compile(spec)
    names = {own: spec.names.get(own, own) for own in generated.SHAPES}
    params = {own: module.get_parameter(given).detach() for own, given in names.items()}
    torch.testing.assert_close(generated.predict(params, x), module(x).detach(), rtol=1e-12, atol=1e-12)
    vector = {
        given: torch.linspace(-1, 1, value.numel(), dtype=torch.float64).reshape(value.shape)
        for given, value in module.named_parameters()
    }
    _, gradient, hessian, gauss = expected_of(module, x, F.mse_loss, targets, vector)
    own = {name: vector[given] for name, given in names.items()}
    for function, wanted in (
        (lambda: generated.gradient(params, x, targets), gradient),
        (lambda: generated.hessian_vector_product(params, x, targets, own), hessian),
        (lambda: generated.gauss_newton_vector_product(params, x, targets, own), gauss),
    ):
        for name, value in function().items():
            torch.testing.assert_close(value, wanted[names[name]], rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("first, second", [(True, False), (False, True), (True, True)])
def test_dense_layers_share_a_weight_and_have_other_biases(first: bool, second: bool) -> None:
    torch.manual_seed(0)
    agrees(Halves(first, second), torch.randn(4, 6))


@pytest.mark.parametrize(
    "padding, value", [((1, 0), 0.5), ((0, 1, 2, 1), -2.0), ((1, 1, 0, 2, 1, 2), 1.0)], ids=str
)
def test_padding_with_a_number(padding: tuple[int, ...], value: float) -> None:
    torch.manual_seed(0)
    agrees(Padded(padding, value), torch.randn(3, 2, 4, 3))


def test_much_padding_is_a_formula_and_no_list_of_numbers() -> None:
    torch.manual_seed(0)
    module = Padded((10, 9, 8, 12), 3.0)
    spec = sifrc.from_torch(module, torch.randn(2, 2, 4, 3), nn.MSELoss())
    (table,) = [layer for layer in spec.layers if layer.kind == "table"]
    assert table.shape == (23, 21) and "where(x2 <=" in str(spec_to_dict(spec))
    agrees(Padded((10, 9, 8, 12), 3.0), torch.randn(2, 2, 4, 3))


def test_padding_with_infinity_is_refused() -> None:
    with pytest.raises(sifrc.ModuleImportError, match="padding with inf"):
        sifrc.from_torch(Padded((1, 1), float("inf")), torch.randn(2, 2, 4, 3))


def test_a_fixed_triangle_is_a_formula() -> None:
    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(4, 4)
            self.register_buffer("mask", torch.tril(torch.ones(4, 4)))

        def forward(self, x: Tensor) -> Tensor:
            return torch.tanh(self.fc(x)) * torch.where(self.mask > 0, 0.5, -1.0)

    torch.manual_seed(0)
    module, x = Masked(), torch.randn(3, 4, 4)
    agrees(module, x)
    text = str(spec_to_dict(sifrc.from_torch(module, x.double(), nn.MSELoss())))
    assert "where(x2 <= x1, 0.5, -1" in text
