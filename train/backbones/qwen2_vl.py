"""Describe Qwen2-VL as a localizer: its batches, and what it does not read.

Images keep their aspect ratio and differ in their number of tokens; `image_grid_thw` gives the patches of each one.
Positions have three axes, which the model derives from that and from the token types.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from PIL import Image
from torch import Tensor
from transformers import Qwen2VLForConditionalGeneration

from crop_model.processing_qwen2_vl import Qwen2VLImageTextProcessor
from crop_model.regions import Box
from data_prep.common.errors import DataError
from train.data.collator import Collator, Opened, Row
from train.data.rows import row_name

from .base import Backbone

# a checkpoint of a training carries the processor's source too: transformers' own processor needs torchvision
Qwen2VLImageTextProcessor.register_for_auto_class("AutoProcessor")


class Qwen2VLCollator(Collator):
    """Make batches of Qwen2-VL.

    They hold pixel_values (patches of all images, 3 * 2 * 14 * 14), image_grid_thw (images, 3) and mm_token_type_ids
    (B, L), which is 1 at the tokens of an image. They hold no region, which is what the model is to find.
    """

    def region(self, row: Row) -> Box | None:
        """Return None: the model is not given a region."""
        return None

    def open_images(self, row: Row) -> list[Image.Image]:
        """Open the row's images.

        Raises:
            DataError: there are none: a rank without images would skip a collective call and hang the others.
        """
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
        # they are of rows padded one by one; `_lay_out` makes those of the batch
        return encoded, {key: value for key, value in batch.items() if key != "mm_token_type_ids"}

    def _lay_out(self, *args: Any) -> dict[str, Any]:
        batch = super()._lay_out(*args)
        return batch | {"mm_token_type_ids": (batch["input_ids"] == self.processor.image_token_id).long()}


class Qwen2VL(Backbone):
    """Describe Qwen2-VL, all of whose visual tokens reach the language model."""

    title = "Qwen2-VL"
    model_types = ("qwen2_vl",)
    model_class = Qwen2VLForConditionalGeneration
    processor_class = Qwen2VLImageTextProcessor
    collator = Qwen2VLCollator
    # the merger makes one token of four patches, in the language model's width, as LLaVA's projector does
    modules: ClassVar = {"projector": "visual.merger", "vision_tower": "visual"}
    unread_keys: ClassVar = {
        **dict.fromkeys(("compressor_type", "token_budget", "region_ratio", "compressor_num_attention_heads")),
        **dict.fromkeys(("frame", "region_grid", "region_scale", "region_min_side")),
        **dict.fromkeys(("region_jitter", "localizer_probability", "global_probability", "picture_steps"), 0),
        **{"pack_length": None, "on_bad_sample": "raise", "load_in_4bit": False},
    }
    auto_classes: ClassVar = {Qwen2VLImageTextProcessor: "AutoProcessor"}
