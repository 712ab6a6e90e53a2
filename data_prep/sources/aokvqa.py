"""Read A-OKVQA, `aokvqa_v1p0_<split>.json`: questions about COCO 2017 images that require world knowledge.

    [{"split", "image_id", "question_id", "question", "choices": [four], "correct_choice_idx", "direct_answers": [ten],
      "difficult_direct_answer", "rationales"}, ...]

The test split has no answers. There are no boxes: a question's objects are matched with COCO's instances.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar

from pydantic import BaseModel, Field, TypeAdapter

from data_prep.common.errors import RecordError
from data_prep.files.streams import Stream, json_list
from data_prep.schema.question import Question

from .base import majority
from .coco_objects import CocoQuestions


class Record(BaseModel):
    image_id: int = Field(ge=0)
    question: str
    direct_answers: list[str] = []


@dataclass(frozen=True)
class Aokvqa(CocoQuestions):
    """Read A-OKVQA's questions with the annotators' most frequent direct answer."""

    annotations: str = field(kw_only=True, metadata={"help": "aokvqa_v1p0_<split>.json."})

    licence: ClassVar[str] = "Apache-2.0"
    schema: ClassVar[TypeAdapter[Any]] = TypeAdapter(Record)
    file_keys: ClassVar[tuple[str, ...]] = ("annotations", "instances")

    def records(self) -> Stream:
        return json_list(self.annotations)

    def questions(self, record: Record) -> Iterator[Question | RecordError]:
        yield Question(
            image=self.image_of(record.image_id),
            text=record.question,
            answer=majority(record.direct_answers),
            size=self.size_of(record.image_id),
            objects=self.objects_of(record.image_id),
        )
