"""The example with ``torch.func``: an ensemble is its members one by one, derivatives are those of torch."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from library_examples import example
from torch.func import functional_call, hessian, jacfwd


@cache
def module() -> Any:
    """Imported when the first test runs."""
    return example("with_torch_func")


def test_members_of_an_ensemble_are_trained_as_alone() -> None:
    """Each loss falls to what its network reaches by itself."""
    generated = module().compiled()
    params, losses = module().train_ensemble(generated, 3, steps=4)
    x, t = module().batch()
    for k, loss in enumerate(losses):
        own = {name: value[k] for name, value in params.items()}
        assert float(generated.loss(own, x, t)) == pytest.approx(loss, rel=1e-12)
        alone = generated.initialize(seed=k)
        assert loss < 0.5 * float(generated.loss(alone, x, t))
    _, first = module().train_ensemble(generated, 1, steps=4)
    assert first[0] == pytest.approx(losses[0], rel=1e-9)


def test_third_derivatives() -> None:
    """Against the change of the Hessian by torch.func along the direction."""
    generated = module().compiled()
    params, (x, t) = generated.initialize(seed=0), module().batch()
    v = {name: torch.full_like(value, 0.3) for name, value in params.items()}
    loss, network = torch.nn.CrossEntropyLoss(), generated.Network()

    def change(size: torch.Tensor) -> dict[str, torch.Tensor]:
        moved = {name: value + size * v[name] for name, value in params.items()}
        second = hessian(lambda own: loss(functional_call(network, own, (x,)), t))(moved)
        return {a: sum((second[a][b] * v[b]).flatten(v[a].ndim).sum(-1) for b in v) for a in v}

    expected = jacfwd(change)(torch.zeros((), dtype=torch.float64))
    for found in module().third_derivative(generated, params, v):
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value, rtol=1e-10, atol=1e-12)


def test_main(capsys: pytest.CaptureFixture[str]) -> None:
    module().main()
    text = capsys.readouterr().out
    assert text.count("True") == 4 and "False" not in text
