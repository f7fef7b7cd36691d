"""Who may import whom: the table of docs/architecture.md, read from it and held."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "sifrc"


@cache
def table() -> dict[str, set[str]]:
    """Package -> what it may import, from the section of the documents."""
    text = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    section = text[text.index("## Dependencies") : text.index("## Spec\n")]
    block = section.split("```")[1]
    found: dict[str, set[str]] = {}
    for line in block.strip().splitlines():
        match = re.match(r"((?:\w+(?:, )?)+)\s*(?:\[([^\]]*)\])?", line)
        assert match is not None, line
        allowed = {name for name in re.split(r"[\s,]+", match[2] or "") if name}
        for name in match[1].split(", "):
            found[name] = {part.partition(".")[0] for part in allowed}
    return found


@cache
def imports() -> dict[str, dict[str, set[str]]]:
    """Package -> package that it imports -> files that do."""
    found: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for path in sorted(PACKAGE.rglob("*.py")):
        here = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            modules = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            modules += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            for module in modules:
                top, _, rest = module.partition(".")
                other = rest.partition(".")[0]
                if top == "sifrc" and other and other != here:
                    found[here][other].add(str(path.relative_to(ROOT)))
    return found


EVERYWHERE = {"errors", "extras", "markup"}
FACES = {"cache", "compiled", "api", "linear", "cli", "compiler", "__init__", "__main__", "version"}


@pytest.mark.parametrize("name", sorted(set(table()) - FACES))
def test_a_package_imports_what_the_table_allows(name: str) -> None:
    """The public faces may import every stage; no stage imports a face."""
    assert set(imports()) - FACES <= set(table())
    allowed = table()[name] | EVERYWHERE
    found = imports().get(name, {})
    wrong = {other: sorted(files) for other, files in found.items() if other not in allowed}
    assert not wrong


def test_the_table_names_packages_that_exist_and_allows_nothing_that_nobody_needs() -> None:
    known = {path.name.removesuffix(".py") for path in PACKAGE.iterdir() if path.suffix in ("", ".py")}
    used = imports()
    for name, allowed in table().items():
        assert {name, *allowed} <= known, name
        if name not in FACES:
            assert allowed - EVERYWHERE <= set(used[name]), (name, allowed - set(used[name]))


def test_no_circle() -> None:
    """Packages can be put in an order in which each imports only those before it."""
    left = {name: set(others) - EVERYWHERE for name, others in imports().items() if name not in FACES}
    while left:
        free = [name for name, others in left.items() if not others & set(left)]
        assert free, left
        for name in free:
            del left[name]


LIBRARIES = {
    "_C",
    "_are_functorch_transforms_active",
    "_evalf",
    "_forward_pre_hooks",
    "_from_mpmath",
    "_mpf_",
    "_parameters",
    "_schema",
    "_to_mpmath",
}
"""Members of SymPy, mpmath and Torch that have no public form."""


def test_private_members_stay_in_their_file() -> None:
    """What begins with an underscore is used where it is defined, by whatever name its owner goes."""
    for path in sorted(PACKAGE.rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        own: set[str] = set()
        used: set[str] = set()
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                own |= {item.name for item in node.body if isinstance(item, ast.FunctionDef)}
                own |= {ast.unparse(item.target) for item in node.body if isinstance(item, ast.AnnAssign)}
            elif isinstance(node, ast.Attribute) and node.attr.startswith("_") and node.attr[:2] != "__":
                owner = node.value.id if isinstance(node.value, ast.Name) else ""
                (own if owner in ("self", "cls") else used).add(node.attr)
        assert used <= own | LIBRARIES, (path.name, used - own)


@pytest.mark.parametrize("folder", ["sifrc", "templates"])
def test_no_file_is_long(folder: str) -> None:
    """Whoever reads a file reads one concept."""
    most = {"sifrc": 400, "templates": 560}[folder]
    files = [path for path in (ROOT / folder).rglob("*") if path.suffix in (".py", ".jinja")]
    lengths = {
        path.relative_to(ROOT).as_posix(): len(path.read_text(encoding="utf-8").splitlines())
        for path in files
    }
    assert not {name: length for name, length in lengths.items() if length > most}
