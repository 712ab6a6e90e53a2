#!/usr/bin/env bash
# Trains under the deepspeed launcher: on every GPU of this machine, or in two CPU processes where there is none.
#   ./launch/train.sh CONFIG.yaml [key=value ...]
#   PROCESSES=4 ./launch/train.sh ...       that many; MASTER_PORT=29501 where another run has the default port
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
./launch/install.sh
export PATH="$PWD/.venv/bin:$PATH" TOKENIZERS_PARALLELISM=false

processes=${PROCESSES:-}
if [ "$(python -c 'import torch; print(torch.cuda.device_count())')" = 0 ]; then
    processes=${processes:-2}
    cores=$(getconf _NPROCESSORS_ONLN)
    export DS_ACCELERATOR=cpu OMP_NUM_THREADS="${OMP_NUM_THREADS:-$((cores > processes ? cores / processes : 1))}"
fi
exec deepspeed ${processes:+--num_gpus "$processes"} --master_port "${MASTER_PORT:-29500}" --module train.plc "$@"
