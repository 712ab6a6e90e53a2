"""Open the images of a source in several processes, and recognise those of evaluation sets."""

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
    """Name an image to open, as the record writes its path, and whether it is new in this source.

    `boxes` (pixels) are checked against its size, `text_boxes` go to the frame test.
    """

    number: int
    record: str
    image: str
    new: bool
    boxes: Sequence[Any] = ()
    text_boxes: Sequence[Sequence[float]] = ()


class ImageResult(NamedTuple):
    """Hold an image's header, or the check that it failed; and what is wrong with the boxes."""

    header: ImageHeader | None
    error: tuple[str, str] = ("", "")  # check, message
    box_error: str | None = None


def inspect_image(task: ImageTask, root: Path | None, max_pixels: int, decode: bool) -> ImageResult:
    """Open one image."""
    try:
        header = read_header(existing_image(root, task.image), max_pixels, decode and task.new)
    except RecordError as error:
        return ImageResult(None, (error.reason, str(error)))
    try:
        if task.boxes:
            union_box([sanitize_box(box, header.width, header.height) for box in task.boxes])
    except RegionError as error:
        return ImageResult(header, box_error=str(error))
    return ImageResult(header)


class ImagePool:
    """Open images in `workers` processes, or in this one if `workers` is 1."""

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

    def inspect(self, tasks: Sequence[ImageTask], root: Path | None) -> Iterable[ImageResult]:
        """Return the result of `inspect_image` for each task, in order."""
        job = partial(inspect_image, root=root, max_pixels=self.max_pixels, decode=self.decode)
        if self.executor is None:
            return map(job, tasks)
        try:
            return list(self.executor.map(job, tasks, chunksize=32))
        except BrokenProcessPool:
            raise RunError("a process that opens images was killed") from None


class Evaluation:
    """Recognise the images that must not be trained on.

    Args:
        names: keys (`data_prep.derivation.joins.image_key`) of images that are known only by name.
    """

    def __init__(self, names: frozenset[str]) -> None:
        self.names = names
        self.files: dict[str, list[Path]] = {}  # files of eval_data by key

    def add(self, image: str, path: Path) -> None:
        self.files.setdefault(image_key(image), []).append(path)

    def check(self, image: str, path: Path) -> str | None:
        """Return the check that a training image fails. Files of equal names are compared: many sets use numbers."""
        key = image_key(image)
        if key in self.names:
            return "evaluation_image"
        if key not in self.files:
            return None
        same = any(path == other or filecmp.cmp(path, other, shallow=False) for other in self.files[key])
        return "evaluation_image" if same else "evaluation_name"
