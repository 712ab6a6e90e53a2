"""Training steps of configs/plc/llava-1.5-7b.yaml on one GPU: time, memory and rate against the visual tokens.

    python tests/benchmarks/gpu_training.py OUT runs=[plc_64,all]      a minute a run, of a GPU of 40 GB; 20 GB of disk
    python tests/benchmarks/gpu_training.py OUT                        all eight; two need flash-attn, one bitsandbytes

A LLaVA-1.5-7B with random weights in llava-hf format is written to OUT/model, questions of 146 text tokens about images
of noise to OUT/data. Every run is `deepspeed --num_gpus 1 --module train.plc configs/plc/llava-1.5-7b.yaml` on them: 16
questions a step, LoRA r128, bf16, gradient checkpointing, ZeRO-2. Its own log is what is read; the first steps, which
warm up, are left out. Prints a Markdown table.
"""

import json
import os
import random
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np
import torch
from demo_llava import DEMO_BASE
from launcher import ROOT, command, environment, free_port
from llava_sizes import LANGUAGE_MODELS, text_config, vision_config
from PIL import Image
from transformers import AutoTokenizer, LlavaConfig, LlavaForConditionalGeneration, LlavaProcessor

from data_prep.common.command_line import parse_config
from data_prep.common.errors import ConfigError, user_errors
from data_prep.schema.sample import RegionAnnotation, sample_id, write_regions
from train.engine.meter import LOG_FILE

PROG = "python tests/benchmarks/gpu_training.py"
SIDE, IMAGES, QUESTIONS, WARM_UP = 336, 16, 512, 3
WORDS = 70  # of a question, and of an answer; the template has six tokens more
RUNS = {
    "all": ["compressor_type=none", "token_budget=576"],
    "plc_192": ["token_budget=192"],
    "plc_64": ["token_budget=64"],
    "plc_64_flash": ["token_budget=64", "attn_implementation=flash_attention_2"],
    "plc_64_liger": ["token_budget=64", "use_liger_kernel=true"],
    "plc_64_packed": ["token_budget=64", "pack_length=3424", "per_device_train_batch_size=1"],
    "plc_64_packed_flash": [
        *(
            "token_budget=64",
            "pack_length=3424",
            "per_device_train_batch_size=1",
            "attn_implementation=flash_attention_2",
        ),
    ],
    "plc_64_4bit": ["token_budget=64", "load_in_4bit=true"],
}
HEADER = """\
| run | step, s | samples/s | tokens/s | MFU | peak memory, GB | start to end, s |
|---|---:|---:|---:|---:|---:|---:|"""


@dataclass(frozen=True)
class Arguments:
    """Keys of the command line."""

    out: str = field(metadata={"help": "Folder for model, data and runs; what is there is used again."})
    runs: list[str] = field(default_factory=lambda: list(RUNS), metadata={"help": f"Of {', '.join(RUNS)}."})
    steps: int = field(default=12, metadata={"help": f"Steps of a run, more than the {WARM_UP} that are left out."})

    def __post_init__(self) -> None:
        if self.steps <= WARM_UP:
            raise ConfigError(f"steps: {self.steps} is not above {WARM_UP}, the steps that are left out")
        if unknown := set(self.runs) - RUNS.keys():
            raise ConfigError(f"runs: {min(unknown)} is none of {', '.join(RUNS)}")


def main() -> None:
    """Entry point."""
    with user_errors(PROG):
        (arguments,) = parse_config((Arguments,), sys.argv[1:], prog=PROG, description="", positionals=("out",))
    out = Path(arguments.out).absolute()
    write_model(out / "model")
    write_data(out / "data")
    print(HEADER)
    for name in arguments.runs:
        ended = train(out / name, "train.plc", words_of(out, name), arguments.steps)
        print(line(name, out / name, *ended), flush=True)


def write_model(folder: Path) -> None:
    """LLaVA-1.5-7B's sizes in bf16, with the demo's 124 words among the 32,064 that it has room for."""
    if folder.is_dir():
        return
    processor = LlavaProcessor.from_pretrained(DEMO_BASE)
    processor.patch_size = 14
    processor.image_processor.size = {"shortest_edge": SIDE}
    processor.image_processor.crop_size = {"height": SIDE, "width": SIDE}
    config = LlavaConfig(
        vision_config=vision_config(),
        text_config=text_config(*LANGUAGE_MODELS["7b"]),
        image_token_id=processor.image_token_id,
    )
    torch.manual_seed(0)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        model = LlavaForConditionalGeneration._from_config(config, dtype=torch.bfloat16)
    staged = folder.with_name("model.part")  # what is whole alone is used again
    model.save_pretrained(staged)
    processor.save_pretrained(staged)
    staged.rename(folder)


def write_data(folder: Path) -> None:
    """LLaVA's records, images and one region a question."""
    if folder.is_dir():
        return
    draw, words = random.Random(0), demo_words()
    write_noise(folder / "images", IMAGES)
    records, annotations = [], []
    for number in range(QUESTIONS):
        name = f"{number % IMAGES}.png"
        question, answer = (" ".join(draw.choices(words, k=WORDS)) for _ in range(2))
        turns = [{"from": "human", "value": f"<image>\n{question}"}, {"from": "gpt", "value": answer}]
        records.append({"id": number, "image": name, "conversations": turns})
        x, y = draw.randrange(200), draw.randrange(200)
        box = (float(x), float(y), x + 84.0, y + 84.0)
        key = sample_id("noise", name, 0, question)
        annotations.append(RegionAnnotation(key, "noise", name, 0, question, SIDE, SIDE, [box], box, "human"))
    (folder / "data.json").write_text(json.dumps(records))
    write_regions(folder / "regions" / "noise", annotations, {})


def demo_words() -> list[str]:
    """Those of the demo's tokenizer, each of them a token."""
    vocabulary = AutoTokenizer.from_pretrained(DEMO_BASE).get_vocab()
    return sorted(word for word in vocabulary if word.isalnum())


def write_noise(folder: Path, count: int) -> None:
    """Images 0.png, 1.png, ... of 336 x 336 pixels."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        noise = np.random.default_rng(number).integers(0, 255, (SIDE, SIDE, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / f"{number}.png")


def words_of(out: Path, name: str) -> list[str]:
    """The configuration and keys of a run."""
    data = out / "data"
    source = {
        "annotations": str(data / "data.json"),
        "image_root": str(data / "images"),
        "regions": str(data / "regions" / "noise"),
    }
    return [
        *("configs/plc/llava-1.5-7b.yaml", f"model={out / 'model'}", f"train_data={json.dumps([source])}"),
        *RUNS[name],
    ]


def train(run: Path, module: str, words: list[str], steps: int) -> tuple[int, float]:
    """One run into that folder: the launcher's exit status, and seconds from its start to its end."""
    run.mkdir(exist_ok=True)
    settings = [f"output_dir={run}", f"max_steps={steps}", "dataloader_num_workers=4"]
    settings += ["logging_steps=1", "save_strategy=no", "report_to=none"]
    started = command(1, free_port(), "--module", module, *words, *settings)
    start = time.monotonic()
    with (run / "output.txt").open("w") as output:
        done = subprocess.run(started, cwd=ROOT, env=environment(), stdout=output, stderr=output, check=False)
    return done.returncode, time.monotonic() - start


def line(name: str, run: Path, status: int, seconds: float) -> str:
    """Medians over the steps behind the warm-up."""
    if status:
        last = [text for text in (run / "output.txt").read_text().splitlines() if "rror" in text][-1:]
        return f"| {name} | failed, status {status}: {' '.join(last)} | | | | | {seconds:.0f} |"
    logged = [json.loads(text) for text in (run / LOG_FILE).read_text().splitlines()]
    steps: list[dict[str, Any]] = [entry for entry in logged if "step_s" in entry and entry["step"] > WARM_UP]
    times = [step["step_s"] for step in steps]
    median = {
        key: statistics.median(step[key] or 0 for step in steps) for key in ("samples_per_s", "tokens_per_s", "mfu")
    }
    return (
        f"| {name} | {statistics.median(times):.3f} ({min(times):.3f} to {max(times):.3f}) "
        f"| {median['samples_per_s']:.1f} | {median['tokens_per_s']:.0f} | {_percent(median['mfu'])} "
        f"| {max(step['peak_memory_bytes'] for step in steps) / 1e9:.1f} | {seconds:.0f} |"
    )


def _percent(share: float) -> str:
    return f"{share:.0%}" if share else ""  # of what has no formula


if __name__ == "__main__":
    main()
