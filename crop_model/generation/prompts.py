"""Turn conversations into prompts and answer them greedily: one piece each, for every caller.

conversations ─► encode ─► input_ids (B, L), padded on the left ─► generate_greedily ─► new tokens
                           attention_mask, pixel_values, ...
"""

from collections.abc import Mapping, Sequence
from typing import Any

from PIL import Image
from torch import Tensor
from transformers import BatchFeature

GREEDY: Mapping[str, Any] = {"do_sample": False, "num_beams": 1}  # whatever a checkpoint's own settings are


def conversations(images: Sequence[Image.Image], questions: Sequence[str]) -> list[list[dict[str, Any]]]:
    """Make one user turn per image and question, in the form that chat templates take."""
    return [
        [{"role": "user", "content": [{"type": "image", "image": image}, {"type": "text", "text": question}]}]
        for image, question in zip(images, questions, strict=True)
    ]


def encode(
    processor: Any,
    messages: Sequence[Sequence[Mapping[str, Any]]],
    *,
    padding_side: str = "left",
    processor_options: Mapping[str, Any] | None = None,
    **template_options: Any,
) -> BatchFeature:
    """Apply the processor's chat template to B conversations and tokenize them, padded to the longest.

    Args:
        processor: of the model, with a chat template.
        messages: conversations whose images are opened.
        padding_side: `left` for prompts, `right` for training.
        processor_options: what the processor takes beside text and images, `regions` for one.
        template_options: of `apply_chat_template`: add_generation_prompt, continue_final_message.
    """
    return processor.apply_chat_template(
        messages,
        tokenize=True,
        return_dict=True,
        processor_kwargs={
            "padding": True,
            "padding_side": padding_side,
            "return_tensors": "pt",
            **(processor_options or {}),
        },
        **template_options,
    )


def generate_greedily(
    model: Any, inputs: Mapping[str, Tensor], pad_token_id: int | None, max_new_tokens: int, **options: Any
) -> Tensor:
    """Return the new tokens alone, int64 (B, up to max_new_tokens); `options` go to `generate`.

    It computes without gradients and not in inference mode: weights that ZeRO-3 gathers there could train no more.
    """
    tokens = model.generate(**inputs, max_new_tokens=max_new_tokens, pad_token_id=pad_token_id, **GREEDY, **options)
    return tokens[:, inputs["input_ids"].shape[1] :]
