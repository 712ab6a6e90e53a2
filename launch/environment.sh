# shellcheck shell=bash
# Sourced by the other scripts: goes to the project's folder, sets `python` to the interpreter that install.sh describes,
# and puts the commands beside it first on PATH. `extras=(NAME...)` before it: what an own environment must have beyond.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck disable=SC2154
./launch/install.sh ${extras[@]+"${extras[@]}"}
python=$(realpath --no-symlinks "$(command -v "${CROP_PYTHON:-.venv/bin/python}")")
PATH="$(dirname "$python"):$("$python" -c 'import sysconfig; print(sysconfig.get_path("scripts"))'):$PATH"
export PATH TOKENIZERS_PARALLELISM=false
