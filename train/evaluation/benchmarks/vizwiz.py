"""Read VizWiz-VQA: `val.json`.

    [{"image", "question", "answers": [{"answer", ...}, ... ten], "answer_type", ...}, ...]

There is one question per image, named by the image. LLaVA's prompts capitalise the questions. The test split, which
LLaVA's papers report, has no public answers.
"""

from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel, TypeAdapter

from data_prep.files.streams import json_list
from data_prep.sources.vqav2 import AnnotatorsAnswer

from .files import numbered, official_file
from .question import BenchmarkQuestion


class Record(BaseModel):
    image: str
    question: str
    answers: list[AnnotatorsAnswer] = []
    answer_type: str | None = None


_SCHEMA = TypeAdapter(Record)


def read(path: Path) -> Iterator[BenchmarkQuestion]:
    """Read the questions of the val split, or of another split's file, grouped by answer type."""
    file = official_file(path, "val.json")
    for name, record in numbered(file, _SCHEMA, json_list(file)):
        yield BenchmarkQuestion(
            record=name,
            question_id=record.image,
            image=record.image,
            prompt=record.question.capitalize(),
            question=record.question,
            targets=tuple(item.answer for item in record.answers),
            group=record.answer_type,
        )
