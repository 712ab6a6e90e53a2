"""Visual-CoT's metadata, `metadata/<set>_cot_train.jsonl`: one question a line, with the boxes that lead to its answer.

Known defects: 7 % of dude's boxes out of bounds, degenerate ones in docvqa and dude, duplicates, TextCaps' images below
`cot/textvqa`, and two names for Visual7W's folder (the key `folder` says which it is here). No box at all: nothing is
told of the place.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar

from pydantic import BaseModel, TypeAdapter

from data_prep.data_source import existing_paths
from data_prep.question import Question, RecordError
from data_prep.streams import Stream, chained, json_lines

from .base import Id, Pixels, Source


class Record(BaseModel):
    question: str
    answer: Id | float  # some are numbers
    possible_answers: list[Id | float] | None = None
    image: str
    width: Pixels
    height: Pixels
    bboxs: list[list[float]]
    dataset: str
    split: str | None = None


@dataclass(frozen=True)
class VisualCot(Source):
    """Visual-CoT's metadata of one set (JSONL)."""

    annotations: str = field(metadata={"help": "metadata/<set>_cot_train.jsonl, or a glob for several sets."})
    folder: str = field(
        default="",
        metadata={"help": "Folder of the images below image_root, such as cot/gqa; cot/{dataset} is each set's own."},
    )

    schema: ClassVar[TypeAdapter[Any]] = TypeAdapter(Record)
    file_keys: ClassVar[tuple[str, ...]] = ("annotations",)

    def records(self) -> Stream:
        return chained([json_lines(path) for path in existing_paths(self.annotations)])

    def questions(self, record: Record) -> Iterator[Question | RecordError]:
        answers = [record.answer, *(record.possible_answers or [])]
        yield Question(
            image=f"{self.folder.replace('{dataset}', record.dataset)}/{record.image}" if self.folder else record.image,
            text=record.question,
            answer=next((str(answer) for answer in answers if str(answer).strip()), ""),
            kind=record.dataset,
            size=(record.width, record.height),
            boxes=record.bboxs,
        )
