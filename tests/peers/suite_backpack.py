"""BackPACK's test problems, with ``sifrc.operators`` in the place of its extensions.

Their tests compare ``BackpackExtensions`` with ``AutogradExtensions``, which takes everything from PyTorch's
autograd. The classes here answer in the place of the first. BackPACK's gradients and diagonals of single
samples have the share of the sample in a mean in them; those of sifrc are of the objective of the sample.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Mapping
from functools import cached_property
from types import MappingProxyType, ModuleType
from typing import Any

import torch
from suite_cases import Driven, NotApplicable, Used
from torch import Tensor, nn

import sifrc

__all__ = ["FILES", "TESTS", "prepare"]

_KEPT: list[Any] = []


def prepare() -> None:
    """Make what their tests import importable, where no case needs what it does."""
    if importlib.util.find_spec("pytorch_memlab") is None:
        # Of tests of how much memory is used, none of which is driven.
        module = ModuleType("pytorch_memlab")
        module.MemReporter = None  # type: ignore[attr-defined]
        sys.modules[module.__name__] = module
    try:
        importlib.import_module("torchvision")
    except RuntimeError:  # its operators were built for another torch
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]
        _KEPT.append(torch.library.Library("torchvision", "DEF"))
        for name in ("nms", "qnms"):
            _KEPT[0].define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")


class Asked:
    """Answers of ``sifrc.operators`` for a model, a loss and a batch, in the order of the parameters."""

    def __init__(self, model: nn.Module, loss: nn.Module, inputs: Tensor, targets: Tensor) -> None:
        self.model, self.loss, self.inputs, self.targets = model, loss, inputs, targets

    @cached_property
    def operators(self) -> Any:
        Used.once()
        return sifrc.operators(self.model, self.loss, (self.inputs, self.targets), progress=False)

    @property
    def share(self) -> float:
        """Of a sample in the objective."""
        return 1.0 / len(self.inputs) if self.loss.reduction == "mean" else 1.0  # type: ignore[operator]

    def in_order(self, found: Mapping[str, Tensor]) -> list[Tensor]:
        """Of parameters that are trained, as the model has them."""
        names = [name for name, value in self.model.named_parameters() if value.requires_grad]
        assert sorted(names) == sorted(found), (names, list(found))
        return [found[name] for name in names]

    def split(self, flat: Tensor) -> list[Tensor]:
        return self.in_order(self.operators.space.split(flat))

    # -- quantities

    def gradients(self) -> list[Tensor]:
        return [self.share * one for one in self.in_order(self.operators.sample_gradients())]

    def norms(self) -> list[Tensor]:
        found = self.operators.sample_gradients("norm")
        return [self.share**2 * one for one in self.in_order(found)]

    def squares(self) -> list[Tensor]:
        found = self.operators.sample_gradients("second")
        return [len(self.inputs) * self.share**2 * one for one in self.in_order(found)]

    def variances(self) -> list[Tensor]:
        found = self.operators.sample_gradients("variance")
        return [self.share**2 * one for one in self.in_order(found)]

    def diagonal(self, operator: Any) -> list[Tensor]:
        """Exact, or by products where nothing computes it."""
        op = getattr(self.operators, operator) if isinstance(operator, str) else operator
        exact = op.exact_diagonal()
        return self.split(op.to_dense().diagonal() if exact is None else exact)

    def sample_diagonals(self, operator: str) -> list[Tensor]:
        """(N, …): each sample is a batch of its own."""
        each = []
        for n in range(len(self.inputs)):
            alone = Asked(self.model, self.loss, self.inputs[n : n + 1], self.targets[n : n + 1])
            each.append(alone.diagonal(operator))
        return [self.share * torch.stack(rows) for rows in zip(*each, strict=True)]

    def dense(self, operator: Any) -> Tensor:
        """In the order of the parameters."""
        space = self.operators.space
        names = [name for name, value in self.model.named_parameters() if value.requires_grad]
        order = space.positions(names)
        return operator.to_dense()[order][:, order]

    def blocks(self, operator: Any) -> list[Tensor]:
        """A dense block of each parameter."""
        return self.in_order({name: part.to_dense() for name, part in operator.per("parameter").items()})

    def repeated(self, count: int) -> Asked:
        """Every sample several times."""
        return Asked(self.model, self.loss, _times(self.inputs, count), _times(self.targets, count))


def _times(value: Tensor, count: int) -> Tensor:
    return value.repeat(count, *[1] * (value.ndim - 1))


class Extensions:
    """In the place of their ``BackpackExtensions``."""

    def __init__(self, problem: Any) -> None:
        self.problem = problem
        self.asked = Asked(problem.model, problem.loss_function, problem.input, problem.target)

    def batch_grad(self, subsampling: list[int] | None) -> list[Tensor]:
        found = self.asked.gradients()
        return found if subsampling is None else [one[subsampling] for one in found]

    def batch_l2_grad(self) -> list[Tensor]:
        return self.asked.norms()

    def sgs(self) -> list[Tensor]:
        return self.asked.squares()

    def variance(self) -> list[Tensor]:
        return self.asked.variances()

    def diag_ggn(self) -> list[Tensor]:
        return self.asked.diagonal("G")

    def diag_ggn_exact_batch(self) -> list[Tensor]:
        return self.asked.sample_diagonals("G")

    def diag_h(self) -> list[Tensor]:
        return self.asked.diagonal("H")

    def diag_h_batch(self) -> list[Tensor]:
        return self.asked.sample_diagonals("H")

    def ggn(self, subsampling: list[int] | None = None) -> Tensor:
        asked = self.asked
        if subsampling is None:
            return asked.dense(asked.operators.G)
        some = Asked(asked.model, asked.loss, asked.inputs[subsampling], asked.targets[subsampling])
        return some.dense(some.operators.G) * (asked.share / some.share)

    def kflr_as_mat(self) -> list[Tensor]:
        return self.asked.blocks(self.asked.operators.kronecker("ggn"))

    def kfra_as_mat(self) -> list[Tensor]:
        return self.asked.blocks(self.asked.operators.kronecker("kfra"))

    def kfac_as_mat(self, mc_samples: int) -> list[Tensor]:
        many = self._sampled(mc_samples)
        return [
            self._weight(mc_samples) * one for one in many.blocks(many.operators.kronecker("sampled_fisher"))
        ]

    def _sampled(self, count: int) -> Asked:
        """Targets are drawn once for each sample of a batch: many times the sample are many draws."""
        if not isinstance(self.asked.loss, nn.CrossEntropyLoss):
            raise NotApplicable(DRAWN)
        return self.asked.repeated(count)

    def _weight(self, count: int) -> float:
        return 1.0 if self.asked.loss.reduction == "mean" else 1.0 / count


class Sampled(Extensions):
    """What is exact comes from autograd, and what is drawn from sifrc."""

    def diag_ggn(self) -> list[Tensor]:
        from test.extensions.implementation.autograd import AutogradExtensions

        return AutogradExtensions(self.problem).diag_ggn()

    def diag_ggn_mc(self, mc_samples: int) -> list[Tensor]:
        many = self._sampled(mc_samples)
        found = many.diagonal(many.operators.F("sampled"))
        return [self._weight(mc_samples) * one for one in found]


class Implementation:
    """In the place of their ``BpextImpl``, of problems without extensions' settings."""

    def __init__(self, problem: Any) -> None:
        # BackPACK's hooks write what they see to the modules, as problems were made.
        for module in problem.model.modules():
            module._forward_hooks.clear()
        self.asked = Asked(problem.model, problem.lossfunc, problem.X, problem.Y)

    def batch_gradients(self) -> list[Tensor]:
        return self.asked.gradients()

    def batch_l2(self) -> list[Tensor]:
        return self.asked.norms()

    def sgs(self) -> list[Tensor]:
        return self.asked.squares()

    def variance(self) -> list[Tensor]:
        return self.asked.variances()

    def diag_ggn(self) -> list[Tensor]:
        return self.asked.diagonal("G")

    def diag_h(self) -> list[Tensor]:
        return self.asked.diagonal("H")

    def hmp(self, matrices: list[Tensor]) -> list[Tensor]:
        return self._products(self.asked.operators.H, matrices)

    def ggn_mp(self, matrices: list[Tensor]) -> list[Tensor]:
        return self._products(self.asked.operators.G, matrices)

    def hvp(self, vectors: list[Tensor]) -> list[Tensor]:
        return [one[0] for one in self.hmp([one[None] for one in vectors])]

    def ggn_vp(self, vectors: list[Tensor]) -> list[Tensor]:
        return [one[0] for one in self.ggn_mp([one[None] for one in vectors])]

    def _products(self, operator: Any, matrices: list[Tensor]) -> list[Tensor]:
        """The block of each parameter with rows of vectors."""
        found = []
        for (name, _), rows in zip(self.asked.model.named_parameters(), matrices, strict=True):
            found.append((operator[name] @ rows.flatten(1).T).T.reshape(rows.shape))
        return found


DRAWN = "targets drawn from the model that are no classes: the expectation over them costs no more"
SLOW = "its own suite leaves it out: 150 000 draws and more"
HOOK = "the same number by another way of BackPACK (an extension's hook)"
ERRORS = "expects that BackPACK refuses"
SHAPES = "compares shapes of BackPACK's results alone"
CHANCE = "its tolerance is the standard error of its own number of draws: it passes by chance"
BATCH = "gradients of single samples that act on each other, by the statistics of a batch"
RUNS = "checks that BackPACK runs, and no number"
PCHMP = "products with curvature whose negative parts are taken out by sample, of BackPACK alone"
PER_SAMPLE_DRAWN = "drawn diagonals of each sample apart"


def _coupled(parameters: Mapping[str, Any]) -> str | None:
    model = parameters["problem"].model
    return (
        BATCH if any(isinstance(part, nn.BatchNorm1d) and part.training for part in model.modules()) else None
    )


def _few(parameters: Mapping[str, Any]) -> str | None:
    """3000 draws from 48 classes: the numbers of single units are of a hundred draws, a tenth off."""
    return CHANCE if parameters["problem"].id_prefix == "three-additional" else None


_EXTENSIONS = Driven({"BackpackExtensions": Extensions})
_SAMPLED = Driven({"BackpackExtensions": Sampled}, _few)
_IMPLEMENTATION = Driven({"BpextImpl": Implementation})
_FIRST, _SECOND = "extensions/firstorder", "extensions/secondorder"

TESTS: Mapping[str, Driven | str] = MappingProxyType(
    {
        f"{_FIRST}/batch_grad/test_batch_grad::test_batch_grad": _EXTENSIONS,
        f"{_FIRST}/batch_l2_grad/test_batchl2grad::test_batch_l2_grad": _EXTENSIONS,
        f"{_FIRST}/batch_l2_grad/test_batchl2grad::test_batch_l2_grad_hook": HOOK,
        f"{_FIRST}/sum_grad_squared/test_sumgradsquared::test_sum_grad_squared": _EXTENSIONS,
        f"{_FIRST}/sum_grad_squared/test_sumgradsquared::test_sum_grad_squared_hook": HOOK,
        f"{_FIRST}/variance/test_variance::test_variance": _EXTENSIONS,
        f"{_SECOND}/diag_ggn/test_diag_ggn::test_diag_ggn": _EXTENSIONS,
        f"{_SECOND}/diag_ggn/test_diag_ggn::test_diag_ggn_mc_light": _SAMPLED,
        f"{_SECOND}/diag_ggn/test_diag_ggn::test_diag_ggn_mc": SLOW,
        f"{_SECOND}/diag_ggn/test_batch_diag_ggn::test_diag_ggn_exact_batch": _EXTENSIONS,
        f"{_SECOND}/diag_ggn/test_batch_diag_ggn::test_diag_ggn_mc_batch_light": PER_SAMPLE_DRAWN,
        f"{_SECOND}/diag_ggn/test_batch_diag_ggn::test_diag_ggn_mc_batch": SLOW,
        f"{_SECOND}/diag_hessian/test_diag_hessian::test_diag_h": _EXTENSIONS,
        f"{_SECOND}/diag_hessian/test_diag_hessian::test_diag_h_batch": _EXTENSIONS,
        f"{_SECOND}/hbp/test_kfac::test_kfac_not_supported": ERRORS,
        f"{_SECOND}/hbp/test_kfac::test_kfac_should_approx_ggn_montecarlo": SLOW,
        f"{_SECOND}/hbp/test_kfac::test_kfac_should_approx_ggn_montecarlo_light": _EXTENSIONS,
        f"{_SECOND}/hbp/test_kflr::test_kflr_not_supported": ERRORS,
        f"{_SECOND}/hbp/test_kflr::test_kflr_equals_ggn": _EXTENSIONS,
        f"{_SECOND}/hbp/test_kfra::test_kfra_not_supported": ERRORS,
        f"{_SECOND}/hbp/test_kfra::test_kfra_equals_ggn": _EXTENSIONS,
        f"{_SECOND}/sqrt_ggn/test_sqrt_ggn::test_ggn_exact": _EXTENSIONS,
        f"{_SECOND}/sqrt_ggn/test_sqrt_ggn::test_sqrt_ggn_mc_integration": RUNS,
        f"{_SECOND}/sqrt_ggn/test_sqrt_ggn::test_ggn_mc": SLOW,
        **{
            f"automated_test::{test}": _IMPLEMENTATION
            for test in (
                "test_batch_gradients",
                "test_sgs",
                "test_diag_ggn",
                "test_batch_l2",
                "test_variance",
                "test_diag_h",
                "test_hmp",
                "test_ggn_mp",
                "test_hvp",
                "test_ggn_vp",
            )
        },
        "automated_test::test_batch_gradients_sum_to_grad": Driven({"BpextImpl": Implementation}, _coupled),
        "automated_test::test_diag_ggn_mc_approx_ggn_montecarlo": SLOW,
        "automated_test::test_kfac_shape": SHAPES,
        "automated_test::test_kfra_shape": SHAPES,
        "automated_test::test_kflr_shape": SHAPES,
        "automated_test::test_pchmp_shape": SHAPES,
    }
)
"""Test -> what takes the place of BackPACK's implementation, or why the test is not applicable."""

FILES = tuple(dict.fromkeys(f"test/{test.partition('::')[0]}.py" for test in TESTS))
