#!/usr/bin/env bash
# Trains on several machines; start it on each of them. All of them see the same checkout, data and output_dir.
#
# torchrun's variables (PROCESSES on each machine; by default one for every GPU):
#   MASTER_ADDR=node0 NNODES=2 NODE_RANK=0 ./launch/multi_node.sh CONFIG.yaml [key=value ...]      on node0
#   MASTER_ADDR=node0 NNODES=2 NODE_RANK=1 ./launch/multi_node.sh CONFIG.yaml [key=value ...]      on node1
# DeepSpeed's hostfile ("node0 slots=8", a line a machine); the first one is the master unless MASTER_ADDR says otherwise:
#   HOSTFILE=hosts NODE_RANK=0 ./launch/multi_node.sh CONFIG.yaml [key=value ...]                  on node0, and so on
#
# MODULE=train.localizer: another training than train.plc.
# Under Slurm NODE_RANK is Slurm's own. SIGTERM or SIGUSR1 on one machine: all save behind their step and end with exit
# status 75. Without starting it on each machine, `deepspeed --hostfile hosts --module train.plc ...` goes over ssh (pdsh).
set -euo pipefail

fail() {
    echo "multi_node.sh: error: $1" >&2
    exit 2
}
NODE_RANK=${NODE_RANK:-${SLURM_NODEID:-}}
[ -n "$NODE_RANK" ] || fail "NODE_RANK: not set; the first machine is 0"
if [ -n "${HOSTFILE:-}" ]; then
    [ -f "$HOSTFILE" ] || fail "HOSTFILE: no such file: $HOSTFILE"
    hostfile=$(realpath "$HOSTFILE")
    MASTER_ADDR=${MASTER_ADDR:-$(awk '!/^#/ && NF {print $1; exit}' "$hostfile")}
else
    [ -n "${MASTER_ADDR:-}" ] || fail "MASTER_ADDR: not set, and no HOSTFILE; the first machine's name or address"
    [ -n "${NNODES:-}" ] || fail "NNODES: not set, and no HOSTFILE; how many machines there are"
fi
# shellcheck source=launch/launcher.sh
source "$(dirname "${BASH_SOURCE[0]}")/launcher.sh"

count_processes
if [ -z "${HOSTFILE:-}" ]; then # DeepSpeed wants the list of machines as a file; without ssh their names do not matter
    hostfile=$(mktemp)
    trap 'rm -f "$hostfile"' EXIT
    for ((node = 0; node < NNODES; node++)); do
        echo "node-$node slots=$processes"
    done >"$hostfile"
fi
run_launcher --hostfile "$hostfile" --no_ssh --node_rank "$NODE_RANK" --master_addr "$MASTER_ADDR" \
    --master_port "${MASTER_PORT:-29500}" --module "${MODULE:-train.plc}" "$@"
