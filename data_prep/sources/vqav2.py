"""Read VQAv2, `v2_OpenEnded_mscoco_<split>_questions.json` joined with `v2_mscoco_<split>_annotations.json`.

    {"questions": [{"image_id", "question", "question_id"}, ...], ...}
    {"annotations": [{"question_id", "image_id", "question_type", "answer_type", "multiple_choice_answer",
                      "answers": [{"answer", "answer_confidence", "answer_id"}, ... ten]}, ...], ...}

There are no boxes: a question's objects are matched with COCO's instances of the image. The test splits have no
annotations.
"""

from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

from pydantic import BaseModel, Field, TypeAdapter

from data_prep.common.errors import RecordError
from data_prep.common.fill import key
from data_prep.files.streams import json_list

from .base import Items, Questions, majority
from .coco_objects import CocoQuestions, fitting


class Record(BaseModel):
    question_id: int
    image_id: int = Field(ge=0)
    question: str


class AnnotatorsAnswer(BaseModel):
    answer: str


class AnswerRecord(BaseModel):
    question_id: int
    answer_type: str | None = None
    answers: list[AnnotatorsAnswer] = Field(min_length=1)


class Answer(NamedTuple):
    text: str
    kind: str | None


@dataclass(frozen=True)
class VqaV2(CocoQuestions):
    """Read VQAv2's questions, with its answers and COCO's instances."""

    question_file: str = field(kw_only=True, metadata={"help": "v2_OpenEnded_mscoco_<split>_questions.json."})
    annotations: str | None = key(None, "v2_mscoco_<split>_annotations.json; the test splits have none.")
    image_name: str = key(
        "COCO_train2014_{image_id:012}.jpg", "Path of an image below image_root, by its number in COCO."
    )

    licence = "CC BY 4.0"
    schema = TypeAdapter(Record)
    file_keys = ("question_file", "annotations", "instances")
    read = partial(json_list, prefix="questions.item")

    def lookups(self) -> dict[str, Items]:
        answers = {} if self.annotations is None else {"answers": _items(self.annotations)}
        return super().lookups() | answers

    def questions(self, record: Record) -> Questions:
        answer: Answer | None = Answer("", None)
        if "answers" in self.tables:
            name = f"annotations: question {record.question_id}"
            answer = self.entry("answers", str(record.question_id), Answer, name)
        if answer is None:
            raise RecordError("no_answer", f"question {record.question_id} has no annotation", "", record.question)
        yield self.question(record.image_id, record.question, answer.text, answer.kind)


def _items(annotations: str) -> Items:
    """Yield answers by question; an annotation of another form is skipped, so that its question has no answer."""
    for raw in json_list(annotations, "annotations.item"):
        if (record := fitting(AnswerRecord, raw)) is not None:
            yield str(record.question_id), (majority([item.answer for item in record.answers]), record.answer_type)
