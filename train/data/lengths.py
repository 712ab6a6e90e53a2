"""Count the tokens of samples by the model's own template, without reading an image."""

import json
import re
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

from crop_model.processing_crop_llava import CropLlavaProcessor
from data_prep.common.errors import DataError

CHUNK = 1000  # samples tokenized together


def with_lengths(
    rows: Iterator[dict[str, Any]], processor: CropLlavaProcessor, max_length: int
) -> Iterator[dict[str, Any]]:
    """Add `length` to rows: a placeholder stands for `token_budget` tokens, so that no image needs to be read."""
    while chunk := list(islice(rows, CHUNK)):
        good = [row for row in chunk if row["bad"] is None]
        for row, ids in zip(good, _tokenize([row["messages"] for row in good], processor), strict=True):
            count = len(row["images"])
            row["length"] = len(ids) + count * (processor.token_budget - 1)
            if ids.count(processor.image_token_id) != count:
                row["bad"] = f"{row['record']}: the text holds {processor.image_token!r} besides its {count} images"
            elif row["length"] > max_length:
                row["bad"] = f"{row['record']}: {row['length']} tokens, above max_length {max_length}"
        yield from chunk


def _tokenize(messages: Sequence[str], processor: CropLlavaProcessor) -> list[list[int]]:
    if not messages:
        return []
    texts = processor.apply_chat_template([json.loads(text) for text in messages])
    tokenizer = processor.tokenizer
    starts_itself = tokenizer.bos_token is not None and texts[0].startswith(tokenizer.bos_token)
    return tokenizer(texts, add_special_tokens=not starts_itself)["input_ids"]


def check_template(processor: CropLlavaProcessor) -> None:
    """Refuse a chat template that does not mark the answers: nothing would be supervised."""
    if not re.search(r"\{%-?\s*generation\s*-?%\}", processor.chat_template or ""):
        raise DataError(
            "chat template: no {% generation %} span marks the answers; set chat_template=FILE.jinja to one that has it"
        )
