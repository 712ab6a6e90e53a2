"""Read ms-swift's grounding data: JSONL of conversations, with boxes beside them to which the text refers.

    {"messages": [{"role": "user", "content": "<image>Find <ref-object>"}, {"role": "assistant", "content": "<bbox>"}],
     "images": ["a.jpg", ...],
     "objects": {"ref": ["a dog"], "bbox": [[x1, y1, x2, y2], ...], "bbox_type": "real", "image_id": [0, ...]}}

`real` (the default) is pixels, `norm1` fractions of the image; two numbers are a point. The n-th <bbox> of the text is
the n-th box; without marks, or with another number of them, all boxes belong to every question. `image_id` names the
image of each box; a region always refers to the first image.

ms-swift fills the marks in during training. Here <ref-object> is filled from `ref` in order; a question that contains
<bbox> is rejected, and an answer that does becomes empty, so that its question is for a localizer. Every turn becomes a
separate sample, without the turns before it.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from pydantic import BaseModel, TypeAdapter

from data_prep.common.errors import RecordError
from data_prep.files.streams import json_lines
from data_prep.schema.question import Question
from data_prep.schema.records import Turn, conversation, image_names

from .base import Questions, Source

MARK, NAME = "<bbox>", "<ref-object>"


class Part(BaseModel):
    type: str
    text: str | None = None


class Message(BaseModel):
    role: str
    content: str | list[Part]


class ImageFile(BaseModel):
    path: str


class Objects(BaseModel):
    ref: list[str] = []
    bbox: list[list[float]] = []
    bbox_type: Literal["real", "norm1"] = "real"
    image_id: list[int] | None = None


class Record(BaseModel):
    messages: list[Message]
    images: list[str | ImageFile] = []
    objects: Objects | None = None


@dataclass(frozen=True)
class MsSwift(Source):
    """Read ms-swift's grounding data (JSONL)."""

    annotations: str = field(metadata={"help": "The conversations."})

    schema = TypeAdapter(Record)
    read = json_lines

    def questions(self, record: Record) -> Questions:
        plain: Mapping[str, Any] = record.model_dump(exclude_none=True)
        images = image_names("record", plain)
        objects = record.objects or Objects()
        system, turns = conversation("record", plain, len(images))
        turns = _named(turns, objects.ref[(system or "").count(NAME) :])
        for number, turn in enumerate(turns if images else []):
            if MARK in turn.question:
                yield RecordError("marks", f"the question holds {MARK}", images[0], turn.question)
                continue
            boxes, flags = _boxes_of_turn(objects, turns, number)
            yield Question(
                image=images[0],
                text=turn.question,
                answer="" if MARK in turn.answer else turn.answer,
                other_images=images[1:],
                turn=number,
                frame="unit" if objects.bbox_type == "norm1" else "pixels",
                boxes=boxes,
                flags=flags,
            )


def _named(turns: Sequence[Turn], names: Sequence[str]) -> list[Turn]:
    """Replace the marks of the turns by names."""
    marks = sum(turn.question.count(NAME) + turn.answer.count(NAME) for turn in turns)
    if marks > len(names):
        raise RecordError("marks", f"{marks} {NAME} in the text for {len(names)} in objects.ref")
    remaining = iter(names)

    def fill(text: str) -> str:
        return re.sub(NAME, lambda _: next(remaining), text)

    return [replace(turn, question=fill(turn.question), answer=fill(turn.answer)) for turn in turns]


def _boxes_of_turn(objects: Objects, turns: Sequence[Turn], number: int) -> tuple[list[Sequence[float]], list[str]]:
    """Return a turn's boxes in the first image, and a flag if its marks refer to them."""
    marks = [turn.question.count(MARK) + turn.answer.count(MARK) for turn in turns]
    first, last, flags = 0, len(objects.bbox), list[str]()
    if sum(marks) == len(objects.bbox):
        first = sum(marks[:number])
        last = first + marks[number]
        flags = ["leak_answer_box"] if marks[number] else []
    ids = objects.image_id or []
    boxes = [objects.bbox[index] for index in range(first, last) if (ids[index] if index < len(ids) else 0) == 0]
    return [_corners(box) for box in boxes], flags


def _corners(box: Sequence[float]) -> Sequence[float]:
    return (*box, *box) if len(box) == 2 else box
