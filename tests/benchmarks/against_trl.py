"""Samples a second of this trainer and of TRL's SFTTrainer, on the same model, questions and processor.

    pip install -e '.[bench]'
    python tests/benchmarks/against_trl.py                                 # three minutes of one core

Model: `demo_llava.py`, 256 visual tokens an image. Data: the demo's questions, one a sample. TRL trains on all tokens
as its guide for vision-language models says: `SFTTrainer` with messages and images, its collator, `max_length=None`,
loss on the assistant's turns; its packing does not take images. Both train LoRA of rank 16 on the language model's
linear layers, in fp32, 16 samples a step (packed: rows that hold as many), without activation checkpointing, which TRL
has on by default and which would cost it one forward pass more. With PLC this trainer also trains projector and
compressor.
Trainers take turns, round after round; the first step of each is not counted. Prints a Markdown table.
"""

import argparse
import json
import os
import statistics
import tempfile
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"

import datasets
import torch
import trl
from demo_llava import Clock, build, write_model
from peft import LoraConfig
from transformers import LlavaForConditionalGeneration, LlavaProcessor

from data_prep.demo import DemoArguments, write_split
from train.backbones.base import LANGUAGE_MODEL_LINEARS

BATCH, IMAGES = 16, 40
TRL = "TRL, all 256 tokens, padded"
OURS = {
    "PLC off, packed": (
        "compressor_type=none",
        "projector_learning_rate=0",
        "pack_length=576",
        "max_length=288",
        "per_device_train_batch_size=8",
    ),
    "PLC at 28 tokens, packed": (
        "token_budget=28",
        "pack_length=320",
        "max_length=320",
        "per_device_train_batch_size=2",
    ),
}


def trl_data(folder: Path) -> datasets.Dataset:
    """The demo's questions as TRL takes them."""
    rows = []
    for record in json.loads((folder / "train.json").read_text()):
        for asked, answered in zip(record["conversations"][::2], record["conversations"][1::2], strict=True):
            question = {"type": "text", "text": asked["value"].removeprefix("<image>\n")}
            messages = [
                {"role": "user", "content": [{"type": "image", "text": None}, question]},
                {"role": "assistant", "content": [{"type": "text", "text": answered["value"]}]},
            ]
            rows.append({"images": [str(folder / "images" / record["image"])], "messages": messages})
    return datasets.Dataset.from_list(rows).cast_column("images", datasets.List(datasets.Image()))


def trl_trainer(model: Path, data: datasets.Dataset, run: Path, steps: int, seed: int) -> Any:
    config = trl.SFTConfig(
        output_dir=str(run),
        max_steps=steps,
        per_device_train_batch_size=BATCH,
        max_length=None,
        assistant_only_loss=True,
        gradient_checkpointing=False,
        bf16=False,
        use_cpu=True,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        logging_steps=1,
        seed=seed,
    )
    return trl.SFTTrainer(
        model=LlavaForConditionalGeneration.from_pretrained(model),
        args=config,
        train_dataset=data,
        processing_class=LlavaProcessor.from_pretrained(model),
        peft_config=LoraConfig(r=16, lora_alpha=32, target_modules=LANGUAGE_MODEL_LINEARS),
    )


def samples_of(trainer: Any) -> float:
    """That the steps after the first trained on."""
    if isinstance(trainer, trl.SFTTrainer):
        return BATCH * (trainer.args.max_steps - 1)
    log = (Path(trainer.args.output_dir) / "train_log.jsonl").read_text().splitlines()
    return sum(line["samples_per_s"] * line["step_s"] for line in map(json.loads, log[1:]) if "lr" in line)


def samples_per_second(trainer: Any) -> tuple[float, float]:
    """Train; by wall and by processor time."""
    clock = Clock()
    trainer.add_callback(clock)
    trainer.train()
    wall, processor = clock.seconds()
    return samples_of(trainer) / wall, samples_of(trainer) / processor


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rates: dict[str, list[tuple[float, float]]] = {name: [] for name in (TRL, *OURS)}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model, data = folder / "model", folder / "data"
        write_model(model)
        write_split(data, "train", DemoArguments(train_images=IMAGES))
        files = {
            "annotations": data / "train.json",
            "image_root": data / "images",
            "regions": data / "regions" / "train",
        }
        source = json.dumps([{key: str(path) for key, path in files.items()}])
        questions = trl_data(data)
        for number in range(arguments.rounds):
            run = folder / f"trl-{number}"
            rates[TRL].append(samples_per_second(trl_trainer(model, questions, run, arguments.steps, number)))
            for way, words in OURS.items():
                run = folder / f"{way}-{number}"
                trainer = build(model, source, run, arguments.steps, *words, f"seed={number}")
                rates[way].append(samples_per_second(trainer))
    print(f"trl {trl.__version__}, torch {torch.__version__}, one thread, float32, ", end="")
    print(f"{arguments.rounds} rounds of {arguments.steps - 1} steps\n")
    print("| | samples a processor s | to TRL | samples a wall s | to TRL |\n|---|---|---|---|---|")
    for way, values in rates.items():
        cells = []
        for kind in (1, 0):
            each = [value[kind] for value in values]
            ratios = [value[kind] / other[kind] for value, other in zip(values, rates[TRL], strict=True)]
            cells.append(f"{statistics.median(each):.2f} ({min(each):.2f} to {max(each):.2f})")
            cells.append(f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")
        print(f"| {way} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
