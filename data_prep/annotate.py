"""Derive the region sidecar of a public source from the files that it publishes.

    python -m data_prep.annotate CONFIG.yaml [key=value ...]       --help source=gqa lists the keys of one source too
    python -m data_prep.annotate CONFIG.yaml --shard i/n           on machine i of n that share a file system
    torchrun ... --module data_prep.annotate CONFIG.yaml           the same by the launcher's RANK and WORLD_SIZE
    srun bash -c 'python -m data_prep.annotate CONFIG.yaml --shard $SLURM_PROCID/$SLURM_NTASKS'

    out/part-00000.parquet ...  manifest.json     the sidecar (data_prep.schema.sample)
        rejected.jsonl                            unusable records: record, reason, message, image, question
        samples/part-00000.parquet ...            the questions for the trainer, unless it reads the source's own file

Run again after an interruption, it only does what is missing. The bytes that it writes depend on input and arguments
alone, not on workers, machines or interruptions. The process that completes the last shard assembles the sidecar.
"""

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields
from itertools import islice
from pathlib import Path
from typing import Any

from data_prep.common.command_line import command, peek_value
from data_prep.common.errors import ConfigError, DataError, RecordError
from data_prep.common.fill import Checked, key
from data_prep.derivation.derive import derive
from data_prep.derivation.joins import image_key, read_image_names
from data_prep.files.images import (
    MAX_IMAGE_PIXELS,
    ImageHeader,
    existing_image,
    expect_large_images,
    image_path,
    read_header,
)
from data_prep.files.lookup import is_text
from data_prep.schema.question import Question
from data_prep.schema.records import IMAGE_TAG
from data_prep.schema.sample import file_hashes, sample_id
from data_prep.work.shards import Work, rejection
from data_prep.work.workers import Progress, run_workers

from .sources import SOURCES, Source

RECORDS_PER_SHARD = 10_000

ANY_ROOT = Path("/images")  # replaces an unknown image root, which a path may not leave either


@dataclass(frozen=True)
class AnnotateArguments(Checked):
    """Choose what to make, and how; the source's reader adds keys of its own."""

    source: str = field(metadata={"help": "The reader of the source.", "choices": tuple(SOURCES)})
    out: str = field(metadata={"help": "The folder of the sidecar; <out>.work beside it holds unfinished work."})
    image_root: str | None = key(None, "The folder that image paths are relative to.")
    name: str | None = key(None, "The name of the source in the sidecar; null: `source`.")
    workers: int = key(os.cpu_count() or 1, "The number of processes on this machine.", default_text="number of CPUs")
    shard: str | None = key(
        None, "The share of this process, i/n: every n-th shard from the i-th on (from 0). null: RANK/WORLD_SIZE."
    )
    images: str = key(
        "header",
        "The check of images. header: open every image for its size; decode: also decode it, which finds truncated "
        "ones; trust: open no image and use the annotated size.",
        choices=("header", "decode", "trust"),
    )
    max_image_pixels: int = key(
        MAX_IMAGE_PIXELS, "The largest image that is used, in pixels; a larger one is rejected."
    )
    exclude_images: list[str] = key(
        list, "The text files of evaluation sets' image names, one per line; questions on these images are rejected."
    )
    prompt: str = key(
        "{question}", "The form of a question in the samples, such as '{question}\\nAnswer with a single word.'"
    )

    def mistakes(self) -> Iterator[str]:
        if self.workers < 1:
            yield f"workers: {self.workers} must be at least 1"
        if "{question}" not in self.prompt:
            yield "prompt: has no {question} in it"
        elif not re.fullmatch(r"{question}(\n(?s:.*)\S)?", self.prompt) or IMAGE_TAG in self.prompt:
            # the trainer strips texts and counts tags; joins know a question by its first line
            yield (f"prompt: {{question}} stands alone on its first line; no {IMAGE_TAG}, no white space at the end")
        if self.prompt != "{question}" and SOURCES[self.source].trains_itself:
            yield f"prompt: the trainer reads {self.source}'s own file, whose questions are as they are"
        if self.image_root is not None and not Path(self.image_root).is_dir():
            yield f"image_root: no such folder: {self.image_root}"
        if self.image_root is None and self.images != "trust":
            yield "image_root: needed to open images; images=trust touches none"
        for path in self.exclude_images:
            if not Path(path).is_file():
                yield f"exclude_images: no such file: {path}"
        try:
            self.share()
        except ConfigError as error:
            yield str(error)

    def share(self) -> tuple[int, int]:
        """Return (i, n): this process does the shards whose number is i modulo n."""
        text = self.shard or f"{os.environ.get('RANK', '0')}/{os.environ.get('WORLD_SIZE', '1')}"
        first, slash, count = text.partition("/")
        if not (slash and first.isdigit() and count.isdigit() and int(first) < int(count)):
            raise ConfigError(f"shard: expected i/n with i below n, got {text!r}")
        return int(first), int(count)


def _kinds(words: Sequence[str]) -> tuple[type, ...]:
    """Return the keys of the command and, once the source is known, those of its reader."""
    reader = SOURCES.get(peek_value(words, "source") or "")
    return (AnnotateArguments, *([reader] if reader else []))


@command("data_prep.annotate", kinds_of=_kinds)
def main(arguments: AnnotateArguments, reader: Source) -> None:
    """Derive the contextual regions of a public source's questions."""
    annotate(arguments, reader)


def annotate(arguments: AnnotateArguments, reader: Source) -> bool:
    """Do this process's share; return True if the sidecar is complete now.

    Raises:
        DataError: unreadable input, or a folder that holds something else.
        RunError: a worker died.
    """
    out, name = Path(arguments.out), arguments.name or arguments.source
    work = Work(out, name, _plan(arguments, reader), RECORDS_PER_SHARD)
    if work.is_done():
        print(f"{out}: complete, nothing to do")
        return True
    root = None if arguments.image_root is None else Path(arguments.image_root).absolute()
    expect_large_images()
    ready = reader.prepare(work.tables, root)
    run_workers(AnnotateJob(work, ready, name, root, arguments), arguments.workers)
    measured = {key: value for key, value in _keys(ready).items() if value != _keys(reader)[key]}
    if not work.finish(samples=not reader.trains_itself, more={"measured": measured} if measured else {}):
        print(f"{out}: this share is done, others are missing")
        return False
    print(work.summary())
    return True


def _plan(arguments: AnnotateArguments, reader: Source) -> dict[str, Any]:
    """Return everything that the bytes of the sidecar depend on."""
    names = ("source", "image_root", "images", "max_image_pixels", "exclude_images", "prompt")
    settings = {key: getattr(arguments, key) for key in names}
    inputs = [*reader.files(), *map(Path, arguments.exclude_images)]
    return {"arguments": settings | _keys(reader), "inputs": file_hashes(inputs)}


def _keys(reader: Source) -> dict[str, Any]:
    """Return the reader's keys of the configuration."""
    return {item.name: getattr(reader, item.name) for item in fields(reader) if item.init}


@dataclass(frozen=True)
class AnnotateJob:
    """Annotate shards in a worker."""

    work: Work
    reader: Source
    name: str
    root: Path | None
    arguments: AnnotateArguments

    def run(self, worker: int, workers: int) -> Iterator[Progress]:
        """Annotate every missing shard that belongs to `worker` of `workers`; yield after each shard."""
        expect_large_images()
        first, count = self.arguments.share()
        excluded = read_image_names(self.arguments.exclude_images)
        stream, number = self.reader.records(), 0
        while chunk := list(islice(stream, RECORDS_PER_SHARD)):
            done = rejected = 0
            mine = number % count == first and number // count % workers == worker
            if mine and not self.work.has_shard(number):
                rows = ShardRows(self, excluded)
                for index, raw in enumerate(chunk, start=number * RECORDS_PER_SHARD):
                    rows.add_record(index, raw)
                self.work.write_shard(number, rows.rows, rows.rejected)
                done, rejected = len(chunk), len(rows.rejected)
            number += 1
            yield Progress(stream.position(), stream.size, done, rejected)
        if not number:
            raise DataError(f"{', '.join(map(str, self.reader.files()))}: no records")
        self.work.write_count(number)


class ShardRows:
    """Collect the rows of one shard and the rejections of its records."""

    def __init__(self, job: AnnotateJob, excluded: frozenset[str]) -> None:
        self.job, self.excluded = job, excluded
        self.rows: list[tuple[Any, ...]] = []  # columns of SHARD_SCHEMA
        self.rejected: list[dict[str, Any]] = []
        self.headers: dict[str, ImageHeader] = {}  # by image, each of which is opened once

    def add_record(self, number: int, raw: Any) -> None:
        """Add a row or a rejection for every question of a record; a record that is bad as a whole is one rejection."""
        reader = self.job.reader
        try:
            for question in reader.questions(reader.parse(raw)):
                if isinstance(question, RecordError):
                    self._reject(number, question)
                    continue
                try:
                    self._add(number, question)
                except DataError as error:
                    self._reject(number, error, question)
        except DataError as error:
            self._reject(number, error)

    def _add(self, number: int, question: Question) -> None:
        text, answer = question.text.strip(), question.answer.strip()
        if not text:
            raise RecordError("no_question", "the question has no text")
        if IMAGE_TAG in text + answer:
            raise RecordError("image_tag", f"the text holds {IMAGE_TAG}, which stands for an image")
        if not all(map(is_text, (question.image, text, answer, question.kind or ""))):
            raise RecordError("not_unicode", "the text holds half of a surrogate pair, which no file can hold")
        images = (question.image, *question.other_images)
        if self.excluded and any(image_key(image) in self.excluded for image in images):
            raise RecordError("evaluation_image", "the image is of an evaluation set (exclude_images)")
        header = self._header(question.image, question.size)
        for image in question.other_images:
            self._header(image, question.size)
        region = derive(question, header.width, header.height)
        text = self.job.arguments.prompt.replace("{question}", text)
        # a sample is one question, which is the first of its record for the trainer
        turn = question.turn if self.job.reader.trains_itself or not answer else 0
        row = (
            sample_id(self.job.name, question.image, turn, text),
            self.job.name,
            question.image,
            turn,
            text,
            header.width,
            header.height,
            region.boxes,
            region.region,
            region.method,
            region.score,
            sorted({*region.flags, *header.flags}) if header.flags else region.flags,
            answer,
            question.kind,
            images,
            number,
        )
        self.rows.append(row)

    def _header(self, image: str, stated: tuple[int, int] | None) -> ImageHeader:
        arguments, root = self.job.arguments, self.job.root
        if arguments.images == "trust":
            image_path(root or ANY_ROOT, image)
            if stated is None:
                raise RecordError("no_size", "the annotation states no size of the image; images=header opens it")
            return ImageHeader(*stated)
        header = self.headers.get(image)
        if header is None:
            path = existing_image(root, image)
            header = read_header(path, arguments.max_image_pixels, arguments.images == "decode")
            self.headers[image] = header
        return header

    def _reject(self, number: int, error: DataError, question: Question | None = None) -> None:
        reason = error.reason if isinstance(error, RecordError) else "record"
        image = question.image if question else error.image if isinstance(error, RecordError) else ""
        text = question.text if question else error.question if isinstance(error, RecordError) else ""
        self.rejected.append(rejection(number, reason, str(error), image, text))


if __name__ == "__main__":
    main()
