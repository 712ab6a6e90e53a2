"""Kills training with SIGKILL at random moments and compares what becomes of it with a run that nobody disturbed.

    python tests/benchmarks/reliability.py OUT [key=value ...]

Two processes of the real deepspeed launcher on the CPU. A chain is one run that is killed several times, each time
started again with `resume_from_checkpoint=auto`, and at last left to its end:

    start ──✗ resume ──✗ resume ──✗ ... resume ──► end      ✗ = SIGKILL

A kill hits the whole machine (launcher and all processes) or one process; by turns while a checkpoint is being written
and at any moment of training. Compared with the undisturbed run, to the bit: every checkpoint that the chain leaves
(weights, optimizer, scheduler and random state of each process), the final weights, and the samples of every step on
every process. Exit status 1 where anything differs. OUT/reliability.json holds every kill.
"""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from launcher import ON_THE_CPU, ROOT, command, environment, free_port, remove_buffers
from safetensors.torch import load_file

from data_prep.common.command_line import parse_config
from data_prep.common.errors import user_errors
from data_prep.demo import DemoArguments, write_demo
from train.checkpoints.folders import STAGING, check_whole

PROG = "python tests/benchmarks/reliability.py"
PROCESSES = 2
RESULT = "reliability.json"
KILLS_A_CHAIN = 7
LAUNCH_LIMIT_S = 900


@dataclass(frozen=True)
class Arguments:
    """Keys of the command line."""

    out: str = field(metadata={"help": "Folder for data, runs and reliability.json."})
    kills: int = field(default=50, metadata={"help": "How many in all."})
    presets: list[str] = field(
        default_factory=lambda: ["zero2", "zero0", "zero2", "zero3"],
        metadata={"help": "DeepSpeed presets, by turns, one a chain."},
    )
    max_steps: int = field(default=30, metadata={"help": "Of a run."})
    save_steps: int = field(default=2, metadata={"help": "Between checkpoints."})
    seed: int = field(default=0, metadata={"help": "Of the moments."})


class Launch:
    """A started run."""

    def __init__(self, run: Path, arguments: Arguments, preset: str) -> None:
        run.mkdir(parents=True, exist_ok=True)
        self.run = run
        self.port = free_port()
        started = [str(ROOT / "tests/benchmarks/recorded_run.py"), *words(run, arguments, preset)]
        with (run / "output.txt").open("a") as output:
            self.process = subprocess.Popen(
                command(PROCESSES, self.port, *started),
                cwd=ROOT,
                env=environment(**ON_THE_CPU),
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def running(self) -> bool:
        return self.process.poll() is None

    def wait_for(self, pattern: str, newer_than: float) -> None:
        """Until a file of that pattern was touched after a time, or the run has ended."""
        while self.running() and not any(mtime(path) > newer_than for path in self.run.glob(pattern)):
            time.sleep(0.002)

    def wait_while_saving(self, newer_than: float, moments: random.Random) -> None:
        """Stop the processes while a checkpoint is written: one that was whole by then is let go, for the next."""
        saving = False
        while self.running() and not saving:
            self.wait_for(f"{STAGING}/checkpoint-*", newer_than)
            time.sleep(moments.uniform(0, 0.25))
            os.killpg(self.process.pid, signal.SIGSTOP)  # or the checkpoint may be whole before the kill
            saving = (self.run / STAGING).exists()
            if not saving:
                os.killpg(self.process.pid, signal.SIGCONT)

    def finish(self) -> None:
        status = self.process.wait(LAUNCH_LIMIT_S)
        remove_buffers(self.port)
        if status != 0:
            raise SystemExit(f"{self.run}: exit status {self.process.returncode}, see {self.run / 'output.txt'}")

    def kill_all(self) -> None:
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        remove_buffers(self.port)

    def kill_one(self, process: int) -> None:
        """One training process; the launcher then ends the others."""
        os.kill(int((self.run / f"process-{process}.pid").read_text()), signal.SIGKILL)
        os.killpg(self.process.pid, signal.SIGCONT)
        try:
            self.process.wait(60)
            remove_buffers(self.port)
        except subprocess.TimeoutExpired:
            self.kill_all()


def words(run: Path, arguments: Arguments, preset: str) -> list[str]:
    data = Path(arguments.out) / "data"
    source = {"annotations": data / "train.json", "image_root": data / "images", "regions": data / "regions/train"}
    return [
        "configs/plc/quickstart.yaml",
        f"train_data=[{json.dumps({key: str(path) for key, path in source.items()})}]",
        "eval_data=[]",
        "eval_strategy=no",
        "picture_steps=0",
        "report_to=none",
        "disable_tqdm=true",
        f"output_dir={run}",
        f"deepspeed=configs/deepspeed/{preset}.json",
        "lora={r: 16, lora_alpha: 32, lora_dropout: 0.1}",
        f"max_steps={arguments.max_steps}",
        f"save_steps={arguments.save_steps}",
        "save_total_limit=100",
        "per_device_train_batch_size=2",
        "resume_from_checkpoint=auto",
    ]


def disturb(launch: Launch, while_saving: bool, moments: random.Random) -> dict[str, Any] | None:
    """One kill and what it hit; None where the run ended before it."""
    started = time.time()
    launch.wait_for("batches-0.jsonl", started)
    if while_saving:
        launch.wait_while_saving(started, moments)
    else:
        time.sleep(moments.uniform(0, 4))
    target: str | int = moments.choice(["all"] * 8 + [0, 1])
    if not launch.running():
        return None
    saving = (launch.run / STAGING).exists()
    if isinstance(target, int):
        launch.kill_one(target)
    else:
        launch.kill_all()
    trained = sum(1 for _ in (launch.run / "batches-0.jsonl").open())
    return {
        "target": target,
        "left_behind": sorted(path.name for path in (launch.run / STAGING).glob("*/*")),
        "saving": saving,
        "checkpoints": len(list(launch.run.glob("checkpoint-*"))),
        "batches_trained": trained,
    }


def run_chain(run: Path, arguments: Arguments, preset: str, kills: int, moments: random.Random) -> list[dict[str, Any]]:
    """The kills of one run, which at the end has finished."""
    events: list[dict[str, Any]] = []
    while len(events) < kills:
        launch = Launch(run, arguments, preset)
        event = disturb(launch, len(events) % 2 == 0, moments)
        if event is None:
            launch.finish()
            return events
        events.append({"preset": preset, "run": run.name, **event})
        print(json.dumps({key: value for key, value in events[-1].items() if key != "left_behind"}), flush=True)
    Launch(run, arguments, preset).finish()
    return events


# ---- comparing


def differences(run: Path, reference: Path) -> list[str]:
    """What is not the same to the bit; empty where all of it is."""
    found = []
    names = sorted(path.name for path in run.glob("checkpoint-*"))
    if names != sorted(path.name for path in reference.glob("checkpoint-*")):
        found.append(f"{run.name}: checkpoints {names}")
    for name in names:
        check_whole(run / name)
        found += [f"{run.name}/{name}/{what}" for what in different_files(run / name, reference / name)]
    weights = [load_file(folder / "final" / "adapter_model.safetensors") for folder in (run, reference)]
    found += [f"{run.name}/final: {what}" for what in different_values(*weights)]
    for process in range(PROCESSES):
        expected = {line["step"]: line["samples"] for line in batches(reference, process)}
        seen = list(batches(run, process))
        wrong = {line["step"] for line in seen if line["samples"] != expected[line["step"]]}
        missing = expected.keys() - {line["step"] for line in seen}
        found += [f"{run.name}: process {process}, step {step}: other samples" for step in sorted(wrong | missing)]
    return found


def different_files(folder: Path, reference: Path) -> Iterator[str]:
    """The files with state of a checkpoint. Its texts hold times, and its pickled arguments a path."""
    for path in sorted(reference.rglob("*")):
        name = path.relative_to(reference)
        if path.suffix == ".safetensors":
            yield from (f"{name}: {what}" for what in different_values(load_file(folder / name), load_file(path)))
        elif path.suffix in (".pt", ".pth") or path.name == "scheduler.pt":
            # these pickles are this script's own
            values = [torch.load(file, map_location="cpu", weights_only=False) for file in (folder / name, path)]
            yield from (f"{name}: {what}" for what in different_values(*values))


def different_values(value: Any, expected: Any) -> Iterator[str]:
    """Names of what differs, to the bit, between two nested states."""
    one, other = dict(leaves(value)), dict(leaves(expected))
    for name in sorted(one.keys() | other.keys()):
        if name not in one or name not in other:
            yield f"{name} is on one side alone"
        elif not equal(one[name], other[name]):
            yield f"{name} differs"


def leaves(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Tensors and plain values of a nested state by their names."""
    if type(value).__module__.startswith("deepspeed"):
        value = vars(value)
    elif isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, list | tuple):
        value = dict(enumerate(value))
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from leaves(inner, f"{name}.{key}")
    else:
        yield name, value


def equal(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    return type(one) is type(other) and one == other


def batches(run: Path, process: int) -> Iterator[dict[str, Any]]:
    for line in (run / f"batches-{process}.jsonl").read_text().splitlines():
        yield json.loads(line)


# ---- small things


def mtime(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:  # renamed meanwhile
        return 0.0


def main() -> None:
    with user_errors(PROG):
        (arguments,) = parse_config(
            (Arguments,), sys.argv[1:], prog=PROG, description="Kill, resume, compare.", positionals=("out",)
        )
    out = Path(arguments.out)
    out.mkdir(parents=True, exist_ok=True)
    write_demo(out / "data", DemoArguments(train_images=16, test_images=1))
    begun = time.time()
    before = json.loads((out / RESULT).read_text()) if (out / RESULT).exists() else {}
    events, wrong, chains = before.get("events", []), before.get("differences", []), before.get("chains", 0)
    while len(events) < arguments.kills:
        preset = arguments.presets[chains % len(arguments.presets)]
        reference, run = out / f"undisturbed-{preset}", out / f"chain-{chains}"
        if not (reference / "final").exists():
            shutil.rmtree(reference, ignore_errors=True)
            Launch(reference, arguments, preset).finish()
        shutil.rmtree(run, ignore_errors=True)
        kills = min(KILLS_A_CHAIN, arguments.kills - len(events))
        events += run_chain(run, arguments, preset, kills, random.Random(f"{arguments.seed}/{chains}"))
        wrong += differences(run, reference)
        chains += 1
        result = {
            "kills": len(events),
            "kills_while_saving": sum(event["saving"] for event in events),
            "kills_of_one_process": sum(event["target"] != "all" for event in events),
            "chains": chains,
            "differences": wrong,
            "minutes": round(before.get("minutes", 0) + (time.time() - begun) / 60, 1),
            "torch": torch.__version__,
            "arguments": vars(arguments),
        }
        print(json.dumps(result), flush=True)
        (out / RESULT).write_text(json.dumps({**result, "events": events}, indent=1))
    raise SystemExit(1 if wrong else 0)


if __name__ == "__main__":
    main()
