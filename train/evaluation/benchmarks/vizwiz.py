"""Read VizWiz-VQA: `val.json`.

    [{"image", "question", "answers": [{"answer", ...}, ... ten], "answer_type", ...}, ...]

There is one question per image, named by the image. LLaVA's prompts capitalise the questions. The test split, which
LLaVA's papers report, has no public answers.
"""

from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel

from data_prep.files.streams import json_list
from data_prep.sources.vqav2 import AnnotatorsAnswer

from .files import numbered, official_file
from .question import BenchmarkQuestion


class Record(BaseModel):
    image: str
    question: str
    answers: list[AnnotatorsAnswer] = []
    answer_type: str | None = None


def read(path: Path) -> Iterator[BenchmarkQuestion]:
    """Read the questions of the val split, or of another split's file, grouped by answer type."""
    file = official_file(path, "val.json")
    for name, record in numbered(file, Record, json_list(file)):
        targets, prompt = tuple(item.answer for item in record.answers), record.question.capitalize()
        yield BenchmarkQuestion(
            name, record.image, record.image, record.question, targets, prompt=prompt, group=record.answer_type
        )
