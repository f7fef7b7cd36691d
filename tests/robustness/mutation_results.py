"""Verdicts of earlier runs, kept as long as what they depend on is the same."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

from mutation_places import Mutant
from mutation_rows import Verdict

__all__ = ["Results"]

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent


def _digest(files: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for path in sorted(files):
        digest.update(str(path.relative_to(ROOT)).encode() + path.read_bytes())
    return digest.hexdigest()


class Results:
    """Verdicts of earlier runs, as far as what gave them has not changed.

    That a test caught a fault depends on the package, on that test file and on what test files share, and
    not on other tests or their order; that nothing caught it depends on all of them.

    Args:
        path: of the file that keeps them.
        whole: whether the whole fast suite is among the killers.
    """

    def __init__(self, path: Path, whole: bool) -> None:
        self.path = path
        self.kept: dict[str, list[str]] = json.loads(path.read_text()) if path.exists() else {}
        tests = [p for p in (ROOT / "tests").rglob("*.py") if HERE not in p.parents]
        shared = [p for p in tests if not p.name.startswith("test_")]
        package = [*(ROOT / "sifrc").rglob("*.py"), *(ROOT / "templates").rglob("*.jinja")]
        self.rows = _digest([*package, HERE / "mutation_rows.py"])
        self.shared = _digest([*package, *shared])
        self.all = _digest([*package, *tests, *HERE.glob("mutation_*.py")]) + str(whole)

    def _on_what(self, verdict: Verdict) -> str:
        """Digest of what a verdict depends on."""
        if verdict.kind != "caught":
            return self.all
        if not verdict.killer.startswith("tests:"):
            return self.rows
        file = ROOT / verdict.killer.removeprefix("tests:").partition("::")[0]
        return self.shared + (_digest([file]) if file.is_file() else "")

    def verdict(self, mutant: Mutant) -> Verdict | None:
        """What is known of a fault."""
        *known, on = self.kept.get(f"{mutant.place} {mutant.after}", ["undecided", "", "", ""])
        verdict = Verdict(*known)
        return verdict if verdict.kind != "undecided" and on == self._on_what(verdict) else None

    def keep(self, mutant: Mutant, verdict: Verdict) -> None:
        """Write down what was found."""
        known = [verdict.kind, verdict.by, verdict.killer, self._on_what(verdict)]
        self.kept[f"{mutant.place} {mutant.after}"] = known
        self.path.write_text(json.dumps(self.kept, indent=0))
