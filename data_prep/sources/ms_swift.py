"""ms-swift's grounding data: JSONL of conversations, with boxes beside them that the text points to.

    {"messages": [{"role": "user", "content": "<image>Find <ref-object>"}, {"role": "assistant", "content": "<bbox>"}],
     "images": ["a.jpg", ...],
     "objects": {"ref": ["a dog"], "bbox": [[x1, y1, x2, y2], ...], "bbox_type": "real", "image_id": [0, ...]}}

`real` (the default) is pixels, `norm1` fractions of the image; two numbers are a point. The n-th <bbox> of the text is
the n-th box; without marks, or with another number of them, all boxes belong to every question. `image_id` says of
which image a box is; a region is always of the first.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, TypeAdapter

from data_prep.question import Question, RecordError
from data_prep.records import Turn, conversation, image_names
from data_prep.streams import Stream, json_lines

from .base import Source

MARK = "<bbox>"


class Part(BaseModel):
    type: str
    text: str | None = None


class Message(BaseModel):
    role: str
    content: str | list[Part]


class ImageFile(BaseModel):
    path: str


class Objects(BaseModel):
    bbox: list[list[float]] = []
    bbox_type: Literal["real", "norm1"] = "real"
    image_id: list[int] | None = None


class Record(BaseModel):
    messages: list[Message]
    images: list[str | ImageFile] = []
    objects: Objects | None = None


@dataclass(frozen=True)
class MsSwift(Source):
    """ms-swift's grounding data (JSONL)."""

    annotations: str = field(metadata={"help": "The conversations."})

    schema: ClassVar[TypeAdapter[Any]] = TypeAdapter(Record)
    file_keys: ClassVar[tuple[str, ...]] = ("annotations",)
    trains_itself: ClassVar[bool] = True

    def records(self) -> Stream:
        return json_lines(self.annotations)

    def questions(self, record: Record) -> Iterator[Question | RecordError]:
        plain: Mapping[str, Any] = record.model_dump(exclude_none=True)
        images = image_names("record", plain)
        _, turns = conversation("record", plain, len(images))
        objects = record.objects or Objects()
        for number, turn in enumerate(turns if images else []):
            boxes, flags = _boxes_of_turn(objects, turns, number)
            yield Question(
                image=images[0],
                text=turn.question,
                answer=turn.answer,
                turn=number,
                frame="unit" if objects.bbox_type == "norm1" else "pixels",
                boxes=boxes,
                flags=flags,
            )


def _boxes_of_turn(objects: Objects, turns: Sequence[Turn], number: int) -> tuple[list[Sequence[float]], list[str]]:
    """The boxes of one question in the first image, and a flag where the answer is what shows them."""
    marks = [(turn.question.count(MARK), turn.answer.count(MARK)) for turn in turns]
    first, last, flags = 0, len(objects.bbox), list[str]()
    if sum(map(sum, marks)) == len(objects.bbox):
        first = sum(map(sum, marks[:number]))
        asked, answered = marks[number]
        last = first + (asked or answered)  # a box in the question is what it is about
        flags = ["leak_answer_box"] if answered and not asked else []
    of = objects.image_id or []
    return [_corners(objects.bbox[at]) for at in range(first, last) if (of[at] if at < len(of) else 0) == 0], flags


def _corners(box: Sequence[float]) -> Sequence[float]:
    return (*box, *box) if len(box) == 2 else box
