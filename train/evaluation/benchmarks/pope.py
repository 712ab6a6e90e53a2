"""Read POPE: `coco_pope_<split>.json` for random, popular and adversarial, JSONL despite its name.

    {"question_id", "image": "COCO_val2014_....jpg", "text": "Is there a dog in the image?", "label": "yes" or "no"}

Question ids restart in every file.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from pydantic import BaseModel

from data_prep.files.streams import json_lines
from data_prep.sources.base import Id

from .files import numbered, official_file
from .question import BenchmarkQuestion

SPLITS = ("random", "popular", "adversarial")


class Record(BaseModel):
    question_id: Id
    image: str
    text: str
    label: Literal["yes", "no"]


def read(path: Path) -> Iterator[BenchmarkQuestion]:
    """Read the questions of all three splits, or of the one whose file `path` is, grouped by split."""
    files = [path] if path.is_file() else [official_file(path, f"coco_pope_{split}.json") for split in SPLITS]
    for file in files:
        split = file.stem.rpartition("_")[2]
        for name, record in numbered(file, Record, json_lines(file)):
            question_id = f"{split}/{record.question_id}"
            yield BenchmarkQuestion(name, question_id, record.image, record.text, (record.label,), group=split)
