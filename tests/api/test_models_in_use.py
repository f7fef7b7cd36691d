"""Models as people have them: wrapped, compiled, copied, channels last; closures and losses of any form."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn import utils
from torch.nn.utils import parametrizations, prune

import sifrc

OPTIONS: dict[str, Any] = {"method": "ea_cg", "kind": "ggn"}


def model_of() -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(nn.Conv2d(2, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(64, 3)).double()


def batch_of(samples: int = 8) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(samples)
    return torch.randn(samples, 2, 6, 6, generator=generator, dtype=torch.float64), torch.arange(samples) % 3


def steps_of(model: nn.Module, *batches: tuple[Tensor, Tensor], example: Any = None) -> list[Tensor]:
    """Parameters after some steps."""
    optimizer = sifrc.optimizer(model, nn.CrossEntropyLoss(), example=example or batches[0], **OPTIONS)
    for batch in batches:
        optimizer.step(*batch)
    return [value.detach().clone() for value in model.parameters()]


@pytest.fixture
def process_group() -> Iterator[None]:
    """One process that could talk to others."""
    store = torch.distributed.HashStore()
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


def compiled(model: nn.Module) -> nn.Module:
    found: Any = torch.compile(model, backend="eager")
    return found


WRAPPED: dict[str, Callable[[nn.Module], nn.Module]] = {
    "DataParallel": nn.DataParallel,
    "DistributedDataParallel": nn.parallel.DistributedDataParallel,
    "torch.compile": compiled,
    "compiled within parallel": lambda model: nn.DataParallel(compiled(model)),
    "channels last": lambda model: model.to(memory_format=torch.channels_last),
}


@pytest.mark.usefixtures("process_group")
@pytest.mark.parametrize("name", WRAPPED)
def test_wrapped_models_take_the_steps_of_the_model(name: str) -> None:
    """And operators have its products."""
    plain, wrapped = model_of(), WRAPPED[name](model_of())
    batches = [batch_of(8), batch_of(5), batch_of(1)]  # of any size
    given = batches
    if name == "channels last":
        given = [(inputs.contiguous(memory_format=torch.channels_last), t) for inputs, t in batches]
    expected = steps_of(plain, *batches)
    torch.testing.assert_close(steps_of(wrapped, *given), expected)
    vector = {own: torch.ones_like(value) for own, value in wrapped.named_parameters()}
    product = sifrc.operators(wrapped, "cross_entropy", [given[0]]).G @ vector
    other = {own: torch.ones_like(value) for own, value in plain.named_parameters()}
    reference = sifrc.operators(plain, "cross_entropy", [batches[0]]).G @ other
    assert list(product) == list(vector)
    torch.testing.assert_close(list(product.values()), list(reference.values()))


def test_copies_of_model_and_optimizer_go_on_alone() -> None:
    model, batch = model_of(), batch_of()
    optimizer = sifrc.optimizer(model, nn.CrossEntropyLoss(), example=batch, **OPTIONS)
    optimizer.step(*batch)
    twin, other = copy.deepcopy((model, optimizer))
    before = [value.detach().clone() for value in model.parameters()]
    other.step([batch, batch_of(5)])
    with other.accumulate():
        for part in (batch, batch_of(5)):
            other.step(*part)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), before, strict=True))
    for _ in range(2):
        optimizer.step([batch, batch_of(5)])
    torch.testing.assert_close(list(model.parameters()), list(twin.parameters()))


LOSSES: dict[str, Any] = {
    "module": nn.CrossEntropyLoss(),
    "function": F.cross_entropy,
    "function with arguments": partial(F.cross_entropy, label_smoothing=0.1),
}


@pytest.mark.parametrize("name", LOSSES)
def test_closures_of_the_usual_kind(name: str) -> None:
    """That clear gradients, compute the loss, call backward and return it."""
    loss, (inputs, targets) = LOSSES[name], batch_of()
    model, twin = model_of(), model_of()
    optimizer = sifrc.optimizer(model, loss, example=(inputs, targets), **OPTIONS)
    other = sifrc.optimizer(twin, loss, example=(inputs, targets), **OPTIONS)

    def closure() -> Tensor:
        optimizer.zero_grad()
        found: Tensor = loss(model(inputs), targets)
        found.backward()
        return found

    for _ in range(2):
        torch.testing.assert_close(optimizer.step(closure), other.step(inputs, targets))
    torch.testing.assert_close(list(model.parameters()), list(twin.parameters()))


def test_a_batch_that_was_seen_stays_for_further_steps() -> None:
    model, twin, (inputs, targets) = model_of(), model_of(), batch_of()
    criterion = nn.CrossEntropyLoss()
    optimizer = sifrc.optimizer(model, criterion, example=(inputs, targets), **OPTIONS)
    other = sifrc.optimizer(twin, criterion, example=(inputs, targets), **OPTIONS)
    criterion(model(inputs), targets)
    for _ in range(2):
        torch.testing.assert_close(optimizer.step(), other.step(inputs, targets))


def test_losses_of_ones_own_say_what_would_do() -> None:
    model, (inputs, targets) = model_of(), batch_of()

    def own(outputs: Tensor, wanted: Tensor) -> Tensor:
        return F.cross_entropy(outputs, wanted)

    optimizer = sifrc.optimizer(model, "cross_entropy", example=(inputs, targets), **OPTIONS)
    with pytest.raises(sifrc.SifrcError, match="no targets"):
        optimizer.step(lambda: own(model(inputs), targets))


def dense() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(72, 5), nn.Tanh(), nn.Linear(5, 3)).double()


def norms(change: Callable[..., Any], *arguments: Any) -> nn.Module:
    model = dense()
    change(model[1], *arguments)
    return model.double()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("change", [utils.weight_norm, parametrizations.weight_norm])
def test_weights_that_are_computed_are_derived_through(change: Any) -> None:
    """Against differences of gradients: PyTorch's second derivatives of its weight norm are others."""
    model, (inputs, targets) = norms(change), batch_of()
    params = dict(model.named_parameters())
    vector = {name: torch.randn_like(value) for name, value in params.items()}
    product = sifrc.operators(model, "cross_entropy", [(inputs, targets)]).H @ vector

    def slopes(length: float) -> tuple[Tensor, ...]:
        with torch.no_grad():
            for name, value in params.items():
                value.add_(vector[name], alpha=length)
        return torch.autograd.grad(F.cross_entropy(model(inputs), targets), list(params.values()))

    one, other = slopes(1e-6), slopes(-2e-6)
    for name, above, below in zip(params, one, other, strict=True):
        torch.testing.assert_close(product[name], (above - below) / 2e-6, rtol=1e-6, atol=1e-8)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("change", [utils.spectral_norm, parametrizations.spectral_norm])
def test_spectral_norm_changes_while_training(change: Any) -> None:
    model, batch = norms(change), batch_of()
    with pytest.raises(sifrc.SifrcError, match=r"spectral_norm of '1.*while training(.|\n)*model\.eval\(\)"):
        sifrc.optimizer(model, example=batch, **OPTIONS)
    optimizer = sifrc.optimizer(model.eval(), example=batch)
    assert bool(optimizer.step(*batch).isfinite())


def test_pruned_weights_stay_zero() -> None:
    model, batch = norms(prune.l1_unstructured, "weight", 0.5), batch_of()
    optimizer = sifrc.optimizer(model, example=batch, **OPTIONS)
    objectives = [float(optimizer.step(*batch)) for _ in range(3)]
    model(batch[0])
    assert objectives[2] < objectives[0]
    assert bool((model[1].weight[model[1].weight_mask == 0] == 0).all())


def test_half_precision_says_what_would_do() -> None:
    model, (inputs, targets) = model_of().half(), batch_of()
    for use in (
        lambda: sifrc.optimizer(model, example=(inputs.half(), targets), **OPTIONS),
        lambda: sifrc.operators(model, "cross_entropy", [(inputs.half(), targets)]),
        lambda: sifrc.from_torch(model, inputs.half()),
    ):
        with pytest.raises(sifrc.SifrcError, match=r"float16(.|\n)*module\.float\(\)"):
            use()


SPEC = {"of": "the file that models are defined in, which has nothing to do with them"}


class Nested(nn.Module):
    """Modules within modules, in a file with a global SPEC."""

    def __init__(self) -> None:
        super().__init__()
        inner = nn.Sequential(nn.Linear(4, 5), nn.Tanh())
        self.body = nn.ModuleDict({"encoder": inner, "head": nn.Linear(5, 3)})
        self.double()

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.body["head"](self.body["encoder"](x))
        return found


def test_nested_names_need_no_map() -> None:
    model, inputs, targets = Nested(), torch.randn(6, 4, dtype=torch.float64), torch.arange(6) % 3
    vector = {name: torch.randn_like(value) for name, value in model.named_parameters()}
    product = sifrc.operators(model, "cross_entropy", [(inputs, targets)]).H @ vector
    loss = F.cross_entropy(model(inputs), targets)
    slopes = torch.autograd.grad(loss, list(model.parameters()), create_graph=True)
    along = sum((a * b).sum() for a, b in zip(slopes, vector.values(), strict=True))
    expected = torch.autograd.grad(along, list(model.parameters()))
    assert list(product) == list(vector)
    torch.testing.assert_close(list(product.values()), list(expected))
    optimizer = sifrc.optimizer(model, example=(inputs, targets), **OPTIONS)
    assert optimizer.step(inputs, targets) > optimizer.step(inputs, targets)
    assert SPEC
