#!/usr/bin/env bash
# Lint, type check and test; arguments go to pytest (e.g. -m slow, or a file).
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1
. .ci/environment.sh
export OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 NUMBA_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE=1

# Many tests start processes, which find the package compiled.
python -m compileall -q sifrc

ruff check .
ruff format --check .
if [ $# -gt 0 ]; then
    mypy
    exec python -m pytest "$@"
fi

# Types beside the tests, so that both cores have work to the end. Each worker takes tests in their order and
# half of what is left to the other when it is done: what a file shares is made once, not once a worker.
report="$(mktemp)"
trap 'rm -f "$report"' EXIT
mypy >"$report" 2>&1 &
types=$!
passed=0
python -m pytest -m "not slow" -n 2 --dist worksteal -q || passed=$?
wait "$types" || passed=$((passed ? passed : $?))
cat "$report"
exit "$passed"
