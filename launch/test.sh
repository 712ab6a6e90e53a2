#!/usr/bin/env bash
# Runs every check: format, lint, types, import layers, shell scripts, unit tests, then the real launcher.
#   ./launch/test.sh               everything
#   ./launch/test.sh PATH...       pytest alone, on these paths
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
./launch/install.sh
export PATH="$PWD/.venv/bin:$PATH" HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false OMP_NUM_THREADS=1
if [ $# -gt 0 ]; then
    exec python -m pytest "$@"
fi

ruff format --check .
ruff check .
mypy
lint-imports
shellcheck -x launch/*.sh launch/slurm.sbatch .ci/run
python -m pytest tests -m "not integration" -n 2 --quiet
python -m pytest tests -m integration -n 2 --durations=15
