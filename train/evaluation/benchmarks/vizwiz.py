"""VizWiz-VQA: `val.json`, a list of {"image", "question", "answers": [{"answer", ...}, ... ten], "answer_type", ...}.

One question an image, which names it. LLaVA's prompts have the questions' first letters large and all others small. The
test split, which LLaVA's papers report, has no public answers.
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
    """The questions of the val split, or of another split's file; by answer type, `unanswerable` among them."""
    file = official_file(path, "val.json")
    for name, asked in numbered(file, _SCHEMA, json_list(file)):
        yield BenchmarkQuestion(
            record=name,
            question_id=asked.image,
            image=asked.image,
            prompt=asked.question.capitalize(),
            question=asked.question,
            targets=tuple(item.answer for item in asked.answers),
            group=asked.answer_type,
        )
