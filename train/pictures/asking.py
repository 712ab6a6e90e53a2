"""Ask a model one question about an image and draw what it looked at."""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import datasets
import torch
from PIL import Image
from torch import Tensor
from transformers import AutoModelForImageTextToText, AutoProcessor, PreTrainedConfig

from crop_model.generation.timing import Timings, generate_timed
from crop_model.localization.base import LocatedRegion, RegionLocalizer
from crop_model.regions import Box, RegionError, sanitize_box
from data_prep.common.errors import ConfigError, RecordError, one_line
from data_prep.files.images import read_header
from data_prep.schema.records import Turn
from train.backbones import BACKBONES
from train.data.collator import Collator
from train.data.rows import chat_messages

from .card import draw_sample


@dataclass(frozen=True)
class Answered:
    """Hold the answer to one question, its region, and the localizer's prediction, if there was one."""

    answer: str
    region: Box | None
    located: LocatedRegion | None
    timings: Timings
    picture: Image.Image

    def describe(self) -> str:
        """Format one line on region and time."""
        region = "the whole image" if self.region is None else ", ".join(f"{value:.0f}" for value in self.region)
        if self.located is not None:
            region += f", cells {list(self.located.cells)}, confidence {self.located.confidence:.2f}"
        localized, first, total = astuple(self.timings)
        return (
            f"region {region}; {localized:.2f} s to the region, {first:.2f} s to the first token, {total:.2f} s in all"
        )


@torch.inference_mode()
def answer_and_draw(
    model: Any, collator: Collator, localizer: RegionLocalizer | None, row: Mapping[str, Any], max_new_tokens: int
) -> Answered:
    """Return the model's answer to one question about an image, with a picture of it.

    Args:
        localizer: finds the region, in place of the row's own; None: the row's.
        row: as of `load_samples`.
    """
    start, located, localization_s = time.perf_counter(), None, 0.0
    if localizer is not None:
        image = collator.open_images(row)[0]
        (located,) = localizer.predict([image], [row["question"]])
        row = {**row, "region": located.region, "width": image.width, "height": image.height}
        localization_s = time.perf_counter() - start
    answer, token_of_patch, first_at = answer_row(model, collator, row, max_new_tokens)
    timings = Timings(localization_s, first_at - start, time.perf_counter() - start)
    return Answered(answer, collator.region(row), located, timings, draw_answer(collator, row, answer, token_of_patch))


def answer_row(
    model: Any, collator: Collator, row: Mapping[str, Any], max_new_tokens: int
) -> tuple[str, Tensor, float]:
    """Answer one question greedily, and read from the compressor how it divides the first image.

    Returns:
        The answer; the token that every patch goes into, int64 (N,) on the CPU, -1 for a dropped patch; and
        `time.perf_counter()` at the answer's first token.
    """
    batch = {
        name: tensor.to(model.device, model.dtype if tensor.is_floating_point() else None)
        for name, tensor in collator.prompts([row]).items()
    }
    assigned: list[Tensor] = []

    def read_assignment(compressor: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        features, region_mask = inputs
        assigned.append(compressor.assign(region_mask, features)[0].cpu())

    compressor = next(module for name, module in model.named_modules() if name.endswith(".compressor"))
    with compressor.register_forward_hook(read_assignment):
        tokens, first_at = generate_timed(model, batch, collator.processor.tokenizer.pad_token_id, max_new_tokens)
    return collator.processor.decode(tokens[0], skip_special_tokens=True).strip(), assigned[0], first_at


def draw_answer(collator: Collator, row: Mapping[str, Any], answer: str, token_of_patch: Tensor) -> Image.Image:
    """Draw a question's image, its region, how finely the tokens keep each patch, and the answer."""
    image, region, processor = collator.open_images(row)[0], collator.region(row), collator.processor
    geometry, patch_grid = processor.geometry, processor.patch_grid
    return draw_sample(image, region, token_of_patch, geometry, patch_grid, row["question"], answer, row["answer"])


def pick_samples(samples: datasets.Dataset, count: int) -> list[dict[str, Any]]:
    """Return at most `count` questions about different images: first one of every kind, then in order."""
    kinds, images, picked = set[str | None](), set[str](), list[int]()
    for any_kind in (False, True):
        for index, (kind, paths) in enumerate(zip(samples["kind"], samples["images"], strict=True)):
            if paths and paths[0] not in images and (any_kind or kind not in kinds):
                kinds.add(kind)
                images.add(paths[0])
                picked.append(index)
    return [samples[index] for index in picked[:count]]


def own_question(path: str, question: str, region: Sequence[float] | None) -> dict[str, Any]:
    """Make a row like those of `load_samples` for one image, question and region in pixels.

    Raises:
        ConfigError: the image does not open, or the region lies outside it.
    """
    messages = chat_messages(None, [Turn(question, "", None)], images=1)
    try:
        header = read_header(Path(path))
        box = None if region is None else list(sanitize_box(region, header.width, header.height))
    except RecordError as error:
        raise ConfigError(f"image: {error}") from None
    except RegionError as error:
        raise ConfigError(f"region: {error}") from None
    return {
        "record": path,
        "sample_id": "",
        "question": question,
        "answer": None,
        "messages": json.dumps(messages),
        "images": [path],
        "region": box,
        "width": header.width,
        "height": header.height,
    }


def load_export(name: str) -> tuple[Any, Any]:
    """Load model and processor by Auto classes. ConfigError if it is no export of a family that reads regions."""
    try:
        is_adapter = (Path(name) / "adapter_config.json").is_file()
        config = {} if is_adapter else PreTrainedConfig.get_config_dict(name)[0]
        model_type = str(config.get("model_type"))
        family = BACKBONES.get(model_type)
        if family is not None and not family.compresses:
            raise ValueError(f"a model of type {model_type} reads no regions")
        if not is_adapter and (family is None or not family.writes(model_type)):
            raise ValueError("is not an export of this project")
        if "auto_map" not in config:
            raise ValueError(f"is a checkpoint, not an export; run python -m train.export {name} OUT first")
        model = AutoModelForImageTextToText.from_pretrained(name, trust_remote_code=True, dtype="auto")
        return model.eval(), AutoProcessor.from_pretrained(name, trust_remote_code=True)
    except (OSError, ValueError) as error:
        raise ConfigError(f"export {name}: {one_line(error)}") from error
