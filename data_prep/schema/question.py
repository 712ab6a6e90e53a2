"""Describe one question as its source annotates it, before its region is derived.

public file ─► sources/<reader> ─► Question ─► derive ─► row of the region sidecar
                                        └─ or RecordError ─► line of rejected.jsonl
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from crop_model.regions import Box

from .sample import RegionAnnotation

# pixels: of the image as annotated. unit: fractions of its width and height. padded_square: fractions of the square
# that the image is padded to, as LLaVA writes boxes in text.
BoxFrame = Literal["pixels", "unit", "padded_square"]


class LabelledBox(NamedTuple):
    """Hold a word that was read in an image, or the name of an object in it, with its box."""

    text: str
    box: Sequence[float]


@dataclass(slots=True)
class Question:
    """Hold one question about one image, with every annotation that may lead to its region."""

    image: str  # path relative to the image root; regions refer to this image
    text: str
    answer: str = ""  # to train on; if it is empty, only a localizer learns from the question
    turn: int = 0  # number of the question in its record
    kind: str | None = None  # type of the question, if the source states it
    size: tuple[int, int] | None = None  # width and height that the annotation states
    frame: BoxFrame = "pixels"  # coordinate frame of all boxes here
    boxes: Sequence[Sequence[float]] = ()  # boxes that a person drew, x1, y1, x2, y2, not yet checked
    answers: Sequence[str] = ()  # the correct answers that text in the image may show; the first is preferred
    words: Sequence[LabelledBox] = ()  # text read in the image (OCR), in reading order
    objects: Sequence[LabelledBox] = ()  # named objects
    whole_image: bool = False  # whether the source states that the question needs the whole image
    joined: RegionAnnotation | None = None  # the annotation of the same question in its native source
    flags: Sequence[str] = ()  # defects and doubts that the reader noticed
    other_images: Sequence[str] = ()  # further images of the record


def to_pixels(box: Sequence[float], frame: BoxFrame, width: int, height: int) -> Box:
    """Convert a box to pixels of an image of `width` x `height`, unclipped.

    A padded square is the image with bars that make its shorter side as long as the longer one, L:

        +-----------+  0
        |  padding  |  (L - height) // 2
        +-----------+
        |   image   |            x = u * L - (L - width) // 2
        +-----------+            y = v * L - (L - height) // 2
        |  padding  |
        +-----------+  L
    """
    x1, y1, x2, y2 = box
    if frame == "pixels":
        return x1, y1, x2, y2
    if frame == "unit":
        return x1 * width, y1 * height, x2 * width, y2 * height
    side = max(width, height)
    left, top = (side - width) // 2, (side - height) // 2
    return x1 * side - left, y1 * side - top, x2 * side - left, y2 * side - top
