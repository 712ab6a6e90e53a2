"""A table of samples, one row a question, checked before any image is read or any model loaded.

    annotations ─► data_prep.records ─► rows ─► datasets.Dataset ─► train.collator
          region sidecar, by sample_id ─┘

Every question with an image is a sample of its own, since each has a region of its own; a conversation without images
stays whole. Rows hold paths and text. All errors are `DataError`s that name file and record.
"""

import json
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import datasets
from PIL import Image
from tqdm.auto import tqdm

from crop_model.processing_crop_llava import CropLlavaProcessor
from crop_model.regions import Box, RegionError, sanitize_box, union_box
from data_prep.data_source import DataSource
from data_prep.images import ImageFiles
from data_prep.records import Turn, conversation, image_names, read_records
from data_prep.sample import DataError, RegionAnnotation, read_regions, sample_id

CHUNK = 1000  # samples that are tokenized together

FEATURES = datasets.Features(
    {
        "sample_id": datasets.Value("string"),
        "record": datasets.Value("string"),  # file, place and id, for messages
        "kind": datasets.Value("string"),  # of question, where the record tells
        "question": datasets.Value("string"),
        "answer": datasets.Value("string"),
        "messages": datasets.Value("string"),  # JSON, as chat templates take them
        "images": datasets.List(datasets.Value("string")),  # paths that open
        "region": datasets.List(datasets.Value("float64")),  # pixel xyxy of the first image, before expansion
        "width": datasets.Value("int32"),  # of the first image, where the sidecar tells
        "height": datasets.Value("int32"),
        "length": datasets.Value("int32"),  # tokens with every image's visual tokens
    }
)


def load_samples(
    sources: Sequence[DataSource], processor: CropLlavaProcessor, max_length: int, seed: int = 0
) -> datasets.Dataset:
    """Read, check and count every sample of `sources`, with the columns of `FEATURES`.

    Args:
        sources: what to read; a source's weight repeats or thins its samples.
        processor: its chat template and token budget give the lengths.
        max_length: the longest sample allowed, in tokens.
        seed: of the choice that a weight that is not whole makes.

    Raises:
        DataError: an unreadable file, a record without question or answer, an image missing or outside its root, a
            region outside its image, a sample too long, a sidecar that fits no sample.
    """
    parts = []
    for source in sources:
        rows = list(tqdm(_with_lengths(_rows(source), processor, max_length), desc=source.annotations, disable=None))
        if not rows:
            raise DataError(f"{source.annotations}: no samples")
        part = datasets.Dataset.from_list(rows, features=FEATURES)
        parts.append(part.select(_weighted_indices(len(part), source.weight, seed)))
    return datasets.concatenate_datasets(parts)


def _weighted_indices(count: int, weight: float, seed: int) -> list[int]:
    """Every sample floor(weight) times, and a fixed choice of them once more for what is left of the weight."""
    whole, rest = divmod(weight, 1)
    extra = random.Random(seed).sample(range(count), round(rest * count))
    return sorted([*range(count)] * int(whole) + extra)


# ---- rows


def _rows(source: DataSource) -> Iterator[dict[str, Any]]:
    """The rows of one source, without their lengths."""
    table = read_regions(source.regions) if source.regions is not None else None
    name = table.source if table is not None else Path(source.annotations).stem
    files = ImageFiles(source.image_root)
    matched = 0
    for record_name, record in read_records(source.annotations):
        images = image_names(record_name, record)
        system, turns = conversation(record_name, record, len(images))
        paths = [files.path(record_name, image) for image in images]
        base = {"record": record_name, "images": paths, "region": None, "width": None, "height": None}
        if not images:
            key = sample_id(name, "", 0, turns[0].question)
            yield base | _texts(key, turns[0], _messages(system, turns, 0))
            continue
        boxes = _record_region(record_name, record, paths[0])
        for number, turn in enumerate(turns):
            key = sample_id(name, images[0], number, turn.question)
            annotation = None if table is None else table.get(key)
            place = boxes
            if annotation is not None:
                matched += 1
                place = _annotated_region(f"{record_name}: question {number}", annotation)
            yield base | place | _texts(key, turn, _messages(system, [turn], len(images)))
    if table is not None and not matched:
        raise DataError(f"{source.regions}: holds none of the questions of {source.annotations}")


def _texts(key: str, turn: Turn, messages: list[dict[str, Any]]) -> dict[str, Any]:
    text = json.dumps(messages, ensure_ascii=False)
    return {"sample_id": key, "kind": turn.kind, "question": turn.question, "answer": turn.answer, "messages": text}


def _messages(system: str | None, turns: Sequence[Turn], images: int) -> list[dict[str, Any]]:
    """A conversation as chat templates take it: the images, then the first question."""
    messages = [] if system is None else [_message("system", system)]
    for turn in turns:
        messages += [_message("user", turn.question), _message("assistant", turn.answer)]
    first_question = messages[0 if system is None else 1]
    first_question["content"] = [{"type": "image"}] * images + first_question["content"]
    return messages


def _message(role: str, text: str) -> dict[str, Any]:
    return {"role": role, "content": [{"type": "text", "text": text}]}


def _record_region(name: str, record: Mapping[str, Any], path: str) -> dict[str, Any]:
    """The union of `objects.bbox` in pixels, where a record brings its own boxes."""
    objects = record.get("objects") or {}
    boxes = objects.get("bbox") or [] if isinstance(objects, dict) else None
    if not isinstance(boxes, list):
        raise DataError(f"{name}: objects: expected {{bbox: [[x1, y1, x2, y2], ...]}}, got {objects!r}")
    if not boxes:
        return {}
    if objects.get("bbox_type", "real") != "real":
        raise DataError(f"{name}: objects.bbox_type must be real (pixels), got {objects['bbox_type']!r}")
    try:
        with Image.open(path) as image:
            width, height = image.size
    except (OSError, Image.DecompressionBombError) as error:
        raise DataError(f"{name}: {path}: {error}") from None
    return _checked_region(f"{name}: objects.bbox", boxes, width, height)


def _annotated_region(name: str, annotation: RegionAnnotation) -> dict[str, Any]:
    if annotation.region is None:
        return {"width": annotation.width, "height": annotation.height}
    return _checked_region(name, [annotation.region], annotation.width, annotation.height)


def _checked_region(name: str, boxes: Sequence[Box], width: int, height: int) -> dict[str, Any]:
    """The union of boxes, each of which is put right first: a union of swapped corners would be another region."""
    try:
        region = union_box([sanitize_box(box, width, height) for box in boxes])
    except RegionError as error:
        raise DataError(f"{name}: {error}") from None
    return {"region": list(region), "width": width, "height": height}


# ---- lengths


def _with_lengths(
    rows: Iterator[dict[str, Any]], processor: CropLlavaProcessor, max_length: int
) -> Iterator[dict[str, Any]]:
    """Add `length`: an image's placeholder stands for `token_budget` tokens, so no image needs to be read."""
    check_template(processor)
    tokenizer = processor.tokenizer
    while chunk := list(islice(rows, CHUNK)):
        texts = processor.apply_chat_template([json.loads(row["messages"]) for row in chunk])
        starts_itself = tokenizer.bos_token is not None and texts[0].startswith(tokenizer.bos_token)
        tokens = tokenizer(texts, add_special_tokens=not starts_itself)["input_ids"]
        for row, ids in zip(chunk, tokens, strict=True):
            images = len(row["images"])
            if ids.count(processor.image_token_id) != images:
                raise DataError(
                    f"{row['record']}: the text holds {processor.image_token!r} besides its {images} images"
                )
            row["length"] = len(ids) + images * (processor.token_budget - 1)
            if row["length"] > max_length:
                raise DataError(f"{row['record']}: {row['length']} tokens, above max_length {max_length}")
            yield row


def check_template(processor: CropLlavaProcessor) -> None:
    """Refuse a chat template that does not mark the answers: nothing would be supervised."""
    if not re.search(r"\{%-?\s*generation\s*-?%\}", processor.chat_template or ""):
        raise DataError(
            "chat template: no {% generation %} span marks the answers; give one that has with chat_template=FILE.jinja"
        )


def row_name(row: Mapping[str, Any]) -> str:
    """How a row is called in messages."""
    return f"{row['record']} (sample {row['sample_id'][:12]})"
