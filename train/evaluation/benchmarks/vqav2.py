"""Read VQAv2, `v2_OpenEnded_mscoco_val2014_questions.json` joined with `v2_mscoco_val2014_annotations.json`.

    {"questions": [{"image_id", "question", "question_id"}, ...], ...}
    {"annotations": [{"question_id", "answer_type", "answers": [{"answer", ...}, ... ten], ...}, ...], ...}

Images are `COCO_val2014_<image_id, 12 digits>.jpg`. LLaVA's papers report test-dev, whose answers only the benchmark's
server has. Numbers on val2014 differ, also because most of its images are in COCO's train2017, on which LLaVA-1.5 was
trained.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from data_prep.common.errors import DataError
from data_prep.files.streams import json_list
from data_prep.sources.vqav2 import AnswerRecord, Record

from .files import by_key, numbered, official_file
from .question import BenchmarkQuestion

_NAME = re.compile(r"v2_OpenEnded_mscoco_([\w-]+)_questions\.json")


def read(path: Path) -> Iterator[BenchmarkQuestion]:
    """Read the questions of val2014, or of the file `path` with its annotations beside it, grouped by answer type."""
    file = official_file(path, "v2_OpenEnded_mscoco_val2014_questions.json")
    match = _NAME.fullmatch(file.name)
    if match is None:
        raise DataError(f"{file}: not named like VQAv2's questions: v2_OpenEnded_mscoco_<split>_questions.json")
    annotation_file = file.with_name(f"v2_mscoco_{match[1]}_annotations.json")
    if not annotation_file.is_file():
        raise DataError(f"{annotation_file}: no such file (VQAv2's test splits have no public answers; take val2014)")
    records = numbered(annotation_file, AnswerRecord, json_list(annotation_file, "annotations.item"))
    annotations = by_key(records, lambda annotation: annotation.question_id, "annotation of question")
    for name, record in numbered(file, Record, json_list(file, "questions.item")):
        if record.question_id not in annotations:
            raise DataError(f"{name}: question {record.question_id} has no annotation")
        annotation, image = annotations[record.question_id], f"COCO_{match[1]}_{record.image_id:012}.jpg"
        targets, group = tuple(item.answer for item in annotation.answers), annotation.answer_type
        yield BenchmarkQuestion(name, str(record.question_id), image, record.question, targets, group=group)
