"""Compute what localizing a question costs by formula: a model reads image and question and writes four indices.

    image       vision tower, and the way of its patches to the LLM, as in `model.py`
    prefill     the LLM on visual tokens and text, and one logit
    decoding    "[1, 0, 4, 2]": the text before the first index, token by token, then each index but the last together
                with the known tokens behind it; every pass attends to all tokens before it:
                linear(q) + 2 d q (tokens before and q) for q tokens, layer by layer, and a head

        [   1 , _   0 , _   4 , _   2      one sign per token: the prefill and four passes, of 1, 3, 3 and 3 tokens
        |   |_____| |_____| |_____|

    Qwen2-VL's tower, N patches of p x p pixels of two equal frames, width D, FFN width F, LLM width H:
        N (2 * 3 p^2) D + layers (4 N D^2 + 2 N^2 D + 2 N D F) + N/4 ((4 D)^2 + 4 D H)

MACs of matrix products are counted, as in `model.py`; FLOPs are twice as many. Decoding reads every weight for a few
tokens, so that its share of the time is larger than of these sums if memory is the limit.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

from crop_model.configuration_crop_llava import CropLlavaConfig

from .model import LanguageModelShape, ModelShape

# `GridBoxProcessor.positions` of the indices in "[1, 0, 4, 2]" if every sign is a token of its own, as with Qwen2's and
# Llama's tokenizers.
POSITIONS = (1, 4, 7, 10)
Reused = Literal["nothing", "image", "cache"]


@dataclass(frozen=True)
class LocalizationMacs:
    """The MACs of one question, part by part."""

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
    """The sizes that a localizer's cost depends on.

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
        """Read a LLaVA's configuration; a plain one has the compressor type `none`."""
        shape = ModelShape.from_config(config)
        one = shape.prefill(0)
        image_macs = one.vision_tower + one.compressor + one.projector
        return cls(shape.language_model, image_macs, shape.compressor.num_tokens)

    @classmethod
    def from_qwen2_vl(cls, config: Any, height: int, width: int) -> "LocalizerShape":
        """Read transformers' `Qwen2VLConfig`, for an image of the size to which its processor resizes it.

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
        return cls(LanguageModelShape.from_config(text), embedding + vision.depth * layer + merger, n // merged)

    def localize(
        self, text_tokens: int, positions: Sequence[int] = POSITIONS, reused: Reused = "nothing"
    ) -> LocalizationMacs:
        """Count the MACs of one question, a prompt of `text_tokens` tokens beside its image.

        Args:
            positions: of the four indices among the answer's tokens.
            reused: from an earlier question about the same image: its visual tokens (`image`), or the LLM's cache
                of them too (`cache`), for which the image has to stand before the text.
        """
        llm, n = self.language_model, self.visual_tokens + text_tokens
        if reused == "cache":
            prefill = llm.linear_macs(text_tokens) + llm.head_macs(1) + self._attention_macs(text_tokens, n)
        else:
            prefill = llm.linear_macs(n) + llm.attention_macs(n) + llm.head_macs(1)
        ends = [*range(1, positions[0] + 1), *positions[1:]]  # tokens of the answer that were read after every pass
        attention = sum(self._attention_macs(end - start, n + end) for start, end in pairwise([0, *ends]))
        decoding = llm.linear_macs(positions[-1]) + attention + llm.head_macs(len(ends))
        return LocalizationMacs(self.image_macs if reused == "nothing" else 0, prefill, decoding)

    def _attention_macs(self, queries: int, keys: int) -> int:
        return 2 * queries * keys * self.language_model.query_size * self.language_model.num_layers
