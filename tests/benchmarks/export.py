"""Exports of checkpoints of every ZeRO stage, loaded where there is nothing but torch and transformers.

    tests/benchmarks/bare_environment.sh BARE 5.20.0
    python tests/benchmarks/export.py OUT bare=BARE [key=value ...]

For each ZeRO stage, number of processes and type of weights: a few steps of the demo's training under the deepspeed
launcher, an export of its checkpoint-<step> with LoRA merged and one with LoRA apart, and the logits of either, with
every transformers in BARE, against those of the checkpoint. OUT/export.jsonl has a line a load, written when its case
is done; a second call goes on with those it lacks. Prints a Markdown table. Exit status 1 where, in fp32, logits
differ by more than 1e-5 (LoRA apart) or 1e-5 of the largest one (merged: other sums are rounded), or the weights of
export and checkpoint by more than 1e-5 in the logits that they compute in fp64.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any
from unittest.mock import patch

import launcher
import torch
from launcher import ON_THE_CPU, ROOT, command, free_port
from peft import PeftModel
from safetensors.torch import load_file

from data_prep.common.command_line import parse_config
from data_prep.common.errors import ConfigError, user_errors
from data_prep.demo import DemoArguments, write_demo
from train.backbones.checkpoint import Checkpoint
from train.export import main as export
from train.publishing import proof as export_proof
from train.publishing.proof_request import read_request, write_request

PROG = "python tests/benchmarks/export.py"
RESULT = "export.jsonl"
STEPS = 2
LIMIT = 1e-5  # in fp32: of `merging`, of the difference with LoRA apart, and of its share of the largest logit merged
DESCRIBE = """
import importlib.util, json, sys, torch, transformers
absent = [name for name in sys.argv[1:] if importlib.util.find_spec(name) is None]
print(json.dumps([transformers.__version__, torch.__version__, absent]))
"""


@dataclass(frozen=True)
class Arguments:
    """Keys of the command line."""

    out: str = field(metadata={"help": f"Folder for data, runs, exports and {RESULT}."})
    bare: str = field(metadata={"help": "Folder that bare_environment.sh made."})
    stages: list[int] = field(default_factory=lambda: [0, 1, 2, 3], metadata={"help": "ZeRO stages."})
    processes: list[int] = field(default_factory=lambda: [1, 2], metadata={"help": "Processes of a run."})
    weights: list[str] = field(default_factory=lambda: ["fp32", "bf16"], metadata={"help": "Their types."})


def main() -> None:
    """Entry point."""
    with user_errors(PROG):
        (arguments,) = parse_config(
            (Arguments,), sys.argv[1:], prog=PROG, description=__doc__ or "", positionals=("out",)
        )
        out, bare = Path(arguments.out).absolute(), Path(arguments.bare).absolute()
        versions = describe(bare)
    if not (out / "data").is_dir():
        write_demo(out / "data", DemoArguments(train_images=20, test_images=1))
    for case in cases(arguments):
        if case in [{key: row[key] for key in case} for row in read(out)]:
            continue
        rows = [case | row for row in measure(train(out, **case), bare, versions)]
        with (out / RESULT).open("a") as file:
            file.writelines(f"{json.dumps(row)}\n" for row in rows)
    rows = read(out)
    print(table(rows))
    sys.exit(not all(holds(row) for row in rows if row["weights"] == "fp32"))


def cases(arguments: Arguments) -> Iterator[dict[str, Any]]:
    """What is trained: ZeRO stage, processes, type of the weights."""
    for weights in arguments.weights:
        for stage in arguments.stages:
            for processes in arguments.processes:
                if (weights, stage) != ("bf16", 0):  # drifts, and the project advises against it
                    yield {"stage": stage, "processes": processes, "weights": weights}


def read(out: Path) -> list[dict[str, Any]]:
    """The rows measured so far."""
    path = out / RESULT
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def holds(row: dict[str, Any]) -> bool:
    """Whether a row in fp32 is within `LIMIT`."""
    allowed = LIMIT * (1 if row["lora"] == "apart" else max(1, row["largest"]))
    return row["merging"] <= LIMIT and row["difference"] <= allowed


def describe(bare: Path) -> dict[str, list[Path]]:
    """The transformers in `bare`, and what each needs on PYTHONPATH.

    Raises:
        ConfigError: the environment does not start, or has more in it than it should.
    """
    versions = {}
    unwanted = [*export_proof.PROJECT, "deepspeed", "peft", "torchvision"]
    for place in ([], *([folder] for folder in sorted(bare.glob("transformers-*")))):
        command = [str(bare / "venv/bin/python"), "-P", "-c", DESCRIBE, *unwanted]
        try:
            done = subprocess.run(command, env=environment(place), check=True, capture_output=True, text=True)
        except (OSError, subprocess.CalledProcessError) as error:
            raise ConfigError(f"bare: {bare}: {error}") from None
        version, torch_version, absent = json.loads(done.stdout)
        if absent != unwanted:
            raise ConfigError(f"bare: {bare} has {', '.join(sorted(set(unwanted) - set(absent)))}")
        print(f"transformers {version}, torch {torch_version}; absent: {', '.join(absent)}", flush=True)
        versions[version] = place
    return dict(sorted(versions.items()))


def environment(path: list[Path], **more: str) -> dict[str, str]:
    """Of a process that has nothing of this one's but its number of threads."""
    return {
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": str(torch.get_num_threads()),
        "PATH": os.environ["PATH"],
        "PYTHONPATH": os.pathsep.join(map(str, path)),
        **more,
    }


def train(out: Path, stage: int, processes: int, weights: str) -> Path:
    """A run; returns its checkpoint. The presets are the shipped ones, stage 1 is that of stage 2."""
    run = out / f"zero{stage}-{processes}-{weights}"
    shutil.rmtree(run, ignore_errors=True)  # of a call that was interrupted
    run.mkdir()
    preset = json.loads((ROOT / f"configs/deepspeed/zero{2 if stage == 1 else stage}.json").read_text())
    preset["zero_optimization"]["stage"] = stage
    (run / "deepspeed.json").write_text(json.dumps(preset))
    data = out / "data"
    source = {"annotations": data / "train.json", "image_root": data / "images", "regions": data / "regions/train"}
    words = {
        "train_data": json.dumps([{key: str(path) for key, path in source.items()}]),
        "eval_data": "[]",
        "eval_strategy": "no",
        "picture_steps": 0,
        "output_dir": run,
        "max_steps": STEPS,
        "save_steps": STEPS,
        "per_device_train_batch_size": 4,
        "warmup_steps": 0,
        "deepspeed": run / "deepspeed.json",
        "bf16": str(weights == "bf16").lower(),
        "report_to": "none",
    }
    settings = [f"{key}={value}" for key, value in words.items()]
    started = command(processes, free_port(), "--module", "train.plc", "configs/plc/quickstart.yaml", *settings)
    with (run / "output.txt").open("w") as output:
        subprocess.run(
            started, cwd=ROOT, env=launcher.environment(**ON_THE_CPU), stdout=output, stderr=output, check=True
        )
    return run / f"checkpoint-{STEPS}"


def measure(checkpoint: Path, bare: Path, versions: dict[str, list[Path]]) -> list[dict[str, Any]]:
    """Export, and compare in the bare environment, merged and apart, with each transformers.

    Largest absolute differences of logits: `difference` of export and checkpoint; `effect` of LoRA; `rounding` of the
    checkpoint and the same weights computing in fp64; `merging` of the weights of export and checkpoint, both in fp64.
    """
    request = checkpoint.parent / "request"
    write_request(request, *read_request(None, "what is the largest digit ?", None))
    opened = Checkpoint.open(checkpoint)
    dtype, opened = opened.config.dtype or torch.float32, opened.with_weights(request / "whole")
    model, processor = opened.model(dtype), opened.processor()

    def logits(model: Any) -> torch.Tensor:
        return export_proof.compute(model, processor, request)["logits"]

    expected = logits(model)
    with fp64():
        exact = logits(model.double())
        without = logits(model.unload())
    largest = expected.abs().max().item()
    rows = []
    for lora, peft in (("merged", []), ("apart", [bare / "peft"])):
        out = checkpoint.parent / lora
        export([str(checkpoint), str(out), f"merge={str(lora == 'merged').lower()}"])
        exported = Checkpoint.open(out).model(dtype)
        if lora == "apart":
            exported = PeftModel.from_pretrained(exported, out / export_proof.ADAPTER, autocast_adapter_dtype=False)
        with fp64():
            merging = distance(logits(exported.double()), exact)
        for version, place in versions.items():
            variables = environment([*peft, *place], HF_MODULES_CACHE=str(request / f"modules-{version}"))
            # -P: the script's folder has modules of names that transformers looks for
            command = [str(bare / "venv/bin/python"), "-P", str(ROOT / "train/publishing/proof.py")]
            subprocess.run([*command, str(out), str(request)], env=variables, check=True)
            computed = load_file(request / export_proof.COMPUTED)["logits"]
            rows.append(
                {
                    "lora": lora,
                    "transformers": version,
                    "difference": distance(computed, expected),
                    "largest": largest,
                    "effect": distance(exact, without),
                    "rounding": distance(expected, exact),
                    "merging": merging,
                }
            )
    return rows


@contextmanager
def fp64() -> Iterator[None]:
    """What the model's code casts to fp32 goes to fp64 instead."""
    with (
        patch.object(torch, "float32", torch.float64),
        patch.object(torch, "float", torch.float64),
        patch.object(torch.Tensor, "float", torch.Tensor.double),
    ):
        yield


def distance(one: torch.Tensor, other: torch.Tensor) -> float:
    """The largest absolute difference."""
    return (one - other).abs().max().item()


def table(rows: list[dict[str, Any]]) -> str:
    """A line a case, in Markdown; a column of differences for each way to load it."""
    ways = sorted({(row["lora"], row["transformers"]) for row in rows}, key=lambda way: (way[0] == "apart", way[1]))
    figures = {"largest logit": "largest", "LoRA": "effect", "rounding": "rounding", "merging": "merging"}
    heads = ["weights", "ZeRO", "processes", *figures]
    lines = ["| " + " | ".join([*heads, *[f"{lora}, {version}" for lora, version in ways]]) + " |"]
    lines.append("|---|" + "---:|" * (len(heads) + len(ways) - 1))
    for key, group in groupby(rows, key=lambda row: (row["weights"], row["stage"], row["processes"])):
        of_way = {(row["lora"], row["transformers"]): row for row in group}
        first = of_way[ways[0]]  # merged
        cells = [*map(str, key), *[f"{first[figure]:.2g}" for figure in figures.values()]]
        cells += [f"{of_way[way]['difference']:.2g}" for way in ways]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
