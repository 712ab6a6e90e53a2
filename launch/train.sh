#!/usr/bin/env bash
# Trains under the deepspeed launcher: on every GPU of this machine, or in two CPU processes where there is none.
#   ./launch/train.sh CONFIG.yaml [key=value ...]
#   MODULE=train.localizer ./launch/train.sh ...   another training than train.plc
#   PROCESSES=4 ./launch/train.sh ...       that many; MASTER_PORT=29501 where another run has the default port
# SIGTERM or SIGUSR1 to this script: the run saves behind its step and ends with exit status 75.
set -euo pipefail
# shellcheck source=launch/launcher.sh
source "$(dirname "${BASH_SOURCE[0]}")/launcher.sh"

count_processes
run_launcher --num_gpus "$processes" --master_port "${MASTER_PORT:-29500}" --module "${MODULE:-train.plc}" "$@"
