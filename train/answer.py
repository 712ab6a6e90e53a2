"""Ask an exported model a question and draw what it looked at.

    python -m train.answer EXPORT PICTURE image=FILE question="..." [region=[x1,y1,x2,y2]]
    python -m train.answer EXPORT PICTURE image=FILE question="..." localizer=LOCALIZER     which finds the region
    python -m train.answer EXPORT PICTURE CONFIG.yaml                   questions of `eval_data`, of every kind

The model is loaded as a stranger loads it: Auto classes, the folder alone. PICTURE shows the image, its region, how
finely the visual tokens keep each place, the question and the answer. Printed are the answer, its region, and the
time from the image's file to the region, to the first token (the region's finding included) and to the last.
"""

import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, field
from pathlib import Path
from typing import Any

import datasets
import torch
from PIL import Image
from torch import Tensor
from transformers import AutoModelForImageTextToText, AutoProcessor

from crop_model.localizer import LocatedRegion
from crop_model.pipeline import RegionLocalizer, Timings, generate_timed
from crop_model.regions import Box
from data_prep.config import ConfigError, parse_config, user_errors

from .arguments import DataArguments
from .collator import Collator
from .data import load_samples
from .localization import load_localizer
from .pictures import contact_sheet, draw_sample

PROG = "python -m train.answer"


@dataclass
class AnswerArguments:
    """What to ask, and where the picture goes."""

    export: str = field(metadata={"help": "Folder or Hub name of an export. Its own code is run."})
    picture: str = field(metadata={"help": "File to draw to."})
    image: str | None = field(default=None, metadata={"help": "Image to ask about, instead of eval_data."})
    question: str | None = field(default=None, metadata={"help": "What to ask about it."})
    region: list[float] | None = field(
        default=None, metadata={"help": "Where to look, pixels x1 y1 x2 y2; null: the whole image."}
    )
    localizer: str | None = field(
        default=None,
        metadata={"help": "Checkpoint, export or detector (GroundingDINO, OWLv2) that finds every question's region."},
    )
    count: int = field(default=6, metadata={"help": "How many questions of eval_data."})
    max_new_tokens: int = field(default=32, metadata={"help": "Longest answer, in tokens."})

    def __post_init__(self) -> None:
        if (self.image is None) != (self.question is None):
            raise ConfigError("image and question go together")
        if self.image is not None and not Path(self.image).is_file():
            raise ConfigError(f"image: no such file: {self.image}")
        if self.region is not None and len(self.region) != 4:
            raise ConfigError(f"region: expected x1, y1, x2, y2, got {self.region}")
        if self.region is not None and self.localizer is not None:
            raise ConfigError("region and localizer: one of them tells where to look")
        if self.count < 1 or self.max_new_tokens < 1:
            raise ConfigError("count and max_new_tokens: must be at least 1")


@dataclass(frozen=True)
class Answered:
    """What is said to one question, the region it was asked with, and how the localizer found that, if one did."""

    said: str
    region: Box | None
    found: LocatedRegion | None
    timings: Timings
    picture: Image.Image

    def describe(self) -> str:
        """A line on region and time."""
        place = "the whole image" if self.region is None else ", ".join(f"{value:.0f}" for value in self.region)
        how = "" if self.found is None else f", cells {list(self.found.cells)}, confidence {self.found.confidence:.2f}"
        localization_s, first_token_s, total_s = astuple(self.timings)
        times = (
            f"{localization_s:.2f} s to the region, {first_token_s:.2f} s to the first token, {total_s:.2f} s in all"
        )
        return f"region {place}{how}; {times}"


def answer_and_draw(
    model: Any, collator: Collator, localizer: RegionLocalizer | None, row: Mapping[str, Any], max_new_tokens: int
) -> Answered:
    """The model's answer to one question about an image, and the picture of it."""
    start = time.perf_counter()
    found = None
    if localizer is not None:
        image = collator.open_images(row)[0]
        (found,) = localizer.predict([image], [row["question"]])
        row = {**row, "region": found.region, "width": image.width, "height": image.height}
    localization_s = 0.0 if found is None else time.perf_counter() - start
    batch = {
        name: tensor.to(model.device, model.dtype if tensor.is_floating_point() else None)
        for name, tensor in collator.prompts([row]).items()
    }
    slots: list[Tensor] = []

    def keep_slots(compressor: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        features, region_mask = inputs
        slots.append(compressor.assign(region_mask, features)[0])  # (N,) of the first image

    compressor = next(module for name, module in model.named_modules() if name.endswith(".compressor"))
    processor = collator.processor
    with compressor.register_forward_hook(keep_slots):
        tokens, first_at = generate_timed(model, batch, processor.tokenizer.pad_token_id, max_new_tokens)
    timings = Timings(localization_s, first_at - start, time.perf_counter() - start)
    said = processor.decode(tokens[0], skip_special_tokens=True).strip()
    region = collator.region(row)
    picture = draw_sample(
        collator.open_images(row)[0],
        region,
        slots[0],
        processor.geometry,
        processor.patch_grid,
        row["question"],
        said,
        row["answer"],
    )
    return Answered(said, region, found, timings, picture)


def pick_samples(samples: datasets.Dataset, count: int) -> list[dict[str, Any]]:
    """At most `count` questions about different images: first one of every kind, then whatever comes."""
    kinds: set[str | None] = set()
    images: set[str] = set()
    picked: list[int] = []
    for any_kind in (False, True):
        for index, (kind, paths) in enumerate(zip(samples["kind"], samples["images"], strict=True)):
            if paths and paths[0] not in images and (any_kind or kind not in kinds):
                kinds.add(kind)
                images.add(paths[0])
                picked.append(index)
    return [samples[index] for index in picked[:count]]


def own_question(arguments: AnswerArguments) -> dict[str, Any]:
    """A row, as `load_samples` makes them, for the question of the command line."""
    content = [{"type": "image"}, {"type": "text", "text": arguments.question}]
    messages = [{"role": "user", "content": content}, {"role": "assistant", "content": [{"type": "text", "text": ""}]}]
    try:
        with Image.open(str(arguments.image)) as image:
            width, height = image.size
    except OSError as error:
        raise ConfigError(f"image: {error}") from None
    return {
        "record": arguments.image,
        "sample_id": "",
        "question": arguments.question,
        "answer": None,
        "messages": json.dumps(messages),
        "images": [arguments.image],
        "region": arguments.region,
        "width": width,
        "height": height,
    }


def load_export(name: str) -> tuple[Any, Any]:
    """Model and processor by Auto classes. ConfigError where the folder is no export."""
    try:
        model = AutoModelForImageTextToText.from_pretrained(name, trust_remote_code=True, dtype="auto")
        return model.eval(), AutoProcessor.from_pretrained(name, trust_remote_code=True)
    except (OSError, ValueError) as error:
        raise ConfigError(f"export {name}: {' '.join(str(error).split())}") from error


def answer(arguments: AnswerArguments, data: DataArguments) -> None:
    """Print questions and answers, and draw the picture."""
    if arguments.image is None and not data.eval_data:
        raise ConfigError("neither image and question nor eval_data: nothing to ask")
    rows = [] if arguments.image is None else [own_question(arguments)]
    model, processor = load_export(arguments.export)
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    localizer = None
    if arguments.localizer is not None:
        localizer = load_localizer(arguments.localizer, model.dtype, model.device)
    if not rows:
        rows = pick_samples(load_samples(data.eval_data, processor, data.max_length), arguments.count)
    collator = Collator(processor, data.max_image_pixels)
    pictures = []
    for row in rows:
        answered = answer_and_draw(model, collator, localizer, row, arguments.max_new_tokens)
        expected = "" if row["answer"] is None else f"   (expected: {row['answer']})"
        print(f"Q: {row['question']}\nA: {answered.said}{expected}\n   {answered.describe()}")
        pictures.append(answered.picture)
    path = Path(arguments.picture)
    path.parent.mkdir(parents=True, exist_ok=True)
    contact_sheet(pictures, columns=min(2, len(pictures))).save(path)


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point: exit status 2 for a wrong call, configuration or data."""
    with user_errors(PROG):
        arguments, data = parse_config(
            (AnswerArguments, DataArguments),
            sys.argv[1:] if argv is None else argv,
            prog=PROG,
            description="Ask an exported model a question and draw what it looked at.",
            positionals=("export", "picture"),
        )
        answer(arguments, data)


if __name__ == "__main__":
    main()
