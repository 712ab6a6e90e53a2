"""Compute what many questions about one image cost by formula: it depends on what of the image is kept between them.

    kept      computed once for the image               computed for each of q questions
    nothing   -                                         tower, compressor, projector, LLM on image and text
    tower     tower                                     compressor, projector, LLM on image and text
    cache     tower, compressor, projector, LLM on      LLM on the text, which attends to the image's cache
              the image alone

`tower` is what `train.evaluate` does. `cache` is what servers call prefix caching: it needs an image before the text,
and visual tokens that are the same for every question. Those of PLC and ILP follow the question's region, FastV's
follow its words, so that these keep the tower's features at most. The scripts of docs/cost.md use it.
"""

from typing import Literal

from crop_model.cost.model import ModelShape, Pruning

Kept = Literal["nothing", "tower", "cache"]


def macs_of_questions(
    shape: ModelShape, text_tokens: int, questions: int, kept: Kept, pruning: Pruning | None = None
) -> int:
    """Count the MACs up to the first answer token of every question.

    Args:
        shape: of the model.
        text_tokens: of one question.
        questions: q, about the same image, one at a time or in a batch.
        kept: what is kept of the image between questions, see above.
        pruning: as in `ModelShape.prefill`.

    Raises:
        ValueError: a `cache` is to be kept, but the visual tokens follow the question.
    """
    if kept == "cache":
        return _macs_with_cache(shape, text_tokens, questions, pruning)
    prefill = shape.prefill(text_tokens, 1, pruning)
    once = prefill.vision_tower if kept == "tower" else 0
    return once + questions * (prefill.total - once)


def _macs_with_cache(shape: ModelShape, text_tokens: int, questions: int, pruning: Pruning | None) -> int:
    if pruning is not None or shape.compressor.reads_region:
        raise ValueError("kept: these visual tokens follow the question, so that their cache serves no other")
    image = shape.prefill(0)
    llm, visual_tokens = shape.language_model, shape.compressor.num_tokens
    attention = 2 * text_tokens * (visual_tokens + text_tokens) * llm.query_size * llm.num_layers
    return image.total - image.head + questions * (llm.linear_macs(text_tokens) + attention + llm.head_macs(1))
