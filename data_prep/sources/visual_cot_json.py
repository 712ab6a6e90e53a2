"""Read Visual-CoT's training file, `viscot_363k.json`: each question twice, first for its box, then for its answer.

    {"image": ["cot/gqa/1.jpg", "cot/gqa/1.jpg###[x1, y1, x2, y2]"],
     "conversations": [human: "<image>\\nWhat is it? Please provide the bounding box coordinate of the region ...",
                       gpt:   "[0.123, 0.200, 0.456, 0.789]"          fractions of the padded square
                       human: "<image>", gpt: "A cat."]}

The same box in pixels follows ###, and is used if the text has none. The second <image> is the crop.
"""

import re
from dataclasses import dataclass, field, replace
from typing import Annotated

from pydantic import BaseModel, Field, TypeAdapter

from data_prep.derivation.text_boxes import find_boxes
from data_prep.schema.question import Question
from data_prep.schema.records import Turn, conversation

from .base import XYXY, Questions, Source
from .llava_text import Utterance

# The end of the question about the box.
_REQUEST = re.compile(
    r"\s*please provide the bounding box coordinates? of the region "
    r"that can help you answer the question better\.?\s*$",
    re.IGNORECASE,
)
_NUMBER = r"\s*(-?\d+(?:\.\d*)?)\s*"
_PIXELS = re.compile(rf"\[{_NUMBER},{_NUMBER},{_NUMBER},{_NUMBER}\]")


class Record(BaseModel):
    image: Annotated[list[str], Field(min_length=1)]
    conversations: Annotated[list[Utterance], Field(min_length=1)]

    def turn(self, name: str) -> Turn:
        """Return the question, without the request for its box, and its answer; DataError if it has none."""
        ends = [self.conversations[0], self.conversations[-1]]
        _, (turn,) = conversation(name, {"conversations": ends}, images=1)
        return replace(turn, question=_REQUEST.sub("", turn.question))


@dataclass(frozen=True)
class VisualCotJson(Source):
    """Read Visual-CoT's training file in LLaVA's form (JSON list)."""

    annotations: str = field(metadata={"help": "viscot_363k.json."})

    schema = TypeAdapter(Record)

    def questions(self, record: Record) -> Questions:
        image = record.image[0].partition("###")[0]
        turn = record.turn("record")
        folders = image.split("/")
        question = Question(
            image=image,
            text=turn.question,
            answer=turn.answer,
            kind=folders[1] if len(folders) > 2 else None,  # cot/gqa/1.jpg: gqa
            frame="padded_square",
            boxes=find_boxes(record.conversations[1]["value"]) if len(record.conversations) > 2 else [],
        )
        if not question.boxes:
            question.frame, question.boxes = "pixels", pixel_boxes(record.image)
        yield question


def pixel_boxes(images: list[str]) -> list[XYXY]:
    """Return the boxes in pixels that follow ### in paths."""
    boxes = []
    for image in images:
        if match := _PIXELS.fullmatch(image.partition("###")[2]):
            x1, y1, x2, y2 = map(float, match.groups())
            boxes.append((x1, y1, x2, y2))
    return boxes
