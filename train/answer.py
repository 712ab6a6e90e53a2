"""Ask an exported model a question and draw what it looked at.

    python -m train.answer EXPORT PICTURE image=FILE question="..." [region=[x1,y1,x2,y2]]
    python -m train.answer EXPORT PICTURE CONFIG.yaml                   questions of `eval_data`, of every kind

The model is loaded as a stranger loads it: Auto classes, the folder alone. PICTURE shows the image, its region, how
finely the visual tokens keep each place, the question and the answer.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import datasets
import torch
from PIL import Image
from torch import Tensor
from transformers import AutoModelForImageTextToText, AutoProcessor

from data_prep.config import ConfigError, parse_config, user_errors

from .arguments import DataArguments
from .collator import Collator
from .data import load_samples
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
    count: int = field(default=6, metadata={"help": "How many questions of eval_data."})
    max_new_tokens: int = field(default=32, metadata={"help": "Longest answer, in tokens."})

    def __post_init__(self) -> None:
        if (self.image is None) != (self.question is None):
            raise ConfigError("image and question go together")
        if self.image is not None and not Path(self.image).is_file():
            raise ConfigError(f"image: no such file: {self.image}")
        if self.region is not None and len(self.region) != 4:
            raise ConfigError(f"region: expected x1, y1, x2, y2, got {self.region}")
        if self.count < 1 or self.max_new_tokens < 1:
            raise ConfigError("count and max_new_tokens: must be at least 1")


def answer_and_draw(
    model: Any, collator: Collator, row: Mapping[str, Any], max_new_tokens: int
) -> tuple[str, Image.Image]:
    """The model's answer to one question about an image, and the picture of it."""
    batch = {
        name: tensor.to(model.device, model.dtype if tensor.is_floating_point() else None)
        for name, tensor in collator.prompts([row]).items()
    }
    slots: list[Tensor] = []

    def keep_slots(compressor: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        features, region_mask = inputs
        slots.append(compressor.assign(region_mask, features)[0])  # (N,) of the first image

    compressor = next(module for name, module in model.named_modules() if name.endswith(".compressor"))
    with torch.inference_mode(), compressor.register_forward_hook(keep_slots):
        tokens = model.generate(**batch, max_new_tokens=max_new_tokens, do_sample=False)  # (1, L)
    processor = collator.processor
    said = processor.decode(tokens[0, batch["input_ids"].shape[1] :], skip_special_tokens=True).strip()
    picture = draw_sample(
        collator.open_images(row)[0],
        collator.region(row),
        slots[0],
        processor.geometry,
        processor.patch_grid,
        row["question"],
        said,
        row["answer"],
    )
    return said, picture


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
    if not rows:
        rows = pick_samples(load_samples(data.eval_data, processor, data.max_length), arguments.count)
    collator = Collator(processor, data.max_image_pixels)
    pictures = []
    for row in rows:
        said, picture = answer_and_draw(model, collator, row, arguments.max_new_tokens)
        expected = "" if row["answer"] is None else f"   (expected: {row['answer']})"
        print(f"Q: {row['question']}\nA: {said}{expected}")
        pictures.append(picture)
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
