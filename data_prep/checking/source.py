"""Check one source before training: its records as the trainer reads them, their images and their sidecar."""

from array import array
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from data_prep.common.errors import DataError
from data_prep.derivation.text_boxes import FrameTest, find_boxes
from data_prep.files.images import ImageFiles, existing_image
from data_prep.schema.data_source import DataSource
from data_prep.schema.records import (
    NoAnswerError,
    Turn,
    conversation,
    image_names,
    named_record,
    record_stream,
    rejected_records,
)
from data_prep.schema.sample import sample_id

from .findings import Findings, SidecarRows, check_sidecar, hash64
from .images import Evaluation, ImageResult, ImageTask, Inspect

BATCH = 4096  # images opened together


class SourceCheck:
    """Check one source of a configuration; after `run`, `findings` and `frame` hold the results.

    Args:
        role: `train_data` or `eval_data`.
        evaluation: images that must not be trained on; the images of `eval_data` are added.
    """

    def __init__(self, source: DataSource, role: str, evaluation: Evaluation, inspect: Inspect) -> None:
        self.source, self.role, self.evaluation, self.inspect = source, role, evaluation, inspect
        self.root = ImageFiles(source.image_root).root
        self.name = Path(source.annotations).stem
        self.findings, self.frame = Findings(), FrameTest()
        self.images: set[int] = set()
        # per question: hashes of its sample_id, of image and text, of its answer; number of its record, whether only a
        # sidecar can give its region
        self.questions = array("Q")
        self.opened = array("Q")  # per image that opened: its hash, number of its record, width, height

    def run(self) -> None:
        """Read everything once: the sidecar, then the records with their images."""
        regions = self.source.regions
        sidecar = None if regions is None else check_sidecar(Path(regions), self.findings)
        if sidecar is not None:
            self.name = sidecar.manifest["source"]
        tasks: list[ImageTask] = []
        for number, name, record in self._records():
            tasks += self._add_record(number, name, record)
            if len(tasks) >= BATCH:
                self._open(tasks)
                tasks = []
        self._open(tasks)
        if not self.questions and "annotations" not in self.findings.counts:
            self.findings.add("annotations", f"{self.source.annotations}: no samples")
        self._compare(sidecar)

    def _records(self) -> Iterator[tuple[int, str, dict[str, Any]]]:
        """Yield (number, name for messages, record); anything that is not a record is counted and skipped."""
        annotations, findings = self.source.annotations, self.findings
        try:
            stream = record_stream(annotations)
            with tqdm(total=stream.size, desc=annotations, unit_scale=True, disable=None) as bar:
                skipped = rejected_records(annotations, self.source.regions)
                for number, raw in enumerate(stream):
                    bar.update(stream.position() - bar.n)
                    if number in skipped:
                        findings.add("left_out", f"{annotations}: record {number}")
                        continue
                    findings.totals["records"] += 1
                    try:
                        yield number, *named_record(annotations, number, raw)
                    except DataError as error:
                        findings.add("record", str(error))
        except DataError as error:
            findings.add("annotations", str(error))

    def _add_record(self, number: int, name: str, record: Mapping[str, Any]) -> list[ImageTask]:
        """Add the questions of a record; return the images to open for it."""
        totals = self.findings.totals
        try:
            images = image_names(name, record)
            _, turns = conversation(name, record, len(images))
        except DataError as error:
            self.findings.add("empty_answer" if isinstance(error, NoAnswerError) else "record", str(error))
            return []
        if not images:
            totals["text-only records"] += 1
            self._add_question(number, sample_id(self.name, "", 0, turns[0].question), "", turns[0], False)
            return []
        totals["multi-image records"] += len(images) > 1
        boxes = self._record_boxes(name, record)
        for turn_number, turn in enumerate(turns):
            key = sample_id(self.name, images[0], turn_number, turn.question)
            self._add_question(number, key, images[0], turn, not boxes)
        text_boxes = [box for turn in turns for box in find_boxes(f"{turn.question} {turn.answer}")]
        first = self._task(number, name, images[0])._replace(boxes=boxes, text_boxes=text_boxes)
        others = [self._task(number, name, image) for image in images[1:]]
        return [task for task in (first, *others) if task.new or task.boxes or task.text_boxes]

    def _add_question(self, number: int, key: str, image: str, turn: Turn, needs_row: bool) -> None:
        self.findings.totals["questions"] += 1
        hashes = hash64(key), hash64(image, turn.question), hash64(turn.answer)
        self.questions.extend((*hashes, number, needs_row))

    def _record_boxes(self, name: str, record: Mapping[str, Any]) -> list[Any]:
        """Return `objects.bbox`, from which the trainer makes a region; it supports only pixels."""
        objects = record.get("objects") or {}
        boxes = objects.get("bbox") or [] if isinstance(objects, dict) else None
        if not isinstance(boxes, list):
            self.findings.add("record_boxes", f"{name}: objects: expected {{bbox: [[x1, y1, x2, y2], ...]}}")
        elif boxes and objects.get("bbox_type", "real") != "real":
            self.findings.add("record_boxes", f"{name}: objects.bbox_type must be real, got {objects['bbox_type']!r}")
        else:
            return boxes
        return []

    def _task(self, number: int, name: str, image: str) -> ImageTask:
        key = hash64(image)
        new = key not in self.images
        self.images.add(key)
        self.findings.totals["images"] += new
        return ImageTask(number, name, image, new)

    def _open(self, tasks: Sequence[ImageTask]) -> None:
        for task, result in zip(tasks, self.inspect(tasks, self.root), strict=True):
            if result.header is not None:
                self.frame.add(task.text_boxes, result.header.width, result.header.height)
            if result.box_error is not None:
                self.findings.add("record_boxes", f"{task.record}: objects.bbox: {result.box_error}")
            if task.new:
                self._add_image(task, result)

    def _add_image(self, task: ImageTask, result: ImageResult) -> None:
        if result.header is None:
            check, message = result.error
            self.findings.add(check, f"{task.record}: {message}")
            return
        self.opened.extend((hash64(task.image), task.number, result.header.width, result.header.height))
        for flag in result.header.flags:
            self.findings.add(flag, f"{task.record}: {task.image}")
        path = existing_image(self.root, task.image)
        if self.role == "eval_data":
            self.evaluation.add(task.image, path)
        elif leak := self.evaluation.check(task.image, path):
            self.findings.add(leak, f"{task.record}: {task.image}")

    # ---- comparisons over the whole source

    def _add_records(self, check: str, records: np.ndarray, note: str = "") -> None:
        """Count as many findings as there are numbers of records."""
        if len(records):
            self.findings.add(check, f"{self.source.annotations}: record {records[0]}{note}", len(records))

    def _compare(self, sidecar: SidecarRows | None) -> None:
        findings, regions = self.findings, self.source.regions
        ids, pairs, answers, records, needs_row = np.array(self.questions).reshape(-1, 5).T
        self._add_records("duplicate_sample", np.delete(records, np.unique(ids, return_index=True)[1]))
        _, first, number = np.unique(pairs, return_index=True, return_inverse=True)
        self._add_records("answer_conflict", records[answers != answers[first[number]]])
        has_row = np.isin(ids, sidecar.ids) if sidecar is not None else np.zeros(len(ids), bool)
        self._add_records("no_region", records[~has_row & (needs_row > 0)])
        if sidecar is None:
            return
        unused = int((~np.isin(sidecar.ids, ids)).sum())
        if unused:
            findings.add("unused_row", f"{regions}: {unused} of {len(sidecar.ids)} rows", unused)
        if len(ids) and unused == len(sidecar.ids):
            findings.add("foreign_sidecar", f"{regions}: holds none of the questions of {self.source.annotations}")
        self._compare_sizes(sidecar)
        stated = {**sidecar.manifest.get("arguments", {}), **sidecar.manifest.get("measured", {})}.get("frame")
        if stated == "padded_square" and self.frame.frame == "unit":  # the other direction would prove nothing
            boxes = f"{self.frame.violations} of {self.frame.boxes} boxes in text"
            findings.add("frame_mismatch", f"{regions}: frame padded_square, but {boxes} cannot be on it")

    def _compare_sizes(self, sidecar: SidecarRows) -> None:
        """Find rows with another size than their image's file."""
        images = np.array(self.opened).reshape(-1, 4)
        images = images[np.argsort(images[:, 0])]
        position = np.searchsorted(images[:, 0], sidecar.images)
        known = np.flatnonzero(np.isin(sidecar.images, images[:, 0]))
        files, stated = images[position[known]], sidecar.sizes[known]
        bad = (files[:, 2:] != stated).any(1)
        if bad.any():
            file, row = ("x".join(map(str, sizes[bad][0])) for sizes in (files[:, 2:], stated))
            self._add_records("size_mismatch", files[bad, 1], f": the image is {file}, the sidecar states {row}")
