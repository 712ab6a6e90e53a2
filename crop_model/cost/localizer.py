"""Compute what localizing a question costs by formula: a model reads image and question and writes four indices.

    image       vision tower, and the way of its patches to the LLM, as in `model.py`
    prefill     the LLM on visual tokens and text, and one logit
    decoding    "[1, 0, 4, 2]": the text before the first index, token by token, then each index but the last together
                with the known tokens behind it; every pass attends to all tokens before it:
                linear(q) + 2 d q (tokens before and q) for q tokens, layer by layer, and a head

        [   1 , _   0 , _   4 , _   2      one sign per token: the prefill and four passes, of 1, 3, 3 and 3 tokens
        |   |_____| |_____| |_____|

Decoding reads every weight for a few tokens, so that its share of the time is larger than of these sums if memory is
the limit.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from crop_model.configuration_crop_llava import CropLlavaConfig

from .model import LanguageModelShape, ModelShape, Parts


@dataclass(frozen=True)
class LocalizationMacs(Parts):
    """Hold the MACs of one question."""

    image: int
    prefill: int
    decoding: int


@dataclass(frozen=True)
class LocalizerShape:
    """Hold the sizes that a localizer's cost depends on: its LLM, and one image's MACs and tokens before the LLM."""

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

    def localize(self, text_tokens: int, positions: Sequence[int]) -> LocalizationMacs:
        """Count the MACs of one question, a prompt of `text_tokens` tokens beside its image.

        The four indices stand at these `positions` of the answer's tokens, as `GridBoxProcessor.positions`.
        """
        llm, n = self.language_model, self.visual_tokens + text_tokens
        ends = [*range(1, positions[0] + 1), *positions[1:]]  # tokens of the answer that were read after every pass
        attention = sum(self.attention_macs(end - start, n + end) for start, end in pairwise([0, *ends]))
        return LocalizationMacs(
            image=self.image_macs,
            prefill=llm.linear_macs(n) + llm.attention_macs(n) + llm.head_macs(1),
            decoding=llm.linear_macs(positions[-1]) + attention + llm.head_macs(len(ends)),
        )

    def attention_macs(self, queries: int, keys: int) -> int:
        """Count the attention of the last `queries` tokens to all `keys`, those before them included."""
        return 2 * queries * keys * self.language_model.query_size * self.language_model.num_layers
