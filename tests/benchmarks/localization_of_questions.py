"""Compute what Qwen2-VL costs as a localizer by formula, and what a question costs if something of its image is kept.

Qwen2-VL's tower, N patches of p x p pixels of two equal frames, width D, FFN width F, LLM width H:
    N (2 * 3 p^2) D + layers (4 N D^2 + 2 N^2 D + 2 N D F) + N/4 ((4 D)^2 + 4 D H)
"""

from dataclasses import replace
from typing import Literal

from transformers import Qwen2VLConfig

from crop_model.cost.localizer import LocalizationMacs, LocalizerShape
from crop_model.cost.model import LanguageModelShape

# `GridBoxProcessor.positions` of the indices in "[1, 0, 4, 2]" if every sign is a token of its own, as with Qwen2's and
# Llama's tokenizers.
POSITIONS = (1, 4, 7, 10)
Reused = Literal["nothing", "image", "cache"]


def shape_of_qwen2_vl(config: Qwen2VLConfig, height: int, width: int) -> LocalizerShape:
    """Read the sizes, for an image of the size to which the processor resizes it.

    Raises:
        ValueError: sides that are not multiples of two patches, as the processor makes them.
    """
    text, vision = config.text_config, config.vision_config
    side = vision.patch_size * vision.spatial_merge_size
    if height % side or width % side:
        raise ValueError(f"image of {width} x {height}: its sides are no multiples of {side}")
    n, d = height * width // vision.patch_size**2, vision.embed_dim
    merged = vision.spatial_merge_size**2
    embedding = n * vision.in_channels * vision.temporal_patch_size * vision.patch_size**2 * d
    layer = 4 * n * d**2 + 2 * n**2 * d + 2 * n * d * int(d * vision.mlp_ratio)
    merger = n // merged * ((merged * d) ** 2 + merged * d * text.hidden_size)
    image_macs = embedding + vision.depth * layer + merger
    return LocalizerShape(LanguageModelShape.from_config(text), image_macs, n // merged)


def localize(
    shape: LocalizerShape, text_tokens: int, positions: tuple[int, ...] = POSITIONS, reused: Reused = "nothing"
) -> LocalizationMacs:
    """Count the MACs of one question, see `LocalizerShape.localize`.

    Args:
        reused: from an earlier question about the same image: its visual tokens (`image`), or the LLM's cache of them
            too (`cache`), for which the image has to stand before the text.
    """
    macs, llm = shape.localize(text_tokens, positions), shape.language_model
    if reused == "nothing":
        return macs
    if reused == "image":
        return replace(macs, image=0)
    attention = shape.attention_macs(text_tokens, shape.visual_tokens + text_tokens)
    return replace(macs, image=0, prefill=llm.linear_macs(text_tokens) + llm.head_macs(1) + attention)
