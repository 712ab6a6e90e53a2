"""Make one row per sample, with its text, images and region, from an annotation record and the region sidecar."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import datasets

from crop_model.regions import Box, RegionError, sanitize_box, union_box
from data_prep.common.errors import DataError, RecordError
from data_prep.files.images import ImageFiles, read_header
from data_prep.schema.data_source import DataSource
from data_prep.schema.records import Turn, conversation, first_text, image_names, read_records, rejected_records
from data_prep.schema.sample import RegionAnnotation, read_regions, sample_id

FEATURES = datasets.Features(
    {
        "sample_id": datasets.Value("string"),
        "record": datasets.Value("string"),  # file, number and id, for messages
        "kind": datasets.Value("string"),  # type of the question, if the record states it
        "question": datasets.Value("string"),
        "answer": datasets.Value("string"),
        "messages": datasets.Value("string"),  # JSON, as chat templates take them
        "images": datasets.List(datasets.Value("string")),  # paths that open
        "region": datasets.List(datasets.Value("float64")),  # pixel xyxy of the first image, before expansion
        "width": datasets.Value("int32"),  # the first image's, if the sidecar states it
        "height": datasets.Value("int32"),
        "length": datasets.Value("int32"),  # tokens with every image's visual tokens
        "bad": datasets.Value("string"),  # why the row cannot be used; not a column of `load_samples`
    }
)


def read_rows(source: DataSource, split_turns: bool) -> Iterator[dict[str, Any]]:
    """Read the rows of one source, without their lengths."""
    table = read_regions(source.regions) if source.regions is not None else None
    name = table.source if table is not None else Path(source.annotations).stem
    files = ImageFiles(source.image_root)
    matched = 0
    skipped = rejected_records(source.annotations, source.regions)
    if skipped:
        print(f"{source.annotations}: {len(skipped)} records skipped, which {source.regions} rejected", flush=True)
    for record_name, record in read_records(source.annotations, skipped):
        empty = dict.fromkeys(FEATURES) | {"record": record_name}
        image_files: list[str] = []
        try:
            image_files = image_names(record_name, record)
            system, turns = conversation(record_name, record, len(image_files))
        except DataError as error:  # without a question, its first text identifies the record
            key = sample_id(name, image_files[0] if image_files else "", 0, first_text(record) or record_name)
            yield empty | {"sample_id": key, "images": image_files, "bad": str(error)}
            continue
        whole = not (split_turns and image_files)
        for first, part in [(0, turns)] if whole else [(number, [turn]) for number, turn in enumerate(turns)]:
            key = sample_id(name, image_files[0] if image_files else "", first, part[0].question)
            messages = json.dumps(chat_messages(system, part, len(image_files)), ensure_ascii=False)
            row = empty | asdict(part[0]) | {"sample_id": key, "messages": messages}
            try:
                row["images"] = [files.path(record_name, image) for image in image_files]
                if image_files:
                    keys = [sample_id(name, image_files[0], first + i, turn.question) for i, turn in enumerate(part)]
                    annotations = [] if table is None else [table.get(key) for key in keys]
                    matched += any(annotations)
                    region = _region_of_turns(record_name, first, annotations)
                    row |= region or _record_region(record_name, record, row["images"][0])
            except DataError as error:
                row |= {"images": image_files, "bad": str(error)}
            yield row
    if table is not None and not matched:
        raise DataError(f"{source.regions}: holds none of the questions of {source.annotations}")


def chat_messages(system: str | None, turns: Sequence[Turn], images: int) -> list[dict[str, Any]]:
    """Build a conversation for a chat template: the images, then the first question."""
    messages = [] if system is None else [_message("system", system)]
    for turn in turns:
        messages += [_message("user", turn.question), _message("assistant", turn.answer)]
    first_question = messages[0 if system is None else 1]
    first_question["content"] = [{"type": "image"}] * images + first_question["content"]
    return messages


def _message(role: str, text: str) -> dict[str, Any]:
    return {"role": role, "content": [{"type": "text", "text": text}]}


def _record_region(name: str, record: Mapping[str, Any], path: str) -> dict[str, Any]:
    """Return the union of `objects.bbox` in pixels, if the record has boxes."""
    objects = record.get("objects") or {}
    boxes = objects.get("bbox") or [] if isinstance(objects, dict) else None
    if not isinstance(boxes, list):
        raise DataError(f"{name}: objects: expected {{bbox: [[x1, y1, x2, y2], ...]}}, got {objects!r}")
    if not boxes:
        return {}
    if objects.get("bbox_type", "real") != "real":
        raise DataError(f"{name}: objects.bbox_type must be real (pixels), got {objects['bbox_type']!r}")
    try:
        header = read_header(Path(path), max_pixels=None)
    except RecordError as error:
        raise DataError(f"{name}: {error}") from None
    return _checked_region(f"{name}: objects.bbox", boxes, header.width, header.height)


def _region_of_turns(name: str, first: int, annotations: Sequence[RegionAnnotation | None]) -> dict[str, Any]:
    """Return the union of the regions of questions `first`, `first + 1`, ...; no region if one needs the whole image.

    The result is empty if the sidecar has none of the questions.
    """
    known = [annotation for annotation in annotations if annotation is not None]
    if not known:
        return {}
    width, height = known[0].width, known[0].height
    boxes = []
    for number, annotation in enumerate(annotations, start=first):
        if annotation is None or annotation.region is None:
            return {"region": None, "width": width, "height": height}
        boxes.append(_checked_region(f"{name}: question {number}", [annotation.region], width, height)["region"])
    return {"region": list(union_box(boxes)), "width": width, "height": height}


def _checked_region(name: str, boxes: Sequence[Box], width: int, height: int) -> dict[str, Any]:
    """Return the union of boxes, each sanitised first: a union of swapped corners would be another region."""
    try:
        region = union_box([sanitize_box(box, width, height) for box in boxes])
    except RegionError as error:
        raise DataError(f"{name}: {error}") from None
    return {"region": list(region), "width": width, "height": height}


def row_name(row: Mapping[str, Any]) -> str:
    """Return the name of a row in messages."""
    return f"{row['record']} (sample {row['sample_id'][:12]})"
