"""Read Visual-CoT's metadata, `metadata/<set>_cot_train.jsonl`: one question per line, with the boxes of its evidence.

Known defects: 7 % of dude's boxes are out of bounds, docvqa and dude have degenerate boxes, questions are repeated,
TextCaps' images lie below `cot/textvqa`, and Visual7W's folder has two names (`FOLDERS`). A question without a box has
no evidence.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from pydantic import BaseModel, TypeAdapter

from data_prep.common.fill import key
from data_prep.files.streams import json_lines
from data_prep.schema.question import Question

from .base import Id, Pixels, Questions, Source, below

# Folders of sets whose images may lie under another name: the first that exists below image_root, else the first.
FOLDERS = {"textcap": ("textvqa", "textcap"), "v7w": ("v7w", "visual7w"), "visual7w": ("v7w", "visual7w")}


class Record(BaseModel):
    question: str
    answer: Id | float  # some are numbers
    possible_answers: list[Id | float] | None = None
    image: str
    width: Pixels
    height: Pixels
    bboxs: list[list[float]]
    dataset: str
    split: str | None = None


@dataclass(frozen=True)
class VisualCot(Source):
    """Read Visual-CoT's metadata of one set or several (JSONL)."""

    annotations: str = field(metadata={"help": "metadata/<set>_cot_train.jsonl, or a glob for several sets."})
    folder: str = key("", "Folder of the images below image_root, such as cot/gqa; cot/{dataset} is each set's own.")
    folders: dict[str, str] = field(init=False, default_factory=dict, repr=False, compare=False)  # by data set

    schema = TypeAdapter(Record)
    read = json_lines

    def prepare(self, folder: Path, image_root: Path | None) -> Self:
        return self.having(folders={dataset: self._folder(names, image_root) for dataset, names in FOLDERS.items()})

    def _folder(self, names: Sequence[str], image_root: Path | None) -> str:
        folders = [self.folder.replace("{dataset}", name) for name in names]
        return next((folder for folder in folders if image_root and (image_root / folder).is_dir()), folders[0])

    def questions(self, record: Record) -> Questions:
        folder = self.folders.get(record.dataset, self.folder.replace("{dataset}", record.dataset))
        answers = [record.answer, *(record.possible_answers or [])]
        yield Question(
            image=below(folder, record.image),
            text=record.question,
            answer=next((str(answer) for answer in answers if str(answer).strip()), ""),
            kind=record.dataset,
            size=(record.width, record.height),
            boxes=record.bboxs,
        )
