"""Read DocVQA: `val_v1.0_withQT.json`.

    {"data": [{"questionId", "question", "question_types", "image": "documents/<page>.png", "answers", ...}, ...]}

Paths of images start from the folder of `documents`. LLaVA does not evaluate on DocVQA: the prompt is that of its other
benchmarks with short answers. The test split has no answers.
"""

from collections.abc import Iterator
from pathlib import Path

from pydantic import Field

from data_prep.files.streams import json_list
from data_prep.sources import docvqa
from data_prep.sources.base import Id

from .files import numbered, official_file
from .question import BenchmarkQuestion


class Record(docvqa.Record):
    question_id: Id = Field(alias="questionId")


def read(path: Path) -> Iterator[BenchmarkQuestion]:
    """Read the questions of the val split, or of another split's file, grouped by their types joined by commas."""
    file = official_file(path, "val_v1.0_withQT.json")
    for name, record in numbered(file, Record, json_list(file, "data.item")):
        targets, group = tuple(record.answers), ", ".join(record.kinds) or None
        yield BenchmarkQuestion(name, record.question_id, record.image, record.question, targets, group=group)
