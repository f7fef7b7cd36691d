"""Values, gradients, products with the Hessian and the Gauss–Newton matrix, Newton directions."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import replace
from functools import partial
from typing import Literal

from sifrc.catalogue.context import Context, Declaration, OperatorSet
from sifrc.catalogue.meaning import Gradient, NewtonDirection, Product, Value
from sifrc.catalogue.phase import Row
from sifrc.catalogue.record import Case, Mean, Operator, Result, Vector
from sifrc.derive.gauss_newton import GaussNewton
from sifrc.derive.lagrangian import FirstOrder
from sifrc.derive.shaped import DIRECTION, GAUSS_NEWTON_PRODUCT, GRADIENT, HESSIAN_PRODUCT, NEWTON_DIRECTION
from sifrc.derive.sifrian import SecondOrder
from sifrc.derive.system import System, with_uses
from sifrc.ir import Input
from sifrc.model.parameters import Shaped
from sifrc.spec.layers import evaluates_apart

__all__ = ["DERIVATIVES"]

Results = Callable[[Context], tuple[Result, ...]]


def _value(of: Literal["loss", "objective"], context: Context) -> tuple[Result, ...]:
    return (Mean(of, Value(of)),)


def _evaluated(declared: Declaration, context: Context) -> Operator:
    if not evaluates_apart(context.model.spec):
        return _plain(("forward", "objective"), partial(_value, "loss"), "ESN(1)", declared, context)
    functions = ("evaluation", *context.before_loss, "evaluation_loss")
    found = (Mean("loss", Value("evaluation_loss")),)
    return Operator(declared.name, declared.doc, "ESN(1)", (Case((), found),), prepare=functions)


def _gradient(context: Context) -> tuple[Result, ...]:
    return (context.like_params(GRADIENT, Gradient()),)


def _both(context: Context) -> tuple[Result, ...]:
    return (*_value("objective", context), *_gradient(context))


def _newton(context: Context) -> tuple[Result, ...]:
    return (context.like_params(NEWTON_DIRECTION, NewtonDirection()),)


def _plain(
    functions: tuple[str, ...],
    results: Results,
    source: str,
    declared: Declaration,
    context: Context,
    batched: bool = True,
) -> Operator:
    return Operator(
        declared.name,
        declared.doc,
        source,
        (Case((), results(context)),),
        prepare=_with_factors(functions, context),
        batched=batched,
    )


def _product(
    matrix: Literal["hessian", "gauss_newton"],
    prepare: tuple[str, ...],
    apply: tuple[str, ...],
    quantity: Shaped,
    source: str,
    declared: Declaration,
    context: Context,
) -> Operator:
    return Operator(
        declared.name,
        declared.doc,
        source,
        (Case(apply, (context.like_params(quantity, Product(matrix)),)),),
        prepare=_with_factors(prepare, context),
        vector=Vector(DIRECTION.families),
        linearized=matrix,
    )


def _with_factors(functions: tuple[str, ...], context: Context) -> tuple[str, ...]:
    """The functions with those of the loss's factors in their place, where it has some."""
    if functions == ("forward",):
        return ("forward", *_of_curvature(context))
    return ("forward", *context.before_loss, *functions[1:])


def _of_curvature(context: Context) -> tuple[str, ...]:
    """Functions of the factors of the loss itself, λ_n or κ, which its second derivatives have too."""
    factored = context.model.loss_factor is not None or context.model.normalization is not None
    return context.before_loss if factored else ()


def _systems(context: Context, wanted: Collection[str]) -> Iterator[Row]:
    derived, factors = context.derived, context.before_loss
    base = ("forward", *factors)
    yield Row("forward", lambda: derived.first.forward)
    yield Row("evaluation", lambda: derived.first.evaluation)
    yield Row("normalization", lambda: derived.first.normalization)
    yield Row("evaluation_loss", lambda: derived.first.evaluation_loss, ("evaluation", *factors))
    yield Row("statistics", lambda: derived.first.statistics, ("forward",))
    if derived.spectral is not None:
        system = derived.spectral.system
        yield Row("spectral", lambda: system, ("forward",))
    yield Row("objective", lambda: derived.first.objective, base)
    yield Row("adjoint", lambda: derived.first.adjoint, base)
    after = (*base, "adjoint")
    yield Row("gradient", lambda: derived.first.gradient, after)
    yield Row("backward", partial(_backward, derived.first), base)
    yield Row("tangent", lambda: derived.second.tangent, after)
    yield Row("hessian_product", partial(_hessian_product, derived.second), (*after, "tangent"))
    yield Row("linearized", lambda: derived.gauss_newton.tangent, ("forward",))
    linearized = ("forward", *_of_curvature(context), "linearized")
    yield Row("gauss_newton_product", partial(_gauss_newton_product, derived.gauss_newton), linearized)
    yield Row("newton", lambda: _as_result(derived.exact_newton.system()), after)


def _backward(first: FirstOrder) -> System:
    return with_uses("backward", "Back-propagation and gradient", first.adjoint, first.gradient)


def _hessian_product(second: SecondOrder) -> System:
    title = "Sifrian (3), backward in k, and (1), (2): the Hessian–vector product"
    return with_uses("hessian_product", title, second.adjoint_tangent, second.product)


def _gauss_newton_product(linearized: GaussNewton) -> System:
    title = "Adjoint of the linearised model, and the Gauss–Newton–vector product"
    return with_uses("gauss_newton_product", title, linearized.adjoint, linearized.product)


def _as_result(system: System) -> System:
    """Newton directions as results: apart from the vector (N, η) that a product is given."""
    results = dict(zip(DIRECTION.families, NEWTON_DIRECTION.families, strict=True))

    def result(symbol: Input) -> Input:
        return Input(results[symbol.family], symbol.index, symbol.slots, symbol.role)

    equations = tuple(replace(equation, symbol=result(equation.symbol)) for equation in system.equations)
    return replace(system, equations=equations)


DERIVATIVES = OperatorSet(
    (
        Declaration(
            "loss",
            "Mean loss of a batch.",
            partial(_plain, ("forward", "objective"), partial(_value, "loss"), "ESN(1)"),
        ),
        Declaration(
            "objective",
            "Mean loss and state regularisation of a batch.",
            partial(_plain, ("forward", "objective"), partial(_value, "objective"), "ESN(4)"),
        ),
        Declaration(
            "evaluation_loss",
            "Mean loss of a batch as the network is after training.",
            _evaluated,
        ),
        Declaration(
            "gradient",
            "Gradient of the objective.",
            partial(_plain, ("forward", "backward"), _gradient, "ESN(9, 10)"),
        ),
        Declaration(
            "objective_and_gradient",
            "Objective and its gradient, in one pass.",
            partial(_plain, ("forward", "objective", "backward"), _both, "ESN(9, 10)"),
        ),
        Declaration(
            "hessian_vector_product",
            "Hessian of the objective times a vector.",
            partial(
                _product,
                "hessian",
                ("forward", "adjoint"),
                ("tangent", "hessian_product"),
                HESSIAN_PRODUCT,
                "ESN(16), MK(31)",
            ),
        ),
        Declaration(
            "gauss_newton_vector_product",
            "Gauss–Newton matrix of the data loss times a vector.",
            partial(
                _product,
                "gauss_newton",
                ("forward",),
                ("linearized", "gauss_newton_product"),
                GAUSS_NEWTON_PRODUCT,
                "",
            ),
        ),
        Declaration(
            "newton_direction",
            "Newton direction (N, η) of one sample, H·(N, η) = gradient; a step is params − lr·(N, η).",
            partial(_plain, ("forward", "adjoint", "newton"), _newton, "ESN(17)", batched=False),
        ),
    ),
    _systems,
)
