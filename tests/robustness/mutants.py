"""Harness 5, mutants: faults put into the compiler one at a time, which tests or ``sifrc verify`` must see.

    python tests/robustness/mutants.py                      every fault of the list
    python tests/robustness/mutants.py --only templates/    those of some files
    python tests/robustness/mutants.py --choose 40 sifrc/ir draw more places, to be read and added to the list

A fault is a small change at one place of a source (``mutation_places``): a sign, a factor, a transpose, a
dropped term, another layer, another order, a bound that is off by one. The places are listed in
``mutants.txt``. Each is put into a copy of the tree, in a process of its own, where the killers
(``mutation_killers``) look for it: the one that is named behind the place in the list, rows of ``sifrc
verify``, then the test files that belong to the file.
It is caught where a comparison fails. An exception counts only for places that are listed with the word
``raises``. A fault that shows itself by nothing but exceptions says nothing about the suite: such places were
drawn like the others and stand in ``mutants_raising.txt``. Places that change nothing that anyone could see
are in ``mutants_equivalent.txt``, each with the reason.

What caught a fault is in the end run on the code without a fault, and has to pass there.
Results are kept by the digest of what they depend on, so that a run goes on where it stopped.
"""

from __future__ import annotations

import argparse
import compileall
import hashlib
import importlib
import json
import os
import py_compile
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import astuple
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

from mutation_killers import failing, judge
from mutation_places import Mutant, Place, mutants_of
from mutation_results import Results
from mutation_rows import Verdict

__all__ = ["Tree", "equivalent", "listed", "main"]

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
COPIED = ("sifrc", "templates", "tests", "examples", "generated", "docs", "benchmarks")
HEAVY = (
    "torch",
    "torch.func",
    "numba",
    "sympy",
    "mpmath",
    "scipy.special",
    "scipy.linalg",
    "numpy",
    "hypothesis",
    "pytest",
    "jinja2",
    "pydantic",
    "yaml",
    "opt_einsum",
    "typer.testing",
    "rich.console",
    "threadpoolctl",
    "numba.typed",
)
"""Imported once, before the processes of the faults are forked."""

AREAS = {
    "derivation": ("sifrc/derive/",),
    "calculus": ("sifrc/calculus/",),
    "model": ("sifrc/model/",),
    "operators": ("sifrc/catalogue/",),
    "normal form": ("sifrc/ir/",),
    "lowering": ("sifrc/lower/",),
    "printers": ("sifrc/scalar/", "sifrc/backends/"),
    "templates": ("templates/",),
}
OTHERS = (
    "sifrc/lower/interpret.py",
    "sifrc/ir/evaluate.py",
    "sifrc/ir/arithmetic.py",
    "sifrc/lower/cost.py",
    "sifrc/scalar/notation.py",
    "sifrc/backends/text.py",
    "sifrc/backends/base.py",
)
"""Not drawn: the machinery of the oracles, and what only talks."""
OUTCOMES = ("caught", "raised", "survived", "undecided")
KINDS = ("sign", "factor", "transpose", "swap", "drop", "index", "bound", "compare", "emitted")
"""Operators that are drawn; the others of ``mutation_places`` mostly raise."""


def listed(name: str = "mutants.txt") -> dict[Place, str]:
    """Places of a list in its order, and the words behind them: a killer to ask first, or a reason."""
    found = {}
    for line in (HERE / name).read_text(encoding="utf-8").splitlines():
        if line.strip() and not line.startswith("#"):
            place, _, words = line.partition("  # ")
            found[Place.parse(place)] = words.strip()
    return found


def raising() -> dict[Place, str]:
    """Places that were drawn, and whose fault shows itself by nothing but exceptions."""
    return listed("mutants_raising.txt")


def equivalent() -> dict[Place, str]:
    """Places whose fault changes nothing that could be seen, and why."""
    return listed("mutants_equivalent.txt")


class Tree:
    """A copy of the tree, in which files are replaced one at a time.

    Args:
        folder: of the copy; made here.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in COPIED:
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("pyproject.toml", "README.md", "CHANGELOG.md"):
            if (ROOT / name).exists():
                shutil.copy(ROOT / name, folder / name)
        # By content, not by time: a file is replaced several times within a second.
        mode = py_compile.PycInvalidationMode.CHECKED_HASH
        compileall.compile_dir(folder / "sifrc", quiet=2, invalidation_mode=mode)

    def judged(self, mutant: Mutant, first: str, seconds: int, whole: bool = False) -> Verdict:
        """What the killers say of a fault, in a process of its own; one of them may be asked first."""
        path = self.folder / mutant.place.file
        original = path.read_bytes()
        path.write_text(mutant.source, encoding="utf-8")
        try:
            words = _in_a_fork(
                lambda: astuple(judge(mutant.place.file, str(self.folder), first, whole, seconds / 2)),
                self.folder,
                seconds,
            )
        finally:
            path.write_bytes(original)
        silent = f"no answer within {seconds} s of processor time, or the process died"
        return Verdict("raised", silent) if words is None else Verdict(*words)

    def without_fault(self, killers: Sequence[str], seconds: int = 1200) -> list[str]:
        """Those of these killers that find something in the code as it is."""
        found = _in_a_fork(lambda: failing(killers, str(self.folder)), self.folder, seconds)
        return ["all of them: the process died"] if found is None else found


def _in_a_fork(work: Callable[[], Any], folder: Path, seconds: int) -> Any:
    """What a function returns in a process of its own; nothing if that died or took too long."""
    with tempfile.TemporaryDirectory() as scratch:
        answer = Path(scratch) / "verdict.json"
        child = os.fork()
        if child == 0:
            _child(work, folder, Path(scratch), answer, seconds)
        limit = time.monotonic() + 15 * seconds
        while os.waitpid(child, os.WNOHANG) == (0, 0):
            if time.monotonic() > limit:
                os.killpg(child, signal.SIGKILL)
                os.waitpid(child, 0)
                break
            time.sleep(0.02)
        return json.loads(answer.read_text()) if answer.exists() else None


def _child(work: Callable[[], Any], folder: Path, scratch: Path, answer: Path, seconds: int) -> None:
    """The process of one fault; never returns."""
    try:
        os.setpgid(0, 0)
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 5))
        silent = os.open(os.devnull, os.O_RDWR)
        for number in (0, 1, 2):
            os.dup2(silent, number)
        os.environ.update(PYTHONPATH=str(folder), SIFRC_CACHE=str(scratch / "cache"), TMPDIR=str(scratch))
        os.environ.pop("PYTEST_CURRENT_TEST", None)
        tempfile.tempdir = None
        os.chdir(folder)
        sys.path[:] = [str(folder), *(p for p in sys.path if Path(p).resolve() not in (ROOT, HERE))]
        answer.with_suffix(".part").write_text(json.dumps(work()))
        answer.with_suffix(".part").rename(answer)
    finally:
        os._exit(0)


def _prepare() -> None:
    """Libraries before the forks; Numba's compiler stays off, and tests cannot turn it on."""
    os.environ["NUMBA_DISABLE_JIT"] = "1"
    os.environ["SIFRC_HYPOTHESIS"] = "no shrinking"
    for name in HEAVY:
        importlib.import_module(name)
    import numba
    from hypothesis import Phase, settings

    def plain(*arguments: object, **options: object) -> object:
        if len(arguments) == 1 and callable(arguments[0]):
            return arguments[0]
        return lambda function: function

    numba.njit = plain
    settings.register_profile(
        "mutants", phases=(Phase.explicit, Phase.generate), database=None, derandomize=True
    )
    settings.load_profile("mutants")
    assert "sifrc" not in sys.modules, "the package must be imported in the forks only"


def _scattered(place: Place) -> bytes:
    return hashlib.sha256(str(place).encode()).digest()


def _sources() -> list[str]:
    found = list((ROOT / "templates").rglob("*.jinja"))
    for area in AREAS.values():
        for folder in area:
            found += (ROOT / folder).rglob("*.py")
    return sorted({p.relative_to(ROOT).as_posix() for p in found if p.name != "__init__.py"})


def _choose(count: int, beginning: str, kinds: Sequence[str], seed: int) -> int:
    """Print places that are not on a list, drawn by file and operator in turn."""
    known = {**listed(), **raising(), **equivalent()}
    places: dict[tuple[str, str], list[Mutant]] = {}
    for file in _sources():
        if file.startswith(beginning) and file not in OTHERS:
            for place, mutant in mutants_of(file, ROOT).items():
                if place.operator in kinds and place not in known and mutant.after != mutant.before:
                    places.setdefault((file, place.operator), []).append(mutant)
    generator = random.Random(seed)
    groups = sorted(places)
    generator.shuffle(groups)
    drawn: list[Mutant] = []
    while len(drawn) < count and any(places.values()):
        for group in groups:
            if places[group] and len(drawn) < count:
                drawn.append(places[group].pop(generator.randrange(len(places[group]))))
    for mutant in sorted(drawn, key=lambda m: m.place):
        print(f"{mutant.place}    ~ {' '.join(mutant.before.split())} → {' '.join(mutant.after.split())}")
    return 0


def main(argv: Sequence[str] = ()) -> int:
    """Run the list; 0 if at least 99 of 100 faults are caught, and every place still exists.

    Args:
        argv: arguments of the command line.
    """
    parser = argparse.ArgumentParser(prog="mutants.py", description=__doc__.split("\n")[0])
    parser.add_argument("--only", default="", help="beginning of the files to look at")
    parser.add_argument("--limit", type=int, default=0, help="how many faults at most")
    parser.add_argument(
        "--seconds",
        type=int,
        default=240,
        help="of processor time for one fault; no killer begins after half of it",
    )
    parser.add_argument("--list", default="mutants.txt", help="file with the places")
    parser.add_argument("--whole", action="store_true", help="the whole fast suite for what survives")
    parser.add_argument("--results", default=str(Path(tempfile.gettempdir()) / "sifrc_mutants.json"))
    parser.add_argument(
        "--choose", nargs="+", metavar=("COUNT", "FILES"), help="draw more places and print them"
    )
    parser.add_argument("--kinds", nargs="+", default=KINDS, help="operators that are drawn")
    parser.add_argument("--seed", type=int, default=10, help="of the drawing")
    given = parser.parse_args(list(argv))
    if given.choose:
        return _choose(int(given.choose[0]), (given.choose[1:] or [""])[0], given.kinds, given.seed)

    chosen = {p: words for p, words in listed(given.list).items() if p.file.startswith(given.only)}
    known, missing = {}, []
    for file in sorted({place.file for place in chosen}):
        known.update(mutants_of(file, ROOT) if (ROOT / file).exists() else {})
    missing = [place for place in chosen if place not in known]

    results = Results(Path(given.results), given.whole)
    verdicts: dict[Place, Verdict] = {}
    _prepare()
    with tempfile.TemporaryDirectory() as folder:
        tree = Tree(Path(folder).resolve())
        # Mixed, so that a part of the run is a sample of the whole.
        mixed = sorted((place for place in chosen if place in known), key=_scattered)[: given.limit or None]
        for number, place in enumerate(mixed, start=1):
            mutant, begun = known[place], time.monotonic()
            verdict = results.verdict(mutant)
            if verdict is None:
                first = chosen[place] if ":" in chosen[place] else ""
                verdict = tree.judged(mutant, first, given.seconds, given.whole)
                results.keep(mutant, verdict)
            verdicts[place] = verdict
            print(
                f"{number:4}  {verdict.kind:9} {time.monotonic() - begun:5.1f} s  {place}  "
                f"line {mutant.line}: "
                f"{' '.join(mutant.before.split())[:60]} → {' '.join(mutant.after.split())[:60]}\n"
                f"                          {verdict.by[:160]}",
                flush=True,
            )
        wrong = _control(tree, verdicts.values())
    return _table(chosen, verdicts, missing) or int(wrong)


def _control(tree: Tree, verdicts: Iterable[Verdict]) -> bool:
    """Whether anything that caught a fault also fails without one."""
    killers = sorted({verdict.killer for verdict in verdicts if verdict.kind == "caught"})
    failed = tree.without_fault(killers)
    print(f"{len(killers)} rows and tests caught something; {len(failed)} of them fail without a fault")
    for by in failed:
        print(f"fails without a fault: {by}")
    return bool(failed)


def _table(chosen: dict[Place, str], verdicts: dict[Place, Verdict], missing: Sequence[Place]) -> int:
    """Counts by area, and what was not caught."""
    counts: Counter[tuple[str, str]] = Counter()
    lost = []
    for place, verdict in verdicts.items():
        area = next(a for a, folders in AREAS.items() if place.file.startswith(folders))
        caught = verdict.kind == "caught" or (verdict.kind == "raised" and chosen[place] == "raises")
        counts[area, "caught" if caught else verdict.kind] += 1
        if not caught:
            lost.append((place, verdict))
    print(f"{'area':12} {'faults':>7}" + "".join(f"{kind:>10}" for kind in OUTCOMES))
    total: Counter[str] = Counter()
    for area in AREAS:
        row = [counts[area, kind] for kind in OUTCOMES]
        total.update(dict(zip(OUTCOMES, row, strict=True)))
        print(f"{area:12} {sum(row):7}" + "".join(f"{count:10}" for count in row))
    whole = sum(total.values())
    share = total["caught"] / whole if whole else 0.0
    counted = "".join(f"{total[kind]:10}" for kind in OUTCOMES)
    print(f"{'all':12} {whole:7}{counted}   {share:.1%} caught")
    alone, nothing = len(raising()), len(equivalent())
    print(
        f"drawn: {len(listed()) + alone + nothing}, of which {alone} only raise and {nothing} change nothing"
    )
    for place, verdict in lost:
        print(f"not caught ({verdict.kind}): {place}  {verdict.by}")
    for place in missing:
        print(f"no such place any more: {place}")
    return int(bool(missing) or share < 0.99)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
