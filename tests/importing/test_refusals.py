"""What cannot be imported is one error: operator, module, line, what would do."""

from __future__ import annotations

import re
import sys
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import sifrc


class Wrapped(nn.Module):
    """A function of the output of a dense layer."""

    def __init__(self, function: Any, kind: Any = nn.Linear, *sizes: Any) -> None:
        super().__init__()
        self.inner, self.function = kind(*(sizes or (4, 4))), function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self.inner(x))


X = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))

REFUSED: dict[str, tuple[Any, Any, str]] = {
    "an operator without a layer": (lambda y: torch.sort(y, -1)[0], X, "no layer does what sort does"),
    "samples that are summed": (lambda y: y - y.mean(0), X, "along the samples"),
    "one sample": (lambda y: y + y[0], X, "one of the samples by itself"),
    "some samples": (lambda y: y[:1] * 0 + y, X, "a part of the samples"),
    "samples multiplied with each other": (lambda y: y @ y.T, X, "samples"),
    "a mask of inputs": (lambda y: y.masked_fill(y > 0, 1.0), X, "no layer does what gt does"),
    "computed indices": (lambda y: y[:, y.argmax(-1)], X, "no layer does what argmax does"),
    "several outputs": (lambda y: (y, y * 2), X, "returns 2 tensors"),
    "control flow": (lambda y: y if y.sum() > 0 else -y, X, "torch.export cannot trace"),
    "no samples at the end": (lambda y: torch.tanh(y).T, X, "first dimension of what the module returns"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_with_place_and_hint(name: str) -> None:
    function, example, words = REFUSED[name]
    with pytest.raises(sifrc.ModuleImportError) as caught:
        sifrc.from_torch(Wrapped(function), example)
    assert words in caught.value.message, caught.value.message
    if "(operator" in caught.value.message:
        assert "aten." in caught.value.message and "test_refusals.py:" in caught.value.message


def test_what_cannot_be_traced_is_said_once(capfd: pytest.CaptureFixture[str]) -> None:
    """With the line of the module, and without the graph as far as torch came; what that writes stays."""

    class Branching(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            if self.inner(x).sum() > 0:
                return x
            return self.inner(x)

    with pytest.raises(sifrc.ModuleImportError) as caught:
        sifrc.from_torch(Branching(), X)
    assert re.search(r"test_refusals\.py:\d+: if self\.inner\(x\)\.sum\(\) > 0:", caught.value.message)
    assert capfd.readouterr().err == ""

    class Talking(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            print("here", file=sys.stderr)
            return super().forward(x)

    sifrc.from_torch(Talking(4, 3), X, check=False)
    assert "here" in capfd.readouterr().err


@pytest.mark.parametrize(
    "example, words",
    [
        (X.double(), "the module raises on the example.*same dtype"),
        (torch.randn(3, 5), r"the module raises on the example.*shapes"),
        (X * float("nan"), "on the example that are not finite"),
        (X[:0], "without samples"),
    ],
    ids=["dtype", "shape", "not finite", "empty"],
)
def test_examples_that_do_not_go_with_the_module(
    example: Tensor, words: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """Also where a network of the module is in the cache already."""
    module = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))
    sifrc.from_torch(module, X)
    with pytest.raises(sifrc.ModuleImportError, match=words):
        sifrc.from_torch(module, example)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    "module, words",
    [
        (nn.Linear(4, 3).half(), "parameters are float16"),
        (nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 3).double()), "one dtype"),
        (nn.Tanh(), "has no parameters"),
        ("resnet", "from a torch.nn.Module"),
        (torch.jit.script(nn.Linear(4, 3)), "scripted"),
    ],
)
def test_modules_of_the_wrong_kind(module: Any, words: str) -> None:
    with pytest.raises(sifrc.ModuleImportError, match=words) as caught:
        sifrc.from_torch(module, X)
    assert caught.value.hint


def test_unknown_losses_name_the_known_ones() -> None:
    with pytest.raises(sifrc.ModuleImportError, match="CTCLoss") as caught:
        sifrc.from_torch(nn.Linear(4, 3), X, nn.CTCLoss())
    assert "CrossEntropyLoss" in str(caught.value)
    with pytest.raises(sifrc.ModuleImportError, match="does not end with log_softmax"):
        sifrc.from_torch(nn.Linear(4, 3), X, nn.NLLLoss())


def test_the_comparison_finds_a_wrong_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """A rule that is wrong is seen at once."""
    from sifrc.importing import translate
    from sifrc.importing.rules import RULES

    wrong = dict(RULES) | {"tanh": RULES["sigmoid"]}
    monkeypatch.setattr(translate, "RULES", wrong)
    with pytest.raises(sifrc.ModuleImportError, match="other numbers than the module"):
        sifrc.from_torch(Wrapped(torch.tanh), X)
    assert sifrc.from_torch(Wrapped(torch.tanh), X, check=False).layers[-1].kind == "activation"
