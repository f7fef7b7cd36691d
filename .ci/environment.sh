# Source this from the repository's root: activates a virtual environment that has sifrc with the extras that
# tests need, and those named in SIFRC_EXTRAS (comma-separated, e.g. examples).
# An active environment is used as it is; otherwise .venv is created (or reused). Packages are
# installed only when pyproject.toml, constraints.txt or the extras changed since the last time.
set -euo pipefail

if [ -z "${VIRTUAL_ENV:-}" ]; then
    [ -x .venv/bin/python ] || "${PYTHON:-python3}" -m venv .venv
    # shellcheck disable=SC1091
    . .venv/bin/activate
fi

extras="torch,report,data,test${SIFRC_EXTRAS:+,$SIFRC_EXTRAS}"
wanted="$PWD $extras $(cat pyproject.toml constraints.txt | sha256sum | cut -d' ' -f1)"
stamp="$VIRTUAL_ENV/.sifrc-installed"
if [ "$(cat "$stamp" 2>/dev/null || true)" != "$wanted" ]; then
    echo "installing sifrc and what it needs into $VIRTUAL_ENV"
    python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[$extras]"
    printf '%s' "$wanted" >"$stamp"
fi

# two threads are the measured setting; tests need no more
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-2}" OPENBLAS_NUM_THREADS="${OPENBLAS_NUM_THREADS:-2}"
export NUMBA_NUM_THREADS="${NUMBA_NUM_THREADS:-2}" MPLBACKEND=Agg
