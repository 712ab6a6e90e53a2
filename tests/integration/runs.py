"""Start the processes of one training, and read what it leaves.

`launch` starts them as users do. `fork` starts the same processes without the launcher, each forked from a server that
has imported everything once, which takes a fifth of the time: for tests whose subject is not the launcher.
"""

import importlib
import json
import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from multiprocessing.connection import wait
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

from data_prep.common.command_line import parse_config
from tests.benchmarks.launcher import ON_THE_CPU, command, environment, free_port, remove_buffers
from train.arguments.data import DataArguments
from train.arguments.model import ModelArguments
from train.arguments.training import PlcTrainingArguments
from train.backbones.checkpoint import Checkpoint
from train.engine.run import train
from train.engine.trainer import PlcTrainer

ROOT = Path(__file__).parents[2]
DEADLINE = 400.0  # seconds
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["deepspeed", "train.plc", "train.localizer", "tensorboard"])


def launch(words: Sequence[str], module: str = "train.plc") -> "subprocess.CompletedProcess[str]":
    """Run two processes, as `launch/train.sh` starts them on a machine without a GPU."""
    port = free_port()
    try:
        return call([*command(2, port, "--module", module), *words])
    finally:
        remove_buffers(port)


def call(words: Sequence[str | Path], **variables: str) -> "subprocess.CompletedProcess[str]":
    """Run a command in the project's folder; scripts of launch/ take the interpreter of the tests."""
    return subprocess.run(
        [str(word) for word in words],
        cwd=ROOT,
        env=environment(**{**ON_THE_CPU, "CROP_PYTHON": sys.executable, **variables}),
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )


def fork(words: Sequence[str], program: str = "train.plc", processes: int = 2) -> "subprocess.CompletedProcess[str]":
    """Run the processes that a launcher would start of a module, or of a script in the project's folder.

    If one of them fails, the others are ended and its exit status is returned. Outputs follow each other, rank 0 first.
    """
    port = free_port()
    with tempfile.TemporaryDirectory() as folder, patch.dict(os.environ, environment(**ON_THE_CPU)):
        started = [
            SERVER.Process(target=_run, args=(rank, processes, port, folder, program, list(words)))
            for rank in range(processes)
        ]
        for process in started:
            process.start()
        status = _wait(started)
        remove_buffers(port)
        outputs = ("".join(path.read_text() for path in sorted(Path(folder).glob(f"*.{stream}"))) for stream in "12")
        return subprocess.CompletedProcess(words, status, *outputs)


def _wait(started: list[ForkServerProcess]) -> int:
    running, status = {process.sentinel: process for process in started}, 0
    try:
        while running and not status:
            ended = wait(list(running), DEADLINE)
            assert ended, "the processes hang"
            status = next((code for end in ended if (code := running.pop(end).exitcode)), 0)  # type: ignore[call-overload]
    finally:
        for process in started:
            process.kill()
            process.join()
    return status


def _run(rank: int, processes: int, port: int, folder: str, program: str, words: list[str]) -> None:
    """Become process `rank` of the job, in a forked process."""
    os.chdir(ROOT)
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(processes), LOCAL_WORLD_SIZE=str(processes))
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    for stream in (1, 2):
        os.dup2(os.open(f"{folder}/{rank}.{stream}", os.O_WRONLY | os.O_CREAT), stream)
    if program.endswith(".py"):
        sys.argv = [program, *words]
        sys.path.insert(0, str(Path(program).parent))
        runpy.run_path(program, run_name="__main__")
    else:
        importlib.import_module(program).main(words)


def run_alone(words: Sequence[str]) -> PlcTrainer:
    """Train in this process, without DeepSpeed."""
    return train(*parse_config((ModelArguments, DataArguments, PlcTrainingArguments), words, prog="t", description=""))


def logged(run: Path) -> list[dict[str, Any]]:
    """Return the lines of training, one a step."""
    return [line for line in _log(run) if "lr" in line]


def evaluations(run: Path) -> list[dict[str, Any]]:
    """Return the lines of evaluation."""
    return [line for line in _log(run) if "eval_loss" in line]


def _log(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "train_log.jsonl").read_text().splitlines()]


def trained_tensors(folder: Path) -> dict[str, torch.Tensor]:
    """Return what LoRA, compressor and projector have learnt."""
    model = Checkpoint.open(folder).model()
    return {name: tensor for name, tensor in model.state_dict().items() if "lora_" in name or "modules_to_save" in name}
