"""Read ST-VQA, `<split>_task_<n>.json`: questions about text in images of several data sets.

    {"data": [{"file_path": "coco-text/COCO_train2014_000000000081.jpg", "question", "question_id", "answers",
               "dataset", ...}, ...]}

Question ids repeat and are not used. The test files of the tasks have no answers.
"""

from dataclasses import dataclass, field
from functools import partial

from pydantic import BaseModel, TypeAdapter

from data_prep.common.fill import key
from data_prep.files.streams import json_list

from .base import Questions, below, votes
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
    folder: str = key("", "Folder below image_root that file_path starts from.")

    schema = TypeAdapter(Record)
    file_keys = ("annotations", "rosetta")
    read = partial(json_list, prefix="data.item")

    def questions(self, record: Record) -> Questions:
        image, answers = below(self.folder, record.file_path), list(votes(record.answers))
        yield self.text_in(record.file_path).question(image, record.question, answers, record.dataset)
