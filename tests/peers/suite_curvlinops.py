"""curvlinops' test cases, with ``sifrc.operators`` in the place of its operators.

Their tests compare an operator with a dense matrix of ``torch.func``, through products from both sides, in
all forms of vectors and through SciPy. The classes here answer in the place of their operators; what they are
compared with stays theirs. Conventions are turned into theirs where they differ:

- their empirical Fisher matrix and its Kronecker factors have the loss of a sample as a sum over the outputs,
  over the number of outputs once; here the score of a sample is the gradient of its loss, a mean over them.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, MutableMapping
from functools import cached_property
from types import MappingProxyType
from typing import Any

import pytest
import torch
from suite_cases import Driven, NotApplicable, Used
from torch import Tensor, nn

import sifrc
from sifrc.linear import Kronecker, LinearOperator, Space, identity
from sifrc.linear.kronecker import Factors

curvlinops = pytest.importorskip("curvlinops", reason="curvlinops, the peer, is not installed")
base = pytest.importorskip("curvlinops._torch_base", reason="curvlinops, the peer, is not installed")

__all__ = ["FILES", "TESTS", "prepare"]


def prepare() -> None:
    """Nothing is missing."""


# -- from their arguments to ours


class Keyed(nn.Module):
    """A model that takes a dict, with its only entry as an argument."""

    def __init__(self, model: nn.Module, key: str) -> None:
        super().__init__()
        self.model, self.key = model, key

    def forward(self, value: Tensor) -> Any:
        return self.model({self.key: value})


class Called(nn.Module):
    """A function of parameters by name and inputs, as a module."""

    def __init__(self, function: Any, params: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.function, self.own = function, nn.ParameterDict()
        for name, value in params.items():  # it would sort them
            self.own[name] = value

    def forward(self, inputs: Tensor) -> Any:
        return self.function(dict(self.own.items()), inputs)


class Asked:
    """Operators of a model at given parameters, with the names and the order of these."""

    def __init__(
        self, model: Any, loss: nn.Module, params: Mapping[str, Tensor], data: Iterable[Any]
    ) -> None:
        pairs = list(data)
        self.loss, prefix = loss, ""
        if isinstance(model, nn.Module):
            model = copy.deepcopy(model)
            model.load_state_dict({**model.state_dict(), **params})
            if isinstance(pairs[0][0], MutableMapping):
                (key,) = pairs[0][0]
                model, prefix = Keyed(model, key), "model."
                pairs = [(inputs[key], targets) for inputs, targets in pairs]
        else:
            model, prefix = Called(model, params), "own."
        self.model, self.pairs = model, pairs
        self.names = [prefix + name for name in params]
        self.shapes = [tuple(value.shape) for value in params.values()]

    @cached_property
    def operators(self) -> Any:
        Used.once()
        return sifrc.operators(self.model, self.loss, self.pairs, progress=False)

    def repeated(self, times: int) -> float:
        """Every sample several times, for as many draws; and what the sum over them then counts."""
        self.pairs = [(_times(inputs, times), _times(targets, times)) for inputs, targets in self.pairs]
        return 1.0 if self.loss.reduction == "mean" else 1.0 / times

    @property
    def places(self) -> bool:
        """Whether a sample has several targets that are drawn apart."""
        targets = self.pairs[0][1]
        return targets.ndim > (1 if isinstance(self.loss, nn.CrossEntropyLoss) else 2)

    @property
    def per_output(self) -> float:
        """How many outputs a mean of the loss of one target goes over."""
        if isinstance(self.loss, nn.CrossEntropyLoss) or self.loss.reduction == "sum":
            return 1.0
        return float(self.pairs[0][1].shape[-1])

    def operator(self, found: LinearOperator) -> Operator:
        """In the order of the parameters that were asked for."""
        own = found.rows
        order = torch.cat([own.positions([name]) for name in self.names])
        part = found if list(own.shapes) == self.names else found[tuple(self.names)]
        wanted = own.part(self.names)
        if list(part.rows.shapes) != self.names:
            part = Reordered(part, wanted)
        assert len(order) == part.shape[0]
        return Operator(part, self.shapes, self.shapes)


def _times(value: Tensor, times: int) -> Tensor:
    return value.repeat(times, *[1] * (value.ndim - 1))


class Reordered(LinearOperator):
    """The same matrix with its tensors in another order."""

    def __init__(self, operator: LinearOperator, space: Space) -> None:
        super().__init__(operator.name, space, space, symmetric=operator.symmetric, watch=operator.watch)
        self.operator = operator

    def apply(self, vector: Tensor) -> Tensor:
        found = self.operator @ self.columns.split(vector)
        return self.rows.join(found)


# -- in the place of their operators


class Operator(base.PyTorchLinearOperator):
    """An operator of sifrc with their interface, which splits vectors into tensors by shape."""

    def __init__(self, own: LinearOperator, rows: Any, columns: Any) -> None:
        super().__init__(columns, rows)
        self.own, self.SELF_ADJOINT = own, own.symmetric

    def _matmat(self, X: list[Tensor]) -> list[Tensor]:
        flat = torch.cat([x.reshape(-1, x.shape[-1]) for x in X])
        found = self.own @ flat
        parts = torch.split(found, self._out_shape_flat)
        return [part.reshape(*s, -1) for part, s in zip(parts, self._out_shape, strict=True)]

    def _adjoint(self) -> Operator:
        return Operator(self.own.T, self._in_shape, self._out_shape)

    def to_scipy(self, dtype: Any = None) -> Any:
        """Ours."""
        return self.own.to_scipy(dtype)

    @property
    def device(self) -> torch.device:
        return self.own.device

    @property
    def dtype(self) -> torch.dtype:
        return self.own.dtype

    def __add__(self, other: Any) -> Operator:
        right = other.own
        if right.rows != self.own.rows:  # an identity, whose tensors have no names
            right = identity(self.own.rows.shapes, self.dtype, self.device) * other.factor
        return Operator(self.own + right, self._out_shape, self._in_shape)


class Identity:
    """In the place of their ``IdentityLinearOperator``, which knows shapes alone."""

    def __init__(self, shapes: Any, device: torch.device, dtype: torch.dtype, factor: float = 1.0) -> None:
        named = {str(k): tuple(shape) for k, shape in enumerate(shapes)}
        self.own, self.factor = identity(named, dtype, device), factor
        self._given = shapes, device, dtype

    def __rmul__(self, factor: float) -> Identity:
        return Identity(*self._given, factor * self.factor)


def hessian(model: Any, loss: Any, params: Any, data: Any, batch_size_fn: Any = None) -> Operator:
    asked = Asked(model, loss, params, data)
    return asked.operator(asked.operators.H)


def ggn(
    model: Any, loss: Any, params: Any, data: Any, batch_size_fn: Any = None, mc_samples: int = 0
) -> Operator:
    asked = Asked(model, loss, params, data)
    if mc_samples:
        if not isinstance(loss, nn.CrossEntropyLoss):
            raise NotApplicable(DRAWN)
        return DrawnGGN(asked, mc_samples)
    return asked.operator(asked.operators.G)


class DrawnGGN(Operator):
    """The Fisher matrix of drawn targets, which are others when the seed is."""

    def __init__(self, asked: Asked, samples: int) -> None:
        self.asked, self._seed, self._mc_samples, self._found = asked, 0, samples, {}
        first = self._drawn()
        super().__init__(first.own, asked.shapes, asked.shapes)

    def _drawn(self) -> Operator:
        if self._seed not in self._found:
            drawn = self.asked.operators.F("sampled", samples=self._mc_samples, seed=self._seed)
            self._found = {self._seed: self.asked.operator(drawn)}
        return self._found[self._seed]

    def _matmat(self, X: list[Tensor]) -> list[Tensor]:
        return self._drawn()._matmat(X)


def empirical_fisher(model: Any, loss: Any, params: Any, data: Any, batch_size_fn: Any = None) -> Operator:
    asked = Asked(model, loss, params, data)
    if asked.places:
        raise NotApplicable(PLACES)
    return asked.operator(asked.per_output * asked.operators.F("empirical"))


def jacobian(model: Any, params: Any, data: Any, batch_size_fn: Any = None) -> Operator:
    asked = Asked(model, nn.MSELoss(), params, data)
    outputs = [asked.model(inputs) for inputs, _ in asked.pairs]
    asked.pairs = [(x, torch.zeros_like(y)) for (x, _), y in zip(asked.pairs, outputs, strict=True)]
    own = asked.operators.J
    assert list(own.columns.shapes) == asked.names
    return Operator(own, list(own.rows.shapes.values()), asked.shapes)


def transposed_jacobian(model: Any, params: Any, data: Any, batch_size_fn: Any = None) -> Operator:
    return jacobian(model, params, data).adjoint()


class GGNDiagonal:
    """In the place of ``GGNDiagonalComputer``."""

    def __init__(
        self,
        model: Any,
        loss: Any,
        params: Any,
        data: Any,
        batch_size_fn: Any = None,
        mc_samples: int = 0,
    ) -> None:
        self.asked, self.params = Asked(model, loss, params, data), params
        if mc_samples and not isinstance(loss, nn.CrossEntropyLoss):
            raise NotApplicable(DRAWN)
        weight = self.asked.repeated(mc_samples) if mc_samples else 1.0
        ops = self.asked.operators
        self.own = weight * (ops.F("sampled") if mc_samples else ops.G)

    def compute(self) -> dict[str, Tensor]:
        found = self.asked.operators.space.split(self.own.diagonal("exact").value)
        return {name: found[own] for name, own in zip(self.params, self.asked.names, strict=True)}


class Diagonal(LinearOperator):
    """diag(d)."""

    def __init__(self, space: Space, values: Tensor) -> None:
        super().__init__("diagonal", space, space, symmetric=True)
        self.values = values

    def apply(self, vector: Tensor) -> Tensor:
        return self.values * vector


def ggn_diagonal(model: Any, loss: Any, params: Any, data: Any, batch_size_fn: Any = None) -> Operator:
    asked = Asked(model, loss, params, data)
    ops = asked.operators
    return asked.operator(Diagonal(ops.space, ops.G.diagonal("exact").value))


# -- inverses


def conjugate_gradients(
    operator: Operator, eps: float = 0.0, tolerance: float = 1e-8, preconditioner: Any = None
) -> Operator:
    return Operator(operator.own.inverse("cg", tolerance=tolerance), operator._in_shape, operator._out_shape)


def least_squares(operator: Operator, atol: float, btol: float, maxiter: int) -> Operator:
    # Zero asks for as many iterations as there may be, which ends with an error here.
    found = operator.own.inverse("lsmr", tolerance=1e-12)
    return Operator(found, operator._in_shape, operator._out_shape)


# -- Kronecker factors

KINDS = MappingProxyType({"type-2": "ggn", "empirical": "empirical_fisher", "mc": "sampled_fisher"})
"""Their ``FisherType`` -> kind of curvature."""


class KFAC(base.PyTorchLinearOperator):
    """In the place of their ``KFACLinearOperator``: factors are ours, and a test may change them."""

    SELF_ADJOINT = True

    def __init__(
        self,
        model: Any,
        loss: Any,
        params: Any,
        data: Any,
        batch_size_fn: Any = None,
        fisher_type: Any = "mc",
        kfac_approx: Any = "expand",
        mc_samples: int = 1,
        separate_weight_and_bias: bool = True,
        **unused: Any,
    ) -> None:
        if not separate_weight_and_bias:
            raise NotApplicable(JOINT)
        kind = str(getattr(fisher_type, "value", fisher_type))
        if kind == "forward-only":
            raise NotApplicable(FORWARD)
        asked = Asked(model, loss, params, data)
        super().__init__(asked.shapes, asked.shapes)
        weight = 1.0
        if kind == "empirical":
            if asked.places:
                raise NotApplicable(PLACES)
            weight = asked.per_output
        if kind == "mc":
            if not isinstance(loss, nn.CrossEntropyLoss):
                raise NotApplicable(DRAWN)
            weight = asked.repeated(mc_samples)
        sharing = str(getattr(kfac_approx, "value", kfac_approx))
        found = asked.operators.kronecker(KINDS[kind], sharing=sharing)
        self.space = found.rows.part(asked.names)
        self.K: list[list[Tensor]] = []
        for name in asked.names:
            own = found.factors[name]
            columns = [] if own.columns is None else [own.columns]
            self.K.append([weight * own.rows, *columns])

    def __iter__(self) -> Any:
        return iter((None, self.K, None))

    @property
    def own(self) -> Kronecker:
        factors = {name: Factors(*block) for name, block in zip(self.space.shapes, self.K, strict=True)}
        return Kronecker("K", self.space, factors)

    def _matmat(self, X: list[Tensor]) -> list[Tensor]:
        return Operator(self.own, self._out_shape, self._in_shape)._matmat(X)

    @property
    def device(self) -> torch.device:
        return self.space.device

    @property
    def dtype(self) -> torch.dtype:
        return self.space.dtype

    def trace(self) -> Tensor:
        return torch.tensor(float(self.own.trace("exact")), dtype=self.dtype)

    def frobenius_norm(self) -> Tensor:
        return self.own.eigenvalues().norm()

    def det(self) -> Tensor:
        return self.own.eigenvalues().prod()

    def logdet(self) -> Tensor:
        return torch.tensor(self.own.logdet(), dtype=self.dtype)

    def inverse(
        self,
        damping: float = 0.0,
        use_exact_damping: bool = False,
        use_heuristic_damping: bool = False,
        **unused: Any,
    ) -> Operator:
        if use_heuristic_damping:
            raise NotApplicable(HEURISTIC)
        own = self.own
        if use_exact_damping:
            found = (own + damping * identity(own.rows.shapes, self.dtype, self.device)).inverse()
        else:
            each = {}
            for name, factors in own.factors.items():
                parts = [factors.rows] if factors.columns is None else [factors.rows, factors.columns]
                each[name] = Factors(*[part + damping * torch.eye(len(part)).to(part) for part in parts])
            found = Kronecker("damped K", own.rows, each).inverse()
        return Operator(found, self._out_shape, self._in_shape)


def kfac_beside_theirs(model: Any, *arguments: Any, **more: Any) -> Any:
    """Ours, but theirs for what a test compares with: outputs whose places are samples."""
    joined = any(isinstance(part, nn.Flatten) and part.start_dim == 0 for part in model.modules())
    return (curvlinops.KFACLinearOperator if joined else KFAC)(model, *arguments, **more)


# -- what applies

DRAWN = "targets drawn from the model that are no classes: the expectation over them costs no more"
PLACES = "scores of several targets of a sample apart: here the score of a sample is one vector"
JOINT = "one block of a weight with its bias, as a column of it"
FORWARD = "factors of the inputs alone (FOOF)"
HEURISTIC = "damping shared out between factors by their traces"
BACKEND = "the same case by another of curvlinops' ways to find factors"
PRECONDITIONED = "preconditioned conjugate gradients"
EKFAC = "eigenvalues of Kronecker factors corrected (EKFAC)"
ENTRIES = "parts by numbers of entries: here parts have names"
THEIRS = "classes of curvlinops for given matrices"
ITS_OWN = "how curvlinops checks, stores or raises"
APART = "Kronecker factors of biases that are not those of the layers with their weights"
CHANCE = "its tolerance is below the standard error of all draws that it allows: it ends by chance"
TWICE = "compares draws with draws of the same numbers"
FAULT = "expects a known fault of one of curvlinops' ways beside the other"
NEUMANN = "inverses by Neumann's series"
NAIVE = "curvlinops' two ways to compute an estimator, which draw the same numbers"
UNSYMMETRIC = "the diagonal of a matrix that is not symmetric, by XDiag"


def _backend(parameters: Mapping[str, Any]) -> str | None:
    """Of the two backends of theirs, one."""
    if parameters.get("backend", "make_fx") != "make_fx":
        return BACKEND
    return None if parameters.get("separate_weight_and_bias", True) else JOINT


def _drawn_alike(parameters: Mapping[str, Any]) -> str | None:
    return TWICE if str(parameters["fisher_type"].value) == "mc" else _backend(parameters)


def _inverse(parameters: Mapping[str, Any]) -> str | None:
    return PRECONDITIONED if parameters.get("precondition") else None


_KFAC = Driven({"KFACLinearOperator": KFAC, "test.utils:KFACLinearOperator": KFAC}, _backend)
_BESIDE = Driven({"KFACLinearOperator": kfac_beside_theirs}, _drawn_alike)
_INVERSE = {
    "GGNLinearOperator": ggn,
    "IdentityLinearOperator": Identity,
    "CGInverseLinearOperator": conjugate_gradients,
    "LSMRInverseLinearOperator": least_squares,
}
_DIAGONAL = Driven({"GGNDiagonalComputer": GGNDiagonal})

TESTS: Mapping[str, Driven | str] = MappingProxyType(
    {
        "test_hessian::test_HessianLinearOperator": Driven({"HessianLinearOperator": hessian}),
        "test_ggn::test_GGNLinearOperator_matvec": Driven({"GGNLinearOperator": ggn}),
        "test_ggn::test_GGNLinearOperator_mc_expectation": Driven({"GGNLinearOperator": ggn}),
        "test_jacobian::test_JacobianLinearOperator": Driven({"JacobianLinearOperator": jacobian}),
        "test_jacobian::test_TransposedJacobianLinearOperator": Driven(
            {"TransposedJacobianLinearOperator": transposed_jacobian}
        ),
        "test_gradient_moments::test_EFLinearOperator": Driven({"EFLinearOperator": empirical_fisher}),
        "test_ggn_diagonal::test_GGNDiagonalLinearOperator_matvec": Driven(
            {"GGNDiagonalLinearOperator": ggn_diagonal}
        ),
        "computers/test_ggn_diagonal::test_GGNDiagonalComputer": _DIAGONAL,
        "computers/test_ggn_diagonal::test_GGNDiagonalComputer_sequential_consistency": ITS_OWN,
        "computers/test_ggn_diagonal::test_GGNDiagonalComputer_mc_different_seed": ITS_OWN,
        "test_submatrix::test_SubmatrixLinearOperator_on_curvatures": ENTRIES,
        "test_inverse::test_CGInverseLinearOperator_damped_GGN": Driven(_INVERSE, _inverse),
        "test_inverse::test_LSMRInverseLinearOperator_damped_GGN": Driven(_INVERSE),
        "test_inverse::test_KFAC_EKFAC_preconditioners_for_CG_and_Neumann": PRECONDITIONED,
        "test_inverse::test_NeumannInverseLinearOperator_preconditioner": NEUMANN,
        "test_inverse::test_NeumannInverseLinearOperator_toy": NEUMANN,
        **{
            f"test_kfac::{test}": _KFAC
            for test in (
                "test_kfac_type2",
                "test_kfac_type2_weight_sharing",
                "test_expand_setting_scaling",
                "test_kfac_mc",
                "test_kfac_mc_weight_sharing",
                "test_kfac_one_datum",
                "test_kfac_mc_one_datum",
                "test_kfac_ef_one_datum",
                "test_kfac_inplace_activations",
                "test_trace",
                "test_frobenius_norm",
                "test_det",
                "test_logdet",
                "test_KFAC_inverse_damped_matmat",
                "test_KFAC_inverse_exactly_damped_matmat",
            )
        },
        "test_kfac::test_kfac_type2_weight_tying": FAULT,
        "test_kfac::test_kfac_type2_multi_module_conflicting_biases": JOINT,
        "test_kfac::test_multi_dim_output": _BESIDE,
        "test_kfac::test_kfac_type2_mixed_bias_weight_tying": APART,
        "test_kfac::test_forward_only_fisher_type": FORWARD,
        "test_kfac::test_forward_only_fisher_type_exact_case": FORWARD,
        "test_kfac::test_forward_only_fisher_type_exact_weight_sharing_case": FORWARD,
        "test_kfac::test_kfac_does_not_affect_grad": ITS_OWN,
        "test_kfac::test_kfac_torch_save_load": ITS_OWN,
        "test_kfac::test_string_in_enum": ITS_OWN,
        "test_kfac::test_bug_132_dtype_deterministic_checks": ITS_OWN,
        "test_kfac::test_KFAC_inverse_heuristically_damped_matmat": HEURISTIC,
        "test_kfac::test_kfac_make_fx_flatten_different_batch_sizes": ITS_OWN,
        "test_kfac::test_kfac_callable_model_func": ITS_OWN,
        "test_kfac::test_kfac_unsupported_layer_params": ITS_OWN,
        "trace/test_hutchinson::test_hutchinson_trace": CHANCE,
        "trace/test_meyer2020hutch::test_hutchpp_trace": CHANCE,
        "trace/test_epperly2024xtrace::test_xtrace": CHANCE,
        "trace/test_epperly2024xtrace::test_xtrace_matches_naive": NAIVE,
        "diagonal/test_hutchinson::test_hutchinson_diag": CHANCE,
        "diagonal/test_epperly2024xtrace::test_xdiag": UNSYMMETRIC,
        "diagonal/test_epperly2024xtrace::test_xdiag_matches_naive": NAIVE,
        "norm/test_hutchinson::test_hutchinson_squared_fro": CHANCE,
    }
)
"""Test -> what takes the place of curvlinops' operator, or why the test is not applicable."""

FILES = tuple(dict.fromkeys(f"test/{test.partition('::')[0]}.py" for test in TESTS))
