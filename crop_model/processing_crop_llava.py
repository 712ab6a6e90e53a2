"""Process regions beside LLaVA's text and images: pixels and masks share one geometry, `<image>` becomes T tokens."""

from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any

import numpy as np
from transformers import LlavaImageProcessorPil, LlavaProcessor
from transformers.image_utils import ImageInput, get_image_size, make_flat_list_of_images, to_numpy_array
from transformers.processing_utils import ImagesKwargs, ProcessingKwargs

from .patches import patch_mask
from .regions import Box, ImageGeometry, RegionError, expand_box, region_in_pixels, sanitize_box

IMAGE_PROCESSORS = ("CLIPImageProcessor", "LlavaImageProcessor")  # and their Pil and Fast variants


class CropLlavaImagesKwargs(ImagesKwargs, total=False):  # type: ignore[call-arg]
    """Type the image arguments of `processor(...)`.

    regions (`list`, *optional*): for each image, in order, its contextual region in one of three forms, nested or not
        as the images are.
        `[x1, y1, x2, y2]`: pixels of the image as passed, half-open.
        `{"cells": [xmin, ymin, xmax, ymax]}`: inclusive cells, counted from 0, of the 8x8 grid over that image without
        padding, as the localizer writes them; `[0, 0, 7, 7]` means no region.
        None: no region is known.
    """

    regions: list | None


class CropLlavaProcessorKwargs(ProcessingKwargs, total=False):  # type: ignore[call-arg]
    images_kwargs: CropLlavaImagesKwargs
    _defaults = {}  # type: ignore[var-annotated]  # noqa: RUF012 - transformers 5.20 looks for it


class CropLlavaProcessor(LlavaProcessor):
    r"""Prepare text, images and regions.

    Args (beyond LLaVA's):
        token_budget: visual tokens per image, the same as the model's; None: one per patch.
        frame: how an image becomes the model's square input: `padded_square` (as LLaVA-1.5 was trained; nothing is
            lost), `cropped` (the middle; regions at the rim are lost) or `squashed`. It sets the image processor's
            padding, resizing and cropping, so that pixels and regions cannot disagree.
        region_grid: rows and columns to whose cells a region is widened, 8x8 in CROP; None: exact to the patch.
        region_scale, region_min_side: how a region grows in pixels before that, see `regions.expand_box`.

    Raises:
        ValueError: an image processor other than CLIP's and LLaVA's (no known geometry), or a value out of range.
    """

    valid_processor_kwargs = CropLlavaProcessorKwargs

    def __init__(
        self,
        image_processor=None,
        tokenizer=None,
        patch_size=None,
        vision_feature_select_strategy=None,
        chat_template=None,
        image_token="<image>",
        num_additional_image_tokens=0,
        token_budget=None,
        frame="padded_square",
        region_grid=(8, 8),
        region_scale=1.0,
        region_min_side=0.0,
        **kwargs,
    ):
        if region_scale <= 0 or not 0 <= region_min_side <= 1:
            raise ValueError("region_scale must be above 0 and region_min_side within 0..1")
        super().__init__(
            _with_padding(image_processor),
            tokenizer,
            patch_size=patch_size,
            vision_feature_select_strategy=vision_feature_select_strategy,
            chat_template=chat_template,
            image_token=image_token,
            num_additional_image_tokens=num_additional_image_tokens,
            **kwargs,
        )
        self.frame = frame
        self.region_grid = None if region_grid is None else tuple(region_grid)
        self.region_scale = region_scale
        self.region_min_side = region_min_side
        side, _ = self.geometry.input_size
        squashed = frame == "squashed"
        self.image_processor.do_resize = True
        self.image_processor.do_pad = frame == "padded_square"
        self.image_processor.do_center_crop = not squashed
        self.image_processor.size = {"height": side, "width": side} if squashed else {"shortest_edge": side}
        patches = self.patch_grid[0] * self.patch_grid[1]
        self.token_budget = patches if token_budget is None else token_budget
        if not 2 <= self.token_budget <= patches:
            raise ValueError(f"token_budget: {self.token_budget} is outside 2..{patches}, the patches of an image")

    @property
    def geometry(self) -> ImageGeometry:
        """Return the map from an image's pixels to the model's input."""
        side = self.image_processor.crop_size["height"]
        return ImageGeometry(self.frame, (side, side), resized_shortest=side, patch_size=self.patch_size)

    @property
    def patch_grid(self) -> tuple[int, int]:
        """Return the rows and columns of one image's patches."""
        side = self.image_processor.crop_size["height"] // self.patch_size
        return side, side

    def grow_region(self, region: Box, width: int, height: int) -> Box:
        """Clip a region to its image and grow it, in pixels, before the grid. RegionError as `sanitize_box`."""
        box = sanitize_box(region, width, height)
        return expand_box(box, width, height, self.region_scale, self.region_min_side)

    def replace_image_token(self, image_inputs: dict, image_idx: int, **kwargs: Any) -> str:
        return self.image_token * self.token_budget

    def _get_num_multimodal_tokens(self, image_sizes=None, **kwargs: Any):
        counts = super()._get_num_multimodal_tokens(image_sizes, **kwargs)
        if counts.num_image_tokens is not None:
            counts.num_image_tokens = [self.token_budget] * len(image_sizes)
        return counts

    def apply_chat_template(self, conversation: list, *args: Any, processor_kwargs: dict | None = None, **kwargs: Any):
        """Apply LLaVA's chat template. An image of a message may carry its region:

            {"type": "image", "image": ..., "region": [x1, y1, x2, y2]}      or any other form of `regions`

        RegionError if regions are both in the messages and in `processor_kwargs`.
        """
        regions = _regions_of_messages(conversation)
        if any(region is not None for region in regions):
            if (processor_kwargs or {}).get("regions") is not None:
                raise RegionError("regions: given in the messages and in processor_kwargs")
            processor_kwargs = {**(processor_kwargs or {}), "regions": regions}
        return super().apply_chat_template(conversation, *args, processor_kwargs=processor_kwargs, **kwargs)

    def _process_images(self, images: ImageInput, regions: list | None = None, **kwargs: Any):
        processed, replacements = super()._process_images(images, **kwargs)
        flat_images = make_flat_list_of_images(images)
        flat_regions = [None] * len(flat_images) if regions is None else _flatten_regions(regions)
        if len(flat_regions) != len(flat_images):
            raise RegionError(f"regions: {len(flat_regions)} for {len(flat_images)} images")
        processed["region_mask"] = np.stack(  # (number of images, N)
            [self._region_mask(image, region) for image, region in zip(flat_images, flat_regions, strict=True)]
        )
        return processed, replacements

    def _region_mask(self, image: Any, region: Box | Mapping | None) -> np.ndarray:
        unit_box = None
        if region is not None:
            height, width = get_image_size(to_numpy_array(image))
            box = region_in_pixels(region, width, height)
            if box is not None:
                unit_box = self.geometry.to_unit(self.grow_region(box, width, height), width, height)
        return patch_mask(unit_box, self.patch_grid, self.region_grid).numpy()


def _with_padding(image_processor: Any) -> LlavaImageProcessorPil:
    """Make LLaVA's image processor with the settings of the one that a checkpoint names.

    llava-hf/llava-1.5-7b-hf names CLIP's, which can only crop: it ignores `do_pad` silently. Every machine uses
    Pillow's variant, so that pixels do not depend on whether torchvision is installed.
    """
    name = type(image_processor).__name__.removesuffix("Pil").removesuffix("Fast")
    if name not in IMAGE_PROCESSORS:
        raise ValueError(f"image_processor: {type(image_processor).__name__} is none of {', '.join(IMAGE_PROCESSORS)}")
    settings = image_processor.to_dict()
    return LlavaImageProcessorPil.from_dict({**settings, "image_processor_type": "LlavaImageProcessorPil"})


def _flatten_regions(regions: list) -> list[Box | Mapping | None]:
    """Return one entry per image, from a flat list or from one list per sample."""
    flat: list[Box | Mapping | None] = []
    for entry in regions:
        if entry is None or isinstance(entry, Mapping) or (len(entry) > 0 and isinstance(entry[0], Real)):
            flat.append(entry)
        else:
            flat.extend(_flatten_regions(entry))
    return flat


def _regions_of_messages(conversation: Sequence) -> list:
    """Return the `region` of every image of one or several conversations, in order; None for an image without."""
    regions = []
    for message in conversation:
        if not isinstance(message, Mapping):
            regions += _regions_of_messages(message)
        elif not isinstance(message.get("content"), str):
            parts = message.get("content") or []
            regions += [part.get("region") for part in parts if part["type"] in ("image", "image_url")]
    return regions
