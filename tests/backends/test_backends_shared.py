"""Finding backends, their options, and the text helpers."""

from __future__ import annotations

import ast
import re

import pytest

from sifrc.backends import BUILT_IN, LIBRARIES, check_options, find_backend, known_backends
from sifrc.backends.base import Option
from sifrc.backends.layout import lines_of, statement
from sifrc.backends.text import docstring, environment, finished, literal, template_folder
from sifrc.errors import BackendError, Location


class Outside:
    """A backend of another package."""

    name = "outside"
    dtypes = ("float64",)
    options = (
        Option("tile", 16, "rows of a tile", (8, 16)),
        Option("fast", False, "be fast"),
        Option("scale", 1.0, "a factor"),
    )

    def emit(self, module):
        """Nothing."""
        return "\n"


INSTANCE = Outside()
NOTHING = object()


def test_backends_are_found_by_name_and_by_place():
    """Built in by name; another one as module:attribute, class or instance."""
    assert find_backend("torch").name == "torch"
    assert {"torch", "numba", "cuda"} <= set(known_backends())
    assert {*BUILT_IN} == {*LIBRARIES} and all(find_backend(name).name == name for name in BUILT_IN)
    assert find_backend(f"{__name__}:Outside").name == "outside"
    assert find_backend(f"{__name__}:INSTANCE") is INSTANCE


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("torhc", "unknown backend 'torhc'.*did you mean 'torch'"),
        ("os.path", "known backends: cuda numba torch"),
        ("no_such_module_here:x", "cannot be loaded"),
        (f"{__name__}:absent", "cannot be loaded"),
        (f"{__name__}:NOTHING", "is not a backend: it has no name, options, dtypes or emit"),
        ("a:b c", "unknown backend"),
    ],
)
def test_unknown_backends_are_explained(name, text):
    """The error says what there is."""
    with pytest.raises(BackendError) as caught:
        find_backend(name, Location("net.yaml", 3, 1, 5, "text"))
    assert re.search(text, str(caught.value), re.DOTALL)
    assert "net.yaml:3:1" in str(caught.value)


def test_options_are_filled_in_and_checked():
    """Defaults in the order of the table; what does not fit is an error with a place."""
    assert dict(check_options(INSTANCE, {"fast": True, "scale": 2})) == {"tile": 16, "fast": True, "scale": 2}
    place = {name: Location("net.yaml", 7, 3, 6, "x") for name in ("tile", "tyle", "fast")}
    for given, text in (
        ({"tyle": 8}, "no option 'tyle'"),
        ({"tile": 9}, "accepted: 8 or 16"),
        ({"tile": True}, "not of type int"),
        ({"fast": 1}, "not of type bool"),
    ):
        with pytest.raises(BackendError, match=text) as caught:
            check_options(INSTANCE, given, place)
        assert "net.yaml:7:3" in str(caught.value)


def test_templates_refuse_unknown_names():
    """StrictUndefined, and block tags that leave no empty lines."""
    made = environment(template_folder("torch"))
    assert made.from_string("{% for n in x %}\n  {{ n }}\n{% endfor %}\n").render(x=[1, 2]) == "  1\n  2\n"
    with pytest.raises(Exception, match="undefined"):
        made.from_string("{{ nothing }}").render()
    with pytest.raises(BackendError, match="missing"):
        template_folder("nowhere")


def test_literals_read_back_as_the_same_data():
    """Nested data, long and short, strings with quotes."""
    value = {"a": [1, 2.5e-7, True, None], "quoted": 'say "it\'s"', "t": (3,), "long": ["word " * 8] * 9}
    text = literal(value)
    assert ast.literal_eval(text) == value
    assert max(map(len, text.splitlines())) <= 110
    with pytest.raises(BackendError, match="set"):
        literal({"a": {1}})


def test_long_statements_are_split_into_named_parts():
    """Every line fits, and the parts come first."""
    text = " + ".join(f"torch.exp(some_name[k - {n}] * other_name[k])" for n in range(9))
    lines = statement(f"x[k] = {text}", 8)
    assert len(lines) > 1 and max(map(len, lines)) <= 110
    assert lines[0].startswith("        term0 = ") and lines[-1].startswith("        x[k] = ")
    assert statement("x = -(a*b)**2 / (c*d) - (e - f)", 0) == ["x = -((a * b) ** 2) / (c * d) - (e - f)"]
    assert statement("x = (a@b).T**2.0", 0) == ["x = (a @ b).T ** 2.0"]
    assert lines_of(["argument" * 4] * 4, "f(", ")", 0)[-1] == ")"


@pytest.mark.parametrize("operator", ["=", "+=", "*="])
def test_long_statements_keep_their_operator(operator):
    """Also where the arguments of a call get lines of their own."""
    names = ", ".join(f"{letter * 60}[p]" for letter in "ab")
    lines = statement(f"total[k] {operator} numpy.dot({names})", 4)
    assert lines[0] == f"    total[k] {operator} numpy.dot(" and lines[-1] == "    )"
    factors = " * ".join(f"f({name})" for name in names.split(", "))
    *parts, last = statement(f"total {operator} {factors}", 4)
    assert last.startswith(f"    total {operator} ") and parts and all(" = " in part for part in parts)


def test_docstrings_keep_their_quotes_apart():
    """Backslashes and quotes in the text do not end it."""
    for text in ('ends in "', "a \\ b", 'three """ quotes'):
        assert ast.literal_eval(docstring(text)).strip() == text


@pytest.mark.parametrize("sign", ["+", "-", "*"])
def test_long_sums_are_written_in_lines(sign):
    """As deep as they are long: no recursion over their terms, every line short, the value the same."""
    values = {f"x{n}": 1.0 + (n % 7) / 64 for n in range(900)}
    terms = [f"{name}*f(y{sign}{n})" if n % 3 else name for n, name in enumerate(values)]
    text = f"result[k] = {f' {sign} '.join(terms)}"
    lines = statement(text, 8)
    assert max(map(len, lines)) <= 110
    assert len(lines) > 50
    scope = {**values, "f": lambda z: 1.0 + 1e-3 * (z % 5), "y": 3, "k": 0}
    ours, theirs = {"result": {}}, {"result": {}}
    exec("\n".join(line.strip() for line in lines), {**scope, **ours})
    exec(text, {**scope, **theirs})
    assert ours == theirs


def test_parts_that_read_the_same_get_one_name():
    """Wherever they are, also within a target."""
    part = "f(" + " + ".join(f"value_{n}" for n in range(8)) + ")"
    lines = statement(f"x[{part}] = {part} * y[{part}] - other_{'o' * 60}", 0)
    assert lines == [f"term0 = {part}", f"x[term0] = term0 * y[term0] - other_{'o' * 60}"]


def test_two_functions_of_one_name_are_refused():
    """A module would have the last one only."""
    with pytest.raises(BackendError, match="two functions of the module are called '_blocks_mine'"):
        finished("def _blocks_mine():\n    pass\n\n\ndef _blocks_mine(a):\n    pass\n")
    assert finished("def f():\n    pass\n\n\nclass g:\n    def f(self): ...\n").endswith("...\n")
