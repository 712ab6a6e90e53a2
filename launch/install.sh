#!/usr/bin/env bash
# Makes .venv with what the tests ran with, once; done again only when pyproject.toml or constraints.txt change.
#   ./launch/install.sh            PYTHON=python3.12 ./launch/install.sh
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

wanted=$(cat pyproject.toml setup.cfg constraints.txt | cksum)
if [ -f .venv/installed ] && [ "$(cat .venv/installed)" = "$wanted" ]; then
    exit 0
fi
"${PYTHON:-python3}" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "install.sh: error: needs Python 3.11 or newer, ${PYTHON:-python3} is older; set PYTHON=" >&2
    exit 2
}
echo "Making .venv (about two minutes and 2 GB)"
"${PYTHON:-python3}" -m venv .venv
install=(.venv/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt)
"${install[@]}" -e '.[test]'
"${install[@]}" --no-deps lmms-eval # its own list brings torchvision and more; the extra `lmms-eval` has what is needed
printf '%s\n' "$wanted" >.venv/installed
