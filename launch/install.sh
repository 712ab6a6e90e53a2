#!/usr/bin/env bash
# Makes .venv with what the tests ran with, once; done again only when pyproject.toml or constraints.txt change.
#   ./launch/install.sh            PYTHON=python3.12 ./launch/install.sh
#
# An environment of your own instead (a container's torch, NGC, conda) takes one variable, here and for every script:
#   CROP_PYTHON=/usr/bin/python3 ./launch/train.sh CONFIG.yaml
# The script then runs with that interpreter and the commands beside it, makes no .venv and installs nothing. It ends with
# exit status 2 and one line if a package that pyproject.toml requires is missing or outside its range.
# ./launch/install.sh EXTRA... also asks for the packages of those extras. launch/Dockerfile sets the variable.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

check_version() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
        echo "install.sh: error: needs Python 3.11 or newer, $1 is older or no Python; set $2=" >&2
        exit 2
    }
}
if [ -n "${CROP_PYTHON:-}" ]; then
    check_version "$CROP_PYTHON" CROP_PYTHON
    exec "$CROP_PYTHON" launch/check_packages.py "$@"
fi
wanted=$(cat pyproject.toml setup.cfg constraints.txt | cksum)
if [ -f .venv/installed ] && [ "$(cat .venv/installed)" = "$wanted" ]; then
    exit 0
fi
check_version "${PYTHON:-python3}" PYTHON
echo "Making .venv (about two minutes and 2 GB)"
"${PYTHON:-python3}" -m venv .venv
install=(.venv/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt)
"${install[@]}" -e '.[test]'
"${install[@]}" --no-deps lmms-eval # its own list brings torchvision and more; the extra `lmms-eval` has what is needed
printf '%s\n' "$wanted" >.venv/installed
