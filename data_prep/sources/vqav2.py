"""Read VQAv2, `v2_OpenEnded_mscoco_<split>_questions.json` joined with `v2_mscoco_<split>_annotations.json`.

    {"questions": [{"image_id", "question", "question_id"}, ...], ...}
    {"annotations": [{"question_id", "image_id", "question_type", "answer_type", "multiple_choice_answer",
                      "answers": [{"answer", "answer_confidence", "answer_id"}, ... ten]}, ...], ...}

There are no boxes: a question's objects are matched with COCO's instances of the image. The test splits have no
annotations.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Self

from pydantic import BaseModel, Field, TypeAdapter

from data_prep.common.errors import RecordError
from data_prep.files.lookup import Index
from data_prep.files.streams import Stream, json_list
from data_prep.schema.question import Question

from .base import look_up, majority
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


_ANSWER = TypeAdapter(Answer)


@dataclass(frozen=True)
class VqaV2(CocoQuestions):
    """Read VQAv2's questions, with its answers and COCO's instances."""

    question_file: str = field(kw_only=True, metadata={"help": "v2_OpenEnded_mscoco_<split>_questions.json."})
    annotations: str | None = field(
        default=None, metadata={"help": "v2_mscoco_<split>_annotations.json; the test splits have none."}
    )
    image_name: str = field(
        default="COCO_train2014_{image_id:012}.jpg",
        metadata={"help": "Path of an image below image_root, by its number in COCO."},
    )
    answers: Index | None = field(init=False, default=None, repr=False, compare=False)

    licence: ClassVar[str] = "CC BY 4.0"
    schema: ClassVar[TypeAdapter[Any]] = TypeAdapter(Record)
    file_keys: ClassVar[tuple[str, ...]] = ("question_file", "annotations", "instances")

    def prepare(self, folder: Path, image_root: Path | None) -> Self:
        ready = super().prepare(folder, image_root)
        if self.annotations is None:
            return ready
        return ready.having(answers=Index.build(folder / "answers.sqlite", _items(self.annotations)))

    def records(self) -> Stream:
        return json_list(self.question_file, "questions.item")

    def questions(self, record: Record) -> Iterator[Question | RecordError]:
        answer = Answer("", None)
        if self.answers is not None:
            item = self.answers.get(str(record.question_id))
            if item is None:
                raise RecordError("no_answer", f"question {record.question_id} has no annotation", "", record.question)
            answer = look_up(_ANSWER, item, f"annotations: question {record.question_id}")
        yield Question(
            image=self.image_of(record.image_id),
            text=record.question,
            answer=answer.text,
            kind=answer.kind,
            size=self.size_of(record.image_id),
            objects=self.objects_of(record.image_id),
        )


def _items(annotations: str) -> Iterator[tuple[str, Any]]:
    """Yield answers by question; an annotation of another form is skipped, so that its question has no answer."""
    for raw in json_list(annotations, "annotations.item"):
        if (record := fitting(AnswerRecord, raw)) is not None:
            yield str(record.question_id), (majority([item.answer for item in record.answers]), record.answer_type)
