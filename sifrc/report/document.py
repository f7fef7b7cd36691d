"""The derived equations of a model, in the order of the derivation."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from sifrc.derive.derived import Derived
from sifrc.derive.lagrangian import gradient_symbols
from sifrc.derive.newton import Newton
from sifrc.derive.system import System, abbreviate
from sifrc.errors import DerivationError
from sifrc.ir import Expr, Input, Role
from sifrc.ir.build import add, negative, subtract, total
from sifrc.ir.normal import expand
from sifrc.ir.traverse import inputs_of
from sifrc.model import Constraint, Model, build_model
from sifrc.report.elimination import condition_notes, step_notes
from sifrc.report.grouping import Line, Names, rows_of, total_over_layers
from sifrc.report.indices import range_text
from sifrc.report.latex import latex, term_codes
from sifrc.report.layout import ZERO, Derivative, Function, Layout, Scalar, Symbol
from sifrc.report.sheet import EquationSheet, Formula, Row, Section
from sifrc.report.text import text
from sifrc.scalar import ScalarFunction, is_zero
from sifrc.spec import Spec

__all__ = ["equations"]


def equations(
    source: Spec | Model | Derived, newton: bool | None = None, white_layer: bool = True
) -> EquationSheet:
    """Everything derived from one model, as equations.

    Args:
        source: a spec, a model, or derivations already made (they carry ``white_layer`` themselves).
        newton: whether to derive the closed-form Newton direction; None derives it where its
            preconditions hold and otherwise says why not.
        white_layer: whether an identity layer before the input fixes N_1.

    Raises:
        DerivationError: ``newton`` is true and a precondition fails.

    Example:
        >>> from sifrc.spec import parse_spec, starter_spec
        >>> sheet = equations(parse_spec(starter_spec("digits")), newton=False)
        >>> print(sheet.sections[3].equations[0].left.text)
        b_k
    """
    if isinstance(source, Derived):
        derived = source
    else:
        derived = Derived(build_model(source) if isinstance(source, Spec) else source, white_layer)
    model = derived.model
    names = Names(
        model.depth,
        model.is_chain,
        {c.index: c.activation for c in model.constraints if c.activation is not None},
    )
    book = _Book(derived, names, Uniform(model))
    sections = [
        _network(book),
        *_first_order(book),
        *_second_order(book),
        _gauss_newton(book),
    ]
    if newton is not False:
        sections.append(_newton_section(book, required=newton is True))
    return EquationSheet(f"Equations of {model.spec.name}", tuple(section for section in sections if section.equations or section.notes))


def _lines(system: System, name: str = "") -> list[Line]:
    return [
        Line(_symbol(e.symbol), (e.value,), e.layer, e.source, name or system.name) for e in system.equations
    ]


def _symbol(symbol: Input) -> Symbol:
    return Symbol(symbol.family, symbol.index)


def _scalar_row(name: str, left: Layout, right: Layout, source: str, names: Names) -> Row:
    naming = names.whole
    pieces = tuple(term_codes(right, naming))
    return Row(
        name,
        Formula(text(left, naming), latex(left, naming)),
        Formula(text(right, naming), latex(right, naming), pieces),
        Formula("", ""),
        source,
    )


def _network(derived: Derived, names: Names) -> Section:
    """The forward model and what F_k are."""
    model = derived.model
    rows = rows_of(_lines(derived.first.forward), names)
    functions = rows_of(_function_lines(model), names)
    size = model.input.axes[0].size
    notes = [f"n = {model.depth}; x_0 is the input '{model.spec.input.name}', {size} entries."]
    notes += _runs(model.constraints, lambda c: c.axis.size, names, _describe_states)
    notes += _runs(
        [c for c in model.constraints if c.activation is not None],
        lambda c: c.activation,
        names,
        lambda members, where: f"F_k is {_function_name(members[0].activation)} for {where}.",
    )
    if not names.chain:
        numbers = ", ".join(f"{p.index} {p.layer}" for p in model.parameters[:12])
        more = ", …" if len(model.parameters) > 12 else ""
        notes.append(f"W and β are numbered by the layers that own them: {numbers}{more}.")
    return Section("Forward model", (*rows, *functions), tuple(notes))


def _runs(
    constraints: Sequence[Constraint],
    kind: Callable[[Constraint], object],
    names: Names,
    write: Callable[[list[Constraint], str], str],
) -> list[str]:
    """One sentence for all constraints of a kind."""
    runs: dict[object, list[Constraint]] = {}
    for c in constraints:
        runs.setdefault(kind(c), []).append(c)
    return [write(members, range_text((c.index for c in members), names.last)) for members in runs.values()]


def _describe_states(members: list[Constraint], where: str) -> str:
    size = members[0].axis.size
    listed = ", ".join(c.name for c in members) if len(members) <= 6 else f"{members[0].name}, …, {members[-1].name}"
    return f"x_k has {size} entries for {where}: {listed}."


def _function_name(function: ScalarFunction | None) -> str:
    assert function is not None
    values = ", ".join(f"{name} = {value:g}" for name, value in function.parameters)
    name = "the spec's own expression" if function.name == "custom" else function.name
    return f"{name} ({values})" if values else name


def _function_lines(model: Model) -> list[Line]:
    """F_k, F_k' and F_k'' as expressions in x; a second derivative that is zero is left out."""
    lines: list[Line] = []
    for order in (0, 1, 2):
        for c in model.constraints:
            if c.activation is None:
                continue
            body = c.activation.value_form((order,))
            if order == 2 and is_zero(body):
                continue
            left = Function(c.index, order, Symbol("x"))
            lines.append(Line(left, (), c.index, "", "function", (Scalar(body),)))
    return lines


def _first_order(derived: Derived, names: Names) -> list[Section]:
    model, first = derived.model, derived.first
    scalars = [
        _scalar_row("loss", Symbol("loss"), total_over_layers(model.loss, names), "", names),
        _scalar_row(
            "objective",
            Symbol("objective"),
            total_over_layers(total([Input("loss", None, (), Role.STATE), model.regularizer], ()), names),
            "ESN(4)",
            names,
        ),
    ]
    batch = "mean" if model.spec.loss.reduction == "mean" else "sum"
    notes = [f"Everything is for one sample; on a batch ℓ_R, its derivatives and their products are the {batch} over samples."]
    values: dict[float, list[int]] = {}
    for index, value in model.lambda_values:
        values.setdefault(value, []).append(index)
    notes += [f"λ_k = {value:g} for {range_text(members, names.last)}." for value, members in values.items()]
    lagrangian = total_over_layers(first.short(first.lagrangian), names)
    stationary = [
        Line(
            Derivative(Symbol("L"), _symbol(c.state)), (first.short(first.stationarity[c.index]),), c.index, "ESN(9)", "∂L/∂x = 0", (ZERO,)
        )
        for c in reversed(model.constraints)
    ]
    linear = [c.index for c in model.constraints if c.activation is None]
    remark = f"y_k = b_k where F_k is the identity: {range_text(linear, names.last)}." if linear else ""
    sections = [
        Section("Loss and objective", tuple(scalars), tuple(notes)),
        Section("Lagrangian", (_scalar_row("Lagrangian", Symbol("L"), lagrangian, "ESN(5)", names),)),
        Section(
            "Back-propagation",
            (*rows_of(_lines(first.adjoint), names), *rows_of(stationary, names)),
            (remark,) if remark else (),
        ),
        Section("Gradient", rows_of(_lines(first.gradient), names)),
    ]
    if derived.spectral is not None:
        spectral = derived.spectral.system
        note = "b°_k and y°_k are the adjoints without regularisation; λ_k is held constant under differentiation."
        sections.insert(3, Section(spectral.title, rows_of(_lines(spectral), names), (note,)))
    return sections


def _second_order(derived: Derived, names: Names) -> list[Section]:
    second = derived.second
    model = derived.model
    sifrian = total_over_layers(abbreviate([second.sifrian], derived.first.names)[0], names)

    def short(expr: Expr) -> Expr:
        return abbreviate([expr], second.names)[0]

    tetrad: list[Line] = []
    for number, letter, families in ((1, "weight", ("G", "g")), (2, "bias", ("G", "g"))):
        for owned in model.parameters:
            pairs = dict(gradient_symbols(owned, *families))
            symbol = owned.weight if letter == "weight" else owned.bias
            if symbol is None:
                continue
            left = Derivative(Symbol("S"), _symbol(symbol))
            target = total_over_layers(negative(pairs[symbol]), names)
            value = short(second.by_parameter[symbol])
            tetrad.append(Line(left, (value,), owned.index, f"ESN(16.{number})", f"Sifrian ({number})", (target,)))
    for number, nodes in ((3, second.by_state), (4, second.by_adjoint)):
        for c in model.constraints:
            by = c.state if number == 3 else derived.first.adjoints[c.index]
            left = Derivative(Symbol("S"), _symbol(by))
            tetrad.append(Line(left, (short(nodes[c.index]),), c.index, f"ESN(16.{number})", f"Sifrian ({number})", (ZERO,)))
    definitions = [
        *(line for line in _lines(second.tangent, "∂S/∂y") if isinstance(line.left, Symbol) and line.left.family == "u"),
        *(line for line in _lines(second.adjoint_tangent, "∂S/∂a") if isinstance(line.left, Symbol) and line.left.family == "z"),
    ]
    named = {id(line.left) for line in definitions}
    families = {line.left.family for line in definitions if isinstance(line.left, Symbol)}
    assert len(named) == len(definitions)

    def solved(system: System, name: str) -> list[Line]:
        return [line for line in _lines(system, name) if isinstance(line.left, Symbol) and line.left.family not in families]

    notes = ("Along a direction (N, η): ζ_k = −ẋ_k and γ_k = −ḃ_k. Equations (1) and (2) hold for a Newton direction only.",)
    return [
        Section("Sifrian", (_scalar_row("Sifrian", Symbol("S"), sifrian, "ESN(11)", names),)),
        Section("The four equations of the Sifrian", (*rows_of(tetrad, names), *rows_of(definitions, names)), notes),
        Section(
            "Equations (4) and (3) solved: forward, then backward in k",
            (*rows_of(solved(second.tangent, "Sifrian (4)"), names), *rows_of(solved(second.adjoint_tangent, "Sifrian (3)"), names)),
        ),
        Section("Hessian–vector product H(N, η)", rows_of(_lines(second.product, "H·(N, η)"), names)),
    ]


def _gauss_newton(derived: Derived, names: Names) -> list[Section]:
    gauss = derived.gauss_newton
    nodes: dict[Expr, Expr] = dict(derived.first.names)
    nodes.update({e.value: e.symbol for e in gauss.tangent.equations if e.symbol.family == "da"})
    lagrangian = total_over_layers(abbreviate([gauss.lagrangian], nodes)[0], names)
    return [
        Section(
            "Gauss–Newton–vector product C(N, η) of the data loss",
            (
                _scalar_row("Lagrangian", Symbol("L_G"), lagrangian, "", names),
                *rows_of(_lines(gauss.tangent, "linearised"), names),
                *rows_of(_lines(gauss.adjoint, "its adjoint"), names),
                *rows_of(_lines(gauss.product, "C·(N, η)"), names),
            ),
        )
    ]


def _newton_section(derived: Derived, names: Names, required: bool) -> Section:
    title = "Newton direction of one sample"
    try:
        newton = derived.newton
    except DerivationError as error:
        if required:
            raise
        hint = f" {error.hint[0].upper()}{error.hint[1:]}." if error.hint else ""
        return Section(title, (), (f"Not derived: {error.message}.{hint}",))
    proved = (
        "Substituted into the tetrad: zero (normal form)."
        if newton.proved
        else "Substituted into the tetrad: not decided by the normal form."
    )
    white = (
        "White layer: an identity layer before the input, k = 0, regularised with λ_0 and never updated, fixes N_1."
        if derived.white_layer
        else "Without a white layer no equation fixes N_1: zero is the one of least norm."
    )
    notes = (white, *step_notes(newton, names), *condition_notes(newton, names), proved)
    return Section(title, rows_of(list(_newton_lines(newton)), names), notes)


def _newton_lines(newton: Newton) -> Iterable[Line]:
    first = newton.second.first
    model = first.model
    directions = newton.second.directions
    short = first.short
    source, name = "ESN(17)", "Newton"
    for owned in model.parameters:
        symbol = directions[owned.weight]
        value = expand(short(newton.weights[owned.index]))
        yield Line(_symbol(symbol), (value,), owned.index, source, name)
    output = model.output
    last = model.parameters[-1]
    for owned in model.parameters:
        assert owned.bias is not None
        symbol = directions[owned.bias]
        applied = expand(subtract(symbol, newton.bias_conditions[owned.index]))
        own = newton.biases[owned.index]
        if owned is last:
            rest = expand(subtract(short(own), short(newton.granular)))
            granular = Input("v", owned.index, own.axes, Role.TANGENT)
            applied, own = total([granular, applied], own.axes), total([granular, rest], own.axes)
        else:
            own = expand(short(own))
        values = (applied, own) if own is not applied else (own,)
        yield Line(_symbol(symbol), values, owned.index, source, name)
    matrix = short(newton.output_equation[0])
    system = Input("M", output.index, matrix.axes, Role.TANGENT)
    value = abbreviate([short(newton.granular)], {matrix: negative(system)})[0]
    yield Line(Symbol("v", last.index), (value,), last.index, "", "granular")
    if system in inputs_of(value):
        yield Line(_symbol(system), (add([(-1, matrix)], matrix.axes),), output.index, "", "granular")
