"""Exports of checkpoints of every ZeRO stage, loaded where there is nothing but torch and transformers.

    docs/benchmarks/bare_environment.sh BARE 5.20.0 5.22.2
    python docs/benchmarks/export.py OUT bare=BARE [key=value ...]

For each ZeRO stage, number of processes and type of weights: a few steps of the demo's training under the deepspeed
launcher, an export of its checkpoint-<step> with LoRA merged and one with LoRA apart, and the logits of either in the
bare environment against those of the checkpoint. One line a case, in OUT/export.jsonl as soon as it is known.
"""

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from reliability import free_port
from safetensors.torch import load_file

from data_prep.config import parse_config, user_errors
from data_prep.demo import DemoArguments, write_demo
from train import export_proof
from train.checkpoint import load_checkpoint, load_config
from train.consolidate import with_weights
from train.export import main as export
from train.export_request import read_request, write_request

ROOT = Path(__file__).parents[2]
PROG = "python docs/benchmarks/export.py"
STEPS = 2


@dataclass(frozen=True)
class Arguments:
    """Keys of the command line."""

    out: str = field(metadata={"help": "Folder for data, runs, exports and export.jsonl."})
    bare: str = field(metadata={"help": "Folder that bare_environment.sh made."})
    stages: list[int] = field(default_factory=lambda: [0, 1, 2, 3], metadata={"help": "ZeRO stages."})
    processes: list[int] = field(default_factory=lambda: [1, 2], metadata={"help": "Processes of a run."})
    bf16: list[bool] = field(default_factory=lambda: [False, True], metadata={"help": "Types of the weights."})


def main() -> None:
    """Entry point."""
    with user_errors(PROG):
        (arguments,) = parse_config(
            (Arguments,), sys.argv[1:], prog=PROG, description=__doc__ or "", positionals=("out",)
        )
    out = Path(arguments.out)
    write_demo(out / "data", DemoArguments(train_images=20, test_images=1))
    versions = sorted(Path(arguments.bare).glob("transformers-*"))
    for bf16 in arguments.bf16:
        for stage in arguments.stages:
            for processes in arguments.processes:
                if bf16 and stage == 0:
                    continue  # drifts, and the project advises against it
                checkpoint = train(out, stage, processes, bf16)
                case = {"stage": stage, "processes": processes, "weights": "bf16" if bf16 else "fp32"}
                for merge in (True, False):
                    places = [Path(arguments.bare) / "peft"] if not merge else [None, *versions]
                    for row in measure(checkpoint, merge, Path(arguments.bare), places):
                        with (out / "export.jsonl").open("a") as file:
                            file.write(json.dumps(case | row) + "\n")


def train(out: Path, stage: int, processes: int, bf16: bool) -> Path:
    """A run; returns its checkpoint."""
    run = out / f"zero{stage}-{processes}-{'bf16' if bf16 else 'fp32'}"
    run.mkdir()
    preset = json.loads((ROOT / "configs/deepspeed/zero2.json").read_text())
    preset["zero_optimization"] = {"stage": stage}
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
        "bf16": str(bf16).lower(),
        "report_to": "none",
    }
    launcher = Path(sys.executable).parent / "deepspeed"
    command = [str(launcher), "--num_gpus", str(processes), "--master_port", str(free_port()), "--module", "train.plc"]
    command += ["configs/plc/quickstart.yaml", *[f"{key}={value}" for key, value in words.items()]]
    environment = {
        **os.environ,
        "DS_ACCELERATOR": "cpu",
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "PATH": f"{launcher.parent}{os.pathsep}{os.environ['PATH']}",
    }
    with (run / "output.txt").open("w") as output:
        subprocess.run(command, cwd=ROOT, env=environment, stdout=output, stderr=output, check=True)
    return run / f"checkpoint-{STEPS}"


def measure(checkpoint: Path, merge: bool, bare: Path, places: list[Path | None]) -> list[dict[str, Any]]:
    """Export, and compare in the bare environment, with each of `places` in front of what is installed there."""
    name = f"{checkpoint.parent.name}-{'merged' if merge else 'apart'}"
    out, request = checkpoint.parent.parent / name, checkpoint.parent / f"request-{name}"
    export([str(checkpoint), str(out), f"merge={str(merge).lower()}"])
    write_request(request, *read_request(None, "what is the largest digit ?", None))
    dtype = load_config(checkpoint).dtype or torch.float32
    model, processor = load_checkpoint(with_weights(str(checkpoint), request / "whole"), dtype)
    expected = export_proof.compute(model, processor, request)["logits"]
    rows = []
    for place in places:
        command = [str(bare / "venv/bin/python"), "-P", str(ROOT / "train/export_proof.py")]
        environment = {
            "HF_HUB_OFFLINE": "1",
            "HF_MODULES_CACHE": str(request / "modules"),
            "PATH": os.environ["PATH"],
            **({} if place is None else {"PYTHONPATH": str(place.resolve())}),
        }
        subprocess.run([*command, str(out.resolve()), str(request.resolve())], env=environment, check=True)
        computed = load_file(request / export_proof.COMPUTED)["logits"]
        difference = (computed - expected).abs().max().item()
        place_name = "as installed" if place is None else place.name
        rows.append(
            {
                "lora": "merged" if merge else "apart",
                "with": place_name,
                "difference": difference,
                "largest logit": expected.abs().max().item(),
            }
        )
    return rows


if __name__ == "__main__":
    main()
