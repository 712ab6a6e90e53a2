"""From rows to a batch: open the images, apply the chat template, pad, and mark what the loss sees.

The processor does the work; nothing here knows how a template, a tokenizer or an image processor looks inside.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from crop_model.processing_crop_llava import CropLlavaProcessor
from crop_model.regions import Box, RegionError
from data_prep.sample import DataError

from .data import row_name

IGNORE_INDEX = -100  # of the loss


class Collator:
    """Rows of `train.data.load_samples` -> model inputs.

    Args:
        processor: the model's; its token budget is checked against the placeholders of every sample.
        max_image_pixels: larger images are refused before they are decoded.
    """

    def __init__(
        self, processor: CropLlavaProcessor, max_image_pixels: int = Image.MAX_IMAGE_PIXELS or 89_478_485
    ) -> None:
        self.processor = processor
        self.max_image_pixels = max_image_pixels

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """A training batch, padded on the right.

        Returns:
            input_ids, attention_mask, labels (B, L), labels being -100 outside the answers; and, unless every row is
            text alone, pixel_values (images, 3, S, S) and region_mask (images, N) over all images in order. sample_ids
            is a list of the rows' ids, for messages.

        Raises:
            DataError: an image that does not open, is too large or has another size than its region's; a sample whose
                placeholders do not match its images, or without a supervised token.
        """
        batch = self._apply_template(rows, padding_side="right", return_assistant_tokens_mask=True)
        answers = torch.tensor(batch.pop("assistant_masks")).bool()  # (B, L)
        for row, answer in zip(rows, answers, strict=True):
            if not answer.any():
                raise DataError(f"{row_name(row)}: no token of it is supervised; check the chat template")
        batch["labels"] = batch["input_ids"].masked_fill(~answers, IGNORE_INDEX)
        batch["sample_ids"] = [row["sample_id"] for row in rows]
        return batch

    def prompts(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """A batch for `generate`: everything before the last answer, padded on the left."""
        asked = [{**row, "messages": json.dumps(json.loads(row["messages"])[:-1])} for row in rows]
        return self._apply_template(asked, padding_side="left", add_generation_prompt=True)

    def open_images(self, row: Mapping[str, Any]) -> list[Image.Image]:
        """The row's images in RGB, un-rotated as annotations see them: an EXIF orientation is not applied."""
        images = [self._open(row, path) for path in row["images"]]
        if images and row["width"] is not None and images[0].size != (row["width"], row["height"]):
            size = f"{images[0].width}x{images[0].height}"
            raise DataError(
                f"{row_name(row)}: {row['images'][0]} is {size}, its region is of {row['width']}x{row['height']}"
            )
        return images

    def region(self, row: Mapping[str, Any]) -> Box | None:
        """The row's region as the processor makes it grow, in pixels; None where none is known."""
        if row["region"] is None:
            return None
        try:
            return self.processor.grow_region(tuple(row["region"]), row["width"], row["height"])
        except RegionError as error:
            raise DataError(f"{row_name(row)}: {error}") from None

    def _apply_template(self, rows: Sequence[Mapping[str, Any]], padding_side: str, **kwargs: Any) -> dict[str, Any]:
        options: dict[str, Any] = {"padding": True, "padding_side": padding_side, "return_tensors": "pt"}
        if any(row["images"] for row in rows):
            # a sample's region is of its first image
            options["regions"] = [
                row["region"] if number == 0 else None for row in rows for number in range(len(row["images"]))
            ]
        batch = self.processor.apply_chat_template(
            [self._with_images(row) for row in rows],
            tokenize=True,
            return_dict=True,
            processor_kwargs=options,
            **kwargs,
        )
        self._check_placeholders(rows, batch["input_ids"])
        return dict(batch)

    def _with_images(self, row: Mapping[str, Any]) -> list[dict[str, Any]]:
        """The row's messages with the opened images in their places."""
        messages = json.loads(row["messages"])
        opened = iter(self.open_images(row))
        for message in messages:
            for part in message["content"]:
                if part["type"] == "image":
                    part["image"] = next(opened)
        return messages

    def _check_placeholders(self, rows: Sequence[Mapping[str, Any]], input_ids: Tensor) -> None:
        counts = (input_ids == self.processor.image_token_id).sum(dim=1).tolist()  # (B,)
        for row, count in zip(rows, counts, strict=True):
            expected = len(row["images"]) * self.processor.token_budget
            if count != expected:
                raise DataError(f"{row_name(row)}: {count} image placeholders, its images need {expected}")

    def _open(self, row: Mapping[str, Any], path: str) -> Image.Image:
        try:
            with Image.open(path) as image:
                if image.width * image.height > self.max_image_pixels:
                    size = f"{image.width}x{image.height}"
                    raise DataError(
                        f"{row_name(row)}: {path} is {size}, above max_image_pixels {self.max_image_pixels}"
                    )
                return image.convert("RGB")
        except (OSError, SyntaxError, Image.DecompressionBombError) as error:
            raise DataError(f"{row_name(row)}: {path}: {error}") from None
