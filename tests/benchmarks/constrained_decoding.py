"""What it takes to write a box: token by token and free, against `Localizer`, which can write nothing else.

    python tests/benchmarks/constrained_decoding.py                        # a minute or two of one core

Free is one call of `generate` for as many tokens as "[1, 0, 4, 2]" has, without a constraint. `Localizer` lets nothing
but indices come, keeps the scores that its confidence is read from, and feeds what is known between two indices
together with the index before it. Both are timed in turn, round after round, and compared within a round, as a whole
and after what one token takes; it is the processor time of one thread that counts, which other work on the machine
hardly changes. Models: the demo's base, a LLaVA with an LLM of width 512, and that one with Qwen2's 151,936 words, for
the constraint looks at every word. Prints a Markdown table.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"

import torch
from demo_llava import DEMO_BASE, write_model
from PIL import Image

from crop_model.localization.generated import Localizer
from crop_model.localization.grid_box import GridBoxProcessor
from crop_model.modeling_crop_llava import CropLlavaForConditionalGeneration
from crop_model.processing_crop_llava import CropLlavaProcessor

BATCHES, QWEN2_WORDS = (1, 8), 151_936
Run = Callable[[], Any]


def localizer(folder: Path, words: int | None = None) -> Localizer:
    """The model of a folder on all of its visual tokens, with a larger vocabulary if asked for."""
    options: dict[str, Any] = {"compressor_type": "none", "token_budget": 256}
    model = CropLlavaForConditionalGeneration.from_pretrained(folder, **options).eval()
    if words is not None:
        model.resize_token_embeddings(words)
    model.generation_config.eos_token_id = None
    return Localizer(model, CropLlavaProcessor.from_pretrained(folder, token_budget=256))


def ways(one: Localizer, batch: int) -> tuple[Run, Run, Run]:
    """For that many questions: one token, a free answer, and a box."""
    noise = torch.randint(0, 256, (batch, 128, 128, 3), generator=torch.Generator().manual_seed(0))
    images = [Image.fromarray(picture.to(torch.uint8).numpy()) for picture in noise]
    inputs = one._prompts(images, [f"Which digit is at B{number + 1}?" for number in range(batch)])
    box = GridBoxProcessor(one.processor.tokenizer, inputs["input_ids"].shape[1])
    free = partial(one.model.generate, **inputs, do_sample=False, pad_token_id=one.processor.tokenizer.pad_token_id)
    return (
        partial(free, max_new_tokens=1),
        partial(free, max_new_tokens=len(box.fixed)),
        partial(one._write, inputs, box),
    )


def measure(runs: tuple[Run, Run, Run], rounds: int) -> list[list[float]]:
    """Processor seconds of all in every round, after a warm-up."""
    for run in runs:
        run()
    seconds: list[list[float]] = [[], [], []]
    for number in range(rounds):
        for place in (0, 1, 2) if number % 2 else (2, 1, 0):
            start = time.process_time()
            runs[place]()
            seconds[place].append(time.process_time() - start)
    return seconds


def line(name: str, batch: int, seconds: list[list[float]]) -> str:
    """Medians, and ratios with the least and the most."""
    cells = [f"{1000 * statistics.median(used):.0f}" for used in seconds]
    whole = [slow / fast for _, fast, slow in zip(*seconds, strict=True)]
    decoding = [(slow - first) / (fast - first) for first, fast, slow in zip(*seconds, strict=True)]
    cells += [
        f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})" for ratios in (whole, decoding)
    ]
    return f"| {name} | {batch} | {' | '.join(cells)} |"


def models() -> Iterator[tuple[str, Localizer]]:
    yield "the demo's base, 124 words", localizer(DEMO_BASE)
    with tempfile.TemporaryDirectory() as folder:
        write_model(Path(folder))
        yield "width 512, 124 words", localizer(Path(folder))
        yield f"width 512, {QWEN2_WORDS:,} words", localizer(Path(folder), QWEN2_WORDS)


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    print(f"torch {torch.__version__}, one thread, float32, medians of {rounds} rounds (least to most)\n")
    print("| model | batch | one token, ms | free, ms | a box, ms | a box / free | after the first token |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    for name, one in models():
        for batch in BATCHES:
            print(line(name, batch, measure(ways(one, batch), rounds)), flush=True)


if __name__ == "__main__":
    main()
