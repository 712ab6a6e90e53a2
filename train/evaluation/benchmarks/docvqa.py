"""DocVQA: `val_v1.0_withQT.json`.

    {"data": [{"questionId", "question", "question_types", "image": "documents/<page>.png", "answers", ...}, ...]}

Paths of images start from the folder of `documents`. LLaVA does not evaluate on DocVQA: it is asked as its other
questions with short answers are. The test split has no answers.
"""

from collections.abc import Iterator
from pathlib import Path

from pydantic import Field, TypeAdapter

from data_prep.files.streams import json_list
from data_prep.sources import docvqa
from data_prep.sources.base import Id

from .files import numbered, official_file
from .question import BenchmarkQuestion


class Record(docvqa.Record):
    question_id: Id = Field(alias="questionId")


_SCHEMA = TypeAdapter(Record)


def read(path: Path) -> Iterator[BenchmarkQuestion]:
    """The questions of the val split, or of another split's file; by their types, joined where there are several."""
    file = official_file(path, "val_v1.0_withQT.json")
    for name, asked in numbered(file, _SCHEMA, json_list(file, "data.item")):
        yield BenchmarkQuestion(
            record=name,
            question_id=asked.question_id,
            image=asked.image,
            prompt=asked.question,
            question=asked.question,
            targets=tuple(asked.answers),
            group=", ".join(asked.kinds) or None,
        )
