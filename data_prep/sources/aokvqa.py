"""Read A-OKVQA, `aokvqa_v1p0_<split>.json`: questions about COCO 2017 images that require world knowledge.

    [{"split", "image_id", "question_id", "question", "choices": [four], "correct_choice_idx", "direct_answers": [ten],
      "difficult_direct_answer", "rationales"}, ...]

The test split has no answers. There are no boxes: a question's objects are matched with COCO's instances.
"""

from dataclasses import dataclass, field

from pydantic import BaseModel, Field, TypeAdapter

from .base import Questions, majority
from .coco_objects import CocoQuestions


class Record(BaseModel):
    image_id: int = Field(ge=0)
    question: str
    direct_answers: list[str] = []


@dataclass(frozen=True)
class Aokvqa(CocoQuestions):
    """Read A-OKVQA's questions with the annotators' most frequent direct answer."""

    annotations: str = field(kw_only=True, metadata={"help": "aokvqa_v1p0_<split>.json."})

    licence = "Apache-2.0"
    schema = TypeAdapter(Record)
    file_keys = ("annotations", "instances")

    def questions(self, record: Record) -> Questions:
        yield self.question(record.image_id, record.question, majority(record.direct_answers))
