"""The harness of robustness, by one command.

    python tests/robustness/run.py                     every part, in full: hours
    python tests/robustness/run.py specs --count 1000  one part, with its options (--help says which)

Each part is a module of this folder with ``main(argv)``, which prints a table of counts and returns 0 where
there was no raw error, no hang, no wrong number and no lost run.
"""

from __future__ import annotations

import importlib
import sys

__all__ = ["PARTS", "main"]

PARTS = ("specs", "runs", "optimizers", "machines", "mutants")


def main(argv: list[str]) -> int:
    """Run one part or all of them; 1 where one has found something, 2 where it could not be run."""
    name, *options = argv or ["all"]
    if name in ("-h", "--help") or (name != "all" and name not in PARTS):
        print(__doc__)
        print(f"parts: all {' '.join(PARTS)}")
        return 0 if name in ("-h", "--help") else 2
    worst = 0
    for part in PARTS if name == "all" else (name,):
        print(f"== {part}", flush=True)
        try:
            module = importlib.import_module(part)
        except ModuleNotFoundError as error:
            if error.name != part:
                raise
            print(f"the part '{part}' is not here", flush=True)
            worst = max(worst, 2)
            continue
        worst = max(worst, module.main(options))
    return worst


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
