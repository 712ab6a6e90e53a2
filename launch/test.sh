#!/usr/bin/env bash
# Runs every check: format, lint, types, import layers, shell scripts, Dockerfile and Markdown, then all tests.
#   ./launch/test.sh               everything
#   ./launch/test.sh PATH...       pytest alone, on these paths
# shellcheck disable=SC2034 # read by environment.sh
extras=(test)
# shellcheck source=launch/environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
export HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1
if [ $# -gt 0 ]; then
    exec "$python" -m pytest "$@"
fi

checks=(
    "ruff format --check ."
    "ruff check ."
    "mypy"
    "lint-imports"
    "shellcheck -x launch/*.sh launch/slurm.sbatch .ci/run"
    "hadolint launch/Dockerfile"
    "pymarkdown scan -r -e docs/examples/** README.md CHANGELOG.md docs"
)
logs=$(mktemp -d)
trap 'rm -rf "$logs"' EXIT
for number in "${!checks[@]}"; do # all at once, for mypy takes longer than the others together
    eval "${checks[number]}" >"$logs/$number" 2>&1 &
    jobs[number]=$!
done
failed=0
for number in "${!checks[@]}"; do
    printf '== %s\n' "${checks[number]}"
    wait "${jobs[number]}" || failed=$?
    cat "$logs/$number"
done
[ "$failed" = 0 ] || exit "$failed"
"$python" -m pytest tests -n 2 --dist loadgroup --durations=15 # a group shares what is slow to make
