#!/usr/bin/env bash
# Lint, type check and test; arguments go to pytest (e.g. -m slow, or a file).
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1
. .ci/environment.sh
export OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 NUMBA_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE=1

ruff check .
ruff format --check .
mypy
if [ $# -gt 0 ]; then
    exec python -m pytest "$@"
fi
exec python -m pytest -m "not slow" -n 2 -q
