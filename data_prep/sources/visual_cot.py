"""Visual-CoT's metadata, `metadata/<set>_cot_train.jsonl`: one question a line, with the boxes that lead to its answer.

Known defects: 7 % of dude's boxes out of bounds, degenerate ones in docvqa and dude, duplicates, TextCaps' images below
`cot/textvqa`, and two names for Visual7W's folder (the key `folder` says which it is here).
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar

from pydantic import BaseModel, TypeAdapter

from data_prep.question import Question, RecordError
from data_prep.streams import Stream, json_lines

from .base import Pixels, Source


class Record(BaseModel):
    question: str
    answer: str
    image: str
    width: Pixels
    height: Pixels
    bboxs: list[list[float]]
    dataset: str
    split: str | None = None


@dataclass(frozen=True)
class VisualCot(Source):
    """Visual-CoT's metadata of one set (JSONL)."""

    annotations: str = field(metadata={"help": "metadata/<set>_cot_train.jsonl."})
    folder: str = field(default="", metadata={"help": "Folder of the set's images below image_root, such as cot/gqa."})

    schema: ClassVar[TypeAdapter[Any]] = TypeAdapter(Record)
    file_keys: ClassVar[tuple[str, ...]] = ("annotations",)

    def records(self) -> Stream:
        return json_lines(self.annotations)

    def questions(self, record: Record) -> Iterator[Question | RecordError]:
        yield Question(
            image=f"{self.folder}/{record.image}" if self.folder else record.image,
            text=record.question,
            answer=record.answer,
            kind=record.dataset,
            size=(record.width, record.height),
            boxes=record.bboxs,
        )
