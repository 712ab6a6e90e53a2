"""VQAv2: `v2_OpenEnded_mscoco_val2014_questions.json` with `v2_mscoco_val2014_annotations.json`, joined by question_id.

    {"questions": [{"image_id", "question", "question_id"}, ...], ...}
    {"annotations": [{"question_id", "answer_type", "answers": [{"answer", ...}, ... ten], ...}, ...], ...}

Images are `COCO_val2014_<image_id, 12 digits>.jpg`. LLaVA's papers report test-dev, whose answers only the benchmark's
server has; numbers of val2014 are others, the more so as most of its images are in COCO's train2017, which LLaVA-1.5
was trained on.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from pydantic import TypeAdapter

from data_prep.common.errors import DataError
from data_prep.files.streams import json_list
from data_prep.sources.vqav2 import AnswerRecord, Record

from .files import numbered, official_file
from .question import BenchmarkQuestion

_RECORD, _ANSWER_RECORD = TypeAdapter(Record), TypeAdapter(AnswerRecord)
_NAME = re.compile(r"v2_OpenEnded_mscoco_([\w-]+)_questions\.json")


def read(path: Path) -> Iterator[BenchmarkQuestion]:
    """The questions of val2014, or of the question file `path`, whose annotations lie beside it; by answer type."""
    file = official_file(path, "v2_OpenEnded_mscoco_val2014_questions.json")
    match = _NAME.fullmatch(file.name)
    if match is None:
        raise DataError(f"{file}: not named as VQAv2's questions are: v2_OpenEnded_mscoco_<split>_questions.json")
    answers = _answers(file.with_name(f"v2_mscoco_{match[1]}_annotations.json"))
    for name, asked in numbered(file, _RECORD, json_list(file, "questions.item")):
        if asked.question_id not in answers:
            raise DataError(f"{name}: question {asked.question_id} has no annotation")
        answered = answers[asked.question_id]
        yield BenchmarkQuestion(
            record=name,
            question_id=str(asked.question_id),
            image=f"COCO_{match[1]}_{asked.image_id:012}.jpg",
            prompt=asked.question,
            question=asked.question,
            targets=tuple(item.answer for item in answered.answers),
            group=answered.answer_type,
        )


def _answers(file: Path) -> dict[int, AnswerRecord]:
    """Annotations by question."""
    if not file.is_file():
        raise DataError(f"{file}: no such file (VQAv2's test splits have no public answers; take val2014)")
    answers: dict[int, AnswerRecord] = {}
    for name, answered in numbered(file, _ANSWER_RECORD, json_list(file, "annotations.item")):
        if answered.question_id in answers:
            raise DataError(f"{name}: a second annotation of question {answered.question_id}")
        answers[answered.question_id] = answered
    return answers
