"""Operators on curvature blocks: which systems each composes, for every kind and argument."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from types import MappingProxyType

from sifrc.catalogue.context import Context, Declaration, OperatorSet
from sifrc.catalogue.factors import (
    FORMS,
    MEANS,
    MOMENTS,
    curvature_factors,
    factor_functions,
    gradient_and_factors,
    other_names,
    sharing_argument,
    sharing_choice,
    sharings,
)
from sifrc.catalogue.meaning import BlockProduct, Blocks, Diagonal, SampleBlocks
from sifrc.catalogue.phase import Row
from sifrc.catalogue.record import Argument, Case, Entry, Form, Operator, Table, Vector
from sifrc.derive.curvature.kinds import EXACT_WHEN
from sifrc.derive.curvature.parameters import ParameterBlock
from sifrc.derive.curvature.sharing import SHARINGS
from sifrc.derive.curvature.systems import (
    BLOCK,
    FACTORED,
    MEAN_BLOCK,
    Curvature,
    factor_blocks_name,
    moments_name,
    other_diagonal_name,
)
from sifrc.derive.shaped import BLOCK_PRODUCT, DIAGONAL, DIRECTION
from sifrc.derive.system import System
from sifrc.errors import MethodError

__all__ = ["BLOCKS"]

_EXACT: str = "exact"
_EACH: tuple[Form, ...] = ("samples", *FACTORED)
"""Forms with a block or its factors for each sample, so that means over the samples are exact."""

_OTHERS = "of the parameters without Kronecker factors alone, as ``curvature_factors`` leaves them out."

_DENSE: Mapping[Form, tuple[str, ...]] = MappingProxyType(
    {form: (f"dense_blocks_of_{form}",) for form in FACTORED}
    | {"samples": ("dense_blocks_per_sample",), "batch": ("second_moments", "dense_blocks")}
)
"""Functions that compute the blocks of the weights."""


def _entries(
    curvature: Curvature, blocks: Collection[ParameterBlock], *, mean: bool, dense: bool
) -> tuple[tuple[str, ...], tuple[Entry, ...]]:
    """Functions that sum blocks of pre-activations over their places, and where the blocks are found.

    Args:
        curvature: of the model.
        blocks: of all its parameters.
        mean: of the batch in place of the samples.
        dense: with those that are not blocks of pre-activations.
    """
    symbols = [curvature.symbol(block, mean=mean) for block in blocks]
    plain, rest = (
        tuple(
            Entry(block.parameter.name, (symbol.family, symbol.index), matrix=not of_pre_activation)
            for block, symbol in zip(blocks, symbols, strict=True)
            if block.of_pre_activation == of_pre_activation
        )
        for of_pre_activation in (True, False)
    )
    summed = any(entry.member[0] not in (BLOCK, MEAN_BLOCK) for entry in plain)
    functions = (f"{'mean' if mean else 'sample'}_bias_blocks",) if summed else ()
    return functions, plain + (rest if dense else ())


def _block_hessian(declared: Declaration, context: Context) -> Operator:
    curvature, kinds = context.derived.curvature, context.kinds
    found = [block for _, blocks in reversed([*curvature.parameters("samples")]) for block in blocks]

    def case(reduction: str, dense: bool, form: Form) -> Case:
        choices = (("reduction", (reduction,)), ("dense", (dense,)))
        if reduction == "none":
            before = (f"sample_blocks_of_{form}",) if form in FACTORED else ()
            summed, entries = _entries(curvature, found, mean=False, dense=dense)
            table = Table(entries, SampleBlocks())
            return Case((*before, *summed), (table,), choices, (form,), batch_axis=True)
        summed, entries = _entries(curvature, found, mean=True, dense=dense)
        of_weights = _DENSE[form] if context.model.separates else _DENSE[form][-1:]
        functions: tuple[str, ...] = (*MEANS[form], *summed, *(of_weights if dense else ()))
        return Case(functions, (Table(entries, Blocks(dense)),), choices, (form,))

    cases = [
        *(case("none", False, form) for form in _EACH),
        *(case("mean", dense, form) for dense in (False, True) for form in FORMS),
    ]
    approximated = [kind.name for kind in kinds if kind.form == "batch"]
    dense = "also the blocks of the weights, in row-major order of the weight"
    if approximated:
        dense += (
            f"; of {', '.join(approximated)} the product of means H̄ ⊗ E[x xᵀ], an approximation of the mean "
            f"over the samples that is exact for {EXACT_WHEN['moment']}"
        )
    return Operator(
        declared.name,
        declared.doc,
        "EA-CG(4, 6, 8)",
        tuple(cases),
        arguments=(
            Argument(
                "reduction",
                "mean",
                "mean over the batch, or none: a leading sample axis (kinds of single samples).",
            ),
            Argument("dense", False, f"{dense}."),
        ),
        kinds=kinds,
        returns='Dict "<layer>.bias" -> (n, n), the block of the pre-activation; with dense also '
        '"<layer>.weight" -> (n m, n m).',
    )


def _block_vector_product(declared: Declaration, context: Context) -> Operator:
    model = context.model
    curvature = context.derived.curvature
    moments = MOMENTS if curvature.factored else ()
    every = (("sharing", SHARINGS),) if moments and not model.separates else ()

    def case(
        values: tuple[object, ...],
        functions: tuple[str, ...],
        form: Form,
        meaning: BlockProduct,
        more: tuple[tuple[str, tuple[object, ...]], ...],
        whole: bool = False,
    ) -> Case:
        found = context.like_params(BLOCK_PRODUCT, meaning)
        return Case(functions, (found,), (("moment", values), *more), (form,), whole=whole)

    exact = {form: f"block_product_of_{form}" for form in FACTORED}
    cases = [
        case((None, _EXACT), (exact.get(form, "block_product"),), form, BlockProduct("exact"), every)
        for form in _EACH
    ]
    if not model.separates:
        cases.append(case((None,), ("block_product_of_batch",), "batch", BlockProduct("places"), every))
    for form in FORMS:
        for moment in moments:
            for sharing in sharings(model):
                default = moment == "second" and form == "batch" and sharing is None
                values = (None, moment) if default else (moment,)
                rest = (other_diagonal_name(form),) if curvature.others else ()
                functions = (*factor_functions(form, moment, sharing), *rest, f"block_product_{moment}")
                meaning = BlockProduct(moment, sharing)
                whole = form in ("samples", "outputs")
                cases.append(case(values, functions, form, meaning, sharing_choice(sharing), whole))
    text = (
        "exact, the mean of the samples' products (kinds of single samples), or one of its "
        "approximations by means, second: H̄ V E[x xᵀ], and mean: H̄ V E[x] E[x]ᵀ; by default exact "
        "where it exists, else "
    )
    text += "second." if model.separates else "E[x xᵀ] for every pair of places."
    if moments and curvature.others:
        text += " Parameters without factors have their diagonal in these."
    if not moments:
        text = "exact, the mean of the samples' products, or of other kinds E[x xᵀ] for every pair of places."
    return Operator(
        declared.name,
        declared.doc,
        "EA-CG(11)",
        tuple(cases),
        vector=Vector(DIRECTION.families),
        arguments=(Argument("moment", None, text), *(sharing_argument(model) if moments else ())),
        kinds=context.kinds,
        returns="Dict like params.",
    )


def _diagonal(declared: Declaration, context: Context) -> Operator:
    curvature, found = context.derived.curvature, context.like_params(DIAGONAL, Diagonal())
    functions = {form: "diagonal" if form == "samples" else f"diagonal_of_{form}" for form in FORMS}
    approximated = [kind.name for kind in context.kinds if kind.form == "batch"]
    more = f" Of {', '.join(approximated)} it is made of products of means." if approximated else ""
    names = other_names(curvature)
    choice = bool(names and curvature.factored)
    rest = Table(tuple(entry for entry in found.entries if entry.key in names), Diagonal(names))
    cases = [Case((functions[form],), (found,), (("others", (False,)),) * choice, (form,)) for form in FORMS]
    if choice:
        cases += [
            Case((other_diagonal_name(form),), (rest,), (("others", (True,)),), (form,)) for form in FORMS
        ]
    return Operator(
        declared.name,
        declared.doc,
        "EA-CG(4)",
        tuple(cases),
        arguments=(Argument("others", False, _OTHERS),) * choice,
        kinds=context.kinds,
        returns=f"Dict like params.{more}",
    )


def _hessian_diagonal(declared: Declaration, context: Context) -> Operator:
    kinds = tuple(kind for kind in context.kinds if kind.name == "hessian")
    if not kinds:
        raise MethodError("hessian_diagonal needs the kind 'hessian'", hint="add it to curvature:")
    return Operator(
        declared.name,
        declared.doc,
        "EA-CG(4)",
        (Case(("diagonal",), (context.like_params(DIAGONAL, Diagonal()),), (), ("samples",)),),
        kinds=kinds,
        kind="hessian",
        returns="Dict like params.",
    )


def _systems(context: Context, wanted: Collection[str]) -> Iterator[Row]:
    """Blocks of each kind, and what is made of the blocks of a form."""
    if not context.systems:
        return
    for _, system in context.systems:
        yield Row(system.name, lambda s=system: s, context.before(system))  # type: ignore[misc]
    curvature = context.derived.curvature
    rows: list[tuple[str, Callable[[], System]]] = [
        ("mean_blocks", lambda: curvature.mean_blocks("samples")),
        *((f"mean_blocks_of_{form}", lambda f=form: curvature.mean_blocks(f)) for form in FACTORED),
        ("mean_bias_blocks", lambda: curvature.bias_blocks(mean=True)),
        ("sample_bias_blocks", lambda: curvature.bias_blocks(mean=False)),
        ("second_moments", lambda: curvature.moments("second")),
        ("mean_moments", lambda: curvature.moments("mean")),
        *((moments_name("second", s), lambda s=s: curvature.moments("second", s)) for s in SHARINGS),
        *(
            (factor_blocks_name(form, s), lambda f=form, s=s: curvature.factor_blocks(f, s))
            for form in FORMS
            for s in SHARINGS
        ),
        *((f"sample_blocks_of_{form}", lambda f=form: curvature.sample_blocks(f)) for form in FACTORED),
        ("dense_blocks_per_sample", lambda: curvature.dense("samples")),
        *((f"dense_blocks_of_{form}", lambda f=form: curvature.dense(f)) for form in FACTORED),
        ("dense_blocks", lambda: curvature.dense("batch")),
        ("block_product", lambda: curvature.product("samples", None)),
        *(
            (f"block_product_of_{form}", lambda f=form: curvature.product(f, None))
            for form in (*FACTORED, "batch")
        ),
        ("block_product_second", lambda: curvature.product("batch", "second")),
        ("block_product_mean", lambda: curvature.product("batch", "mean")),
        ("diagonal", lambda: curvature.diagonal("samples")),
        *((f"diagonal_of_{form}", lambda f=form: curvature.diagonal(f)) for form in (*FACTORED, "batch")),
        *((other_diagonal_name(form), lambda f=form: curvature.other_diagonal(f)) for form in FORMS),
    ]
    for name, derive in rows:
        yield Row(name, derive, ("forward",))


BLOCKS = OperatorSet(
    (
        Declaration(
            "block_hessian",
            "Blocks of the Hessian of the objective, or of another curvature, by parameter.",
            _block_hessian,
            uses_kinds=True,
        ),
        Declaration(
            "curvature_factors",
            "Kronecker factors of the weights' blocks, by layer.",
            curvature_factors,
            uses_kinds=True,
        ),
        Declaration(
            "gradient_and_factors",
            "Gradient, and Kronecker factors of the weights' blocks, in one pass.",
            gradient_and_factors,
            uses_kinds=True,
        ),
        Declaration(
            "block_vector_product",
            "Block-diagonal curvature times a vector.",
            _block_vector_product,
            uses_kinds=True,
        ),
        Declaration("diagonal", "Diagonal of a curvature.", _diagonal, uses_kinds=True),
        Declaration(
            "hessian_diagonal",
            "Diagonal of the Hessian of the objective.",
            _hessian_diagonal,
            uses_kinds=True,
        ),
    ),
    _systems,
)
