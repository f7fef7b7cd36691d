"""The notebook runs from above to below and gives the outputs that it was saved with.

``SIFRC_UPDATE=1 python -m pytest tests/examples/test_with_notebooks.py`` writes what it gives now.
"""

from __future__ import annotations

import os
import re
from functools import cache
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from library_examples import FOLDER, needs

pytestmark = pytest.mark.slow
FILE = FOLDER / "from_module_to_equations.ipynb"
NUMBER = re.compile(r"-?\d+\.\d+(?:e-?\d+)?")


@cache
def notebooks() -> tuple[Any, Any]:
    """As saved, and as executed now; without what differs from run to run."""
    needs("nbclient", "nbformat", "ipykernel", "latex2mathml")
    import nbformat
    from nbclient import NotebookClient

    saved = nbformat.read(FILE, as_version=4)
    found = nbformat.read(FILE, as_version=4)
    where = {"metadata": {"path": FOLDER}}
    NotebookClient(found, timeout=300, kernel_name="python3", resources=where).execute()
    for cell in found.cells:
        cell.metadata.clear()
        for output in cell.get("outputs", ()):
            if "text/html" in output.get("data", {}):
                del output["data"]["text/plain"]  # which nobody sees
    found.metadata = saved.metadata
    if os.environ.get("SIFRC_UPDATE"):
        nbformat.write(found, FILE)
        saved = nbformat.read(FILE, as_version=4)
    return saved, found


def outputs(notebook: Any) -> list[tuple[str, str]]:
    """(kind, text) of all outputs, in order; errors among them.

    What a cell prints in a row is one text: into how many messages a kernel cuts it depends on the time.
    """
    texts: list[tuple[str, str]] = []
    for cell in notebook.cells:
        printed = None
        for output in cell.get("outputs", ()):
            if output.output_type == "stream" and output.name == printed:
                texts[-1] = (output.name, texts[-1][1] + output.text)
            elif output.output_type == "stream":
                texts.append((output.name, output.text))
            printed = output.get("name")
            for kind, text in sorted(output.get("data", {}).items()):
                texts.append((kind, text))
            if output.output_type == "error":
                texts.append(("error", f"{output.ename}: {output.evalue}"))
    return texts


def test_outputs_are_those_that_were_saved() -> None:
    """Texts in full; numbers as far as rounding of another machine leaves them."""
    saved, found = map(outputs, notebooks())
    assert [kind for kind, _ in saved] == [kind for kind, _ in found]
    for (kind, before), (_, now) in zip(saved, found, strict=True):
        assert NUMBER.sub("#", now) == NUMBER.sub("#", before), kind
        numbers = [[float(each) for each in NUMBER.findall(text)] for text in (before, now)]
        assert numbers[1] == pytest.approx(numbers[0], rel=2e-2), kind


def test_what_is_shown() -> None:
    """Formulas as MathML and as LaTeX, well-formed; a verification that passed; an objective that falls."""
    _, found = notebooks()
    texts = outputs(found)
    assert not [text for kind, text in texts if kind in ("error", "stderr")]
    pages = [text for kind, text in texts if kind == "text/html"]
    assert len(pages) == 8 and sum("<math" in page for page in pages) == 5
    for page in pages:
        ElementTree.fromstring(f"<div>{page}</div>")
        assert "<script" not in page and "style>" not in page
    latex = [text for kind, text in texts if kind == "text/latex"]
    assert len(latex) == 5 and all(text.count("\\begin{aligned}") == 1 for text in latex)
    assert any("nested duals" in page and "small: passed" in page for page in pages)
    assert any("small: passed" in text for _, text in texts)
    stream = "".join(text for kind, text in texts if kind == "stdout")
    objectives = [float(value) for value in re.findall(r"objective (\S+)", stream)]
    assert len(objectives) == 4 and objectives[-1] < 0.5 * objectives[0]


def test_nothing_in_the_file_is_of_a_machine() -> None:
    """No paths, no times, no counts of earlier runs; cells have names that stay."""
    import json

    text = Path(FILE).read_text(encoding="utf-8")
    data = json.loads(text)
    assert [cell["id"] for cell in data["cells"]] == [f"cell-{n}" for n in range(1, len(data["cells"]) + 1)]
    assert not any(cell["metadata"] for cell in data["cells"])
    assert not re.search(r"/(home|root|tmp|usr|work)/|\d\d:\d\d|0x[0-9a-f]{6}", text)
    counts = [cell["execution_count"] for cell in data["cells"] if cell["cell_type"] == "code"]
    assert counts == list(range(1, len(counts) + 1))
