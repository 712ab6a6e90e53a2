"""A localizer of Qwen2-VL-2B's size on one GPU: its training, and how long it takes to find regions.

    python tests/benchmarks/gpu_localizer.py OUT                about two minutes, 25 GB of a GPU, 5 GB of disk

The weights are random and written to OUT/model; a box takes as many steps as with trained ones, since the answer's
length is fixed. Training is `deepspeed --num_gpus 1 --module train.localizer configs/localizer/qwen2-vl-2b.yaml`, by
its own log. Localization is `Localizer.predict` in bf16 on opened images of 336 x 336 (144 visual tokens): resizing,
tower, prefill and the box. Prints two Markdown tables.
"""

import json
import random
import statistics
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import torch
from demo_llava import DEMO_BASE
from gpu_training import HEADER, SIDE, demo_words, line, train, write_noise
from launcher import ROOT
from localization_cost import qwen2_vl_2b_config
from PIL import Image
from transformers import AutoTokenizer, Qwen2VLForConditionalGeneration, Qwen2VLImageProcessorPil

from crop_model.localization.generated import Localizer
from crop_model.localization.grid_box import ANSWER
from data_prep.common.command_line import parse_config
from data_prep.common.errors import user_errors

PROG = "python tests/benchmarks/gpu_localizer.py"
TOKENS = ("<|im_start|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
IMAGES, QUESTIONS, WORDS = 32, 512, 12


@dataclass(frozen=True)
class Arguments:
    """Keys of the command line."""

    out: str = field(metadata={"help": "Folder for model, data and run; what is there is used again."})
    steps: int = field(default=10, metadata={"help": "Steps of the training; 0: none of it."})
    batches: list[int] = field(
        default_factory=lambda: [1, 8, 32], metadata={"help": f"Questions at a time, at most {QUESTIONS}."}
    )
    rounds: int = field(default=9, metadata={"help": "Rounds of localization."})
    device: str = field(default="cuda", metadata={"help": "Of localization."})


def main() -> None:
    """Entry point."""
    with user_errors(PROG):
        (arguments,) = parse_config((Arguments,), sys.argv[1:], prog=PROG, description="", positionals=("out",))
    out = Path(arguments.out).absolute()
    write_model(out / "model")
    questions = write_data(out / "data")
    source = {"annotations": str(out / "data" / "data.json"), "image_root": str(out / "data" / "images")}
    words = ["configs/localizer/qwen2-vl-2b.yaml", f"model={out / 'model'}", f"train_data={json.dumps([source])}"]
    if arguments.steps:
        ended = train(out / "run", "train.localizer", words, arguments.steps)
        print(f"{HEADER}\n{line('localizer', out / 'run', *ended)}", flush=True)
    localizer = Localizer.from_pretrained(
        str(out / "model"), dtype=torch.bfloat16, device=arguments.device, max_pixels=SIDE**2
    )
    print("\n| questions at a time | ms a call | ms a question |\n|---:|---:|---:|")
    opened = [Image.open(out / "data" / "images" / f"{number}.png").convert("RGB") for number in range(IMAGES)]
    images = [opened[number % IMAGES] for number in range(QUESTIONS)]
    for batch in arguments.batches:
        times = localize(localizer, images[:batch], questions[:batch], arguments.rounds)
        ms = [1e3 * value for value in (statistics.median(times), min(times), max(times))]
        print(f"| {batch} | {ms[0]:.0f} ({ms[1]:.0f} to {ms[2]:.0f}) | {ms[0] / batch:.1f} |", flush=True)


def write_model(folder: Path) -> None:
    """Qwen2-VL-2B's sizes in bf16 with the demo's 124 words, written as the Hub's folder is."""
    if folder.is_dir():
        return
    tokenizer = AutoTokenizer.from_pretrained(DEMO_BASE)
    tokenizer.add_special_tokens({"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"})
    tokenizer.add_special_tokens({"additional_special_tokens": list(TOKENS)})
    tokenizer.chat_template = (ROOT / "configs/localizer/qwen2_vl.jinja").read_text()
    staged = folder.with_name("model.part")  # what is whole alone is used again
    tokenizer.save_pretrained(staged)
    Qwen2VLImageProcessorPil().save_pretrained(staged)
    settings = json.loads((staged / "preprocessor_config.json").read_text())
    del settings["size"]
    pixels = {"min_pixels": 56 * 56, "max_pixels": 28 * 28 * 1280}
    (staged / "preprocessor_config.json").write_text(json.dumps(settings | pixels))
    config = qwen2_vl_2b_config()
    ids = {token: tokenizer.convert_tokens_to_ids(token) for token in TOKENS}
    config.image_token_id, config.video_token_id = ids["<|image_pad|>"], ids["<|video_pad|>"]
    config.vision_start_token_id, config.vision_end_token_id = ids["<|vision_start|>"], ids["<|vision_end|>"]
    config.text_config.eos_token_id = tokenizer.eos_token_id
    config.text_config.pad_token_id = config.text_config.bos_token_id = tokenizer.pad_token_id
    torch.manual_seed(0)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        model = Qwen2VLForConditionalGeneration._from_config(config, dtype=torch.bfloat16)
    model.save_pretrained(staged)
    staged.rename(folder)


def write_data(folder: Path) -> list[str]:
    """Questions of 12 words and the cells of a box; images of noise."""
    draw, words = random.Random(0), demo_words()
    write_noise(folder / "images", IMAGES)
    questions, records = [], []
    for number in range(QUESTIONS):
        questions.append(" ".join(draw.choices(words, k=WORDS)))
        x, y = draw.randrange(6), draw.randrange(6)
        turns = [
            {"from": "human", "value": f"<image>\n{questions[-1]}"},
            {"from": "gpt", "value": ANSWER.format(x, y, x + 2, y + 2)},
        ]
        records.append({"id": number, "image": f"{number % IMAGES}.png", "conversations": turns})
    (folder / "data.json").write_text(json.dumps(records))
    return questions


def localize(localizer: Localizer, images: list[Image.Image], questions: list[str], rounds: int) -> list[float]:
    """Seconds of every call, behind one that warms up; its regions are on the host, so the device is done."""
    times = []
    for _ in range(1 + rounds):
        start = time.perf_counter()
        localizer.predict(images, questions, batch_size=len(images))
        times.append(time.perf_counter() - start)
    return times[1:]


if __name__ == "__main__":
    main()
