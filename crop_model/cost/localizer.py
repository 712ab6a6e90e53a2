"""What it costs to localize a question, by formula: a model that reads image and question and writes four indices.

    image       vision tower, and what brings its patches to the LLM, as in `cost.py`
    prefill     the LLM on visual tokens and text, and one logit
    decoding    "[1, 0, 4, 2]": what stands before the first index, token by token, then each index but the last
                together with what is known to follow it; every pass attends to all before it:
                linear(q) + 2 d q (tokens before and q) for q tokens, layer by layer, and a head

        [   1 , _   0 , _   4 , _   2      one sign a token: the prefill and four passes, of 1, 3, 3 and 3 tokens
        |   |_____| |_____| |_____|

    Qwen2-VL's tower, N patches of p x p pixels of two equal frames, width D, FFN width F, LLM width H:
        N (2 * 3 p^2) D + layers (4 N D^2 + 2 N^2 D + 2 N D F) + N/4 ((4 D)^2 + 4 D H)

Counted as in `cost.py`: MACs of matrix products; FLOPs are twice as many. Decoding reads every weight for a few
tokens, so that where memory is the limit it takes a larger share of the time than of these sums.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

from crop_model.configuration_crop_llava import CropLlavaConfig

from .model import LanguageModelShape, ModelShape

# Of the indices in "[1, 0, 4, 2]", `GridBoxProcessor.places`, where every sign is a token of its own, as with Qwen2's
# and Llama's tokenizers.
PLACES = (1, 4, 7, 10)
Kept = Literal["nothing", "image", "cache"]


@dataclass(frozen=True)
class LocalizationMacs:
    """MACs of one question, part by part."""

    image: int
    prefill: int
    decoding: int

    @property
    def total(self) -> int:
        return self.image + self.prefill + self.decoding

    @property
    def flops(self) -> int:
        return 2 * self.total


@dataclass(frozen=True)
class LocalizerShape:
    """What a localizer's cost depends on.

    Args:
        language_model: its LLM.
        image_macs: of one image, up to the LLM.
        visual_tokens: of one image, in the LLM.
    """

    language_model: LanguageModelShape
    image_macs: int
    visual_tokens: int

    @classmethod
    def from_llava(cls, config: CropLlavaConfig) -> "LocalizerShape":
        """Of a LLaVA, `none` being the compressor type of a plain one."""
        shape = ModelShape.from_config(config)
        one = shape.prefill(0)
        image_macs = one.vision_tower + one.compressor + one.projector
        return cls(shape.language_model, image_macs, shape.compressor.num_tokens)

    @classmethod
    def from_qwen2_vl(cls, config: Any, height: int, width: int) -> "LocalizerShape":
        """Of transformers' `Qwen2VLConfig`, for an image as its processor resizes it.

        Raises:
            ValueError: sides that are no multiples of two patches, which the processor makes them.
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
        return cls(LanguageModelShape.from_config(text), embedding + vision.depth * layer + merger, n // merged)

    def localize(self, text_tokens: int, places: Sequence[int] = PLACES, kept: Kept = "nothing") -> LocalizationMacs:
        """MACs of one question, of a prompt of `text_tokens` tokens beside its image.

        Args:
            places: of the four indices among the answer's tokens.
            kept: from an earlier question about the same image: what brings its patches to the LLM (`image`), or the
                LLM's cache of them too (`cache`), which needs an image that stands before the text.
        """
        llm, n = self.language_model, self.visual_tokens + text_tokens
        if kept == "cache":
            prefill = llm.linear_macs(text_tokens) + llm.head_macs(1) + self._attention_macs(text_tokens, n)
        else:
            prefill = llm.linear_macs(n) + llm.attention_macs(n) + llm.head_macs(1)
        ends = [*range(1, places[0] + 1), *places[1:]]  # tokens of the answer that are read, after every pass
        attention = sum(self._attention_macs(end - start, n + end) for start, end in pairwise([0, *ends]))
        decoding = llm.linear_macs(places[-1]) + attention + llm.head_macs(len(ends))
        return LocalizationMacs(self.image_macs if kept == "nothing" else 0, prefill, decoding)

    def _attention_macs(self, queries: int, keys: int) -> int:
        return 2 * queries * keys * self.language_model.query_size * self.language_model.num_layers
