"""Read ST-VQA, `<split>_task_<n>.json`: questions about text in images of several data sets.

    {"data": [{"file_path": "coco-text/COCO_train2014_000000000081.jpg", "question", "question_id", "answers",
               "dataset", ...}, ...]}

Question ids repeat and are not used. The test files of the tasks have no answers.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar

from pydantic import BaseModel, TypeAdapter

from data_prep.common.errors import RecordError
from data_prep.files.streams import Stream, json_list
from data_prep.schema.question import Question

from .base import below, by_votes
from .rosetta import RosettaText


class Record(BaseModel):
    file_path: str
    question: str
    answers: list[str] = []
    dataset: str | None = None


@dataclass(frozen=True)
class StVqa(RosettaText):
    """Read ST-VQA's questions; the region is the text in which `rosetta` (image_id: file_path) has the answer."""

    annotations: str = field(kw_only=True, metadata={"help": "<split>_task_<n>.json."})
    folder: str = field(default="", metadata={"help": "Folder below image_root that file_path starts from."})

    schema: ClassVar[TypeAdapter[Any]] = TypeAdapter(Record)
    file_keys: ClassVar[tuple[str, ...]] = ("annotations", "rosetta")

    def records(self) -> Stream:
        return json_list(self.annotations, "data.item")

    def questions(self, record: Record) -> Iterator[Question | RecordError]:
        image, answers = below(self.folder, record.file_path), by_votes(record.answers)
        yield self.text_in(record.file_path).question(image, record.question, answers, record.dataset)
