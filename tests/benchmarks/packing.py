"""Packed against padded rows: padding and tokens a second, in one process.

    python tests/benchmarks/packing.py                                     # three minutes of one core

Data: the demo's images with 1, 4 or 16 questions each, a third of them each, whole conversations (`split_turns: false`)
- as an instruction mix has captions, short and long conversations. Model: `demo_llava.py`, PLC at 28 of 256 visual
tokens. Per step 16 padded samples, or 6 packed rows of 320 tokens, which hold about as many. The three ways train in
turn, round after round; the first step of each is not counted. Prints a Markdown table.
"""

import argparse
import json
import os
import statistics
import tempfile
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

import torch
from demo_llava import Clock, build, write_model

from data_prep.demo import DemoArguments, write_split
from train.data.packing import PackedRows
from train.engine.trainer import PlcTrainer

QUESTIONS, IMAGES = (1, 4, 16), 120
WAYS = {
    "padded, shuffled": ("per_device_train_batch_size=16", "train_sampling_strategy=random"),
    "padded, grouped by length": ("per_device_train_batch_size=16", "train_sampling_strategy=group_by_length"),
    "packed": ("per_device_train_batch_size=6", "pack_length=320"),
}
PLC = ("compressor_type=region_ratio", "token_budget=28", "max_length=320")


def write_mixture(folder: Path) -> str:
    """`train_data` of the mixture."""
    sources = []
    for count in QUESTIONS:
        out = folder / str(count)
        write_split(out, "train", DemoArguments(train_images=IMAGES, questions_per_image=count, seed=count))
        files = {"annotations": out / "train.json", "image_root": out / "images", "regions": out / "regions" / "train"}
        sources.append({key: str(path) for key, path in files.items()})
    return json.dumps(sources)


def padding(trainer: PlcTrainer) -> float:
    """Of a whole epoch."""
    data, size = trainer.train_dataset, trainer.args.train_batch_size
    if isinstance(data, PackedRows):
        lengths = [sum(data.samples["length"][index] for index in row) for row in data.rows]
    else:
        lengths = data["length"][:]
    sampler = trainer._get_train_sampler(data)
    assert sampler is not None
    order = list(sampler)
    batches = [[lengths[index] for index in order[start : start + size]] for start in range(0, len(order), size)]
    return 1 - sum(lengths) / sum(len(batch) * max(batch) for batch in batches)


def tokens_per_second(trainer: PlcTrainer) -> tuple[float, float]:
    """Train; by wall and by processor time."""
    clock = Clock()
    trainer.add_callback(clock)
    trainer.train()
    log = (Path(trainer.args.output_dir) / "train_log.jsonl").read_text().splitlines()
    lines = [line for line in map(json.loads, log) if "lr" in line][1:]
    tokens = sum(line["tokens_per_s"] * line["step_s"] for line in lines)
    wall, processor = clock.seconds()
    return tokens / wall, tokens / processor


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=4)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    figures: dict[str, list[tuple[float, float]]] = {way: [] for way in WAYS}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_model(folder / "model")
        data = write_mixture(folder)
        runs = {}
        for number in range(arguments.rounds):
            for way, words in WAYS.items():
                run = folder / f"{way}-{number}"
                more = (*PLC, *words, "split_turns=false", f"seed={number}")
                runs[way] = build(folder / "model", data, run, arguments.steps, *more)
                figures[way].append(tokens_per_second(runs[way]))
        wasted = {way: padding(trainer) for way, trainer in runs.items()}
        single = {}
        for way, words in WAYS.items():
            single[way] = padding(build(folder / "model", data, folder / "single", 1, *PLC, *words))
        lengths = runs["padded, shuffled"].train_dataset["length"][:]
    print(f"torch {torch.__version__}, one thread, float32, {arguments.rounds} rounds of {arguments.steps - 1} steps")
    quartiles = statistics.quantiles(lengths, n=4)
    print(f"{len(lengths)} samples of {min(lengths)} to {max(lengths)} tokens, quartiles {quartiles}\n")
    print("| | padding | padding, one question a sample ", end="")
    print("| tokens a processor s | to shuffled | tokens a wall s | to shuffled |")
    print("|---|---|---|---|---|---|---|")
    base = figures["padded, shuffled"]
    for way, values in figures.items():
        cells = [f"{wasted[way]:.1%}", f"{single[way]:.1%}"]
        for kind in (1, 0):
            rates = [value[kind] for value in values]
            ratios = [value[kind] / other[kind] for value, other in zip(values, base, strict=True)]
            cells += [f"{statistics.median(rates):.0f} ({min(rates):.0f} to {max(rates):.0f})"]
            cells += [f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"]
        print(f"| {way} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
