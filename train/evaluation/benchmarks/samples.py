"""Turn a benchmark's questions into samples for the evaluation, with the columns that its metric needs.

BenchmarkSource ─► read_questions ─► load_benchmark ─► columns of train.data.rows.FEATURES, and those of METRIC_FEATURES
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import datasets

from crop_model.processing_crop_llava import CropLlavaProcessor
from crop_model.regions import RegionError, sanitize_box
from data_prep.common.errors import DataError, RecordError
from data_prep.files.images import ImageFiles, read_header
from data_prep.schema.records import Turn
from data_prep.schema.sample import sample_id
from data_prep.sources.base import majority
from train.data.lengths import check_template, with_lengths
from train.data.rows import FEATURES, chat_messages

from .question import BenchmarkQuestion
from .source import BenchmarkSource

TEXT = datasets.Value("string")
METRIC_FEATURES = datasets.Features(
    {"benchmark": TEXT, "question_id": TEXT, "targets": datasets.List(TEXT), "choices": datasets.List(TEXT)}
    | {"group": TEXT, "image_key": TEXT}
)


def load_benchmark(
    source: BenchmarkSource, processor: CropLlavaProcessor, max_length: int, questions: Sequence[BenchmarkQuestion]
) -> datasets.Dataset:
    """Load one row per question, in the benchmark's order.

    Args:
        source: the benchmark.
        processor: gives the lengths by its chat template and token budget.
        max_length: the longest allowed question, in tokens, the answer included.
        questions: the result of `read_questions`, or the first of it.

    Returns:
        `question` is the question alone, for a localizer; `messages` holds the prompt, with the most frequent target as
        its answer. `kind` is the group. A region is clipped to its image; one outside is dropped and counted.

    Raises:
        DataError: a template that marks no answers, a question that is too long, a damaged image.
    """
    check_template(processor)
    rows = []
    for row in with_lengths(_rows(source, questions), processor, max_length):
        if row["bad"] is not None:
            raise DataError(row["bad"])
        rows.append(row)
    lost = sum(row["region"] is None for row in rows) - sum(question.region is None for question in questions)
    if lost:
        print(f"{source.path}: {lost} of {len(rows)} regions lie outside their images and count as none", flush=True)
    features = datasets.Features({**FEATURES, **METRIC_FEATURES})
    return datasets.Dataset.from_list(rows, features=features).remove_columns("bad")


def _rows(source: BenchmarkSource, questions: Sequence[BenchmarkQuestion]) -> Iterator[dict[str, Any]]:
    """Yield the rows without their lengths."""
    files = ImageFiles(source.image_root)
    for question in questions:
        answer = majority(question.targets)
        messages = chat_messages(None, [Turn(question.prompt, answer, None)], images=1)
        path = files.path(question.record, question.image)
        yield (
            dict.fromkeys(FEATURES)
            | {
                "sample_id": sample_id(source.name, question.image, 0, question.question_id),
                "record": question.record,
                "kind": question.group,
                "question": question.question,
                "answer": answer,
                "messages": json.dumps(messages, ensure_ascii=False),
                "images": [path],
                "benchmark": source.label,
                "question_id": question.question_id,
                "targets": list(question.targets),
                "choices": list(question.choices),
                "group": question.group,
                "image_key": question.image_key,
            }
            | _region(question, Path(path))
        )


def _region(question: BenchmarkQuestion, path: Path) -> dict[str, Any]:
    """Return region and size of the image, which only a question with a region needs."""
    if question.region is None:
        return {}
    try:
        header = read_header(path)
    except RecordError as error:
        raise DataError(f"{question.record}: {error}") from None
    size = {"width": header.width, "height": header.height}
    try:
        return {"region": list(sanitize_box(question.region, header.width, header.height)), **size}
    except RegionError:
        return size
