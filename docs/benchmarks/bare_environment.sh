#!/usr/bin/env bash
# Makes what docs/benchmarks/export.py needs: an environment with torch, transformers and Pillow alone, and beside it, in
# folders of their own, PEFT for adapters and other versions of transformers.
#   docs/benchmarks/bare_environment.sh FOLDER [VERSION...]
set -euo pipefail
folder=$1
shift
"${PYTHON:-python3}" -m venv "$folder/venv"
install() { "$folder/venv/bin/pip" install --quiet --disable-pip-version-check "$@"; }
install torch==2.13.0 transformers==5.23.0 pillow==13.0.0
install --no-deps --target "$folder/peft" peft==0.21.2 accelerate==1.15.0 psutil
for version in "$@"; do
    install --target "$folder/transformers-$version" "transformers==$version"
done
