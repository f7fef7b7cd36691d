"""docs/libraries.md shows what the examples print, numbers apart."""

from __future__ import annotations

import re
from typing import Any

import pytest
from library_examples import FOLDER, example

PAGE = FOLDER.parent / "docs" / "libraries.md"
NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e-?\d+)?")
NEEDS = {
    "with_lightning": ("pytorch_lightning", "sklearn"),
    "with_transformers": ("transformers",),
    "with_laplace": ("laplace",),
    "with_torch_func": (),
    "with_scipy": ("sklearn",),
}


def shown(name: str) -> str:
    """The output on the page."""
    found = re.search(rf"\$ python examples/{name}.py\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert found is not None
    return found[1]


def words(text: str) -> list[str]:
    return [" ".join(NUMBER.sub("#", line).split()) for line in text.splitlines()]


@pytest.mark.slow
@pytest.mark.parametrize("name", NEEDS)
def test_the_page_shows_what_is_printed(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    module: Any = example(name, *NEEDS[name])
    module.main()
    assert words(capsys.readouterr().out) == words(shown(name))


def test_every_example_is_on_the_page() -> None:
    assert {path.stem for path in FOLDER.glob("with_*.py")} == set(NEEDS)
    for name in NEEDS:
        assert shown(name)
