"""Read GQA: `testdev_balanced_questions.json`.

    {id: {"imageId", "question", "answer", "types": {"structural", ...}, ...}}

Images are `<imageId>.jpg`. The testdev split has no scene graphs, so there are no regions. The files of the test and
challenge splits have no answers.
"""

from collections.abc import Iterator
from pathlib import Path

from data_prep.files.streams import json_mapping
from data_prep.sources.gqa import Record

from .files import keyed, official_file
from .question import BenchmarkQuestion


def read(path: Path) -> Iterator[BenchmarkQuestion]:
    """Read the questions of the balanced testdev split, or of another split's file, grouped by structural type."""
    file = official_file(path, "testdev_balanced_questions.json")
    for name, key, record in keyed(file, Record, json_mapping(file)):
        image, group = f"{record.image_id}.jpg", record.types.structural
        yield BenchmarkQuestion(name, key, image, record.question, (record.answer,), group=group)
