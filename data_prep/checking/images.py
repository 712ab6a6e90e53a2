"""Opening the images of a source in several processes, and telling those of evaluation sets."""

import filecmp
import multiprocessing
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from crop_model.regions import RegionError, sanitize_box, union_box
from data_prep.common.errors import RecordError, RunError
from data_prep.derivation.joins import image_key
from data_prep.files.images import ImageHeader, existing_image, expect_large_images, read_header


class ImageTask(NamedTuple):
    """An image to open: the record's number and name, the path as the record writes it, whether it is new in this
    source, and boxes to check against its size (`boxes`: pixels) or to take for the frame test (`text_boxes`)."""

    number: int
    record: str
    image: str
    new: bool
    boxes: Sequence[Any] = ()
    text_boxes: Sequence[Sequence[float]] = ()


class Seen(NamedTuple):
    """What an image turned out to be: its header, or else why there is none; and what is wrong with the boxes."""

    header: ImageHeader | None
    error: tuple[str, str] = ("", "")  # check, message
    box_error: str | None = None


def look(task: ImageTask, root: Path | None, max_pixels: int, decode: bool) -> Seen:
    """Opens one image."""
    try:
        header = read_header(existing_image(root, task.image), max_pixels, decode and task.new)
    except RecordError as error:
        return Seen(None, (error.reason, str(error)))
    try:
        if task.boxes:
            union_box([sanitize_box(box, header.width, header.height) for box in task.boxes])
    except RegionError as error:
        return Seen(header, box_error=str(error))
    return Seen(header)


class ImagePool:
    """Processes that open images; none besides this one where `workers` is 1."""

    def __init__(self, workers: int, max_pixels: int, decode: bool) -> None:
        self.max_pixels, self.decode = max_pixels, decode
        self.executor: ProcessPoolExecutor | None = None
        if workers > 1:  # a fork would copy the locks of pyarrow's threads
            context = multiprocessing.get_context("spawn")
            self.executor = ProcessPoolExecutor(workers, mp_context=context, initializer=expect_large_images)

    def __enter__(self) -> "ImagePool":
        expect_large_images()
        return self

    def __exit__(self, *error: object) -> None:
        if self.executor is not None:
            self.executor.shutdown(cancel_futures=True)

    def look(self, tasks: Sequence[ImageTask], root: Path | None) -> Iterable[Seen]:
        """What `look` says of each task, in order."""
        job = partial(look, root=root, max_pixels=self.max_pixels, decode=self.decode)
        if self.executor is None:
            return map(job, tasks)
        try:
            return list(self.executor.map(job, tasks, chunksize=32))
        except BrokenProcessPool:
            raise RunError("a process that opens images was killed") from None


class Evaluation:
    """The images that must not be trained on.

    Args:
        names: keys (`data_prep.derivation.joins.image_key`) of images known by name alone.
    """

    def __init__(self, names: frozenset[str]) -> None:
        self.names = names
        self.files: dict[str, list[Path]] = {}  # of eval_data, by key

    def add(self, image: str, path: Path) -> None:
        self.files.setdefault(image_key(image), []).append(path)

    def check(self, image: str, path: Path) -> str | None:
        """The check that a training image fails. Files at hand of one name are compared: many sets number theirs."""
        key = image_key(image)
        if key in self.names:
            return "evaluation_image"
        if key not in self.files:
            return None
        same = any(path == other or filecmp.cmp(path, other, shallow=False) for other in self.files[key])
        return "evaluation_image" if same else "evaluation_name"
