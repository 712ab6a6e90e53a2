# shellcheck shell=bash
# Sourced by train.sh and multi_node.sh: the environment, and DeepSpeed's launcher behind signals that reach the training.
# shellcheck source=launch/environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

# Sets `processes` for this machine: PROCESSES, or one for each GPU, or two where there is none.
count_processes() {
    local gpus cores
    gpus=$("$python" -c 'import torch; print(torch.cuda.device_count())')
    processes=${PROCESSES:-$((gpus ? gpus : 2))}
    if [ "$gpus" = 0 ]; then
        cores=$(getconf _NPROCESSORS_ONLN)
        export DS_ACCELERATOR=cpu OMP_NUM_THREADS="${OMP_NUM_THREADS:-$((cores > processes ? cores / processes : 1))}"
    fi
}

# run_launcher ARGUMENT...: `deepspeed ARGUMENT...`, by this interpreter, and its exit status.
# The launcher would die of a signal and leave the training behind, or kill it after 30 seconds. So it ignores SIGUSR1,
# and the training processes, which save at SIGUSR1 and leave (exit status 75), get that for our SIGTERM and SIGUSR1.
run_launcher() {
    local group signalled=1 status=0
    trap '' USR1 # inherited by what starts now; the training processes ask for the signal again
    set -m       # a process group of its own
    "$python" -m deepspeed.launcher.runner "$@" &
    group=$!
    set +m
    trap 'signalled=1; kill -USR1 -- "-$group"' TERM USR1
    trap 'signalled=1; kill -INT -- "-$group"' INT
    while [ "$signalled" = 1 ]; do
        signalled=0
        status=0
        wait "$group" || status=$?
    done
    return "$status"
}
