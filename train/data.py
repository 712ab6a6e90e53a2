"""A table of samples, one row a question, checked before any image is read or any model loaded.

    annotations ─► data_prep.records ─► rows ─► datasets' cache ─► train.collator
          region sidecar, by sample_id ─┘   └─► bad ones: raised, or handed over to be skipped

Every question with an image is a sample of its own, since each has a region of its own, unless conversations are asked
for whole; one without images always stays whole. Rows hold paths and text. The table of a source is written to disk
once, as it is read, and mapped into memory by every process. All errors are `DataError`s that name file and record.
"""

import json
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import datasets
from datasets.exceptions import DatasetGenerationError
from datasets.fingerprint import Hasher
from PIL import Image

from crop_model.processing_crop_llava import CropLlavaProcessor
from crop_model.regions import Box, RegionError, sanitize_box, union_box
from data_prep import images, records
from data_prep.data_source import DataSource, existing_paths
from data_prep.images import FORMATS, ImageFiles
from data_prep.records import Turn, conversation, first_text, image_names, read_records, rejected_records
from data_prep.sample import DataError, RegionAnnotation, read_regions, sample_id

from .quarantine import BadSample

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
        "bad": datasets.Value("string"),  # why it cannot be used; not in the tables that leave this file
    }
)


def load_samples(
    sources: Sequence[DataSource],
    processor: CropLlavaProcessor,
    max_length: int,
    seed: int = 0,
    split_turns: bool = True,
    bad: list[BadSample] | None = None,
) -> datasets.Dataset:
    """Read, check and count every sample of `sources`, with the columns of `FEATURES`.

    Args:
        sources: what to read; a source's weight repeats or thins its samples.
        processor: its chat template and token budget give the lengths.
        max_length: the longest sample allowed, in tokens.
        seed: of the choice that a weight that is not whole makes.
        split_turns: each question about an image is a sample with its own region. False: a conversation is one sample,
            its region the union of its questions' - none, if one of them has none.
        bad: takes up the samples that cannot be used; None: the first one is an error.

    Raises:
        DataError: an unreadable file, a sidecar that fits no sample, a source without a good sample; and, where `bad`
            is None, a record without question or answer, an image missing or outside its root, a region outside its
            image, a sample too long.
    """
    check_template(processor)
    parts = []
    for source in sources:
        table = _read_source(source, processor, max_length, split_turns, raises=bad is None)
        reasons = table["bad"][:]
        refused = [index for index, reason in enumerate(reasons) if reason is not None]
        if len(refused) == len(table):
            raise DataError(f"{source.annotations}: no samples" if not refused else reasons[0])
        if refused and bad is None:  # read by a run that skips
            raise DataError(reasons[refused[0]])
        if bad is not None:
            bad += [bad_sample(row, row["bad"]) for row in table.select(refused)]
        good = [index for index, reason in enumerate(reasons) if reason is None]
        part = table.remove_columns("bad").select(good)
        parts.append(part.select(_weighted_indices(len(part), source.weight, seed)))
    return datasets.concatenate_datasets(parts)


def bad_sample(row: Mapping[str, Any], reason: str) -> BadSample:
    """A row's line in the quarantine."""
    return BadSample(row["sample_id"], row["images"][0] if row["images"] else "", reason)


def _read_source(
    source: DataSource, processor: CropLlavaProcessor, max_length: int, split_turns: bool, raises: bool
) -> datasets.Dataset:
    """All rows of a source, good and bad; from the cache of `datasets`, if nothing they are made of has changed.

    Image files are not among what is watched: their number may be millions.
    """
    files = [source.annotations] if source.regions is None else [source.annotations, source.regions]
    code = [Path(str(module)).read_bytes() for module in (__file__, records.__file__, images.__file__)]
    tokenizer = json.loads(processor.tokenizer.backend_tokenizer.to_str()) | {"padding": None, "truncation": None}
    made_of = [asdict(source) | {"weight": None}, [file_stamps(file) for file in files], code, tokenizer]
    made_of += [
        str(Path(source.image_root or "").absolute()),
        processor.chat_template,
        processor.image_token,
        processor.token_budget,
        max_length,
        split_turns,
    ]
    try:
        return datasets.Dataset.from_generator(
            partial(_read, source, processor, max_length, split_turns, raises),
            features=FEATURES,
            fingerprint=Hasher.hash(made_of),
        )
    except DatasetGenerationError as error:
        if isinstance(error.__cause__, DataError):
            raise error.__cause__ from None
        raise


def file_stamps(pattern: str) -> list[tuple[str, int, int]]:
    """Name, size and time of every file of a file, folder or glob; of a Hub name, which is none of these, nothing."""
    paths = [
        file for path in existing_paths(pattern) for file in (sorted(path.rglob("*")) if path.is_dir() else [path])
    ]
    return [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in paths if path.is_file()]


def _read(
    source: DataSource, processor: CropLlavaProcessor, max_length: int, split_turns: bool, raises: bool
) -> Iterator[dict[str, Any]]:
    """The rows with their lengths; with `raises`, up to the first bad one."""
    row = None
    for row in with_lengths(_rows(source, split_turns), processor, max_length):
        if raises and row["bad"] is not None:
            raise DataError(row["bad"])
        yield row
    if row is None:
        raise DataError(f"{source.annotations}: no samples")


def _weighted_indices(count: int, weight: float, seed: int) -> list[int]:
    """Every sample floor(weight) times, and a fixed choice of them once more for what is left of the weight."""
    whole, rest = divmod(weight, 1)
    extra = random.Random(seed).sample(range(count), round(rest * count))
    return sorted([*range(count)] * int(whole) + extra)


# ---- rows


def _rows(source: DataSource, split_turns: bool) -> Iterator[dict[str, Any]]:
    """The rows of one source, without their lengths."""
    table = read_regions(source.regions) if source.regions is not None else None
    name = table.source if table is not None else Path(source.annotations).stem
    files = ImageFiles(source.image_root)
    matched = 0
    left_out = rejected_records(source.annotations, source.regions)
    if left_out:
        print(
            f"{source.annotations}: {len(left_out)} records passed over, as {source.regions} rejected them", flush=True
        )
    for record_name, record in read_records(source.annotations, left_out):
        empty = dict.fromkeys(FEATURES) | {"record": record_name}
        image_files: list[str] = []
        try:
            image_files = image_names(record_name, record)
            system, turns = conversation(record_name, record, len(image_files))
        except DataError as error:  # a record that makes no sample has no question to be known by, but its first text
            key = sample_id(name, image_files[0] if image_files else "", 0, first_text(record) or record_name)
            yield empty | {"sample_id": key, "images": image_files, "bad": str(error)}
            continue
        whole = not (split_turns and image_files)
        for first, asked in [(0, turns)] if whole else [(number, [turn]) for number, turn in enumerate(turns)]:
            key = sample_id(name, image_files[0] if image_files else "", first, asked[0].question)
            row = empty | {"sample_id": key} | _texts(asked[0], chat_messages(system, asked, len(image_files)))
            try:
                row["images"] = [files.path(record_name, image) for image in image_files]
                if image_files:
                    keys = [sample_id(name, image_files[0], first + i, turn.question) for i, turn in enumerate(asked)]
                    found = [] if table is None else [table.get(key) for key in keys]
                    matched += any(found)
                    place = _region_of_turns(record_name, first, found)
                    row |= place or _record_region(record_name, record, row["images"][0])
            except DataError as error:
                row |= {"images": image_files, "bad": str(error)}
            yield row
    if table is not None and not matched:
        raise DataError(f"{source.regions}: holds none of the questions of {source.annotations}")


def _texts(turn: Turn, messages: list[dict[str, Any]]) -> dict[str, Any]:
    text = json.dumps(messages, ensure_ascii=False)
    return {"kind": turn.kind, "question": turn.question, "answer": turn.answer, "messages": text}


def chat_messages(system: str | None, turns: Sequence[Turn], images: int) -> list[dict[str, Any]]:
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
        with Image.open(path, formats=FORMATS) as image:
            width, height = image.size
    except (OSError, Image.DecompressionBombError) as error:
        raise DataError(f"{name}: {path}: {error}") from None
    return _checked_region(f"{name}: objects.bbox", boxes, width, height)


def _region_of_turns(name: str, first: int, found: Sequence[RegionAnnotation | None]) -> dict[str, Any]:
    """The union of the regions of questions `first`, `first + 1`, ...: none, where one of them takes the whole image.

    Nothing at all, where the sidecar knows none of the questions.
    """
    known = [annotation for annotation in found if annotation is not None]
    if not known:
        return {}
    width, height = known[0].width, known[0].height
    boxes = []
    for number, annotation in enumerate(found, start=first):
        if annotation is None or annotation.region is None:
            return {"region": None, "width": width, "height": height}
        boxes.append(_checked_region(f"{name}: question {number}", [annotation.region], width, height)["region"])
    return {"region": list(union_box(boxes)), "width": width, "height": height}


def _checked_region(name: str, boxes: Sequence[Box], width: int, height: int) -> dict[str, Any]:
    """The union of boxes, each of which is put right first: a union of swapped corners would be another region."""
    try:
        region = union_box([sanitize_box(box, width, height) for box in boxes])
    except RegionError as error:
        raise DataError(f"{name}: {error}") from None
    return {"region": list(region), "width": width, "height": height}


# ---- lengths


def with_lengths(
    rows: Iterator[dict[str, Any]], processor: CropLlavaProcessor, max_length: int
) -> Iterator[dict[str, Any]]:
    """Add `length`: an image's placeholder stands for `token_budget` tokens, so no image needs to be read."""
    while chunk := list(islice(rows, CHUNK)):
        good = [row for row in chunk if row["bad"] is None]
        for row, ids in zip(good, _tokenize([row["messages"] for row in good], processor), strict=True):
            count = len(row["images"])
            row["length"] = len(ids) + count * (processor.token_budget - 1)
            if ids.count(processor.image_token_id) != count:
                row["bad"] = f"{row['record']}: the text holds {processor.image_token!r} besides its {count} images"
            elif row["length"] > max_length:
                row["bad"] = f"{row['record']}: {row['length']} tokens, above max_length {max_length}"
        yield from chunk


def _tokenize(messages: Sequence[str], processor: CropLlavaProcessor) -> list[list[int]]:
    if not messages:
        return []
    texts = processor.apply_chat_template([json.loads(text) for text in messages])
    tokenizer = processor.tokenizer
    starts_itself = tokenizer.bos_token is not None and texts[0].startswith(tokenizer.bos_token)
    return tokenizer(texts, add_special_tokens=not starts_itself)["input_ids"]


def check_template(processor: CropLlavaProcessor) -> None:
    """Refuse a chat template that does not mark the answers: nothing would be supervised."""
    if not re.search(r"\{%-?\s*generation\s*-?%\}", processor.chat_template or ""):
        raise DataError(
            "chat template: no {% generation %} span marks the answers; give one that has with chat_template=FILE.jinja"
        )


def row_name(row: Mapping[str, Any]) -> str:
    """How a row is called in messages."""
    return f"{row['record']} (sample {row['sample_id'][:12]})"
