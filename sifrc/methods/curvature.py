"""Operators on curvature blocks: which systems each composes, for every kind and argument."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from types import MappingProxyType

from sifrc.derive.curvature.kinds import EXACT_WHEN, KINDS, Form, Kind
from sifrc.derive.curvature.systems import MEAN_BLOCK, MOMENTS, SCORES
from sifrc.derive.curvature.weights import owner_of
from sifrc.derive.derived import Derived
from sifrc.derive.shaped import BLOCK_PRODUCT, DIAGONAL, DIRECTION, GRADIENT
from sifrc.derive.system import System
from sifrc.errors import DerivationError, MethodError
from sifrc.ir.traverse import inputs_of
from sifrc.methods.curvature_plan import Case, CurvatureOperator, KindPlan, Result
from sifrc.methods.plan import Phase
from sifrc.model import Model, Shaped

__all__ = ["CURVATURE_OPERATORS", "available_kinds", "curvature_operators", "curvature_phases", "kind_plans"]

_EXACT, _SECOND, _MEAN = "exact", "second", "mean"
_EACH: tuple[Form, ...] = ("samples", *SCORES)
"""Forms with a block or its factors for each sample, so that means over the samples are exact."""
_MEANS: tuple[Form, ...] = (*SCORES, "batch")
"""Forms that come with the blocks of the batch."""

CURVATURE_OPERATORS: Mapping[str, str] = MappingProxyType(
    {
        "block_hessian": "Blocks of the Hessian of the objective, or of another curvature, by parameter.",
        "curvature_factors": "Kronecker factors of the weights' blocks, by layer.",
        "gradient_and_factors": "Gradient, and Kronecker factors of the weights' blocks, in one pass.",
        "block_vector_product": "Block-diagonal curvature times a vector.",
        "hessian_diagonal": "Diagonal of the Hessian of the objective.",
    }
)
"""Name -> what it is."""


_WITH_MOMENTS = frozenset({"curvature_factors", "gradient_and_factors", "block_vector_product"})


def available_kinds(derived: Derived, wanted: Iterable[Kind] = ()) -> tuple[tuple[Kind, System], ...]:
    """The kinds with their systems; without a wish, every preset that exists for the model.

    Raises:
        DerivationError: a wanted kind does not exist for the model.
    """
    wanted = tuple(wanted)
    found: list[tuple[Kind, System]] = []
    for kind in wanted or KINDS.values():
        try:
            found.append((kind, derived.curvature.blocks(kind)))
        except DerivationError:
            if wanted:
                raise
    return tuple(found)


def kind_plans(kinds: Iterable[tuple[Kind, System]], spectral: bool) -> tuple[KindPlan, ...]:
    """How each kind is computed.

    Args:
        kinds: with their systems.
        spectral: whether λ_k is a value per sample that a phase computes.
    """
    return tuple(
        KindPlan(
            kind.name,
            (*_before(system, spectral), system.name),
            kind.form,
            draws=kind.source == "sampled",
        )
        for kind, system in kinds
    )


def _before(system: System, spectral: bool) -> tuple[str, ...]:
    """Phases before the blocks; back-propagation only where a residual needs it."""
    used = {symbol.family for e in system.equations for symbol in inputs_of(e.value)}
    adjoint = ("adjoint",) if used & {"b", "y"} else ()
    return ("forward", *(("spectral",) if spectral else ()), *adjoint)


def curvature_phases(
    derived: Derived, kinds: Iterable[tuple[Kind, System]], names: Iterable[str]
) -> tuple[Phase, ...]:
    """The phases that the kinds and operators use, beyond the first-order ones."""
    curvature = derived.curvature
    kinds = tuple(kinds)
    forms = {kind.form for kind, _ in kinds}
    exact = [form for form in _EACH if form in forms]
    approximate = "batch" in forms
    names = set(names)
    systems: list[System] = []
    if "samples" in forms and names - {"hessian_diagonal"}:
        systems.append(curvature.mean_blocks())
    if names & _WITH_MOMENTS or ("block_hessian" in names and approximate):
        systems.append(curvature.moments("second"))
    if names & _WITH_MOMENTS:
        systems.append(curvature.moments("mean"))
    if "block_hessian" in names:
        systems += [curvature.sample_blocks(form) for form in exact if form in SCORES]
        systems += [curvature.dense(form) for form in exact]
        systems += [curvature.dense("batch")] if approximate else []
    if "block_vector_product" in names:
        systems += [curvature.product(form, None) for form in exact]
        systems += [curvature.product("batch", "second"), curvature.product("batch", "mean")]
    if "hessian_diagonal" in names:
        systems.append(curvature.diagonal())
    spectral = derived.spectral is not None
    blocks = [Phase(system, _before(system, spectral), ("batched",)) for _, system in kinds]
    return (*blocks, *(Phase(system, ("forward",), ("batched",)) for system in systems))


def curvature_operators(
    model: Model, names: Iterable[str], kinds: tuple[KindPlan, ...]
) -> tuple[CurvatureOperator, ...]:
    """The operators by name.

    Raises:
        MethodError: the diagonal without the kind ``hessian``.
    """
    build = {
        "block_hessian": _block_hessian,
        "curvature_factors": _curvature_factors,
        "gradient_and_factors": _gradient_and_factors,
        "block_vector_product": _block_vector_product,
        "hessian_diagonal": _hessian_diagonal,
    }
    names = set(names)
    if "hessian_diagonal" in names and not any(kind.name == "hessian" for kind in kinds):
        raise MethodError("hessian_diagonal needs the kind 'hessian'", hint="add it to curvature:")
    return tuple(build[name](model, kinds) for name in CURVATURE_OPERATORS if name in names)


def _blocks(model: Model, family: str) -> tuple[Result, ...]:
    """The blocks of the biases, where a layer has one."""
    return tuple(
        Result(parameter.name, ((family, owner_of(model, owned).index),))
        for owned in model.parameters
        for parameter in owned.members
        if parameter.slot == "bias"
    )


def _weights(model: Model) -> tuple[Result, ...]:
    return tuple(
        Result(parameter.name, (("∇²W", owned.index),), matrix=True)
        for owned in model.parameters
        for parameter in owned.members
        if parameter.slot == "weight"
    )


_DENSE: Mapping[Form, tuple[str, ...]] = MappingProxyType(
    {
        "samples": ("dense_blocks_per_sample",),
        "scores": ("dense_blocks_of_scores",),
        "class_scores": ("dense_blocks_of_class_scores",),
        "batch": ("second_moments", "dense_blocks"),
    }
)
"""Functions that compute the blocks of the weights."""


def _block_hessian(model: Model, kinds: tuple[KindPlan, ...]) -> CurvatureOperator:
    def case(reduction: str, dense: bool, *forms: Form) -> Case:
        choices = (("reduction", (reduction,)), ("dense", (dense,)))
        if reduction == "none":
            functions = tuple(f"sample_blocks_of_{form}" for form in forms if form in SCORES)
            return Case(choices, functions, _blocks(model, "H"), forms, batch_axis=True)
        functions = _with_means(forms, *(_DENSE[forms[0]] if dense else ()))
        results = _blocks(model, MEAN_BLOCK) + (_weights(model) if dense else ())
        return Case(choices, functions, results, forms)

    cases = [
        *(case("none", False, form) for form in _EACH),
        case("mean", False, "samples"),
        case("mean", True, "samples"),
        case("mean", False, *_MEANS),
        *(case("mean", True, form) for form in _MEANS),
    ]
    approximated = [kind.name for kind in kinds if kind.form == "batch"]
    dense = "also the blocks of the weights, in row-major order of the weight"
    if approximated:
        dense += (
            f"; of {', '.join(approximated)} the product of means H̄ ⊗ E[x xᵀ], an approximation of the mean "
            f"over the samples that is exact for {EXACT_WHEN['moment']}"
        )
    return CurvatureOperator(
        "block_hessian",
        "",
        (
            (
                "reduction",
                "mean",
                "mean over the batch, or none: a leading sample axis (kinds of single samples).",
            ),
            ("dense", False, f"{dense}."),
        ),
        tuple(cases),
        doc=CURVATURE_OPERATORS["block_hessian"],
        returns='Dict "<layer>.bias" -> (n, n), the block of the pre-activation; with dense also '
        '"<layer>.weight" -> (n m, n m).',
        source="EA-CG(4, 6, 8)",
    )


def _factors(model: Model, moment: str) -> tuple[Result, ...]:
    family = MOMENTS["second" if moment == _SECOND else "mean"]
    return tuple(
        Result(owned.layer, ((family, owned.index), (MEAN_BLOCK, owner_of(model, owned).index)))
        for owned in model.parameters
    )


def _with_means(forms: tuple[Form, ...], *functions: str) -> tuple[str, ...]:
    """The functions, after that of the means where the kinds come without them."""
    return ("mean_blocks", *functions) if forms == ("samples",) else functions


def _curvature_factors(model: Model, kinds: tuple[KindPlan, ...]) -> CurvatureOperator:
    cases = [
        Case(
            (("moment", (moment,)),), _with_means(forms, f"{moment}_moments"), _factors(model, moment), forms
        )
        for forms in (("samples",), _MEANS)
        for moment in (_SECOND, _MEAN)
    ]
    return CurvatureOperator(
        "curvature_factors",
        "",
        (("moment", _SECOND, "second: E[x xᵀ] of the input x of the layer, or mean: E[x]."),),
        tuple(cases),
        pair=("moment", "block"),
        doc=CURVATURE_OPERATORS["curvature_factors"],
        returns="Dict layer -> Factors(moment (m, m) or (m,), block (n, n)), each a mean over the batch. The "
        "weight's block is the mean of products; block ⊗ moment, a product of means, approximates it and is "
        f"exact for {EXACT_WHEN['moment']}.",
        source="EA-CG(5, 11)",
    )


def _gradient_and_factors(model: Model, kinds: tuple[KindPlan, ...]) -> CurvatureOperator:
    return replace(
        _curvature_factors(model, kinds),
        name="gradient_and_factors",
        extra=("gradient",),
        also=_tensors(model, GRADIENT),
        doc=CURVATURE_OPERATORS["gradient_and_factors"],
        returns="Dict like params, and dict layer -> Factors(moment (m, m) or (m,), block (n, n)), as "
        "``curvature_factors`` has them.",
    )


def _tensors(model: Model, quantity: Shaped) -> tuple[Result, ...]:
    return tuple(
        Result(parameter.name, ((quantity.family(parameter.slot), owned.index),))
        for owned in model.parameters
        for parameter in owned.members
    )


def _block_vector_product(model: Model, kinds: tuple[KindPlan, ...]) -> CurvatureOperator:
    results = _tensors(model, BLOCK_PRODUCT)
    exact = {form: f"block_product_of_{form}" for form in SCORES}
    cases = [
        Case((("moment", (None, _EXACT)),), (exact.get(form, "block_product"),), results, (form,))
        for form in _EACH
    ]
    forms: tuple[Form, ...]
    for forms in (("samples",), SCORES, ("batch",)):
        for moment in (_SECOND, _MEAN):
            values = (None, moment) if moment == _SECOND and forms == ("batch",) else (moment,)
            functions = _with_means(forms, f"{moment}_moments", f"block_product_{moment}")
            cases.append(Case((("moment", values),), functions, results, forms, whole=forms == ("samples",)))
    return CurvatureOperator(
        "block_vector_product",
        "",
        (
            (
                "moment",
                None,
                "exact, the mean of the samples' products (kinds of single samples), or one of its "
                "approximations by means, second: H̄ V E[x xᵀ], and mean: H̄ V E[x] E[x]ᵀ; by default exact "
                "where it exists, else second.",
            ),
        ),
        tuple(cases),
        vector=DIRECTION.families,
        doc=CURVATURE_OPERATORS["block_vector_product"],
        returns="Dict like params.",
        source="EA-CG(11)",
    )


def _hessian_diagonal(model: Model, kinds: tuple[KindPlan, ...]) -> CurvatureOperator:
    case = Case((), ("diagonal",), _tensors(model, DIAGONAL), ("samples",))
    return CurvatureOperator(
        "hessian_diagonal",
        "hessian",
        (),
        (case,),
        doc=CURVATURE_OPERATORS["hessian_diagonal"],
        returns="Dict like params.",
        source="EA-CG(4)",
    )
