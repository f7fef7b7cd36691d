"""The expression language: what it accepts, what it refuses and where it points."""

from __future__ import annotations

import time
from fractions import Fraction

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sifrc.errors import Location, SpecError
from sifrc.spec.checks import check_loss_rank, rank_of, used_names
from sifrc.spec.expression import Binary, Call, Compare, Expression, Name, Negative, Number
from sifrc.spec.format import format_expression
from sifrc.spec.functions import LOSS_FUNCTIONS, NOT_DIFFERENTIABLE, SCALAR_FUNCTIONS
from sifrc.spec.parser import MAX_DEPTH, MAX_LENGTH, parse_expression

X = Name("x")


def number(text: str) -> Number:
    return Number(Fraction(text))


TREES: dict[str, Expression] = {
    "x": X,
    "0.1": number("1/10"),
    "1e-3": number("1/1000"),
    ".5": number("1/2"),
    "-x**2": Negative(Binary("**", X, number("2"))),
    "x**-2": Binary("**", X, Negative(number("2"))),
    "2 - x - 1": Binary("-", Binary("-", number("2"), X), number("1")),
    "+x": X,
    "  x + a\n": Binary("+", X, Name("a")),
    "where(x > 0, x, a*x)": Call("where", (Compare(">", X, number("0")), X, Binary("*", Name("a"), X))),
    "max(x, 0)": Call("max", (X, number("0"))),
    "(x\n + 1)": Binary("+", X, number("1")),
}


@pytest.mark.parametrize("text", TREES)
def test_text_gives_the_expected_tree(text: str) -> None:
    assert parse_expression(text, parameters=["a"]) == TREES[text]


# The mark § stands before the first and after the last character that the error points at.
REFUSED = {
    "import": ("§__import__§('os')", "unknown function '__import__'"),
    "import and call": ("§__import__('os').system§('true')", "plain name"),
    "dunder": ("x + §x.__class__§", "attribute access"),
    "lambda": ("1 + (§lambda: x§)", "'lambda'"),
    "f-string": ("x + §f'{x}'§", "text is not accepted"),
    "text": ("exp(§'a'§)", "text is not accepted"),
    "bytes": ("exp(§b'a'§)", "text is not accepted"),
    "comprehension": ("§[x for x in x]§", "not accepted"),
    "index": ("§x[0]§", "indexing"),
    "conditional": ("§x if x else 1§", "if … else"),
    "boolean": ("where(§x > 0 and x < 1§, x, 0)", "'and' and 'or'"),
    "not": ("§not x§", "not accepted"),
    "true": ("x*§True§", "not an accepted number"),
    "none": ("§None§", "not an accepted number"),
    "ellipsis": ("§...§", "not an accepted number"),
    "complex": ("x*§2j§", "not an accepted number"),
    "hexadecimal": ("x*§0x10§", "not an accepted number"),
    "underscore": ("x*§1_000§", "not an accepted number"),
    "walrus": ("(§z := x§)", "assignment"),
    "keyword argument": ("§exp(x=1)§", "plain arguments"),
    "star": ("x + §max(*x)§", "plain arguments"),
    "huge exponent": ("9**§9**9§", "exponent is too large"),
    "exponent": ("x**§65§", "exponent is too large"),
    "negative exponent": ("x**(§-65§)", "exponent is too large"),
    "huge number": ("x + §1e31§", "too large or too small"),
    "endless number": ("x + §1e999999999§", "too large or too small"),
    "endlessly small": ("x + §1e-999999999§", "too large or too small"),
    "long number": ("x + §" + "1234567890" * 5 + "§", "too many digits"),
    "huge constant": ("x + §(10**20)*(10**20)§", "too large or too small"),
    "tower": ("§(9**9)**9§*x", "too large or too small"),
    "division by zero": ("x + §1/0§", "no value"),
    "power of zero": ("x + §0**(-1)§", "no value"),
    "root": ("x*§(-1)**0.5§", "no value"),
    "caret": ("§x^2§", "use ** for powers"),
    "floor division": ("x + §x//2§", "not differentiable"),
    "modulo": ("§x%2§", "not differentiable"),
    "bare comparison": ("2*(§x > 0§)", "non-differentiable"),
    "comparison as branch": ("where(x > 0, §x < 1§, 0)", "non-differentiable"),
    "equality": ("where(§x == 0§, 1, x)", "comparison is not accepted"),
    "chain": ("where(§0 < x < 1§, 1, x)", "chain of comparisons"),
    "number as condition": ("where(§x§, 1, x)", "must be a comparison"),
    "sign": ("x*§sign§(x)", "non-differentiable"),
    "floor": ("§floor§(x)", "non-differentiable"),
    "round": ("x + §round§(x)", "non-differentiable"),
    "heaviside": ("x*§Heaviside§(x)", "non-differentiable"),
    "misspelt function": ("x + §sofplus§(x)", "did you mean 'softplus'?"),
    "other name": ("x*§arctan§(x)", "did you mean 'atan'?"),
    "module": ("x*§np.exp§(x)", "write exp"),
    "undeclared": ("x*§slope§", "undeclared symbol 'slope'"),
    "function as name": ("§tanh§*x", "write tanh(x)"),
    "variable called": ("§x§(3)", "'x' is not a function"),
    "arity": ("1 + §exp(x, 2)§", "takes 1 argument, not 2"),
    "vector function": ("x*§softmax§(x)", "losses only"),
    "greek": ("x*§α", "not accepted"),
    "comment": ("x §# y", "not accepted"),
    "backslash": ("x §\\ + y", "not accepted"),
    "null": ("x§\x00", "not accepted"),
    "syntax": ("x + §* 2", "cannot read an activation expression"),
    "open parenthesis": ("exp§(x", "never closed"),
    "two statements": ("x§; x", "cannot read"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_text_is_pointed_at(case: str) -> None:
    marked, fragment = REFUSED[case]
    start = marked.index("§")
    text = marked.replace("§", "")
    # The expression stands in a line of its own document, indented by nine characters.
    location = Location("net.yaml", 7, 10, 10 + len(text), " " * 9 + text)
    with pytest.raises(SpecError) as caught:
        parse_expression(text, functions=SCALAR_FUNCTIONS, location=location, role="an activation expression")
    error = caught.value
    assert fragment in str(error)
    assert error.location is not None
    assert (error.location.line, error.location.column) == (7, 10 + start)
    if marked.count("§") == 2:
        assert error.location.end_column == 10 + marked.rindex("§") - 1


@pytest.mark.parametrize(
    "text",
    [
        "(" * 1500 + "x" + ")" * 400,
        "[" * 2000,
        "-" * 1999 + "x",
        "not " * 499 + "x",
        "x**" * 600 + "x",
        "+".join(["x"] * 900),
        "exp(" * 300 + "x" + ")" * 300,
        "lambda:" * 280 + "x",
        "x if x else " * 160 + "x",
        "x" * (MAX_LENGTH + 1),
        "9" * (MAX_LENGTH - 1),
        "",
        " \n ",
    ],
)
def test_hostile_sizes_are_refused_quickly(text: str) -> None:
    start = time.perf_counter()
    with pytest.raises(SpecError):
        parse_expression(text)
    assert time.perf_counter() - start < 10.0  # a hang, on any machine


def test_depth_below_the_limit_is_accepted() -> None:
    assert parse_expression("+".join(["x"] * MAX_DEPTH))


@settings(max_examples=400, deadline=None)
@given(st.text(max_size=60))
@example("\ufeffx")
@example("x\r")
@example("0_x")
@example("1if")
@example("\ud800")
def test_arbitrary_text_raises_nothing_but_spec_errors(text: str) -> None:
    try:
        parse_expression(text, variables=("x", "y"))
    except SpecError as error:
        assert str(error)


PIECES = st.sampled_from(
    [
        *"xyt()+-*/<>=.,:[]{}'\"&|^%~@ \n\t0123456789",
        "**",
        "exp",
        "where",
        "lambda ",
        " if ",
        " else ",
        "f'",
        "max(",
        "sum(",
        "1e9",
        "None",
        "yield ",
        "await ",
        "async ",
        "import ",
        "not ",
        " in ",
        "0x",
        "1_",
        "j",
    ]
)


@settings(max_examples=600, deadline=None)
@given(st.lists(PIECES, max_size=25).map("".join))
def test_text_near_the_language_raises_nothing_but_spec_errors(text: str) -> None:
    try:
        tree = parse_expression(text, variables=("x", "y", "t"))
    except SpecError as error:
        assert str(error)
    else:
        assert parse_expression(format_expression(tree), variables=("x", "y", "t")) == tree


DECIMALS = st.builds(
    lambda digits, places: Number(Fraction(digits, 10**places)),
    st.integers(0, 10**12),
    st.integers(0, 15),
)
EXPRESSIONS: st.SearchStrategy[Expression] = st.recursive(
    st.one_of(DECIMALS, st.sampled_from([Name("x"), Name("a")])),
    lambda inner: st.one_of(
        st.builds(Negative, inner),
        st.builds(Binary, st.sampled_from(["+", "-", "*", "/"]), inner, inner),
        st.builds(lambda base: Binary("**", base, Negative(Name("a"))), inner),
        st.builds(lambda exponent: Binary("**", Name("x"), exponent), st.just(number("2"))),
        st.builds(lambda argument: Call("tanh", (argument,)), inner),
        st.builds(lambda a, b: Call("where", (Compare("<=", a, b), b, a)), inner, inner),
    ),
    max_leaves=12,
)


@settings(max_examples=300, deadline=None)
@given(EXPRESSIONS)
def test_canonical_text_parses_to_the_same_tree(tree: Expression) -> None:
    text = format_expression(tree)
    try:
        parsed = parse_expression(text, parameters=["a"])
    except SpecError as error:
        # Random constants may have no value or be out of range; nothing else may be refused.
        assert "constant" in error.message or "number" in error.message
        return
    assert parsed == tree


def test_nodes_know_their_place() -> None:
    text = "x + tanh(a)"
    tree = parse_expression(
        text, parameters=["a"], location=Location("f", 3, 5, 5 + len(text), "k: '" + text[:0] + text + "'")
    )
    assert isinstance(tree, Binary)
    assert tree.right.location is not None
    assert (tree.right.location.column, tree.right.location.end_column) == (9, 16)


def test_several_lines_point_at_the_whole_and_name_the_part() -> None:
    location = Location("f", 3, 5, 6, "e: >-")
    with pytest.raises(SpecError, match=r"sofplus\(x\)|sofplus") as caught:
        parse_expression("x +\n sofplus(x)", location=location)
    assert caught.value.location == location
    assert "character 6" in caught.value.message


RANKS = {
    "sum(y)": "number",
    "mean((y - t)**2)": "number",
    "-dot(t, log_softmax(y))": "number",
    "softmax(y)": "vector",
    "where(y > 0, 1, 0)*logsumexp(y)": "vector",
    "exp(logsumexp(y)) + 1": "number",
    "2": "number",
}


@pytest.mark.parametrize("text", RANKS)
def test_rank_is_inferred(text: str) -> None:
    assert rank_of(parse_expression(text, variables=["y", "t"]), ["y", "t"]) == RANKS[text]


@pytest.mark.parametrize(
    ("text", "fragment", "column"),
    [
        ("(y - t)**2", "did you mean sum", 1),
        ("softmax(y)", "did you mean sum", 1),
        ("sum(mean(y))", "'sum' takes a vector", 5),
        ("dot(y, 2)", "'dot' takes a vector", 8),
        ("sum(y) + softmax(sum(t))", "'softmax' takes a vector", 18),
    ],
)
def test_wrong_ranks_are_refused(text: str, fragment: str, column: int) -> None:
    with pytest.raises(SpecError) as caught:
        check_loss_rank(parse_expression(text, variables=["y", "t"]))
    assert fragment in str(caught.value)
    assert caught.value.location is not None
    assert caught.value.location.column == column


def test_max_of_a_vector_is_named_not_differentiable() -> None:
    with pytest.raises(SpecError, match=r"(?s)non-differentiable.*logsumexp"):
        parse_expression("max(y)", variables=["y", "t"], functions=LOSS_FUNCTIONS)


@pytest.mark.parametrize("name", sorted(SCALAR_FUNCTIONS))
def test_definitions_use_the_arguments_and_the_language(name: str) -> None:
    function = SCALAR_FUNCTIONS[name]
    assert function.name == name
    assert name not in NOT_DIFFERENTIABLE
    if function.definition is not None:
        tree = parse_expression(function.definition, variables=function.arguments)
        assert used_names(tree) == set(function.arguments)
