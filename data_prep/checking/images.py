"""Open the images of a source in several processes, and recognise those of evaluation sets."""

import filecmp
import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
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


Inspect = Callable[[Sequence[ImageTask], Path | None], list[ImageResult]]


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


@contextmanager
def image_pool(workers: int, max_pixels: int, decode: bool) -> Iterator[Inspect]:
    """Yield a function that opens images as `inspect_image` does, in `workers` processes, or in this one if it is 1.

    It takes the tasks and the root, and returns a result for each task, in order.
    """
    expect_large_images()
    context = multiprocessing.get_context("spawn")  # a fork would copy the locks of pyarrow's threads
    with ProcessPoolExecutor(workers, mp_context=context, initializer=expect_large_images) as executor:

        def inspect(tasks: Sequence[ImageTask], root: Path | None) -> list[ImageResult]:
            job = partial(inspect_image, root=root, max_pixels=max_pixels, decode=decode)
            if workers == 1:
                return list(map(job, tasks))
            try:
                return list(executor.map(job, tasks, chunksize=32))
            except BrokenProcessPool:
                raise RunError("a process that opens images was killed") from None

        yield inspect


class Evaluation:
    """Recognise the images that must not be trained on."""

    def __init__(self, names: frozenset[str]) -> None:
        self.names = names  # keys (`image_key`) of images that are known only by name
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
