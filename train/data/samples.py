"""Load a table of samples, one row per question, checked before any image is read or any model loaded.

    annotations ─► data_prep.schema.records ─► rows ─► datasets' cache ─► train.data.collator
          region sidecar, by sample_id ─┘   └─► bad rows: raised, or passed on to be skipped

Every question with an image is a separate sample, because each has its own region, unless whole conversations are
requested; a conversation without images always stays whole. Rows hold paths and text. The table of a source is written
to disk once, while it is read, and mapped into memory by every process. All errors are `DataError`s that name file and
record.
"""

import json
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import datasets
from datasets.exceptions import DatasetGenerationError
from datasets.fingerprint import Hasher

from crop_model.processing_crop_llava import CropLlavaProcessor
from data_prep.common.errors import DataError
from data_prep.files import images
from data_prep.schema import records
from data_prep.schema.data_source import DataSource, existing_paths

from . import lengths, rows
from .lengths import check_template, with_lengths
from .quarantine import BadSample
from .rows import FEATURES, read_rows

ASSISTANT = '"role": "assistant"'  # in `messages`, whose quotes inside texts are escaped


@dataclass(frozen=True)
class SourceCount:
    """Count the records of one source and, its weight applied, their samples with and without split_turns."""

    records: int
    split: int
    whole: int


def load_samples(
    sources: Sequence[DataSource],
    processor: CropLlavaProcessor,
    max_length: int,
    seed: int = 0,
    split_turns: bool = True,
    bad: list[BadSample] | None = None,
    counts: list[SourceCount] | None = None,
) -> datasets.Dataset:
    """Read, check and count every sample of `sources`, with the columns of `FEATURES`.

    Args:
        sources: the data sets to read; a source's weight repeats or thins its samples.
        processor: gives the lengths by its chat template and token budget.
        max_length: the longest allowed sample, in tokens.
        seed: seed of the choice that a fractional weight makes.
        split_turns: each question about an image is a sample with its own region. False: a conversation is one sample,
            with the union of its questions' regions, or none if one of them has none.
        bad: receives the samples that cannot be used; None: the first one is an error.
        counts: receives the counts of each source; nothing is tokenized for them.

    Raises:
        DataError: an unreadable file, a sidecar that fits no sample, a source without a good sample; and, if `bad` is
            None, a record without question or answer, an image missing or outside its root, a region outside its
            image, a sample that is too long.
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
        if counts is not None:
            counts.append(_count(part, source.weight, split_turns))
        parts.append(part.select(_weighted_indices(len(part), source.weight, seed)))
    return datasets.concatenate_datasets(parts)


def bad_sample(row: Mapping[str, Any], reason: str) -> BadSample:
    """Return the quarantine's line for a row."""
    return BadSample(row["sample_id"], row["images"][0] if row["images"] else "", reason)


def _read_source(
    source: DataSource, processor: CropLlavaProcessor, max_length: int, split_turns: bool, raises: bool
) -> datasets.Dataset:
    """Read all rows of a source, good and bad, from the cache of `datasets` if none of their inputs has changed.

    Image files do not count as inputs: there may be millions of them.
    """
    files = [source.annotations] if source.regions is None else [source.annotations, source.regions]
    code = [
        Path(str(module)).read_bytes()
        for module in (__file__, rows.__file__, lengths.__file__, records.__file__, images.__file__)
    ]
    tokenizer = json.loads(processor.tokenizer.backend_tokenizer.to_str()) | {"padding": None, "truncation": None}
    inputs = [asdict(source) | {"weight": None}, [file_stamps(file) for file in files], code, tokenizer]
    inputs += [
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
            fingerprint=Hasher.hash(inputs),
        )
    except DatasetGenerationError as error:
        if isinstance(error.__cause__, DataError):
            raise error.__cause__ from None
        raise


def file_stamps(pattern: str) -> list[tuple[str, int, int]]:
    """Return name, size and time of every file of a file, folder or glob; nothing for a Hub name, which is none."""
    paths = [
        file for path in existing_paths(pattern) for file in (sorted(path.rglob("*")) if path.is_dir() else [path])
    ]
    return [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in paths if path.is_file()]


def _read(
    source: DataSource, processor: CropLlavaProcessor, max_length: int, split_turns: bool, raises: bool
) -> Iterator[dict[str, Any]]:
    """Yield the rows with their lengths; with `raises`, the first bad one is an error."""
    row = None
    for row in with_lengths(read_rows(source, split_turns), processor, max_length):
        if raises and row["bad"] is not None:
            raise DataError(row["bad"])
        yield row
    if row is None:
        raise DataError(f"{source.annotations}: no samples")


def _count(rows: datasets.Dataset, weight: float, split_turns: bool) -> SourceCount:
    records = len(set(rows["record"][:]))
    turns = len(rows)
    if not split_turns:
        columns = rows.select_columns(["messages", "images"])
        turns = sum(row["messages"].count(ASSISTANT) if row["images"] else 1 for row in columns)
    return SourceCount(records, *(len(_weighted_indices(count, weight, 0)) for count in (turns, records)))


def _weighted_indices(count: int, weight: float, seed: int) -> list[int]:
    """Repeat every sample floor(weight) times, and a fixed choice once more for the fraction of the weight."""
    whole, rest = divmod(weight, 1)
    extra = random.Random(seed).sample(range(count), round(rest * count))
    return sorted([*range(count)] * int(whole) + extra)
