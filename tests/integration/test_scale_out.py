"""A run moves between numbers of processes and machines: universal checkpoints, several launchers, Slurm.

Two launchers on loopback are two machines of one job. Slurm's commands are stubs on PATH that do what Slurm does: start
the task on every machine, signal it ahead of the end, list the machines, put the job into the queue again.
"""

import json
import os
import subprocess
from pathlib import Path

import pytest
import torch

from tests.benchmarks.launcher import remove_buffers
from tests.integration.runs import ROOT, call, fork, logged, run_alone, trained_tensors
from train.reshard import main as reshard

JOB, PORT = "12", 20012  # launch/slurm.sbatch makes a port of the job's number
pytestmark = pytest.mark.integration


def samples(run: Path, processes: int) -> dict[int, list[str]]:
    """What each step trained on, in the order of processes."""
    steps: dict[int, list[str]] = {}
    for process in range(processes):
        for line in (run / f"batches-{process}.jsonl").read_text().splitlines():
            batch = json.loads(line)
            steps.setdefault(batch["step"], []).extend(batch["samples"])
    return steps


def same_as(run: Path, expected: Path, first_step: int) -> None:
    lines = [line for line in logged(run) if line["step"] > first_step]
    others = {line["step"]: line for line in logged(expected)}
    assert [line["step"] for line in lines] == [step for step in others if step > first_step]
    for line in lines:
        assert line["loss"] == pytest.approx(others[line["step"]]["loss"], rel=1e-5)
        assert line["lr"] == pytest.approx(others[line["step"]]["lr"])
    tensors = trained_tensors(expected / "final")
    for name, tensor in trained_tensors(run / "final").items():
        torch.testing.assert_close(tensor, tensors[name], rtol=0, atol=1e-5, msg=name)


def test_two_processes_then_one_then_two(plc_words: list[str], tmp_path: Path) -> None:
    """The same samples in the same order, the same losses and weights as two processes all the way."""
    common = [*plc_words, "max_steps=6", "save_strategy=steps", "save_steps=2", "learning_rate=1e-3"]
    common += ["compressor_learning_rate=1e-3", "projector_learning_rate=1e-3"]
    common += ["deepspeed=configs/deepspeed/zero2.json", "resume_from_checkpoint=auto"]

    def launch(run: Path, processes: int) -> str:
        words = [*common, f"output_dir={run}", f"per_device_train_batch_size={4 // processes}"]
        finished = fork(words, "tests/benchmarks/recorded_run.py", processes)
        assert finished.returncode == 0, finished.stderr[-3000:]
        return finished.stdout

    runs = [tmp_path / name for name in ("undisturbed", "one", "two")]
    launch(runs[0], 2)
    reshard([str(runs[0] / "checkpoint-2"), str(runs[1] / "checkpoint-2")])
    assert "resuming at step 2 of 6" in launch(runs[1], 1)
    reshard([str(runs[1] / "checkpoint-4"), str(runs[2] / "checkpoint-4")])
    assert "resuming at step 4 of 6" in launch(runs[2], 2)

    order = samples(runs[0], 2)
    assert samples(runs[1], 1) == {step: order[step] for step in (2, 3, 4, 5)}
    assert samples(runs[2], 2) == {step: order[step] for step in (4, 5)}
    same_as(runs[1], runs[0], 2)
    same_as(runs[2], runs[0], 4)


STUBS = {
    # starts the task on two machines, and warns the second one ahead of the end as soon as there is something to lose
    "srun": """
for node in 0 1; do SLURM_NODEID=$node "$@" & tasks[node]=$!; done
if [ ! -e "$STUBS/warned" ]; then
    until [ -s "$RUN/train_log.jsonl" ]; do sleep 0.05; done
    touch "$STUBS/warned"
    kill -USR1 "${tasks[1]}"
fi
status=0
for task in "${tasks[@]}"; do wait "$task" || status=$?; done
exit $status
""",
    "scontrol": """
case "$1 $2" in
"show hostnames") echo 127.0.0.1; echo other ;;
"requeue 12") echo "$*" >>"$STUBS/requeued" ;;
*) exit 1 ;;
esac
""",
}


def test_slurm_on_two_machines_is_warned_saves_and_goes_on(plc_words: list[str], tmp_path: Path) -> None:
    stubs, run, alone = tmp_path / "stubs", tmp_path / "run", tmp_path / "alone"
    stubs.mkdir()
    for name, text in STUBS.items():
        (stubs / name).write_text(f"#!/usr/bin/env bash\nset -u\n{text}")
        (stubs / name).chmod(0o755)
    words = [*plc_words, "max_steps=60", "learning_rate=1e-3", "save_strategy=steps", "save_steps=50"]
    words += ["compressor_learning_rate=1e-3", "projector_learning_rate=1e-3"]
    run_alone([*words, f"output_dir={alone}"])
    words += ["deepspeed=configs/deepspeed/zero2.json", "per_device_train_batch_size=2"]

    def submit(**more: str) -> "subprocess.CompletedProcess[str]":
        try:
            return call(
                ["bash", "launch/slurm.sbatch", *words, f"output_dir={run}"],
                SLURM_SUBMIT_DIR=str(ROOT),
                SLURM_JOB_NODELIST="node[0-1]",
                SLURM_JOB_NUM_NODES="2",
                SLURM_JOB_ID=JOB,
                PROCESSES="1",
                STUBS=str(stubs),
                RUN=str(run),
                PATH=f"{stubs}{os.pathsep}{os.environ['PATH']}",
                **more,
            )
        finally:
            remove_buffers(PORT)

    warned = submit()
    assert warned.returncode == 75, warned.stderr[-3000:]
    assert "dist_world_size=2" in warned.stderr + warned.stdout
    assert (stubs / "requeued").read_text() == "requeue 12\n"
    (checkpoint,) = run.glob("checkpoint-*")
    step = int(checkpoint.name.partition("-")[2])
    assert 1 <= step < 50
    assert not (run / "final").exists()

    (tmp_path / "hosts").write_text("# two machines\n127.0.0.1 slots=1\nother slots=1\n")
    finished = submit(HOSTFILE=str(tmp_path / "hosts"))  # the other way to name the machines
    assert finished.returncode == 0, finished.stderr[-3000:]
    assert f"resuming at step {step} of 60" in finished.stdout
    assert (stubs / "requeued").read_text() == "requeue 12\n"
    same_as(run, alone, 0)


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"NNODES": "2", "MASTER_ADDR": "127.0.0.1"}, "NODE_RANK: not set"),
        ({"NODE_RANK": "0", "NNODES": "2"}, "MASTER_ADDR: not set"),
        ({"NODE_RANK": "0", "MASTER_ADDR": "127.0.0.1"}, "NNODES: not set"),
        ({"NODE_RANK": "0", "HOSTFILE": "gone"}, "HOSTFILE: no such file: gone"),
    ],
)
def test_multi_node_names_the_variable_that_is_missing(variables: dict[str, str], message: str) -> None:
    refused = call(["bash", "launch/multi_node.sh", "configs/plc/quickstart.yaml"], **variables)
    assert refused.returncode == 2
    assert refused.stderr.startswith(f"multi_node.sh: error: {message}")
