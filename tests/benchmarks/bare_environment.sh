#!/usr/bin/env bash
# Makes what tests/benchmarks/export.py needs: an environment with torch, transformers and Pillow alone, of the versions in
# constraints.txt, and beside it, in folders of their own, PEFT for adapters and other versions of transformers.
#   tests/benchmarks/bare_environment.sh FOLDER [VERSION...]
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
folder=$1
shift
"${PYTHON:-python3}" -m venv "$folder/venv"
install() { "$folder/venv/bin/pip" install --quiet --disable-pip-version-check "$@"; }
install -c "$root/constraints.txt" torch transformers pillow
install -c "$root/constraints.txt" --no-deps --target "$folder/peft" peft accelerate psutil
grep -v '^transformers==' "$root/constraints.txt" >"$folder/other.txt"
for version in "$@"; do
    install -c "$folder/other.txt" --target "$folder/transformers-$version" "transformers==$version"
done
