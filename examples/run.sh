#!/usr/bin/env bash
# Compile the example spec, verify it, train it on real images, print a table and write a plot.
#
#   bash examples/run.sh [SPEC] [OUTPUT-FOLDER]
#
# Without arguments: examples/digits.yaml, into runs/digits.
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1
. .ci/environment.sh

spec="${1:-examples/digits.yaml}"
out="${2:-runs/$(basename "${spec%.yaml}")}"

sifrc check "$spec"
sifrc compile "$spec" -o "$out"
sifrc verify "$spec"
sifrc train "$spec" -o "$out"
