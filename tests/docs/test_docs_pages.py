"""The documents show what the program does: examples run, specs parse, equations are the derived ones."""

from __future__ import annotations

import doctest
import re
from pathlib import Path

import pytest
import yaml

import sifrc
from sifrc.methods.registry import METHODS
from sifrc.spec import build_spec, parse_spec
from sifrc.spec.functions import LOSS_FUNCTIONS
from sifrc.spec.registry import ACTIVATIONS, LOSSES
from sifrc.spec.schema import SHAPES

DOCS = Path(__file__).resolve().parents[2] / "docs"
DOCUMENTS = (
    *("architecture.md", "grouped_newton.md", "layers.md", "mathematics.md", "operators.md", "optimizers.md"),
    "spec.md",
)


def _blocks(document, kind):
    """(words after the kind, text) of the fenced blocks of a kind."""
    text = (DOCS / document).read_text(encoding="utf-8")
    return re.findall(rf"^```{kind}\b ?(.*?)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def _chain(activation="tanh", last=None, loss="squared_error", state=0.1, **more):
    layers = [
        {"name": "fc1", "type": "dense", "units": 4, "activation": activation},
        {"name": "fc2", "type": "dense", "units": 2, "activation": activation},
        {"name": "fc3", "type": "dense", "units": 5, **({} if last is None else {"activation": last})},
    ]
    return {
        "sifrc": 1,
        "name": "chain",
        "network": {"input": {"name": "image", "size": 3}, "layers": layers},
        "loss": loss,
        "regularization": {"state": state},
        "dtype": "float64",
        **more,
    }


SKIP = _chain(loss="cross_entropy", state="none", curvature=["hessian"])
SKIP["network"]["layers"] = [
    {"name": "fc1", "type": "dense", "units": 4, "activation": "tanh"},
    {"name": "fc2", "type": "dense", "units": 4, "activation": "tanh"},
    {"name": "sum1", "type": "add", "inputs": ["fc1", "fc2"]},
    {"name": "fc3", "type": "dense", "units": 5},
]
LEAKY = {"function": "leaky_relu", "parameters": {"slope": 0.1}}
SPECS = {
    "chain": _chain(),
    "affine": _chain(LEAKY),
    "classes": _chain(LEAKY, loss="cross_entropy"),
    "curved": _chain(last="tanh"),
    "spectral": _chain(LEAKY, state="spectral"),
    "blocks": _chain(loss="cross_entropy", curvature=["hessian", "pch1", "fisher"]),
    "skip": SKIP,
    "curved_output": _chain(last="tanh", curvature=["pch1"]),
    "outputs": _chain(loss="cross_entropy", curvature=["ggn"]),
    "ea_cg": _chain(loss="cross_entropy", method={"name": "ea_cg"}),
    "kfi": _chain(loss="cross_entropy", method={"name": "ea_cg", "solver": "kfi", "decay": 0.9}),
}


@pytest.mark.parametrize("document", DOCUMENTS)
def test_examples_run(document):
    """Every pycon block, in order, in one namespace."""
    parser, runner = doctest.DocTestParser(), doctest.DocTestRunner(verbose=False)
    names = {"__name__": "documents"}
    for number, (_, text) in enumerate(_blocks(document, "pycon")):
        test = parser.get_doctest(text, names, f"{document} block {number}", document, 0)
        reports = []
        runner.run(test, out=reports.append, clear_globs=False)
        assert not reports, "".join(reports)
        names = test.globs


@pytest.mark.parametrize("document", DOCUMENTS)
def test_specs_parse(document):
    """Whole specs in yaml blocks are valid."""
    for _, text in _blocks(document, "yaml"):
        assert parse_spec(text).layers


def test_equations_are_the_derived_ones():
    """Every line of an equations block is printed for the spec that the block names."""
    yaml_chain = next(text for _, text in _blocks("mathematics.md", "yaml") if "name: chain" in text)
    assert parse_spec(yaml_chain) == build_spec(SPECS["chain"])
    blocks = _blocks("mathematics.md", "equations")
    assert {name for name, _ in blocks} == set(SPECS)
    for name, text in blocks:
        printed = {" ".join(line.split()) for line in sifrc.equations(SPECS[name]).text(100).splitlines()}
        for line in text.splitlines():
            assert " ".join(line.split()) in printed, (name, line)


def test_reference_names_every_key():
    """No key, activation, loss, function or option of a method is missing from the reference."""
    reference = "\n".join((DOCS / name).read_text(encoding="utf-8") for name in ("spec.md", "layers.md"))
    text = re.sub(r"^```.*?^```$", "", reference, flags=re.M | re.S)
    words = {word for span in re.findall(r"`([^`]+)`", text) for word in re.findall(r"\w+", span)}
    keys = {key for shape in SHAPES.values() for key in shape.model_fields}
    options = {option.name for method in METHODS.values() for option in method.options}
    assert not {*keys, *options, *ACTIVATIONS, *LOSSES, *LOSS_FUNCTIONS, *METHODS} - words


def test_defaults_in_the_reference():
    """Defaults of method options stand in the row of the option."""
    text = (DOCS / "spec.md").read_text(encoding="utf-8")
    for method in METHODS.values():
        section = text.split(f"### `{method.name}`")[1].split("\n## ")[0].split("\n### ")[0]
        rows = {
            cells[1].strip(" `"): cells[3].strip(" `")
            for cells in (line.split("|") for line in section.splitlines())
            if len(cells) > 4
        }
        for option in method.options:
            assert yaml.safe_load(rows[option.name]) == option.default, (method.name, option.name)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_and_files_exist(document):
    """Links within the documents, and files that they name, are there."""
    text = (DOCS / document).read_text(encoding="utf-8")
    for target, anchor in re.findall(r"\]\(([\w.]*\.md)?(?:#([^)]*))?\)", text):
        other = (DOCS / (target or document)).read_text(encoding="utf-8")
        headings = {_slug(line) for line in re.findall(r"^#+ (.*)$", other, re.MULTILINE)}
        assert not anchor or anchor in headings, anchor
    for path in re.findall(r"`((?:sifrc|tests|templates)/[\w/]*(?:\.py)?)`", text):
        assert (DOCS.parent / path).exists(), path


def _slug(heading):
    """The anchor that GitHub makes of a heading."""
    kept = re.sub(r"[^\w\- ]", "", heading.lower())
    return kept.replace(" ", "-")
