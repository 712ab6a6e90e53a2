"""Qwen2-VL in training: its model, its processor and its batches.

Images keep their aspect and vary in tokens, so `image_grid_thw` tells each one's patches. Positions have three axes;
the model derives them from that and from which tokens are an image's.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from PIL import Image
from torch import Tensor
from transformers import Qwen2VLForConditionalGeneration

from crop_model.processing_qwen2_vl import Qwen2VLImageTextProcessor
from crop_model.regions import Box
from data_prep.common.errors import DataError
from train.checkpoints.loading import load_model, named
from train.data.collator import Collator, Opened, Row
from train.data.rows import row_name

MODEL_TYPE = "qwen2_vl"
MERGER = "visual.merger"  # four patches to a token of the language model's width: LLaVA's projector


def load_qwen2_vl(
    name: str | Path, dtype: torch.dtype | str = torch.float32
) -> tuple[Qwen2VLForConditionalGeneration, Qwen2VLImageTextProcessor]:
    """The model in eval mode on the CPU, an adapter merged into its base, and its processor.

    Raises:
        ConfigError: nothing loadable under that name.
    """
    processor = load_processor(name)
    model = load_model(str(name), Qwen2VLForConditionalGeneration, dtype)
    return (model.merge_and_unload() if isinstance(model, PeftModel) else model).eval(), processor


def load_processor(name: str | Path, **pixels: int) -> Qwen2VLImageTextProcessor:
    """The processor stored under `name`, with min_pixels and max_pixels where they are given; saved with its source."""
    Qwen2VLImageTextProcessor.register_for_auto_class("AutoProcessor")
    return named(name, Qwen2VLImageTextProcessor.from_pretrained, **pixels)


def write_merged(name: str | Path, folder: Path) -> None:
    """What the Auto classes load: transformers' own model, and the processor with its source."""
    model, processor = load_qwen2_vl(name, "auto")
    model.save_pretrained(folder)
    processor.save_pretrained(folder)


class Qwen2VLCollator(Collator):
    """Batches for Qwen2-VL: pixel_values (patches of all images, 3 * 2 * 14 * 14), image_grid_thw (images, 3) and
    mm_token_type_ids (B, L), 1 where an image's tokens are. No region goes in: it is what is asked for."""

    def region(self, row: Row) -> Box | None:
        """None."""
        return None

    def open_images(self, row: Row) -> list[Image.Image]:
        """The row's images; DataError where it has none: also a process's batch would have none, and it fall behind."""
        if not row["images"]:
            raise DataError(f"{row_name(row)}: no image to find a region in")
        return super().open_images(row)

    def _image_options(self, samples: Sequence[Opened]) -> dict[str, Any]:
        return {}

    def _visual_tokens(self, rows: Sequence[Row], batch: Mapping[str, Any]) -> list[int]:
        merged = self.processor.image_processor.merge_size**2
        counts = iter((batch["image_grid_thw"].prod(dim=1) // merged).tolist())
        return [sum(next(counts) for _ in row["images"]) for row in rows]

    def _encode(self, *args: Any) -> tuple[list[tuple[Tensor, Tensor]], dict[str, Tensor]]:
        encoded, batch = super()._encode(*args)
        return encoded, {key: value for key, value in batch.items() if key != "mm_token_type_ids"}  # of other rows

    def _lay_out(self, *args: Any) -> dict[str, Any]:
        batch = super()._lay_out(*args)
        return batch | {"mm_token_type_ids": (batch["input_ids"] == self.processor.image_token_id).long()}
