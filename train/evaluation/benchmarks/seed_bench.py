"""Read SEED-Bench: `SEED-Bench.json`; its questions about images, not those about videos.

    {"questions": [{"question_id", "question", "choice_a", ... "choice_d", "answer": "A", "data_id": name of the image,
                    "data_type": "image" or "video", "question_type_id": 5, ...}, ...],
     "question_type": {"Instances Counting": 5, ...}}

Names of images have no extension.
"""

from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel

from data_prep.common.errors import DataError
from data_prep.files.streams import json_list, json_mapping
from data_prep.sources.base import Id

from .files import checked_letter, keyed, numbered, official_file
from .question import BenchmarkQuestion, with_options


class Record(BaseModel):
    question_id: Id
    question: str
    choice_a: str
    choice_b: str
    choice_c: str
    choice_d: str
    answer: str = ""
    data_id: str
    data_type: str
    question_type_id: int

    @property
    def choices(self) -> tuple[str, ...]:
        return self.choice_a, self.choice_b, self.choice_c, self.choice_d


def read(path: Path) -> Iterator[BenchmarkQuestion]:
    """Read the questions about images, grouped by the name of their type."""
    file = official_file(path, "SEED-Bench.json")
    types = {number: key for _, key, number in keyed(file, int, json_mapping(file, "question_type"))}
    for name, record in numbered(file, Record, json_list(file, "questions.item")):
        if record.data_type != "image":
            continue
        if record.question_type_id not in types:
            raise DataError(f"{name}: question_type has no {record.question_type_id}")
        yield BenchmarkQuestion(
            name,
            record.question_id,
            record.data_id,
            record.question,
            (checked_letter(name, record.answer, len(record.choices)),),
            prompt=with_options(record.question, record.choices),
            choices=record.choices,
            group=types[record.question_type_id],
        )
